//! The term of every index, in memory: one item per change of term, however long the log.
//!
//! `term(i)` never touches the disk, and there is one function that answers it, so that the edges
//! (the base, the last entry, beyond either) are decided once.

use crate::types::{Index, LogId, Term, TermRun};

/// Terms of the entries in `(base, last]`, and of the base itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TermRuns {
    base: LogId,
    last: Index,
    runs: Vec<(Index, Term)>,
}

impl TermRuns {
    /// The runs of a recovered log. Runs that contradict the bounds are dropped.
    pub(crate) fn new(base: LogId, last: Index, runs: &[TermRun]) -> Self {
        let mut runs: Vec<(Index, Term)> = runs
            .iter()
            .filter(|run| run.first > base.index && run.first <= last)
            .map(|run| (run.first, run.term))
            .collect();
        // The base begins the first run, where that goes on in its term.
        if runs.first().is_some_and(|(_, term)| *term == base.term) {
            runs.remove(0);
        }
        Self { base, last: last.max(base.index), runs }
    }

    /// Where the log begins.
    pub(crate) const fn base(&self) -> LogId {
        self.base
    }

    /// Identity of the last entry, or of the base when there is none.
    pub(crate) fn last(&self) -> LogId {
        let term = self.runs.last().map_or(self.base.term, |(_, term)| *term);
        LogId::new(term, self.last)
    }

    /// The term at `index`; `None` below the base and beyond the last entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index < self.base.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        Some(match after.checked_sub(1) {
            Some(at) => self.runs[at].1,
            None => self.base.term,
        })
    }

    /// Whether the log holds exactly this entry.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or below `index` whose term is not above `term`; the base at the least.
    ///
    /// Both ends of a rejection use it, so that every divergent term costs at most one probe.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> LogId {
        let mut index = index.min(self.last);
        while let Some(here) = self.term_at(index) {
            if here <= term || index == self.base.index {
                return LogId::new(here, index);
            }
            // Skip the whole run: its first entry's predecessor is the next that can qualify.
            let run = self.runs.partition_point(|(first, _)| *first <= index);
            index = match run.checked_sub(1) {
                Some(at) => self.runs[at].0.prev(),
                None => self.base.index,
            };
        }
        self.base
    }

    /// Notes one more entry after the last.
    pub(crate) fn push(&mut self, term: Term) {
        self.last = self.last.next();
        if self.runs.last().map_or(self.base.term, |(_, term)| *term) != term {
            self.runs.push((self.last, term));
        }
    }

    /// Forgets every entry at and above `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        let last = from.prev().max(self.base.index);
        if last < self.last {
            self.last = last;
            self.runs.retain(|(first, _)| *first <= last);
        }
    }

    /// Begins at `base` from now on: what lies behind it stays, if it is held; else nothing does.
    pub(crate) fn rebase(&mut self, base: LogId) {
        if self.holds(base) {
            self.runs.retain(|(first, _)| *first > base.index);
        } else {
            self.runs.clear();
            self.last = base.index;
        }
        self.base = base;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(base: (u64, u64), terms: &[u64]) -> TermRuns {
        let mut runs = TermRuns::new(LogId::new(Term(base.0), Index(base.1)), Index(base.1), &[]);
        for term in terms {
            runs.push(Term(*term));
        }
        runs
    }

    #[test]
    fn term_lookup_at_the_edges_of_base_and_log() {
        let empty = runs((0, 0), &[]);
        assert_eq!(empty.term_at(Index(0)), Some(Term(0)));
        assert_eq!(empty.term_at(Index(1)), None);
        assert_eq!(empty.last(), LogId::ZERO);
        let bare_base = runs((4, 10), &[]);
        assert_eq!(bare_base.term_at(Index(9)), None);
        assert_eq!(bare_base.term_at(Index(10)), Some(Term(4)));
        assert_eq!(bare_base.term_at(Index(11)), None);
        assert_eq!(bare_base.last(), LogId::new(Term(4), Index(10)));
        let log = runs((4, 10), &[4, 4, 6]);
        assert_eq!(log.term_at(Index(11)), Some(Term(4)));
        assert_eq!(log.term_at(Index(13)), Some(Term(6)));
        assert_eq!(log.term_at(Index(14)), None);
        assert_eq!(log.term_at(Index(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn runs_answer_like_a_plain_vector(
            base_index in 0u64..4, steps in proptest::collection::vec(0u64..3, 0..20), cut in 0u64..30,
        ) {
            let mut term = 2;
            let mut log = runs((term, base_index), &[]);
            let mut plain = vec![term];
            for step in steps {
                term += step.saturating_sub(1);
                log.push(Term(term));
                plain.push(term);
            }
            log.truncate(Index(cut));
            let keep = (cut.saturating_sub(1).max(base_index) - base_index + 1) as usize;
            plain.truncate(keep);
            prop_assert_eq!(log.last().index.0, base_index + plain.len() as u64 - 1);
            for i in 0..plain.len() + 2 {
                let index = Index(base_index + i as u64);
                prop_assert_eq!(log.term_at(index), plain.get(i).map(|t| Term(*t)));
                for t in 0..term + 2 {
                    let got = log.last_not_above(index, Term(t));
                    let want = (0..plain.len().min(i + 1)).rev().find(|k| plain[*k] <= t).unwrap_or(0);
                    prop_assert_eq!(got, LogId::new(Term(plain[want]), Index(base_index + want as u64)));
                }
            }
        }
    }
}
