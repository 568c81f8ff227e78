//! Torn writes, failing and full disks, each as a story of its own; `cuts.rs` and `failing.rs` try
//! everything.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use raftz_core::storage::wal::{BootstrapSpec, Wal, WalOptions};
use raftz_core::storage::{Completion, Space, Storage, StorageError};
use raftz_core::types::{Entry, GroupId, HardState, Index, NodeId, Recovered, Term, WriteOp};

use crate::platter::{Fault, Helper, How, Op, Platter};
use crate::support::*;

/// A submission whose fate may come later.
fn begin(wal: &mut Wal, op: WriteOp) -> Receiver<Result<(), StorageError>> {
    let (sender, receiver) = channel();
    wal.submit(vec![(GroupId::FIRST, op)], Completion::new(move |fate| drop(sender.send(fate))));
    receiver
}

/// The nth operation of a kind fails.
const fn nth(op: Op, nth: u64) -> Fault {
    Fault { op, nth, how: How::Broken }
}

const SEGMENT: u64 = 1 << 16;

fn dir() -> &'static Path {
    Path::new("/disk/data")
}

fn open(disk: &Platter, segment_bytes: u64) -> Result<(Wal, Recovered), StorageError> {
    Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(segment_bytes))
}

fn format(disk: &Platter, segment_bytes: u64) -> Result<(), StorageError> {
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(disk, dir(), &spec, tiny(segment_bytes)).map(|_| ())
}

fn formatted(segment_bytes: u64) -> Platter {
    let disk = Platter::default();
    format(&disk, segment_bytes).unwrap();
    disk
}

#[test]
fn a_tail_torn_twice_is_cut_twice() {
    let disk = formatted(SEGMENT);
    let mut acked = vec![entry(1, 1, 10)];
    let (mut wal, _) = open(&disk, SEGMENT).unwrap();
    submit(&mut wal, vec![append(acked.clone())]).unwrap();
    drop(wal);
    let mut image = disk.synced();
    for round in 2..6 {
        let disk = Platter::holding(&image);
        let (mut wal, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovered.last.index.0, acked.len() as u64);
        // Every round writes something else at the place where the last one was torn.
        disk.fail(Some(nth(Op::Sync, 0)));
        let long = entry(round, round, 9000 - 1500 * round as usize);
        submit(&mut wal, vec![append(vec![long])]).unwrap_err();
        drop(wal);
        let mut torn = disk.written();
        for (path, bytes) in &mut torn {
            if path.extension().is_some_and(|extension| extension == "log") {
                let whole = bytes.len();
                let bytes = Arc::make_mut(bytes);
                let last = (0..whole).rev().find(|at| bytes[*at] != 0).unwrap();
                bytes[last - 600..=last].fill(0);
            }
        }
        let disk = Platter::holding(&torn);
        let (mut wal, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovered.notes.len(), 1, "{:?}", recovered.notes);
        acked.push(entry(round, acked.len() as u64 + 1, 10));
        submit(&mut wal, vec![append(acked[acked.len() - 1..].to_vec())]).unwrap();
        assert_eq!(
            wal.reader()
                .read(
                    raftz_core::types::GroupId::FIRST,
                    Index(1),
                    Index(acked.len() as u64),
                    u64::MAX
                )
                .unwrap(),
            acked
        );
        drop(wal);
        image = disk.synced();
    }
}

#[test]
fn the_first_failed_write_or_sync_ends_the_writing_for_ever() {
    for at in 0..3 {
        for fault in [nth(Op::Write, at), nth(Op::Sync, at)] {
            let disk = formatted(SEGMENT);
            let (mut wal, _) = open(&disk, SEGMENT).unwrap();
            disk.fail(Some(fault));
            let mut failed = 0;
            for index in 1..=6 {
                match submit(&mut wal, vec![append(vec![entry(1, index, 10)])]) {
                    Ok(()) => assert_eq!(failed, 0, "{fault:?}: written after a failure"),
                    Err(StorageError::Poisoned { first, .. }) => {
                        assert!(failed > 0 && first.contains("injected"), "{first}");
                        failed += 1;
                    }
                    Err(error) => {
                        assert_eq!(failed, 0, "{fault:?}: {error}");
                        assert!(error.to_string().contains("wal-0000000000000001.log"), "{error}");
                        failed += 1;
                    }
                }
            }
            assert_eq!(failed, 6 - at, "{fault:?}");
            assert!(matches!(wal.idle(), Err(StorageError::Poisoned { .. })));
            assert!(matches!(wal.close(), Err(StorageError::Poisoned { .. })));
        }
    }
}

