//! A file that grows by sound chunks, and goes to the disk as it grows.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use super::SYNC_BYTES;
use super::verify::Keep;
use crate::storage::StorageError;
use crate::storage::vfs::VfsFile;
use crate::storage::wal::io_error;

/// The file.
pub(super) struct Growing {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    unsynced_bytes: u64,
    /// What went wrong with it for good: after a failed sync nobody knows what the disk holds.
    failed: Option<StorageError>,
}

impl Growing {
    pub(super) const fn new(file: Arc<dyn VfsFile>, path: PathBuf) -> Self {
        Self { file, path, unsynced_bytes: 0, failed: None }
    }

    /// Makes all of it durable, and lets the memory go that it took.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.check()?;
        if let Err(source) = self.file.sync_data() {
            let error = io_error(&self.path, "syncing", source);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.unsynced_bytes = 0;
        // A hint, so that it may fail.
        drop(self.file.drop_cache());
        Ok(())
    }

    /// Its length.
    pub(super) fn bytes(&self) -> Result<u64, StorageError> {
        self.file.len().map_err(|source| io_error(&self.path, "measuring", source))
    }

    fn check(&self) -> Result<(), StorageError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

impl Keep for Growing {
    fn keep(&mut self, at: u64, chunk: &[u8]) -> Result<(), StorageError> {
        self.check()?;
        let written = self.file.write_at(&mut [IoSlice::new(chunk)], at);
        written.map_err(|source| io_error(&self.path, "writing", source))?;
        self.unsynced_bytes += chunk.len() as u64;
        // The log's syncs wait behind whatever is flushed at once: so each chunk is on its way to the disk before
        // the next one comes, and little is left for a sync.
        if self.unsynced_bytes >= SYNC_BYTES {
            return self.sync();
        }
        drop(self.file.drop_cache());
        Ok(())
    }
}
