//! What is known of statements' shapes, kept for as long as a test wants.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgstar_rewriter::{Known, Rollup, RollupConstants, Shape, Shapes};

#[derive(Default)]
pub struct Memory {
    in_rollups: RollupConstants,
    known: RefCell<HashMap<Shape, Known>>,
    /// How often there was something that held for another statement.
    pub reused: Cell<usize>,
}

impl Memory {
    pub fn of(rollups: &[Rollup]) -> Memory {
        Memory {
            in_rollups: RollupConstants::of(rollups),
            ..Memory::default()
        }
    }
}

impl Shapes for Memory {
    fn in_rollups(&self) -> &RollupConstants {
        &self.in_rollups
    }

    fn find(&self, shape: &Shape) -> Option<Known> {
        let known = self.known.borrow().get(shape).cloned();
        let is_proven = matches!(known, Some(Known::Proven(_)));
        self.reused.set(self.reused.get() + usize::from(is_proven));
        known
    }

    fn keep(&self, shape: Shape, known: Known) {
        self.known.borrow_mut().insert(shape, known);
    }
}
