//! Single stories: full disks, failed syncs, large snapshots.

use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::SnapshotStore;

use crate::platter::{Fault, How, Op};
use crate::support::*;

fn is_no_space<T: std::fmt::Debug>(fate: &Result<T, StorageError>) -> bool {
    matches!(fate, Err(StorageError::NoSpace { .. }))
}

#[test]
fn a_full_disk_is_said_so_leaves_nothing_behind_and_may_be_tried_again() {
    let disk = holding([]);
    let store = open(&disk).unwrap();
    disk.set_full(true);
    let fate = make(&store, &base(1), &machine(1, 100_000));
    assert!(is_no_space(&fate), "{fate:?}");
    assert!(disk.written().is_empty());
    let sample = sample(2, 70_000);
    disk.set_full(false);
    let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
    disk.set_full(true);
    for _ in 0..2 {
        let fate = intake.write(&sample.file[intake.held_bytes() as usize..]);
        assert!(is_no_space(&fate), "{fate:?}");
    }
    disk.set_full(false);
    intake.write(&sample.file[intake.held_bytes() as usize..]).unwrap();
    assert_eq!(intake.finish().unwrap(), sample.snapshot);
    make(&store, &base(1), &machine(1, 100_000)).unwrap();
}

#[test]
fn a_snapshot_that_the_disk_cannot_hold_is_not_begun() {
    let sample = sample(2, 70_000);
    let disk = holding([]);
    let store = open(&disk).unwrap();
    disk.set_free(60_000);
    let fate = store.receive(GROUP, &sample.snapshot.id).map(|_| ());
    assert!(is_no_space(&fate), "{fate:?}");
    assert!(disk.written().is_empty(), "{:?}", disk.written().keys());
    disk.set_free(80_000);
    let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
    intake.write(&sample.file[..66_000]).unwrap();
    drop(intake);
    // Only what is missing needs room.
    disk.set_free(10_000);
    assert!(store.receive(GROUP, &sample.snapshot.id).unwrap().held_bytes() > 0);
}

#[test]
fn after_a_failed_sync_an_intake_ends_and_the_next_one_believes_the_disk_alone() {
    let sample = sample(2, 200_000);
    for seed in 0..20 {
        let disk = holding([]);
        let store = open(&disk).unwrap();
        let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
        intake.write(&sample.file).unwrap();
        disk.fail(Some(Fault { op: Op::Sync, nth: 0, how: How::Broken }));
        let fate = intake.finish();
        assert!(matches!(fate, Err(StorageError::Io { .. })), "{seed}: {fate:?}");
        let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
        intake.write(&sample.file[intake.held_bytes() as usize..]).unwrap();
        intake.finish().unwrap();
        assert_eq!(*disk.synced()[&file_of(&sample.snapshot.id)], sample.file);
    }
}

#[test]
fn a_large_snapshot_goes_to_the_disk_as_it_grows_whoever_writes_it() {
    let disk = holding([]);
    let store = open(&disk).unwrap();
    disk.fail(None);
    let made = make(&store, &base(1), &machine(1, 20 << 20)).unwrap();
    assert_eq!(disk.count(Op::Sync), 11);
    assert!(disk.count(Op::DropCache) >= disk.count(Op::Write), "chunks wait for a sync");
    let file = store.read_piece(GROUP, &made.id, 0, usize::MAX).unwrap();
    store.remove(GROUP, &made.id).unwrap();
    disk.fail(None);
    let mut intake = store.receive(GROUP, &made.id).unwrap();
    for piece in file.chunks(1 << 20) {
        intake.write(piece).unwrap();
    }
    intake.finish().unwrap();
    // One more for what may have been left of an earlier attempt.
    assert_eq!(disk.count(Op::Sync), 12);
    assert!(disk.count(Op::DropCache) >= disk.count(Op::Write), "chunks wait for a sync");
}

#[test]
fn an_unfinished_file_that_is_too_long_or_all_wrong_is_begun_anew() {
    let sample = sample(2, 70_000);
    let hidden = |extra: usize, flip: usize| {
        let name = file_of(&sample.snapshot.id).file_name().unwrap().to_str().unwrap().to_string();
        let name = name.replace("snap-", "incoming-").replace(".rz", ".part");
        let mut file = sample.file.clone();
        file.resize(file.len() + extra, 1);
        file[flip] ^= 1;
        holding([(dir().join(name), file)])
    };
    for (extra, flip, held) in [(5, 0, 0), (5, 66_000, 0), (0, 3, 0), (0, 50_000, 1)] {
        let disk = hidden(extra, flip);
        let store = open(&disk).unwrap();
        let mut intake = store.receive(GROUP, &sample.snapshot.id).unwrap();
        assert_eq!(intake.held_bytes().min(1), held, "{extra}, {flip}");
        intake.write(&sample.file[intake.held_bytes() as usize..]).unwrap();
        intake.finish().unwrap();
        assert_eq!(*disk.synced()[&file_of(&sample.snapshot.id)], sample.file);
    }
}
