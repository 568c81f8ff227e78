//! The one who writes: a submission becomes one batch, one write and one sync.
//!
//! The index, and with it every reader, learns of a batch after its sync. The first write or sync
//! into a prepared segment that fails ends the writing for this life: after a failed sync nobody
//! knows what the disk holds, and a second try could "succeed" without having written anything.
//! The one failure that may be tried again is a lack of room for the next segment: nothing of the
//! log was touched by then.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::batch::{Batch, Effect, Progress};
use super::files::{OVERSIZE, SPARE, corrupt, io_error, segment_name};
use super::format::{BLOCK, BatchHeader, Record};
use super::hard_state::{HardStates, VoteFile, VoteFound};
use super::index::{LogIndex, Place};
use super::reclaim::Reclaimer;
use super::recovery::Tail;
use super::segment::{Blank, SegmentHeader, Spare};
use crate::storage::vfs::{Vfs, VfsFile};
use crate::storage::{Space, StorageError, WriteBatch};
use crate::types::{DiskId, GroupId, Index, SANE_MAX};

/// Where the numbers of batches, hard states and vote slots end: well below what a reader takes for
/// forged, so that what is written can always be read, and the next open finds a number to take it
/// over with.
const NUMBERS_MAX: u64 = SANE_MAX - (1 << 32);

/// Where batches are larger on average than this, or than this share of a segment where that is less, zeros are not
/// written ahead of them: that would take longer than what each sync saves by it.
const LARGE_BATCH_BYTES: u64 = 256 << 10;
const LARGE_BATCH_SHARE: u64 = 32;

/// What a writer starts from.
pub(super) struct Start {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pub(super) disk: DiskId,
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    pub(super) index: Arc<RwLock<LogIndex>>,
    pub(super) vote: VoteFile,
    pub(super) tail: Tail,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) hard_state_seq: u64,
    pub(super) touched: BTreeMap<GroupId, Index>,
    pub(super) sealed: bool,
    pub(super) base_moved: bool,
}

/// Why something did not become durable.
pub(super) enum Failed {
    /// There is no room for another segment. Nothing was written, and it may be tried again.
    NoSegment(StorageError),
    /// Nothing more is written in this life.
    Fatal(StorageError),
}

impl Failed {
    fn preparing(error: StorageError) -> Self {
        if matches!(error, StorageError::NoSpace { .. }) {
            return Self::NoSegment(error);
        }
        Self::Fatal(error)
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        Self::Fatal(error)
    }
}

impl From<Failed> for StorageError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NoSegment(error) | Failed::Fatal(error) => error,
        }
    }
}

/// Makes a batch durable. There is no second try.
fn sync(file: &dyn VfsFile) -> std::io::Result<()> {
    if bug!(LogIsNotSynced) {
        return Ok(());
    }
    let synced = file.sync_data();
    if synced.is_err() && bug!(FailedSyncIsTriedAgain) {
        return file.sync_data();
    }
    if bug!(FailedSyncIsIgnored) { Ok(()) } else { synced }
}

/// The handle that batches are written through.
fn past_cache(file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
    file.past_cache().unwrap_or(file)
}

/// The writing side of an open log.
pub(super) struct Writer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    disk: DiskId,
    segment_bytes: u64,
    reserve_bytes: u64,
    index: Arc<RwLock<LogIndex>>,
    vote: VoteFile,
    tail: Tail,
    /// The segment at the tail, past the cache where that goes.
    file: Arc<dyn VfsFile>,
    hard_state_seq: u64,
    /// What the last batch touched, for the next one to restate.
    touched: BTreeMap<GroupId, Index>,
    /// The last batch that holds anything: nobody misses a seal.
    watermark: u64,
    /// Whether that is stated in a later place.
    sealed: bool,
    /// Whether damage was found that no checkpoint tells of yet: nothing is written before one does.
    owes_checkpoint: bool,
    /// Whether a base has moved that the present segment's checkpoint does not state.
    base_moved: bool,
    /// What a batch had on average, later ones counting more.
    mean_batch_bytes: u64,
    /// How far zeros were written ahead in the present segment, as far as this life knows.
    zeroed: u64,
    spare: Spare,
    reclaimer: Reclaimer,
    batch: Batch,
    poisoned: Option<String>,
}

