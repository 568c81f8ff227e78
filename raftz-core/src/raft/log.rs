//! The log as the core sees it: the identity of every entry, the newest entries in memory, and how
//! much of it is durable here.
//!
//! Entries stay in memory until they are applied and the cache is over its bound; older ones are
//! read from storage by whoever needs them. A write in flight confirms only what it wrote and what
//! still stands: truncation lowers the mark of every write still on its way (the ABA rule).

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::types::{Entries, Entry, Index, LogId, Term};

use super::runs::TermRuns;

/// As many entries are worth being handled by themselves.
const RUN_ENOUGH: usize = 32;

/// Entries that were appended together, at least one, and the bytes of all entries ever appended in this life up
/// to their last.
#[derive(Clone, Debug)]
struct Chunk {
    entries: Entries,
    end_bytes: u64,
}

impl Chunk {
    fn first(&self) -> Index {
        self.entries.first().map_or(Index::ZERO, |entry| entry.index)
    }

    fn last(&self) -> Index {
        self.entries.last().map_or(Index::ZERO, |entry| entry.index)
    }
}

fn cost_bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::cost_bytes).sum()
}

/// A write on its way to disk.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    seq: u64,
    /// Last index that its completion confirms.
    last: Index,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    runs: TermRuns,
    /// The newest entries, oldest first.
    cache: VecDeque<Chunk>,
    /// `end_bytes` just before the first of them.
    start_bytes: u64,
    in_flight: VecDeque<InFlight>,
    durable: Index,
}

impl Log {
    /// The log that storage recovered: all of it durable, none of it in memory.
    pub(crate) fn new(runs: TermRuns) -> Self {
        let durable = runs.last().index;
        Self { runs, cache: VecDeque::new(), start_bytes: 0, in_flight: VecDeque::new(), durable }
    }

    pub(crate) const fn base(&self) -> LogId {
        self.runs.base()
    }