#[test]
fn a_full_disk_makes_room_low_and_the_spare_segment_carries_on() {
    let small = 1 << 15;
    let disk = formatted(small);
    let (mut wal, _) = open(&disk, small).unwrap();
    assert_eq!(wal.space(), Space::Ample);
    // Past a quarter of the segment, the spare is prepared: now it exists.
    for index in 1..=3 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
    }
    disk.set_full(true);
    let mut index = 4;
    let mut low_at = None;
    let waiting = loop {
        let fate = begin(&mut wal, append(vec![entry(1, index, 10)]));
        let space = wal.space();
        match fate.try_recv() {
            Ok(fate) => fate.unwrap(),
            Err(TryRecvError::Empty) => break fate,
            Err(TryRecvError::Disconnected) => panic!("entry {index} was dropped"),
        }
        if space == Space::Low {
            low_at = low_at.or(Some(index));
        }
        index += 1;
    };
    // A warning, then room for many a vote, then the end.
    assert!(index >= low_at.unwrap() + 4, "{low_at:?}, {index}");
    // Nothing passes what waits, nothing fails, and an idle store does not complain.
    let behind = begin(&mut wal, vote(7, 3));
    wal.idle().unwrap();
    assert_eq!(wal.space(), Space::Low);
    assert!(waiting.try_recv().is_err() && behind.try_recv().is_err());
    // It boots on the full disk, too.
    drop(wal);
    assert!(matches!(waiting.try_recv().unwrap(), Err(StorageError::NoSpace { .. })));
    assert!(matches!(behind.try_recv().unwrap(), Err(StorageError::NoSpace { .. })));
    let (mut wal, recovered) = open(&disk, small).unwrap();
    assert_eq!(recovered.last.index.0, index - 1);
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
    let waiting = begin(&mut wal, append(vec![entry(1, index, 10)]));
    let behind = begin(&mut wal, vote(7, 3));
    assert_eq!(wal.space(), Space::Low);
    assert!(waiting.try_recv().is_err() && behind.try_recv().is_err());
    // When there is room it goes on by itself, in order.
    disk.set_full(false);
    while wal.space() == Space::Low {}
    waiting.try_recv().unwrap().unwrap();
    behind.try_recv().unwrap().unwrap();
    drop(wal);
    let (_, recovered) = open(&disk, small).unwrap();
    assert_eq!((recovered.last.index.0, recovered.hard_state.term), (index, Term(7)));
}

#[test]
fn a_disk_without_room_for_a_segment_is_not_filled_to_the_brim() {
    let small = 1 << 15;
    let disk = formatted(small);
    let (mut wal, _) = open(&disk, small).unwrap();
    disk.set_free(small - 4096);
    for index in 1..=3 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
    }
    assert_eq!(wal.space(), Space::Low);
    let spare = disk.written().get(&dir().join("spare.tmp")).map_or(0, |bytes| bytes.len());
    assert_eq!(spare, 0, "bytes of a segment that could never be finished");
}

#[test]
fn low_space_ends_by_itself() {
    let small = 1 << 15;
    let disk = formatted(small);
    let options = WalOptions { segment_bytes: small, reserve_bytes: 100_000 };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), dir(), owner(), options).unwrap();
    disk.set_free(99_999);
    assert_eq!(wal.space(), Space::Low);
    disk.set_free(100_000);
    assert_eq!(wal.space(), Space::Ample);
    disk.set_full(true);
    for index in 1..=3 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
    }
    assert_eq!(wal.space(), Space::Low);
    disk.set_full(false);
    wal.space();
    assert_eq!(wal.space(), Space::Ample);
}