impl Writer {
    /// A writer that goes on at the tail.
    pub(super) fn new(start: Start) -> Self {
        let spare = Spare::new(start.vfs.clone(), start.dir.clone(), start.segment_bytes);
        let oldest = start.index.read().files.keys().next().copied().unwrap_or(0);
        let reclaimer = Reclaimer::new(start.vfs.clone(), start.dir.clone(), oldest);
        let watermark = start.tail.batch_next - 1 - u64::from(start.sealed);
        Self {
            vfs: start.vfs,
            dir: start.dir,
            disk: start.disk,
            segment_bytes: start.segment_bytes,
            reserve_bytes: start.reserve_bytes,
            index: start.index,
            vote: start.vote,
            tail: start.tail,
            file: past_cache(start.file),
            hard_state_seq: start.hard_state_seq,
            touched: start.touched,
            watermark,
            sealed: start.sealed,
            owes_checkpoint: false,
            base_moved: start.base_moved,
            mean_batch_bytes: 0,
            zeroed: u64::MAX,
            spare,
            reclaimer,
            batch: Batch::default(),
            poisoned: None,
        }
    }

    /// Makes a submission durable.
    pub(super) fn submit(&mut self, ops: &WriteBatch) -> Result<(), Failed> {
        self.guarded(|writer| writer.write(ops))
    }

    /// Says that the last batch is durable, in the log and in the vote file, unless that was said:
    /// whatever damages that batch may damage what lies next to it, too.
    pub(super) fn seal(&mut self) -> Result<(), StorageError> {
        self.guarded(|writer| {
            if writer.sealed && !writer.owes_checkpoint {
                return Ok(());
            }
            writer.begin_batch()?;
            writer.invalid(|batch| batch.record(GroupId(0), &Record::Seal))?;
            if writer.fits() && !writer.owes_checkpoint && !writer.goes_on_early() {
                writer.put()?;
                writer.state_in_vote()?;
            } else {
                // A new segment's checkpoint states the same watermark and serves as well. On a
                // disk that has no room for one the vote file must do.
                match writer.rotate(0) {
                    Err(Failed::NoSegment(_)) => writer.state_in_vote()?,
                    fate => fate?,
                }
            }
            writer.sealed = true;
            Ok(())
        })
        .map_err(StorageError::from)
    }

    /// Goes on in a new segment whose checkpoint says that everything before was judged and that
    /// the log is what the index says. Without room for one this is done later, before anything is
    /// written: until then each open finds the same damage.
    pub(super) fn write_damage_down(&mut self) -> Result<(), StorageError> {
        self.owes_checkpoint = true;
        match self.guarded(|writer| writer.rotate(0)) {
            Ok(()) | Err(Failed::NoSegment(_)) => Ok(()),
            Err(Failed::Fatal(error)) => Err(error),
        }
    }

    /// Lets the vote file cover all that this open found, unless it does: from here on the node
    /// answers for it, so it must never pass for torn, and a vote must be in both slots.
    pub(super) fn take_over(&mut self, found: &VoteFound) -> Result<(), StorageError> {
        let states = self.index.read().hard_states();
        if found.covers(&states, self.watermark, self.tail.segment) {
            return Ok(());
        }
        self.state_in_vote()
    }

    /// Lets segments go that nobody needs: what an earlier life has left of them.
    pub(super) fn begin_reclaiming(&mut self) {
        if self.base_moved {
            self.prepare_to_shrink();
        } else {
            self.reclaim();
        }
    }

    fn state_in_vote(&mut self) -> Result<(), StorageError> {
        let states = self.index.read().hard_states();
        let over = u64::from(bug!(WatermarkIsOverstated)) * 2;
        self.vote.write(&states, self.watermark + over, self.tail.segment)
    }

    /// How many segments there are, the newest, and the bytes of all; counted only if they are others than those
    /// that were `counted` before.
    pub(super) fn segments(&self, counted: (usize, u64, u64)) -> (usize, u64, u64) {
        let index = self.index.read();
        let newest = index.files.keys().next_back().copied().unwrap_or_default();
        if (index.files.len(), newest) == (counted.0, counted.1) {
            return counted;
        }
        let bytes = index.files.values().map(|file| file.len().unwrap_or_default()).sum();
        (index.files.len(), newest, bytes)
    }

    /// Whether preparing a segment failed and was not tried again since.
    pub(super) fn lacks_segment(&self) -> bool {
        self.spare.failed()
    }

