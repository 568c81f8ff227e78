//! A store at work, and what it owes: everything that it acknowledged, and whatever an open said.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use raftz_core::storage::wal::{BootstrapSpec, Wal};
use raftz_core::storage::{Completion, Storage, StorageError};
use raftz_core::types::{
    Base, Entry, EntryKind, GroupId, HardState, Index, LogId, Recovered, Term, WriteOp,
};

use crate::disk::{Dice, Image, State};
use crate::platter::Platter;
use crate::support::*;

/// A batch now and then gets a segment of its own.
pub(crate) const SEGMENT: u64 = 1 << 14;

pub(crate) fn dir() -> &'static Path {
    Path::new("/disk/data")
}

/// What a group's log and hard state are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) base: Base,
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

impl Default for Log {
    fn default() -> Self {
        Self { base: base(), entries: Vec::new(), hard_state: HardState::default() }
    }
}

impl Log {
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base.id, Entry::id)
    }

    fn after(&self, ops: &[WriteOp]) -> Self {
        let mut log = self.clone();
        for op in ops {
            log.hard_state = op.hard_state.unwrap_or(log.hard_state);
            if let Some(from) = op.truncate_from {
                log.entries.retain(|entry| entry.index < from);
            }
            if let Some(base) = &op.base {
                let holds = log.entries.iter().any(|entry| entry.id() == base.id);
                log.entries.retain(|entry| holds && entry.index > base.id.index);
                log.base = base.as_ref().clone();
            }
            log.entries.extend(op.entries.iter().cloned());
        }
        log
    }
}

/// What a store has promised at some moment.
#[derive(Clone)]
pub(crate) struct Promise {
    /// Two equal promises of one workload have the same number.
    pub(crate) number: u64,
    pub(crate) formatted: bool,
    /// The last boot number that was given out.
    boot: u64,
    /// The log is one of these.
    logs: Vec<Arc<Log>>,
}

impl Promise {
    pub(crate) fn nothing() -> Self {
        Self { number: 0, formatted: false, boot: 0, logs: vec![Arc::default()] }
    }

    fn next(&self, logs: Vec<Arc<Log>>) -> Self {
        Self { number: self.number + 1, logs, ..self.clone() }
    }

    /// What of it an open that found this breaks, if anything.
    fn judge(&self, recovered: &Recovered, log: &Log) -> Result<(), String> {
        if let Some(damage) = recovered.damage {
            return Err(format!("called damaged: {damage:?}, {:?}", recovered.notes));
        }
        if recovered.notes.iter().any(|note| note.contains("damaged")) {
            return Err(format!("spoken of as damaged: {:?}", recovered.notes));
        }
        if !self.logs.iter().any(|owed| **owed == *log) {
            let size = |log: &Log| (log.base.id, log.entries.len(), log.hard_state);
            let sizes: Vec<_> = self.logs.iter().map(|log| size(log)).collect();
            return Err(format!("owed one of {sizes:?}, found {:?}", size(log)));
        }
        if recovered.boot.0 <= self.boot {
            return Err(format!("boot {} after boot {}", recovered.boot.0, self.boot));
        }
        if recovered.identity.node != node(1) {
            return Err(format!("wrong identity: {recovered:?}"));
        }
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for entry in &log.entries {
            if runs.last().is_none_or(|(_, term)| *term != entry.term) {
                runs.push((entry.index, entry.term));
            }
        }
        let found = recovered.runs.iter().map(|run| (run.first, run.term));
        let config = log.entries.iter().filter(|entry| entry.kind != EntryKind::Command);
        if !found.eq(runs) || !recovered.config_entries.iter().eq(config) {
            return Err(format!("runs or configuration are wrong: {recovered:?}"));
        }
        if !(recovered.base.id.index..=recovered.last.index).contains(&recovered.commit) {
            return Err(format!("commit {} lies outside the log", recovered.commit));
        }
        Ok(())
    }
}

pub(crate) type Disk = Platter<Promise>;

/// A disk on which nothing was formatted yet.
pub(crate) fn empty_disk(seed: u64) -> Disk {
    let root = BTreeSet::from([PathBuf::from("/disk")]);
    Disk::new(State::at_rest(Image::new(), root), Promise::nothing(), seed)
}

