//! Snapshots in the runtime: which lane does what a replica asks for, calls that want one, and the machine's
//! state at a start.

use std::sync::Arc;

use crate::machine::MachineError;
use crate::replica::{Action, Input};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::{LogReader, StorageError};
use crate::types::{GroupId, Index, Now, Recovered, Snapshot, SnapshotId};

use super::error::NodeError;
use super::host::{Host, Machine};
use super::lanes::{Applier, BuildJob, Cancel, PieceJob, RestoreFailure};
use super::metrics::SnapshotWork;
use super::pending::Slot;
use super::start::latest_membership;

/// A blocked thread that wants a snapshot of everything applied when it asked.
pub(crate) struct SnapshotWish {
    slot: Arc<Slot<Result<Snapshot, NodeError>>>,
    applied: Index,
    is_granted: bool,
}

impl SnapshotWish {
    /// A wish, and where it is granted.
    pub(crate) fn new() -> (Self, Arc<Slot<Result<Snapshot, NodeError>>>) {
        let slot = Slot::empty();
        let wish = Self { slot: Arc::clone(&slot), applied: Index::ZERO, is_granted: false };
        (wish, slot)
    }

    /// Ends it.
    pub(crate) fn grant(mut self, result: Result<Snapshot, NodeError>) {
        self.is_granted = true;
        // Only ever waited for by a blocked thread: there is no waker.
        drop(self.slot.fill(result));
    }
}

impl Drop for SnapshotWish {
    fn drop(&mut self) {
        if !self.is_granted {
            drop(self.slot.fill(Err(NodeError::ShutDown)));
        }
    }
}

impl Host {
    /// Hands what a replica wants done with snapshots to the lane that does it.
    pub(super) fn perform_snapshot(&mut self, group: GroupId, action: Action) {
        match action {
            Action::TakeSnapshot { base } => {
                self.begin(SnapshotWork::Build);
                self.freeze(group, base);
            }
            Action::CancelSnapshot => {
                if let Some(member) = self.members.get(&group) {
                    member.build.cancel();
                }
            }
            Action::Restore { id } => {
                self.begin(SnapshotWork::Install);
                self.restore(group, id);
            }
            Action::ReadPiece { to, id, offset, bytes_max } => {
                self.piece(group, PieceJob::Read { to, id, offset, bytes_max });
            }
            Action::BeginFetch { id } => {
                self.begin(SnapshotWork::Fetch);
                self.piece(group, PieceJob::Begin(id));
            }
            Action::WritePiece { id, offset, bytes } => {
                self.piece(group, PieceJob::Write { id, offset, bytes });
            }
            Action::FinishFetch { id } => self.piece(group, PieceJob::Finish(id)),
            Action::AbandonFetch { id } => {
                self.end(SnapshotWork::Fetch, false);
                self.piece(group, PieceJob::Abandon(id));
            }
            Action::PruneSnapshots { keep, spare, damaged } => {
                self.piece(group, PieceJob::Prune { keep, spare, damaged });
            }
            Action::FindSnapshot { least } => self.piece(group, PieceJob::Find(least)),
            Action::ScrubSnapshots { newest } => {
                if let Some(lane) = &self.snapshots {
                    lane.scrub(group, newest);
                }
            }
            Action::Persist(_)
            | Action::Send { .. }
            | Action::ReadEntries { .. }
            | Action::Apply { .. }
            | Action::Reply { .. }
            | Action::Read { .. }
            | Action::EndRead { .. }
            | Action::TransferEnded { .. }
            | Action::Event(_)
            | Action::Halt(_) => {}
        }
    }

    fn begin(&mut self, work: SnapshotWork) {
        self.account.begin(work, &self.shared.meter);
    }

    fn end(&mut self, work: SnapshotWork, is_well: bool) {
        self.account.end(work, is_well, &self.shared.meter);
    }

    fn piece(&mut self, group: GroupId, job: PieceJob) {
        if let Some(lane) = &self.snapshots {
            return lane.piece(group, job);
        }
        let detail = || "this node has no place for snapshots".to_owned();
        let refused = match job {
            PieceJob::Read { to, id, offset, .. } => {
                Input::PieceRead { to, id, offset, result: Err(detail()) }
            }
            PieceJob::Begin(id) => Input::FetchBegan { id, result: Err(detail()) },
            PieceJob::Write { .. }
            | PieceJob::Finish(_)
            | PieceJob::Abandon(_)
            | PieceJob::Find(_)
            | PieceJob::Prune { .. } => return,
        };
        self.unsent.push((group, refused));
    }

