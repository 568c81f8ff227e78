//! Damage to a small sealed log: found, named, remembered; never believed and never silently cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raftz_core::storage::wal::{BootstrapSpec, Wal};
use raftz_core::storage::{Space, Storage, StorageError};
use raftz_core::types::{Entry, HardState, LogId, NodeId, Recovered, Term};

use crate::disk::Image;
use crate::platter::{Fault, How, Op, Platter};
use crate::support::*;

const SEGMENT: u64 = 1 << 14;

fn dir() -> &'static Path {
    Path::new("/disk/data")
}

fn bytes_of<'a>(image: &'a mut Image, path: &Path) -> &'a mut Vec<u8> {
    Arc::make_mut(image.get_mut(path).unwrap())
}

fn open(disk: &Platter) -> Result<(Wal, Recovered), StorageError> {
    Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(SEGMENT))
}

fn format(disk: &Platter) -> Result<(), StorageError> {
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(disk, dir(), &spec, tiny(SEGMENT)).map(|_| ())
}

/// What the small log holds.
struct Truth {
    image: Image,
    entries: Vec<Entry>,
    hard_state: HardState,
}

/// What a directory does without.
fn is_scratch(path: &Path) -> bool {
    path.ends_with("spare.tmp") || path.ends_with("LOCK")
}

/// A log of two segments with entries, votes and a truncation, cleanly closed.
fn sealed() -> Truth {
    let disk = Platter::default();
    format(&disk).unwrap();
    {
        let (mut wal, _) = open(&disk).unwrap();
        submit(&mut wal, vec![vote(2, 3), append((1..=4).map(|i| entry(1, i, 90)).collect())])
            .unwrap();
        submit(&mut wal, vec![rewrite(3, vec![entry(2, 3, 50), entry(2, 4, 900)])]).unwrap();
        submit(&mut wal, vec![vote(4, 2)]).unwrap();
        let op = raftz_core::types::WriteOp {
            commit: raftz_core::types::Index(4),
            ..append(vec![entry(4, 5, 20)])
        };
        submit(&mut wal, vec![op]).unwrap();
        wal.close().unwrap();
    }
    let entries =
        vec![entry(1, 1, 90), entry(1, 2, 90), entry(2, 3, 50), entry(2, 4, 900), entry(4, 5, 20)];
    let hard_state = HardState { term: Term(4), vote: NodeId::new(2) };
    let image: Image = disk.synced().into_iter().filter(|(path, _)| !is_scratch(path)).collect();
    Truth { image, entries, hard_state }
}

/// How an open of a damaged directory went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Intact,
    Damaged,
    Refused,
}

/// Opens and checks everything that must hold whatever was damaged.
fn judge(truth: &Truth, disk: &Platter, what: &dyn Fn() -> String) -> Verdict {
    let (wal, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(error) => {
            let named =
                matches!(error, StorageError::Corrupt { .. } | StorageError::HardStateLost { .. });
            assert!(named, "{}: {error}", what());
            return Verdict::Refused;
        }
    };
    assert_eq!(recovered.hard_state, truth.hard_state, "{}: the vote changed", what());
    let read = all(&wal, &recovered);
    assert_eq!(read, truth.entries[..read.len()], "{}: entries changed", what());
    let last = truth.entries.last().map(Entry::id);
    match recovered.damage {
        None => {
            assert_eq!(read.len(), truth.entries.len(), "{}: silently cut", what());
            Verdict::Intact
        }
        Some(damage) => {
            assert_eq!(damage.first_faulty.0, read.len() as u64 + 1, "{}", what());
            assert!(damage.lost.last_known.is_none_or(|known| Some(known) == last), "{}", what());
            assert!(!recovered.notes.is_empty(), "{}", what());
            Verdict::Damaged
        }
    }
}

