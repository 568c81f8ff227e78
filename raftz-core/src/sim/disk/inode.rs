//! One file, whatever its name: what a process reads, and the way back to what the disk holds.
//!
//! There is one copy of the content, the one that reads see. A write saves the bytes that it replaces;
//! what the disk holds is the content with those put back, newest first. So a sync only forgets them, and
//! a file at rest costs its own size and no more.
//!
//! The exception is what a failed sync leaves: sectors whose bytes in the cache pass for written and are
//! not. For those the disk's own bytes are kept beside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::DiskCounts;
use super::cut::{Fate, Plan, garble};
use crate::sim::choice::Chooser;

/// What a device writes as a whole.
pub(super) const SECTOR: usize = 512;
pub(super) type Sector = [u8; SECTOR];

pub(super) type InodeRef = Arc<Mutex<Inode>>;

/// Of a disk that ignores syncs: beyond this much of one file, the older half gets written after all.
const UNSYNCED_BYTES_MAX: usize = 1 << 20;
const UNSYNCED_CHANGES_MAX: usize = 1 << 10;
/// Buffers for replaced bytes that are kept for the next file.
const POOL_MAX: usize = 4;

/// Buffers for replaced bytes, shared by the files of a disk: most files are never written again.
#[derive(Default)]
pub(super) struct Pool(Vec<Vec<u8>>);

impl Pool {
    fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < POOL_MAX && buffer.capacity() <= UNSYNCED_BYTES_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// A change that no sync covers yet. Bytes and length may reach the disk one without the other.
#[derive(Clone, Copy)]
struct Change {
    /// Its place among all changes of the disk.
    seq: u64,
    /// The bytes that it touched: written, or cut off the end.
    from: usize,
    upto: usize,
    length_before: usize,
    length_after: usize,
}

impl Change {
    /// The bytes that it replaced.
    fn replaced(&self) -> Range<usize> {
        self.from.min(self.length_before)..self.upto.min(self.length_before)
    }

    const fn sectors(&self) -> Range<usize> {
        if self.from == self.upto {
            return 0..0;
        }
        self.from / SECTOR..self.upto.div_ceil(SECTOR)
    }
}

/// What became of a sector that unsynced changes touched.
struct Settled {
    sector: usize,
    bytes: Sector,
    /// Whether the device wrote it at all.
    written: bool,
}

/// The answer to a read.
pub(super) struct Read {
    pub(super) bytes: usize,
    /// Some of it was never written, and a sync said so.
    pub(super) lies: bool,
    /// Some of it cannot be read.
    pub(super) unreadable: bool,
}

/// A file.
#[derive(Default)]
pub(super) struct Inode {
    live: Vec<u8>,
    changes: Vec<Change>,
    /// The bytes that the changes replaced, one behind the other.
    replaced: Vec<u8>,
    /// What the disk holds where the cache, after a failed sync, shows something else.
    misled: BTreeMap<usize, Sector>,
    /// Sectors that the disk cannot read until they are written.
    unreadable: BTreeSet<usize>,
    /// Whether a process sees a name of it: only then it takes room.
    pub(super) is_named: bool,
}

fn copy_sector(content: &[u8], sector: usize) -> Sector {
    let mut bytes = [0; SECTOR];
    let from = (sector * SECTOR).min(content.len());
    let upto = (from + SECTOR).min(content.len());
    bytes[..upto - from].copy_from_slice(&content[from..upto]);
    bytes
}

fn put_sector(content: &mut [u8], sector: usize, bytes: &Sector) {
    let from = (sector * SECTOR).min(content.len());
    let upto = (from + SECTOR).min(content.len());
    content[from..upto].copy_from_slice(&bytes[..upto - from]);
}

impl Inode {
    /// A new file, which just got a name.
    pub(super) fn named() -> Self {
        Self { is_named: true, ..Self::default() }
    }

    /// A file that holds this, durably.
    pub(super) fn at_rest(content: Vec<u8>) -> Self {
        Self { live: content, ..Self::default() }
    }

    pub(super) const fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.live
    }

    /// How many changes no sync covers.
    pub(super) const fn unsynced(&self) -> usize {
        self.changes.len()
    }

    /// The places of those changes among all changes.
    pub(super) fn unsynced_seqs(&self) -> impl Iterator<Item = u64> {
        self.changes.iter().map(|change| change.seq)
    }

    fn is_unsynced(&self, sector: usize) -> bool {
        self.changes.iter().any(|change| change.sectors().contains(&sector))
    }

