//! Snapshots: everything that the entries up to some index led to, as one file.
//!
//! A store keeps complete snapshots and unfinished ones, from this node's machine or from a peer. It
//! decides nothing about when one is made, sent, installed or let go; the log's base, and with it what the
//! log may drop, is the log's (`wal/`). It keeps these promises:
//! - what `list` shows is complete, and survives a power cut; the file before it is gone only after that;
//! - equal [`SnapshotId`]s mean equal bytes: equal machines at equal bases give equal ids on any node;
//! - no byte is given that its chunk's checksum does not vouch for, nor an end that the hash does not;
//! - a snapshot costs memory for a chunk or two, whatever its size.
//!
//! ```text
//! chunk header, 32 bytes                          content of the head, chunk 0
//!  0  magic "rzsnap01"                             32  format version (4)
//!  8  crc32c of the whole chunk, this field 0      36  oldest reader (4)
//! 12  kind (4): 1 head, 2 data, 3 end              40  cluster (16)
//! 16  chunk number (8), from 0 without gaps        56  epoch (8)
//! 24  length of the content (8)                    64  group (4), zero (4)
//! 32  content                                      72  base, see `types/encode.rs`
//!
//! file: head | data 1 | data 2 | ... | end        content of the end
//! data: 65536 of the machine's bytes in each       32  number of data chunks (8)
//!       but the last, which has at least one       40  the machine's bytes in total (8)
//! ```
//! All numbers are little-endian. Magic, checksum and versions keep their places in every format.
//!
//! The hash is BLAKE3 over all bytes of the file. A complete file's *name* is its whole id, hash included:
//! so the hash takes effect with the rename, costs no sync of its own, is outside of what it covers, and
//! `list` need not read what it names. A name that lies is found out by whoever reads to the end.

mod build;
mod dir;
mod file;
mod format;
mod grow;
mod intake;
mod memory;
mod name;
mod read;
mod sink;
#[cfg(test)]
mod tests;
mod verify;

use std::io::{self, Read, Write};

use bytes::Bytes;

pub use file::FileSnapshots;
pub use memory::MemorySnapshots;

use super::StorageError;
use crate::types::{Base, GroupId, Snapshot, SnapshotId};

/// How much is written between two syncs.
const SYNC_BYTES: u64 = 2 << 20;
/// How much is read between two hints that nobody will read it again.
const HINT_BYTES: u64 = 8 << 20;
/// How much of a snapshot that is read from its beginning is fetched at once.
const AHEAD_BYTES: u64 = 1 << 20;

/// Where snapshots are kept. Its methods block, and may be called from any threads at once.
///
/// A snapshot that is not here is [`StorageError::Io`] of kind `NotFound`.
pub trait SnapshotStore: Send + Sync {
    /// The complete snapshots of a group whose head and end are sound, the newest first. All of them
    /// are durable. One whose head or end is damaged is left out; [`SnapshotStore::check`] says why.
    ///
    /// # Errors
    /// Also [`StorageError::TooNew`] and [`StorageError::WrongOwner`]: such a file is no damage, and
    /// going on without it would be a mistake.
    fn list(&self, group: GroupId) -> Result<Vec<Snapshot>, StorageError>;

    /// The complete snapshots of a group by their names alone, sound or not.
    ///
    /// # Errors
    /// As of any read.
    fn named(&self, group: GroupId) -> Result<Vec<SnapshotId>, StorageError>;

    /// Begins a snapshot of the machine as of `base`.
    ///
    /// One that equals a snapshot that is here takes its place when it is finished.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] may be retried; nothing is left behind. [`StorageError::Invalid`] while
    /// another one at the same position is being written, or if no head can hold the base.
    fn create(&self, group: GroupId, base: &Base) -> Result<Box<dyn SnapshotSink>, StorageError>;

