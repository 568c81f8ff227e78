//! Opening a log: reads every batch of every segment and tells three things apart.
//!
//! *Unwritten* is all zeros behind the last batch. *Torn* is whatever else lies there, as long as
//! nothing anywhere says that it had been durable: it was never promised, and is zeroed. *Damaged*
//! is everything that cannot be read although a watermark (in a later batch, a later segment's
//! header, or the vote file) covers it: that is never cut silently. What is intact is served, and
//! the rest is reported (see `replay.rs`) or refused.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::files::{corrupt, io_error, segment_name, segment_number};
use super::format::{BATCH_HEADER, BLOCK, BatchHeader, FORMAT_VERSION, batch_holds};
use super::hard_state::{Slot, VoteFound};
use super::index::Place;
use super::replay::{NO_CHECKPOINT, Replay};
use super::segment::SegmentHeader;
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs, VfsFile};
use crate::types::DiskId;

/// How much is read at once while looking for blocks that are not zero.
const SCAN_BYTES: usize = 256 * BLOCK;

/// Compared with as a whole, which is many times faster than looking at each byte.
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A segment under recovery.
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    bytes: u64,
    salt: u64,
    /// Number of its first batch; 0 where its header is damaged and that batch proves itself.
    first_batch: u64,
}

/// Where the writer goes on.
pub(super) struct Tail {
    /// Number of the newest segment.
    pub(super) segment: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// Its salt.
    pub(super) salt: u64,
    /// First unwritten byte in it.
    pub(super) at: u64,
    /// Number of the next batch.
    pub(super) batch_next: u64,
}

/// A log that was read.
pub(super) struct Scanned {
    pub(super) replay: Replay,
    pub(super) files: Vec<(u64, Arc<dyn VfsFile>)>,
    /// Segments whose checkpoint cannot be read.
    pub(super) headless: BTreeSet<u64>,
    pub(super) tail: Tail,
    /// Something is newly lost: go on in a new segment whose checkpoint says so.
    pub(super) damaged: bool,
    pub(super) notes: Vec<String>,
}

/// What is noted of a write that was not whole, and that nobody had been promised.
pub(crate) const CUT_NOTE: &str = "a write that was under way at the last stop was cut";

/// Reads the whole log in `dir`, whose entries are `names`.
pub(super) fn scan(
    vfs: &dyn Vfs,
    dir: &Path,
    names: &[String],
    disk: DiskId,
    vote: &VoteFound,
) -> Result<Scanned, StorageError> {
    let numbers = segment_numbers(dir, names, vote.newest.as_ref())?;
    let mut scan = Scan {
        replay: Replay::default(),
        headless: BTreeSet::new(),
        next: None,
        watermark: vote.newest.as_ref().map_or(0, |slot| slot.watermark),
        notes: Vec::new(),
    };
    let mut files = Vec::new();
    let mut tail = None;
    for number in numbers {
        if bug!(RecoveryEndsWithTheFirstSegment) && tail.is_some() {
            break;
        }
        let segment = scan.open(vfs, dir, number, disk)?;
        let at = scan.segment(&segment)?;
        files.push((number, segment.file.clone()));
        tail = Some((segment, at));
    }
    let Some((newest, at)) = tail else {
        return Err(corrupt(dir, 0, "there is no log segment beside the superblock"));
    };
    // A segment takes its name when its checkpoint is durable, so no crash leaves a log without any
    // batch: it was damaged, also where zeros are all that is left. The base, and with it the
    // membership, is lost; a log without them must not pass for an empty one, or be written to.
    if !scan.replay.begun {
        let oldest = files.first().map_or(newest.number, |(number, _)| *number);
        return Err(corrupt(&dir.join(segment_name(oldest)), BLOCK as u64, NO_CHECKPOINT));
    }
    let batch_next = scan.next.unwrap_or(1);
    let watermark = scan.watermark.max(scan.replay.watermark);
    let lost_at_end = batch_next <= watermark && !bug!(WatermarkIsNotHeeded);
    let mut torn = false;
    if lost_at_end {
        scan.notes.push(format!(
            "{}: batches {batch_next} to {watermark} had been durable and cannot be read",
            newest.path.display()
        ));
        scan.replay.lost_at_end();
    } else {
        torn = next_written(&newest, at)?.is_some();
    }
    merge_hard_states(dir, &mut scan.replay, vote, lost_at_end || torn)?;
    if torn {
        scan.cut_torn_tail(&newest, at)?;
    }
    let damaged = scan.replay.settle() || lost_at_end;
    let tail = Tail {
        segment: newest.number,
        bytes: newest.bytes,
        salt: newest.salt,
        at,
        batch_next: batch_next.max(watermark + 1),
    };
    Ok(Scanned {
        replay: scan.replay,
        files,
        headless: scan.headless,
        tail,
        damaged,
        notes: scan.notes,
    })
}

