//! The log's base moves: old segments go, in order and beside the log lane, and whatever was damaged
//! at or below the base is missed no more.

use std::path::Path;
use std::sync::Arc;

use raftz_core::storage::wal::{BootstrapSpec, Wal};
use raftz_core::storage::{Storage, StorageError};
use raftz_core::types::{Entry, GroupId, Index, LogId, Recovered, Term, WriteOp};

use crate::platter::{Fault, Helper, How, Op, Platter};
use crate::support::*;

const SEGMENT: u64 = 1 << 14;

fn dir() -> &'static Path {
    Path::new("/disk/data")
}

fn open(disk: &Platter) -> Result<(Wal, Recovered), StorageError> {
    Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(SEGMENT))
}

fn formatted() -> Platter {
    let disk = Platter::default();
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(&disk, dir(), &spec, tiny(SEGMENT)).unwrap();
    disk
}

/// Entries of one term, each in a write of its own; two of them, and the checkpoint, fill a segment.
fn grow(wal: &mut Wal, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        submit(wal, vec![append(vec![entry(term, index, 10)])]).unwrap();
    }
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, 10)).collect()
}

fn segments(disk: &Platter) -> Vec<u64> {
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix("wal-")?.strip_suffix(".log")?;
        u64::from_str_radix(name, 16).ok()
    };
    disk.written().keys().filter_map(|path| number(path)).collect()
}

/// Opens, and says what is in the log.
fn content(disk: &Platter) -> (Recovered, Vec<Entry>) {
    let (wal, recovered) = open(disk).unwrap();
    let entries = all(&wal, &recovered);
    (recovered, entries)
}

fn is_missing(wal: &Wal, index: u64) -> bool {
    let read = wal.reader().read(GroupId::FIRST, Index(index), Index(index), 1000);
    matches!(read, Err(StorageError::Missing { .. }))
}

#[test]
fn segments_below_the_base_go_and_the_log_stays() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=19);
    assert_eq!(segments(&disk), (1..=10).collect::<Vec<_>>());
    submit(&mut wal, vec![rebase(1, 15)]).unwrap();
    assert!(is_missing(&wal, 15));
    wal.idle().unwrap();
    wal.space();
    // Entries 15 and 16 share the eighth segment. A new one states the base.
    assert_eq!(segments(&disk), (8..=11).collect::<Vec<_>>());
    drop(wal);
    let (recovered, read) = content(&disk);
    assert_eq!(Some(Box::new(recovered.base)), moved(1, 15));
    assert_eq!((recovered.commit, recovered.last), (Index(15), LogId::new(Term(1), Index(19))));
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{:?}", recovered.notes);
    assert_eq!(read, entries(1, 16..=19));
}

#[test]
fn a_base_that_would_let_only_one_segment_go_waits_until_the_present_one_is_full() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=4);
    assert_eq!(segments(&disk), [1, 2]);
    submit(&mut wal, vec![rebase(1, 2)]).unwrap();
    for _ in 0..3 {
        wal.space();
        wal.idle().unwrap();
    }
    // The base's record found no room in the second one; its checkpoint precedes the record.
    assert_eq!(segments(&disk), [1, 2, 3]);
    grow(&mut wal, 1, 5..=6);
    assert_eq!(segments(&disk), [2, 3, 4]);
}

#[test]
fn a_segment_without_its_checkpoint_does_not_become_the_first_of_the_log() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=19);
    drop(wal);
    let mut image = disk.synced();
    let path = dir().join("wal-0000000000000008.log");
    Arc::make_mut(image.get_mut(&path).unwrap())[4096 + 100] ^= 1;
    let disk = Platter::holding(&image);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.damage, recovered.last.index), (None, Index(19)));
    assert_eq!(recovered.notes.len(), 1, "{:?}", recovered.notes);
    submit(&mut wal, vec![rebase(1, 15)]).unwrap();
    wal.idle().unwrap();
    wal.space();
    assert_eq!(segments(&disk)[0], 7, "the eighth holds what is needed, but not how it begins");
    drop(wal);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(all(&wal, &recovered), entries(1, 16..=19));
    submit(&mut wal, vec![rebase(1, 18)]).unwrap();
    grow(&mut wal, 1, 20..=23);
    assert!(segments(&disk)[0] > 8, "{:?}", segments(&disk));
    drop(wal);
    assert_eq!(content(&disk).1, entries(1, 19..=23));
}