    /// Whether the disk holds of this sector what reads show, and can read it.
    pub(super) fn is_sound(&self, sector: usize) -> bool {
        !self.unreadable.contains(&sector)
            && !self.misled.contains_key(&sector)
            && !self.is_unsynced(sector)
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Read {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.live.len());
        let bytes = buf.len().min(self.live.len() - from);
        let upto = from + bytes;
        buf[..bytes].copy_from_slice(&self.live[from..upto]);
        let sectors = from / SECTOR..upto.div_ceil(SECTOR);
        let lies = !self.misled.is_empty() && self.misled.range(sectors.clone()).next().is_some();
        let unreadable = !self.unreadable.is_empty()
            && self.unreadable.range(sectors).any(|sector| {
                // Reads of what is in the cache do not reach the disk.
                !self.misled.contains_key(sector) && !self.is_unsynced(*sector)
            });
        Read { bytes, lies, unreadable }
    }

    /// Whether a write would have to read an unreadable sector first, because it covers it in part.
    pub(super) fn needs_unreadable(&self, from: usize, upto: usize) -> bool {
        !self.unreadable.is_empty()
            && self.unreadable.range(from / SECTOR..upto.div_ceil(SECTOR)).any(|sector| {
                let (first, last) = (sector * SECTOR, (sector + 1) * SECTOR);
                from > first || upto < last.min(self.live.len())
            })
    }