pub(crate) fn format(disk: &Disk) -> Result<(), StorageError> {
    let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
    Wal::bootstrap(disk, dir(), &spec, tiny(SEGMENT))?;
    let promised = disk.promised();
    disk.promise(Promise { formatted: true, ..promised.next(promised.logs.clone()) });
    Ok(())
}

pub(crate) fn formatted(seed: u64) -> Disk {
    let disk = empty_disk(seed);
    format(&disk).unwrap();
    disk
}

/// An open store, and what it owes.
pub(crate) struct Life {
    disk: Disk,
    pub(crate) wal: Wal,
    pub(crate) log: Arc<Log>,
    /// What is committed is never dropped again.
    commit: u64,
}

impl Life {
    /// Opens what is on the disk, and says what of the promise is broken, if anything.
    pub(crate) fn begin(disk: &Disk, segment_bytes: u64) -> Result<Self, String> {
        let opened = Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(segment_bytes));
        let (wal, recovered) = opened.map_err(|error| format!("refused: {error}"))?;
        let promised = disk.promised();
        let (first, last) = (recovered.base.id.index.next(), recovered.last.index);
        let entries = match first <= last {
            true => wal.reader().read(GroupId::FIRST, first, last, u64::MAX),
            false => Ok(Vec::new()),
        };
        let entries = entries.map_err(|error| format!("unreadable: {error}"))?;
        let base = recovered.base.clone();
        let log = Log { base, entries, hard_state: recovered.hard_state };
        promised.judge(&recovered, &log)?;
        // Whatever it found, it answers for from now on.
        let log = Arc::new(log);
        disk.promise(Promise { boot: recovered.boot.0, ..promised.next(vec![log.clone()]) });
        Ok(Self { disk: disk.clone(), wal, log, commit: recovered.commit.0 })
    }

    /// Submits; whether that was acknowledged.
    pub(crate) fn submit(&mut self, ops: Vec<WriteOp>) -> bool {
        let after = Arc::new(self.log.after(&ops));
        let promised = self.disk.promised();
        self.disk.promise(promised.next(vec![self.log.clone(), after.clone()]));
        let (sender, receiver) = channel();
        let done = Completion::new(move |fate| drop(sender.send(fate)));
        self.wal.submit(ops.into_iter().map(|op| (GroupId::FIRST, op)).collect(), done);
        // A disk that lacked room once has some again.
        let mut fate = receiver.try_recv();
        for _ in 0..3 {
            if fate.is_err() {
                self.wal.space();
                fate = receiver.try_recv();
            }
        }
        let fate = fate.expect("waits for room that is there");
        let is_invalid = matches!(&fate, Err(StorageError::Invalid { .. }));
        assert!(!is_invalid, "the workload is wrong: {fate:?}");
        let done = fate.is_ok();
        if done {
            self.log = after;
            self.disk.promise(self.disk.promised().next(vec![self.log.clone()]));
        }
        done
    }

    /// Submits something typical of a follower's day.
    pub(crate) fn submit_anything(&mut self, dice: &mut Dice) -> bool {
        let last = self.log.last().index.0;
        let term = self.log.hard_state.term.0;
        if term == 0 {
            return self.submit(vec![vote(1, 1)]);
        }
        let bytes = match dice.below(12) {
            0 => 20_000 + dice.below(20_000),
            1..=3 => 3000 + dice.below(6000),
            4..=6 => 450 + dice.below(200),
            _ => dice.below(300),
        };
        let count = if dice.once_in(3) { 3 } else { 1 };
        let new = (last + 1..=last + count).map(|index| {
            let kind = if dice.once_in(8) { EntryKind::Settings } else { EntryKind::Command };
            Entry { kind, ..entry(term, index, bytes) }
        });
        let new = new.collect();
        self.commit = self.commit.max(last.saturating_sub(dice.below(12) as u64 + 2));
        let (commit, least) = (Index(self.commit), self.commit + 1);
        let appended = WriteOp { commit, ..append(new) };
        let back = |dice: &mut Dice| (last + 1).saturating_sub(dice.below(6) as u64).max(least);
        let ops = match dice.below(14) {
            0..=3 => vec![appended],
            4 => vec![vote(term + 1, 1 + dice.below(3) as u64)],
            5 => vec![vote(term + 1, 2), appended],
            6 | 7 => {
                let from = back(dice);
                let indexes = from..from + dice.below(3) as u64;
                let entries = indexes.map(|index| entry(term + 1, index, bytes)).collect();
                vec![vote(term + 1, 3), rewrite(from, entries)]
            }
            8 => {
                let from = back(dice);
                let rewritten = rewrite(from, vec![entry(term + 1, from, bytes)]);
                vec![appended, vote(term + 1, 1), rewritten]
            }
            9 => (0..3).map(|n| append(vec![entry(term, last + 1 + n, 40)])).collect(),
            10 | 11 => {
                let base = self.compaction(dice);
                vec![WriteOp { base, ..appended }]
            }
            12 => {
                // Another end, and the base in what was kept, or at once in what has just come.
                let from = back(dice);
                let rewritten = rewrite(from, vec![entry(term + 1, from, bytes)]);
                if dice.once_in(2) {
                    let base = self.compaction(dice);
                    vec![vote(term + 1, 1), WriteOp { base, ..rewritten }]
                } else {
                    self.commit = from;
                    let behind = append(vec![entry(term + 1, from + 1, 40)]);
                    let base = moved(term + 1, from);
                    vec![vote(term + 1, 1), rewritten, WriteOp { base, ..behind }]
                }
            }
            _ => {
                // What a leader installs: beyond the log, or in place of what was never committed.
                let to = back(dice) + dice.below(9) as u64;
                self.commit = to;
                let behind =
                    (to + 1..=to + dice.below(3) as u64).map(|i| entry(term + 1, i, bytes));
                let op = WriteOp { base: moved(term + 1, to), ..append(behind.collect()) };
                vec![vote(term + 1, 2), op]
            }
        };
        self.submit(ops)
    }

    /// A base somewhere in what is committed.
    fn compaction(&self, dice: &mut Dice) -> Option<Box<Base>> {
        let is_committed = |entry: &&Entry| entry.index.0 <= self.commit;
        let committed = self.log.entries.iter().filter(is_committed).count();
        let at = committed.checked_sub(1 + dice.below(3))?;
        let id = self.log.entries[at].id();
        moved(id.term.0, id.index.0)
    }
}

