//! A node's snapshots: the machine frozen and restored, files of them in memory, pieces read and written.
//!
//! Three things wait until they are told to go on, as on the threads of a real node: what the machine froze
//! waits to be written (`build`); pieces wait to be read for peers, or to be written (`pieces`); the machine
//! waits to be restored (`apply`). Complete snapshots, and what was received of others, survive a crash.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use raftz_core::replica::{Action, Input};
use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::{MemorySnapshots, SnapshotIntake, SnapshotStore};
use raftz_core::types::{Base, GroupId, NodeId, Snapshot, SnapshotId};

use super::cluster::{Cluster, Node, Voice};
use super::disk::Disk;
use super::machine::Machine;

const GROUP: GroupId = GroupId::FIRST;
const NO_RESTORE: &str = "it does not know this format";

/// What one node has of snapshots, and the work on them that waits.
pub(crate) struct Snapshots {
    store: MemorySnapshots,
    frozen: Option<(Base, Vec<u8>)>,
    /// What it froze is not to be written any more.
    pub(crate) is_cancelled: bool,
    pub(crate) restoring: Option<SnapshotId>,
    pub(crate) pieces: VecDeque<Action>,
    intake: Option<(SnapshotId, Box<dyn SnapshotIntake>)>,
    /// These lanes do nothing in [`Cluster::stabilize`] while they are held.
    pub(crate) build_held: bool,
    pub(crate) pieces_held: bool,
    /// Its machine takes no snapshot.
    pub(crate) restore_fails: bool,
}

impl Snapshots {
    pub(crate) fn new(disk: &Disk) -> Self {
        Self {
            store: MemorySnapshots::new(&disk.identity()),
            frozen: None,
            is_cancelled: false,
            restoring: None,
            pieces: VecDeque::new(),
            intake: None,
            build_held: false,
            pieces_held: false,
            restore_fails: false,
        }
    }

    /// The complete ones, the newest first.
    pub(crate) fn list(&self) -> Vec<Snapshot> {
        self.store.list(GROUP).unwrap()
    }

    /// The newest one is there no more, and nobody is told.
    pub(crate) fn lose_newest(&self) {
        let newest = self.list().first().expect("no snapshot").id;
        self.store.remove(GROUP, &newest).unwrap();
    }

    /// All that waits is gone.
    pub(crate) fn crash(&mut self) {
        (self.frozen, self.restoring, self.intake) = (None, None, None);
        self.pieces.clear();
    }

    fn read(&self, id: &SnapshotId) -> Result<Machine, StorageError> {
        let mut content = self.store.open(GROUP, id)?;
        Ok(Machine::restored(&mut content))
    }

    fn build(&self, base: &Base, content: &[u8]) -> Result<Snapshot, StorageError> {
        let mut sink = self.store.create(GROUP, base)?;
        sink.write_all(content).unwrap();
        sink.finish()
    }

    fn begin(&mut self, id: SnapshotId) -> Result<u64, StorageError> {
        // What was received before is given back to the store first.
        self.intake = None;
        let intake = self.store.receive(GROUP, &id)?;
        let held = intake.held_bytes();
        self.intake = Some((id, intake));
        Ok(held)
    }

    /// Adds a piece, if it is the next one. How much is held then, and whether the piece was damaged.
    fn write(&mut self, id: SnapshotId, offset: u64, bytes: &Bytes) -> Option<(u64, bool)> {
        let (_, intake) = self.intake.as_mut().filter(|(its, _)| *its == id)?;
        let is_damaged = intake.held_bytes() == offset && intake.write(bytes).is_err();
        Some((intake.held_bytes(), is_damaged))
    }

    fn prune(&self, keep: usize, spare: &[SnapshotId]) -> Vec<SnapshotId> {
        let kept = self.list();
        let old = kept.iter().map(|kept| kept.id).skip(keep).filter(|id| !spare.contains(id));
        let old: Vec<SnapshotId> = old.collect();
        old.iter().for_each(|id| self.store.remove(GROUP, id).unwrap());
        old
    }
}

impl Node {
    /// Its complete snapshots, the newest first.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.snapshots.list()
    }

    /// Brings the machine of a new life to the newest snapshot; to none that is older than where the log
    /// begins. A machine that persists itself stays where it is, unless it is behind.
    pub(crate) fn restore_at_start(&mut self) -> Result<Option<Snapshot>, String> {
        let base = self.disk.log.base.id.index;
        let newest = self.snapshots().into_iter().next().filter(|it| it.id.last.index >= base);
        let Some(newest) = newest else {
            // One is asked of the others.
            let has_peers = self.disk.log.base.membership.members.len() > 1;
            let is_there = self.machine.applied >= base || has_peers;
            let why = format!("its log begins behind {base}, and no snapshot covers that");
            return if is_there { Ok(None) } else { Err(why) };
        };
        let last = newest.id.last;
        if self.machine.applied < last.index {
            if self.snapshots.restore_fails {
                return Err(format!("restoring {last}: {NO_RESTORE}"));
            }
            self.machine = self.snapshots.read(&newest.id).map_err(|error| error.to_string())?;
        }
        Ok(Some(newest))
    }
}

impl Cluster {
    /// Freezes the machine, which must be where the snapshot is to be.
    pub(crate) fn freeze(&mut self, id: NodeId, base: Base) {
        let node = self.nodes.get_mut(&id).unwrap();
        let last = base.id;
        assert_eq!(node.machine.applied, last.index, "{id}: a snapshot of another state");
        assert!(node.snapshots.frozen.is_none(), "{id} takes two snapshots at once");
        node.snapshots.frozen = Some((base, node.machine.content()));
        node.snapshots.is_cancelled = false;
        self.say(Voice::All, || format!("{id}: freezes its machine at {last}"));
    }

