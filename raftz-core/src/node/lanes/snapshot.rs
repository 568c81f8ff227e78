//! The snapshot lane: two threads beside all others. One writes what machines froze and restores machines
//! that otherwise run on the event loop; one serves and takes pieces, which must not wait for that.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;

use crate::machine::SnapshotView;
use crate::node::clock;
use crate::node::error::NodeError;
use crate::node::intake::{Intake, Note};
use crate::node::threads::{Threads, Waiting, guarded, run_inside};
use crate::replica::Input;
use crate::storage::StorageError;
use crate::storage::snapshot::{SnapshotIntake, SnapshotStore};
use crate::types::{Base, GroupId, Snapshot, SnapshotId};

use super::apply::Applier;
use super::queue::{LaneQueue, LaneSender, Waited, lane};

/// Long work.
pub(crate) enum BuildJob {
    /// Writes what a machine froze.
    Build {
        /// The group.
        group: GroupId,
        /// What it froze.
        view: Box<dyn SnapshotView>,
        /// What that stands for.
        base: Box<Base>,
    },
    /// Restores a machine, and gives it back.
    Restore {
        /// The group.
        group: GroupId,
        /// The machine.
        applier: Box<Applier>,
        /// What it is to be.
        id: SnapshotId,
    },
}

/// Short work, in order.
pub(crate) enum PieceJob {
    /// Reads a piece for a peer.
    Read {
        /// For whom.
        to: crate::types::NodeId,
        /// The snapshot.
        id: SnapshotId,
        /// Where it begins.
        offset: u64,
        /// Most bytes.
        bytes_max: u32,
    },
    /// Begins to receive, or goes on.
    Begin(SnapshotId),
    /// Adds a piece.
    Write {
        /// The snapshot.
        id: SnapshotId,
        /// Where it begins.
        offset: u64,
        /// It.
        bytes: Bytes,
    },
    /// Verifies the whole.
    Finish(SnapshotId),
    /// Receives no more.
    Abandon(SnapshotId),
    /// Deletes old ones.
    Prune {
        /// How many of the newest stay.
        keep: usize,
        /// Which others stay.
        spare: Vec<SnapshotId>,
    },
}

/// The lane.
pub(crate) struct SnapshotLane {
    build: LaneSender<BuildJob>,
    pieces: LaneSender<(GroupId, PieceJob)>,
}

impl SnapshotLane {
    /// Starts the threads.
    pub(crate) fn start(
        store: Arc<dyn SnapshotStore>,
        write_bytes_per_s: u64,
        intake: Arc<Intake>,
        threads: &Threads,
    ) -> Result<Self, NodeError> {
        let (build, builds) = lane();
        let (pieces, requests) = lane();
        let (builder, answers) = (Arc::clone(&store), Arc::clone(&intake));
        threads.spawn("snap", move || {
            run_builds(builder.as_ref(), write_bytes_per_s, &builds, &answers);
        })?;
        threads.spawn("piece", move || {
            let mut receiver = Pieces::new(store);
            let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
            while requests.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
                for (group, job) in jobs.drain(..) {
                    intake.notify(receiver.serve(group, job).map(|input| answer(group, input)));
                }
            }
        })?;
        Ok(Self { build, pieces })
    }

    /// Asks for long work.
    pub(crate) fn build(&self, job: BuildJob) {
        self.build.push_all([job]);
    }

    /// The sender of long work, for the apply lane.
    pub(crate) fn builder(&self) -> Arc<LaneQueue<BuildJob>> {
        self.build.beside()
    }

    /// Asks for short work.
    pub(crate) fn piece(&self, group: GroupId, job: PieceJob) {
        self.pieces.push_all([(group, job)]);
    }

    /// Lets the threads end after what they are doing.
    pub(crate) fn stop(&self) {
        self.build.abandon();
        self.build.close();
        self.pieces.abandon();
        self.pieces.close();
    }
}

fn answer(group: GroupId, input: Input) -> Note {
    Note::Snapshot(group, Box::new(input))
}

fn run_builds(
    store: &dyn SnapshotStore,
    write_bytes_per_s: u64,
    queue: &LaneQueue<BuildJob>,
    intake: &Intake,
) {
    let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
    while queue.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
        for job in jobs.drain(..) {
            match job {
                BuildJob::Build { group, view, base } => {
                    let is_over = || queue.is_closed();
                    let built = build(store, group, view, &base, write_bytes_per_s, &is_over);
                    intake.notify([answer(group, Input::SnapshotBuilt(built))]);
                }
                BuildJob::Restore { group, mut applier, id } => {
                    let result = applier.restore(store, &id);
                    intake.notify([Note::Restored { group, applier: Some(applier), id, result }]);
                }
            }
        }
    }
}