#[test]
fn a_vote_slot_torn_by_a_crash_is_repaired_from_the_log() {
    let disk = formatted(SEGMENT);
    let (mut wal, _) = open(&disk, SEGMENT).unwrap();
    submit(&mut wal, vec![vote(1, 1)]).unwrap();
    let before = disk.synced();
    submit(&mut wal, vec![vote(2, 3)]).unwrap();
    drop(wal);
    let (after, file) = (disk.synced(), dir().join("vote"));
    for torn_at in (0..8192).step_by(512) {
        let mut image = after.clone();
        let mut bytes = before[&file][..torn_at].to_vec();
        bytes.extend_from_slice(&after[&file][torn_at..]);
        image.insert(file.clone(), Arc::new(bytes));
        let disk = Platter::holding(&image);
        let expected = HardState { term: Term(2), vote: NodeId::new(3) };
        let (wal, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovered.hard_state, expected, "torn at {torn_at}");
        drop(wal);
        let (_, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!((recovered.hard_state, recovered.notes.len()), (expected, 0), "at {torn_at}");
    }
}

#[test]
fn a_poisoned_store_does_not_say_that_all_is_well_even_behind_a_seal() {
    let disk = formatted(SEGMENT);
    let (mut wal, _) = open(&disk, SEGMENT).unwrap();
    submit(&mut wal, vec![append(vec![entry(1, 1, 9)])]).unwrap();
    wal.idle().unwrap();
    disk.fail(Some(nth(Op::Write, 0)));
    submit(&mut wal, vec![append(vec![entry(1, 2, 9)])]).unwrap_err();
    assert!(matches!(wal.idle(), Err(StorageError::Poisoned { .. })));
    assert!(matches!(wal.close(), Err(StorageError::Poisoned { .. })));
}

#[test]
fn what_a_power_cut_leaves_of_a_slot_is_not_called_damage() {
    let mut said = Vec::new();
    for name in ["superblock", "vote"] {
        let disk = formatted(SEGMENT);
        let (mut wal, _) = open(&disk, SEGMENT).unwrap();
        submit(&mut wal, vec![vote(1, 1)]).unwrap();
        drop(wal);
        let before = disk.synced();
        let (mut wal, _) = open(&disk, SEGMENT).unwrap();
        submit(&mut wal, vec![vote(2, 1)]).unwrap();
        drop(wal);
        let mut image = disk.synced();
        let path = dir().join(name);
        // Half of what changed arrived.
        let (old, new) = (&before[&path], &image[&path]);
        let at = (0..new.len()).find(|at| old[*at] != new[*at]).unwrap() / 4096 * 4096;
        let mut torn = new.to_vec();
        torn[at..at + 64].copy_from_slice(&old[at..at + 64]);
        image.insert(path, Arc::new(torn));
        let (_, recovered) = open(&Platter::holding(&image), SEGMENT).unwrap();
        assert_eq!(recovered.hard_state.term, Term(2));
        said.extend(recovered.notes);
    }
    assert_eq!(said.len(), 2, "{said:?}");
    for note in said {
        assert!(note.contains("power cut") && !note.contains("damaged"), "{note}");
    }
}

#[test]
fn a_segment_that_cannot_take_its_name_for_lack_of_room_is_waited_for() {
    let small = 1 << 14;
    for op in [Op::Write, Op::Sync, Op::Rename] {
        let disk = formatted(small);
        let (mut wal, _) = open(&disk, small).unwrap();
        for index in 1..=2 {
            submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
        }
        // The segment is full. The spare is there, and gets its header first.
        disk.fail(Some(Fault { op, nth: 0, how: How::NoSpace }));
        let waiting = begin(&mut wal, append(vec![entry(1, 3, 10)]));
        assert!(waiting.try_recv().is_err(), "{op:?}");
        while wal.space() == Space::Low {}
        waiting.try_recv().unwrap().unwrap();
        drop(wal);
        let (wal, recovered) = open(&disk, small).unwrap();
        let expected: Vec<Entry> = (1..=3).map(|index| entry(1, index, 10)).collect();
        assert_eq!(all(&wal, &recovered), expected, "{op:?}");
        assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
    }
}

#[test]
fn a_helper_that_never_runs_keeps_nobody_waiting() {
    let small = 1 << 14;
    let disk = formatted(small);
    disk.set_helper(Helper::Never);
    let (mut wal, _) = open(&disk, small).unwrap();
    for index in 1..=9 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
        wal.space();
    }
}