fn open_twice(truth: &Truth, disk: &Platter, what: &dyn Fn() -> String) -> Verdict {
    let first = judge(truth, disk, what);
    if first == Verdict::Damaged {
        let again = judge(truth, disk, &|| format!("{}, second open", what()));
        assert_eq!(again, Verdict::Damaged, "{}: the damage was forgotten", what());
    }
    first
}

#[test]
fn every_flipped_bit_is_harmless_named_or_refused() {
    let truth = sealed();
    let files: Vec<PathBuf> = truth.image.keys().cloned().collect();
    assert!(files.len() >= 4, "{files:?}");
    let counts = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (truth, files, counts) = (&truth, &files, &counts);
            scope.spawn(move || {
                for path in files {
                    for at in (half..truth.image[path].len()).step_by(2) {
                        for bit in 0..8 {
                            let mut image = truth.image.clone();
                            bytes_of(&mut image, path)[at] ^= 1 << bit;
                            let disk = Platter::holding(&image);
                            let what = || format!("{} byte {at} bit {bit}", path.display());
                            let verdict = open_twice(truth, &disk, &what);
                            counts[verdict as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    println!("intact, damaged, refused: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn every_file_cut_at_every_byte_is_harmless_named_or_refused() {
    let truth = sealed();
    for path in truth.image.keys() {
        let whole = truth.image[path].len();
        for len in 0..whole {
            let mut image = truth.image.clone();
            bytes_of(&mut image, path).truncate(len);
            let what = || format!("{} cut at {len} of {whole}", path.display());
            let verdict = open_twice(&truth, &Platter::holding(&image), &what);
            let is_log = path.extension().is_some();
            assert!(!is_log || verdict == Verdict::Refused, "{}: {verdict:?}", what());
        }
    }
}

#[test]
fn every_missing_file_is_refused_by_name() {
    let truth = sealed();
    for path in truth.image.keys().filter(|path| !path.ends_with("superblock")) {
        let mut image = truth.image.clone();
        image.remove(path);
        let error = open(&Platter::holding(&image)).map(|_| ()).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "{name}: {error}");
    }
    let mut image = truth.image.clone();
    image.remove(&dir().join("superblock"));
    let error = open(&Platter::holding(&image)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("superblock is missing"), "{error}");
}

#[test]
fn every_zeroed_block_is_harmless_named_or_refused() {
    let truth = sealed();
    for path in truth.image.keys() {
        for at in (0..truth.image[path].len()).step_by(4096) {
            let mut image = truth.image.clone();
            bytes_of(&mut image, path)[at..at + 4096].fill(0);
            let what = || format!("{} without block {at}", path.display());
            open_twice(&truth, &Platter::holding(&image), &what);
        }
    }
}

/// The offset of each batch in a segment.
fn batches(segment: &[u8]) -> Vec<usize> {
    (4096..segment.len())
        .step_by(4096)
        .filter(|at| segment[*at..].starts_with(b"rzbatch1"))
        .collect()
}

/// A disk whose batch number `n`, counted over all segments from 0, is damaged.
fn with_damaged_batch(image: &Image, n: usize) -> Platter {
    let mut image = image.clone();
    let mut at = 0;
    for (path, bytes) in &mut image {
        let bytes = Arc::make_mut(bytes);
        if path.extension().is_some_and(|extension| extension == "log") {
            for batch in batches(&bytes.clone()) {
                if at == n {
                    bytes[batch + 100] ^= 1;
                }
                at += 1;
            }
        }
    }
    assert!(n < at);
    Platter::holding(&image)
}

#[test]
fn damaged_entries_are_remembered_until_they_are_overwritten() {
    let truth = sealed();
    // Batches: checkpoint, entries 1 to 4, entries 3 and 4 again, …
    let disk = with_damaged_batch(&truth.image, 2);
    let last = LogId::new(Term(4), raftz_core::types::Index(5));
    for _ in 0..3 {
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.last.index.0, 2);
        assert_eq!(recovered.damage.unwrap().lost.last_known, Some(last));
    }
    {
        let (mut wal, _) = open(&disk).unwrap();
        submit(&mut wal, vec![append(truth.entries[2..4].to_vec())]).unwrap();
    }
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last.index.0, 4);
    assert_eq!(recovered.damage.unwrap().first_faulty.0, 5);
    submit(&mut wal, vec![append(truth.entries[4..].to_vec())]).unwrap();
    drop(wal);
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damage, None);
    assert_eq!(all(&wal, &recovered), truth.entries);
}

#[test]
fn a_damaged_batch_whose_entries_were_overwritten_later_costs_nothing() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    submit(&mut wal, vec![append(vec![entry(1, 1, 9)])]).unwrap();
    submit(&mut wal, vec![append(vec![entry(1, 2, 9), entry(1, 3, 9)])]).unwrap();
    submit(&mut wal, vec![rewrite(2, vec![entry(2, 2, 9)])]).unwrap();
    wal.close().unwrap();
    drop(wal);
    let disk = with_damaged_batch(&disk.synced(), 2);
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damage, None, "{recovered:?}");
    assert_eq!(all(&wal, &recovered), [entry(1, 1, 9), entry(2, 2, 9)]);
}

/// A node that is killed before its first vote has nothing but a checkpoint. With that lost there is
/// no membership any more, and an empty log of a newcomer must not be taken for it.
#[test]
fn a_log_without_any_batch_is_refused_and_left_alone() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let vote = dir().join("vote");
    for (zeros, slots) in [(true, 0), (false, 0), (true, 1), (true, 2)] {
        let mut image = disk.synced();
        let checkpoint = &mut first_segment(&mut image)[4096..8192];
        if zeros {
            checkpoint.fill(0);
        } else {
            checkpoint[100] ^= 1;
        }
        bytes_of(&mut image, &vote)[..slots * 4096].fill(0);
        let damaged = Platter::holding(&image);
        for _ in 0..2 {
            let error = open(&damaged).map(|_| ()).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { offset: 4096, .. }), "{error}");
            assert!(error.to_string().contains("wal-0000000000000001.log"), "{error}");
            assert!(error.to_string().contains("checkpoint"), "{error}");
        }
        image.retain(|path, _| !is_scratch(path));
        let mut left = damaged.synced();
        left.retain(|path, _| !is_scratch(path));
        assert!(left == image, "a refused log was written to");
    }
}

