//! One node: the real replica, the real write-ahead log on a simulated disk, the user's machine, and lanes
//! that take their time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::machine::SnapshotView;
use crate::node::lanes::{Applier, Cancel, PieceJob, Pieces};
use crate::raft;
use crate::replica::{Config, Input, Replica};
use crate::storage::snapshot::{FileSnapshots, SnapshotStore};
use crate::storage::vfs::Vfs;
use crate::storage::wal::{Expect, Wal, WalOptions};
use crate::storage::{Completion, LogReader, Storage, StorageError, WriteBatch};
use crate::types::{
    Base, Boot, ClusterId, DiskId, Entries, Entry, FaultReason, GroupId, Index, NodeId, OpId,
    Recovered, Snapshot, SnapshotId, WriteOp,
};

use super::choice::{Choices, Chooser, Stream};
use super::clock::Clock;
use super::disk::{DiskFaults, SimDisk};
use super::plan::Plan;

pub(super) const CLUSTER: ClusterId = ClusterId(0x5eed);
const DIRECTORY: &str = "/raftz";

/// Where a node's directory is, on its own disk.
pub(super) fn directory() -> PathBuf {
    Path::new(DIRECTORY).to_path_buf()
}

/// A range that a machine is to apply.
pub(super) struct Range {
    pub(super) first: Index,
    pub(super) last: Index,
    pub(super) entries: Entries,
}

/// Entries that a peer needs and that are no longer in memory.
#[derive(Clone, Copy)]
pub(super) struct ReadJob {
    pub(super) request: u64,
    pub(super) first: Index,
    pub(super) last: Index,
    pub(super) bytes_max: u64,
}

/// Work of the snapshot lane.
pub(super) enum SnapshotJob {
    Build { view: Box<dyn SnapshotView>, base: Box<Base>, cancel: Cancel },
    Restore(SnapshotId),
    Piece(PieceJob),
    Scrub(Option<SnapshotId>),
}

/// What became of submissions.
pub(super) type Fates = Arc<Mutex<Vec<(Vec<(GroupId, OpId)>, Result<(), StorageError>)>>>;

/// A node between its start and its end.
pub(super) struct Life {
    /// Counts the lives of all nodes: events of an earlier one are void.
    pub(super) number: u64,
    pub(super) boot: Boot,
    pub(super) disk_id: DiskId,
    pub(super) founders_hash: u64,
    pub(super) replica: Replica,
    pub(super) storage: Wal,
    pub(super) reader: Arc<dyn LogReader>,
    pub(super) applier: Applier,
    /// The last index that the machine has applied.
    pub(super) machine_applied: Index,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    pub(super) pieces: Pieces,
    /// Ends the snapshot that is being written.
    pub(super) build: Cancel,
    /// What the snapshot lane is to do, in order.
    pub(super) snapshot_jobs: VecDeque<SnapshotJob>,
    /// Writes that wait for the log lane.
    pub(super) queue: VecDeque<(GroupId, WriteOp)>,
    /// What the log lane is writing.
    pub(super) writing: Option<WriteBatch>,
    pub(super) fates: Fates,
    /// Counts submissions, so that a seal comes only when none followed.
    pub(super) submissions: u64,
    /// Whether everything durable is covered by a watermark, so that damage to it is always found.
    pub(super) is_sealed: bool,
    pub(super) lacks_room: bool,
    pub(super) applying: Option<Range>,
    /// The true time for which a tick is scheduled.
    pub(super) tick_at_us: Option<u64>,
    /// Counts scheduled ticks: only the latest is not void.
    pub(super) ticks: u64,
    pub(super) halted: Option<FaultReason>,
    /// Outputs that may still happen before the process dies.
    pub(super) outputs_left: Option<u64>,
    /// Inputs that follow the step that is under way.
    pub(super) unsent: Vec<Input>,
}

impl Life {
    /// Hands a submission to the store; its fate appears among the fates.
    pub(super) fn submit(&mut self, batch: WriteBatch) {
        let marks = crate::node::lanes::rules::marks(&batch);
        let fates = self.fates.clone();
        let done = Completion::new(move |result| fates.lock().push((marks, result)));
        self.storage.submit(batch, done);
    }
}

/// Where a disk has been damaged, of the places that hold a mark of what was durable: the log and the two
/// slots of the vote file. One must be left, or nobody could tell any more.
#[derive(Clone, Copy, Default)]
pub(super) struct Struck {
    pub(super) log: bool,
    pub(super) vote_slots: u64,
    /// A snapshot was, and no other one has taken its place since.
    pub(super) snapshot: bool,
}

/// One machine of the cluster, running or not.
pub(super) struct SimNode {
    pub(super) id: NodeId,
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) life: Option<Life>,
    pub(super) chooser: Chooser,
    /// Faults of its disk have damaged what was durable.
    pub(super) is_damaged: bool,
    pub(super) struck: Struck,
    /// How many operations its disk had failed at its last good start.
    pub(super) errors_seen: u64,
    /// It can never be started again.
    pub(super) is_gone: bool,
    /// Its directory was replaced by a new one.
    pub(super) is_replaced: bool,
    /// It is to be dead, deaf or mute for good, once the others have been healed.
    pub(super) is_outside: bool,
    /// It stands still until then.
    pub(super) paused_until_us: u64,
    /// What may go wrong on its disk at the moment.
    pub(super) faults: DiskFaults,
    /// How much slower than usual its disk and its machine are.
    pub(super) disk_slow: u64,
    pub(super) machine_slow: u64,
    pub(super) dies_while_recovering: u32,
    pub(super) starts: u64,
    /// The machine that persists itself, and the last index that it has applied, while the node is dead.
    pub(super) kept: Option<(Applier, Index)>,
}

