//! Formatting a data directory: all of it, or nothing that counts.
//!
//! A marker file goes in first. The superblock takes its name last, when everything else is
//! durable; then the marker goes. While the marker is there without a superblock, whatever of ours
//! is in the directory is a leftover, and formatting may start again. Without the marker, a
//! directory that holds anything at all is refused: a lost superblock must never look like an
//! empty directory.

use std::io::IoSlice;
use std::path::Path;

use super::batch::Batch;
use super::files::{
    FORMATTING, LOCK, OVERSIZE, SPARE, SUPERBLOCK, TEMPORARY, VOTE, io_error, segment_name,
    segment_number,
};
use super::format::{BLOCK, BatchHeader, Checkpoint, Record};
use super::hard_state::{self, HardStates, Slot};
use super::segment::{Blank, SegmentHeader, segment_bytes};
use super::superblock;
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs, VfsLock};
use crate::types::{Base, Boot, GroupId, HardState, Identity};

/// Takes the directory's lock for as long as the answer lives.
pub(in crate::storage) fn lock(
    vfs: &dyn Vfs,
    dir: &Path,
) -> Result<Box<dyn VfsLock>, StorageError> {
    let path = dir.join(LOCK);
    vfs.lock(&path)
        .map_err(|source| io_error(&path, "locking", source))?
        .ok_or_else(|| StorageError::Locked { path: dir.to_path_buf() })
}

/// The names in `dir`.
pub(super) fn names(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>, StorageError> {
    vfs.list(dir).map_err(|source| io_error(dir, "listing the directory", source))
}

/// What a directory without a superblock is.
pub(super) fn check_unformatted(dir: &Path, names: &[String]) -> Result<(), StorageError> {
    let unfinished = names.iter().any(|name| name == FORMATTING);
    let is_leftover = |name: &str| {
        let started = |name: &str| name == VOTE || segment_number(name).is_some();
        let temporary = match name.strip_suffix(TEMPORARY) {
            Some(rest) => {
                [FORMATTING, SPARE, OVERSIZE].contains(&name) || rest == SUPERBLOCK || started(rest)
            }
            None => false,
        };
        name == LOCK || temporary || (unfinished && started(name))
    };
    match names.iter().find(|name| !is_leftover(name)) {
        Some(found) => {
            Err(StorageError::NotEmpty { path: dir.to_path_buf(), found: found.clone() })
        }
        None => Ok(()),
    }
}

/// Formats `dir`, creating it if its parent exists. Durable when it returns.
pub(super) fn format(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: &Identity,
    base: &Base,
    first_segment_bytes: u64,
) -> Result<(), StorageError> {
    make_dir(vfs, dir)?;
    let _lock = lock(vfs, dir)?;
    let found = names(vfs, dir)?;
    if found.iter().any(|name| name == SUPERBLOCK) {
        let found = SUPERBLOCK.into();
        return Err(StorageError::NotEmpty { path: dir.to_path_buf(), found });
    }
    check_unformatted(dir, &found)?;
    write_file(vfs, dir, FORMATTING, &[])?;
    sync_dir(vfs, dir)?;
    for name in found.iter().filter(|name| *name != LOCK && *name != FORMATTING) {
        let path = dir.join(name);
        vfs.unlink(&path).map_err(|source| io_error(&path, "removing a leftover", source))?;
    }
    write_segment(vfs, dir, identity, base, first_segment_bytes)?;
    write_vote(vfs, dir, identity)?;
    sync_dir(vfs, dir)?;
    let mut slots = superblock::encode(identity, Boot(0));
    slots.extend_from_slice(&superblock::encode(identity, Boot(0)));
    let temporary = format!("{SUPERBLOCK}{TEMPORARY}");
    write_file(vfs, dir, &temporary, &slots)?;
    rename(vfs, dir, &temporary, SUPERBLOCK)?;
    sync_dir(vfs, dir)?;
    remove_marker(vfs, dir)
}

/// Removes the marker of a finished formatting.
pub(super) fn remove_marker(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(FORMATTING);
    vfs.unlink(&path).map_err(|source| io_error(&path, "removing", source))?;
    sync_dir(vfs, dir)
}

/// Makes the directory, durably, unless it is there.
pub(in crate::storage) fn make_dir(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    let found = match vfs.make_dir(dir) {
        Ok(()) => false,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => true,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let doing = "creating the directory, whose parent must exist,";
            return Err(io_error(dir, doing, source));
        }
        Err(source) => return Err(io_error(dir, "creating the directory", source)),
    };
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    // Also for a directory that was there: an attempt that was killed may have just made it. If
    // somebody else made it, in a place that is closed to us, they answer for its name.
    match vfs.sync_dir(parent) {
        Err(error) if found && is_beyond_us(&error) => Ok(()),
        fate => fate.map_err(|source| io_error(parent, "syncing the directory", source)),
    }
}