/// The block of a segment that was written last.
fn last_block(segment: &mut [u8]) -> &mut [u8] {
    let end = segment.iter().rposition(|byte| *byte != 0).unwrap();
    &mut segment[end / 4096 * 4096..][..4096]
}

fn first_segment(image: &mut Image) -> &mut Vec<u8> {
    bytes_of(image, &dir().join("wal-0000000000000001.log"))
}

#[test]
fn a_vote_is_lost_only_with_both_slots_and_the_end_of_the_log() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    submit(&mut wal, vec![vote(1, 1)]).unwrap();
    submit(&mut wal, vec![vote(2, 2)]).unwrap();
    drop(wal);
    let given = HardState { term: Term(2), vote: NodeId::new(2) };
    for zeros in [true, false] {
        let mut image = disk.synced();
        let last = last_block(first_segment(&mut image));
        if zeros {
            last.fill(0);
        } else {
            last[100] ^= 1;
        }
        assert_eq!(open(&Platter::holding(&image)).unwrap().1.hard_state, given);
        let vote = dir().join("vote");
        for slot in 0..2 {
            let mut image = image.clone();
            bytes_of(&mut image, &vote)[slot * 4096 + 60] ^= 4;
            let (_, recovered) = open(&Platter::holding(&image)).unwrap();
            assert_eq!(recovered.hard_state, given, "slot {slot}: {:?}", recovered.notes);
        }
        if !zeros {
            for slot in 0..2 {
                bytes_of(&mut image, &vote)[slot * 4096 + 60] ^= 4;
            }
            let error = open(&Platter::holding(&image)).map(|_| ()).unwrap_err();
            assert!(matches!(error, StorageError::HardStateLost { .. }), "{error}");
        }
    }
}

