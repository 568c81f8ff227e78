//! A disk that makes nothing durable until it is told to, and forgets the rest in a crash.

use std::collections::VecDeque;

use raftz_core::types::{
    Base, Boot, ClusterId, Damage, DiskId, Entry, EntryKind, HardState, Identity, Index, LogId,
    Lost, NodeId, OpId, Recovered, TermRun, WriteOp,
};

/// What one node's storage holds, and the writes on their way to it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    node: NodeId,
    pub(crate) id: DiskId,
    pub(crate) base: Base,
    pub(crate) boot: Boot,
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
    pub(crate) commit: Index,
    pub(crate) damage: Option<Damage>,
    pub(crate) queue: VecDeque<WriteOp>,
}

impl Disk {
    pub(crate) fn new(node: NodeId, base: Base) -> Self {
        Self {
            node,
            id: DiskId(u128::from(node.get())),
            base,
            boot: Boot(0),
            hard_state: HardState::default(),
            entries: Vec::new(),
            commit: Index::ZERO,
            damage: None,
            queue: VecDeque::new(),
        }
    }

    /// Makes the oldest write durable.
    pub(crate) fn persist_one(&mut self) -> Option<OpId> {
        let op = self.queue.pop_front()?;
        if let Some(hard_state) = op.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "a term on disk went back");
            self.hard_state = hard_state;
        }
        self.entries = edit(std::mem::take(&mut self.entries), &op);
        // Damage is remembered until what was lost has been overwritten, durably.
        if let (Some(damage), Some(last)) = (self.damage, op.entries.last())
            && damage.lost.is_overwritten_by(last.id())
        {
            self.damage = None;
        }
        self.commit = self.commit.max(op.commit);
        Some(op.id)
    }

    /// Loses everything from the first faulty entry on.
    pub(crate) fn sabotage(&mut self, first_faulty: Index, last_known: Option<LogId>) {
        self.entries.truncate(first_faulty.prev().0 as usize);
        let lost = Lost { last_known, term_max: self.hard_state.term };
        self.damage = Some(Damage { first_faulty, lost });
    }

    /// The last durable entry.
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base.id, Entry::id)
    }

    /// The durable entry at `index`.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get((index.0 as usize).checked_sub(1)?)
    }

    /// Opens the disk for a new life: writes that were not durable are gone.
    pub(crate) fn open(&mut self) -> Recovered {
        self.queue.clear();
        self.boot = Boot(self.boot.0 + 1);
        let mut runs: Vec<TermRun> = Vec::new();
        for entry in &self.entries {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                runs.push(TermRun { first: entry.index, term: entry.term });
            }
        }
        let is_config =
            |entry: &&Entry| !matches!(entry.kind, EntryKind::Noop | EntryKind::Command);
        Recovered {
            identity: Identity {
                cluster: ClusterId(1),
                epoch: 1,
                node: self.node,
                disk: self.id,
                founders_hash: self.base.founders_hash(),
            },
            boot: self.boot,
            hard_state: self.hard_state,
            base: self.base.clone(),
            last: self.last(),
            runs,
            config_entries: self.entries.iter().filter(is_config).cloned().collect(),
            last_log_time_us: self.entries.last().map_or(0, |entry| entry.log_time_us),
            commit: self.commit.min(self.last().index),
            damage: self.damage,
            notes: Vec::new(),
        }
    }
}

/// `entries` after `op`.
pub(crate) fn edit(mut entries: Vec<Entry>, op: &WriteOp) -> Vec<Entry> {
    if let Some(from) = op.truncate_from {
        entries.truncate(from.prev().0 as usize);
    }
    for entry in &op.entries {
        assert_eq!(entry.index.0 as usize, entries.len() + 1, "a write leaves a gap in the log");
        entries.push(entry.clone());
    }
    entries
}
