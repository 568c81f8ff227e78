//! The apply lane: the only place that touches the state machine. It applies ranges in order,
//! fetches entries itself when they are no longer in memory, and answers queries in between.
//!
//! A machine that fails, panics or loses count of its replies is never called again: what it
//! holds could be half of a batch.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crate::machine::{SnapshotView, StateMachine};
use crate::node::error::NodeError;
use crate::node::intake::{Intake, Note};
use crate::node::metrics::Meter;
use crate::node::query::{QueryJob, QueryResult};
use crate::node::threads::{Threads, Waiting, guarded, run_inside};
use crate::replica::Input;
use crate::storage::LogReader;
use crate::storage::snapshot::SnapshotStore;
use crate::types::{Base, Entries, Entry, GroupId, Index, Reply, SnapshotId};

use super::queue::{LaneQueue, LaneSender, Waited, lane};
use super::read::read;
use super::rules::{self, ApplyFailure};
use super::snapshot::{BuildJob, Cancel};

/// Room for so many replies is kept from batch to batch.
const REPLIES_KEPT: usize = 4096;

/// What became of a range, or of a part of it.
pub(super) type ApplyStep = Result<Vec<(Index, Reply)>, ApplyFailure>;

/// What a range of entries comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    /// The last index.
    pub(crate) last: Index,
    /// Its log time.
    pub(crate) log_time_us: u64,
    /// What all cost, in bytes.
    pub(crate) bytes: u64,
}

impl Sum {
    /// Of entries, at least one.
    pub(crate) fn of(entries: &[Entry]) -> Option<Self> {
        let last = entries.last()?;
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        Some(Self { last: last.index, log_time_us: last.log_time_us, bytes })
    }
}

/// One group's machine and what it takes to feed it.
pub(crate) struct Applier {
    group: GroupId,
    /// `None` only while it is being dropped.
    machine: Option<Box<dyn StateMachine>>,
    reader: Arc<dyn LogReader>,
    chunk_bytes: u64,
    failed: Option<String>,
    /// Empty between batches: the room is kept.
    replies: Vec<Reply>,
}

impl Applier {
    /// An applier for `machine`.
    pub(crate) fn new(
        group: GroupId,
        machine: Box<dyn StateMachine>,
        reader: Arc<dyn LogReader>,
        chunk_bytes: u64,
    ) -> Self {
        Self {
            group,
            machine: Some(machine),
            reader,
            chunk_bytes,
            failed: None,
            replies: Vec::new(),
        }
    }

    /// Whether the machine may run on the event loop.
    pub(crate) fn never_blocks(&self) -> bool {
        self.machine
            .as_ref()
            .is_some_and(|machine| guarded(|| machine.never_blocks()).unwrap_or(false))
    }

