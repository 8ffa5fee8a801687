//! Random stars, rollups over them, and queries that are nearly or exactly answerable.
//!
//! A statement is a [`Shape`]: lists of texts in which columns are written `{alias.column}` until the form of FROM is
//! chosen; over a sub-select they become `alias_column`, otherwise `alias.column`. Whatever is random about how a shape
//! is written follows from a seed of its own, so that a shape can be made smaller and written again.

mod changes;
mod expressions;
mod forms;
mod render;
mod shape;
mod star;
mod views;

pub use render::Written;
pub use shape::Shape;
pub use star::Star;

/// What a column holds, as far as expressions over it differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Integer,
    Text,
    /// A text whose collation merges different texts.
    Loose,
    Padded,
    Date,
    Timestamp,
    Instant,
    Boolean,
    Scaled,
    Numeric,
    Float,
    Enum,
    Interval,
    Uuid,
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}
