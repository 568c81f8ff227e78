//! A snapshot that this node writes: a temporary file, until it is whole and durable.

use std::io::{self, Write};
use std::sync::Arc;

use super::build::Builder;
use super::dir::{Claim, Dir};
use super::grow::Growing;
use super::name::Name;
use super::verify::Keep;
use super::{SnapshotSink, to_io};
use crate::storage::StorageError;
use crate::storage::vfs::OpenMode;
use crate::storage::wal::io_error;
use crate::types::{Base, GroupId, Snapshot};

/// The snapshot under way.
pub(super) struct FileSink {
    dir: Arc<Dir>,
    group: GroupId,
    builder: Builder,
    file: Growing,
    /// The first failure: behind it there can be no whole snapshot.
    failed: Option<StorageError>,
    /// Whether the file has its final name.
    is_complete: bool,
    claim: Claim,
}

impl FileSink {
    /// Begins the file.
    pub(super) fn begin(dir: &Arc<Dir>, group: GroupId, base: &Base) -> Result<Self, StorageError> {
        let name = Name::Building(group, base.id);
        let path = dir.path_of(&name);
        let invalid = |detail| StorageError::Invalid { path: path.clone(), detail };
        let claim = dir
            .claims
            .take(name)
            .ok_or_else(|| invalid(format!("a snapshot at {} is being written", base.id)))?;
        let (builder, head) = Builder::begin(dir.owner, group, base).map_err(invalid)?;
        let opened = dir.vfs.open(&path, OpenMode::Create);
        let begun = opened.map_err(|source| io_error(&path, "creating", source)).and_then(|file| {
            let mut file = Growing::new(file, path.clone());
            file.keep(0, &head)?;
            Ok(file)
        });
        // A file that could not be made may be there all the same.
        let file = begun.inspect_err(|_| drop(dir.unlink(&name)))?;
        Ok(Self { dir: dir.clone(), group, builder, file, failed: None, is_complete: false, claim })
    }

    fn complete(&mut self) -> Result<Snapshot, StorageError> {
        self.failed.clone().map_or(Ok(()), Err)?;
        let snapshot = self.builder.finish(&mut self.file)?;
        self.file.sync()?;
        self.dir.publish(&self.claim.name, &Name::Complete(self.group, snapshot.id))?;
        self.is_complete = true;
        Ok(snapshot)
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.failed.clone().map_or(Ok(()), Err).map_err(to_io)?;
        let written = self.builder.write(bytes, &mut self.file);
        written.inspect_err(|error| self.failed = Some(error.clone())).map_err(to_io)?;
        Ok(bytes.len())
    }

    /// Does nothing: what is not finished need not be durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for FileSink {
    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        self.complete()
    }
}

impl Drop for FileSink {
    // What cannot be removed now goes at the next open.
    fn drop(&mut self) {
        if !self.is_complete {
            drop(self.dir.unlink(&self.claim.name));
        }
    }
}
