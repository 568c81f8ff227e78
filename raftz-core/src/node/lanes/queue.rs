//! A queue from the event loop to one lane thread: the sender takes one lock for a whole turn's
//! work and wakes the thread only if it sleeps; the thread takes everything at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::node::threads::Waiting;

/// The queue. One thread waits on it.
pub(crate) struct LaneQueue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    items: Vec<T>,
    sleeping: bool,
    closed: bool,
}

/// A queue for a lane thread, and the sender's end of it.
pub(crate) fn lane<T>() -> (LaneSender<T>, Arc<LaneQueue<T>>) {
    let queue = Arc::new(LaneQueue::new());
    (LaneSender(Arc::clone(&queue)), queue)
}

/// The sender's end. When it goes, however it goes, the thread ends once it has done what is
/// queued.
pub(crate) struct LaneSender<T>(Arc<LaneQueue<T>>);

impl<T> LaneSender<T> {
    /// A sender beside this one, which does not end the thread when it goes.
    pub(crate) fn beside(&self) -> Arc<LaneQueue<T>> {
        Arc::clone(&self.0)
    }
}

impl<T> std::ops::Deref for LaneSender<T> {
    type Target = LaneQueue<T>;

    fn deref(&self) -> &LaneQueue<T> {
        &self.0
    }
}

impl<T> Drop for LaneSender<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There are items.
    Items,
    /// Nothing came in time.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

impl<T> LaneQueue<T> {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        let state = State { items: Vec::new(), sleeping: false, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Queues all of `items`. After [`LaneQueue::close`] they are dropped.
    pub(crate) fn push_all(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            items.into_iter().for_each(drop);
            return;
        }
        state.items.extend(items);
        let wake = !state.items.is_empty() && std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Lets the thread end once it has done what is queued.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Whether the thread is to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Drops what is queued and takes nothing more: the thread is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.items);
        drop(state);
        drop(left);
    }

    /// Waits for items, at most `timeout` (for ever if `None`), and takes them all into `into`.
    pub(crate) fn take_all(
        &self,
        timeout: Option<Duration>,
        into: &mut Vec<T>,
        waiting: &mut Waiting,
    ) -> Waited {
        waiting.begin(|| false, || !self.state.lock().items.is_empty());
        let waited = self.take_or_sleep(timeout, into);
        waiting.end();
        waited
    }

    fn take_or_sleep(&self, timeout: Option<Duration>, into: &mut Vec<T>) -> Waited {
        let mut state = self.state.lock();
        loop {
            if !state.items.is_empty() {
                state.sleeping = false;
                if into.is_empty() {
                    std::mem::swap(into, &mut state.items);
                } else {
                    into.append(&mut state.items);
                }
                return Waited::Items;
            }
            if state.closed {
                return Waited::Closed;
            }
            state.sleeping = true;
            match timeout {
                None => self.filled.wait(&mut state),
                Some(timeout) => {
                    let timed_out = self.filled.wait_for(&mut state, timeout).timed_out();
                    if timed_out && state.items.is_empty() && !state.closed {
                        state.sleeping = false;
                        return Waited::Idle;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_queued_is_taken_at_once_and_before_the_end() {
        let queue = LaneQueue::new();
        let (mut got, mut waiting) = (Vec::new(), Waiting::default());
        assert_eq!(queue.take_all(Some(Duration::ZERO), &mut got, &mut waiting), Waited::Idle);
        queue.push_all([1, 2]);
        queue.push_all([3]);
        queue.close();
        assert_eq!(queue.take_all(None, &mut got, &mut waiting), Waited::Items);
        assert_eq!(got, [1, 2, 3]);
        queue.push_all([4]);
        got.clear();
        assert_eq!(queue.take_all(None, &mut got, &mut waiting), Waited::Closed);
        assert!(got.is_empty());
    }
}
