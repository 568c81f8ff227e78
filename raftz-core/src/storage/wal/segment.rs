//! One file of the log: its header, and how the next one is made ready before it is needed.
//!
//! A segment is written full of zeros and synced under a temporary name, off the log lane, because
//! a sync into written blocks touches no file-system metadata. Where batches are large that costs
//! more than it saves, and room that reads as zeros must do. It gets its header and its first
//! batch, the checkpoint, is synced, and only then takes its name: a named segment is complete.
//! The salt is drawn anew for each, so stale bytes can never pass for a batch.
//!
//! ```text
//!  0  magic "rzsegmt1"          24  size of the file (8)     48  disk id (16)
//!  8  crc32c of the block       32  salt (8)                 64  zeros to 4096
//! 12  format version (4)        40  first batch number (8)   4096  first batch
//! 16  segment number (8)
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use parking_lot::{Condvar, Mutex};

use super::files::{SPARE, io_error};
use super::format::{BLOCK, FORMAT_VERSION, crc_holds, padded, seal_crc};
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};
use crate::types::{DiskId, SANE_MAX};

const MAGIC: [u8; 8] = *b"rzsegmt1";
const CRC_AT: usize = 8;
/// A segment is prepared in so many pieces, or fewer and larger ones, each synced, so that the log's own syncs do
/// not wait behind one great flush.
const PIECES_MAX: u64 = 256;
/// Most zeros that one call writes.
const ZERO_BYTES: u64 = 1 << 20;
/// Most that is written before a sync.
const ZERO_SYNC_BYTES: u64 = 8 << 20;
/// Smallest segment: header, checkpoint, and room for a batch.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK as u64;

/// What the first block of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) version: u32,
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) salt: u64,
    pub(super) first_batch: u64,
    pub(super) disk: DiskId,
}

impl SegmentHeader {
    /// The block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.put_slice(&MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(self.version);
        out.put_u64_le(self.number);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.first_batch);
        out.put_u128_le(self.disk.0);
        out.resize(BLOCK, 0);
        seal_crc(&mut out, CRC_AT);
        out
    }

    /// Reads the block; `None` when it is not an intact header.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BLOCK || bytes[..8] != MAGIC || !crc_holds(bytes, CRC_AT) {
            return None;
        }
        let mut at = &bytes[12..];
        let header = Self {
            version: at.get_u32_le(),
            number: at.get_u64_le(),
            bytes: at.get_u64_le(),
            salt: at.get_u64_le(),
            first_batch: at.get_u64_le(),
            disk: DiskId(at.get_u128_le()),
        };
        (header.first_batch <= SANE_MAX).then_some(header)
    }

    /// A header of this version for a new segment.
    pub(super) fn new(
        vfs: &dyn Vfs,
        number: u64,
        bytes: u64,
        first_batch: u64,
        disk: DiskId,
    ) -> Self {
        Self { version: FORMAT_VERSION, number, bytes, salt: vfs.random(), first_batch, disk }
    }
}

/// The size that a configured segment size comes to.
pub(super) fn segment_bytes(configured: u64) -> u64 {
    padded(configured.max(SEGMENT_BYTES_MIN))
}

/// A file on its way to be a segment.
#[derive(Clone)]
pub(super) struct Blank {
    /// The file.
    pub(super) file: Arc<dyn VfsFile>,
    /// So many of its first bytes are zeros that were written.
    pub(super) zeroed: u64,
    /// Whether the rest has its room and reads as zeros as well.
    is_blank: bool,
}

impl Blank {
    /// Makes a file called `name`, or what was begun of it, one of which `bytes` bytes read as zeros and have their
    /// room; those up to `upto`, and all where it cannot be had otherwise, are written.
    pub(super) fn prepare(
        begun: Option<Self>,
        vfs: &dyn Vfs,
        dir: &Path,
        name: &str,
        bytes: u64,
        upto: u64,
    ) -> Result<Self, StorageError> {
        let made = Self::go_on(begun, vfs, dir, name, bytes, upto)?;
        if made.is_ready(bytes, upto) {
            return Ok(made);
        }
        Self::go_on(Some(made), vfs, dir, name, bytes, bytes)
    }

