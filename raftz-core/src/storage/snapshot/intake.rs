//! A snapshot that comes from a peer: a partial file, until it is whole, verified and durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SnapshotIntake;
use super::dir::{Claim, Dir};
use super::format;
use super::grow::Growing;
use super::name::Name;
use super::read::{Reader, Source};
use super::verify::{BEHIND_THE_END, Feed, Verifier};
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, VfsFile};
use crate::storage::wal::{corrupt, io_error};
use crate::types::{GroupId, Snapshot, SnapshotId};

/// The snapshot under way.
pub(super) struct FileIntake {
    dir: Arc<Dir>,
    group: GroupId,
    id: SnapshotId,
    feed: Feed,
    file: Growing,
    claim: Claim,
}

/// Begins to receive, or goes on behind what is sound of an earlier attempt.
pub(super) fn begin(
    dir: &Arc<Dir>,
    group: GroupId,
    id: &SnapshotId,
) -> Result<Box<dyn SnapshotIntake>, StorageError> {
    let name = Name::Incoming(group, *id);
    let path = dir.path_of(&name);
    format::check_bytes(&path, id.bytes)?;
    let claim = dir.claims.take(name).ok_or_else(|| StorageError::Invalid {
        path: path.clone(),
        detail: format!("the snapshot {id} is being received"),
    })?;
    let names = dir.names()?;
    let complete = Name::Complete(group, *id);
    if names.contains(&complete)
        && let Some(snapshot) = held(dir, group, id)?
    {
        return Ok(Box::new(Held { snapshot, path: dir.path_of(&complete) }));
    }
    give_way(dir, group, id, &names)?;
    let opened = dir.vfs.open(&path, OpenMode::Keep);
    let file = opened.map_err(|source| io_error(&path, "opening", source))?;
    if !names.contains(&name) {
        // What is received from now on is to be found again, also after a power cut.
        dir.sync()?;
    }
    let (verifier, file) = resume(dir, &name, group, id, file)?;
    if let Err(error) = check_room(dir, &path, id.bytes - verifier.taken_bytes()) {
        if verifier.taken_bytes() == 0 {
            dir.unlink(&name)?;
        }
        return Err(error);
    }
    let (feed, file) = (Feed::new(verifier), Growing::new(file, path));
    Ok(Box::new(FileIntake { dir: dir.clone(), group, id: *id, feed, file, claim }))
}

/// Removes what was left of others that are not newer, lest they fill the disk.
fn give_way(
    dir: &Dir,
    group: GroupId,
    id: &SnapshotId,
    names: &[Name],
) -> Result<(), StorageError> {
    for name in names {
        let Name::Incoming(of, other) = name else { continue };
        if *of == group && other.last <= id.last && other != id {
            dir.claims.if_free(name, || dir.unlink(name)).transpose()?;
        }
    }
    Ok(())
}

/// A snapshot that the disk cannot hold is not begun: the log needs the room.
fn check_room(dir: &Dir, path: &Path, bytes: u64) -> Result<(), StorageError> {
    let free = dir.vfs.free_bytes(&dir.path);
    let free = free.map_err(|source| io_error(&dir.path, "asking for free space", source))?;
    if free < bytes {
        let doing = format!("receiving {bytes} bytes of a snapshot");
        return Err(StorageError::NoSpace { path: path.to_path_buf(), doing });
    }
    Ok(())
}

/// The snapshot that is here already, if all of it is sound. One that is damaged is received again.
fn held(dir: &Dir, group: GroupId, id: &SnapshotId) -> Result<Option<Snapshot>, StorageError> {
    let source = dir.source(group, id)?;
    let judged = source.glance().and_then(|snapshot| {
        Reader::new(source)?.check(&mut |_| true)?;
        Ok(snapshot)
    });
    match judged {
        Err(error) if error.is_damage() => Ok(None),
        fate => fate.map(Some),
    }
}

/// Reads what is there and takes all that is sound, from the disk: what an earlier process or a failed
/// sync left in memory may never have got there.
fn resume(
    dir: &Dir,
    name: &Name,
    group: GroupId,
    id: &SnapshotId,
    file: Arc<dyn VfsFile>,
) -> Result<(Verifier, Arc<dyn VfsFile>), StorageError> {
    let wanted = dir.wanted(name, group, id);
    let error = |doing, source| io_error(&wanted.path, doing, source);
    let length = file.len().map_err(|source| error("measuring", source))?;
    file.sync_data().map_err(|source| error("syncing", source))?;
    file.drop_cache().map_err(|source| error("dropping the cache", source))?;
    let mut reader = Reader::new(Source { wanted: wanted.clone(), file: file.clone() })?;
    let is_sound = loop {
        match reader.advance() {
            Ok(true) => {}
            Ok(false) => break reader.verifier.finish().is_ok(),
            // Also where the disk fails: what is written there again may be readable.
            Err(_) => break true,
        }
    };
    if is_sound && length <= id.bytes {
        return Ok((reader.verifier, file));
    }
    // It is longer than it may be, or as a whole it is another one: nothing tells which part is wrong.
    let emptied = dir.vfs.open(&wanted.path, OpenMode::Create);
    let file = emptied.map_err(|source| error("emptying", source))?;
    Ok((Verifier::new(wanted)?, file))
}

impl SnapshotIntake for FileIntake {
    fn held_bytes(&self) -> u64 {
        self.feed.held_bytes()
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.feed.write(piece, &mut self.file)
    }

    fn finish(mut self: Box<Self>) -> Result<Snapshot, StorageError> {
        let verifier = &self.feed.verifier;
        let fate = verifier.finish();
        if fate.is_err() && verifier.is_ended() {
            // All chunks are sound and the whole is another one: the next attempt begins anew.
            self.dir.unlink(&self.claim.name)?;
        }
        let snapshot = fate?;
        let bytes = self.file.bytes()?;
        if bytes != self.id.bytes {
            let detail = format!("the file has {bytes} bytes instead of {}", self.id.bytes);
            return Err(corrupt(verifier.path(), bytes.min(self.id.bytes), detail));
        }
        self.file.sync()?;
        self.dir.publish(&self.claim.name, &Name::Complete(self.group, self.id))?;
        Ok(snapshot)
    }
}

/// A snapshot that was here before.
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    pub(super) path: PathBuf,
}

impl SnapshotIntake for Held {
    fn held_bytes(&self) -> u64 {
        self.snapshot.id.bytes
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        if piece.is_empty() {
            return Ok(());
        }
        Err(corrupt(&self.path, self.held_bytes(), BEHIND_THE_END))
    }

    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError> {
        Ok(self.snapshot)
    }
}