/// The numbers of all segments, which must follow each other up to the newest one known.
fn segment_numbers(
    dir: &Path,
    names: &[String],
    slot: Option<&Slot>,
) -> Result<Vec<u64>, StorageError> {
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    let missing = |number| {
        let path = dir.join(segment_name(number));
        corrupt(
            &path,
            0,
            "this segment of the log is missing; restore it, or remove this node \
             and join under a new id",
        )
    };
    for pair in numbers.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(missing(pair[0] + 1));
        }
    }
    let last = numbers.last().copied().unwrap_or(0);
    match slot {
        Some(slot) if slot.segment > last => Err(missing(last + 1)),
        Some(_) | None if last == 0 => Err(missing(1)),
        Some(_) | None => Ok(numbers),
    }
}

/// Takes the newest hard states from both places, and refuses if a newer one may have been lost.
///
/// Each slot holds every hard state that was ever promised, so one that can be read is enough, also
/// beside an `unsure_end` of the log, be it torn or damaged. Without any, the end must be sure: the
/// slots are written one by one and only after the log's sync, so no crash leaves all three torn.
fn merge_hard_states(
    dir: &Path,
    replay: &mut Replay,
    vote: &VoteFound,
    unsure_end: bool,
) -> Result<(), StorageError> {
    if let Some(slot) = &vote.newest {
        for (group, (seq, hard_state)) in &slot.states {
            replay.groups.entry(*group).or_default().hard_state(*seq, *hard_state);
        }
    }
    let known = replay.groups.values().map(|group| group.log.hard_state_seq).max().unwrap_or(0);
    let detail = if replay.hard_state_stated > known {
        "the newest one is in a damaged part of the log and in damaged copies in the vote file"
    } else if unsure_end && vote.newest.is_none() {
        "the end of the log and both copies in the vote file are damaged, and each may have held a \
         newer vote"
    } else {
        return Ok(());
    };
    Err(StorageError::HardStateLost { path: dir.to_path_buf(), detail: detail.into() })
}

struct Scan {
    replay: Replay,
    headless: BTreeSet<u64>,
    /// Number that the next batch must have; `None` before the first one.
    next: Option<u64>,
    /// Highest batch that something outside the batches says was durable.
    watermark: u64,
    notes: Vec<String>,
}

impl Scan {
    /// Opens a segment and judges its header.
    fn open(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        number: u64,
        disk: DiskId,
    ) -> Result<Segment, StorageError> {
        let path = dir.join(segment_name(number));
        let error = |doing, source| io_error(&path, doing, source);
        let file = vfs.open(&path, OpenMode::Existing).map_err(|e| error("opening", e))?;
        // A dead process may have left bytes in memory that never reached the disk.
        if !bug!(OpenDoesNotSync) {
            file.sync_data().map_err(|e| error("syncing", e))?;
        }
        file.drop_cache().map_err(|e| error("dropping the cache of", e))?;
        let bytes = file.len().map_err(|e| error("measuring", e))?;
        let mut block = vec![0; BLOCK];
        file.read_at(&mut block, 0).map_err(|e| error("reading", e))?;
        let mut segment = Segment { number, path, file, bytes, salt: 0, first_batch: 0 };
        let Some(header) = SegmentHeader::decode(&block) else {
            segment.salt = self.salt_without_header(&segment)?;
            self.notes.push(format!(
                "{}: the segment's header is damaged; its batches are intact and were used",
                segment.path.display()
            ));
            return Ok(segment);
        };
        self.judge_header(&segment, &header, disk)?;
        (segment.salt, segment.first_batch) = (header.salt, header.first_batch);
        // Whoever wrote this header had synced everything before.
        self.watermark = self.watermark.max(header.first_batch - 1);
        if self.next.is_none() {
            self.next = Some(header.first_batch);
        }
        Ok(segment)
    }

