//! Crashes, torn writes, failing and full disks.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use raftz_core::storage::wal::{BootstrapSpec, Wal, WalOptions};
use raftz_core::storage::{Completion, Space, Storage, StorageError};
use raftz_core::types::{Entry, GroupId, HardState, Index, NodeId, Recovered, Term, WriteOp};

use crate::disk::{Fault, Image, MemDisk};
use crate::support::*;

/// A submission whose fate may come later.
fn begin(wal: &mut Wal, op: WriteOp) -> Receiver<Result<(), StorageError>> {
    let (sender, receiver) = channel();
    wal.submit(vec![(GroupId::FIRST, op)], Completion::new(move |fate| drop(sender.send(fate))));
    receiver
}

const SEGMENT: u64 = 1 << 16;

fn dir() -> &'static Path {
    Path::new("/disk/data")
}

fn open(disk: &MemDisk, segment_bytes: u64) -> Result<(Wal, Recovered), StorageError> {
    Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(segment_bytes))
}

fn format(disk: &MemDisk, segment_bytes: u64) -> Result<(), StorageError> {
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(disk, dir(), &spec, tiny(segment_bytes)).map(|_| ())
}

fn formatted(segment_bytes: u64) -> MemDisk {
    let disk = MemDisk::default();
    format(&disk, segment_bytes).unwrap();
    disk
}

/// Opens, and checks that the log holds `acked` and then at most what was under way.
fn check(image: &Image, acked: &[Entry], more: &[Entry], votes: &[HardState], what: &str) {
    let disk = MemDisk::holding(image);
    let kept = {
        let (mut wal, recovered) =
            open(&disk, SEGMENT).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(recovered.damage, None, "{what}: {recovered:?}");
        assert!(votes.contains(&recovered.hard_state), "{what}: {:?}", recovered.hard_state);
        let read = all(&wal, &recovered);
        let whole = [acked, more].concat();
        assert!(read == acked || read == whole, "{what}: {} entries", read.len());
        let next = entry(9, read.len() as u64 + 1, 5000);
        submit(&mut wal, vec![append(vec![next.clone()])]).unwrap();
        [read, vec![next]].concat()
    };
    let (wal, recovered) = open(&disk, SEGMENT).unwrap();
    assert_eq!(all(&wal, &recovered), kept, "{what}");
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{what}: {recovered:?}");
}

