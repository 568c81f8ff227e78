//! A caller's side of a call in flight: a standard future that can also be waited for.
//!
//! The event loop fills the slot itself; no other thread stands between a commit and the blocked
//! caller it wakes. A future's waker is its executor's code, so the callback thread calls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::types::{Outcome, Reply, Unknown};

use super::error::NodeError;
use super::{clock, threads};

/// How long a blocking wait outlasts the call's own deadline. The event loop answers at the
/// deadline; this only bounds the wait if something keeps the loop from running.
const GRACE: Duration = Duration::from_millis(250);

/// One value on its way from the event loop to a caller.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    waiting: bool,
}

impl<T> Slot<T> {
    /// A slot that waits for its value.
    pub(crate) fn empty() -> Arc<Self> {
        Self::with(None)
    }

    /// A slot that has its value.
    pub(crate) fn full(value: T) -> Arc<Self> {
        Self::with(Some(value))
    }

    fn with(value: Option<T>) -> Arc<Self> {
        let state = Mutex::new(State { value, waker: None, waiting: false });
        Arc::new(Self { state, filled: Condvar::new() })
    }

    /// Gives the value and wakes the thread that waits for it. A future's waker is returned: it is
    /// its executor's code, and is not to run on the event loop.
    #[must_use = "nobody else wakes the future"]
    pub(crate) fn fill(&self, value: T) -> Option<Waker> {
        let mut state = self.state.lock();
        state.value = Some(value);
        let waker = state.waker.take();
        if state.waiting {
            self.filled.notify_all();
        }
        waker
    }

    /// The value, if it is there.
    pub(crate) fn take(&self) -> Option<T> {
        self.state.lock().value.take()
    }

    /// Waits for the value, at the latest until `deadline_us`.
    pub(crate) fn take_until(&self, deadline_us: u64) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(value) = state.value.take() {
                return Some(value);
            }
            let left = clock::left_until(deadline_us);
            if left.is_zero() {
                return None;
            }
            state.waiting = true;
            self.filled.wait_for(&mut state, left);
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<T> {
        // Cloning and dropping wakers is the executor's code, too: not under the lock.
        let mut waker = Some(context.waker().clone());
        let mut state = self.state.lock();
        let value = state.value.take();
        if value.is_none() {
            std::mem::swap(&mut state.waker, &mut waker);
        }
        drop(state);
        value.map_or(Poll::Pending, Poll::Ready)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::types::Outcome {}
    impl Sealed for Vec<crate::types::Outcome> {}
    impl Sealed for Result<crate::types::Reply, crate::node::NodeError> {}
}

/// What a [`Pending`] call ends with: an [`Outcome`], one for each command of a batch, or what a read found.
pub trait Answer: Send + sealed::Sealed + 'static {
    /// The answer of a wait of so long that cannot tell how the `count` commands ended.
    fn unknown(why: Unknown, count: usize, waited: Duration) -> Self;
}

impl Answer for Outcome {
    fn unknown(why: Unknown, _count: usize, _waited: Duration) -> Self {
        Self::Unknown(why)
    }
}

impl Answer for Vec<Outcome> {
    fn unknown(why: Unknown, count: usize, _waited: Duration) -> Self {
        vec![Outcome::Unknown(why); count]
    }
}

impl Answer for Result<Reply, NodeError> {
    fn unknown(why: Unknown, _count: usize, waited: Duration) -> Self {
        Err(match why {
            Unknown::InCallback { inside } => NodeError::InCallback { inside },
            Unknown::Timeout
            | Unknown::LeadershipLost
            | Unknown::ShuttingDown
            | Unknown::Faulted { .. } => {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                NodeError::QueryTimeout { waited_ms }
            }
        })
    }
}

/// A call in flight. A [`Future`], and also a thing to wait for on an ordinary thread.
///
/// It always ends, at the latest at the call's deadline, also when the node stops or faults.
/// Dropping it does not take the call back.
#[derive(Debug)]
#[must_use = "the outcome says whether the command took effect"]
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
    deadline_us: u64,
    count: usize,
    begun_us: u64,
}

