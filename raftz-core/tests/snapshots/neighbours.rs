//! Snapshots and the log share a directory, and neither takes the other's files for its own.

use std::sync::Arc;

use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::{FileSnapshots, SnapshotStore};
use raftz_core::storage::vfs::{OpenMode, Vfs};
use raftz_core::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};

use crate::platter::Platter;
use crate::support::*;

const OPTIONS: WalOptions = WalOptions { segment_bytes: 1 << 16, reserve_bytes: 0 };

fn open_log(disk: &Platter) -> Result<(), StorageError> {
    let expect = Expect { cluster: identity().cluster, node: identity().node };
    Wal::open(Arc::new(disk.clone()), dir(), expect, OPTIONS).map(|_| ())
}

/// A directory with a log, a snapshot, a part of another and one that was not finished.
fn shared() -> Platter {
    let disk = Platter::default();
    let spec = BootstrapSpec {
        cluster: identity().cluster,
        epoch: identity().epoch,
        node: identity().node,
        base: base(0),
    };
    let identity = Wal::bootstrap(&disk, dir(), &spec, OPTIONS).unwrap();
    let store = FileSnapshots::open(Arc::new(disk.clone()), dir(), &identity).unwrap();
    make(&store, &base(5), b"state").unwrap();
    let other = sample(9, 70_000);
    let mut intake = store.receive(GROUP, &other.snapshot.id).unwrap();
    intake.write(&other.file[..69_000]).unwrap();
    let unfinished = dir().join("snap-00000001-0000000000000007-0000000000000002.tmp");
    disk.open(&unfinished, OpenMode::Create).unwrap();
    disk
}

fn names(disk: &Platter) -> Vec<String> {
    disk.list(dir()).unwrap()
}

#[test]
fn the_log_opens_beside_snapshots_and_snapshots_beside_the_log() {
    let disk = shared();
    for _ in 0..2 {
        open_log(&disk).unwrap();
        let store = open(&disk).unwrap();
        assert_eq!(store.list(GROUP).unwrap().len(), 1);
        store.retain(GROUP, 1).unwrap();
        let names = names(&disk);
        let of = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
        assert_eq!((of(".rz"), of(".part"), of(".log"), of(".tmp")), (1, 1, 1, 0), "{names:?}");
    }
}

#[test]
fn strangers_are_neither_listed_nor_removed() {
    let disk = shared();
    let complete = names(&disk).into_iter().find(|name| name.ends_with(".rz")).unwrap();
    let strangers = [
        format!("{complete}.bak"),
        complete.to_uppercase(),
        complete.replace("snap-0000", "snap-000"),
        "snap-1.tmp".into(),
        "snap-notes.rz".into(),
        "incoming-.part".into(),
    ];
    for stranger in &strangers {
        disk.open(&dir().join(stranger), OpenMode::Create).unwrap();
    }
    open_log(&disk).unwrap();
    let store = open(&disk).unwrap();
    assert_eq!((store.list(GROUP).unwrap().len(), store.notes().len()), (1, 0));
    store.retain(GROUP, 0).unwrap();
    let names = names(&disk);
    assert!(strangers.iter().all(|stranger| names.contains(stranger)), "{names:?}");
}

#[test]
fn a_directory_that_lost_its_superblock_is_no_empty_one() {
    for kept in ["incoming-", "snap-"] {
        let disk = shared();
        for name in names(&disk).iter().filter(|name| !name.starts_with(kept)) {
            disk.unlink(&dir().join(name)).unwrap();
        }
        let error = open_log(&disk).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
        let spec = BootstrapSpec {
            cluster: identity().cluster,
            epoch: 0,
            node: identity().node,
            base: base(0),
        };
        let error = Wal::bootstrap(&disk, dir(), &spec, OPTIONS).unwrap_err();
        assert!(matches!(error, StorageError::NotEmpty { .. }), "{error}");
    }
}