#[test]
fn a_torn_batch_is_cut_and_costs_nothing_that_was_acknowledged() {
    let disk = formatted(SEGMENT);
    let acked: Vec<Entry> = (1..=3).map(|i| entry(1, i, 300)).collect();
    let more: Vec<Entry> = (4..=6).map(|i| entry(2, i, 3500)).collect();
    let (mut wal, _) = open(&disk, SEGMENT).unwrap();
    submit(&mut wal, vec![vote(1, 1), append(acked.clone())]).unwrap();
    // The batch is written, its sync fails: what reached the disk is anybody's guess.
    disk.fail(Some(Fault::Sync(0)));
    submit(&mut wal, vec![append(more.clone())]).unwrap_err();
    drop(wal);
    let votes = [HardState { term: Term(1), vote: NodeId::new(1) }];
    let (before, after) = (disk.synced(), disk.written());
    let log = before
        .keys()
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap()
        .clone();
    let (old, new) = (&before[&log], &after[&log]);
    let changed: Vec<usize> = (0..new.len()).filter(|at| old[*at] != new[*at]).collect();
    let (start, end) = (changed[0], changed[changed.len() - 1] + 1);
    let sectors: Vec<usize> = (start / 512..end.div_ceil(512)).collect();
    let with = |kept: &dyn Fn(usize) -> bool, what: String| {
        let mut bytes = old.to_vec();
        for at in start..end {
            if kept(at) {
                bytes[at] = new[at];
            }
        }
        let mut image = before.clone();
        image.insert(log.clone(), Arc::new(bytes));
        check(&image, &acked, &more, &votes, &what);
    };
    for upto in (start..=end).step_by(7).chain([end]) {
        with(&|at| at < upto, format!("prefix up to {upto}"));
    }
    for a in &sectors {
        with(&|at| at / 512 == *a, format!("sector {a} alone"));
        for b in &sectors {
            with(&|at| at / 512 != *a && at / 512 != *b, format!("without sectors {a}, {b}"));
        }
    }
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
        let disk = MemDisk::holding(&image);
        let (mut wal, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovered.last.index.0, acked.len() as u64);
        // Every round writes something else at the place where the last one was torn.
        disk.fail(Some(Fault::Sync(0)));
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
        let disk = MemDisk::holding(&torn);
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
fn formatting_stopped_anywhere_can_be_repeated_or_is_complete() {
    let whole = MemDisk::default();
    whole.fail(None);
    format(&whole, SEGMENT).unwrap();
    let steps = whole.changes();
    assert!(steps > 15, "{steps}");
    for step in 0..=steps {
        let disk = MemDisk::default();
        disk.fail(Some(Fault::CutFrom(step)));
        let done = format(&disk, SEGMENT).is_ok();
        for image in [disk.written(), disk.synced()] {
            let after = MemDisk::holding(&image);
            if image.is_empty() {
                format(&after, SEGMENT).unwrap();
            }
            match open(&after, SEGMENT) {
                Ok((_, recovered)) => assert_eq!(recovered.base, base()),
                Err(StorageError::NotFormatted { .. }) => {
                    assert!(!done, "step {step}");
                    format(&after, SEGMENT).unwrap_or_else(|error| panic!("step {step}: {error}"));
                }
                Err(error) => panic!("step {step}: {error}"),
            }
            open(&after, SEGMENT).unwrap();
        }
    }
}

/// Writes until something fails; gives what was acknowledged, and what was under way.
fn load(wal: &mut Wal) -> (Vec<Entry>, Vec<Entry>, Vec<HardState>) {
    let mut acked: Vec<Entry> = Vec::new();
    let mut votes = vec![HardState::default()];
    for round in 1..=12 {
        let next = acked.len() as u64 + 1;
        let new: Vec<Entry> = (next..next + 2).map(|i| entry(round, i, 2500)).collect();
        if submit(wal, vec![append(new.clone())]).is_err() {
            return (acked, new, votes);
        }
        acked.extend(new);
        votes.push(HardState { term: Term(round), vote: NodeId::new(2) });
        if submit(wal, vec![vote(round, 2)]).is_err() {
            return (acked, Vec::new(), votes);
        }
        votes.remove(0);
        let _ = wal.idle();
    }
    let _ = wal.close();
    (acked, Vec::new(), votes)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    let small = 1 << 14;
    let disk = formatted(small);
    disk.fail(None);
    load(&mut open(&disk, small).unwrap().0);
    let steps = disk.changes();
    for step in 0..steps {
        let disk = formatted(small);
        disk.fail(Some(Fault::CutFrom(step)));
        let (acked, more, votes) = match open(&disk, small) {
            Ok((mut wal, _)) => load(&mut wal),
            Err(_) => (Vec::new(), Vec::new(), vec![HardState::default()]),
        };
        for (image, view) in [(disk.written(), "written"), (disk.synced(), "synced")] {
            check(&image, &acked, &more, &votes, &format!("step {step} of {steps}, {view}"));
        }
    }
}

#[test]
fn the_first_failed_write_or_sync_ends_the_writing_for_ever() {
    for at in 0..3 {
        for fault in [Fault::Write(at), Fault::Sync(at)] {
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
            let _ = wal.close();
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
    disk.fail(Some(Fault::Full));
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
    disk.fail(None);
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
fn a_killed_process_and_then_a_power_cut_lose_nothing_that_was_acknowledged() {
    let small = 1 << 14;
    let disk = formatted(small);
    disk.fail(None);
    load(&mut open(&disk, small).unwrap().0);
    let steps = disk.changes();
    for step in 0..steps {
        let disk = formatted(small);
        disk.fail(Some(Fault::CutFrom(step)));
        if let Ok((mut wal, _)) = open(&disk, small) {
            load(&mut wal);
        }
        // The next process sees what the killed one wrote, and answers for it from now on.
        disk.fail(None);
        let (mut wal, recovered) = open(&disk, small).unwrap();
        let mut acked = all(&wal, &recovered);
        let votes = [recovered.hard_state];
        check(&disk.synced(), &acked, &[], &votes, &format!("step {step} of {steps}, opened"));
        let next = entry(20, acked.len() as u64 + 1, 10);
        submit(&mut wal, vec![append(vec![next.clone()])]).unwrap();
        acked.push(next);
        check(&disk.synced(), &acked, &[], &votes, &format!("step {step} of {steps}, written"));
    }
}

#[test]
fn formatting_killed_anywhere_and_repeated_survives_a_power_cut() {
    let whole = MemDisk::default();
    whole.fail(None);
    format(&whole, SEGMENT).unwrap();
    for step in 0..=whole.changes() {
        let disk = MemDisk::default();
        disk.fail(Some(Fault::CutFrom(step)));
        let _ = format(&disk, SEGMENT);
        disk.fail(None);
        if !Wal::is_formatted(&disk, dir()).unwrap() {
            format(&disk, SEGMENT).unwrap();
        }
        drop(open(&disk, SEGMENT).unwrap());
        assert!(disk.is_dir_durable(dir()), "step {step}");
        open(&MemDisk::holding(&disk.synced()), SEGMENT).unwrap();
    }
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
    disk.fail(Some(Fault::Full));
    for index in 1..=3 {
        submit(&mut wal, vec![append(vec![entry(1, index, 10)])]).unwrap();
    }
    assert_eq!(wal.space(), Space::Low);
    disk.fail(None);
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
        let disk = MemDisk::holding(&image);
        let expected = HardState { term: Term(2), vote: NodeId::new(3) };
        let (wal, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!(recovered.hard_state, expected, "torn at {torn_at}");
        drop(wal);
        let (_, recovered) = open(&disk, SEGMENT).unwrap();
        assert_eq!((recovered.hard_state, recovered.notes.len()), (expected, 0), "at {torn_at}");
    }
}
