//! What is kept in memory of a group's log: terms as runs, places as extents, entries not at all.
//!
//! One owner of every transition (append, truncate, rebase), used alike by recovery, which replays
//! the log through it, and by the writer, which moves it after each sync. An extent is the part of
//! a batch that holds consecutive entries of one group, so memory grows with batches, not entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::format::Checkpoint;
use super::hard_state::HardStates;
use crate::storage::vfs::VfsFile;
use crate::types::{Base, GroupId, HardState, Index, LogId, Lost, Term, TermRun};

/// A place in the log: a record in a batch in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) batch_at: u64,
    pub(super) batch_bytes: u64,
    pub(super) record_at: u64,
}

/// Consecutive entries that lie in one batch, the first of them at `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: Index,
    pub(super) last: Index,
    pub(super) place: Place,
}

/// One group's log as the disk has it.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupLog {
    pub(super) hard_state: HardState,
    pub(super) hard_state_seq: u64,
    pub(super) base: Base,
    /// Entries up to here are in no segment; at most the base once recovery is through. In replay its
    /// term is zero where the log was cut back into what a segment held that is gone.
    pub(super) anchor: LogId,
    pub(super) last: LogId,
    pub(super) commit: Index,
    pub(super) runs: Vec<TermRun>,
    pub(super) extents: Vec<Extent>,
    pub(super) damage: Option<Lost>,
    /// How often entries were dropped from the end, for a reader to notice.
    pub(super) truncations: u64,
    /// Whether the next entry may join the last extent: not after a truncation, because the same
    /// batch then holds two entries of one index.
    joinable: bool,
}

impl GroupLog {
    /// The log that a checkpoint at the head of the oldest segment describes.
    pub(super) fn from_checkpoint(state: Checkpoint) -> Self {
        Self {
            hard_state: state.hard_state,
            hard_state_seq: state.hard_state_seq,
            base: state.base,
            anchor: state.last,
            last: state.last,
            commit: state.commit,
            damage: state.damage,
            ..Self::default()
        }
    }

    /// The checkpoint that describes this log.
    pub(super) fn to_checkpoint(&self, recovered: bool) -> Checkpoint {
        Checkpoint {
            hard_state: self.hard_state,
            hard_state_seq: self.hard_state_seq,
            last: self.last,
            commit: self.commit,
            recovered,
            damage: self.damage,
            base: self.base.clone(),
        }
    }

    /// The term of the entry at `index`, the base's own included.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index {
            return None;
        }
        if index == self.base.id.index {
            return Some(self.base.id.term);
        }
        if index == self.anchor.index {
            return Some(self.anchor.term);
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        after.checked_sub(1).map(|at| self.runs[at].term)
    }

    /// Puts the next entry at the end.
    pub(super) fn append(&mut self, id: LogId, place: Place) {
        if self.runs.last().is_none_or(|run| run.term != id.term) {
            self.runs.push(TermRun { first: id.index, term: id.term });
        }
        match self.extents.last_mut() {
            Some(extent)
                if self.joinable
                    && extent.place.segment == place.segment
                    && extent.place.batch_at == place.batch_at =>
            {
                extent.last = id.index;
            }
            Some(_) | None => {
                self.extents.push(Extent { first: id.index, last: id.index, place });
            }
        }
        self.joinable = true;
        self.end_with(id);
    }

    fn end_with(&mut self, last: LogId) {
        self.last = last;
        if self.damage.is_some_and(|damage| damage.is_overwritten_by(last)) {
            self.damage = None;
        }
    }

    /// Drops every entry at and above `from`.
    pub(super) fn truncate(&mut self, from: Index) {
        if from > self.last.index {
            return;
        }
        self.joinable = false;
        self.truncations += 1;
        let keep = from.prev();
        let term = self.term_at(keep).unwrap_or_default();
        let runs = self.runs.partition_point(|run| run.first < from);
        self.runs.truncate(runs);
        let extents = self.extents.partition_point(|extent| extent.first < from);
        self.extents.truncate(extents);
        if let Some(extent) = self.extents.last_mut() {
            extent.last = extent.last.min(keep);
        }
        self.last = LogId::new(term, keep);
        if self.anchor.index > keep {
            self.anchor = self.last;
        }
    }

    /// Lets the log begin at `base`. What follows it stays: whoever does not hold the base's entry
    /// has dropped everything before.
    pub(super) fn rebase(&mut self, base: Base) {
        let upto = base.id.index;
        let covered = self.extents.partition_point(|extent| extent.last <= upto);
        self.extents.drain(..covered);
        if self.last.index <= upto {
            self.runs.clear();
            self.end_with(base.id);
        } else {
            let covered = self.runs.partition_point(|run| run.first <= upto.next());
            self.runs.drain(..covered.saturating_sub(1));
            if let Some(run) = self.runs.first_mut() {
                run.first = run.first.max(upto.next());
            }
        }
        if self.anchor.index <= upto {
            self.anchor = base.id;
        }
        self.commit = self.commit.max(upto);
        self.base = base;
    }

    /// A log of which nothing is known up to `index`.
    pub(super) fn after(index: Index) -> Self {
        let nothing = LogId::new(Term::ZERO, index);
        let base = Base { id: nothing, ..Base::default() };
        Self { base, anchor: nothing, last: nothing, ..Self::default() }
    }

    /// Takes the entries of `later` in place of its own.
    pub(super) fn take_entries(&mut self, later: Self) {
        let Self { anchor, last, runs, extents, joinable, .. } = later;
        (self.anchor, self.runs, self.extents, self.joinable) = (anchor, runs, extents, joinable);
        self.end_with(last);
    }

    /// Learns the identity of its last entry, if that lay in a segment that is gone.
    pub(super) fn learn_last(&mut self, last: LogId) {
        let is_unknown = self.last == self.anchor && self.last.term == Term::ZERO;
        if is_unknown && self.last.index == last.index {
            (self.last, self.anchor) = (last, last);
        }
    }

    /// The extents that hold `first..=last`, in order, the one of `first` at the front.
    pub(super) fn extents_of(&self, first: Index, last: Index, most: usize) -> Vec<Extent> {
        let start = self.extents.partition_point(|extent| extent.last < first);
        self.extents[start..]
            .iter()
            .take_while(|extent| extent.first <= last)
            .take(most)
            .copied()
            .collect()
    }
}

