//! Whether anything was committed between two questions: if not, the answer to the second is that to the first.
//!
//! Two snapshots of the same text see the same. A transaction that ends between them was listed in the first as running, or
//! its number was not below the first one's end; then the second does not list it, or ends later. Snapshots of a server in
//! recovery do not list what runs, so nothing is said there. For questions whose answers are made of rows alone: what is
//! reloaded, and what time does, is not seen.

/// The expression that says what its statement sees: text, or NULL in recovery.
pub const VISIBLE: &str =
    "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_snapshot()::text END";

/// The last answer to a question that costs more than to ask whether anything was committed since. Of one connection: another
/// may be to another server.
#[derive(Debug)]
pub struct Remembered<T> {
    last: Option<(Box<str>, T)>,
    is_calm: bool,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Remembered {
            last: None,
            is_calm: false,
        }
    }
}

impl<T> Remembered<T> {
    /// Whether to ask first what is visible: where something is committed all the time the whole question is asked at once.
    pub fn is_calm(&self) -> bool {
        self.is_calm
    }

    /// The last answer, if it is the one that a statement would get that sees this.
    pub fn recall(&mut self, visible: Option<&str>) -> Option<&T> {
        let last = self.last.as_ref();
        let holds = |(seen, _): &&(Box<str>, T)| visible == Some(&**seen);
        let held = last.filter(holds).map(|(_, answer)| answer);
        self.is_calm = held.is_some();
        held
    }

    /// An answer, and what the statement saw that gave it.
    pub fn learn(&mut self, visible: Option<&str>, answer: T) {
        self.is_calm = self.recall(visible).is_some();
        self.last = visible.map(|visible| (visible.into(), answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_while_the_same_is_visible() {
        let mut remembered = Remembered::default();
        assert_eq!(remembered.recall(Some("5:5:")), None);
        remembered.learn(Some("5:5:"), 'a');
        assert_eq!(remembered.recall(Some("5:5:")), Some(&'a'));
        for other in [Some("5:6:5"), Some("6:6:"), None] {
            assert_eq!(remembered.recall(other), None, "{other:?}");
        }
    }

    #[test]
    fn nothing_holds_where_nothing_is_said() {
        let mut remembered = Remembered::default();
        remembered.learn(None, 'a');
        assert_eq!(remembered.recall(None), None);
    }

    #[test]
    fn what_is_visible_is_asked_first_only_while_it_stays_the_same() {
        let mut remembered = Remembered::default();
        let mut is_calm = |visible, answer| {
            remembered.learn(Some(visible), answer);
            remembered.is_calm()
        };
        assert_eq!(
            [
                is_calm("5:5:", 'a'),
                is_calm("5:5:", 'a'),
                is_calm("6:6:", 'b'),
                is_calm("6:6:", 'b')
            ],
            [false, true, false, true]
        );
        assert_eq!(remembered.recall(Some("7:7:")), None);
        assert!(!remembered.is_calm());
    }
}
