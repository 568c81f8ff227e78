//! A store that keeps everything in memory: for tests, benches and groups that may lose a node's
//! state with its process. It is as durable as the process; a node that restarts on it is a new disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Completion, LogReader, Storage, StorageError, WriteBatch};
use crate::types::{
    Base, Boot, Entries, Entry, GroupId, HardState, Identity, Index, LogId, Recovered, TermRun,
    WriteOp,
};

/// One group's log.
#[derive(Clone, Debug, Default)]
struct GroupLog {
    base: Base,
    hard_state: HardState,
    /// As they were written; none is empty.
    chunks: Vec<Entries>,
    commit: Index,
}

impl GroupLog {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten()
    }

    fn newest(&self) -> Option<&Entry> {
        self.chunks.last()?.last()
    }

    fn last(&self) -> Index {
        self.newest().map_or(self.base.id.index, |entry| entry.index)
    }

    fn truncate(&mut self, from: Index) {
        let is_below = |entry: &Entry| entry.index < from;
        let whole = self.chunks.partition_point(|chunk| chunk.first().is_some_and(is_below));
        self.chunks.truncate(whole);
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.truncate(chunk.partition_point(is_below));
        }
    }

    /// Whether an entry above the base is in the log.
    fn holds(&self, id: LogId) -> bool {
        let at = self.chunks.partition_point(|c| c.last().is_some_and(|e| e.index < id.index));
        let entry =
            self.chunks.get(at).and_then(|chunk| chunk.iter().find(|e| e.index == id.index));
        entry.is_some_and(|entry| entry.term == id.term)
    }

    fn rebase(&mut self, base: Base) {
        let is_covered = |entry: &Entry| entry.index <= base.id.index;
        if self.holds(base.id) {
            let whole = self.chunks.partition_point(|chunk| chunk.last().is_some_and(is_covered));
            self.chunks.drain(..whole);
            if let Some(chunk) = self.chunks.first_mut() {
                chunk.skip(chunk.partition_point(is_covered));
            }
        } else {
            self.chunks.clear();
        }
        self.commit = self.commit.max(base.id.index);
        self.base = base;
    }

    /// Why `op` contradicts the log, if it does.
    fn contradiction(&self, op: &WriteOp) -> Option<String> {
        let mut next = self.last().next();
        if let Some(from) = op.truncate_from {
            if from <= self.base.id.index {
                return Some(format!("entry {from} is part of the log's base"));
            }
            next = next.min(from);
        }
        if let Some(base) = op.base.as_deref().filter(|base| base.id != self.base.id) {
            if base.id.index <= self.base.id.index {
                return Some(format!("the base {} cannot move to {}", self.base.id, base.id));
            }
            if base.id.index >= next || !self.holds(base.id) {
                next = base.id.index.next();
            }
        }
        for entry in &op.entries {
            if entry.index != next {
                return Some(format!("entry {} came where {next} comes next", entry.index));
            }
            next = next.next();
        }
        None
    }

    fn write(&mut self, op: WriteOp) -> Result<(), StorageError> {
        if let Some(detail) = self.contradiction(&op) {
            return Err(StorageError::Invalid { path: place(), detail });
        }
        if let Some(hard_state) = op.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = op.truncate_from {
            self.truncate(from);
        }
        if let Some(base) = op.base.filter(|base| base.id != self.base.id) {
            self.rebase(*base);
        }
        self.chunks.extend(Some(op.entries).filter(|entries| !entries.is_empty()));
        self.commit = self.commit.max(op.commit.min(self.last()));
        Ok(())
    }

    fn runs(&self) -> Vec<TermRun> {
        let mut runs: Vec<TermRun> = Vec::new();
        for entry in self.entries() {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                let term = entry.term;
                runs.push(TermRun { first: entry.index, term });
            }
        }
        runs
    }
}

/// What errors name where other stores name a path.
fn place() -> PathBuf {
    PathBuf::from("memory")
}

type Groups = Arc<RwLock<BTreeMap<GroupId, GroupLog>>>;