    /// The machine's bytes. Each chunk is verified before any of it is given, and the end of the
    /// bytes is given only if the end of the file and the hash of the whole are right: else it is an
    /// error of kind `InvalidData` with a [`StorageError`] in it that names path and offset.
    fn open(&self, group: GroupId, id: &SnapshotId) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Up to `bytes_max` bytes of the file from `offset`, for a peer; fewer only at its end.
    ///
    /// Every chunk that is touched is verified first: rot is reported here, by who has it, rather than
    /// sent again and again to somebody who can only refuse it.
    fn read_piece(
        &self,
        group: GroupId,
        id: &SnapshotId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, StorageError>;

    /// Begins to receive a snapshot, or goes on behind what is sound of an earlier attempt, also of an
    /// earlier life; that is read for it. If it is here already it is verified, everything is held at
    /// once, and `finish` gives it; if it turns out to be damaged it is received again and replaced.
    /// Unfinished ones of other ids that are not newer go.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] if there is not enough for all of it. [`StorageError::Invalid`] while the
    /// same one is being received.
    fn receive(
        &self,
        group: GroupId,
        id: &SnapshotId,
    ) -> Result<Box<dyn SnapshotIntake>, StorageError>;

    /// Reads and verifies all of it, from the disk if possible. `pace` is called after each chunk with
    /// the bytes read so far; if it says false, this ends early and is `Ok`.
    fn check(
        &self,
        group: GroupId,
        id: &SnapshotId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), StorageError>;

    /// Removes a snapshot, and what was received of it. `Ok` if it is not here. Who is reading it may
    /// get an error; who is receiving it goes on.
    fn remove(&self, group: GroupId, id: &SnapshotId) -> Result<(), StorageError>;

    /// Removes all snapshots of a group but the newest `keep`, the oldest first. Those at one position
    /// count as one: which of them is meant to stay, nobody can tell. Unfinished and damaged
    /// ones go, too, if they are not newer than the newest that [`SnapshotStore::list`] shows; what is
    /// being written or received at the moment stays.
    fn retain(&self, group: GroupId, keep: usize) -> Result<(), StorageError>;
}

/// A snapshot that is being written. Dropped before it is finished, it leaves nothing behind.
pub trait SnapshotSink: Write + Send {
    /// Completes it: durable when this returns. After a failed write this gives that failure.
    ///
    /// # Errors
    /// Nothing is left behind, or (if the directory could not be changed) a snapshot that is whole.
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError>;
}

/// A snapshot that is being received. Dropped before it is finished, it can be gone on with.
pub trait SnapshotIntake: Send {
    /// Where the next piece begins. What lies before it is verified, but for the beginning of a chunk
    /// whose rest is still to come.
    fn held_bytes(&self) -> u64;

    /// Takes the next piece, of any length.
    ///
    /// # Errors
    /// After every error `held_bytes` is where the chunk in question begins, and everything before it is
    /// kept. [`StorageError::Corrupt`]: it does not verify, or there is more than the id says.
    /// [`StorageError::NoSpace`] may be retried. After a failed sync every call fails; begin again then.
    fn write(&mut self, piece: &[u8]) -> Result<(), StorageError>;

    /// Verifies the end and the whole; durable when this returns.
    ///
    /// # Errors
    /// What is missing can be received by a new attempt. If all chunks are sound and the whole has another
    /// hash, that attempt begins with nothing.
    fn finish(self: Box<Self>) -> Result<Snapshot, StorageError>;
}

/// Whether a file of this name belongs to a store of snapshots.
pub(super) fn is_name(name: &str) -> bool {
    name::Name::parse(name).is_some()
}

/// Those among `sound`, the newest first, that are as new as the newest `keep`.
fn kept(sound: &[Snapshot], keep: usize) -> Vec<SnapshotId> {
    let same = |a: &Snapshot, b: &Snapshot| a.id.last == b.id.last;
    sound.chunk_by(same).take(keep).flatten().map(|snapshot| snapshot.id).collect()
}

/// An error for those who read and write streams.
fn to_io(error: StorageError) -> io::Error {
    let kind = match &error {
        StorageError::NoSpace { .. } => io::ErrorKind::StorageFull,
        StorageError::Io { source, .. } => source.kind(),
        StorageError::NotFormatted { .. }
        | StorageError::NotEmpty { .. }
        | StorageError::Locked { .. }
        | StorageError::WrongOwner { .. }
        | StorageError::TooNew { .. }
        | StorageError::Corrupt { .. }
        | StorageError::HardStateLost { .. }
        | StorageError::UnknownFeature { .. }
        | StorageError::Invalid { .. }
        | StorageError::Poisoned { .. }
        | StorageError::Missing { .. } => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
