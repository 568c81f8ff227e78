//! The store that keeps snapshots as files beside the log.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::dir::Dir;
use super::format::Owner;
use super::name::Name;
use super::read::Reader;
use super::sink::FileSink;
use super::{SnapshotIntake, SnapshotSink, SnapshotStore, intake};
use crate::storage::StorageError;
use crate::storage::vfs::{Vfs, VfsLock};
use crate::storage::wal::{lock, make_dir};
use crate::types::{Base, GroupId, Identity, Snapshot, SnapshotId};

/// Snapshots in a node's data directory, or in one of their own. Clones share it; there is one for a directory at a
/// time, which the log's lock sees to, or one of theirs.
#[derive(Clone)]
pub struct FileSnapshots {
    dir: Arc<Dir>,
    notes: Arc<[String]>,
    /// Where the directory is their own.
    _lock: Option<Arc<dyn VfsLock>>,
}

impl FileSnapshots {
    /// Opens the store in a formatted directory. What was left of snapshots that this node was writing is
    /// removed; what was left of those that came from peers stays. Nothing is read but heads and ends.
    ///
    /// # Errors
    /// Also if a file is of a later format or belongs to somebody else.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, identity: &Identity) -> Result<Self, StorageError> {
        let dir = Arc::new(Dir::new(vfs, dir.to_path_buf(), Owner::from(identity)));
        let mut notes = Vec::new();
        let mut removed = false;
        for name in dir.names()? {
            match name {
                Name::Building(..) => {
                    dir.unlink(&name)?;
                    removed = true;
                }
                Name::Complete(group, id) => notes.extend(damage(&dir, group, &id)?),
                Name::Incoming(..) => {}
            }
        }
        if removed {
            dir.sync()?;
        }
        Ok(Self { dir, notes: notes.into(), _lock: None })
    }

    /// Opens the store in a directory of its own, which is made, if its parent exists, and locked: for a log that is
    /// kept elsewhere.
    ///
    /// # Errors
    /// As [`FileSnapshots::open`]; also if another node has the directory.
    pub fn open_apart(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        identity: &Identity,
    ) -> Result<Self, StorageError> {
        make_dir(vfs.as_ref(), dir)?;
        let lock = lock(vfs.as_ref(), dir)?;
        let opened = Self::open(vfs, dir, identity)?;
        Ok(Self { _lock: Some(lock.into()), ..opened })
    }

    /// What a person should know of this open: which snapshots are damaged.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn names(&self, group: GroupId) -> Result<Vec<Name>, StorageError> {
        let mut names = self.dir.names()?;
        names.retain(|name| match name {
            Name::Complete(of, _) | Name::Building(of, _) | Name::Incoming(of, _) => *of == group,
        });
        Ok(names)
    }

    /// The sound ones among these, the newest first.
    fn sound(&self, names: &[Name]) -> Result<Vec<Snapshot>, StorageError> {
        let mut found = Vec::new();
        for name in names {
            let Name::Complete(group, id) = name else { continue };
            match self.dir.source(*group, id).and_then(|source| source.glance()) {
                Ok(snapshot) => found.push(snapshot),
                Err(error) if error.is_damage() => {}
                // Somebody removes it at the same time.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.id));
        Ok(found)
    }

    fn unlink(&self, name: &Name) -> Result<(), StorageError> {
        self.dir.claims.if_free(name, || self.dir.unlink(name)).unwrap_or(Ok(()))
    }
}

/// What is damaged of a snapshot, if that is what it is.
fn damage(dir: &Dir, group: GroupId, id: &SnapshotId) -> Result<Option<String>, StorageError> {
    match dir.source(group, id).and_then(|source| source.glance()) {
        Ok(_) => Ok(None),
        Err(error) if error.is_damage() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

impl SnapshotStore for FileSnapshots {
    fn list(&self, group: GroupId) -> Result<Vec<Snapshot>, StorageError> {
        self.sound(&self.names(group)?)
    }

    fn named(&self, group: GroupId) -> Result<Vec<SnapshotId>, StorageError> {
        let complete = |name: &Name| match name {
            Name::Complete(of, id) if *of == group => Some(*id),
            Name::Complete(..) | Name::Building(..) | Name::Incoming(..) => None,
        };
        Ok(self.dir.names()?.iter().filter_map(complete).collect())
    }

    fn create(&self, group: GroupId, base: &Base) -> Result<Box<dyn SnapshotSink>, StorageError> {
        Ok(Box::new(FileSink::begin(&self.dir, group, base)?))
    }

    fn open(&self, group: GroupId, id: &SnapshotId) -> Result<Box<dyn Read + Send>, StorageError> {
        let source = self.dir.source(group, id)?;
        source.glance()?;
        Ok(Box::new(Reader::new(source)?))
    }

    fn read_piece(
        &self,
        group: GroupId,
        id: &SnapshotId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, StorageError> {
        self.dir.source(group, id)?.piece(offset, bytes_max)
    }

    fn receive(
        &self,
        group: GroupId,
        id: &SnapshotId,
    ) -> Result<Box<dyn SnapshotIntake>, StorageError> {
        intake::begin(&self.dir, group, id)
    }

    fn check(
        &self,
        group: GroupId,
        id: &SnapshotId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StorageError> {
        let source = self.dir.source(group, id)?;
        source.glance()?;
        Reader::new(source)?.check(pace)
    }

    fn remove(&self, group: GroupId, id: &SnapshotId) -> Result<(), StorageError> {
        self.unlink(&Name::Complete(group, *id))?;
        self.unlink(&Name::Incoming(group, *id))?;
        self.dir.sync()
    }

    fn retain(&self, group: GroupId, keep: usize) -> Result<(), StorageError> {
        let names = self.names(group)?;
        let sound = self.sound(&names)?;
        let Some(newest) = sound.first().map(|snapshot| snapshot.id.last) else { return Ok(()) };
        let kept = super::kept(&sound, keep);
        let mut removed = false;
        // By name, so the older ones of a kind go first.
        for name in names {
            let goes = match &name {
                Name::Complete(_, id) => id.last <= newest && !kept.contains(id),
                Name::Building(_, last) => *last <= newest,
                Name::Incoming(_, id) => id.last <= newest,
            };
            if goes {
                self.unlink(&name)?;
                removed = true;
            }
        }
        if removed { self.dir.sync() } else { Ok(()) }
    }
}
