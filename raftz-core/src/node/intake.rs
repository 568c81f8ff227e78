//! The event loop's one inbox: proposals of callers, answers of lanes, requests of the handle.
//!
//! One lock and at most one wake for everything that comes while the loop is busy or asleep: the
//! loop takes the whole queue at once, and only the first sender after it fell asleep wakes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::replica::{Input, SnapshotPolicy};
use crate::transport::Wake;
use crate::types::{
    Entry, GroupId, Index, OpId, Payload, ReadLevel, Refusal, Reply, SessionTag, SnapshotId, Term,
};

use super::callers::Caller;
use super::query::QueryJob;
use super::snapshots::SnapshotWish;
use super::threads;
use super::transfer::TransferWish;

/// A proposal on its way to the loop.
pub(crate) struct QueuedCall {
    /// The group.
    pub(crate) group: GroupId,
    /// Who waits.
    pub(crate) caller: Caller,
    /// The command.
    pub(crate) payload: Payload,
    /// Its session mark.
    pub(crate) session: Option<SessionTag>,
    /// The term in which this node must lead; it is not forwarded or held then.
    pub(crate) expected_term: Option<Term>,
    /// When the caller must have its answer.
    pub(crate) deadline_us: u64,
    /// Whether it may be forwarded or held.
    pub(crate) forward: bool,
}

/// Why entries were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPurpose {
    /// A replica asked, by this number.
    Replica(u64),
    /// An inline machine is to apply them.
    Apply,
}

/// Everything but proposals.
pub(crate) enum Note {
    /// All writes of the group up to this one are durable.
    Persisted(GroupId, OpId),
    /// A write failed.
    PersistFailed(GroupId, String),
    /// Free space fell below the reserve, or rose above it.
    StorageFull(bool),
    /// The apply lane has applied a range.
    Applied {
        /// The group.
        group: GroupId,
        /// What was applied.
        sum: super::lanes::Sum,
        /// The replies.
        replies: Vec<(Index, Reply)>,
    },
    /// The machine failed.
    ApplyFailed {
        /// The group.
        group: GroupId,
        /// What failed.
        failure: super::lanes::ApplyFailure,
    },
    /// The read lane has read.
    Read {
        /// The group.
        group: GroupId,
        /// For whom.
        purpose: ReadPurpose,
        /// The entries, or why there are none.
        result: Result<Vec<Entry>, String>,
    },
    /// What the snapshot lane has to say to a replica.
    Snapshot(GroupId, Box<Input>),
    /// A machine was restored, or not.
    Restored {
        /// The group.
        group: GroupId,
        /// The machine, where it runs on the loop.
        applier: Option<Box<super::lanes::Applier>>,
        /// From this snapshot.
        id: SnapshotId,
        /// How it went.
        result: Result<(), super::lanes::RestoreFailure>,
    },
    /// Somebody wants a snapshot now.
    TakeSnapshot(GroupId, SnapshotWish),
    /// Snapshots are to be dealt with like this.
    SetSnapshotPolicy(GroupId, SnapshotPolicy),
    /// Somebody wants another leader.
    Transfer(GroupId, TransferWish),
    /// Somebody wants a fresh status.
    RefreshStatus,
    /// Answer everybody and end.
    Shutdown,
}

/// A read on its way to the loop.
pub(crate) struct QueuedRead {
    /// The group whose machine is asked.
    pub(crate) group: GroupId,
    /// How new the answer must be.
    pub(crate) level: ReadLevel,
    /// By when there must be one.
    pub(crate) deadline_us: u64,
    /// The question.
    pub(crate) job: QueryJob,
}

/// What the loop takes out at once.
#[derive(Default)]
pub(crate) struct Batch {
    /// Proposals, in order.
    pub(crate) calls: Vec<QueuedCall>,
    /// Reads, in order.
    pub(crate) reads: Vec<QueuedRead>,
    /// The rest, in order.
    pub(crate) notes: Vec<Note>,
    /// Groups that are to campaign. A set, so that asking again costs nothing.
    pub(crate) campaigns: BTreeSet<GroupId>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        let Self { calls, reads, notes, campaigns } = self;
        calls.is_empty() && reads.is_empty() && notes.is_empty() && campaigns.is_empty()
    }
}

/// The inbox.
pub(crate) struct Intake {
    queue: Mutex<Queue>,
    /// Set once, when the transport exists. Sends before that need no wake: the loop has not begun.
    waker: RwLock<Option<Arc<dyn Wake>>>,
}

/// What the event loop does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loop {
    /// It is at work, and looks here before it sleeps.
    #[default]
    Awake,
    /// It sleeps for a moment, while completions run: what they propose may wait for their end.
    Napping,
    /// It sleeps until it is woken.
    Asleep,
}

#[derive(Default)]
struct Queue {
    batch: Batch,
    loop_is: Loop,
    closed: Option<Refusal>,
    /// The loop is gone: nothing more is taken in, not even notes.
    ended: bool,
}