    /// Whether room is running out; tries again to prepare a segment where that had failed.
    pub(super) fn space(&mut self) -> Space {
        if self.poisoned.is_none() {
            self.prepare_to_shrink();
        }
        let failed = self.spare.failed();
        if self.poisoned.is_none() && failed {
            // Wherever the present segment ends: something may wait for the next one.
            self.spare.want(1);
        } else if self.poisoned.is_none() && self.owes_checkpoint {
            // A failure is told to whoever writes next.
            let _ = self.write_damage_down();
        } else if self.poisoned.is_none() && self.goes_on_early() {
            let _ = self.guarded(|writer| writer.rotate(0));
        }
        let low = failed || self.owes_checkpoint;
        let free = self.vfs.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if low || free < self.reserve_bytes { Space::Low } else { Space::Ample }
    }

    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        if let Some(first) = &self.poisoned {
            let (path, first) = (self.dir.clone(), first.clone());
            return Err(StorageError::Poisoned { path, first }.into());
        }
        let of_log = self.tail.batch_next.max(self.hard_state_seq).max(self.tail.segment);
        if of_log.max(self.vote.seq()) > NUMBERS_MAX {
            let detail = "its numbers are used up, which no use can bring about: a file was forged";
            let path = self.dir.join(segment_name(self.tail.segment));
            return Err(corrupt(&path, 0, detail).into());
        }
        let result = work(self);
        if let Err(Failed::Fatal(error)) = &result {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    /// Runs a step of building the batch; what cannot be built was never valid.
    fn invalid(
        &mut self,
        step: impl FnOnce(&mut Batch) -> Result<(), String>,
    ) -> Result<(), StorageError> {
        let path = &self.dir;
        step(&mut self.batch).map_err(|detail| StorageError::Invalid { path: path.clone(), detail })
    }

    /// Empties the batch and puts in what every batch restates of the one before.
    fn begin_batch(&mut self) -> Result<(), StorageError> {
        self.batch.clear();
        let previous: Vec<(GroupId, Record)> = {
            let index = self.index.read();
            let last = |group| index.groups.get(group).map(|log| log.last).unwrap_or_default();
            self.touched
                .iter()
                .map(|(group, lowest)| {
                    (*group, Record::Previous { lowest: *lowest, last: last(group) })
                })
                .collect()
        };
        for (group, record) in previous {
            self.invalid(|batch| batch.record(group, &record))?;
        }
        Ok(())
    }

    fn write(&mut self, ops: &WriteBatch) -> Result<(), Failed> {
        self.build(ops)?;
        if self.batch.effects.is_empty() {
            return Ok(());
        }
        let must = self.owes_checkpoint || !self.fits();
        if must || self.goes_on_early() {
            match self.rotate(self.batch.bytes()) {
                // It can wait.
                Err(Failed::NoSegment(_)) if !must => {}
                fate => {
                    fate?;
                    // The checkpoint has taken over what the batch would have restated.
                    self.build(ops)?;
                }
            }
        }
        self.put()?;
        self.watermark = self.tail.batch_next - 1;
        self.sealed = false;
        self.want_spare();
        self.prepare_to_shrink();
        Ok(())
    }

    /// Whether going on in another segment, whose checkpoint states the base, would let at least two
    /// go. With one it would only exchange one for another: that can wait until the present one is full.
    fn would_shrink(&self) -> bool {
        if !self.base_moved || self.owes_checkpoint {
            return false;
        }
        let index = self.index.read();
        // The next segment, which does not exist yet, has its checkpoint.
        let needed = index.oldest_needed(self.tail.segment + 1);
        !index.is_damaged() && index.files.range(..needed).nth(1).is_some()
    }

    /// Has a segment prepared that lets old ones go. Where there is no room for one, the record of the
    /// base alone must do, or a full disk would never become less full.
    fn prepare_to_shrink(&mut self) {
        if self.would_shrink() {
            if self.spare.failed() {
                self.reclaim();
            }
            self.spare.want(self.zeros_wanted());
        }
    }

    /// From how many bytes on a batch is a large one.
    fn large_batch_bytes(&self) -> u64 {
        LARGE_BATCH_BYTES.min(self.segment_bytes / LARGE_BATCH_SHARE).max(BLOCK as u64)
    }

    /// How many zeros the next segment is to have.
    fn zeros_wanted(&self) -> u64 {
        if self.mean_batch_bytes > self.large_batch_bytes() { 0 } else { self.segment_bytes }
    }

    /// Whether the present segment has no zeros any more for batches that have become small.
    fn misses_zeros(&self) -> bool {
        let ends = self.tail.at.min(self.tail.bytes - 1) >= self.zeroed;
        ends && self.zeros_wanted() > 0
    }

    /// Whether to leave the present segment before it is full.
    fn goes_on_early(&self) -> bool {
        (self.would_shrink() || self.misses_zeros()) && self.spare.is_ready(self.zeros_wanted())
    }

    /// Lets every segment go that holds no entry above a base. What was lost leaves its traces until it
    /// has been brought back.
    fn reclaim(&mut self) {
        let mut index = self.index.write();
        if self.owes_checkpoint || index.is_damaged() {
            return;
        }
        let needed = index.oldest_needed(self.tail.segment);
        index.files = index.files.split_off(&needed);
        drop(index);
        self.reclaimer.want(needed);
    }

    /// Has the next segment prepared in step with the present one, from its first quarter on until seven eighths.
    fn want_spare(&self) {
        if self.misses_zeros() {
            return self.spare.want_more();
        }
        let beyond = self.tail.at.saturating_sub(self.tail.bytes / 4);
        if beyond > 0 {
            // The two may differ in size.
            let upto = u128::from(beyond) * 8 / 5 * u128::from(self.segment_bytes);
            let upto = u64::try_from(upto / u128::from(self.tail.bytes)).unwrap_or(u64::MAX);
            self.spare.want(upto.min(self.zeros_wanted()));
        }
    }

    fn build(&mut self, ops: &WriteBatch) -> Result<(), StorageError> {
        self.begin_batch()?;
        let mut seq = self.hard_state_seq;
        // Nobody else changes it, and readers may read meanwhile.
        let index = self.index.read();
        let mut logs: BTreeMap<GroupId, Progress<'_>> = BTreeMap::new();
        for (group, op) in ops {
            let log = logs.entry(*group).or_insert_with(|| Progress::of(&index, *group));
            let path = &self.dir;
            self.batch
                .write(*group, op, log, &mut seq)
                .map_err(|detail| StorageError::Invalid { path: path.clone(), detail })?;
        }
        Ok(())
    }

    fn fits(&self) -> bool {
        self.batch.bytes() <= self.tail.bytes - self.tail.at
    }

    /// Writes the batch at the tail and syncs it, then both slots of the vote file where that
    /// changed, then tells the index.
    fn put(&mut self) -> Result<(), StorageError> {
        let at = self.tail.at;
        let batch_bytes = self.batch.bytes();
        let file = self.file.clone();
        let seq = self.batch.hard_state_seq.unwrap_or(self.hard_state_seq);
        let header = self.batch_header(self.tail.salt, seq);
        let path = || self.dir.join(segment_name(self.tail.segment));
        self.batch
            .finish(header, |slices| file.write_at(slices, at))
            .map_err(|source| io_error(&path(), "writing", source))?;
        sync(file.as_ref()).map_err(|source| io_error(&path(), "syncing", source))?;
        let number = self.tail.batch_next;
        if self.batch.hard_state_seq.is_some() {
            let states = self.hard_states_after();
            self.vote.write(&states, number, self.tail.segment)?;
        }
        let place = Place { segment: self.tail.segment, batch_at: at, batch_bytes, record_at: 0 };
        self.learn(place);
        self.hard_state_seq = seq;
        self.tail.at += batch_bytes;
        self.tail.batch_next += 1;
        // A single huge one makes no habit.
        let counted = batch_bytes.min(4 * self.large_batch_bytes());
        self.mean_batch_bytes = (self.mean_batch_bytes * 7 + counted) / 8;
        self.touched = std::mem::take(&mut self.batch.touched);
        // Payloads are borrowed from frames; an idle log must not keep them alive.
        self.batch.clear();
        Ok(())
    }

    fn hard_states_after(&self) -> HardStates {
        let mut states = self.index.read().hard_states();
        for (group, effect) in &self.batch.effects {
            if let Effect::HardState(hard_state, seq) = effect {
                states.insert(*group, (*seq, *hard_state));
            }
        }
        states
    }

    fn learn(&mut self, place: Place) {
        let mut index = self.index.write();
        for (group, effect) in self.batch.effects.drain(..) {
            let log = index.groups.entry(group).or_default();
            match effect {
                Effect::HardState(hard_state, seq) => {
                    log.hard_state = hard_state;
                    log.hard_state_seq = seq;
                }
                Effect::Truncate(_) if bug!(IndexKeepsWhatWasDropped) => {}
                Effect::Truncate(from) => log.truncate(from),
                Effect::Base(base) => {
                    log.rebase(*base);
                    self.base_moved = true;
                }
                Effect::Append(id, record_at) => log.append(id, Place { record_at, ..place }),
                Effect::Commit(commit) => log.commit = log.commit.max(commit),
            }
        }
    }

    /// Goes on in the next segment, which has room for a batch of `room` bytes.
    fn rotate(&mut self, room: u64) -> Result<(), Failed> {
        let mut checkpoint = self.checkpoint()?;
        let need = BLOCK as u64 + checkpoint.bytes() + room;
        let (name, bytes) =
            if need <= self.segment_bytes { (SPARE, self.segment_bytes) } else { (OVERSIZE, need) };
        let blank = if name == SPARE {
            self.spare.take()
        } else {
            // One batch fills it.
            Blank::prepare(None, self.vfs.as_ref(), &self.dir, name, bytes, 0)
        };
        let blank = blank.map_err(Failed::preparing)?;
        self.enter(name, blank, bytes, &mut checkpoint)
    }

    /// Gives a blank file its header and checkpoint, durably, then its name.
    ///
    /// Until it has that nothing of the log is touched, and another attempt begins with zeros.
    fn enter(
        &mut self,
        from: &str,
        blank: Blank,
        bytes: u64,
        checkpoint: &mut Batch,
    ) -> Result<(), Failed> {
        let Blank { file, zeroed, .. } = blank;
        let number = self.tail.segment + 1;
        let first_batch = self.tail.batch_next;
        let header = SegmentHeader::new(self.vfs.as_ref(), number, bytes, first_batch, self.disk);
        let path = self.dir.join(from);
        let preparing = |doing, source| Failed::preparing(io_error(&path, doing, source));
        file.write_at(&mut [IoSlice::new(&header.encode())], 0)
            .map_err(|source| preparing("writing", source))?;
        let at = BLOCK as u64;
        let batch_header = self.batch_header(header.salt, self.hard_state_seq);
        checkpoint
            .finish(batch_header, |slices| file.write_at(slices, at))
            .map_err(|source| preparing("writing", source))?;
        file.sync_data().map_err(|source| preparing("syncing", source))?;
        let name = self.dir.join(segment_name(number));
        self.vfs.rename(&path, &name).map_err(|source| preparing("renaming", source))?;
        if !bug!(SegmentsNameIsNotSynced) {
            self.vfs
                .sync_dir(&self.dir)
                .map_err(|source| io_error(&self.dir, "syncing the directory", source))?;
        }
        self.tail = Tail {
            segment: number,
            bytes,
            salt: header.salt,
            at: at + checkpoint.bytes(),
            batch_next: first_batch + 1,
        };
        self.file = past_cache(file.clone());
        // One that was made for a batch is full with it.
        self.zeroed = if from == SPARE { zeroed } else { bytes };
        self.touched.clear();
        self.owes_checkpoint = false;
        self.base_moved = false;
        self.watermark = first_batch;
        // The checkpoint changes nothing, so losing it would lose nothing.
        self.sealed = true;
        let (states, old) = {
            let mut index = self.index.write();
            index.files.insert(number, file);
            let before_previous = number.checked_sub(2);
            let old = before_previous.and_then(|number| index.files.get(&number).cloned());
            (index.hard_states(), old)
        };
        // Hardly anybody reads there again: its pages are better used for the segments to come.
        if let Some(old) = old {
            let _ = self.vfs.background(Box::new(move || drop(old.drop_cache())));
        }
        // Should the whole segment go missing, this tells that it was there.
        self.vote.write(&states, first_batch, number)?;
        self.reclaim();
        Ok(())
    }

    /// The batch that a segment begins with: everything about every group.
    fn checkpoint(&self) -> Result<Batch, StorageError> {
        let mut batch = Batch::default();
        batch.clear();
        let invalid = |detail| StorageError::Invalid { path: self.dir.clone(), detail };
        let index = self.index.read();
        for (group, log) in &index.groups {
            let record = Record::Checkpoint(Box::new(log.to_checkpoint(self.owes_checkpoint)));
            batch.record(*group, &record).map_err(invalid)?;
        }
        // What the batch before did comes last: a log begins with a checkpoint.
        for (group, lowest) in &self.touched {
            let last = index.groups.get(group).map(|log| log.last).unwrap_or_default();
            let record = Record::Previous { lowest: *lowest, last };
            batch.record(*group, &record).map_err(invalid)?;
        }
        Ok(batch)
    }

    /// The header of the next batch; the batch itself fills in count and length.
    const fn batch_header(&self, salt: u64, hard_state_seq: u64) -> BatchHeader {
        BatchHeader {
            records: 0,
            salt,
            number: self.tail.batch_next,
            bytes: 0,
            // One batch is written and synced before the next one is begun.
            watermark: self.tail.batch_next - 1,
            hard_state_seq,
        }
    }
}
