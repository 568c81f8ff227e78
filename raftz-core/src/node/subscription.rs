//! Events for whoever wants to take them in his own time, chosen by kind.
//!
//! Each subscription has a backlog of its own, so that one that is slow holds up neither the node nor others. The
//! event loop puts events in; nothing of a user's runs there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::types::{Event, EventKey, EventKinds, GroupId};

use super::backlog::Backlog;
use super::clock;
use super::error::NodeError;
use super::threads;

/// Events that may wait in a subscription, those that replace each other aside.
const EVENTS_MAX: usize = 4096;

/// Everybody who has subscribed.
#[derive(Default)]
pub(crate) struct Subscribers(Mutex<List>);

#[derive(Default)]
struct List {
    inboxes: Vec<Weak<Inbox>>,
    closed: bool,
}

impl Subscribers {
    /// Another one. After the end of the node it is told nothing.
    pub(crate) fn add(&self, kinds: EventKinds) -> Subscription {
        let inbox = Arc::new(Inbox::new(kinds));
        let mut list = self.0.lock();
        if list.closed {
            inbox.state.lock().closed = true;
        } else {
            list.inboxes.retain(|inbox| inbox.strong_count() > 0);
            list.inboxes.push(Arc::downgrade(&inbox));
        }
        Subscription { inbox }
    }

    /// Tells all of them.
    pub(crate) fn tell(&self, group: GroupId, event: &Event) {
        let list = self.0.lock();
        for inbox in list.inboxes.iter().filter_map(Weak::upgrade) {
            inbox.put(group, event);
        }
    }

    /// No more events will come.
    pub(crate) fn close(&self) {
        let mut list = self.0.lock();
        list.closed = true;
        for inbox in list.inboxes.drain(..).filter_map(|inbox| inbox.upgrade()) {
            inbox.state.lock().closed = true;
            inbox.filled.notify_all();
        }
    }
}

struct Inbox {
    kinds: EventKinds,
    state: Mutex<State>,
    filled: Condvar,
}

struct State {
    events: Backlog<EventKey, (GroupId, Event)>,
    dropped: u64,
    closed: bool,
}

impl Inbox {
    fn new(kinds: EventKinds) -> Self {
        let state = State { events: Backlog::new(EVENTS_MAX), dropped: 0, closed: false };
        Self { kinds, state: Mutex::new(state), filled: Condvar::new() }
    }

    fn put(&self, group: GroupId, event: &Event) {
        if !self.kinds.contains(event.kind()) {
            return;
        }
        let mut state = self.state.lock();
        let told = (group, event.clone());
        match event.key().filter(|key| key.is_of_the_node()) {
            Some(key) => drop(state.events.push_surely(key, told)),
            None if state.events.push(event.key(), told).is_ok() => {}
            None => {
                state.dropped += 1;
                let total = state.dropped;
                state.events.push_surely(EventKey::Dropped, (group, Event::Dropped { total }));
            }
        }
        drop(state);
        self.filled.notify_one();
    }
}

/// Events of a node from some moment on, to be taken one by one; see [`Node::subscribe`](super::Node::subscribe).
///
/// While they wait, those that tell of a state replace each other ([`Event::key`]), so that whoever comes late
/// still learns how things stand. Of the others at most 4096 wait; how many were dropped is an event, too.
pub struct Subscription {
    inbox: Arc<Inbox>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("kinds", &self.inbox.kinds).finish_non_exhaustive()
    }
}

impl Subscription {
    /// The oldest event that waits, if there is one. Never blocks.
    pub fn try_next(&self) -> Option<(GroupId, Event)> {
        self.inbox.state.lock().events.pop()
    }

    /// Waits for the next event, for at most `timeout`; `None` if none came.
    ///
    /// # Errors
    /// [`NodeError::ShutDown`] when the node has ended and everything was taken;
    /// [`NodeError::InCallback`] inside a callback of a node, where waiting would hold it up.
    pub fn next(&self, timeout: Duration) -> Result<Option<(GroupId, Event)>, NodeError> {
        let deadline_us = clock::deadline_us(timeout);
        loop {
            let mut state = self.inbox.state.lock();
            if let Some(event) = state.events.pop() {
                return Ok(Some(event));
            }
            if state.closed {
                return Err(NodeError::ShutDown);
            }
            if let Some(inside) = threads::inside() {
                return Err(NodeError::InCallback { inside: inside.into() });
            }
            let left = clock::left_until(deadline_us);
            if left.is_zero() {
                return Ok(None);
            }
            self.inbox.filled.wait_for(&mut state, left);
        }
    }

    /// How many events were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.inbox.state.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::types::{EventKind, NodeId, Term};

    use super::*;

    #[test]
    fn a_subscription_gets_what_it_chose_keeps_the_latest_and_counts_the_rest() {
        let subscribers = Subscribers::default();
        let few = subscribers.add(EventKinds::of(&[EventKind::Ready]));
        let all = subscribers.add(EventKinds::ALL);
        drop(subscribers.add(EventKinds::ALL));
        let from = NodeId::new(2).unwrap();
        for term in 1..=EVENTS_MAX as u64 + 5 {
            subscribers.tell(GroupId::FIRST, &Event::Nonsense { from, what: "x".into() });
            subscribers.tell(GroupId::FIRST, &Event::Ready { term: Term(term) });
        }
        let last = Event::Ready { term: Term(EVENTS_MAX as u64 + 5) };
        assert_eq!(few.try_next(), Some((GroupId::FIRST, last.clone())));
        assert_eq!((few.try_next(), few.dropped(), all.dropped()), (None, 0, 5));
        let mut rest: Vec<Event> =
            std::iter::from_fn(|| all.try_next().map(|(_, event)| event)).collect();
        assert_eq!(rest.split_off(EVENTS_MAX), [Event::Dropped { total: 5 }, last]);
        subscribers.close();
        assert!(matches!(few.next(Duration::from_secs(9)), Err(NodeError::ShutDown)));
        let late = subscribers.add(EventKinds::ALL);
        assert!(matches!(late.next(Duration::from_secs(9)), Err(NodeError::ShutDown)));
    }
}
