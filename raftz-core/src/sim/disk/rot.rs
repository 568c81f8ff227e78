//! Damage to what had been durable: bits that flip, sectors that go.

use super::cut::fill_with_nonsense;
use super::inode::{InodeRef, SECTOR};
use super::names::Entry;
use super::{SimDisk, State};

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit is another.
    FlipBit,
    /// A sector holds nonsense.
    GarbleSector,
    /// A sector holds zeros.
    ZeroSector,
    /// A sector cannot be read until it is written anew.
    LatentError,
}

/// One in so many places is taken from all sectors; the others hold something.
const ANYWHERE_ONE_IN: u64 = 16;

/// How many of the last sectors count as written last.
const LATEST: u64 = 6;

/// A file's sectors that hold on the disk what reads show.
fn sound_sectors(inode: &InodeRef, with_zeros: bool) -> Vec<usize> {
    let inode = inode.lock();
    let chunks = inode.content().chunks(SECTOR).enumerate();
    let holds = |chunk: &[u8]| with_zeros || *chunk != [0; SECTOR][..chunk.len()];
    chunks
        .filter(|(sector, chunk)| holds(chunk) && inode.is_sound(*sector))
        .map(|(sector, _)| sector)
        .collect()
}

impl State {
    fn rot(&mut self, kind: Rot, prefix: &str) -> Option<String> {
        let with_zeros = kind != Rot::ZeroSector && self.chooser.below(ANYWHERE_ONE_IN) == 1;
        let mut found = Vec::new();
        for (path, dir) in &self.dirs {
            for (name, entry) in dir.names().iter().filter(|(name, _)| name.starts_with(prefix)) {
                if let Entry::File(inode) = entry {
                    let sectors = sound_sectors(inode, with_zeros);
                    found.extend(sectors.into_iter().map(|sector| (path, name, inode, sector)));
                }
            }
        }
        let count = found.len() as u64;
        // What was written last is what others may still lack: every other time it is that.
        let place = match self.chooser.below(2) {
            0 => self.chooser.below(count),
            _ => count.saturating_sub(1 + self.chooser.below(count.min(LATEST))),
        };
        let (dir, name, inode, sector) = *found.get(usize::try_from(place).ok()?)?;
        let mut inode = inode.lock();
        let at = sector * SECTOR;
        let what = match kind {
            Rot::FlipBit => {
                let bytes = (inode.len() - at).min(SECTOR) as u64;
                let at = at + usize::try_from(self.chooser.below(bytes)).ok()?;
                let bit = self.chooser.below(8);
                inode.damage(at, |bytes| bytes[0] ^= 1 << bit);
                self.counts.bits_flipped += 1;
                format!("flipped bit {bit} of byte {at}")
            }
            Rot::GarbleSector => {
                inode.damage(at, |bytes| fill_with_nonsense(bytes, &mut self.chooser));
                self.counts.sectors_rotten += 1;
                format!("garbled the sector at byte {at}")
            }
            Rot::ZeroSector => {
                inode.damage(at, |bytes| bytes.fill(0));
                self.counts.sectors_rotten += 1;
                format!("zeroed the sector at byte {at}")
            }
            Rot::LatentError => {
                inode.spoil(sector);
                self.counts.sectors_unreadable += 1;
                format!("the sector at byte {at} cannot be read any more")
            }
        };
        Some(format!("{}: {what}", dir.join(name).display()))
    }
}

impl SimDisk {
    /// Damages, in a file whose name begins with `prefix`, what is durable: mostly where something is
    /// stored at all. The damage stays until it is overwritten.
    ///
    /// Leaves alone what waits for a sync and what a failed one left behind. Says what it did; `None` if
    /// there is nothing to damage.
    pub fn rot(&self, kind: Rot, prefix: &str) -> Option<String> {
        self.state.lock().rot(kind, prefix)
    }
}