fn is_beyond_us(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput)
}

fn write_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    identity: &Identity,
    base: &Base,
    configured_bytes: u64,
) -> Result<(), StorageError> {
    let state = Checkpoint {
        hard_state: HardState { term: base.id.term, vote: None },
        hard_state_seq: 0,
        last: base.id,
        commit: base.id.index,
        recovered: false,
        damage: None,
        base: base.clone(),
    };
    let mut batch = Batch::default();
    batch.clear();
    batch
        .record(GroupId::FIRST, &Record::Checkpoint(Box::new(state)))
        .map_err(|detail| StorageError::Invalid { path: dir.to_path_buf(), detail })?;
    let bytes = segment_bytes(configured_bytes.max(BLOCK as u64 + batch.bytes()));
    let name = segment_name(1);
    let temporary = format!("{name}{TEMPORARY}");
    let path = dir.join(&temporary);
    let file = Blank::prepare(None, vfs, dir, &temporary, bytes, bytes)?.file;
    let header = SegmentHeader::new(vfs, 1, bytes, 1, identity.disk);
    let batch_header = BatchHeader {
        records: 0,
        salt: header.salt,
        number: 1,
        bytes: 0,
        watermark: 0,
        hard_state_seq: 0,
    };
    file.write_at(&mut [IoSlice::new(&header.encode())], 0)
        .and_then(|()| batch.finish(batch_header, |slices| file.write_at(slices, BLOCK as u64)))
        .and_then(|()| file.sync_data())
        .map_err(|source| io_error(&path, "writing", source))?;
    rename(vfs, dir, &temporary, &name)
}

fn write_vote(vfs: &dyn Vfs, dir: &Path, identity: &Identity) -> Result<(), StorageError> {
    let slot = |seq| {
        let states = HardStates::from([(GroupId::FIRST, (0, HardState::default()))]);
        hard_state::encode(&Slot { seq, watermark: 1, segment: 1, states }, identity.disk)
    };
    let mut slots = slot(0);
    slots.extend_from_slice(&slot(1));
    let temporary = format!("{VOTE}{TEMPORARY}");
    write_file(vfs, dir, &temporary, &slots)?;
    rename(vfs, dir, &temporary, VOTE)
}

fn write_file(vfs: &dyn Vfs, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let path = dir.join(name);
    let error = |doing, source| io_error(&path, doing, source);
    let file = vfs.open(&path, OpenMode::Create).map_err(|e| error("creating", e))?;
    if !bytes.is_empty() {
        file.write_at(&mut [IoSlice::new(bytes)], 0).map_err(|e| error("writing", e))?;
    }
    file.sync_data().map_err(|e| error("syncing", e))
}

fn rename(vfs: &dyn Vfs, dir: &Path, from: &str, to: &str) -> Result<(), StorageError> {
    let to = dir.join(to);
    vfs.rename(&dir.join(from), &to).map_err(|source| io_error(&to, "renaming", source))
}

/// Makes creations, renames and removals in `dir` durable.
pub(super) fn sync_dir(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    vfs.sync_dir(dir).map_err(|source| io_error(dir, "syncing the directory", source))
}
