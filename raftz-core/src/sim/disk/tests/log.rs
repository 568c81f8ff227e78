//! A write-ahead log, cut off again and again.

use std::sync::mpsc;

use super::*;
use crate::sim::choice::Chooser;
use crate::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use crate::storage::{Completion, Storage, StorageError};
use crate::types::{
    Base, ClusterId, Entry, EntryKind, GroupId, HardState, Index, Member, Membership, NodeId,
    Payload, Settings, Term, WriteOp,
};

const DIR: &str = "/d/data";
const OPTIONS: WalOptions = WalOptions { segment_bytes: 1 << 15, reserve_bytes: 0 };

fn node() -> NodeId {
    NodeId::new(1).unwrap()
}

fn bootstrap(disk: &SimDisk) -> Result<(), StorageError> {
    let members = Membership::of_voters([(node(), Member::at("127.0.0.1:7001"))]);
    let base = Base::founding(members, Settings::default());
    let spec = BootstrapSpec { cluster: ClusterId(5), epoch: 0, node: node(), base };
    Wal::bootstrap(&disk.for_this_life(), Path::new(DIR), &spec, OPTIONS).map(|_| ())
}

/// What was submitted, and how far it was acknowledged.
#[derive(Default)]
struct Told {
    entries: Vec<Entry>,
    acked: usize,
    term: u64,
    term_acked: u64,
}

fn submit(wal: &mut Wal, op: WriteOp) -> bool {
    let (sender, receiver) = mpsc::channel();
    wal.submit(
        vec![(GroupId::FIRST, op)],
        Completion::new(move |fate| {
            let _ = sender.send(fate.is_ok());
        }),
    );
    receiver.try_recv().unwrap_or(false)
}

/// One life: opens, checks, writes until something fails.
fn live(disk: &SimDisk, told: &mut Told, dice: &mut Chooser) -> Result<(), StorageError> {
    let expect = Expect { cluster: ClusterId(5), node: node() };
    let vfs = Arc::new(disk.for_this_life());
    let (mut wal, recovered) = Wal::open(vfs, Path::new(DIR), expect, OPTIONS)?;
    assert_eq!(recovered.damage, None);
    let last = usize::try_from(recovered.last.index.0).unwrap();
    assert!((told.acked..=told.entries.len()).contains(&last), "{last}, {} acked", told.acked);
    let term = recovered.hard_state.term.0;
    assert!((told.term_acked..=told.term).contains(&term), "{term}, {}", told.term_acked);
    if last > 0 {
        let last = recovered.last.index;
        let read = wal.reader().read(GroupId::FIRST, Index(1), last, u64::MAX)?;
        assert_eq!(read[..], told.entries[..read.len()]);
        assert_eq!(read.len() as u64, last.0);
    }
    told.entries.truncate(last);
    (told.acked, told.term, told.term_acked) = (last, term, term);
    for _ in 0..dice.below(60) {
        let mut op = WriteOp::default();
        if dice.percent(15) {
            told.term += 1;
            let vote = Some(node());
            op.hard_state = Some(HardState { term: Term(told.term), vote });
        }
        let before = told.entries.len();
        for _ in 0..dice.below(4) {
            let index = told.entries.len() as u64 + 1;
            let bytes = dice.around(900);
            told.entries.push(Entry {
                term: Term(told.term.max(1)),
                index: Index(index),
                log_time_us: index,
                kind: EntryKind::Command,
                session: None,
                payload: Payload::new(vec![index as u8; usize::try_from(bytes).unwrap()]),
            });
        }
        op.entries = told.entries[before..].to_vec().into();
        if !submit(&mut wal, op) {
            return Ok(());
        }
        (told.acked, told.term_acked) = (told.entries.len(), told.term);
        if dice.percent(10) && wal.idle().is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A node's whole history of cuts. Answers how often it opened, and what is in the log at the end.
fn history(seed: u64, faults: DiskFaults) -> (u64, usize, DiskCounts) {
    let choices = Choices::seeded(seed);
    let disk = SimDisk::new(choices.stream(Stream::Disk(1)));
    disk.make_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let mut dice = choices.stream(Stream::Process(1));
    let mut told = Told::default();
    let mut opened = 0;
    for _ in 0..12 {
        disk.set_faults(faults);
        disk.cut_after(Some(dice.around(60)));
        let formatted = Wal::is_formatted(&disk, Path::new(DIR)).unwrap_or(false);
        if !formatted && told.acked == 0 && told.term_acked == 0 {
            let _ = bootstrap(&disk);
        }
        match live(&disk, &mut told, &mut dice) {
            Ok(()) => opened += 1,
            Err(StorageError::Io { .. } | StorageError::NotFormatted { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if dice.percent(30) { disk.kill() } else { disk.power_cut() }
    }
    disk.set_faults(DiskFaults::default());
    match live(&disk, &mut told, &mut dice) {
        Ok(()) => {}
        Err(StorageError::NotFormatted { .. }) if told.acked == 0 && told.term_acked == 0 => {}
        Err(error) => panic!("seed {seed}: {error}"),
    }
    (opened, told.acked, disk.counts())
}

#[test]
fn keeps_everything_that_was_acknowledged_over_all_cuts() {
    let histories: Vec<_> = (0..200).map(|seed| history(seed, DiskFaults::default())).collect();
    let opened: u64 = histories.iter().map(|(opened, ..)| opened).sum();
    let acked: usize = histories.iter().map(|(_, acked, _)| acked).sum();
    assert!(opened > 1000 && acked > 10_000, "{opened} {acked}");
    let sum = |of: fn(&DiskCounts) -> u64| histories.iter().map(|(.., c)| of(c)).sum::<u64>();
    assert!(sum(|c| c.sectors_garbled) > 100 && sum(|c| c.sectors_lost) > 100);
    assert!(sum(|c| c.names_lost) > 50 && sum(|c| c.lengths_lost) > 10);
}

#[test]
fn keeps_everything_that_was_acknowledged_where_writes_and_syncs_fail() {
    let faults = DiskFaults {
        write_error_ppm: 5_000,
        short_write_ppm: 10_000,
        sync_error_ppm: 20_000,
        dir_sync_error_ppm: 20_000,
        read_error_ppm: 2_000,
        other_error_ppm: 5_000,
        ..DiskFaults::default()
    };
    let histories: Vec<_> = (0..200).map(|seed| history(seed, faults)).collect();
    let acked: usize = histories.iter().map(|(_, acked, _)| acked).sum();
    assert!(acked > 5_000, "{acked}");
    let sum = |of: fn(&DiskCounts) -> u64| histories.iter().map(|(.., c)| of(c)).sum::<u64>();
    assert!(sum(|c| c.sync_errors) > 300 && sum(|c| c.short_writes) > 100);
    // It drops the cache before it believes what a process before it may have failed to sync.
    assert_eq!(sum(|c| c.lying_reads), 0);
}
