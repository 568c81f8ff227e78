//! The names in a data directory, and the errors of touching what they name.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::BLOCK;
use crate::storage::StorageError;
use crate::storage::vfs::VfsFile;

/// Held for the life of an open store.
pub(super) const LOCK: &str = "LOCK";
/// What the directory is; see `superblock.rs`.
pub(super) const SUPERBLOCK: &str = "superblock";
/// The second place of term and vote; see `hard_state.rs`.
pub(super) const VOTE: &str = "vote";
/// There while formatting is under way: whatever else is here then is a leftover.
pub(super) const FORMATTING: &str = "formatting.tmp";
/// A segment of zeros that waits to be used.
pub(super) const SPARE: &str = "spare.tmp";
/// A segment made to measure for a batch that no ordinary one holds.
pub(super) const OVERSIZE: &str = "oversize.tmp";
/// What is said of a slot that is not whole: nobody can tell a torn write from later damage.
pub(super) const REWRITTEN: &str =
    "a copy could not be read, as a power cut during its write leaves it, and was rewritten";
/// Everything that is ours and holds nothing yet ends so.
pub(super) const TEMPORARY: &str = ".tmp";

/// The file name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("wal-{number:016x}.log")
}

/// The number in the name of a segment.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name).then_some(number)
}

/// An error of the system, with where and what.
pub(in crate::storage) fn io_error(path: &Path, doing: &str, source: io::Error) -> StorageError {
    let (path, doing) = (path.to_path_buf(), doing.to_string());
    if is_full(&source) {
        return StorageError::NoSpace { path, doing };
    }
    StorageError::Io { path, doing, source: Arc::new(source) }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Damage at a place.
pub(in crate::storage) fn corrupt(
    path: &Path,
    offset: u64,
    detail: impl Into<String>,
) -> StorageError {
    StorageError::Corrupt { path: path.to_path_buf(), offset, detail: detail.into() }
}

/// Two slots of one block each, rewritten in turn, so that a torn write never costs both.
pub(super) struct SlotFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
}

impl SlotFile {
    /// Reads both slots from the disk, whole blocks; what is missing reads as zeros.
    pub(super) fn read(&self) -> Result<[Vec<u8>; 2], StorageError> {
        let error = |source| io_error(&self.path, "reading", source);
        // What a dead process had written may be in memory only; reading it must not mislead.
        self.file.sync_data().map_err(error)?;
        self.file.drop_cache().map_err(error)?;
        let mut slots = [vec![0; BLOCK], vec![0; BLOCK]];
        for (slot, bytes) in slots.iter_mut().enumerate() {
            self.file.read_at(bytes, (slot * BLOCK) as u64).map_err(error)?;
        }
        Ok(slots)
    }

    /// Rewrites one slot and makes it durable.
    pub(super) fn write(&self, slot: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let at = (slot % 2) * BLOCK as u64;
        self.file
            .write_at(&mut [IoSlice::new(bytes)], at)
            .map_err(|source| io_error(&self.path, "writing", source))?;
        if bug!(SlotsAreNotSynced) {
            return Ok(());
        }
        self.file.sync_data().map_err(|source| io_error(&self.path, "syncing", source))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn segment_names_round_trip_and_foreign_names_are_none() {
        assert_eq!(segment_number(&segment_name(0x1f)), Some(0x1f));
        for foreign in ["wal-1.log", "wal-000000000000001F.log", "wal-x.log", "vote"] {
            assert_eq!(segment_number(foreign), None, "{foreign}");
        }
    }
}
