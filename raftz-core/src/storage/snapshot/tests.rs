//! What every store of snapshots does, asked of both.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, Read};
use std::sync::Arc;

use super::format::CHUNK_BYTES;
use super::{FileSnapshots, MemorySnapshots, SnapshotStore};
use crate::storage::StorageError;
use crate::storage::vfs::RealVfs;
use crate::types::{
    Base, ClusterId, DiskId, GroupId, Identity, Index, LogId, Member, Membership, NodeId, Settings,
    Snapshot, SnapshotId, Term,
};

const GROUP: GroupId = GroupId::FIRST;

fn identity(node: u64) -> Identity {
    Identity {
        cluster: ClusterId(7),
        epoch: 1,
        node: NodeId::new(node).unwrap(),
        disk: DiskId(node.into()),
        founders_hash: node,
    }
}

fn base(term: u64, index: u64) -> Base {
    let members = (1..=3).map(|id| (NodeId::new(id).unwrap(), Member::at(format!("h:{id}"))));
    let founding = Base::founding(Membership::of_voters(members), Settings::default());
    Base { id: LogId::new(Term(term), Index(index)), log_time_us: 9, ..founding }
}

fn machine(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

/// Two stores of two nodes of one cluster, of each kind.
fn each(check: impl Fn(&dyn SnapshotStore, &dyn SnapshotStore)) {
    check(&MemorySnapshots::new(&identity(1)), &MemorySnapshots::new(&identity(2)));
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let open = |at: usize, node| {
        FileSnapshots::open(Arc::new(RealVfs), dirs[at].path(), &identity(node)).unwrap()
    };
    check(&open(0, 1), &open(1, 2));
    check(&MemorySnapshots::new(&identity(1)), &open(2, 2));
}

/// Writes a snapshot in pieces of this size.
fn make(store: &dyn SnapshotStore, base: &Base, bytes: &[u8], piece: usize) -> Snapshot {
    let mut sink = store.create(GROUP, base).unwrap();
    for some in bytes.chunks(piece) {
        sink.write_all(some).unwrap();
    }
    sink.finish().unwrap()
}

fn read(store: &dyn SnapshotStore, id: &SnapshotId) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(GROUP, id).map_err(io::Error::other)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn raw(store: &dyn SnapshotStore, id: &SnapshotId) -> Vec<u8> {
    store.read_piece(GROUP, id, 0, usize::MAX).unwrap().to_vec()
}

fn ids(store: &dyn SnapshotStore) -> Vec<u64> {
    store.list(GROUP).unwrap().iter().map(|snapshot| snapshot.id.last.index.0).collect()
}

fn is_corrupt_at(fate: Result<(), StorageError>, at: u64) -> bool {
    matches!(fate, Err(StorageError::Corrupt { offset, .. }) if offset == at)
}

#[test]
fn what_is_written_is_listed_read_and_sent_whatever_its_size() {
    each(|store, other| {
        for (n, size) in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]
            .iter()
            .enumerate()
        {
            let (base, bytes) = (base(2, n as u64 + 1), machine(*size));
            let snapshot = make(store, &base, &bytes, 1 << 14);
            assert_eq!((&snapshot.base, snapshot.id.last), (&base, base.id));
            assert_eq!(store.list(GROUP).unwrap()[0], snapshot);
            assert_eq!(read(store, &snapshot.id).unwrap(), bytes);
            let raw = raw(store, &snapshot.id);
            assert_eq!(raw.len() as u64, snapshot.id.bytes);
            assert_eq!(*blake3::hash(&raw).as_bytes(), snapshot.id.hash);
            store.check(GROUP, &snapshot.id, &mut |_| true).unwrap();
            let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
            while intake.held_bytes() < snapshot.id.bytes {
                let at = intake.held_bytes();
                intake.write(&store.read_piece(GROUP, &snapshot.id, at, 50_000).unwrap()).unwrap();
            }
            assert_eq!(intake.finish().unwrap(), snapshot);
            assert_eq!(read(other, &snapshot.id).unwrap(), bytes);
        }
        assert_eq!(ids(store), [6, 5, 4, 3, 2, 1]);
        assert_eq!(store.list(GROUP).unwrap(), other.list(GROUP).unwrap());
        assert!(store.list(GroupId(2)).unwrap().is_empty());
    });
}