/// The memory store. Clones of its contents outlive it through [`MemoryStorage::reopen`].
pub struct MemoryStorage {
    identity: Identity,
    boot: Boot,
    groups: Groups,
    /// The first failure: whatever was submitted behind it must not succeed.
    failed: Option<String>,
}

impl MemoryStorage {
    /// An empty store of one group, and what a node recovers from it.
    pub fn new(identity: Identity, group: GroupId, base: Base) -> (Self, Recovered) {
        let log = GroupLog { base, ..GroupLog::default() };
        let groups = Arc::new(RwLock::new(BTreeMap::from([(group, log)])));
        let store = Self { identity, boot: Boot(1), groups, failed: None };
        let recovered = store.recovered(group);
        (store, recovered)
    }

    /// The same contents in the next life, as if the process had restarted with its memory intact.
    pub fn reopen(&self, group: GroupId) -> (Self, Recovered) {
        let groups = Arc::new(RwLock::new(self.groups.read().clone()));
        let boot = Boot(self.boot.0 + 1);
        let store = Self { identity: self.identity, boot, groups, failed: None };
        let recovered = store.recovered(group);
        (store, recovered)
    }

    fn recovered(&self, group: GroupId) -> Recovered {
        let groups = self.groups.read();
        let log = groups.get(&group).cloned().unwrap_or_default();
        let is_config = |entry: &&Entry| match entry.kind {
            crate::types::EntryKind::Noop | crate::types::EntryKind::Command => false,
            crate::types::EntryKind::Membership
            | crate::types::EntryKind::Settings
            | crate::types::EntryKind::Unknown(_) => true,
        };
        let last = log.newest();
        Recovered {
            identity: self.identity,
            boot: self.boot,
            hard_state: log.hard_state,
            last: last.map_or(log.base.id, Entry::id),
            runs: log.runs(),
            config_entries: log.entries().filter(is_config).cloned().collect(),
            last_log_time_us: last.map_or(log.base.log_time_us, |entry| entry.log_time_us),
            commit: log.commit,
            damage: None,
            notes: Vec::new(),
            base: log.base,
        }
    }
}