#[test]
fn a_vote_that_reached_one_slot_before_a_crash_is_in_both_before_anybody_hears_of_it() {
    let disk = Platter::default();
    format(&disk).unwrap();
    // The second slot is not written, or neither is.
    for nth in [1, 2] {
        let (mut wal, _) = open(&disk).unwrap();
        disk.fail(Some(Fault { op: Op::Write, nth, how: How::Broken }));
        submit(&mut wal, vec![vote(nth, 3)]).unwrap_err();
        drop(wal);
        disk.fail(None);
        let given = open(&disk).unwrap().1.hard_state;
        assert_eq!(given.term, Term(nth));
        for slot in 0..2 {
            let mut image = disk.synced();
            last_block(first_segment(&mut image)).fill(0);
            bytes_of(&mut image, &dir().join("vote"))[slot * 4096 + 60] ^= 4;
            let (_, recovered) = open(&Platter::holding(&image)).unwrap();
            assert_eq!(recovered.hard_state, given, "write {nth}, slot {slot}");
        }
    }
}

#[test]
fn the_last_batch_and_the_seal_behind_it_are_missed_when_both_are_damaged() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    for op in [vote(1, 1), append(vec![entry(1, 1, 9)]), append(vec![entry(1, 2, 9)])] {
        submit(&mut wal, vec![op]).unwrap();
        wal.idle().unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    for zeros in [true, false] {
        // The seal alone: nobody misses it.
        let mut image = disk.synced();
        let newest = image.keys().rfind(|path| path.extension().is_some()).unwrap().clone();
        let spoil = |block: &mut [u8]| block.fill(if zeros { 0 } else { 0x5a });
        spoil(last_block(bytes_of(&mut image, &newest)));
        let (_, recovered) = open(&Platter::holding(&image)).unwrap();
        assert_eq!((recovered.damage, recovered.last.index.0), (None, 2), "zeros: {zeros}");
        // Both.
        let log = bytes_of(&mut image, &newest);
        let end = batches(log).last().map_or(0, |at| at + 4096);
        spoil(&mut log[end - 4096..end]);
        let (_, recovered) = open(&Platter::holding(&image)).unwrap();
        assert!(recovered.damage.is_some(), "zeros: {zeros}: {recovered:?}");
        // And either slot of the vote file.
        for slot in 0..2 {
            let mut image = image.clone();
            spoil(&mut bytes_of(&mut image, &dir().join("vote"))[slot * 4096..][..4096]);
            let (_, recovered) = open(&Platter::holding(&image)).unwrap();
            assert!(recovered.damage.is_some(), "zeros: {zeros}, slot {slot}: {recovered:?}");
        }
    }
}

#[test]
fn a_damaged_log_opens_on_a_full_disk_and_is_written_to_when_there_is_room() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    // One batch, so that its segment has room for another.
    submit(&mut wal, vec![vote(2, 2), append(vec![entry(2, 1, 9)])]).unwrap();
    drop(wal);
    let disk = with_damaged_batch(&disk.synced(), 1);
    disk.set_full(true);
    for round in 0..3 {
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.damage.unwrap().first_faulty.0, 1, "open {round}");
        assert_eq!(recovered.hard_state.term, Term(2));
        assert_eq!(wal.space(), Space::Low);
        wal.idle().unwrap();
        assert_eq!(wal.space(), Space::Low);
    }
    let image = disk.written();
    for asks in [true, false] {
        let disk = Platter::holding(&image);
        disk.set_full(true);
        let (mut wal, _) = open(&disk).unwrap();
        disk.set_full(false);
        // Either way the checkpoint that tells of the damage comes before anything else.
        while asks && wal.space() == Space::Low {}
        submit(&mut wal, vec![vote(3, 3)]).unwrap();
        drop(wal);
        let files = disk.written().len();
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.damage.unwrap().first_faulty.0, 1, "forgotten: {recovered:?}");
        assert_eq!(disk.written().len(), files, "written down twice");
        submit(&mut wal, vec![append(vec![entry(3, 1, 9)])]).unwrap();
        drop(wal);
        let (wal, recovered) = open(&disk).unwrap();
        assert_eq!(all(&wal, &recovered), [entry(3, 1, 9)]);
        assert_eq!(recovered.damage, None, "{recovered:?}");
    }
}