    /// Applies consecutive entries.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> ApplyStep {
        let commands = rules::commands(entries);
        let Some(first) = commands.first() else { return Ok(Vec::new()) };
        let fail = |index, detail: String| ApplyFailure { index, kind: "apply", detail };
        if let Some(earlier) = &self.failed {
            return Err(fail(first.index, format!("it had failed before: {earlier}")));
        }
        let Some(machine) = &mut self.machine else {
            return Err(fail(first.index, "it is gone".into()));
        };
        let replies = &mut self.replies;
        replies.clear();
        let ran = guarded(|| {
            run_inside("the state machine's apply", || machine.apply(&commands, replies))
        });
        // It stopped at the first command that it has not answered.
        let at = commands.get(replies.len()).unwrap_or(first).index;
        let paired = match ran {
            Ok(Ok(())) => rules::pair(&commands, replies).map_err(|detail| (first.index, detail)),
            Ok(Err(error)) => Err((at, error.to_string())),
            Err(panic) => Err((at, format!("it panicked: {panic}"))),
        };
        replies.shrink_to(REPLIES_KEPT);
        paired.map_err(|(index, detail)| {
            self.failed = Some(detail.clone());
            fail(index, detail)
        })
    }

    /// Applies `first..=last`. Without `entries` it reads them chunk by chunk and reports each,
    /// so that a range of any length needs the memory of one; ends early when `report` says so.
    fn apply_range(
        &mut self,
        first: Index,
        last: Index,
        entries: Entries,
        mut report: impl FnMut(Applied) -> Next,
    ) {
        let mut entries = entries;
        let mut next = first;
        while next <= last {
            let mut chunk_last = last;
            if entries.is_empty() {
                let chunk = read(self.reader.as_ref(), self.group, next, last, self.chunk_bytes);
                let checked = chunk.and_then(|entries| {
                    rules::check_run(&entries, next, last).map(|after| (entries, after))
                });
                match checked {
                    Ok((chunk, after)) => {
                        entries = chunk.into();
                        chunk_last = after.prev();
                    }
                    Err(detail) => {
                        report(Applied::Unreadable(detail));
                        return;
                    }
                }
            }
            let applied = match self.apply(&entries) {
                Ok(replies) => {
                    let nothing = Sum { last: chunk_last, log_time_us: 0, bytes: 0 };
                    Applied::Upto(Sum::of(&entries).unwrap_or(nothing), replies)
                }
                Err(failure) => Applied::Failed(failure),
            };
            if report(applied) == Next::Stop {
                return;
            }
            entries = Entries::new();
            next = chunk_last.next();
        }
    }

    /// Freezes the machine, which has applied what it was given and nothing else.
    pub(crate) fn freeze(&mut self) -> Result<Box<dyn SnapshotView>, String> {
        let machine = match (&self.failed, &mut self.machine) {
            (Some(failed), _) => return Err(format!("it had failed before: {failed}")),
            (None, None) => return Err("the state machine is gone".into()),
            (None, Some(machine)) => machine,
        };
        guarded(|| run_inside("the state machine's snapshot", || machine.snapshot()))
            .map_err(|panic| format!("the state machine panicked: {panic}"))?
            .map_err(|error| error.to_string())
    }

    /// Makes the machine what a snapshot holds. One that fails in this is never called again.
    pub(crate) fn restore(
        &mut self,
        store: &dyn SnapshotStore,
        id: &SnapshotId,
    ) -> Result<(), RestoreFailure> {
        let restored = match (&self.failed, &mut self.machine) {
            (Some(failed), _) => {
                Err(RestoreFailure::Machine(format!("it had failed before: {failed}")))
            }
            (None, None) => Err(RestoreFailure::Machine("it is gone".into())),
            (None, Some(machine)) => restore(machine.as_mut(), store, self.group, id),
        };
        restored.inspect_err(|failure| self.failed = Some(failure.to_string()))
    }

    /// The same machine over a log that was opened again.
    #[cfg(feature = "sim")]
    pub(crate) fn reopened(mut self, reader: Arc<dyn LogReader>) -> Self {
        self.reader = reader;
        // A process that starts anew has not failed yet.
        self.failed = None;
        self
    }

    /// What the machine would put into a snapshot, or why it makes none.
    #[cfg(feature = "sim")]
    pub(crate) fn content(&mut self) -> Result<Vec<u8>, String> {
        let machine = self.machine.as_mut().ok_or("the state machine is gone")?;
        crate::sim::freeze(machine.as_mut())
    }

    /// What the machine answers to a query.
    pub(crate) fn query(&self, request: &[u8]) -> QueryResult {
        let reason = match (&self.failed, &self.machine) {
            (Some(failed), _) => failed.clone(),
            (None, None) => "the state machine is gone".into(),
            (None, Some(machine)) => {
                let ran =
                    guarded(|| run_inside("the state machine's query", || machine.query(request)));
                // A query only reads, so its failure is the asker's misfortune, not the state's.
                let failed = |detail| Err(NodeError::QueryFailed { detail });
                return match ran {
                    Ok(Ok(reply)) => Ok(reply),
                    Ok(Err(error)) => failed(error.to_string()),
                    Err(panic) => failed(format!("it panicked: {panic}")),
                };
            }
        };
        Err(NodeError::Faulted { reason })
    }
}

