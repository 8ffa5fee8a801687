//! Waits for what happens with every message and for what seldom happens, without looking at the latter with every message.
//!
//! It must not know what those are.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Which of the two came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First<A, B> {
    Often(A),
    Seldom(B),
}

/// Resolves with the first of the two. `often` is polled whenever the task is, `seldom` only when it was what woke it.
pub(super) async fn first_of<A, B>(
    often: impl Future<Output = A>,
    seldom: impl Future<Output = B>,
) -> First<A, B> {
    let (mut often, mut seldom) = (pin!(often), pin!(seldom));
    let mut bell = None;
    poll_fn(|cx| {
        if let Poll::Ready(value) = often.as_mut().poll(cx) {
            return Poll::Ready(First::Often(value));
        }
        let Some(waker) = rung(&mut bell, cx) else {
            return Poll::Pending;
        };
        let mut cx = Context::from_waker(waker);
        seldom.as_mut().poll(&mut cx).map(First::Seldom)
    })
    .await
}

/// What a future wakes instead of its task, to be told apart from others.
struct Bell {
    has_rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// What to poll with, if the bell has rung since this was last asked, or wakes nobody yet who is polled here.
fn rung<'a>(bell: &'a mut Option<(Arc<Bell>, Waker)>, cx: &Context<'_>) -> Option<&'a Waker> {
    let wakes_task = |(bell, _): &(Arc<Bell>, Waker)| bell.task.will_wake(cx.waker());
    if !bell.as_ref().is_some_and(wakes_task) {
        let new = Arc::new(Bell {
            has_rung: AtomicBool::new(true),
            task: cx.waker().clone(),
        });
        *bell = Some((Arc::clone(&new), Waker::from(new)));
    }
    let (bell, waker) = bell.as_ref()?;
    // Only this task takes it back, so a look that finds nothing need not write.
    let has_rung =
        bell.has_rung.load(Ordering::Relaxed) && bell.has_rung.swap(false, Ordering::Acquire);
    has_rung.then_some(waker)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_seldom_happens_is_looked_at_only_when_it_wakes() {
        let (often, mut messages) = mpsc::channel::<()>(1);
        let (seldom, mut signals) = mpsc::channel::<()>(1);
        let looks = Cell::new(0);
        let waits = async {
            let relays = async { while messages.recv().await.is_some() {} };
            let signal = poll_fn(|cx| {
                looks.set(looks.get() + 1);
                signals.poll_recv(cx)
            });
            first_of(relays, signal).await
        };
        let sends = async {
            for _ in 0..10 {
                often.send(()).await.unwrap();
                tokio::task::yield_now().await;
            }
            let looks_before = looks.get();
            seldom.send(()).await.unwrap();
            looks_before
        };
        let (first, looks_before) = tokio::join!(waits, sends);
        assert_eq!((first, looks_before), (First::Seldom(Some(())), 1));
    }

    #[tokio::test]
    async fn another_task_than_before_is_woken() {
        let (signal, mut signals) = mpsc::channel::<()>(1);
        let mut waits = Box::pin(first_of(pending::<()>(), signals.recv()));
        let nobody = &mut Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(nobody).is_pending());
        let sends = async {
            tokio::task::yield_now().await;
            signal.send(()).await.unwrap();
        };
        let (first, ()) = tokio::join!(waits, sends);
        assert_eq!(first, First::Seldom(Some(())));
    }
}
