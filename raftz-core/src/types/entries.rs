//! A run of entries that several parts of a node hold at once.
//!
//! What a caller proposed, or a frame brought, goes to the log in memory, to the disk, to each peer and to the
//! machine. All of them hold the same allocation: a clone counts a reference, whatever the number of entries, and a
//! part of a run is a run.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::Entry;

/// A run of entries, cheap to clone and to cut. Reads like a slice.
#[derive(Clone, Default)]
pub struct Entries {
    /// `None` for no entries, which takes no allocation.
    all: Option<Arc<Vec<Entry>>>,
    part: Range<usize>,
}

impl Entries {
    /// No entries.
    pub const fn new() -> Self {
        Self { all: None, part: 0..0 }
    }

    /// The entries at these positions, in the same allocation. Positions beyond the end are left out.
    #[must_use]
    pub fn slice(&self, positions: Range<usize>) -> Self {
        let end = self.part.end.min(self.part.start.saturating_add(positions.end));
        let start = self.part.start.saturating_add(positions.start).min(end);
        if start == end {
            return Self::new();
        }
        Self { all: self.all.clone(), part: start..end }
    }

    /// Keeps the first `count` and gives the others.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        let rest = self.slice(count..self.len());
        self.truncate(count);
        rest
    }

    /// Keeps the first `count`.
    pub fn truncate(&mut self, count: usize) {
        if count < self.len() {
            *self = self.slice(0..count);
        }
    }

    /// Drops the first `count`.
    pub fn skip(&mut self, count: usize) {
        if count > 0 {
            *self = self.slice(count..self.len());
        }
    }

    /// Adds others behind; the entries of two runs have to be put together anew.
    pub fn append(&mut self, others: Self) {
        if self.is_empty() {
            *self = others;
        } else if !others.is_empty() {
            *self = self.iter().chain(others.iter()).cloned().collect();
        }
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        let part = 0..entries.len();
        Self { all: (!entries.is_empty()).then(|| Arc::new(entries)), part }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        entries.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        // The part always lies within; an empty slice would show it if it did not.
        self.all.as_ref().and_then(|all| all.get(self.part.clone())).unwrap_or(&[])
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Entries {}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::types::{EntryKind, Index, Payload, Term};

    use super::*;

    fn run(indexes: Range<u64>) -> Entries {
        let entry = |index| Entry {
            term: Term(1),
            index: Index(index),
            log_time_us: 0,
            kind: EntryKind::Noop,
            session: None,
            payload: Payload::empty(),
        };
        indexes.map(entry).collect()
    }

    fn indexes(entries: &Entries) -> Vec<u64> {
        entries.iter().map(|entry| entry.index.0).collect()
    }

    #[test]
    fn parts_share_the_entries_and_stay_within_their_run() {
        let all = run(1..9);
        let part = all.slice(2..5);
        assert_eq!(indexes(&part), [3, 4, 5]);
        assert!(std::ptr::eq(&raw const all[2], &raw const part[0]), "no copy");
        assert_eq!(indexes(&part.slice(1..99)), [4, 5], "not beyond its own end");
        assert_eq!(part.slice(3..3), Entries::new());
        assert_eq!(part.slice(7..9), Entries::new());
    }

    #[test]
    fn cutting_and_joining() {
        let mut front = run(1..6);
        let back = front.split_off(2);
        assert_eq!((indexes(&front), indexes(&back)), (vec![1, 2], vec![3, 4, 5]));
        front.append(back);
        assert_eq!(front, run(1..6));
        front.skip(4);
        front.append(Entries::new());
        assert_eq!(indexes(&front), [5]);
        front.truncate(0);
        assert_eq!(front, Entries::default());
        front.append(run(7..8));
        assert_eq!(indexes(&front), [7]);
    }
}
