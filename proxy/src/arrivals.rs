//! Connections whose clients have not said yet what they want: few of them for long, unless somebody means harm.
//!
//! It must not know what they may say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Connections that may be silent at a time; one more ends the one that has been silent longest.
const ARRIVALS_MAX: usize = 1_000;

/// What a connection tells of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// The client has said what it wants.
    pub(crate) fn is_over(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The connections that were silent when they were last looked at, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    silent: VecDeque<(Arrival, AbortHandle)>,
}

impl Arrivals {
    /// Watches a connection, and ends the oldest silent one if there are too many now.
    pub(crate) fn add(&mut self, arrival: Arrival, task: AbortHandle) {
        self.silent.push_back((arrival, task));
        if self.silent.len() <= ARRIVALS_MAX {
            return;
        }
        self.silent.retain(|(Arrival(is_over), task)| {
            !is_over.load(Ordering::Relaxed) && !task.is_finished()
        });
        if self.silent.len() > ARRIVALS_MAX
            && let Some((_, oldest)) = self.silent.pop_front()
        {
            oldest.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn one_too_many_ends_the_oldest_that_is_still_silent() {
        let mut tasks = JoinSet::new();
        let mut arrivals = Arrivals::default();
        let mut handles = vec![];
        for at in 0..=ARRIVALS_MAX + 1 {
            let arrival = Arrival::default();
            // The first one has spoken, so it is not in the way of the last but one.
            if at == 0 {
                arrival.is_over();
            }
            let task = tasks.spawn(std::future::pending::<()>());
            handles.push(task.clone());
            arrivals.add(arrival, task);
        }
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        let ended: Vec<usize> = (0..handles.len())
            .filter(|at| handles[*at].is_finished())
            .collect();
        assert_eq!(ended, [1]);
    }
}
