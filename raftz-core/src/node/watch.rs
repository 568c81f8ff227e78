//! How a node stands, for whoever wants to know only the latest: one value that is replaced, with a version.
//!
//! Nothing here changes with every entry, so that nobody is woken by load. The event loop publishes when an
//! event was told or a snapshot is on its way, and wakes those who wait only if something is different.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::replica::Replica;
use crate::types::{FaultReason, Index, NodeId, Role, SnapshotTransfer, Term};

use super::clock;
use super::error::NodeError;
use super::threads;

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads and has committed an entry of its own term.
    pub ready: bool,
    /// Index of the entry that gave the membership in force; 0 for the founding one.
    pub membership_index: Index,
    /// Other nodes with a usable link.
    pub connected: BTreeSet<NodeId>,
    /// Whether proposals are refused for lack of disk space.
    pub storage_full: bool,
    /// Snapshots on their way to or from other nodes.
    pub transfers: Vec<SnapshotTransfer>,
    /// Why the node stopped, if it did.
    pub fault: Option<FaultReason>,
    /// Whether it was shut down.
    pub shut_down: bool,
}

impl Standing {
    /// Before anything has happened.
    pub(crate) const fn new(term: Term) -> Self {
        Self {
            role: Role::Follower,
            term,
            leader: None,
            ready: false,
            membership_index: Index::ZERO,
            connected: BTreeSet::new(),
            storage_full: false,
            transfers: Vec::new(),
            fault: None,
            shut_down: false,
        }
    }

    /// As its replica stands.
    pub(crate) fn of(replica: &Replica) -> Self {
        let raft = replica.raft();
        Self {
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            ready: raft.is_ready(),
            membership_index: raft.membership_index(),
            connected: replica.connected().collect(),
            storage_full: raft.storage_full(),
            transfers: replica.transfers().collect(),
            fault: None,
            shut_down: false,
        }
    }

    /// Whether it can change no more.
    const fn is_over(&self) -> bool {
        self.fault.is_some() || self.shut_down
    }

    fn end(&self) -> NodeError {
        match &self.fault {
            Some(fault) => NodeError::Faulted { reason: fault.to_string() },
            None => NodeError::ShutDown,
        }
    }
}

/// The one value, and who waits for the next.
pub(crate) struct Standings {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    version: u64,
    standing: Arc<Standing>,
    waiters: usize,
    /// Of futures, by the number of their watch.
    wakers: BTreeMap<u64, Waker>,
    watches: u64,
}

impl Standings {
    /// The first value.
    pub(crate) fn new(standing: Standing) -> Self {
        let (standing, wakers) = (Arc::new(standing), BTreeMap::new());
        let state = State { version: 1, standing, waiters: 0, wakers, watches: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Publishes a value, if it is another one. Gives the wakers of futures, which are not to run here.
    #[must_use = "nobody else wakes the futures"]
    pub(crate) fn publish(&self, standing: Standing) -> Vec<Waker> {
        let mut state = self.state.lock();
        if *state.standing == standing {
            return Vec::new();
        }
        state.version += 1;
        state.standing = Arc::new(standing);
        if state.waiters > 0 {
            self.changed.notify_all();
        }
        std::mem::take(&mut state.wakers).into_values().collect()
    }

    /// The value and its version.
    pub(crate) fn current(&self) -> (u64, Arc<Standing>) {
        let state = self.state.lock();
        (state.version, Arc::clone(&state.standing))
    }

    /// A value that is newer than this version, as soon as there is one; `None` if there was none in time.
    pub(crate) fn after(
        &self,
        version: u64,
        timeout: Duration,
    ) -> Result<Option<(u64, Arc<Standing>)>, NodeError> {
        let deadline_us = clock::deadline_us(timeout);
        let mut state = self.state.lock();
        loop {
            if state.version > version {
                return Ok(Some((state.version, Arc::clone(&state.standing))));
            }
            if state.standing.is_over() {
                return Err(state.standing.end());
            }
            let left = clock::left_until(deadline_us);
            if left.is_zero() {
                return Ok(None);
            }
            if let Some(inside) = threads::inside() {
                return Err(NodeError::InCallback { inside: inside.into() });
            }
            state.waiters += 1;
            self.changed.wait_for(&mut state, left);
            state.waiters -= 1;
        }
    }
}

/// How a node stands, and whether that has changed; see [`Node::watch`](super::Node::watch).
pub struct Watch {
    standings: Arc<Standings>,
    number: u64,
    seen: u64,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(standings: Arc<Standings>) -> Self {
        let mut state = standings.state.lock();
        state.watches += 1;
        let (number, seen) = (state.watches, state.version);
        drop(state);
        Self { standings, number, seen }
    }

    /// How the node stands. It counts as seen. Never blocks.
    pub fn current(&mut self) -> Arc<Standing> {
        let (version, standing) = self.standings.current();
        self.seen = version;
        standing
    }

    /// How the node stands, as soon as that is something that this watch has not seen; changes that come in
    /// between are skipped. `None` if nothing has changed within `timeout`.
    ///
    /// # Errors
    /// [`NodeError::ShutDown`] and [`NodeError::Faulted`] when the last there is has been seen;
    /// [`NodeError::InCallback`] if it would wait inside a callback of a node.
    pub fn changed(&mut self, timeout: Duration) -> Result<Option<Arc<Standing>>, NodeError> {
        let newer = self.standings.after(self.seen, timeout)?;
        Ok(newer.map(|(version, standing)| {
            self.seen = version;
            standing
        }))
    }

    /// As [`Watch::changed`], as a future.
    pub const fn next(&mut self) -> Next<'_> {
        Next { watch: self }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let waker = self.standings.state.lock().wakers.remove(&self.number);
        // An executor's code: not under the lock.
        drop(waker);
    }
}

/// The next change of a [`Watch`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Next<'a> {
    watch: &'a mut Watch,
}

