//! A disk that makes nothing durable until it is told to, and forgets the rest in a crash.

use std::collections::VecDeque;

use raftz_core::types::{
    Base, Boot, ClusterId, Damage, DiskId, Entry, EntryKind, HardState, Identity, Index, LogId,
    Lost, NodeId, OpId, Recovered, TermRun, WriteOp,
};

/// A log: where it begins, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) base: Base,
    pub(crate) entries: Vec<Entry>,
}

impl Log {
    pub(crate) const fn new(base: Base) -> Self {
        Self { base, entries: Vec::new() }
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.base.id, Entry::id)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.position(index)?)
    }

    /// The entries from `first` on; none where it lies at or below the base.
    pub(crate) fn from(&self, first: Index) -> &[Entry] {
        self.position(first).and_then(|at| self.entries.get(at..)).unwrap_or(&[])
    }

    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.base.id == id || self.entry(id.index).is_some_and(|entry| entry.id() == id)
    }

    /// Whether both end alike and hold the same behind the higher of their bases.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let first = self.base.id.index.max(other.base.id.index).next();
        self.last() == other.last() && self.from(first) == other.from(first)
    }

    /// What a write makes of it, in the order in which its parts take effect.
    pub(crate) fn edit(&mut self, op: &WriteOp) {
        if let Some(from) = op.truncate_from {
            let keep = self.position(from).expect("a write truncates below the base");
            self.entries.truncate(keep);
        }
        if let Some(base) = &op.base {
            assert!(base.id.index >= self.base.id.index, "a base goes back");
            if self.holds(base.id) {
                self.entries.retain(|entry| entry.index > base.id.index);
            } else {
                self.entries.clear();
            }
            self.base = base.as_ref().clone();
        }
        for entry in &op.entries {
            assert_eq!(entry.index, self.last().index.next(), "a write leaves a gap in the log");
            self.entries.push(entry.clone());
        }
    }

    fn position(&self, index: Index) -> Option<usize> {
        Some(index.0.checked_sub(self.base.id.index.next().0)? as usize)
    }
}

/// What one node's storage holds, and the writes on their way to it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    node: NodeId,
    pub(crate) id: DiskId,
    founders_hash: u64,
    pub(crate) boot: Boot,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    pub(crate) damage: Option<Damage>,
    pub(crate) queue: VecDeque<WriteOp>,
}

impl Disk {
    pub(crate) fn new(node: NodeId, base: Base) -> Self {
        Self {
            node,
            id: DiskId(u128::from(node.get())),
            founders_hash: base.founders_hash(),
            boot: Boot(0),
            hard_state: HardState::default(),
            log: Log::new(base),
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
        let replaces = op.base.as_ref().is_some_and(|base| !self.log.holds(base.id));
        self.log.edit(&op);
        // Damage is remembered until what was lost has been overwritten, durably.
        if let Some(damage) = self.damage
            && (replaces || !op.entries.is_empty())
            && damage.lost.is_overwritten_by(self.log.last())
        {
            self.damage = None;
        }
        self.commit = self.commit.max(op.commit);
        Some(op.id)
    }

    /// Loses everything from the first faulty entry on.
    pub(crate) fn sabotage(&mut self, first_faulty: Index, last_known: Option<LogId>) {
        self.log.entries.retain(|entry| entry.index < first_faulty);
        let lost = Lost { last_known, term_max: self.hard_state.term };
        self.damage = Some(Damage { first_faulty, lost });
    }

    /// The last durable entry.
    pub(crate) fn last(&self) -> LogId {
        self.log.last()
    }

    /// Whose it is.
    pub(crate) const fn identity(&self) -> Identity {
        Identity {
            cluster: ClusterId(1),
            epoch: 1,
            node: self.node,
            disk: self.id,
            founders_hash: self.founders_hash,
        }
    }

    /// Opens the disk for a new life: writes that were not durable are gone.
    pub(crate) fn open(&mut self) -> Recovered {
        self.queue.clear();
        self.boot = Boot(self.boot.0 + 1);
        let mut runs: Vec<TermRun> = Vec::new();
        for entry in &self.log.entries {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                runs.push(TermRun { first: entry.index, term: entry.term });
            }
        }
        let is_config =
            |entry: &&Entry| !matches!(entry.kind, EntryKind::Noop | EntryKind::Command);
        Recovered {
            identity: self.identity(),
            boot: self.boot,
            hard_state: self.hard_state,
            base: self.log.base.clone(),
            last: self.last(),
            runs,
            config_entries: self.log.entries.iter().filter(is_config).cloned().collect(),
            last_log_time_us: self.log.entries.last().map_or(0, |entry| entry.log_time_us),
            commit: self.commit.min(self.last().index),
            damage: self.damage,
            notes: Vec::new(),
        }
    }
}
