//! Durable storage: the trait every store implements, and the stores that come with raftz.
//!
//! A store keeps, per group, {term, vote}, the log and its base. All writes of a group go through
//! one ordered lane; a store may merge neighbours into one write and one sync, never reorder them.

pub mod conformance;
mod memory;
pub mod snapshot;
pub mod vfs;
pub mod wal;

pub use memory::MemoryStorage;

use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{Entry, GroupId, Index, WriteOp};

/// One submission: writes of any groups, each group's in its order.
pub type WriteBatch = Vec<(GroupId, WriteOp)>;

/// Called once, with the fate of a whole submission.
///
/// Success means that everything submitted up to and including it survives a power cut.
pub struct Completion(Box<dyn FnOnce(Result<(), StorageError>) + Send>);

impl Completion {
    /// A completion that calls `f`.
    pub fn new(f: impl FnOnce(Result<(), StorageError>) + Send + 'static) -> Self {
        Self(Box::new(f))
    }

    /// Reports the fate.
    pub fn complete(self, result: Result<(), StorageError>) {
        (self.0)(result);
    }
}

/// How much room a store has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ample,
    /// Below the reserve: proposals are to be refused, votes and no-ops go on.
    Low,
}

/// A store, as the log lane drives it. Only the log lane calls it.
pub trait Storage: Send {
    /// Makes the writes durable, in order, then completes `done`.
    ///
    /// A blocking store completes before it returns; an asynchronous one later, from any thread,
    /// in the order of submission. After a failure every later submission fails, too. A store that
    /// only lacks room may keep a submission waiting, and all behind it, until [`Storage::space`],
    /// which is asked again and again meanwhile, finds some.
    fn submit(&mut self, batch: WriteBatch, done: Completion);

    /// A reader of entries, usable from other threads while this store writes.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Whether `submit` never blocks, so that it may run on the event loop.
    fn never_blocks(&self) -> bool {
        false
    }

    /// Called once whenever nothing was submitted for [`IDLE_SEAL_MS`].
    ///
    /// # Errors
    /// What a failed submission means: nothing can be written any more.
    fn idle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Whether room is running out. Cheap; asked after every submission and now and then.
    fn space(&mut self) -> Space {
        Space::Ample
    }

    /// What the log takes on disk, room that is prepared included; `None` if it is not on a disk. Cheap; asked
    /// as often as [`Storage::space`].
    fn log_bytes(&mut self) -> Option<u64> {
        None
    }

    /// Called once at a clean stop: after the last completion, or while submissions still wait for
    /// the room that [`Storage::space`] says is lacking. Those are dropped with the store.
    ///
    /// # Errors
    /// Logged: what was completed is durable all the same.
    fn close(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Idle time after which the log lane calls [`Storage::idle`].
pub const IDLE_SEAL_MS: u64 = 50;

/// Reads durable entries while the log lane writes on.
pub trait LogReader: Send + Sync {
    /// The entries `first..=last` of a group, cut after `bytes_max` but never empty.
    ///
    /// Every entry above the base, up to the last durable one, is readable. A read ends before the first entry that
    /// is missing; if that is `first` itself, it is an error.
    fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError>;
}

/// What went wrong with a store: what, where, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory holds no raftz data.
    #[error("{path}: not formatted; bootstrap a new cluster or join an existing one first")]
    NotFormatted {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to format holds something already.
    #[error("{path}: not empty ({found}); raftz formats only an empty directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Another process, or another node in this one, has it open.
    #[error("{path}: in use by another node; stop that one first")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another cluster or node.
    #[error("{path}: belongs to {found}, but {wanted} was asked for; check the configuration")]
    WrongOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// Written by a later version.
    #[error("{path}: format {found} is newer than format {known} of this version; upgrade raftz")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this version reads.
        known: u32,
    },
    /// Something that had been durable cannot be read back, and going on would be unsafe.
    #[error("{path}: damaged at byte {offset}: {detail}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// Term and vote are lost: a node without them could vote twice.
    #[error("{path}: term and vote are lost ({detail}); remove this node and join under a new id")]
    HardStateLost {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The disk is full. Nothing is lost.
    #[error("{path}: no space left while {doing}; free some and retry")]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: String,
    },
    /// The directory uses a feature that this version does not know.
    #[error("{path}: uses features ({features:#x}) unknown to this version; upgrade raftz")]
    UnknownFeature {
        /// The file.
        path: PathBuf,
        /// Their bits.
        features: u64,
    },
    /// What was submitted contradicts the log. Nothing of it was written.
    #[error("{path}: refused to write: {detail}; this is a bug in whoever drives the store")]
    Invalid {
        /// The directory.
        path: PathBuf,
        /// The contradiction.
        detail: String,
    },
    /// An operation failed.
    #[error("{path}: {doing} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: String,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// An earlier write or sync failed; nothing more is written in this life.
    #[error("{path}: an earlier write failed ({first}); restart the node to recover")]
    Poisoned {
        /// The directory.
        path: PathBuf,
        /// That failure.
        first: String,
    },
    /// The entry asked for is not here.
    #[error("entry {index} is not in the log ({detail})")]
    Missing {
        /// The entry.
        index: Index,
        /// Why.
        detail: String,
    },
}

impl StorageError {
    /// Whether it says that what was stored is not there any more as it was: other bytes, or a sector that is
    /// lost.
    pub(crate) fn is_damage(&self) -> bool {
        let lost_sector = Some(rustix::io::Errno::IO.raw_os_error());
        let is_lost = |source: &std::io::Error| source.raw_os_error() == lost_sector;
        matches!(self, Self::Corrupt { .. })
            || matches!(self, Self::Io { source, .. } if is_lost(source))
    }
}