/// Why a machine is not what a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreFailure {
    /// The snapshot cannot be read.
    #[error("reading a snapshot: {0}")]
    Storage(String),
    /// The machine does not take it.
    #[error("{0}")]
    Machine(String),
}

/// A snapshot's content that remembers why it could not be read: a machine may hide it.
struct Watched<'a> {
    content: &'a mut dyn Read,
    failed: Option<String>,
}

impl Read for Watched<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.content.read(bytes).inspect_err(|error| self.failed = Some(error.to_string()))
    }
}

/// Restores a machine from a snapshot, and reads that to its end, so that all of it was verified.
pub(crate) fn restore(
    machine: &mut dyn StateMachine,
    store: &dyn SnapshotStore,
    group: GroupId,
    id: &SnapshotId,
) -> Result<(), RestoreFailure> {
    let unread = |detail: String| RestoreFailure::Storage(detail);
    let mut content = store.open(group, id).map_err(|error| unread(error.to_string()))?;
    let mut watched = Watched { content: content.as_mut(), failed: None };
    let ran =
        guarded(|| run_inside("the state machine's restore", || machine.restore(&mut watched)));
    if let Some(failed) = watched.failed {
        return Err(unread(failed));
    }
    ran.map_err(|panic| RestoreFailure::Machine(format!("it panicked: {panic}")))?
        .map_err(|error| RestoreFailure::Machine(error.to_string()))?;
    let rest = std::io::copy(&mut content, &mut std::io::sink());
    rest.map(drop).map_err(|error| unread(error.to_string()))
}

impl Drop for Applier {
    fn drop(&mut self) {
        let machine = self.machine.take();
        // A panic in a user's destructor must not take the lane's last words with it.
        let _ = guarded(|| run_inside("the state machine's drop", || drop(machine)));
    }
}

/// What became of a range on the lane, or of the next part of it.
enum Applied {
    Upto(Sum, Vec<(Index, Reply)>),
    Failed(ApplyFailure),
    Unreadable(String),
}

/// Whether a range goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

/// Work for the lane's thread.
enum Job {
    Apply { group: GroupId, first: Index, last: Index, entries: Entries },
    Query(GroupId, QueryJob),
    Freeze { group: GroupId, base: Box<Base>, cancel: Cancel },
    Restore { group: GroupId, id: SnapshotId },
}

/// Where snapshots go, where there is such a place.
pub(crate) struct SnapshotPlace {
    /// The store.
    pub(crate) store: Arc<dyn SnapshotStore>,
    /// Who writes what a machine froze.
    pub(crate) builder: Arc<LaneQueue<BuildJob>>,
}

/// The apply lane's thread, for machines that may block.
pub(crate) struct ApplyLane {
    queue: LaneSender<Job>,
}

impl ApplyLane {
    /// Starts the thread.
    pub(crate) fn start(
        appliers: BTreeMap<GroupId, Applier>,
        place: Option<SnapshotPlace>,
        (intake, meter): (Arc<Intake>, Arc<Meter>),
        threads: &Threads,
    ) -> Result<Self, NodeError> {
        let (queue, theirs) = lane();
        threads.spawn("apply", move || {
            run(appliers, place.as_ref(), &theirs, (&intake, &meter));
        })?;
        Ok(Self { queue })
    }

    /// Asks for a range to be applied; the answer comes through the inbox.
    pub(crate) fn apply(&self, group: GroupId, first: Index, last: Index, entries: Entries) {
        self.queue.push_all([Job::Apply { group, first, last, entries }]);
    }

    /// Asks a query.
    pub(crate) fn query(&self, group: GroupId, job: QueryJob) {
        self.queue.push_all([Job::Query(group, job)]);
    }