    /// Writes the first `total` bytes of `bufs`.
    pub(super) fn write(
        &mut self,
        seq: u64,
        bufs: &[IoSlice<'_>],
        from: usize,
        total: usize,
        pool: &mut Pool,
    ) {
        self.begin(seq, from, from + total, self.live.len().max(from + total), pool);
        if self.live.len() < from {
            self.live.resize(from, 0);
        }
        let (mut at, mut left) = (from, total);
        for buf in bufs {
            let buf = &buf[..buf.len().min(left)];
            let (inside, behind) = buf.split_at(buf.len().min(self.live.len() - at));
            self.live[at..at + inside.len()].copy_from_slice(inside);
            self.live.extend_from_slice(behind);
            at += buf.len();
            left -= buf.len();
        }
    }

    /// Empties the file.
    pub(super) fn empty(&mut self, seq: u64, pool: &mut Pool) {
        self.begin(seq, 0, self.live.len(), 0, pool);
        self.live.clear();
    }

    /// Notes a change, and saves what it is about to replace.
    fn begin(&mut self, seq: u64, from: usize, upto: usize, length_after: usize, pool: &mut Pool) {
        let length_before = self.live.len();
        let change = Change { seq, from, upto, length_before, length_after };
        if self.replaced.capacity() == 0 {
            self.replaced = pool.0.pop().unwrap_or_default();
        }
        self.replaced.extend_from_slice(&self.live[change.replaced()]);
        self.changes.push(change);
    }

    /// Makes all changes durable.
    pub(super) fn sync(&mut self, pool: &mut Pool) {
        self.forget(self.changes.len());
        self.changes.clear();
        pool.give(std::mem::take(&mut self.replaced));
    }

    /// What the first `count` changes touched is on the disk.
    fn forget(&mut self, count: usize) {
        if self.misled.is_empty() && self.unreadable.is_empty() {
            return;
        }
        for change in &self.changes[..count] {
            for sector in change.sectors() {
                self.misled.remove(&sector);
                self.unreadable.remove(&sector);
            }
        }
    }

    /// Lets the older half of the changes become durable where too many wait for a sync that never comes.
    pub(super) fn write_back_excess(&mut self) {
        if self.changes.len() > UNSYNCED_CHANGES_MAX || self.replaced.len() > UNSYNCED_BYTES_MAX {
            let half = self.changes.len().div_ceil(2);
            self.forget(half);
            let oldest = self.changes.drain(..half);
            let bytes: usize = oldest.map(|change| change.replaced().len()).sum();
            self.replaced.drain(..bytes);
        }
    }

    /// The sync fails: some sectors reach the disk, and none will be tried again, yet the cache shows all
    /// of them. A greater length, which the file system keeps in its journal, may become durable later.
    pub(super) fn fail_sync(
        &mut self,
        plan: Plan,
        seq: u64,
        chooser: &mut Chooser,
        counts: &mut DiskCounts,
        pool: &mut Pool,
    ) {
        for Settled { sector, bytes, written } in self.settle(plan, chooser, counts) {
            if bytes == copy_sector(&self.live, sector) {
                self.misled.remove(&sector);
            } else {
                self.misled.insert(sector, bytes);
            }
            if written {
                self.unreadable.remove(&sector);
            }
        }
        let length = self.live.len();
        // Behind its end a file holds zeros, whatever the platter does.
        self.misled.split_off(&length.div_ceil(SECTOR));
        let length_before = self.changes.first().map_or(length, |change| change.length_before);
        self.changes.clear();
        pool.give(std::mem::take(&mut self.replaced));
        if length_before < length {
            let change =
                Change { seq, from: length, upto: length, length_before, length_after: length };
            self.changes.push(change);
        }
    }

    /// From here on reads show the disk's own bytes, but for what waits for a sync.
    pub(super) fn drop_cache(&mut self) {
        let misled = std::mem::take(&mut self.misled);
        for (sector, bytes) in misled {
            if self.is_unsynced(sector) {
                self.misled.insert(sector, bytes);
            } else {
                put_sector(&mut self.live, sector, &bytes);
            }
        }
    }

    /// A power cut: what the disk holds is all that there is.
    pub(super) fn cut(&mut self, plan: Plan, chooser: &mut Chooser, counts: &mut DiskCounts) {
        if self.changes.is_empty() && self.misled.is_empty() {
            return;
        }
        let settled = self.settle(plan, chooser, counts);
        let length = self.settle_length(plan, chooser, counts);
        self.changes.clear();
        self.replaced = Vec::new();
        // A length that came back ends in bytes that a change touched, so all of them are settled.
        self.live.resize(length, 0);
        self.drop_cache();
        for Settled { sector, bytes, written } in settled {
            put_sector(&mut self.live, sector, &bytes);
            if written {
                self.unreadable.remove(&sector);
            }
        }
    }

    /// Decides what each touched sector holds on the disk.
    fn settle(&self, plan: Plan, chooser: &mut Chooser, counts: &mut DiskCounts) -> Vec<Settled> {
        let mut touches: Vec<(usize, usize)> = Vec::new();
        for (nth, change) in self.changes.iter().enumerate() {
            touches.extend(change.sectors().map(|sector| (sector, nth)));
        }
        touches.sort_unstable();
        let mut settled = Vec::new();
        let mut wanted: Vec<Vec<usize>> = vec![Vec::new(); self.changes.len()];
        let mut garbled = Vec::new();
        for touch in touches.chunk_by(|a, b| a.0 == b.0) {
            let seqs = touch.iter().map(|(_, nth)| self.changes[*nth].seq);
            let fate = plan.sector(seqs, chooser);
            match fate {
                Fate::Version(nth) if nth < touch.len() => counts.sectors_lost += 1,
                Fate::Version(_) => counts.sectors_kept += 1,
                Fate::Garbled(_) => counts.sectors_garbled += 1,
            }
            let version = match fate {
                Fate::Version(nth) => nth,
                Fate::Garbled(nth) => {
                    garbled.push(settled.len());
                    nth
                }
            };
            if version > 0 {
                wanted[touch[version - 1].1].push(settled.len());
            }
            settled.push(Settled { sector: touch[0].0, bytes: [0; SECTOR], written: version > 0 });
        }
        // Back in time, taking each sector where it looks as was decided.
        let mut content = self.live.clone();
        let mut saved_upto = self.replaced.len();
        for (change, wanted) in self.changes.iter().zip(&wanted).rev() {
            for nth in wanted {
                settled[*nth].bytes = copy_sector(&content, settled[*nth].sector);
            }
            let range = change.replaced();
            content.resize(change.length_before, 0);
            let saved_from = saved_upto - range.len();
            content[range].copy_from_slice(&self.replaced[saved_from..saved_upto]);
            saved_upto = saved_from;
        }
        let on_disk = |sector| match self.misled.get(&sector) {
            Some(bytes) => *bytes,
            None => copy_sector(&content, sector),
        };
        for nth in garbled {
            let Settled { sector, bytes, .. } = &mut settled[nth];
            *bytes = garble(&on_disk(*sector), bytes, chooser);
        }
        for Settled { sector, bytes, written } in &mut settled {
            if !*written {
                *bytes = on_disk(*sector);
            }
        }
        settled
    }

    fn settle_length(&self, plan: Plan, chooser: &mut Chooser, counts: &mut DiskCounts) -> usize {
        let changes =
            || self.changes.iter().filter(|change| change.length_before != change.length_after);
        let Some(first) = changes().next() else { return self.live.len() };
        let version = plan.length(changes().map(|change| change.seq), chooser);
        let length = match version.checked_sub(1) {
            None => first.length_before,
            Some(nth) => changes().nth(nth).map_or(first.length_before, |c| c.length_after),
        };
        if length != self.live.len() {
            counts.lengths_lost += 1;
        }
        length
    }

    /// Changes stored bytes. The caller has checked that the sector is sound.
    pub(super) fn damage(&mut self, at: usize, change: impl FnOnce(&mut [u8])) {
        let upto = (at / SECTOR * SECTOR + SECTOR).min(self.live.len());
        change(&mut self.live[at..upto]);
    }

    /// From here on the disk cannot read this sector.
    pub(super) fn spoil(&mut self, sector: usize) {
        self.unreadable.insert(sector);
    }
}