/// Runs `steps` random steps on a formatted disk; false if something failed, as it may when an
/// operation of the disk did.
pub(crate) fn work(disk: &Disk, steps: usize, dice: &mut Dice, what: &str) -> bool {
    let begin = |segment_bytes| match Life::begin(disk, segment_bytes) {
        Ok(life) => Some(life),
        Err(wrong) => {
            assert!(disk.failed().is_some(), "{what}: {wrong}");
            None
        }
    };
    let Some(mut life) = begin(SEGMENT) else { return false };
    for _ in 0..steps {
        let fine = match dice.below(12) {
            0 => life.wal.idle().is_ok(),
            1 | 2 => {
                let fine = dice.once_in(2) || life.wal.close().is_ok();
                let segment_bytes = if dice.once_in(4) { 2 * SEGMENT } else { SEGMENT };
                if fine {
                    drop(life);
                    let Some(next) = begin(segment_bytes) else { return false };
                    life = next;
                }
                fine
            }
            _ => life.submit_anything(dice),
        };
        if !fine {
            assert!(disk.failed().is_some(), "{what}: it does not write");
            is_poisoned(&mut life, what);
            return false;
        }
    }
    true
}

/// What follows a failure is not written, let alone acknowledged, and nobody says that all is well.
fn is_poisoned(life: &mut Life, what: &str) {
    let promised = life.disk.promised();
    let before = life.disk.synced();
    for _ in 0..3 {
        let next = life.log.last().index.0 + 1;
        let op = append(vec![entry(99, next, 10)]);
        assert!(!life.submit(vec![op]), "{what}: written after a failure");
    }
    assert!(life.wal.idle().is_err(), "{what}: idle as if nothing were wrong");
    assert!(life.wal.close().is_err(), "{what}: closed as if nothing were wrong");
    assert!(life.disk.synced() == before, "{what}: written after a failure");
    life.disk.promise(promised);
}