    fn freeze(&mut self, group: GroupId, base: Box<crate::types::Base>) {
        let Some(lane) = &self.snapshots else {
            let detail = "this node has no place for snapshots".to_owned();
            return self.unsent.push((group, Input::SnapshotBuilt(Err(detail))));
        };
        let Some(member) = self.members.get_mut(&group) else { return };
        member.build = Cancel::default();
        let cancel = member.build.clone();
        match &mut member.machine {
            Machine::Inline { applier: Some(applier), .. } => match applier.freeze() {
                Ok(view) => lane.build(BuildJob::Build { group, view, base, cancel }),
                Err(detail) => self.unsent.push((group, Input::SnapshotBuilt(Err(detail)))),
            },
            // It is being restored, and a replica asks for no snapshot meanwhile.
            Machine::Inline { applier: None, .. } => {}
            Machine::Lane => {
                if let Some(lane) = &self.apply {
                    lane.freeze(group, base, cancel);
                }
            }
        }
    }

    fn restore(&mut self, group: GroupId, id: SnapshotId) {
        match self.members.get_mut(&group).map(|member| &mut member.machine) {
            // A large state takes long to read, which nothing on the loop may.
            Some(Machine::Inline { applier, .. }) => {
                if let (Some(lane), Some(applier)) = (&self.snapshots, applier.take()) {
                    lane.build(BuildJob::Restore { group, applier, id });
                }
            }
            Some(Machine::Lane) => {
                if let Some(lane) = &self.apply {
                    lane.restore(group, id);
                }
            }
            None => {}
        }
    }

    /// A machine was restored, or not.
    pub(super) fn restored(
        &mut self,
        now: Now,
        group: GroupId,
        back: Option<Box<Applier>>,
        id: SnapshotId,
        result: Result<(), RestoreFailure>,
    ) {
        let Some(member) = self.members.get_mut(&group) else { return };
        if let (Machine::Inline { applier, .. }, Some(back)) = (&mut member.machine, back) {
            *applier = Some(back);
        }
        self.end(SnapshotWork::Install, result.is_ok());
        let Some(member) = self.members.get_mut(&group) else { return };
        match result {
            Ok(()) => {
                member.applied = member.applied.max(id.last.index);
                self.step(now, group, Input::Restored(id));
            }
            Err(failure) => self.step(now, group, not_restored(id, &failure)),
        }
    }

    /// What the snapshot lane has to say to a replica, and to those who wait for a snapshot.
    pub(super) fn snapshot_news(&mut self, now: Now, group: GroupId, input: Input) {
        if let Input::SnapshotBuilt(result) = &input {
            self.end(SnapshotWork::Build, result.is_ok());
        } else if let Input::FetchFinished { result, .. } = &input {
            self.end(SnapshotWork::Fetch, result.is_ok());
        }
        let failed = if let Input::SnapshotBuilt(Err(detail)) = &input {
            Some(detail.clone())
        } else {
            None
        };
        self.step(now, group, input);
        self.grant_wishes(group, failed);
    }

    /// Ends what the newest snapshot fulfils, whoever made it; everything, where what it waited for failed.
    fn grant_wishes(&mut self, group: GroupId, failed: Option<String>) {
        let Some(member) = self.members.get(&group) else { return };
        let newest = member.replica.newest_snapshot();
        let reached = newest.map_or(Index::ZERO, |newest| newest.base.id.index);
        let is_over = |wish: &mut SnapshotWish| wish.applied <= reached || failed.is_some();
        for wish in self.wishes.extract_if(.., is_over) {
            let fulfils = newest.filter(|_| wish.applied <= reached).cloned();
            let detail = || failed.clone().unwrap_or_default();
            wish.grant(fulfils.ok_or_else(|| NodeError::Snapshot { detail: detail() }));
        }
    }

