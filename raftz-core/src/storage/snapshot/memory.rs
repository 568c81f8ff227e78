//! The store of a node that keeps everything in memory: the same bytes, no files.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::build::Builder;
use super::dir::{Claim, Claims};
use super::format::{self, Owner};
use super::intake::Held;
use super::name::Name;
use super::read::{Reader, Source};
use super::verify::{Feed, Verifier, Wanted};
use super::{SnapshotIntake, SnapshotSink, SnapshotStore, to_io};
use crate::storage::StorageError;
use crate::storage::vfs::VfsFile;
use crate::storage::wal::io_error;
use crate::types::{Base, GroupId, Identity, Snapshot, SnapshotId};

type Key = (GroupId, SnapshotId);

/// Snapshots in memory. Clones share them, so that they outlive a restart of the node within a process.
#[derive(Clone)]
pub struct MemorySnapshots(Arc<Shared>);

struct Shared {
    owner: Owner,
    claims: Claims,
    held: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    complete: BTreeMap<Key, (Base, Bytes)>,
    /// What was received of others.
    partial: BTreeMap<Key, (Verifier, Vec<u8>)>,
}

impl MemorySnapshots {
    /// None yet.
    pub fn new(identity: &Identity) -> Self {
        let (owner, claims, held) = (identity.into(), Claims::default(), Mutex::default());
        Self(Arc::new(Shared { owner, claims, held }))
    }

    fn bytes(&self, group: GroupId, id: &SnapshotId) -> Result<Bytes, StorageError> {
        let held = self.0.held.lock();
        let found = held.complete.get(&(group, *id)).map(|(_, bytes)| bytes.clone());
        let missing = || io_error(&place(group, id), "opening", io::ErrorKind::NotFound.into());
        found.ok_or_else(missing)
    }

    fn source(&self, group: GroupId, id: &SnapshotId) -> Result<Source, StorageError> {
        let file = Arc::new(MemoryFile(self.bytes(group, id)?));
        Ok(Source { wanted: self.0.wanted(group, id), file })
    }
}

impl Shared {
    fn wanted(&self, group: GroupId, id: &SnapshotId) -> Wanted {
        Wanted { path: place(group, id), owner: self.owner, group, id: *id }
    }
}

/// What stands for a path in errors.
fn place(group: GroupId, id: &SnapshotId) -> std::path::PathBuf {
    Path::new("memory").join(Name::Complete(group, *id).text())
}

impl SnapshotStore for MemorySnapshots {
    fn list(&self, group: GroupId) -> Result<Vec<Snapshot>, StorageError> {
        let held = self.0.held.lock();
        let newest_first = held.complete.iter().rev();
        Ok(newest_first
            .filter(|((of, _), _)| *of == group)
            .map(|((_, id), (base, _))| Snapshot { id: *id, base: base.clone() })
            .collect())
    }

    fn named(&self, group: GroupId) -> Result<Vec<SnapshotId>, StorageError> {
        let held = self.0.held.lock();
        Ok(held.complete.keys().filter(|(of, _)| *of == group).map(|(_, id)| *id).collect())
    }

    fn create(&self, group: GroupId, base: &Base) -> Result<Box<dyn SnapshotSink>, StorageError> {
        let name = Name::Building(group, base.id);
        let path = Path::new("memory").join(name.text());
        let invalid = |detail| StorageError::Invalid { path: path.clone(), detail };
        let busy = || invalid(format!("a snapshot at {} is being written", base.id));
        let claim = self.0.claims.take(name).ok_or_else(busy)?;
        let (builder, bytes) = Builder::begin(self.0.owner, group, base).map_err(invalid)?;
        Ok(Box::new(MemorySink { store: self.0.clone(), group, builder, bytes, _claim: claim }))
    }