impl<T: Answer> Pending<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>, deadline_us: u64, count: usize) -> Self {
        Self { slot, deadline_us, count, begun_us: clock::boot_us() }
    }

    fn unknown(&self, why: Unknown) -> T {
        let waited_us = clock::boot_us().saturating_sub(self.begun_us);
        T::unknown(why, self.count, Duration::from_micros(waited_us))
    }

    /// Blocks this thread until the call has ended, that is until its deadline at the latest.
    ///
    /// Inside a callback of a node this does not wait, which would be for itself: unless the
    /// answer is there already, it is [`Unknown::InCallback`], and the call goes on.
    pub fn wait(self) -> T {
        let last = self.deadline_us.saturating_add(GRACE.as_micros() as u64);
        self.wait_until(last).unwrap_or_else(|| self.unknown(Unknown::Timeout))
    }

    /// Blocks this thread for at most `timeout`; `None` if the call has not ended by then. It can
    /// be waited for again. Inside a callback as [`Pending::wait`].
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<T> {
        self.wait_until(clock::deadline_us(timeout))
    }

    /// The answer, if the call has ended. Never blocks.
    pub fn try_take(&mut self) -> Option<T> {
        self.slot.take()
    }

    fn wait_until(&self, deadline_us: u64) -> Option<T> {
        if let Some(value) = self.slot.take() {
            return Some(value);
        }
        if let Some(inside) = threads::inside() {
            return Some(self.unknown(Unknown::InCallback { inside: inside.into() }));
        }
        self.slot.take_until(deadline_us)
    }
}

impl<T: Answer> Future for Pending<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.slot.poll(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
    use super::*;
    use crate::types::Refusal;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn refused() -> Outcome {
        Outcome::Refused(Refusal::StorageFull)
    }

    fn pending(deadline: Duration) -> (Arc<Slot<Outcome>>, Pending<Outcome>) {
        let slot = Slot::empty();
        (Arc::clone(&slot), Pending::new(slot, clock::deadline_us(deadline), 1))
    }

    #[allow(clippy::disallowed_methods, reason = "a caller's own thread")]
    #[test]
    fn a_wait_ends_with_the_value_from_another_thread() {
        let (slot, pending) = pending(Duration::from_secs(10));
        let waiter = std::thread::Builder::new().spawn(move || pending.wait()).unwrap();
        assert!(slot.fill(refused()).is_none());
        assert_eq!(waiter.join().unwrap(), refused());
    }

    #[test]
    fn a_wait_ends_by_the_deadline_even_if_nobody_answers() {
        let (_slot, pending) = pending(Duration::ZERO);
        assert_eq!(pending.wait(), Outcome::Unknown(Unknown::Timeout));
    }

    #[test]
    fn a_short_wait_can_be_repeated() {
        let (slot, mut pending) = pending(Duration::from_secs(10));
        assert_eq!(pending.wait_timeout(Duration::from_millis(1)), None);
        assert!(slot.fill(refused()).is_none());
        assert_eq!(pending.wait_timeout(Duration::from_millis(1)), Some(refused()));
    }

    #[test]
    fn a_wait_inside_a_callback_is_refused_unless_the_answer_is_there() {
        let (_slot, waiting) = pending(Duration::from_secs(10));
        let outcome = threads::run_inside("a callback", || waiting.wait());
        assert!(matches!(outcome, Outcome::Unknown(Unknown::InCallback { .. })));
        let (slot, answered) = pending(Duration::from_secs(10));
        assert!(slot.fill(refused()).is_none());
        assert_eq!(threads::run_inside("a callback", || answered.wait()), refused());
    }

    #[test]
    fn a_future_is_woken_when_it_is_answered() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (slot, pending) = pending(Duration::from_secs(10));
        let mut pending = std::pin::pin!(pending);
        assert!(pending.as_mut().poll(&mut context).is_pending());
        slot.fill(refused()).unwrap().wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(pending.as_mut().poll(&mut context), Poll::Ready(refused()));
    }
}
