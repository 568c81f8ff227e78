//! The directory that snapshots lie in: who is writing which file, and which names are durable.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::format::Owner;
use super::name::Name;
use super::read::Source;
use super::verify::Wanted;
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs};
use crate::storage::wal::io_error;
use crate::types::{GroupId, SnapshotId};

/// The unfinished files that somebody is writing.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<BTreeSet<Name>>>);

impl Claims {
    /// Takes the name until the claim is dropped; `None` if somebody has it.
    pub(super) fn take(&self, name: Name) -> Option<Claim> {
        self.0.lock().insert(name).then(|| Claim { name, claims: self.clone() })
    }

    /// Does something about a name that nobody has, and keeps everybody from taking it meanwhile.
    pub(super) fn if_free<T>(&self, name: &Name, act: impl FnOnce() -> T) -> Option<T> {
        let taken = self.0.lock();
        (!taken.contains(name)).then(act)
    }
}

/// A name that is taken.
pub(super) struct Claim {
    pub(super) name: Name,
    claims: Claims,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().remove(&self.name);
    }
}

/// The directory.
pub(super) struct Dir {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) path: PathBuf,
    pub(super) owner: Owner,
    pub(super) claims: Claims,
    /// Whether a name was given that a power cut may still take away.
    unsure: Mutex<bool>,
}

impl Dir {
    pub(super) fn new(vfs: Arc<dyn Vfs>, path: PathBuf, owner: Owner) -> Self {
        // A process that was killed may have left it so.
        Self { vfs, path, owner, claims: Claims::default(), unsure: Mutex::new(true) }
    }

    pub(super) fn path_of(&self, name: &Name) -> PathBuf {
        self.path.join(name.text())
    }

    /// All names of snapshots, as durable as they will ever be.
    pub(super) fn names(&self) -> Result<Vec<Name>, StorageError> {
        let mut unsure = self.unsure.lock();
        if *unsure {
            self.sync()?;
            *unsure = false;
        }
        let names = self.vfs.list(&self.path);
        let names =
            names.map_err(|source| io_error(&self.path, "listing the directory", source))?;
        Ok(names.iter().filter_map(|name| Name::parse(name)).collect())
    }

    /// Gives a file that is whole and durable its final name, durably.
    ///
    /// Nobody is told of the name before: not even where this fails, for the old file of that name, if
    /// there was one, must not be removed then.
    pub(super) fn publish(&self, from: &Name, to: &Name) -> Result<(), StorageError> {
        let mut unsure = self.unsure.lock();
        *unsure = true;
        let path = self.path_of(to);
        self.vfs
            .rename(&self.path_of(from), &path)
            .map_err(|source| io_error(&path, "renaming", source))?;
        self.sync()?;
        *unsure = false;
        Ok(())
    }

    /// Makes the names durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let synced = self.vfs.sync_dir(&self.path);
        synced.map_err(|source| io_error(&self.path, "syncing the directory", source))
    }

    /// Removes a file, if there is one.
    pub(super) fn unlink(&self, name: &Name) -> Result<(), StorageError> {
        let path = self.path_of(name);
        match self.vfs.unlink(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            fate => fate.map_err(|source| io_error(&path, "removing", source)),
        }
    }

    /// A snapshot by its name; nothing of it was looked at.
    pub(super) fn source(&self, group: GroupId, id: &SnapshotId) -> Result<Source, StorageError> {
        let wanted = self.wanted(&Name::Complete(group, *id), group, id);
        let opened = self.vfs.open(&wanted.path, OpenMode::Existing);
        let file = opened.map_err(|source| io_error(&wanted.path, "opening", source))?;
        // A hint, so that it may fail.
        drop(file.read_no_further());
        Ok(Source { wanted, file })
    }

    pub(super) fn wanted(&self, name: &Name, group: GroupId, id: &SnapshotId) -> Wanted {
        Wanted { path: self.path_of(name), owner: self.owner, group, id: *id }
    }
}