    fn open(&self, group: GroupId, id: &SnapshotId) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(Reader::new(self.source(group, id)?)?))
    }

    fn read_piece(
        &self,
        group: GroupId,
        id: &SnapshotId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, StorageError> {
        let bytes = self.bytes(group, id)?;
        let from = offset.min(bytes.len() as u64) as usize;
        Ok(bytes.slice(from..from.saturating_add(bytes_max).min(bytes.len())))
    }

    fn receive(
        &self,
        group: GroupId,
        id: &SnapshotId,
    ) -> Result<Box<dyn SnapshotIntake>, StorageError> {
        let wanted = self.0.wanted(group, id);
        format::check_bytes(&wanted.path, id.bytes)?;
        let busy = || StorageError::Invalid {
            path: wanted.path.clone(),
            detail: format!("the snapshot {id} is being received"),
        };
        let claim = self.0.claims.take(Name::Incoming(group, *id)).ok_or_else(busy)?;
        let mut held = self.0.held.lock();
        if let Some((base, _)) = held.complete.get(&(group, *id)) {
            let snapshot = Snapshot { id: *id, base: base.clone() };
            return Ok(Box::new(Held { snapshot, path: wanted.path }));
        }
        let earlier = held.partial.remove(&(group, *id));
        held.partial.retain(|(of, other), _| *of != group || other.last > id.last);
        drop(held);
        let (verifier, bytes) = match earlier {
            Some(earlier) => earlier,
            None => (Verifier::new(wanted)?, Vec::new()),
        };
        let feed = Feed::new(verifier);
        let store = self.0.clone();
        Ok(Box::new(MemoryIntake { store, key: (group, *id), feed, bytes, _claim: claim }))
    }

    fn check(
        &self,
        group: GroupId,
        id: &SnapshotId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StorageError> {
        Reader::new(self.source(group, id)?)?.check(pace)
    }

    fn remove(&self, group: GroupId, id: &SnapshotId) -> Result<(), StorageError> {
        let mut held = self.0.held.lock();
        held.complete.remove(&(group, *id));
        held.partial.remove(&(group, *id));
        Ok(())
    }

    fn retain(&self, group: GroupId, keep: usize) -> Result<(), StorageError> {
        let sound = self.list(group)?;
        let Some(newest) = sound.first().map(|snapshot| snapshot.id.last) else { return Ok(()) };
        let kept = super::kept(&sound, keep);
        let mut held = self.0.held.lock();
        for snapshot in sound.iter().filter(|snapshot| !kept.contains(&snapshot.id)) {
            held.complete.remove(&(group, snapshot.id));
        }
        held.partial.retain(|(of, id), _| *of != group || id.last > newest);
        Ok(())
    }
}

struct MemorySink {
    store: Arc<Shared>,
    group: GroupId,
    builder: Builder,
    bytes: Vec<u8>,
    _claim: Claim,
}

impl Write for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.builder.write(bytes, &mut self.bytes).map_err(to_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for MemorySink {
    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        let snapshot = self.builder.finish(&mut self.bytes)?;
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let key = (self.group, snapshot.id);
        self.store.held.lock().complete.insert(key, (snapshot.base.clone(), bytes));
        Ok(snapshot)
    }
}

struct MemoryIntake {
    store: Arc<Shared>,
    key: Key,
    feed: Feed,
    bytes: Vec<u8>,
    _claim: Claim,
}

impl SnapshotIntake for MemoryIntake {
    fn held_bytes(&self) -> u64 {
        self.feed.held_bytes()
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.feed.write(piece, &mut self.bytes)
    }

    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        let fate = self.feed.verifier.finish();
        if self.feed.verifier.is_ended() {
            // A whole that is another one is of no use to the next attempt.
            let bytes = Bytes::from(std::mem::take(&mut self.bytes));
            if let Ok(snapshot) = &fate {
                let complete = (snapshot.base.clone(), bytes);
                self.store.held.lock().complete.insert(self.key, complete);
            }
        }
        fate
    }
}

impl Drop for MemoryIntake {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            let partial = (self.feed.verifier.clone(), bytes);
            self.store.held.lock().partial.insert(self.key, partial);
        }
    }
}

/// A snapshot as a file that nobody writes.
struct MemoryFile(Bytes);

impl VfsFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = offset.min(self.0.len() as u64) as usize;
        let n = buf.len().min(self.0.len() - from);
        buf[..n].copy_from_slice(&self.0[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, _: &mut [IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}
