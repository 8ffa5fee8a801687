//! Whether anything was committed between two questions: if not, the answer to the second is that to the first.
//!
//! Two snapshots of the same text see the same. A transaction that ends between them was listed in the first as running, or
//! its number was not below the first one's end; then the second does not list it, or ends later. Snapshots of a server in
//! recovery do not list what runs, so nothing is said there. For questions whose answers are made of rows alone: what is
//! reloaded, and what time does, is not seen.

use std::sync::Arc;
use std::time::Instant;

use crate::replication::Lsn;

/// The expression that says what its statement sees: text, or NULL in recovery.
pub const VISIBLE: &str =
    "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_snapshot()::text END";

/// The end of the log, as text; NULL in recovery.
pub const LOG_END: &str = "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn()::text END";

/// When the server process began that is asked, as the stream and the sessions' facts have it.
pub const SERVER: &str = "extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text";

/// What a server showed to one statement.
#[derive(Debug, Clone)]
pub struct Glimpse {
    /// When its process began.
    pub server: Arc<str>,
    /// By then the connection was open. After a crash a server may give away the numbers of lost transactions once more, but
    /// first it ends every connection.
    pub open_since: Instant,
    /// What the statement saw.
    pub visible: Box<str>,
    /// The log's end, read by the same statement.
    pub log_end: Lsn,
}

/// An answer that was given on one connection, for whoever catches a glimpse of the same on another.
#[derive(Debug)]
pub struct Shown<T> {
    server: Arc<str>,
    asked_at: Instant,
    visible: Box<str>,
    answer: T,
}

impl<T> Shown<T> {
    /// The same for those who need not know the answer, only that it has not changed.
    pub fn bare(self) -> Shown<()> {
        Shown {
            server: self.server,
            asked_at: self.asked_at,
            visible: self.visible,
            answer: (),
        }
    }

    /// The answer, if it is the one that would have been given at the instant of the glimpse.
    pub fn recall(&self, glimpse: &Glimpse) -> Option<&T> {
        // A connection that was open before the one question and is after the other has seen no crash between them.
        let is_same_run = self.server == glimpse.server && self.asked_at >= glimpse.open_since;
        let holds = is_same_run && self.visible == glimpse.visible;
        holds.then_some(&self.answer)
    }
}

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

    /// The last answer, for others: it was given or recalled by a question to this server that was asked at that time.
    pub fn shown(&self, server: &Arc<str>, asked_at: Instant) -> Option<Shown<T>>
    where
        T: Clone,
    {
        let (visible, answer) = self.last.as_ref()?;
        Some(Shown {
            server: Arc::clone(server),
            asked_at,
            visible: visible.clone(),
            answer: answer.clone(),
        })
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
    fn an_answer_is_recalled_only_by_a_glimpse_of_the_same_run_of_the_same_server() {
        let open_since = Instant::now();
        let glimpse = |server: &str, open_since, visible: &str| Glimpse {
            server: server.into(),
            open_since,
            visible: visible.into(),
            log_end: Lsn(0),
        };
        let mut remembered = Remembered::default();
        let asked_at = Instant::now();
        assert!(remembered.shown(&"1.5".into(), asked_at).is_none());
        remembered.learn(Some("5:5:"), 'a');
        let shown = remembered.shown(&"1.5".into(), asked_at).unwrap();
        let recall = |glimpse| shown.recall(&glimpse).copied();
        assert_eq!(recall(glimpse("1.5", open_since, "5:5:")), Some('a'));
        let opened_later = asked_at + std::time::Duration::from_nanos(1);
        for other in [
            glimpse("1.6", open_since, "5:5:"),
            glimpse("1.5", opened_later, "5:5:"),
            glimpse("1.5", open_since, "6:6:"),
        ] {
            assert_eq!(recall(other), None);
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