impl Intake {
    /// An open, empty inbox.
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::new(Queue::default()), waker: RwLock::new(None) }
    }

    /// Sets how the loop is woken.
    pub(crate) fn set_waker(&self, waker: Arc<dyn Wake>) {
        *self.waker.write() = Some(waker);
    }

    /// Queues a proposal, unless the inbox is closed; then the reason returned is the caller's
    /// only answer.
    pub(crate) fn propose_one(&self, call: QueuedCall) -> Result<(), Refusal> {
        let mut queue = self.queue.lock();
        if let Some(refusal) = queue.closed.clone() {
            // What a user's function holds may call back into the node as it goes.
            drop(queue);
            call.caller.disarm();
            return Err(refusal);
        }
        queue.batch.calls.push(call);
        self.wake_for_calls(queue);
        Ok(())
    }

    /// Queues proposals, unless the inbox is closed; then they come back, with the reason.
    pub(crate) fn propose(&self, calls: Vec<QueuedCall>) -> Result<(), (Refusal, Vec<QueuedCall>)> {
        let mut queue = self.queue.lock();
        if let Some(refusal) = queue.closed.clone() {
            return Err((refusal, calls));
        }
        queue.batch.calls.extend(calls);
        self.wake_for_calls(queue);
        Ok(())
    }

    /// Queues a read, unless the loop has ended; then it comes back.
    pub(crate) fn ask(&self, read: QueuedRead) -> Result<(), QueuedRead> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return Err(read);
        }
        queue.batch.reads.push(read);
        self.wake_for_calls(queue);
        Ok(())
    }

    /// Why proposals are refused, if they are.
    pub(crate) fn closed(&self) -> Option<Refusal> {
        self.queue.lock().closed.clone()
    }

    /// Queues notes. After the loop has ended they are dropped, which answers queries.
    pub(crate) fn notify(&self, notes: impl IntoIterator<Item = Note>) {
        let notes = notes.into_iter();
        let mut queue = self.queue.lock();
        if queue.ended {
            drop(queue);
            notes.for_each(drop);
            return;
        }
        queue.batch.notes.extend(notes);
        self.wake(queue);
    }

    /// Asks that a group's member stand for election.
    pub(crate) fn campaign(&self, group: GroupId) {
        let mut queue = self.queue.lock();
        queue.batch.campaigns.insert(group);
        self.wake(queue);
    }

    /// Called by the callback thread when a batch of completions is through: what they proposed shares one
    /// wake.
    pub(crate) fn completions_ran(&self) {
        self.wake(self.queue.lock());
    }

    /// Refuses proposals from now on. The first reason stays.
    pub(crate) fn close(&self, refusal: Refusal) {
        self.queue.lock().closed.get_or_insert(refusal);
    }

    /// Called by the loop before it sleeps, or naps: whether there is nothing to do.
    pub(crate) fn may_sleep(&self, is_nap: bool) -> bool {
        let mut queue = self.queue.lock();
        let may = queue.batch.is_empty();
        if may {
            queue.loop_is = if is_nap { Loop::Napping } else { Loop::Asleep };
        }
        may
    }

    /// Whether anything is queued, or anything `but_calls`.
    pub(crate) fn has_some(&self, but_calls: bool) -> bool {
        let batch = &self.queue.lock().batch;
        let has_calls = !batch.calls.is_empty() || !batch.reads.is_empty();
        (has_calls && !but_calls) || !batch.notes.is_empty() || !batch.campaigns.is_empty()
    }

    /// Called by the loop when it is awake: takes everything, into an empty `into`.
    pub(crate) fn drain(&self, into: &mut Batch) {
        let mut queue = self.queue.lock();
        queue.loop_is = Loop::Awake;
        std::mem::swap(&mut queue.batch, into);
    }

    /// Takes the notes alone, into an empty `into`: the loop's own, where a lane runs on it.
    pub(crate) fn drain_notes(&self, into: &mut Vec<Note>) {
        std::mem::swap(&mut self.queue.lock().batch.notes, into);
    }

    /// Called when the loop has ended, in whatever way: closes for good and gives what was left.
    pub(crate) fn end(&self, refusal: Refusal) -> Batch {
        let mut queue = self.queue.lock();
        queue.closed.get_or_insert(refusal);
        queue.ended = true;
        std::mem::take(&mut queue.batch)
    }

    fn wake_for_calls(&self, queue: MutexGuard<'_, Queue>) {
        if queue.loop_is != Loop::Napping || !threads::completes_for(self) {
            self.wake(queue);
        }
    }

    /// Wakes the loop if it sleeps and there is something for it.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let wake = queue.loop_is != Loop::Awake && !queue.batch.is_empty();
        if wake {
            queue.loop_is = Loop::Awake;
        }
        drop(queue);
        if wake && let Some(waker) = self.waker.read().as_ref() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::node::callers::{Gauge, Sink};
    use crate::node::error::NodeError;
    use crate::node::pending::Slot;
    use crate::node::query::Asked;
    use crate::types::{Outcome, Unknown};
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn call() -> (Arc<Slot<Outcome>>, QueuedCall) {
        let slot = Slot::empty();
        let permit = Gauge::new(1, 1).admit(1, 1).unwrap();
        let call = QueuedCall {
            group: GroupId::FIRST,
            caller: Caller::new(Sink::Slot(Arc::clone(&slot)), permit, 0),
            payload: Payload::empty(),
            session: None,
            expected_term: None,
            deadline_us: 0,
            forward: true,
        };
        (slot, call)
    }

    #[test]
    fn a_sleeping_loop_is_woken_once_for_a_whole_batch_and_a_busy_one_never() {
        let intake = Intake::new();
        let wakes = Arc::new(Wakes::default());
        intake.set_waker(Arc::clone(&wakes) as Arc<dyn Wake>);
        intake.propose(vec![call().1]).ok().unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "the loop is awake");
        assert!(!intake.may_sleep(false));
        let mut batch = Batch::default();
        intake.drain(&mut batch);
        assert_eq!(batch.calls.len(), 1);
        assert!(intake.may_sleep(false));
        intake.propose(vec![call().1, call().1]).ok().unwrap();
        intake.notify([Note::RefreshStatus]);
        intake.propose(vec![call().1]).ok().unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_completions_propose_shares_one_wake_when_they_are_through_and_others_wake_at_once() {
        let intake = Intake::new();
        let wakes = Arc::new(Wakes::default());
        intake.set_waker(Arc::clone(&wakes) as Arc<dyn Wake>);
        let woken = || wakes.0.load(Ordering::SeqCst);
        let mut batch = Batch::default();
        assert!(intake.may_sleep(true));
        intake.propose_one(call().1).unwrap();
        assert_eq!(woken(), 1, "no completion runs on this thread");
        intake.drain(&mut batch);
        batch.calls.clear();

        threads::mark_as_completing_for(&intake);
        assert!(intake.may_sleep(true));
        intake.propose_one(call().1).unwrap();
        intake.propose(vec![call().1]).ok().unwrap();
        assert_eq!(woken(), 1, "more may follow");
        intake.completions_ran();
        intake.completions_ran();
        assert_eq!(woken(), 2);
        intake.drain(&mut batch);
        batch.calls.clear();
        assert!(intake.may_sleep(false));
        intake.propose_one(call().1).unwrap();
        assert_eq!(woken(), 3, "the loop does not look by itself");
    }

    #[test]
    fn a_closed_inbox_says_why_and_still_takes_notes() {
        let intake = Intake::new();
        intake.close(Refusal::StorageFull);
        intake.close(Refusal::ShuttingDown);
        assert_eq!(intake.closed(), Some(Refusal::StorageFull));
        let (slot, queued) = call();
        let (refusal, calls) = intake.propose(vec![queued]).unwrap_err();
        assert_eq!((refusal, calls.len(), slot.take()), (Refusal::StorageFull, 1, None));
        intake.notify([Note::RefreshStatus]);
        assert!(!intake.may_sleep(false));
    }

    #[test]
    fn a_refused_callers_function_goes_outside_the_lock() {
        struct CallsBack(Arc<Intake>);
        impl Drop for CallsBack {
            fn drop(&mut self) {
                assert!(self.0.queue.try_lock().is_some(), "dropped under the inbox's lock");
            }
        }
        let intake = Arc::new(Intake::new());
        intake.close(Refusal::ShuttingDown);
        let held = CallsBack(Arc::clone(&intake));
        let done = Box::new(move |_| drop(held));
        let permit = Gauge::new(1, 1).admit(1, 1).unwrap();
        let sink = Sink::Callback(done, crate::node::callbacks::Callbacks::new());
        let queued = QueuedCall { caller: Caller::new(sink, permit, 0), ..call().1 };
        assert_eq!(intake.propose_one(queued), Err(Refusal::ShuttingDown));
    }

    #[test]
    fn what_the_ended_loop_left_is_answered() {
        let intake = Intake::new();
        let (slot, queued) = call();
        intake.propose(vec![queued]).ok().unwrap();
        drop(intake.end(Refusal::ShuttingDown));
        assert_eq!(slot.take(), Some(Outcome::Refused(Refusal::ShuttingDown)));
        assert!(!matches!(slot.take(), Some(Outcome::Unknown(Unknown::ShuttingDown))));
        let answer = Slot::empty();
        let permit = Gauge::new(1, 1).admit(1, 1).unwrap();
        let job = QueryJob::new(Bytes::new(), Asked::slot(&answer, permit));
        let (group, level) = (GroupId::FIRST, ReadLevel::Stale);
        drop(intake.ask(QueuedRead { group, level, deadline_us: 0, job }).err());
        assert!(matches!(answer.take(), Some(Err(NodeError::ShutDown))));
    }
}