#[test]
fn each_removal_is_durable_before_the_next_one_begins() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=19);
    submit(&mut wal, vec![rebase(1, 15)]).unwrap();
    disk.record();
    wal.idle().unwrap();
    for shot in disk.shots() {
        let durable: Vec<_> = shot.state.durable_names.keys().cloned().collect();
        let gone = durable.iter().filter(|name| !shot.state.names.contains_key(*name));
        assert!(gone.filter(|name| name.extension().is_some_and(|e| e == "log")).count() <= 1);
    }
    assert_eq!(segments(&disk), (8..=11).collect::<Vec<_>>());
}

#[test]
fn what_a_life_did_not_remove_the_next_one_does() {
    let disk = formatted();
    disk.set_helper(Helper::Never);
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=20);
    submit(&mut wal, vec![rebase(1, 15)]).unwrap();
    // The present segment fills, and the next one states the base.
    grow(&mut wal, 1, 21..=22);
    let count = segments(&disk).len();
    assert_eq!(segments(&disk)[0], 1);
    drop(wal);
    disk.set_helper(Helper::Beside);
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(all(&wal, &recovered), entries(1, 16..=22));
    // A drop lets what is under way end; so nothing is removed behind the lock.
    drop(wal);
    for _ in 0..count {
        drop(open(&disk).unwrap());
    }
    disk.set_helper(Helper::AtOnce);
    let (recovered, read) = content(&disk);
    assert_eq!((segments(&disk)[0], recovered.notes.len()), (8, 0), "{recovered:?}");
    assert_eq!(read, entries(1, 16..=22));
}

#[test]
fn a_segment_that_cannot_be_removed_is_no_failure_and_is_tried_again() {
    for (op, in_this_life) in [(Op::Unlink, true), (Op::SyncDir, false)] {
        let disk = formatted();
        let (mut wal, _) = open(&disk).unwrap();
        grow(&mut wal, 1, 1..=19);
        // Were it the directory's sync of the new segment's name, it would be a failure.
        let nth = u64::from(op == Op::SyncDir);
        submit(&mut wal, vec![rebase(1, 15)]).unwrap();
        disk.fail(Some(Fault { op, nth, how: How::Broken }));
        wal.idle().unwrap();
        assert!(disk.failed().is_some());
        let left = segments(&disk);
        assert!(left.len() >= 10, "{op:?}: {left:?}");
        disk.fail(None);
        grow(&mut wal, 1, 20..=24);
        assert_eq!(segments(&disk)[0] == 8, in_this_life, "{op:?}: {:?}", segments(&disk));
        drop(wal);
        let (recovered, read) = content(&disk);
        assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
        assert_eq!(read, entries(1, 16..=24));
        assert_eq!(segments(&disk)[0], 8, "{op:?}");
    }
}

#[test]
fn a_full_disk_is_made_less_full_by_the_record_of_the_base_alone() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=18);
    // The spare is there, and no room for another one.
    disk.set_full(true);
    disk.set_free(0);
    grow(&mut wal, 1, 19..=19);
    submit(&mut wal, vec![rebase(1, 15)]).unwrap();
    wal.space();
    wal.space();
    assert_eq!(segments(&disk)[0], 8, "{:?}", segments(&disk));
    drop(wal);
    let (recovered, read) = content(&disk);
    assert_eq!((recovered.base.id.index, recovered.damage), (Index(15), None));
    assert_eq!(read, entries(1, 16..=19));
}