    fn judge_header(
        &self,
        segment: &Segment,
        header: &SegmentHeader,
        disk: DiskId,
    ) -> Result<(), StorageError> {
        let path = &segment.path;
        if header.version > FORMAT_VERSION {
            let (found, known) = (header.version, FORMAT_VERSION);
            return Err(StorageError::TooNew { path: path.clone(), found, known });
        }
        if header.bytes != segment.bytes {
            let detail = format!(
                "the file has {} bytes, but its header says {}; restore it, or remove this node \
                 and join under a new id",
                segment.bytes, header.bytes
            );
            return Err(corrupt(path, segment.bytes.min(header.bytes), detail));
        }
        let next = self.next.unwrap_or(header.first_batch);
        let wrong = if header.disk != disk {
            format!("the segment belongs to disk {}, the directory is disk {disk}", header.disk)
        } else if header.number != segment.number {
            format!("the segment is number {}, not what its name says", header.number)
        } else if header.first_batch < next || header.first_batch == 0 {
            format!("it begins with batch {}, but batch {next} comes next", header.first_batch)
        } else {
            return Ok(());
        };
        Err(corrupt(path, 0, wrong))
    }

    /// The salt of a segment whose header is damaged, if its first batch proves itself.
    fn salt_without_header(&self, segment: &Segment) -> Result<u64, StorageError> {
        let at = BLOCK as u64;
        let salt = read_header(segment, at)?.map(|header| header.salt);
        if let Some(salt) = salt
            && let Some((header, _)) = read_batch(segment, at, salt)?
            && self.next.is_none_or(|next| header.number == next)
        {
            return Ok(salt);
        }
        Err(corrupt(
            &segment.path,
            0,
            "neither the segment's header nor its first batch can be read; restore the file, or \
             remove this node and join under a new id",
        ))
    }

    /// Replays a segment; gives the first byte behind its last intact batch.
    fn segment(&mut self, segment: &Segment) -> Result<u64, StorageError> {
        let mut at = BLOCK as u64;
        let mut end = at;
        while at < segment.bytes {
            let found = self.batch_at(segment, at)?;
            if found.is_none() && at == BLOCK as u64 {
                self.replay.lost_checkpoint(self.next == Some(segment.first_batch));
                self.headless.insert(segment.number);
            }
            let (header, bytes) = match found {
                Some(found) => found,
                None if bug!(FirstBadBatchEndsTheLog) => {
                    (self.watermark, self.replay.watermark) = (0, 0);
                    break;
                }
                None => match self.resync(segment, at)? {
                    Some((later, header, bytes)) => {
                        at = later;
                        (header, bytes)
                    }
                    None => break,
                },
            };
            let expected = self.next.unwrap_or(header.number);
            let lost = header.number - expected;
            if lost > 0 {
                self.notes.push(format!(
                    "{}: batches {expected} to {} had been durable and cannot be read",
                    segment.path.display(),
                    header.number - 1
                ));
            }
            let place = Place {
                segment: segment.number,
                batch_at: at,
                batch_bytes: header.bytes,
                record_at: 0,
            };
            self.replay
                .batch(&header, &bytes, lost, place)
                .map_err(|detail| corrupt(&segment.path, at, detail))?;
            self.next = Some(header.number + 1);
            at += header.bytes;
            end = at;
        }
        Ok(end)
    }

    /// The batch that must come next, if it is at `at` and intact.
    fn batch_at(
        &self,
        segment: &Segment,
        at: u64,
    ) -> Result<Option<(BatchHeader, Bytes)>, StorageError> {
        let found = read_batch(segment, at, segment.salt)?;
        Ok(found.filter(|(header, _)| self.next.is_none_or(|next| header.number == next)))
    }