#[test]
fn what_an_open_took_over_is_never_cut_as_torn_later() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    submit(&mut wal, vec![append(vec![entry(1, 1, 9)])]).unwrap();
    // The process is killed before a seal says that entry 1 is durable. The next one reports it as
    // its own, and is killed without having written anything.
    drop(wal);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.last.index.0, 1);
    let damaged = with_damaged_batch(&disk.synced(), 1);
    let (_, recovered) = open(&damaged).unwrap();
    assert!(recovered.damage.is_some(), "silently cut: {recovered:?}");
    // The same for a vote that reached the log, but not the second place.
    let (mut wal, _) = open(&disk).unwrap();
    disk.fail(Some(Fault { op: Op::Write, nth: 1, how: How::Broken }));
    submit(&mut wal, vec![vote(5, 3)]).unwrap_err();
    drop(wal);
    disk.fail(None);
    let given = open(&disk).unwrap().1.hard_state;
    assert_eq!(given.term, Term(5));
    let (_, recovered) = open(&with_damaged_batch(&disk.synced(), 2)).unwrap();
    assert_eq!(recovered.hard_state, given, "the vote changed");
}

#[test]
fn damage_at_the_end_is_judged_alike_at_every_open() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    let entries: Vec<Entry> = (1..=4).map(|index| entry(1, index, 9)).collect();
    let commit = raftz_core::types::Index(4);
    let op = raftz_core::types::WriteOp { commit, ..append(entries.clone()) };
    submit(&mut wal, vec![op]).unwrap();
    submit(&mut wal, vec![vote(2, 2)]).unwrap();
    drop(wal);
    // The last batch is lost, and the vote file knows that it was there.
    let disk = with_damaged_batch(&disk.synced(), 2);
    let mut segments = 0;
    for round in 0..4 {
        let (wal, recovered) = open(&disk).unwrap();
        assert_eq!(all(&wal, &recovered), entries, "open {round}: {recovered:?}");
        assert_eq!(recovered.damage.unwrap().first_faulty.0, 5, "open {round}");
        assert_eq!(recovered.hard_state.term, Term(2));
        let files = disk.synced().len();
        assert!(round == 0 || files == segments, "open {round} went on in a new segment");
        segments = files;
    }
}

#[test]
fn lost_batches_that_left_the_log_as_it_was_cost_nothing() {
    let disk = Platter::default();
    format(&disk).unwrap();
    let (mut wal, _) = open(&disk).unwrap();
    submit(&mut wal, vec![append(vec![entry(1, 1, 9), entry(1, 2, 9)])]).unwrap();
    for term in 1..=3 {
        submit(&mut wal, vec![vote(term, 2)]).unwrap();
    }
    submit(&mut wal, vec![append(vec![entry(3, 3, 9)])]).unwrap();
    wal.close().unwrap();
    drop(wal);
    // The last two votes fill the second segment; the third one's checkpoint follows them.
    let disk = with_damaged_batch(&with_damaged_batch(&disk.synced(), 4).synced(), 5);
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.damage, None, "{recovered:?}");
    assert_eq!(recovered.hard_state.term, Term(3));
    assert_eq!(all(&wal, &recovered), [entry(1, 1, 9), entry(1, 2, 9), entry(3, 3, 9)]);
}