/// Writes what a machine froze into a snapshot, not faster than `write_bytes_per_s` (0: as fast as it goes).
pub(crate) fn build(
    store: &dyn SnapshotStore,
    group: GroupId,
    mut view: Box<dyn SnapshotView>,
    base: &Base,
    write_bytes_per_s: u64,
    is_over: &dyn Fn() -> bool,
) -> Result<Snapshot, String> {
    let mut sink = store.create(group, base).map_err(|error| error.to_string())?;
    let mut paced = Paced {
        out: sink.as_mut(),
        bytes: 0,
        begun_us: clock::boot_us(),
        bytes_per_s: write_bytes_per_s,
        is_over,
    };
    let written = guarded(|| {
        let written = run_inside("the state machine's snapshot", || view.write_to(&mut paced));
        run_inside("the state machine's snapshot_end", || drop(view));
        written
    });
    match written {
        Ok(Ok(())) => sink.finish().map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(format!("writing it failed: {error}")),
        Err(panic) => Err(format!("the state machine panicked: {panic}")),
    }
}

/// Writes at a bounded rate, so that the log's syncs are not kept waiting.
struct Paced<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    begun_us: u64,
    bytes_per_s: u64,
    is_over: &'a dyn Fn() -> bool,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.is_over)() {
            return Err(io::Error::other("the node is shut down"));
        }
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        if self.bytes_per_s > 0 {
            let due = u128::from(self.bytes) * 1_000_000 / u128::from(self.bytes_per_s);
            let due_us = self.begun_us.saturating_add(u64::try_from(due).unwrap_or(u64::MAX));
            clock::sleep_until(due_us);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Serves and takes pieces. The simulator drives it, too.
pub(crate) struct Pieces {
    store: Arc<dyn SnapshotStore>,
    intakes: BTreeMap<GroupId, (SnapshotId, Box<dyn SnapshotIntake>)>,
}

impl Pieces {
    /// Over a store.
    pub(crate) fn new(store: Arc<dyn SnapshotStore>) -> Self {
        Self { store, intakes: BTreeMap::new() }
    }

    /// Does one thing; what the replica is to be told of it.
    pub(crate) fn serve(&mut self, group: GroupId, job: PieceJob) -> Option<Input> {
        Some(match job {
            PieceJob::Read { to, id, offset, bytes_max } => {
                let read = self.store.read_piece(group, &id, offset, bytes_max as usize);
                let result = read.map_err(|error| error.to_string());
                Input::PieceRead { to, id, offset, result }
            }
            PieceJob::Begin(id) => {
                self.intakes.remove(&group);
                let result = self.store.receive(group, &id).map(|intake| {
                    let held = intake.held_bytes();
                    self.intakes.insert(group, (id, intake));
                    held
                });
                Input::FetchBegan { id, result: result.map_err(|error| error.to_string()) }
            }
            PieceJob::Write { id, offset, bytes } => {
                let (_, intake) = self.intakes.get_mut(&group).filter(|(its, _)| *its == id)?;
                // What follows a piece that was refused is asked for again.
                let result =
                    if intake.held_bytes() == offset { intake.write(&bytes) } else { Ok(()) };
                let damage = result.err().map(|error| error.to_string());
                Input::PieceWritten { id, held_bytes: intake.held_bytes(), damage }
            }
            PieceJob::Finish(id) => {
                let (_, intake) = self.intakes.remove(&group).filter(|(its, _)| *its == id)?;
                let result = intake.finish().map_err(|error| error.to_string());
                Input::FetchFinished { id, result }
            }
            PieceJob::Abandon(id) => {
                if self.intakes.get(&group).is_some_and(|(its, _)| *its == id) {
                    self.intakes.remove(&group);
                }
                return None;
            }
            PieceJob::Prune { keep, spare } => {
                return prune(self.store.as_ref(), group, keep, &spare)
                    .err()
                    .map(|error| Input::SnapshotTrouble(format!("old snapshots stay: {error}")));
            }
        })
    }
}

fn prune(
    store: &dyn SnapshotStore,
    group: GroupId,
    keep: usize,
    spare: &[SnapshotId],
) -> Result<(), StorageError> {
    for old in store.list(group)?.iter().skip(keep).filter(|old| !spare.contains(&old.id)) {
        store.remove(group, &old.id)?;
    }
    Ok(())
}
