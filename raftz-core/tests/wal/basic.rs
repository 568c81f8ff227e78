//! What is written comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use raftz_core::storage::Storage;
use raftz_core::storage::StorageError;
use raftz_core::types::{GroupId, Index, LogId, Term, TermRun};

use crate::support::*;

#[test]
fn entries_and_vote_survive_a_reopen() {
    let dir = Dir::formatted(1 << 16);
    let entries: Vec<_> = (1..=20).map(|i| entry(1 + i / 8, i, 100)).collect();
    {
        let (mut wal, recovered) = dir.open(1 << 16);
        assert_eq!(recovered.last, LogId::ZERO);
        assert_eq!(recovered.base, base());
        submit(&mut wal, vec![vote(3, 2)]).unwrap();
        for chunk in entries.chunks(3) {
            submit(&mut wal, vec![append(chunk.to_vec())]).unwrap();
        }
    }
    let (wal, recovered) = dir.open(1 << 16);
    assert_eq!(recovered.hard_state.term, Term(3));
    assert_eq!(recovered.hard_state.vote, Some(node(2)));
    assert_eq!(recovered.boot.0, 2);
    assert_eq!(recovered.last, LogId::new(Term(3), Index(20)));
    assert_eq!(recovered.last_log_time_us, 1020);
    let runs = [(1, 1), (8, 2), (16, 3)];
    let runs = runs.map(|(first, term)| TermRun { first: Index(first), term: Term(term) });
    assert_eq!(recovered.runs, runs);
    assert_eq!((&recovered.damage, recovered.notes.len()), (&None, 0), "{recovered:?}");
    assert_eq!(all(&wal, &recovered), entries);
}

#[test]
fn rotation_keeps_everything_and_a_large_batch_gets_a_segment_of_its_size() {
    let dir = Dir::formatted(1 << 14);
    let entries: Vec<_> =
        (1..=40).map(|i| entry(1, i, if i == 20 { 70_000 } else { 1500 })).collect();
    {
        let (mut wal, recovered) = dir.open(1 << 14);
        for (at, one) in entries.iter().enumerate() {
            submit(&mut wal, vec![append(vec![one.clone()])]).unwrap();
            let read = wal.reader().read(GroupId::FIRST, Index(1), one.index, u64::MAX).unwrap();
            assert_eq!(read, entries[..=at]);
        }
        assert!(recovered.notes.is_empty());
        wal.close().unwrap();
    }
    let (wal, recovered) = dir.open(1 << 14);
    assert!(dir.files().len() > 5);
    assert_eq!(all(&wal, &recovered), entries);
    assert!(recovered.damage.is_none() && recovered.notes.is_empty(), "{recovered:?}");
}

#[test]
fn truncation_reaches_back_over_segments() {
    let dir = Dir::formatted(1 << 14);
    {
        let (mut wal, _) = dir.open(1 << 14);
        for i in 1..=20 {
            submit(&mut wal, vec![append(vec![entry(1, i, 3000)])]).unwrap();
        }
        let new = (3..=5).map(|i| entry(2, i, 10)).collect();
        submit(&mut wal, vec![rewrite(3, new)]).unwrap();
    }
    let (wal, recovered) = dir.open(1 << 14);
    let expected = [entry(1, 1, 3000), entry(1, 2, 3000)]
        .into_iter()
        .chain((3..=5).map(|i| entry(2, i, 10)))
        .collect::<Vec<_>>();
    assert_eq!(all(&wal, &recovered), expected);
}

#[test]
fn an_entry_overwritten_in_the_batch_that_appended_it_reads_as_the_new_one() {
    let dir = Dir::formatted(1 << 16);
    let first: Vec<_> = (1..=5).map(|i| entry(1, i, 9)).collect();
    let second: Vec<_> = (3..=4).map(|i| entry(2, i, 9)).collect();
    let expected = [&first[..2], &second[..]].concat();
    {
        let (mut wal, _) = dir.open(1 << 16);
        submit(&mut wal, vec![append(first), rewrite(3, second)]).unwrap();
        let read = wal.reader().read(GroupId::FIRST, Index(1), Index(4), u64::MAX).unwrap();
        assert_eq!(read, expected);
    }
    let (wal, recovered) = dir.open(1 << 16);
    assert_eq!(all(&wal, &recovered), expected);
}

#[test]
fn a_gap_is_refused_and_nothing_of_it_is_written() {
    let dir = Dir::formatted(1 << 16);
    {
        let (mut wal, _) = dir.open(1 << 16);
        submit(&mut wal, vec![append(vec![entry(1, 1, 9)])]).unwrap();
        let fate = submit(&mut wal, vec![append(vec![entry(1, 3, 9)])]);
        assert!(matches!(fate, Err(StorageError::Invalid { .. })), "{fate:?}");
        let fate = submit(&mut wal, vec![append(vec![entry(1, 2, 9)])]);
        assert!(matches!(fate, Err(StorageError::Poisoned { .. })), "{fate:?}");
    }
    assert_eq!(dir.open(1 << 16).1.last.index, Index(1));
}

#[test]
fn a_read_is_cut_by_bytes_but_never_empty_and_a_missing_entry_is_named() {
    let dir = Dir::formatted(1 << 16);
    let (mut wal, _) = dir.open(1 << 16);
    let entries: Vec<_> = (1..=9).map(|i| entry(1, i, 100)).collect();
    submit(&mut wal, vec![append(entries.clone())]).unwrap();
    let reader = wal.reader();
    let read = |first, last, bytes| reader.read(GroupId::FIRST, Index(first), Index(last), bytes);
    assert_eq!(read(2, 9, 0).unwrap(), entries[1..2]);
    assert_eq!(read(2, 9, 280).unwrap(), entries[1..3]);
    assert_eq!(read(1, 9, u64::MAX).unwrap(), entries);
    let missing = read(10, 12, 100);
    assert!(matches!(missing, Err(StorageError::Missing { index: Index(10), .. })), "{missing:?}");
}

#[test]
fn a_read_never_joins_what_was_truncated_to_what_came_in_its_place() {
    let dir = Dir::formatted(1 << 20);
    let (mut wal, _) = dir.open(1 << 20);
    let reader = wal.reader();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let read = reader.read(GroupId::FIRST, Index(1), Index(150), u64::MAX);
                let terms: BTreeSet<Term> = read.iter().flatten().map(|entry| entry.term).collect();
                assert!(terms.len() <= 1, "{terms:?} in one read");
            }
        });
        // All entries of the log are of one term at any time.
        for term in (1..=20).map(|round| 2 * round) {
            submit(&mut wal, vec![rewrite(1, vec![entry(term, 1, 10)])]).unwrap();
            for index in 2..=150 {
                submit(&mut wal, vec![append(vec![entry(term, index, 10)])]).unwrap();
            }
            let all = (1..=150).map(|index| entry(term + 1, index, 10)).collect();
            submit(&mut wal, vec![rewrite(1, all)]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