#[test]
fn a_read_that_the_removal_overtakes_is_told_that_the_entries_are_missing() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=20);
    let reader = wal.reader();
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            (0..2000u64).all(|n| {
                let first = 1 + n % 20;
                match reader.read(GroupId::FIRST, Index(first), Index(20), 40) {
                    Ok(read) => read[0] == entry(1, first, 10),
                    Err(error) => matches!(error, StorageError::Missing { .. }),
                }
            })
        });
        for to in 1..=19 {
            submit(&mut wal, vec![rebase(1, to)]).unwrap();
            wal.space();
        }
        assert!(beside.join().unwrap());
    });
}

/// What is left of the log says that it was cut back to entry 3, and nothing says of which term that was.
#[test]
fn a_log_that_was_cut_back_into_a_removed_segment_is_what_it_was() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=9);
    let cut = WriteOp { truncate_from: Some(Index(4)), ..WriteOp::default() };
    submit(&mut wal, vec![cut]).unwrap();
    // Checkpoints of a log that ends with entry 3.
    for term in 2..=9 {
        submit(&mut wal, vec![vote(term, 1)]).unwrap();
    }
    grow(&mut wal, 9, 4..=9);
    submit(&mut wal, vec![rebase(1, 3)]).unwrap();
    // The fifth segment, which says so, is the first that stays for now.
    disk.fail(Some(Fault { op: Op::Unlink, nth: 4, how: How::Broken }));
    wal.space();
    drop(wal);
    disk.fail(None);
    for helper in [Helper::Never, Helper::AtOnce, Helper::AtOnce] {
        disk.set_helper(helper);
        assert!(helper == Helper::AtOnce || segments(&disk)[0] == 5, "{:?}", segments(&disk));
        let (recovered, read) = content(&disk);
        assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
        assert_eq!(recovered.base.id, LogId::new(Term(1), Index(3)));
        assert_eq!(read, entries(9, 4..=9));
    }
    assert!(segments(&disk)[0] > 5, "{:?}", segments(&disk));
}

/// Flips a bit in every batch that holds this entry.
fn with_damaged(disk: &Platter, damaged: &[Entry]) -> Platter {
    let mut image = disk.synced();
    for bytes in image.values_mut() {
        let bytes = Arc::make_mut(bytes);
        for entry in damaged {
            let payload = entry.payload.bytes();
            let places = bytes.windows(payload.len()).enumerate();
            let places: Vec<_> =
                places.filter(|(_, some)| some == payload).map(|(at, _)| at).collect();
            places.into_iter().for_each(|at| bytes[at] ^= 1);
        }
    }
    Platter::holding(&image)
}

#[test]
fn damage_at_and_below_the_base_is_no_damage() {
    let disk = formatted();
    disk.set_helper(Helper::Never);
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=9);
    submit(&mut wal, vec![rebase(1, 5)]).unwrap();
    grow(&mut wal, 1, 10..=11);
    wal.close().unwrap();
    drop(wal);
    // One batch, two neighbours, two apart.
    for below in [vec![3], vec![2, 3], vec![5], vec![1, 4]] {
        let below: Vec<Entry> = below.into_iter().map(|index| entry(1, index, 10)).collect();
        let disk = with_damaged(&disk, &below);
        for _ in 0..2 {
            let (recovered, read) = content(&disk);
            assert_eq!(recovered.damage, None, "{:?}", recovered.notes);
            assert_eq!(recovered.base.id.index, Index(5));
            assert_eq!(read, entries(1, 6..=11));
        }
    }
}

