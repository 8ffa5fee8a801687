//! What was learnt on a backend of sessions that begin on it, and holds while a mark of the catalog is the same.
//!
//! It must not know what the questions mean.

use bytes::Bytes;

use super::link::Mark;
use crate::route::SessionFacts;

/// Search paths whose facts are remembered; more are asked for each time.
const PATHS_MAX: usize = 8;

/// Kept with a backend from session to session.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    answers: Option<(Mark, Vec<(&'static str, Bytes)>)>,
    facts: Vec<PathFacts>,
}

#[derive(Debug, Clone)]
struct PathFacts {
    /// The statement that set the path; empty for the path that sessions begin with.
    set_by: Box<str>,
    mark: Mark,
    facts: SessionFacts,
}

impl Learnt {
    /// Remembers answers to statements, given after the mark was asked for.
    pub fn answers_are(&mut self, mark: Mark, answers: Vec<(&'static str, Bytes)>) {
        self.answers = Some((mark, answers));
    }

    /// The answer to the statement of which this is true, and the mark under which it holds.
    pub fn answer(&self, is_it: impl Fn(&str) -> bool) -> Option<(Mark, &Bytes)> {
        let (mark, answers) = self.answers.as_ref()?;
        let answer = answers.iter().find(|(asked, _)| is_it(asked));
        answer.map(|(_, frames)| (*mark, frames))
    }

    /// Remembers the facts of a session whose path was set by this statement, asked for after the mark was.
    pub fn facts_are(&mut self, set_by: &str, mark: Mark, facts: SessionFacts) {
        self.facts.retain(|known| *known.set_by != *set_by);
        if self.facts.len() < PATHS_MAX {
            let set_by = set_by.into();
            self.facts.push(PathFacts {
                set_by,
                mark,
                facts,
            });
        }
    }

    /// The facts of such a session, and the mark under which they hold.
    pub fn facts(&self, set_by: &str) -> Option<(Mark, &SessionFacts)> {
        let known = self.facts.iter().find(|known| *known.set_by == *set_by)?;
        Some((known.mark, &known.facts))
    }
}