    pub(crate) fn last(&self) -> LogId {
        self.runs.last()
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.runs.term_at(index)
    }

    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.runs.holds(id)
    }

    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> LogId {
        self.runs.last_not_above(index, term)
    }

    /// Everything up to here is on this node's disk.
    pub(crate) const fn durable(&self) -> Index {
        self.durable
    }

    /// Adds entries after the last. The caller has made sure that their indexes follow it.
    pub(crate) fn extend(&mut self, entries: &Entries) {
        if entries.is_empty() {
            return;
        }
        entries.iter().for_each(|entry| self.runs.push(entry.term));
        let end_bytes = self.end_bytes() + cost_bytes(entries);
        self.cache.push_back(Chunk { entries: entries.clone(), end_bytes });
    }

    /// The write `seq` will make everything up to the present last entry durable.
    pub(crate) fn writing(&mut self, seq: u64) {
        self.in_flight.push_back(InFlight { seq, last: self.last().index });
    }

    /// Drops every entry at and above `from`, also from the promises of writes in flight.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.runs.truncate(from);
        let last = self.last().index;
        while self.cache.back().is_some_and(|chunk| chunk.first() > last) {
            self.cache.pop_back();
        }
        if let Some(chunk) = self.cache.back_mut().filter(|chunk| chunk.last() > last) {
            let keep = (chunk.first().distance_to(last) + 1) as usize;
            chunk.end_bytes -= cost_bytes(&chunk.entries[keep..]);
            chunk.entries.truncate(keep);
        }
        self.durable = self.durable.min(last);
        for write in &mut self.in_flight {
            if !bug!(LateCompletionConfirmsWhatReplacedIt) {
                write.last = write.last.min(last);
            }
        }
    }

    /// Begins at `base` from now on. Where the log does not hold it, nothing stays, and no write on its way
    /// confirms anything of what was there.
    pub(crate) fn rebase(&mut self, base: LogId) {
        let is_held = self.holds(base);
        self.runs.rebase(base);
        if is_held {
            while let Some(front) = self.cache.pop_front_if(|chunk| chunk.last() <= base.index) {
                self.start_bytes = front.end_bytes;
            }
            return;
        }
        self.start_bytes = self.end_bytes();
        self.cache.clear();
        self.durable = self.durable.min(base.index.prev());
        self.in_flight.iter_mut().for_each(|write| write.last = Index::ZERO);
    }

    /// Every write up to `seq` is durable.
    pub(crate) fn persisted(&mut self, seq: u64) {
        while let Some(write) = self.in_flight.front().filter(|write| write.seq <= seq) {
            self.durable = self.durable.max(write.last);
            self.in_flight.pop_front();
        }
    }

    /// The write whose completion makes `index` durable; 0 when it is durable already.
    pub(crate) fn write_covering(&self, index: Index) -> u64 {
        if index <= self.durable {
            return 0;
        }
        self.in_flight.iter().find(|write| write.last >= index).map_or(0, |write| write.seq)
    }

    fn first_cached(&self) -> Index {
        self.cache.front().map_or_else(|| self.last().index.next(), Chunk::first)
    }

    /// Whether `index` is an entry that must be read from storage.
    pub(crate) fn is_evicted(&self, index: Index) -> bool {
        index < self.first_cached()
    }

    /// The last entry that is no longer in memory.
    pub(crate) fn last_evicted(&self) -> Index {
        self.first_cached().prev()
    }

    /// The chunk in memory that holds `index`. Mostly the newest is asked for.
    fn chunk_of(&self, index: Index) -> Option<usize> {
        let newest = self.cache.len().checked_sub(1)?;
        let at = if self.cache[newest].first() <= index {
            newest
        } else {
            self.cache.partition_point(|chunk| chunk.last() < index)
        };
        let chunk = self.cache.get(at)?;
        (chunk.first() <= index && index <= chunk.last()).then_some(at)
    }

    /// Entries from `first` up to `last`, stopping after `bytes_max` but taking at least one, and their bytes.
    /// None when `first` is not in memory. What was appended together is not copied.
    pub(crate) fn copy(&self, first: Index, last: Index, bytes_max: u64) -> (Entries, u64) {
        self.copy_some(first, last, bytes_max, usize::MAX)
    }

    /// The same, but it ends with what was appended together once that is long enough: to copy a long run costs
    /// more than to handle it by itself.
    pub(crate) fn copy_run(&self, first: Index, last: Index, bytes_max: u64) -> Entries {
        self.copy_some(first, last, bytes_max, RUN_ENOUGH).0
    }

    fn copy_some(
        &self,
        first: Index,
        last: Index,
        bytes_max: u64,
        enough: usize,
    ) -> (Entries, u64) {
        let found = self.chunk_of(first).filter(|_| first <= last);
        let Some(at) = found else { return (Entries::new(), 0) };
        let chunk = &self.cache[at];
        let from = chunk.first().distance_to(first) as usize;
        let wanted = (first.distance_to(last) + 1) as usize;
        let (mut count, mut bytes) = (0, 0);
        let whole_bytes = chunk.end_bytes - self.bytes_before(at);
        if from == 0 && chunk.entries.len() <= wanted && whole_bytes <= bytes_max {
            (count, bytes) = (chunk.entries.len(), whole_bytes);
        } else {
            for entry in chunk.entries[from..].iter().take(wanted) {
                let cost = entry.cost_bytes();
                if count > 0 && bytes + cost > bytes_max {
                    break;
                }
                bytes += cost;
                count += 1;
            }
        }
        let entries = chunk.entries.slice(from..from + count);
        if from + count < chunk.entries.len() || count == wanted || count >= enough {
            return (entries, bytes);
        }
        let rest = self.cache.range(at + 1..).flat_map(|chunk| &chunk.entries);
        let fits = rest.clone().take(wanted - count).take_while(|entry| {
            let fits = bytes + entry.cost_bytes() <= bytes_max;
            bytes += if fits { entry.cost_bytes() } else { 0 };
            fits
        });
        let more = fits.count();
        if more == 0 {
            return (entries, bytes);
        }
        (entries.iter().chain(rest.take(more)).cloned().collect(), bytes)
    }

    fn end_bytes(&self) -> u64 {
        self.bytes_before(self.cache.len())
    }

    /// `end_bytes` just before a chunk.
    fn bytes_before(&self, at: usize) -> u64 {
        let before = at.checked_sub(1).and_then(|before| self.cache.get(before));
        before.map_or(self.start_bytes, |chunk| chunk.end_bytes)
    }

    /// Bytes of the entries in memory above `after` and up to `upto`.
    pub(crate) fn bytes_between(&self, after: Index, upto: Index) -> u64 {
        self.bytes_upto(upto).saturating_sub(self.bytes_upto(after))
    }

    fn bytes_upto(&self, index: Index) -> u64 {
        if index < self.first_cached() {
            return self.start_bytes;
        }
        let Some(at) = self.chunk_of(index) else { return self.end_bytes() };
        let chunk = &self.cache[at];
        let beyond = (chunk.first().distance_to(index) + 1) as usize;
        chunk.end_bytes - cost_bytes(&chunk.entries[beyond..])
    }

    /// Forgets the oldest entries beyond `bytes_max`, none above `upto` and none that only memory
    /// holds. What was appended together goes together.
    pub(crate) fn evict(&mut self, upto: Index, bytes_max: u64) {
        let upto = upto.min(self.durable);
        while self.end_bytes() - self.start_bytes > bytes_max
            && let Some(front) = self.cache.front()
            && front.last() <= upto
        {
            self.start_bytes = front.end_bytes;
            self.cache.pop_front();
        }
    }

    /// What two logs with an equal future share: identities, durability and writes in flight, these
    /// counted from `durable_seq`, the last durable write; not the accident of what is still in memory.
    pub(crate) fn fingerprint(&self, durable_seq: u64, state: &mut impl Hasher) {
        (&self.runs, self.durable, self.in_flight.len()).hash(state);
        for write in &self.in_flight {
            // Not every write appends: which of those on their way this one is, matters.
            (write.seq.saturating_sub(durable_seq), write.last).hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::types::{EntryKind, Payload};

    use super::*;

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        Entry {
            term: Term(term),
            index: Index(index),
            log_time_us: 0,
            kind: EntryKind::Command,
            session: None,
            payload: Payload::new(vec![7; bytes]),
        }
    }

    fn log(entries: &[(u64, u64)]) -> Log {
        let mut log = Log::new(TermRuns::new(LogId::ZERO, Index::ZERO, &[]));
        for (term, index) in entries {
            log.extend(&vec![entry(*term, *index, 10)].into());
        }
        log
    }

    #[test]
    fn a_late_completion_confirms_nothing_that_was_overwritten() {
        let mut log = log(&[(1, 1), (1, 2)]);
        log.writing(1);
        log.truncate(Index(2));
        log.extend(&vec![entry(2, 2, 10)].into());
        log.writing(2);
        log.truncate(Index(2));
        log.extend(&vec![entry(3, 2, 10)].into());
        log.writing(3);
        log.persisted(1);
        assert_eq!(log.durable(), Index(1));
        log.persisted(2);
        assert_eq!(log.durable(), Index(1));
        assert_eq!(log.write_covering(Index(2)), 3);
        log.persisted(3);
        assert_eq!(log.durable(), Index(2));
    }

    #[test]
    fn a_fingerprint_tells_which_write_appends_but_not_how_many_came_before() {
        let fingerprint = |durable_seq: u64, seq: u64| {
            let mut log = log(&[(1, 1)]);
            log.writing(seq);
            let mut hasher = std::hash::DefaultHasher::new();
            log.fingerprint(durable_seq, &mut hasher);
            hasher.finish()
        };
        assert_ne!(fingerprint(0, 1), fingerprint(0, 2), "it is durable after the first, or not");
        assert_eq!(fingerprint(0, 1), fingerprint(6, 7));
    }

    #[test]
    fn eviction_spares_what_is_not_durable_or_not_allowed() {
        let mut log = log(&[(1, 1), (1, 2), (1, 3)]);
        log.evict(Index(3), 0);
        assert!(!log.is_evicted(Index(1)), "nothing is durable yet");
        log.writing(1);
        log.persisted(1);
        log.evict(Index(2), 0);
        assert!(log.is_evicted(Index(2)));
        assert_eq!(log.last_evicted(), Index(2));
        assert_eq!(log.copy(Index(2), Index(3), 1000).0, Entries::new());
        assert_eq!(log.copy(Index(3), Index(3), 0).0.len(), 1, "at least one");
        assert_eq!(log.bytes_between(Index(2), Index(3)), 50);
        assert_eq!(log.bytes_between(Index(0), Index(3)), 50, "evicted bytes are not in memory");
    }

    #[test]
    fn what_was_appended_together_is_shared_cut_and_counted_like_single_entries() {
        let mut log = log(&[(1, 1)]);
        log.extend(&(2..=5).map(|index| entry(1, index, 10)).collect());
        log.extend(&(6..=7).map(|index| entry(1, index, 10)).collect());
        let indexes = |first: u64, last: u64, bytes_max: u64| {
            let (entries, bytes) = log.copy(Index(first), Index(last), bytes_max);
            assert_eq!(bytes, 50 * entries.len() as u64);
            entries.iter().map(|entry| entry.index.0).collect::<Vec<_>>()
        };
        assert_eq!(indexes(2, 5, 1000), [2, 3, 4, 5]);
        assert_eq!(indexes(3, 4, 1000), [3, 4]);
        assert_eq!(indexes(3, 9, 199), [3, 4, 5], "not more than the bound, across a border, too");
        assert_eq!(indexes(1, 9, 1000), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(indexes(5, 6, 10), [5], "at least one");
        for (after, upto) in [(0, 7), (1, 3), (3, 6), (5, 5)] {
            assert_eq!(log.bytes_between(Index(after), Index(upto)), 50 * (upto - after));
        }
        log.truncate(Index(4));
        assert_eq!(log.copy(Index(2), Index(9), 1000).0.len(), 2);
        assert_eq!(log.bytes_between(Index(0), Index(9)), 150);
        log.extend(&vec![entry(2, 4, 10)].into());
        assert_eq!(log.bytes_between(Index(3), Index(4)), 50);
        log.writing(1);
        log.persisted(1);
        log.evict(Index(2), 0);
        assert!(!log.is_evicted(Index(2)), "its neighbour is still wanted");
        log.evict(Index(3), 0);
        assert_eq!(log.last_evicted(), Index(3));
    }

    #[test]
    fn long_runs_are_handled_by_themselves_and_short_ones_together() {
        let mut log = log(&[(1, 1), (1, 2)]);
        let long = RUN_ENOUGH as u64;
        log.extend(&(3..3 + long).map(|index| entry(1, index, 10)).collect());
        log.extend(&vec![entry(1, 3 + long, 10)].into());
        let lasts = |first: u64| {
            let run = log.copy_run(Index(first), Index(99), u64::MAX);
            (run[0].index.0, run[run.len() - 1].index.0)
        };
        assert_eq!(lasts(3), (3, 2 + long), "shared with the log");
        assert_eq!(lasts(1), (1, 3 + long), "a short one is joined by all that follows");
        assert_eq!(lasts(4), (4, 3 + long), "what is left of one may be short");
        assert_eq!(lasts(3 + long), (3 + long, 3 + long));
        assert_eq!(log.copy_run(Index(3), Index(4), u64::MAX).len(), 2, "no further than asked");
        assert_eq!(log.copy_run(Index(3), Index(99), 1).len(), 1, "at least one");
    }

    #[test]
    fn copies_stop_at_the_byte_bound() {
        let log = log(&[(1, 1), (1, 2), (1, 3)]);
        let (entries, bytes) = log.copy(Index(1), Index(3), 100);
        assert_eq!((entries.len(), bytes), (2, 100));
        assert_eq!(log.copy(Index(4), Index(9), 100).0, Entries::new());
    }
}