#[test]
fn equal_machines_at_equal_bases_give_equal_ids_however_they_write() {
    each(|store, other| {
        let bytes = machine(CHUNK_BYTES + 100);
        let one = make(store, &base(1, 5), &bytes, 7);
        let two = make(other, &base(1, 5), &bytes, CHUNK_BYTES + 1);
        assert_eq!(one, two);
        assert_eq!(make(store, &base(1, 5), &bytes, 1 << 10), one, "it takes the other's place");
        assert_eq!(ids(store), [5]);
        assert_ne!(make(store, &base(1, 6), &bytes, 7).id.hash, one.id.hash);
        let mut changed = bytes;
        changed[CHUNK_BYTES + 50] ^= 1;
        assert_ne!(make(other, &base(1, 5), &changed, 70_000).id.hash, one.id.hash);
    });
}

#[test]
fn what_is_not_finished_is_not_there_and_one_position_is_written_once_at_a_time() {
    each(|store, _| {
        let mut sink = store.create(GROUP, &base(1, 1)).unwrap();
        sink.write_all(&machine(200_000)).unwrap();
        let second = store.create(GROUP, &base(1, 1)).map(|_| ());
        assert!(matches!(second, Err(StorageError::Invalid { .. })), "{second:?}");
        assert!(ids(store).is_empty());
        make(store, &base(1, 2), b"beside", 6);
        store.retain(GROUP, 1).unwrap();
        drop(sink);
        assert_eq!(ids(store), [2]);
        make(store, &base(1, 1), b"again", 5);
        assert_eq!(ids(store), [2, 1]);
    });
}

