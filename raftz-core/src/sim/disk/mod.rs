//! The simulated disk of one node: a [`Vfs`](crate::storage::vfs::Vfs) in memory, under a power switch.
//!
//! The disk is harsh where hardware and kernels are free. Of what no sync covered, sectors of 512 bytes
//! reach the platter in any order, or not at all, or garbled; a new length is kept or lost; names are kept
//! or lost in any combination, only one rename is atomic; a file's sync says nothing about its name. A
//! failed sync writes some sectors and marks all of them clean, as Linux does: reads go on showing what
//! the disk does not hold.
//!
//! It decides nothing else: when the power goes, what fails how often, and which file rots is up to its
//! owner. What the accidents come to is asked of the disk's own [`Chooser`].
//!
//! `inode.rs` keeps content, `names.rs` directories; `cut.rs` decides what is left of them, `rot.rs`
//! damages what is; `vfs.rs` is what a process sees.

mod cut;
mod inode;
mod names;
mod rot;
#[cfg(test)]
mod tests;
mod vfs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::cut::Plan;
use self::inode::{Inode, InodeRef, Pool};
use self::names::{Dir, Entry};
pub use self::rot::Rot;
use super::choice::Chooser;

/// What may go wrong from now on. Nothing, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// A write fails and writes nothing.
    pub write_error_ppm: u32,
    /// A write stops somewhere, then fails.
    pub short_write_ppm: u32,
    /// A sync of a file fails: some of it is written, none of it will be tried again.
    pub sync_error_ppm: u32,
    /// A sync of a directory fails. Its changes wait on.
    pub dir_sync_error_ppm: u32,
    /// A read fails, and may work when it is tried again.
    pub read_error_ppm: u32,
    /// Opening, locking, listing, renaming, removing or making a directory fails. What was asked for may
    /// have been done all the same.
    pub other_error_ppm: u32,
    /// All that fits on the disk. A write beyond it is done in part or not at all.
    pub capacity_bytes: Option<u64>,
    /// Syncs succeed and do nothing.
    pub drop_syncs: bool,
}

/// What really happened, since the disk was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct DiskCounts {
    pub writes: u64,
    pub syncs: u64,
    pub dir_syncs: u64,
    pub power_cuts: u64,
    /// Of the sectors that were unsynced at a power cut or a failed sync: those written.
    pub sectors_kept: u64,
    /// Those that hold something older.
    pub sectors_lost: u64,
    /// Those that hold nonsense.
    pub sectors_garbled: u64,
    pub lengths_lost: u64,
    pub names_kept: u64,
    pub names_lost: u64,
    pub write_errors: u64,
    pub short_writes: u64,
    pub sync_errors: u64,
    pub dir_sync_errors: u64,
    pub read_errors: u64,
    pub other_errors: u64,
    pub no_space: u64,
    /// Syncs, of files and directories, that did nothing.
    pub syncs_dropped: u64,
    /// Reads that showed what a failed sync had not written.
    pub lying_reads: u64,
    /// Reads that met an unreadable sector.
    pub latent_errors: u64,
    pub bits_flipped: u64,
    /// Sectors that were garbled or zeroed at rest.
    pub sectors_rotten: u64,
    /// Sectors that became unreadable.
    pub sectors_unreadable: u64,
}

/// The disk. Clones share it.
///
/// As a file system it serves whoever asks, unless it was taken [`SimDisk::for_this_life`].
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life of the process that it serves; `None` for any.
    life: Option<u64>,
}

struct State {
    chooser: Chooser,
    faults: DiskFaults,
    counts: DiskCounts,
    /// All directories by their paths.
    dirs: BTreeMap<PathBuf, Dir>,
    locked: BTreeSet<PathBuf>,
    /// Which process uses the disk. What earlier ones hold is dead.
    life: u64,
    /// Changing operations that this process lives to do.
    left: Option<u64>,
    /// The number of the last change.
    seq: u64,
    used_bytes: u64,
    pool: Pool,
}