#[test]
fn a_full_disk_stays_full_while_it_is_tried_again() {
    let small = 1 << 15;
    let disk = formatted(small);
    let (mut wal, _) = open(&disk, small).unwrap();
    disk.set_full(true);
    for index in 1..=3 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
    }
    assert_eq!(wal.space(), Space::Low);
    disk.set_helper(Helper::Held);
    for round in 0..4 {
        assert_eq!(wal.space(), Space::Low, "round {round}: tried again");
        assert_eq!(wal.space(), Space::Low, "round {round}: the helper is at it");
        disk.set_full(round < 3);
        disk.help();
    }
    assert_eq!(wal.space(), Space::Ample);
}

#[test]
fn a_leftover_that_is_too_long_is_removed_and_not_cut() {
    let small = 1 << 14;
    let disk = formatted(4 * small);
    let (mut wal, _) = open(&disk, 4 * small).unwrap();
    for index in 1..=4 {
        submit(&mut wal, vec![append(vec![entry(1, index, 9000)])]).unwrap();
    }
    drop(wal);
    let spare = dir().join("spare.tmp");
    assert_eq!(disk.written()[&spare].len() as u64, 4 * small);
    let (mut wal, _) = open(&disk, small).unwrap();
    let before = disk.count(Op::Unlink);
    let mut index = 5;
    while disk.written().get(&spare).is_none_or(|bytes| bytes.len() as u64 != small) {
        submit(&mut wal, vec![append(vec![entry(1, index, 9000)])]).unwrap();
        index += 1;
    }
    assert_eq!(disk.count(Op::Unlink), before + 1);
}

#[test]
fn the_next_segment_is_prepared_in_pieces_while_the_present_one_fills() {
    let bytes = 1 << 20;
    let disk = formatted(bytes);
    let (mut wal, _) = open(&disk, bytes).unwrap();
    let length = |name: &str| disk.written().get(&dir().join(name)).map_or(0, |bytes| bytes.len());
    let mut pieces = vec![];
    let mut index = 1;
    while length("wal-0000000000000002.log") == 0 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10_000)])]).unwrap();
        index += 1;
        pieces.push(disk.count(Op::Background));
    }
    let quarter = pieces.iter().filter(|pieces| **pieces == 0).count();
    assert!((pieces.len() / 5..pieces.len() / 3).contains(&quarter), "{pieces:?}");
    let steps = pieces.windows(2).filter(|two| two[0] < two[1]).count();
    assert!(steps > pieces.len() / 2, "{pieces:?}");
    assert_eq!(length("wal-0000000000000002.log") as u64, bytes);
}

#[test]
fn a_log_that_lacked_room_early_in_a_segment_goes_on_when_there_is_some() {
    let small = 1 << 16;
    let disk = formatted(small);
    // From now on segments are larger; the present one has room for a small batch alone.
    let large = 1 << 20;
    let (mut wal, _) = open(&disk, large).unwrap();
    disk.set_free(large - 1);
    let waiting = begin(&mut wal, append(vec![entry(1, 1, 60_000)]));
    assert_eq!(wal.space(), Space::Low);
    assert!(waiting.try_recv().is_err());
    disk.set_free(1 << 30);
    for _ in 0..3 {
        wal.space();
    }
    waiting.try_recv().unwrap().unwrap();
    assert_eq!(wal.space(), Space::Ample);
}