    /// Whether it can be used, and has zeros up to `upto`.
    const fn is_ready(&self, bytes: u64, upto: u64) -> bool {
        self.zeroed == bytes || (self.is_blank && self.zeroed >= upto)
    }

    /// Makes durable zeros up to `upto` of the `bytes` that the file called `name` shall have.
    fn go_on(
        begun: Option<Self>,
        vfs: &dyn Vfs,
        dir: &Path,
        name: &str,
        bytes: u64,
        upto: u64,
    ) -> Result<Self, StorageError> {
        let path = dir.join(name);
        let zero = || {
            let mut begun = match begun {
                Some(begun) => begun,
                None => open_empty(vfs, dir, &path, bytes)?,
            };
            zero_range(begun.file.as_ref(), begun.zeroed, upto)?;
            begun.file.sync_data()?;
            begun.zeroed = begun.zeroed.max(upto);
            Ok(begun)
        };
        zero().map_err(|source| io_error(&path, "preparing a segment", source))
    }
}

fn open_empty(vfs: &dyn Vfs, dir: &Path, path: &Path, bytes: u64) -> io::Result<Blank> {
    // A leftover of the right size already has its blocks: rewriting it works on a full disk. A
    // longer one goes: were it cut and the sync of that failed, the next attempt would see a length
    // that the disk does not have. So does each where there is room: its old bytes would have to be overwritten.
    let mut file = vfs.open(path, OpenMode::Keep)?;
    let free = vfs.free_bytes(dir).unwrap_or(u64::MAX);
    let length = file.len()?;
    if length > bytes || (length > 0 && free >= bytes) {
        vfs.unlink(path)?;
        file = vfs.open(path, OpenMode::Keep)?;
    }
    let is_new = file.is_empty()?;
    // Filling the disk to its last byte would only find out the hard way, again at each retry.
    let missing = bytes.saturating_sub(file.len()?);
    if vfs.free_bytes(dir).unwrap_or(u64::MAX) < missing {
        return Err(io::ErrorKind::StorageFull.into());
    }
    file.allocate(bytes)?;
    // Where room cannot be secured, the length stays what it was.
    let is_blank = is_new && file.len()? == bytes;
    Ok(Blank { file, zeroed: 0, is_blank })
}

/// Writes zeros into `from..to`, syncing now and then, but not at the end.
fn zero_range(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES.min(to.saturating_sub(from)) as usize];
    let mut synced = from;
    for at in (from..to).step_by(ZERO_BYTES as usize) {
        if at - synced >= ZERO_SYNC_BYTES {
            file.sync_data()?;
            synced = at;
        }
        let n = (to - at).min(ZERO_BYTES);
        file.write_at(&mut [IoSlice::new(&zeros[..n as usize])], at)?;
    }
    Ok(())
}

enum State {
    /// Nobody works at it.
    Idle(Option<Blank>),
    Underway {
        /// It is tried again: until that is done there is as little room as before.
        after_failure: bool,
    },
    Failed,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The helper's task, and what was there before. Whatever becomes of it, also if it panics or is dropped without
/// having run, nobody waits for it afterwards.
struct Task(Option<(Shared, Option<Blank>)>);

impl Task {
    fn end(&mut self, state: State) {
        if let Some((shared, _)) = self.0.take() {
            *shared.0.lock() = state;
            shared.1.notify_all();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let before = self.0.as_mut().and_then(|(_, before)| before.take());
        self.end(State::Idle(before));
    }
}

/// The one segment that is prepared ahead, by a helper: in pieces, while the one before fills, so that the log's
/// own syncs never wait behind all of it.
pub(super) struct Spare {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    bytes: u64,
    state: Shared,
}

impl Spare {
    /// No spare yet; it will have `bytes` bytes.
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, bytes: u64) -> Self {
        let state = Arc::new((Mutex::new(State::Idle(None)), Condvar::new()));
        Self { vfs, dir, bytes, state }
    }