/// All groups' logs, and the segments they lie in.
#[derive(Default)]
pub(super) struct LogIndex {
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
    pub(super) files: BTreeMap<u64, Arc<dyn VfsFile>>,
    /// Segments that were found without their checkpoint, so that no log can begin with them.
    pub(super) headless: BTreeSet<u64>,
}

impl LogIndex {
    /// The segment that the log must begin with, so that nothing above a group's base is missing from
    /// `tail` or before it: the newest such that has its checkpoint.
    pub(super) fn oldest_needed(&self, tail: u64) -> u64 {
        let first = |log: &GroupLog| log.extents.first().map(|extent| extent.place.segment);
        let needed = self.groups.values().filter_map(first).min().map_or(tail, |n| n.min(tail));
        (0..=needed).rev().find(|number| !self.headless.contains(number)).unwrap_or(needed)
    }

    /// Whether a group's log has lost something that nobody has brought back.
    pub(super) fn is_damaged(&self) -> bool {
        self.groups.values().any(|log| log.damage.is_some())
    }

    /// Every group's hard state.
    pub(super) fn hard_states(&self) -> HardStates {
        self.groups
            .iter()
            .map(|(group, log)| (*group, (log.hard_state_seq, log.hard_state)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(batch_at: u64, record_at: u64) -> Place {
        Place { segment: 1, batch_at, batch_bytes: 4096, record_at }
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    #[test]
    fn an_entry_rewritten_in_the_same_batch_starts_an_extent_of_its_own() {
        let mut log = GroupLog::default();
        for index in 1..=3 {
            log.append(id(1, index), place(4096, index * 100));
        }
        log.truncate(Index(2));
        log.append(id(2, 2), place(4096, 400));
        let firsts: Vec<_> = log.extents.iter().map(|e| (e.first.0, e.last.0)).collect();
        assert_eq!(firsts, [(1, 1), (2, 2)]);
        assert_eq!(log.extents[1].place.record_at, 400);
    }

    #[test]
    fn term_at_knows_the_base_the_runs_and_nothing_beyond_the_end() {
        let mut log = GroupLog::default();
        for (term, index) in [(1, 1), (1, 2), (3, 3), (3, 4)] {
            log.append(id(term, index), place(4096, 0));
        }
        let terms: Vec<_> = (0..=5).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(3), Some(3), None]);
        log.truncate(Index(4));
        assert_eq!(log.last, id(3, 3));
        log.truncate(Index(1));
        assert_eq!(log.last, id(0, 0));
        assert!(log.runs.is_empty() && log.extents.is_empty());
    }

    #[test]
    fn places_beyond_four_gibibytes_keep_all_their_bits() {
        let far = Place {
            segment: 1,
            batch_at: 5 << 32,
            batch_bytes: (4 << 30) + 4096,
            record_at: (4 << 30) + 64,
        };
        let mut log = GroupLog::default();
        log.append(id(1, 1), far);
        assert_eq!(log.extents_of(Index(1), Index(1), 9)[0].place, far);
    }
}