impl SimNode {
    /// A machine with an empty disk, which does not run.
    pub(super) fn new(id: NodeId, choices: &Choices) -> Self {
        Self {
            id,
            disk: SimDisk::new(choices.stream(Stream::Disk(id.get()))),
            clock: Clock::new(),
            life: None,
            chooser: choices.stream(Stream::Process(id.get())),
            is_damaged: false,
            struck: Struck::default(),
            errors_seen: 0,
            is_gone: false,
            is_replaced: false,
            is_outside: false,
            paused_until_us: 0,
            faults: DiskFaults::default(),
            disk_slow: 1,
            machine_slow: 1,
            dies_while_recovering: 0,
            starts: 0,
            kept: None,
        }
    }

    /// Whether something is missing that it had made durable.
    pub(super) fn has_lost(&self) -> bool {
        self.is_damaged || self.struck.snapshot
    }

    /// Whether its disk has failed an operation since its last good start: what fails then proves nothing
    /// against the code.
    pub(super) fn is_excused(&self) -> bool {
        self.disk_errors() > self.errors_seen
    }

    /// How many segments its log has.
    pub(super) fn segments(&self) -> usize {
        let names = self.disk.for_this_life().list(&directory()).unwrap_or_default();
        names.iter().filter(|name| name.starts_with("wal-")).count()
    }

    /// Operations that its disk has failed, on purpose or because it is full.
    pub(super) fn disk_errors(&self) -> u64 {
        let c = self.disk.counts();
        let failed = c.write_errors + c.short_writes + c.sync_errors + c.dir_sync_errors;
        failed + c.read_errors + c.other_errors + c.no_space + c.latent_errors
    }
}

/// How a node's replica is configured.
pub(super) fn replica_config(
    plan: &Plan,
    id: NodeId,
    disk_id: DiskId,
    (machine_applied, machine_log_time_us): (Index, Option<u64>),
    snapshot: Option<Snapshot>,
) -> Config {
    let priority = plan.priorities.get(super::world::place(id)).copied();
    let raft = raft::Config {
        election_timeout_min_us: plan.election_us.0,
        election_timeout_max_us: plan.election_us.1,
        heartbeat_interval_us: plan.heartbeat_us,
        append_bytes_max: plan.append_bytes,
        window_messages: usize::try_from(plan.window_messages).unwrap_or(usize::MAX),
        window_bytes: plan.window_bytes,
        uncommitted_bytes_max: plan.backlog_bytes,
        unapplied_bytes_max: plan.backlog_bytes,
        cache_bytes_max: plan.cache_bytes,
        apply_bytes_max: plan.apply_bytes,
        machine_applied: plan.machine_persists.then_some(machine_applied),
        snapshot,
        lease_reads: plan.lease_reads,
        disk_stall_timeout_us: plan.disk_stall_us(),
        election_priority: priority.unwrap_or(raft::PRIORITY_MAX),
        ..raft::Config::new(id, disk_id)
    };
    let (held_bytes_max, snapshots) = (plan.held_bytes, plan.snapshots);
    Config { raft, held_bytes_max, snapshots, machine_log_time_us }
}

/// How a node keeps its log.
pub(super) const fn wal_options(plan: &Plan) -> WalOptions {
    WalOptions { segment_bytes: plan.segment_bytes, reserve_bytes: plan.segment_bytes * 2 }
}

/// Opens a node's directory.
pub(super) fn open(disk: &SimDisk, id: NodeId, plan: &Plan) -> Result<Opened, StorageError> {
    let expect = Expect { cluster: CLUSTER, node: id };
    let vfs: Arc<dyn Vfs> = Arc::new(disk.for_this_life());
    let (wal, recovered) = Wal::open(Arc::clone(&vfs), &directory(), expect, wal_options(plan))?;
    let snapshots = Arc::new(FileSnapshots::open(vfs, &directory(), &recovered.identity)?);
    let entries = read_all(wal.reader().as_ref(), &recovered)?;
    Ok(Opened { wal, snapshots, recovered, entries })
}

/// An opened directory.
pub(super) struct Opened {
    pub(super) wal: Wal,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    pub(super) recovered: Recovered,
    /// All of its log.
    pub(super) entries: Vec<Entry>,
}

/// All entries of an opened log.
fn read_all(reader: &dyn LogReader, recovered: &Recovered) -> Result<Vec<Entry>, StorageError> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut next, last) = (recovered.base.id.index.next(), recovered.last.index);
    while next <= last {
        entries.extend(reader.read(GroupId::FIRST, next, last, 1 << 20)?);
        next = entries.last().map_or(last, |entry| entry.index).next();
    }
    Ok(entries)
}
