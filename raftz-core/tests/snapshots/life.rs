//! A store at work, step by step, and what it owes at each moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::{FileSnapshots, SnapshotStore};
use raftz_core::types::SnapshotId;

use crate::disk::State;
use crate::platter::Platter;
use crate::support::*;

/// What must be listed, and what may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    must: BTreeSet<SnapshotId>,
    may: BTreeSet<SnapshotId>,
}

pub(crate) type Disk = Platter<Promise>;

/// Every snapshot of a life by its index. Two chunks each, but for one that is empty.
static SAMPLES: LazyLock<BTreeMap<u64, Arc<Sample>>> = LazyLock::new(|| {
    let sizes = [(10, 66_000), (20, 67_000), (30, 0), (40, 70_000)];
    sizes.map(|(index, bytes)| (index, Arc::new(sample(index, bytes)))).into()
});

fn of(index: u64) -> &'static Sample {
    &SAMPLES[&index]
}

/// A formatted directory without snapshots.
pub(crate) fn fresh(seed: u64) -> Disk {
    let state = State::at_rest(Default::default(), [dir().to_path_buf()].into());
    Disk::new(state, Promise::default(), seed)
}

/// What is done in a life.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The machine is written.
    Create(u64),
    /// A part comes from a peer, and then nothing more.
    Begin(u64),
    /// All that is missing comes from a peer.
    Receive(u64),
    /// All but the newest go.
    Retain,
}

/// A life.
pub(crate) const STEPS: [Step; 9] = [
    Step::Create(10),
    Step::Begin(20),
    Step::Receive(20),
    Step::Retain,
    Step::Begin(40),
    Step::Create(30),
    Step::Retain,
    Step::Receive(40),
    Step::Retain,
];

fn ids(indexes: &[u64]) -> BTreeSet<SnapshotId> {
    indexes.iter().map(|index| of(*index).snapshot.id).collect()
}

impl Step {
    /// Does it, and says what is owed meanwhile and then.
    pub(crate) fn perform(self, store: &FileSnapshots, disk: &Disk) -> Result<(), StorageError> {
        let Promise { must, .. } = disk.promised();
        let with = |index: u64| must.union(&ids(&[index])).copied().collect::<BTreeSet<_>>();
        let (meanwhile, then) = match self {
            Self::Begin(_) => (Promise { must: must.clone(), may: BTreeSet::new() }, must.clone()),
            Self::Create(index) | Self::Receive(index) => {
                (Promise { must: must.clone(), may: ids(&[index]) }, with(index))
            }
            Self::Retain => {
                let newest: BTreeSet<_> = must.last().copied().into_iter().collect();
                (Promise { must: newest.clone(), may: must.clone() }, newest)
            }
        };
        disk.promise(meanwhile);
        match self {
            Self::Create(index) => {
                let made = make(store, &base(index), &of(index).machine)?;
                assert_eq!(made, of(index).snapshot);
            }
            Self::Begin(index) => {
                let mut intake = store.receive(GROUP, &of(index).snapshot.id)?;
                if intake.held_bytes() < 66_000 {
                    intake.write(&of(index).file[intake.held_bytes() as usize..66_000])?;
                }
            }
            Self::Receive(index) => {
                let mut intake = store.receive(GROUP, &of(index).snapshot.id)?;
                for piece in of(index).file[intake.held_bytes() as usize..].chunks(30_000) {
                    intake.write(piece)?;
                }
                assert_eq!(intake.finish()?, of(index).snapshot);
            }
            Self::Retain => store.retain(GROUP, 1)?,
        }
        disk.promise(Promise { must: then, may: BTreeSet::new() });
        Ok(())
    }
}

/// Does all of `steps`; answers how many were done.
pub(crate) fn work(store: &FileSnapshots, disk: &Disk, steps: &[Step]) -> usize {
    steps.iter().take_while(|step| step.perform(store, disk).is_ok()).count()
}

/// Opens the store, which must keep its promise and give nothing but right bytes.
pub(crate) fn judge(disk: &Disk, what: &str) -> FileSnapshots {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(store.notes(), [] as [String; 0], "{what}");
    let listed = store.list(GROUP).unwrap();
    let found: BTreeSet<SnapshotId> = listed.iter().map(|snapshot| snapshot.id).collect();
    let Promise { must, may } = disk.promised();
    assert!(found.is_superset(&must), "{what}: owed {must:?}, found {found:?}");
    let known: BTreeSet<SnapshotId> = must.union(&may).copied().collect();
    assert!(found.is_subset(&known), "{what}: owed at most {known:?}, found {found:?}");
    for snapshot in listed {
        let sample = of(snapshot.id.last.index.0);
        assert_eq!(snapshot, sample.snapshot);
        store.check(GROUP, &snapshot.id, &mut |_| true).unwrap();
        let (bytes, fate) = read(&store, &snapshot.id);
        assert!(fate.is_ok() && bytes == sample.machine, "{what}: {snapshot:?}, {fate:?}");
    }
    let left = disk.written().into_keys().find(|path| path.to_str().unwrap().ends_with(".tmp"));
    assert_eq!(left, None, "{what}");
    store
}

/// What is listed is from now on owed, as whoever listed it may have let go of older things.
pub(crate) fn hold_to(disk: &Disk, store: &FileSnapshots) {
    let must = store.list(GROUP).unwrap().iter().map(|snapshot| snapshot.id).collect();
    disk.promise(Promise { must, may: BTreeSet::new() });
}
