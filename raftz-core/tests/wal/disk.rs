//! What a disk holds at one moment: what a process sees, what a power cut is sure to leave, and
//! every write and every change of a name in between.
//!
//! The model is harsh where hardware and kernels are free: sectors of 512 bytes reach the platter in
//! any order or not at all, or garbled; a new length is kept or lost; names are kept or lost in any
//! combination (one rename stays atomic); a file's sync says nothing about its name. A failed sync
//! leaves some sectors behind and marks all of them clean, as Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a device writes as a whole.
pub(crate) const SECTOR: usize = 512;

/// Files by name.
///
/// Contents are shared until they are changed, so that half a million damaged copies are cheap.
pub(crate) type Image = BTreeMap<PathBuf, Arc<Vec<u8>>>;

/// A small generator of numbers, so that every run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A change of a file's content that no sync covers yet.
#[derive(Clone)]
pub(crate) enum Change {
    /// Bytes at an offset.
    Write(usize, Arc<[u8]>),
    /// The file was given another length.
    Length(usize),
}

impl Change {
    /// Makes the change.
    pub(crate) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// A file, whatever its name.
#[derive(Clone, Default)]
pub(crate) struct Inode {
    /// What a process reads.
    pub(crate) seen: Arc<Vec<u8>>,
    /// What a power cut is sure to leave.
    pub(crate) durable: Arc<Vec<u8>>,
    /// What happened since, in order.
    pub(crate) pending: Vec<Change>,
    /// Whether a failed sync left in the cache what the disk will never hold.
    misleads: bool,
}

impl Inode {
    /// A file that was synced.
    pub(crate) fn at_rest(content: Arc<Vec<u8>>) -> Self {
        Self { seen: content.clone(), durable: content, ..Self::default() }
    }

    /// Makes a change that waits for a sync.
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.seen));
        self.pending.push(change);
    }

    /// Makes all changes durable.
    pub(crate) fn sync(&mut self) {
        if !self.pending.is_empty() {
            self.durable = if self.misleads { self.replayed() } else { self.seen.clone() };
            self.pending.clear();
        }
    }

    /// What is read when nothing is left in the cache but what waits for a sync.
    pub(crate) fn drop_cache(&mut self) {
        if self.misleads {
            self.seen = self.replayed();
            self.misleads = false;
        }
    }

    fn replayed(&self) -> Arc<Vec<u8>> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            change.apply(Arc::make_mut(&mut content));
        }
        content
    }

    /// The sync fails: some sectors were written, and none will be again. A length, which a file
    /// system keeps in its journal, may still become durable later.
    pub(crate) fn fail_sync(&mut self, dice: &mut Dice) {
        let new = self.replayed();
        let mut left = self.durable.to_vec();
        for (old, new) in left.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
            let n = old.len().min(new.len());
            if dice.once_in(2) {
                old[..n].copy_from_slice(&new[..n]);
            }
        }
        self.pending.clear();
        if left.len() != new.len() {
            self.pending.push(Change::Length(new.len()));
        }
        self.durable = Arc::new(left);
        self.misleads = true;
    }
}

/// Which file a name stands for.
pub(crate) type Names = BTreeMap<PathBuf, u64>;

/// A change of names that no sync of the directory covers yet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NameChange {
    /// A file came into being.
    Create(PathBuf, u64),
    /// A file got another name, and whatever had that one went.
    Rename(PathBuf, PathBuf, u64),
    /// A name went.
    Unlink(PathBuf),
}

impl NameChange {
    /// Makes the change, as far as what came before it was kept.
    pub(crate) fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Create(path, _) | Self::Rename(_, path, _) | Self::Unlink(path) => path.parent(),
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            Self::Create(_, inode) | Self::Rename(_, _, inode) => Some(*inode),
            Self::Unlink(_) => None,
        }
    }
}

/// All of a disk. Cheap to copy: contents are shared until they change.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) inodes: BTreeMap<u64, Inode>,
    /// What a process sees.
    pub(crate) names: Names,
    /// What a power cut is sure to leave.
    pub(crate) durable_names: Names,
    /// What happened since, in order.
    pub(crate) pending_names: Vec<NameChange>,
    pub(crate) dirs: BTreeSet<PathBuf>,
    pub(crate) durable_dirs: BTreeSet<PathBuf>,
    created: u64,
}

impl State {
    /// A disk that was switched off and holds just this.
    pub(crate) fn at_rest(files: Image, dirs: BTreeSet<PathBuf>) -> Self {
        let mut state = Self { durable_dirs: dirs.clone(), dirs, ..Self::default() };
        for (path, content) in files {
            let inode = state.create(Inode::at_rest(content));
            state.names.insert(path, inode);
        }
        state.durable_names = state.names.clone();
        state
    }

    /// A file without a name.
    pub(crate) fn create(&mut self, inode: Inode) -> u64 {
        self.created += 1;
        self.inodes.insert(self.created, inode);
        self.created
    }

    /// Changes a name; that waits for a sync.
    pub(crate) fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    /// Makes all changes of names in a directory durable.
    pub(crate) fn sync_dir(&mut self, dir: &Path) {
        let here = |path: &Path| path.parent() == Some(dir);
        self.durable_dirs.extend(self.dirs.iter().filter(|path| here(path)).cloned());
        self.durable_names.retain(|path, _| !here(path));
        let names = self.names.iter().filter(|(path, _)| here(path));
        self.durable_names.extend(names.map(|(path, inode)| (path.clone(), *inode)));
        self.pending_names.retain(|change| change.directory() != Some(dir));
        let named = self.names.values().chain(self.durable_names.values()).copied();
        let used: BTreeSet<u64> =
            named.chain(self.pending_names.iter().filter_map(NameChange::inode)).collect();
        self.inodes.retain(|inode, _| used.contains(inode));
    }

    /// All files as a process sees them: what a killed process leaves behind.
    pub(crate) fn written(&self) -> Image {
        self.image(&self.names, |inode| &inode.seen)
    }

    /// All files as they were synced: the least that a power cut leaves behind.
    pub(crate) fn synced(&self) -> Image {
        self.image(&self.durable_names, |inode| &inode.durable)
    }

    fn image(&self, names: &Names, content: impl Fn(&Inode) -> &Arc<Vec<u8>>) -> Image {
        names
            .iter()
            .map(|(path, inode)| (path.clone(), content(&self.inodes[inode]).clone()))
            .collect()
    }
}