    /// The first intact batch behind `at` that is newer than what was read so far.
    ///
    /// Older ones are skipped: a payload may hold a copy of a log.
    fn resync(
        &self,
        segment: &Segment,
        at: u64,
    ) -> Result<Option<(u64, BatchHeader, Bytes)>, StorageError> {
        let mut position = at;
        while let Some((start, end)) = next_written(segment, position)? {
            for at in (start..end).step_by(BLOCK) {
                let newer = read_header(segment, at)?
                    .is_some_and(|header| self.next.is_none_or(|next| header.number >= next));
                if newer && let Some((header, bytes)) = read_batch(segment, at, segment.salt)? {
                    return Ok(Some((at, header, bytes)));
                }
            }
            position = end;
        }
        Ok(None)
    }

    /// Overwrites what lies behind the last batch with zeros. It was never durable for anybody,
    /// and doing it twice does no harm.
    fn cut_torn_tail(&mut self, segment: &Segment, at: u64) -> Result<(), StorageError> {
        let mut position = at;
        let mut cut = 0;
        while let Some((start, end)) = next_written(segment, position)? {
            let zeros = vec![0; (end - start) as usize];
            segment
                .file
                .write_at(&mut [IoSlice::new(&zeros)], start)
                .map_err(|source| io_error(&segment.path, "cutting a torn write from", source))?;
            cut += end - start;
            position = end;
        }
        if cut > 0 {
            segment
                .file
                .sync_data()
                .map_err(|source| io_error(&segment.path, "syncing", source))?;
            self.notes.push(format!(
                "{}: {CUT_NOTE} at byte {at}; it had \
                 never been acknowledged",
                segment.path.display()
            ));
        }
        Ok(())
    }
}

/// The next stretch of blocks at or behind `from` that are not all zero, at most one read long.
fn next_written(segment: &Segment, from: u64) -> Result<Option<(u64, u64)>, StorageError> {
    let mut buf = vec![0; SCAN_BYTES.min(segment.bytes.saturating_sub(from) as usize)];
    let mut at = from;
    while at < segment.bytes && !buf.is_empty() {
        let n = read(segment, &mut buf, at)?;
        if n == 0 {
            break;
        }
        let is_zero = |block: &[u8]| *block == ZEROS[..block.len()];
        let mut blocks = buf[..n].chunks(BLOCK);
        if let Some(first) = blocks.position(|block| !is_zero(block)) {
            let more = blocks.take_while(|block| !is_zero(block)).count();
            let start = at + (first * BLOCK) as u64;
            let end = start + ((more + 1) * BLOCK) as u64;
            return Ok(Some((start, end.min(segment.bytes))));
        }
        at += n as u64;
    }
    Ok(None)
}

fn read(segment: &Segment, buf: &mut [u8], at: u64) -> Result<usize, StorageError> {
    segment.file.read_at(buf, at).map_err(|source| io_error(&segment.path, "reading", source))
}

/// The batch header at `at`, unless there is none that could be.
fn read_header(segment: &Segment, at: u64) -> Result<Option<BatchHeader>, StorageError> {
    let mut bytes = [0; BATCH_HEADER];
    read(segment, &mut bytes, at)?;
    let room = segment.bytes.saturating_sub(at);
    Ok(BatchHeader::decode(&bytes).filter(|header| header.fits(room)))
}

/// The batch at `at`, if it is of this segment and its checksum holds.
fn read_batch(
    segment: &Segment,
    at: u64,
    salt: u64,
) -> Result<Option<(BatchHeader, Bytes)>, StorageError> {
    let Some(header) = read_header(segment, at)?.filter(|header| header.salt == salt) else {
        return Ok(None);
    };
    // Bounded by the room that is left in the file.
    let mut bytes = vec![0; header.bytes as usize];
    let n = read(segment, &mut bytes, at)?;
    let whole = n == bytes.len() && batch_holds(&bytes);
    Ok(whole.then(|| (header, Bytes::from(bytes))))
}