#[test]
fn entries_lost_above_a_new_base_stay_lost_until_they_are_overwritten() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=9);
    wal.close().unwrap();
    drop(wal);
    let disk = with_damaged(&disk, &[entry(1, 4, 10)]);
    let last = LogId::new(Term(1), Index(9));
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damage.unwrap().first_faulty, Index(4));
    // A base in what is left, one in what is lost, then one at the end of all.
    for to in [2, 6, 9] {
        let before = segments(&disk)[0];
        submit(&mut wal, vec![rebase(1, to)]).unwrap();
        wal.space();
        assert!(to == 9 || segments(&disk)[0] == before, "traces of damage were removed");
        drop(wal);
        let (again, recovered) = open(&disk).unwrap();
        wal = again;
        let damage = recovered.damage.map(|damage| (damage.first_faulty, damage.lost.last_known));
        let expected = (to < 9).then_some((Index(to.max(3) + 1), Some(last)));
        assert_eq!(damage, expected, "base {to}: {recovered:?}");
        assert_eq!(recovered.last.index.0, to.max(3));
    }
    grow(&mut wal, 1, 10..=14);
    drop(wal);
    let (recovered, read) = content(&disk);
    assert_eq!((recovered.damage, read), (None, entries(1, 10..=14)));
}

#[test]
fn a_lost_move_of_the_base_is_found_in_the_next_checkpoint_or_leaves_the_older_base() {
    let disk = formatted();
    disk.set_helper(Helper::Never);
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=4);
    // With an entry, by which its batch is found.
    let op = WriteOp { base: moved(1, 3), ..append(entries(1, 5..=5)) };
    submit(&mut wal, vec![op]).unwrap();
    submit(&mut wal, vec![append(entries(1, 6..=6))]).unwrap();
    let early = with_damaged(&disk, &entries(1, 5..=5));
    grow(&mut wal, 1, 7..=9);
    wal.close().unwrap();
    drop(wal);
    let late = with_damaged(&disk, &entries(1, 5..=5));
    for (disk, base) in [(early, 0), (late, 3)] {
        let (recovered, read) = content(&disk);
        assert_eq!(recovered.damage.unwrap().first_faulty, Index(5), "{recovered:?}");
        assert_eq!(recovered.base.id.index, Index(base));
        assert_eq!(read, entries(1, base + 1..=4));
    }
}

#[test]
fn a_log_whose_base_is_lost_with_its_segments_is_refused_by_name() {
    let disk = formatted();
    let (mut wal, _) = open(&disk).unwrap();
    grow(&mut wal, 1, 1..=18);
    // The spare is there, and no room for another one.
    disk.set_full(true);
    disk.set_free(0);
    grow(&mut wal, 1, 19..=19);
    let op = WriteOp { base: moved(1, 15), ..append(entries(1, 20..=20)) };
    submit(&mut wal, vec![op]).unwrap();
    wal.space();
    wal.space();
    drop(wal);
    assert!(segments(&disk)[0] > 1);
    let error = open(&with_damaged(&disk, &entries(1, 20..=20))).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("wal-0000000000000007.log"), "{error}");
}

#[test]
fn an_installed_base_that_is_lost_is_missed_although_no_entry_is() {
    let disk = Platter::default();
    // So large that no new segment's checkpoint says it again.
    let options = || tiny(SEGMENT * 16);
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(&disk, dir(), &spec, options()).unwrap();
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), dir(), owner(), options()).unwrap();
    submit(&mut wal, vec![rebase(1, 10)]).unwrap();
    let before = disk.synced();
    submit(&mut wal, vec![rebase(1, 20)]).unwrap();
    let after = disk.synced();
    // A later batch says what the one before it did.
    wal.idle().unwrap();
    drop(wal);
    let mut image = disk.synced();
    for (path, bytes) in &mut image {
        let (Some(old), Some(new)) = (before.get(path), after.get(path)) else { continue };
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let first = old.iter().zip(new.iter()).position(|(old, new)| old != new);
        if let Some(at) = first.filter(|_| is_log) {
            Arc::make_mut(bytes)[at + 100] ^= 1;
        }
    }
    let (recovered, read) = content(&Platter::holding(&image));
    assert!(recovered.damage.is_some(), "what it stood for had been acknowledged: {recovered:?}");
    let damage = recovered.damage.unwrap();
    assert_eq!(damage.first_faulty, Index(11));
    assert_eq!(damage.lost.last_known, Some(LogId::new(Term(1), Index(20))));
    assert_eq!((recovered.base.id.index, read), (Index(10), Vec::new()));
}