    /// Somebody wants a snapshot now.
    pub(super) fn wish_snapshot(&mut self, now: Now, group: GroupId, mut wish: SnapshotWish) {
        let Some(member) = self.members.get(&group) else { return };
        if let Some(reason) = &member.halted {
            return wish.grant(Err(NodeError::Faulted { reason: reason.to_string() }));
        }
        if self.snapshots.is_none() {
            let detail = "this node takes none: its log is in a store of the program's own, and snapshot_directory \
                          is not set"
                .into();
            return wish.grant(Err(NodeError::Snapshot { detail }));
        }
        wish.applied = member.applied;
        if let Some(newest) = member.replica.newest_snapshot()
            && newest.base.id.index >= wish.applied
        {
            return wish.grant(Ok(newest.clone()));
        }
        self.wishes.push(wish);
        self.step(now, group, Input::TakeSnapshot);
    }
}

/// What a replica is told of a machine that was not restored.
pub(crate) fn not_restored(id: SnapshotId, failure: &RestoreFailure) -> Input {
    match failure {
        RestoreFailure::Storage(_) => Input::PersistFailed(failure.to_string()),
        RestoreFailure::Machine(detail) => {
            Input::ApplyFailed { index: id.last.index, kind: "restore", detail: detail.clone() }
        }
    }
}

/// Brings a machine to where its log begins, or beyond: to the newest snapshot that can be read. Gives that
/// snapshot, and what a person should know.
pub(crate) fn restore_at_start(
    mut restore: impl FnMut(&dyn SnapshotStore, &SnapshotId) -> Result<(), RestoreFailure>,
    own: Option<Index>,
    store: Option<&dyn SnapshotStore>,
    recovered: &Recovered,
) -> Result<(Option<Snapshot>, Vec<String>), NodeError> {
    let group = GroupId::FIRST;
    let base = recovered.base.id.index;
    let mut news = Vec::new();
    let mut damaged = Vec::new();
    let kept = store.map_or_else(|| Ok(Vec::new()), |store| store.list(group))?;
    for snapshot in kept {
        let last = snapshot.base.id.index;
        if last < base {
            break;
        }
        // A machine that persists itself goes on from where it is; only an install that was interrupted may
        // be ahead of it.
        if own.is_some_and(|own| own >= last) {
            return Ok((Some(snapshot), news));
        }
        let Some(store) = store else { break };
        match store.check(group, &snapshot.id, &mut |_| true) {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                news.push(format!("a snapshot is not used: {error}"));
                damaged.push(snapshot.id);
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        restore(store, &snapshot.id)
            .map_err(|failure| MachineError(format!("restoring it at {last}: {failure}")))?;
        // Nobody needs them now, and the newest are the ones that are kept.
        damaged.iter().try_for_each(|id| store.remove(group, id))?;
        return Ok((Some(snapshot), news));
    }
    if base > Index::ZERO && own.is_none_or(|own| own < base) {
        if store.is_some() && has_peers(recovered) {
            news.push(format!(
                "the log begins after entry {base}, and no snapshot that covers it can be read: one is asked of the other nodes, and until it is here nothing is applied"
            ));
            return Ok((None, news));
        }
        let advice = if store.is_some() {
            "restore the directory from a copy, or remove this node and join under a new id"
        } else {
            "name the directory that has its snapshots (snapshot_directory)"
        };
        let detail = format!(
            "the log begins after entry {base}, and no snapshot that covers it can be read; {advice}"
        );
        return Err(StorageError::Missing { index: base, detail }.into());
    }
    Ok((None, news))
}

/// The log time of the last entry that a machine has kept from an earlier life, where the log still tells it: a
/// snapshot of it needs that.
pub(crate) fn log_time_us(
    reader: &dyn LogReader,
    recovered: &Recovered,
    own: Index,
) -> Option<u64> {
    let base = &recovered.base;
    if own == base.id.index {
        return Some(base.log_time_us).filter(|us| *us > 0);
    }
    let entries = reader.read(GroupId::FIRST, own, own, 1).ok()?;
    entries.first().filter(|entry| entry.index == own).map(|entry| entry.log_time_us)
}

/// Whether there is another node to ask.
fn has_peers(recovered: &Recovered) -> bool {
    latest_membership(recovered).members.keys().any(|id| *id != recovered.identity.node)
}
