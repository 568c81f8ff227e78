//! The snapshot lane: threads beside all others. One writes what machines froze and restores machines that
//! otherwise run on the event loop; one serves and takes pieces, which must not wait for that; one reads what is
//! kept, now and then and without hurry, for damage.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::machine::SnapshotView;
use crate::node::clock;
use crate::node::error::NodeError;
use crate::node::intake::{Intake, Note};
use crate::node::threads::{Threads, Waiting, guarded, run_inside};
use crate::replica::Input;
use crate::storage::StorageError;
use crate::storage::snapshot::{SnapshotIntake, SnapshotStore};
use crate::types::{Base, GroupId, Index, Snapshot, SnapshotId};

use super::apply::Applier;
use super::queue::{LaneQueue, LaneSender, Waited, lane};

/// Ends a build from elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// It is not wanted any more.
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it still is.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody wants it any more"));
        }
        Ok(())
    }
}

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
        /// Ends it early.
        cancel: Cancel,
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
    /// Looks for one that covers this entry.
    Find(Index),
    /// Deletes old ones.
    Prune {
        /// How many of the newest stay.
        keep: usize,
        /// Which others stay.
        spare: Vec<SnapshotId>,
        /// Which go whatever their age.
        damaged: Vec<SnapshotId>,
    },
}

/// The lane.
pub(crate) struct SnapshotLane {
    build: LaneSender<BuildJob>,
    pieces: LaneSender<(GroupId, PieceJob)>,
    scrubs: LaneSender<(GroupId, Option<SnapshotId>)>,
}

/// How fast a scrub reads.
const SCRUB_BYTES_PER_S: u64 = 32 << 20;

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
        let (scrubs, wanted) = lane();
        let (builder, answers) = (Arc::clone(&store), Arc::clone(&intake));
        threads.spawn("snap", move || {
            run_builds(builder.as_ref(), write_bytes_per_s, &builds, &answers);
        })?;
        let (scrubbed, answers) = (Arc::clone(&store), Arc::clone(&intake));
        threads.spawn("scrub", move || run_scrubs(scrubbed.as_ref(), &wanted, &answers))?;
        threads.spawn("piece", move || {
            let mut receiver = Pieces::new(store);
            let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
            while requests.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
                for (group, job) in jobs.drain(..) {
                    intake.notify(receiver.serve(group, job).map(|input| answer(group, input)));
                }
            }
        })?;
        Ok(Self { build, pieces, scrubs })
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

    /// Asks for a look at everything that is kept.
    pub(crate) fn scrub(&self, group: GroupId, newest: Option<SnapshotId>) {
        self.scrubs.push_all([(group, newest)]);
    }

    /// Lets the threads end after what they are doing.
    pub(crate) fn stop(&self) {
        self.build.abandon();
        self.build.close();
        self.pieces.abandon();
        self.pieces.close();
        self.scrubs.abandon();
        self.scrubs.close();
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
                BuildJob::Build { group, view, base, cancel } => {
                    let may_go_on = || match queue.is_closed() {
                        true => Err(io::Error::other("the node is shut down")),
                        false => cancel.check(),
                    };
                    let built = build(store, group, view, &base, write_bytes_per_s, &may_go_on);
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

fn run_scrubs(
    store: &dyn SnapshotStore,
    queue: &LaneQueue<(GroupId, Option<SnapshotId>)>,
    intake: &Intake,
) {
    let (mut jobs, mut waiting) = (Vec::new(), Waiting::default());
    while queue.take_all(None, &mut jobs, &mut waiting) != Waited::Closed {
        for (group, newest) in jobs.drain(..) {
            let begun_us = clock::boot_us();
            let mut pace = |bytes: u64| {
                let due_us = begun_us.saturating_add(time_us(bytes, SCRUB_BYTES_PER_S));
                clock::sleep_until(due_us);
                !queue.is_closed()
            };
            let damaged = scrub(store, group, newest, &mut pace);
            intake.notify([answer(group, Input::SnapshotsScrubbed(damaged))]);
        }
    }
}

/// Reads everything that is kept, and `newest`, which must be; gives what is damaged or missing. `pace` is
/// called after every chunk with the bytes read so far, and may end it.
pub(crate) fn scrub(
    store: &dyn SnapshotStore,
    group: GroupId,
    newest: Option<SnapshotId>,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Vec<(SnapshotId, String)> {
    let named = store.named(group).unwrap_or_default();
    let missing = newest.filter(|id| !named.contains(id));
    let (mut damaged, mut before) = (Vec::new(), 0);
    for id in named.into_iter().chain(missing) {
        match store.check(group, &id, &mut |bytes| pace(before + bytes)) {
            Ok(()) => {}
            // It may have been let go meanwhile, unless it is the newest.
            Err(error) if is_missing(&error) && newest != Some(id) => {}
            Err(error) if is_missing(&error) || error.is_damage() => {
                damaged.push((id, error.to_string()));
            }
            // That the disk cannot be read right now is no reason to give up what is on it.
            Err(_) => {}
        }
        before += id.bytes;
    }
    damaged
}

fn is_missing(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// How long so many bytes take at most at a rate.
fn time_us(bytes: u64, bytes_per_s: u64) -> u64 {
    let us = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_s);
    u64::try_from(us).unwrap_or(u64::MAX)
}

/// Writes what a machine froze into a snapshot, not faster than `write_bytes_per_s` (0: as fast as it goes).
/// `may_go_on` is asked before each part, and may end it.
pub(crate) fn build(
    store: &dyn SnapshotStore,
    group: GroupId,
    mut view: Box<dyn SnapshotView>,
    base: &Base,
    write_bytes_per_s: u64,
    may_go_on: &dyn Fn() -> io::Result<()>,
) -> Result<Snapshot, String> {
    may_go_on().map_err(|error| error.to_string())?;
    let mut sink = store.create(group, base).map_err(|error| error.to_string())?;
    let mut paced = Paced {
        out: sink.as_mut(),
        bytes: 0,
        begun_us: clock::boot_us(),
        bytes_per_s: write_bytes_per_s,
        may_go_on,
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
    may_go_on: &'a dyn Fn() -> io::Result<()>,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.may_go_on)()?;
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        if self.bytes_per_s > 0 {
            clock::sleep_until(self.begun_us.saturating_add(time_us(self.bytes, self.bytes_per_s)));
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
            PieceJob::Find(least) => Input::SnapshotFound(find(self.store.as_ref(), group, least)?),
            PieceJob::Prune { keep, spare, damaged } => {
                return prune(self.store.as_ref(), group, keep, &spare, &damaged)
                    .err()
                    .map(|error| Input::SnapshotTrouble(format!("old snapshots stay: {error}")));
            }
        })
    }
}

/// The newest snapshot that covers `least` and can be read.
fn find(store: &dyn SnapshotStore, group: GroupId, least: Index) -> Option<Snapshot> {
    let kept = store.list(group).ok()?;
    let mut covering = kept.into_iter().filter(|it| it.id.last.index >= least);
    covering.find(|it| store.check(group, &it.id, &mut |_| true).is_ok())
}

fn prune(
    store: &dyn SnapshotStore,
    group: GroupId,
    keep: usize,
    spare: &[SnapshotId],
    damaged: &[SnapshotId],
) -> Result<(), StorageError> {
    for id in damaged {
        store.remove(group, id)?;
    }
    for old in store.list(group)?.iter().skip(keep).filter(|old| !spare.contains(&old.id)) {
        store.remove(group, &old.id)?;
    }
    Ok(())
}