    /// Asks for a snapshot of the machine as it is after what it was given before.
    pub(crate) fn freeze(&self, group: GroupId, base: Box<Base>, cancel: Cancel) {
        self.queue.push_all([Job::Freeze { group, base, cancel }]);
    }

    /// Asks that the machine become what a snapshot holds.
    pub(crate) fn restore(&self, group: GroupId, id: SnapshotId) {
        self.queue.push_all([Job::Restore { group, id }]);
    }

    /// Lets the thread end after what it is doing; the rest of the queue is dropped, since nobody
    /// needs it applied in this life.
    pub(crate) fn stop(&self) {
        self.queue.abandon();
        self.queue.close();
    }
}

fn run(
    mut appliers: BTreeMap<GroupId, Applier>,
    place: Option<&SnapshotPlace>,
    queue: &LaneQueue<Job>,
    (intake, meter): (&Intake, &Meter),
) {
    let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
    while queue.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
        for job in jobs.drain(..) {
            match job {
                Job::Query(group, query) => match appliers.get(&group) {
                    Some(applier) => {
                        let answer = applier.query(&query.request);
                        query.answer(answer);
                    }
                    None => drop(query),
                },
                Job::Freeze { group, base, cancel } => {
                    let (Some(applier), Some(place)) = (appliers.get_mut(&group), place) else {
                        continue;
                    };
                    match applier.freeze() {
                        Ok(view) => {
                            let job = BuildJob::Build { group, view, base, cancel };
                            place.builder.push_all([job]);
                        }
                        Err(detail) => {
                            let failed = Box::new(Input::SnapshotBuilt(Err(detail)));
                            intake.notify([Note::Snapshot(group, failed)]);
                        }
                    }
                }
                Job::Restore { group, id } => {
                    let (Some(applier), Some(place)) = (appliers.get_mut(&group), place) else {
                        continue;
                    };
                    let result = applier.restore(place.store.as_ref(), &id);
                    intake.notify([Note::Restored { group, applier: None, id, result }]);
                }
                Job::Apply { group, first, last, entries } => {
                    let Some(applier) = appliers.get_mut(&group) else { continue };
                    let mut begun_us = meter.now_us();
                    applier.apply_range(first, last, entries, |applied| {
                        meter.applied(begun_us);
                        let (note, next) = match applied {
                            Applied::Upto(sum, replies) => {
                                (Note::Applied { group, sum, replies }, Next::Go)
                            }
                            Applied::Failed(failure) => {
                                (Note::ApplyFailed { group, failure }, Next::Stop)
                            }
                            Applied::Unreadable(detail) => {
                                let reason = format!("reading entries to apply: {detail}");
                                (Note::PersistFailed(group, reason), Next::Stop)
                            }
                        };
                        intake.notify([note]);
                        begun_us = meter.now_us();
                        if queue.is_closed() { Next::Stop } else { next }
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::machine::{Command, MachineError, SnapshotView};
    use crate::node::callers::Gauge;
    use crate::node::pending::Slot;
    use crate::node::query::Asked;
    use crate::storage::StorageError;
    use crate::types::{EntryKind, Payload, Term};
    use bytes::Bytes;

    /// Serves entries whose payload is their index; short reads of two entries.
    struct Served(u64);
    impl LogReader for Served {
        fn read(
            &self,
            _: GroupId,
            first: Index,
            last: Index,
            _: u64,
        ) -> Result<Vec<Entry>, StorageError> {
            let last = last.0.min(first.0 + 1).min(self.0);
            if first.0 > last {
                return Err(StorageError::Missing { index: first, detail: "end".into() });
            }
            Ok((first.0..=last).map(entry).collect())
        }
    }

    fn entry(index: u64) -> Entry {
        Entry {
            term: Term(1),
            index: Index(index),
            log_time_us: 0,
            kind: if index == 3 { EntryKind::Noop } else { EntryKind::Command },
            session: None,
            payload: Payload::new(index.to_string().into_bytes()),
        }
    }

    struct Echo {
        seen: Vec<u64>,
        surplus: bool,
        panics_at: u64,
    }
    impl StateMachine for Echo {
        fn apply(
            &mut self,
            batch: &[Command],
            replies: &mut Vec<Reply>,
        ) -> Result<(), MachineError> {
            for command in batch {
                assert_ne!(command.index.0, self.panics_at, "on purpose");
                self.seen.push(command.index.0);
                replies.push(Reply::Ok(command.payload.clone()));
            }
            if self.surplus {
                replies.push(Reply::Ok(Bytes::new()));
            }
            Ok(())
        }
        fn query(&self, _: &[u8]) -> Result<Reply, MachineError> {
            Ok(Reply::Ok(Bytes::from(format!("{:?}", self.seen))))
        }
        fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
            Err(MachineError("none".into()))
        }
        fn restore(&mut self, _: &mut dyn std::io::Read) -> Result<(), MachineError> {
            Ok(())
        }
    }

    fn applier(surplus: bool, panics_at: u64) -> Applier {
        let machine = Box::new(Echo { seen: Vec::new(), surplus, panics_at });
        Applier::new(GroupId::FIRST, machine, Arc::new(Served(9)), 1)
    }

    fn ask(applier: &Applier) -> Result<Reply, NodeError> {
        let slot = Slot::empty();
        let permit = Gauge::new(1, 1).admit(1, 1).unwrap();
        let job = QueryJob::new(Bytes::new(), Asked::slot(&slot, permit));
        let answer = applier.query(&job.request);
        job.answer(answer);
        slot.take().unwrap()
    }

    #[test]
    fn a_range_without_entries_is_read_in_chunks_and_only_commands_are_applied() {
        let mut applier = applier(false, 0);
        let mut reported = Vec::new();
        applier.apply_range(Index(1), Index(5), Entries::new(), |applied| {
            let Applied::Upto(upto, replies) = applied else { panic!("not applied") };
            let indexes: Vec<u64> = replies.iter().map(|(index, _)| index.0).collect();
            reported.push((upto.last.0, indexes));
            Next::Go
        });
        assert_eq!(reported, [(2, vec![1, 2]), (4, vec![4]), (5, vec![5])]);
        assert_eq!(ask(&applier).unwrap(), Reply::Ok(Bytes::from("[1, 2, 4, 5]")));
    }

    #[test]
    fn a_range_ends_early_when_the_lane_is_to_end() {
        let mut applier = applier(false, 0);
        let mut reports = 0;
        applier.apply_range(Index(1), Index(9), Entries::new(), |_| {
            reports += 1;
            Next::Stop
        });
        assert_eq!(reports, 1);
        assert_eq!(ask(&applier).unwrap(), Reply::Ok(Bytes::from("[1, 2]")));
    }

    #[test]
    fn a_log_that_ends_too_early_is_a_storage_fault() {
        let mut end = None;
        applier(false, 0).apply_range(Index(8), Index(12), Entries::new(), |applied| {
            end = Some(applied);
            Next::Go
        });
        assert!(matches!(end, Some(Applied::Unreadable(detail)) if detail.contains("10")));
    }

    #[test]
    fn a_machine_that_loses_count_or_panics_is_never_called_again() {
        for (mut applier, index, word) in
            [(applier(true, 0), 1, "3 replies to 2 commands"), (applier(false, 2), 2, "on purpose")]
        {
            let failure = applier.apply(&[entry(1), entry(2)]).unwrap_err();
            assert_eq!((failure.index, failure.kind), (Index(index), "apply"));
            assert!(failure.detail.contains(word), "{}", failure.detail);
            let again = applier.apply(&[entry(4)]).unwrap_err();
            assert!(again.detail.contains("failed before"), "{}", again.detail);
            assert!(matches!(ask(&applier), Err(NodeError::Faulted { .. })));
        }
    }
}