/// Segments that have their name.
fn named(disk: &Platter) -> usize {
    disk.written().keys().filter(|path| path.extension().is_some_and(|it| it == "log")).count()
}

#[test]
fn large_batches_get_no_zeros_ahead_and_small_ones_after_them_do() {
    let bytes = 1 << 20;
    let disk = formatted(bytes);
    let (mut wal, _) = open(&disk, bytes).unwrap();
    let mut index = 0;
    let mut grow = |wal: &mut Wal, payload_bytes| {
        index += 1;
        submit(wal, vec![append(vec![entry(1, index, payload_bytes)])]).unwrap();
    };
    while named(&disk) < 2 {
        grow(&mut wal, 100_000);
    }
    let (helps, writes) = (disk.count(Op::Background), disk.count(Op::Write));
    let mut batches = 0;
    while named(&disk) < 4 {
        grow(&mut wal, 100_000);
        batches += 1;
    }
    // A helper for each segment, and one that drops the pages of an older one.
    assert!(disk.count(Op::Background) - helps <= 4);
    // Its room, its header, its checkpoint and both slots of the vote file for each, and the batches.
    assert!(disk.count(Op::Write) - writes <= batches + 2 * 5, "{batches}");

    // They become small: the log goes on where there are zeros. What keeps it from that keeps no write.
    disk.fail(Some(Fault { op: Op::Rename, nth: 0, how: How::NoSpace }));
    let mut moved = 0;
    while named(&disk) < 5 {
        grow(&mut wal, 10);
        moved += 1;
    }
    assert!(moved < 64, "{moved} batches");
    assert!(disk.failed().is_some());
    // And there it stays.
    for _ in 0..20 {
        grow(&mut wal, 10);
    }
    assert_eq!(named(&disk), 5);
    // A single huge one changes nothing.
    grow(&mut wal, 500_000);
    for _ in 0..60 {
        grow(&mut wal, 10);
    }
    assert_eq!(named(&disk), 5);
    drop(wal);
    let (_, recovered) = open(&disk, bytes).unwrap();
    assert_eq!((recovered.last.index, recovered.damage), (Index(index), None));
}

#[test]
fn what_a_leftover_holds_shows_in_no_segment() {
    let bytes = 1 << 20;
    for free in [1 << 30, bytes - 1] {
        let mut image = formatted(bytes).written();
        image.insert(dir().join("spare.tmp"), vec![7; bytes as usize].into());
        let disk = Platter::holding(&image);
        disk.set_free(free);
        let (mut wal, _) = open(&disk, bytes).unwrap();
        let second = dir().join("wal-0000000000000002.log");
        let mut index = 0;
        while !disk.written().contains_key(&second) {
            index += 1;
            submit(&mut wal, vec![append(vec![entry(1, index, 100_000)])]).unwrap();
        }
        let rest = &disk.written()[&second][200_000..];
        assert!(rest.iter().all(|byte| *byte == 0), "{free} bytes free");
    }
}

#[test]
fn a_log_whose_checkpoint_no_segment_holds_rests_when_nothing_is_written() {
    let small = 1 << 14;
    let disk = formatted(small);
    let (mut wal, _) = open(&disk, small).unwrap();
    // As many as there may be.
    for group in 1..=126 {
        let (sender, receiver) = channel();
        let done = Completion::new(move |fate| drop(sender.send(fate)));
        wal.submit(vec![(GroupId(group), append(vec![entry(1, 1, 10)]))], done);
        receiver.try_recv().unwrap().unwrap();
    }
    // A header and a batch have a block each; the rest is the checkpoint.
    let longest = disk.written().values().map(|bytes| bytes.len() as u64).max().unwrap();
    assert!(longest - 2 * 4096 > small, "{longest}");
    let before = named(&disk);
    for _ in 0..50 {
        wal.space();
    }
    assert_eq!(named(&disk), before);
}