    /// Writes what the machine froze into a snapshot, unless that was cancelled in time.
    pub(crate) fn build(&mut self, id: NodeId, is_late: bool) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((base, content)) = node.snapshots.frozen.take() else { return false };
        if node.snapshots.is_cancelled && !is_late {
            self.say(Voice::All, || format!("{id}: writes no snapshot of {}", base.id));
            self.step(id, Input::SnapshotBuilt(Err("cancelled".into())));
            return true;
        }
        let snapshot = node.snapshots.build(&base, &content).unwrap();
        self.oracle.on_snapshot(id, &snapshot);
        self.step(id, Input::SnapshotBuilt(Ok(snapshot)));
        true
    }

    /// What the machine froze cannot be written.
    pub(crate) fn fail_build(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.snapshots.frozen.take().is_some(), "nothing to build");
        self.step(id, Input::SnapshotBuilt(Err("no space".into())));
    }

    /// Makes the machine what a snapshot holds, if that is wanted.
    pub(crate) fn restore(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(snapshot) = node.snapshots.restoring.take() else { return false };
        let last = snapshot.last;
        if node.snapshots.restore_fails {
            let (index, detail) = (last.index, NO_RESTORE.to_owned());
            self.step(id, Input::ApplyFailed { index, kind: "restore", detail });
            return true;
        }
        assert!(node.machine.applied < last.index, "{id}: the machine goes back to {last}");
        node.machine = match node.snapshots.read(&snapshot) {
            Ok(machine) => machine,
            Err(_) => {
                self.step(id, Input::PersistFailed(format!("snapshot {last} is not here")));
                return true;
            }
        };
        assert_eq!(node.machine.applied, last.index, "{id}: a snapshot of another state");
        self.oracle.on_restored(id, last.index, node.machine.state());
        self.say(Voice::All, || format!("{id}: restores its machine to {last}"));
        self.step(id, Input::Restored(snapshot));
        true
    }

    /// Does the first `count` of the things that wait for the lane of pieces.
    pub(crate) fn pieces(&mut self, id: NodeId, count: usize) -> bool {
        let waiting = self.nodes[&id].snapshots.pieces.len();
        for _ in 0..waiting.min(count) {
            let Some(job) = self.nodes.get_mut(&id).unwrap().snapshots.pieces.pop_front() else {
                break;
            };
            self.piece(id, job);
        }
        waiting > 0
    }

    fn piece(&mut self, at: NodeId, job: Action) {
        let snapshots = &mut self.nodes.get_mut(&at).unwrap().snapshots;
        match job {
            Action::ReadPiece { to, id, offset, bytes_max } => {
                let read = snapshots.store.read_piece(GROUP, &id, offset, bytes_max as usize);
                let result = read.map_err(|_| format!("snapshot {} is not here", id.last));
                self.step(at, Input::PieceRead { to, id, offset, result });
            }
            Action::BeginFetch { id } => {
                let result = snapshots.begin(id).map_err(|error| error.to_string());
                self.step(at, Input::FetchBegan { id, result });
            }
            Action::WritePiece { id, offset, bytes } => {
                let Some((held_bytes, is_damaged)) = snapshots.write(id, offset, &bytes) else {
                    return;
                };
                let damage = is_damaged.then(|| "a piece is damaged".to_owned());
                let is = if is_damaged { "is damaged" } else { "is written" };
                self.say(Voice::All, || {
                    format!("{at}: the piece from {offset} {is}; {held_bytes} bytes are held")
                });
                self.step(at, Input::PieceWritten { id, held_bytes, damage });
            }
            Action::FinishFetch { id } => {
                let Some((_, intake)) = snapshots.intake.take_if(|(its, _)| *its == id) else {
                    return;
                };
                let result = intake.finish().map_err(|_| "it is another one".to_owned());
                if let Ok(snapshot) = &result {
                    self.oracle.on_snapshot(at, snapshot);
                }
                self.step(at, Input::FetchFinished { id, result });
            }
            Action::AbandonFetch { id } => {
                drop(snapshots.intake.take_if(|(its, _)| *its == id));
            }
            Action::PruneSnapshots { keep, spare, damaged } => {
                for id in &damaged {
                    snapshots.store.remove(GROUP, id).unwrap();
                }
                for gone in snapshots.prune(keep, &spare) {
                    self.say(Voice::All, || format!("{at}: deletes snapshot {}", gone.last));
                }
            }
            Action::FindSnapshot { least } => {
                let newest = snapshots.list().into_iter().next();
                if let Some(found) = newest.filter(|it| it.id.last.index >= least) {
                    self.step(at, Input::SnapshotFound(found));
                }
            }
            Action::ScrubSnapshots { newest } => {
                let kept = snapshots.list();
                let lost = newest.filter(|id| kept.iter().all(|it| it.id != *id));
                let lost = lost.map(|id| (id, format!("snapshot {} is not here", id.last)));
                self.step(at, Input::SnapshotsScrubbed(lost.into_iter().collect()));
            }
            other @ (Action::Persist(_)
            | Action::Send { .. }
            | Action::ReadEntries { .. }
            | Action::Apply { .. }
            | Action::TakeSnapshot { .. }
            | Action::CancelSnapshot
            | Action::Restore { .. }
            | Action::Reply { .. }
            | Action::Read { .. }
            | Action::EndRead { .. }
            | Action::TransferEnded { .. }
            | Action::Event(_)
            | Action::Halt(_)) => panic!("{at}: {other:?} is no work with pieces"),
        }
    }
}