impl Future for Next<'_> {
    type Output = Result<Arc<Standing>, NodeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloning and dropping wakers is the executor's code: not under the lock.
        let waker = context.waker().clone();
        let watch = &mut *self.watch;
        let mut state = watch.standings.state.lock();
        if state.version > watch.seen {
            watch.seen = state.version;
            return Poll::Ready(Ok(Arc::clone(&state.standing)));
        }
        if state.standing.is_over() {
            return Poll::Ready(Err(state.standing.end()));
        }
        let old = state.wakers.insert(watch.number, waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn standing(term: u64) -> Standing {
        Standing::new(Term(term))
    }

    #[test]
    fn a_watch_skips_what_is_over_and_tells_the_end_once() {
        let standings = Arc::new(Standings::new(standing(1)));
        let mut watch = Watch::new(Arc::clone(&standings));
        assert_eq!(watch.changed(Duration::ZERO).unwrap(), None);
        assert!(standings.publish(standing(2)).is_empty());
        assert!(standings.publish(standing(3)).is_empty());
        assert_eq!(watch.changed(Duration::ZERO).unwrap().unwrap().term, Term(3));
        assert_eq!(watch.changed(Duration::ZERO).unwrap(), None);
        assert!(standings.publish(standing(3)).is_empty(), "the same is no change");
        assert_eq!(watch.changed(Duration::from_millis(1)).unwrap(), None);
        let _ = standings.publish(Standing { shut_down: true, ..standing(3) });
        assert!(watch.changed(Duration::from_secs(9)).unwrap().unwrap().shut_down);
        assert!(matches!(watch.changed(Duration::from_secs(9)), Err(NodeError::ShutDown)));
    }

    #[test]
    fn a_future_is_woken_by_a_change_and_forgotten_with_its_watch() {
        let standings = Arc::new(Standings::new(standing(1)));
        let mut watch = Watch::new(Arc::clone(&standings));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut next = std::pin::pin!(watch.next());
        assert!(next.as_mut().poll(&mut context).is_pending());
        assert!(next.as_mut().poll(&mut context).is_pending());
        let wakers = standings.publish(standing(2));
        assert_eq!(wakers.len(), 1, "one for each watch");
        wakers.into_iter().for_each(Waker::wake);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let Poll::Ready(Ok(seen)) = next.as_mut().poll(&mut context) else { panic!("changed") };
        assert_eq!(seen.term, Term(2));
        let mut other = Watch::new(Arc::clone(&standings));
        assert!(std::pin::pin!(other.next()).poll(&mut context).is_pending());
        drop(other);
        assert!(standings.publish(standing(4)).is_empty());
    }
}