impl Storage for MemoryStorage {
    fn submit(&mut self, batch: WriteBatch, done: Completion) {
        if let Some(first) = self.failed.clone() {
            return done.complete(Err(StorageError::Poisoned { path: place(), first }));
        }
        let mut groups = self.groups.write();
        let write = || {
            for (group, op) in batch {
                groups.entry(group).or_default().write(op)?;
            }
            Ok(())
        };
        let result = write();
        drop(groups);
        self.failed = result.as_ref().err().map(StorageError::to_string);
        done.complete(result);
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(MemoryReader { groups: Arc::clone(&self.groups) })
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

struct MemoryReader {
    groups: Groups,
}

impl LogReader for MemoryReader {
    fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let groups = self.groups.read();
        let missing = |detail: &str| StorageError::Missing { index: first, detail: detail.into() };
        let log = groups.get(&group).ok_or_else(|| missing("no such group"))?;
        if first <= log.base.id.index || first > log.last() || first > last {
            return Err(missing("outside the log"));
        }
        let is_below = |entry: &Entry| entry.index < first;
        let from = log.chunks.partition_point(|chunk| chunk.last().is_some_and(is_below));
        let wanted = first.distance_to(last) as usize + 1;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in log.chunks[from..].iter().flatten().skip_while(|e| is_below(e)).take(wanted) {
            bytes += entry.cost_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::types::{
        ClusterId, DiskId, EntryKind, LogId, Membership, NodeId, OpId, Payload, Settings, Term,
    };

    use super::*;

    fn store() -> (MemoryStorage, Recovered) {
        let identity = Identity {
            cluster: ClusterId(1),
            epoch: 1,
            node: NodeId::new(1).unwrap(),
            disk: DiskId(1),
            founders_hash: 0,
        };
        let base = Base::founding(Membership::default(), Settings::default());
        MemoryStorage::new(identity, GroupId::FIRST, base)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            term: Term(term),
            index: Index(index),
            log_time_us: index,
            kind: EntryKind::Command,
            session: None,
            payload: Payload::new(format!("{term}.{index}")),
        }
    }

    fn submit(store: &mut MemoryStorage, op: WriteOp) -> Result<(), StorageError> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let done = Completion::new(move |result| sender.send(result).unwrap());
        store.submit(vec![(GroupId::FIRST, op)], done);
        receiver.try_recv().unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_recovered_and_truncation_holds() {
        let (mut store, fresh) = store();
        assert_eq!(fresh.last, LogId::ZERO);
        let entries = vec![entry(1, 1), entry(1, 2), entry(2, 3)].into();
        let id = OpId { boot: Boot(1), seq: 1 };
        submit(&mut store, WriteOp { id, entries, ..WriteOp::default() }).unwrap();
        let op = WriteOp {
            hard_state: Some(HardState { term: Term(3), vote: NodeId::new(1) }),
            truncate_from: Some(Index(3)),
            entries: vec![entry(3, 3)].into(),
            commit: Index(2),
            ..WriteOp::default()
        };
        submit(&mut store, op).unwrap();
        let read = |first, last, bytes| {
            store.reader().read(GroupId::FIRST, Index(first), Index(last), bytes)
        };
        assert_eq!(read(2, 9, 1000).unwrap(), vec![entry(1, 2), entry(3, 3)]);
        assert_eq!(read(1, 3, 1).unwrap(), vec![entry(1, 1)], "at least one");
        assert!(read(0, 3, 1).is_err());
        assert!(read(4, 4, 1).is_err());
        let (_, recovered) = store.reopen(GroupId::FIRST);
        assert_eq!(recovered.boot, Boot(2));
        assert_eq!(recovered.last, LogId::new(Term(3), Index(3)));
        assert_eq!(recovered.hard_state.term, Term(3));
        assert_eq!(recovered.commit, Index(2));
        let first = |run: &TermRun| (run.first.0, run.term.0);
        assert_eq!(recovered.runs.iter().map(first).collect::<Vec<_>>(), [(1, 1), (3, 3)]);
    }

    #[test]
    fn a_base_that_moves_back_is_refused_and_changes_nothing() {
        for id in [LogId::new(Term(1), Index(2)), LogId::new(Term(2), Index(3))] {
            let (mut store, _) = store();
            let entries = (1..=5).map(|index| entry(1, index)).collect();
            submit(&mut store, WriteOp { entries, ..WriteOp::default() }).unwrap();
            let moved = |id| {
                let base = Some(Box::new(Base { id, ..Base::default() }));
                WriteOp { base, ..WriteOp::default() }
            };
            let present = LogId::new(Term(1), Index(3));
            submit(&mut store, moved(present)).unwrap();
            let fate = submit(&mut store, moved(id));
            assert!(matches!(fate, Err(StorageError::Invalid { .. })), "{fate:?}");
            let (_, recovered) = store.reopen(GroupId::FIRST);
            assert_eq!((recovered.base.id, recovered.last.index), (present, Index(5)));
            assert_eq!(recovered.commit, Index(3));
        }
    }

    #[test]
    fn a_gap_is_refused_whole_and_so_is_everything_behind_it() {
        let (mut store, _) = store();
        let hard_state = Some(HardState { term: Term(9), vote: None });
        let op = WriteOp { hard_state, entries: vec![entry(1, 2)].into(), ..WriteOp::default() };
        let fate = submit(&mut store, op);
        assert!(matches!(fate, Err(StorageError::Invalid { .. })), "{fate:?}");
        let op = WriteOp { entries: vec![entry(1, 1)].into(), ..WriteOp::default() };
        let fate = submit(&mut store, op);
        assert!(matches!(fate, Err(StorageError::Poisoned { .. })), "{fate:?}");
        let (_, recovered) = store.reopen(GroupId::FIRST);
        assert_eq!((recovered.last, recovered.hard_state), (LogId::ZERO, HardState::default()));
    }
}