    /// Has the helper prepare it, with zeros up to `upto` and to the end of that piece, unless it has, or is at it.
    /// After a failure it begins again: preparing harms nothing.
    pub(super) fn want(&self, upto: u64) {
        let piece_bytes = padded((self.bytes / PIECES_MAX).max(1));
        let upto = upto.min(self.bytes).next_multiple_of(piece_bytes).min(self.bytes);
        let begun = {
            let mut state = self.state.0.lock();
            match &mut *state {
                State::Underway { .. } => return,
                State::Idle(Some(begun)) if begun.zeroed >= upto => return,
                State::Idle(_) | State::Failed => {}
            }
            let after_failure = matches!(&*state, State::Failed);
            match std::mem::replace(&mut *state, State::Underway { after_failure }) {
                State::Idle(begun) => begun,
                State::Underway { .. } | State::Failed => None,
            }
        };
        let (vfs, dir, bytes) = (self.vfs.clone(), self.dir.clone(), self.bytes);
        let mut task = Task(Some((self.state.clone(), begun.clone())));
        let job = Box::new(move || {
            let made = Blank::go_on(begun, vfs.as_ref(), &dir, SPARE, bytes, upto);
            task.end(made.map_or(State::Failed, |begun| State::Idle(Some(begun))));
        });
        // Where it cannot be started the job is dropped, and with it the task.
        let _ = self.vfs.background(job);
    }

    /// Has the helper write some more zeros, if it has nothing to do.
    pub(super) fn want_more(&self) {
        let zeroed = match &*self.state.0.lock() {
            State::Idle(Some(begun)) => begun.zeroed,
            State::Idle(None) | State::Underway { .. } | State::Failed => 0,
        };
        self.want(zeroed.saturating_add(ZERO_BYTES));
    }

    /// Whether it waits to be used, with zeros up to `upto`.
    pub(super) fn is_ready(&self, upto: u64) -> bool {
        let state = self.state.0.lock();
        matches!(&*state, State::Idle(Some(begun)) if begun.is_ready(self.bytes, upto))
    }

    /// Whether the last attempt that has ended failed.
    pub(super) fn failed(&self) -> bool {
        matches!(*self.state.0.lock(), State::Failed | State::Underway { after_failure: true })
    }

    /// The spare, with as many zeros as it has by now; waits for the helper, and does itself what must be done.
    pub(super) fn take(&self) -> Result<Blank, StorageError> {
        let mut state = self.settled();
        let begun = match std::mem::replace(&mut *state, State::Idle(None)) {
            State::Idle(Some(begun)) if begun.is_ready(self.bytes, 0) => return Ok(begun),
            State::Idle(begun) => begun,
            State::Underway { .. } | State::Failed => None,
        };
        drop(state);
        let made = Blank::prepare(begun, self.vfs.as_ref(), &self.dir, SPARE, self.bytes, 0);
        if made.is_err() {
            *self.state.0.lock() = State::Failed;
        }
        made
    }

    fn settled(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.0.lock();
        while matches!(*state, State::Underway { .. }) {
            self.state.1.wait(&mut state);
        }
        state
    }
}

impl Drop for Spare {
    // The helper works in a directory whose lock is about to be released.
    fn drop(&mut self) {
        drop(self.settled());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_segment_header_lies_as_it_is_drawn() {
        let header = SegmentHeader {
            version: 1,
            number: 2,
            bytes: 3,
            salt: 4,
            first_batch: 5,
            disk: DiskId(6),
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..8], b"rzsegmt1");
        for (at, value) in [(12, 1), (16, 2), (24, 3), (32, 4), (40, 5), (48, 6)] {
            assert_eq!(bytes[at], value, "byte {at}");
        }
        assert!(bytes[64..].iter().all(|byte| *byte == 0));
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
    }
}