#[test]
fn retain_keeps_the_newest_and_remove_removes_and_both_may_be_repeated() {
    each(|store, _| {
        let made: Vec<Snapshot> =
            [(1, 10), (1, 300), (2, 301)].map(|(t, i)| make(store, &base(t, i), b"x", 1)).into();
        store.retain(GROUP, 5).unwrap();
        assert_eq!(ids(store), [301, 300, 10]);
        for _ in 0..2 {
            store.retain(GROUP, 2).unwrap();
            assert_eq!(ids(store), [301, 300]);
        }
        for _ in 0..2 {
            store.remove(GROUP, &made[2].id).unwrap();
            assert_eq!(ids(store), [300]);
        }
        let gone = store.read_piece(GROUP, &made[0].id, 0, 1);
        let Err(StorageError::Io { source, .. }) = gone else { panic!("{gone:?}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        make(store, &base(1, 300), b"written in another way", 9);
        store.retain(GROUP, 1).unwrap();
        assert_eq!(ids(store), [300, 300], "nobody can tell which of them is meant");
        store.retain(GROUP, 0).unwrap();
        assert!(ids(store).is_empty());
    });
}

#[test]
fn pieces_of_any_size_from_anywhere_are_the_bytes_of_the_file() {
    each(|store, _| {
        let snapshot = make(store, &base(1, 1), &machine(2 * CHUNK_BYTES + 5), 1000);
        let raw = raw(store, &snapshot.id);
        for offset in (0..=raw.len()).step_by(1009).chain([raw.len() - 1, raw.len()]) {
            for size in [0, 1, 100, CHUNK_BYTES, 2 * CHUNK_BYTES] {
                let piece = store.read_piece(GROUP, &snapshot.id, offset as u64, size).unwrap();
                let upto = (offset + size).min(raw.len());
                assert!(piece == raw[offset..upto], "{size} bytes from {offset}");
            }
        }
        assert!(store.read_piece(GROUP, &snapshot.id, u64::MAX, 5).unwrap().is_empty());
    });
}

#[test]
fn receiving_is_gone_on_with_from_wherever_it_ended() {
    each(|store, other| {
        let snapshot = make(store, &base(1, 1), &machine(CHUNK_BYTES + 9), 1000);
        let raw = raw(store, &snapshot.id);
        let head = 72 + crate::types::encode::encode(&snapshot.base).unwrap().len();
        let ends = [0, head, head + CHUNK_BYTES + 32, raw.len() - 48, raw.len()];
        for cut in
            (0..raw.len()).step_by(997).chain(ends).chain(ends.map(|at| at.saturating_sub(1)))
        {
            let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
            assert_eq!(intake.held_bytes(), 0);
            intake.write(&raw[..cut]).unwrap();
            assert_eq!(intake.held_bytes(), cut as u64);
            drop(intake);
            let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
            let held = intake.held_bytes() as usize;
            let sound = ends.iter().filter(|end| **end <= cut).max();
            assert_eq!(Some(&held), sound, "cut at {cut}");
            intake.write(&raw[held..]).unwrap();
            assert_eq!(intake.finish().unwrap(), snapshot);
            assert_eq!(raw, self::raw(other, &snapshot.id));
            other.remove(GROUP, &snapshot.id).unwrap();
        }
    });
}

#[test]
fn a_wrong_chunk_is_refused_and_the_right_one_taken_in_its_place() {
    each(|store, other| {
        let snapshot = make(store, &base(1, 1), &machine(2 * CHUNK_BYTES), 1000);
        let raw = raw(store, &snapshot.id);
        let second = (raw.len() - 48 - CHUNK_BYTES - 32) as u64;
        let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
        let busy = other.receive(GROUP, &snapshot.id).map(|_| ());
        assert!(matches!(busy, Err(StorageError::Invalid { .. })), "{busy:?}");
        for wrong_at in [second as usize, second as usize + 24, second as usize + 30_000] {
            let mut wrong = raw.clone();
            wrong[wrong_at] ^= 0x40;
            let from = intake.held_bytes() as usize;
            assert!(is_corrupt_at(intake.write(&wrong[from..]), second), "{wrong_at}");
            assert_eq!(intake.held_bytes(), second);
        }
        intake.write(&raw[second as usize..]).unwrap();
        assert!(is_corrupt_at(intake.write(b"more"), snapshot.id.bytes));
        assert_eq!(intake.held_bytes(), snapshot.id.bytes);
        assert_eq!(intake.finish().unwrap(), snapshot);
        let mut again = other.receive(GROUP, &snapshot.id).unwrap();
        assert_eq!(again.held_bytes(), snapshot.id.bytes, "it is here");
        assert!(is_corrupt_at(again.write(b"more"), snapshot.id.bytes));
        assert_eq!(again.finish().unwrap(), snapshot);
    });
}

#[test]
fn an_end_that_comes_too_early_is_an_error_and_costs_nothing() {
    each(|store, other| {
        let snapshot = make(store, &base(1, 1), &machine(CHUNK_BYTES), 1000);
        let raw = raw(store, &snapshot.id);
        let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
        intake.write(&raw[..raw.len() - 1]).unwrap();
        let end = raw.len() as u64 - 48;
        assert!(is_corrupt_at(intake.finish().map(|_| ()), end));
        assert!(ids(other).is_empty());
        assert_eq!(other.receive(GROUP, &snapshot.id).unwrap().held_bytes(), end);
    });
}

#[test]
fn a_whole_of_another_hash_is_refused_and_begun_anew() {
    each(|store, other| {
        let snapshot = make(store, &base(1, 1), &machine(CHUNK_BYTES), 1000);
        let lie = SnapshotId { hash: [7; 32], ..snapshot.id };
        for _ in 0..2 {
            let mut intake = other.receive(GROUP, &lie).unwrap();
            assert_eq!(intake.held_bytes(), 0);
            intake.write(&raw(store, &snapshot.id)).unwrap();
            assert!(is_corrupt_at(intake.finish().map(|_| ()), 0));
        }
        // The same where the process ends before that is found out.
        let mut intake = other.receive(GROUP, &lie).unwrap();
        intake.write(&raw(store, &snapshot.id)).unwrap();
        drop(intake);
        let mut intake = other.receive(GROUP, &lie).unwrap();
        intake.write(&raw(store, &snapshot.id)[intake.held_bytes() as usize..]).unwrap();
        assert!(intake.finish().is_err());
        assert!(ids(other).is_empty());
    });
}

#[test]
fn heads_of_other_positions_clusters_epochs_and_absurd_lengths_are_refused() {
    each(|store, other| {
        let snapshot = make(store, &base(1, 1), b"bytes", 9);
        let raw = raw(store, &snapshot.id);
        for bytes in [0, 119, u64::MAX] {
            let absurd = SnapshotId { bytes, ..snapshot.id };
            assert!(is_corrupt_at(other.receive(GROUP, &absurd).map(|_| ()), 0), "{bytes}");
        }
        let elsewhere = SnapshotId { last: LogId::new(Term(1), Index(2)), ..snapshot.id };
        let mut intake = other.receive(GROUP, &elsewhere).unwrap();
        assert!(is_corrupt_at(intake.write(&raw), 0));
        assert_eq!(intake.held_bytes(), 0);
        let strangers = [
            Identity { cluster: ClusterId(8), ..identity(3) },
            Identity { epoch: 2, ..identity(3) },
        ];
        for stranger in strangers {
            let stranger = MemorySnapshots::new(&stranger);
            let fate = stranger.receive(GROUP, &snapshot.id).unwrap().write(&raw);
            assert!(matches!(fate, Err(StorageError::WrongOwner { .. })), "{fate:?}");
        }
        let fate = other.receive(GroupId(2), &snapshot.id).unwrap().write(&raw);
        assert!(matches!(fate, Err(StorageError::WrongOwner { .. })), "{fate:?}");
    });
}

#[test]
fn a_check_tells_its_pace_and_ends_early_when_it_is_told_to() {
    each(|store, _| {
        let snapshot = make(store, &base(1, 1), &machine(3 * CHUNK_BYTES), 1000);
        let mut read = Vec::new();
        let mut pace = |bytes| {
            read.push(bytes);
            true
        };
        store.check(GROUP, &snapshot.id, &mut pace).unwrap();
        assert_eq!((read.len(), read.last()), (5, Some(&snapshot.id.bytes)));
        assert!(read.is_sorted());
        let mut calls = 0;
        let mut pace = |_| {
            calls += 1;
            calls < 2
        };
        store.check(GROUP, &snapshot.id, &mut pace).unwrap();
        assert_eq!(calls, 2);
    });
}

#[test]
fn what_is_left_of_older_ones_gives_way_to_what_is_received_or_complete() {
    each(|store, other| {
        let made = [10, 20, 30].map(|index| make(store, &base(1, index), &machine(70_000), 1000));
        let partly = |snapshot: &Snapshot| {
            let mut intake = other.receive(GROUP, &snapshot.id).unwrap();
            let before = intake.held_bytes();
            intake.write(&raw(store, &snapshot.id)[before as usize..66_000]).unwrap();
            before
        };
        assert_eq!((partly(&made[2]), partly(&made[1])), (0, 0));
        assert!(partly(&made[2]) > 0, "an older one costs a newer one nothing");
        assert_eq!(partly(&made[1]), 0, "a newer one does");
        make(other, &base(1, 20), b"own", 3);
        other.retain(GROUP, 1).unwrap();
        assert_eq!(partly(&made[1]), 0);
        assert!(partly(&made[2]) > 0, "newer than the newest complete one");
    });
}
