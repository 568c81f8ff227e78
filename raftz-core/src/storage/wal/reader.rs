//! Old entries, read from the segments while the writer goes on.
//!
//! A read takes a few extents out of the index under its lock, lets the lock go, and only then
//! touches the disk. What an extent points to is never rewritten, so nothing can change meanwhile.
//! Every batch is verified as a whole when it is read, and every payload against its own checksum.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::files::{corrupt, io_error, segment_name};
use super::format::{batch_holds, entry_record, payload_of, raw_record};
use super::index::{Extent, LogIndex};
use crate::storage::vfs::VfsFile;
use crate::storage::{LogReader, StorageError};
use crate::types::{Entry, GroupId, Index};

/// Extents taken from the index at once, so that a read holds the lock briefly.
const EXTENTS_MAX: usize = 64;
/// A batch up to this size is kept for the next read, which often goes on in it.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// A batch, by segment and offset.
type Kept = Option<(u64, u64, Bytes)>;

/// Reads entries of an open log.
pub(super) struct WalReader {
    dir: PathBuf,
    index: Arc<RwLock<LogIndex>>,
    kept: Mutex<Kept>,
}

impl WalReader {
    /// A reader of what `index` describes.
    pub(super) fn new(dir: PathBuf, index: Arc<RwLock<LogIndex>>) -> Self {
        Self { dir, index, kept: Mutex::new(None) }
    }

    fn batch(&self, extent: &Extent, file: &dyn VfsFile) -> Result<Bytes, StorageError> {
        let place = extent.place;
        if let Some((segment, at, bytes)) = &*self.kept.lock()
            && (*segment, *at) == (place.segment, place.batch_at)
        {
            return Ok(bytes.clone());
        }
        let path = self.dir.join(segment_name(place.segment));
        let mut bytes = vec![0; place.batch_bytes as usize];
        let n = file
            .read_at(&mut bytes, place.batch_at)
            .map_err(|source| io_error(&path, "reading", source))?;
        if n != bytes.len() || !batch_holds(&bytes) {
            let detail = "a batch that was intact at open does not match its checksum any more; \
                          check the disk, then restart the node";
            return Err(corrupt(&path, place.batch_at, detail));
        }
        let bytes = Bytes::from(bytes);
        if bytes.len() <= KEPT_BYTES_MAX {
            *self.kept.lock() = Some((place.segment, place.batch_at, bytes.clone()));
        }
        Ok(bytes)
    }

    /// Reads the entries `from..=to`, which `extent` holds, until the budget is used up.
    fn entries(
        &self,
        group: GroupId,
        extent: &Extent,
        batch: &Bytes,
        (from, to): (Index, Index),
        budget: &mut Budget,
        out: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        let path = self.dir.join(segment_name(extent.place.segment));
        let wrong = |detail: String| corrupt(&path, extent.place.batch_at, detail);
        let mut at = extent.place.record_at as usize;
        let mut index = extent.first;
        while index <= to {
            let raw = raw_record(batch, at).map_err(wrong)?;
            at = raw.body.end;
            if raw.group != group || !raw.is_entry() {
                continue;
            }
            if index >= from {
                let (header, payload) = entry_record(batch, &raw).map_err(wrong)?;
                if !budget.take(raw.body.len() as u64) {
                    return Ok(());
                }
                let bytes = payload_of(batch, payload);
                let entry = header.with_payload(bytes).filter(|entry| entry.index == index);
                let lies = || wrong(format!("entry {index} does not match its own checksum"));
                out.push(entry.ok_or_else(lies)?);
            }
            index = index.next();
        }
        Ok(())
    }
}

/// Bytes that may still be read; the first entry is free.
struct Budget {
    left: u64,
    first: bool,
    spent: bool,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> bool {
        let fits = self.first || bytes <= self.left;
        self.first = false;
        self.left = self.left.saturating_sub(bytes);
        self.spent = !fits;
        fits
    }
}

/// Copies payloads out of batches that are much larger than what was asked for, so that a few
/// small entries do not keep megabytes alive.
fn release(out: &mut [Entry], batch: &Bytes, taken_bytes: u64) {
    if taken_bytes.saturating_mul(2) >= batch.len() as u64 {
        return;
    }
    for entry in out {
        let copy = Bytes::copy_from_slice(entry.payload.bytes());
        if let Some(payload) = crate::types::Payload::verified(copy, entry.payload.crc()) {
            entry.payload = payload;
        }
    }
}

impl LogReader for WalReader {
    fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut out: Vec<Entry> = Vec::new();
        let mut budget = Budget { left: bytes_max, first: true, spent: false };
        let mut from = first;
        let mut begun_at = None;
        let is_dropped = |index: Index| {
            let logs = &self.index.read().groups;
            logs.get(&group).is_none_or(|log| index <= log.base.id.index)
        };
        'log: while from <= last && !budget.spent {
            let (extents, truncations) = {
                let index = self.index.read();
                let log = index.groups.get(&group);
                if log.is_none_or(|log| from <= log.base.id.index) {
                    break;
                }
                let extents =
                    log.map(|log| log.extents_of(from, last, EXTENTS_MAX)).unwrap_or_default();
                let with_file = |extent: Extent| {
                    index.files.get(&extent.place.segment).map(|file| (extent, file.clone()))
                };
                let extents = extents.into_iter().filter_map(with_file).collect::<Vec<_>>();
                (extents, log.map(|log| log.truncations))
            };
            // What was read so far may be gone by now: never join it to what came in its place.
            if *begun_at.get_or_insert(truncations) != truncations {
                break;
            }
            if extents.first().is_none_or(|(extent, _)| extent.first > from) {
                break;
            }
            for (extent, file) in extents {
                let batch = match self.batch(&extent, file.as_ref()) {
                    // Its segment may have been removed on the way.
                    Err(_) if is_dropped(from) => break 'log,
                    batch => batch?,
                };
                let start = out.len();
                let to = last.min(extent.last);
                self.entries(group, &extent, &batch, (from, to), &mut budget, &mut out)?;
                let taken = out[start..].iter().map(Entry::cost_bytes).sum();
                release(&mut out[start..], &batch, taken);
                from = to.next();
                if budget.spent {
                    break;
                }
            }
        }
        if out.is_empty() {
            let detail = "it is before the log's base, or was never written".into();
            return Err(StorageError::Missing { index: first, detail });
        }
        Ok(out)
    }
}