impl SimDisk {
    /// An empty disk without faults or an end, at rest. There is one directory, `/`.
    pub fn new(chooser: Chooser) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(chooser))), life: None }
    }

    /// The same disk, as the present process sees it: it fails once that one is dead, so that what is left
    /// of a process can never reach the files of its successor.
    pub fn for_this_life(&self) -> Self {
        let life = self.state.lock().life;
        Self { state: self.state.clone(), life: Some(life) }
    }

    /// Another disk with a copy of all files, at rest.
    pub fn clone_content(&self, chooser: Chooser) -> Self {
        let mut copy = State::new(chooser);
        for (path, dir) in &self.state.lock().dirs {
            let into = copy.dirs.entry(path.clone()).or_default();
            for (name, entry) in dir.names() {
                let entry = match entry {
                    Entry::File(inode) => {
                        let content = inode.lock().content().to_vec();
                        Entry::File(Arc::new(Mutex::new(Inode::at_rest(content))))
                    }
                    Entry::Dir => Entry::Dir,
                };
                into.place(name.clone(), entry);
            }
        }
        copy.recount();
        Self { state: Arc::new(Mutex::new(copy)), life: None }
    }

    /// Sets what may go wrong from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state.lock().faults = faults;
    }

    /// Lets so many more *changing* operations succeed; from there on every operation fails, as if the
    /// process were dying. These change: an open that creates or empties, a lock that creates, write,
    /// sync, rename, removal, making a directory and syncing one.
    ///
    /// `None` ends it, as does the end of the process.
    pub fn cut_after(&self, operations: Option<u64>) {
        self.state.lock().left = operations;
    }

    /// The power goes. Leaves what the platter happens to hold, at rest, for the next process.
    pub fn power_cut(&self) {
        self.state.lock().power_cut();
    }

    /// The process is killed. All that it wrote is seen by the next one; what was not synced still is not.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.end_life();
        state.recount();
    }

    /// Empties the disk, for the next process.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.end_life();
        state.dirs = root();
        state.recount();
    }

    /// How many changes of content, length and names no sync covers.
    pub fn unsynced_operations(&self) -> usize {
        let state = self.state.lock();
        let names = state.dirs.values().map(Dir::unsynced);
        names.chain(state.named().map(|inode| inode.lock().unsynced())).sum()
    }

    /// The room that all files take that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes
    }

    /// What really happened so far.
    pub fn counts(&self) -> DiskCounts {
        self.state.lock().counts
    }
}

fn root() -> BTreeMap<PathBuf, Dir> {
    BTreeMap::from([(PathBuf::from("/"), Dir::default())])
}

impl State {
    fn new(chooser: Chooser) -> Self {
        Self {
            chooser,
            faults: DiskFaults::default(),
            counts: DiskCounts::default(),
            dirs: root(),
            locked: BTreeSet::new(),
            life: 0,
            left: None,
            seq: 0,
            used_bytes: 0,
            pool: Pool::default(),
        }
    }

    /// The files that a process sees.
    fn named(&self) -> impl Iterator<Item = &InodeRef> {
        self.dirs.values().flat_map(|dir| dir.names().values()).filter_map(|entry| match entry {
            Entry::File(inode) => Some(inode),
            Entry::Dir => None,
        })
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.left = None;
        self.locked.clear();
    }

    fn recount(&mut self) {
        let mut used_bytes = 0;
        for inode in self.named() {
            let mut inode = inode.lock();
            inode.is_named = true;
            used_bytes += inode.len() as u64;
        }
        self.used_bytes = used_bytes;
    }

    fn power_cut(&mut self) {
        self.end_life();
        self.counts.power_cuts += 1;
        let mut seqs = Vec::new();
        for dir in self.dirs.values() {
            seqs.extend(dir.unsynced_seqs());
            for inode in dir.files() {
                seqs.extend(inode.lock().unsynced_seqs());
            }
        }
        let plan = Plan::draw(seqs, &mut self.chooser);
        for dir in self.dirs.values_mut() {
            dir.cut(plan, &mut self.chooser, &mut self.counts);
        }
        self.remove_lost_dirs();
        let Self { dirs, chooser, counts, .. } = self;
        for dir in dirs.values() {
            for entry in dir.names().values() {
                if let Entry::File(inode) = entry {
                    inode.lock().cut(plan, chooser, counts);
                }
            }
        }
        self.recount();
    }

    /// Removes the directories whose names are lost, with all that is in them.
    fn remove_lost_dirs(&mut self) {
        let all: Vec<PathBuf> = self.dirs.keys().cloned().collect();
        // Parents come before what is in them.
        for path in all {
            let Some((parent, name)) = vfs::split(&path) else { continue };
            let there = self.dirs.get(parent).is_some_and(|dir| dir.names().contains_key(name));
            if !there {
                self.dirs.remove(&path);
            }
        }
    }

    fn dir(&mut self, path: &Path) -> Option<&mut Dir> {
        self.dirs.get_mut(path)
    }
}
