//! The names in one directory: what a process sees, what a power cut is sure to leave, and the changes
//! in between, each of which is kept or lost as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DiskCounts;
use super::cut::Plan;
use super::inode::InodeRef;
use crate::sim::choice::Chooser;

/// Of a disk that ignores syncs: beyond this many, the older half gets written after all.
const UNSYNCED_CHANGES_MAX: usize = 1 << 10;

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Entry {
    File(InodeRef),
    /// What is in it is kept elsewhere, by its path.
    Dir,
}

impl Entry {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => Arc::ptr_eq(one, other),
            (Self::File(_) | Self::Dir, Self::Dir) | (Self::Dir, Self::File(_)) => false,
        }
    }
}

type Names = BTreeMap<String, Entry>;

/// A change of names that no sync of the directory covers yet.
pub(super) enum NameChange {
    Create(String, Entry),
    Rename { from: String, to: String, entry: Entry },
    Unlink(String),
}

impl NameChange {
    /// Makes the change, as far as what came before it was kept.
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(name, entry) => {
                names.insert(name.clone(), entry.clone());
            }
            Self::Rename { from, to, entry } => {
                if names.get(from).is_some_and(|found| found.is(entry)) {
                    names.remove(from);
                } else {
                    // An earlier rename was lost. A file still has one name only.
                    names.retain(|_, found| !found.is(entry));
                }
                names.insert(to.clone(), entry.clone());
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

/// A directory.
#[derive(Default)]
pub(super) struct Dir {
    live: Names,
    durable: Names,
    changes: Vec<(u64, NameChange)>,
}

impl Dir {
    /// What a process sees.
    pub(super) const fn names(&self) -> &Names {
        &self.live
    }

    /// Puts in a name that is durable at once.
    pub(super) fn place(&mut self, name: String, entry: Entry) {
        self.live.insert(name.clone(), entry.clone());
        self.durable.insert(name, entry);
    }

    /// All files that have a name, or may have one again.
    pub(super) fn files(&self) -> impl Iterator<Item = &InodeRef> {
        self.live.values().chain(self.durable.values()).filter_map(|entry| match entry {
            Entry::File(inode) => Some(inode),
            Entry::Dir => None,
        })
    }

    pub(super) fn change(&mut self, seq: u64, change: NameChange) {
        change.apply(&mut self.live);
        self.changes.push((seq, change));
    }

    /// How many changes no sync covers.
    pub(super) const fn unsynced(&self) -> usize {
        self.changes.len()
    }

    /// The places of those changes among all changes of the disk.
    pub(super) fn unsynced_seqs(&self) -> impl Iterator<Item = u64> {
        self.changes.iter().map(|(seq, _)| *seq)
    }

    /// Makes all changes durable.
    pub(super) fn sync(&mut self) {
        for (_, change) in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Lets the older half of the changes become durable where too many wait for a sync that never comes.
    pub(super) fn write_back_excess(&mut self) {
        if self.changes.len() > UNSYNCED_CHANGES_MAX {
            let half = self.changes.len() / 2;
            for (_, change) in self.changes.drain(..half) {
                change.apply(&mut self.durable);
            }
        }
    }

    /// A power cut.
    pub(super) fn cut(&mut self, plan: Plan, chooser: &mut Chooser, counts: &mut DiskCounts) {
        for (seq, change) in self.changes.drain(..) {
            if plan.name(seq, chooser) {
                change.apply(&mut self.durable);
                counts.names_kept += 1;
            } else {
                counts.names_lost += 1;
            }
        }
        self.live = self.durable.clone();
    }
}
