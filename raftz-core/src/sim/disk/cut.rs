//! What becomes of unsynced changes when the power goes, or when a sync fails.
//!
//! Hardware and kernels promise nothing about them: not the order, not that a change is kept as a whole,
//! and of a sector that was being written not even that it holds the old bytes or the new ones.

use super::inode::{SECTOR, Sector};
use crate::sim::choice::Chooser;

/// How a cut deals with all that it finds unsynced. The regular cases are as likely as the wild ones,
/// which alone would hardly ever meet them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Everything had reached the disk.
    Keep,
    /// Nothing had.
    Lose,
    /// Everything before the change of this number had; that one is torn.
    Prefix(u64),
    /// Everything (or nothing) had, but for about one in `few`.
    Any { few: u64, mostly_kept: bool },
}

/// What a sector holds afterwards. Version 0 is what was durable, version n what the nth of the changes
/// that touched it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Version(usize),
    /// A mixture of what was durable, of this version, and of nonsense.
    Garbled(usize),
}

impl Plan {
    /// A plan for a disk with these unsynced changes.
    pub(super) fn draw(mut seqs: Vec<u64>, chooser: &mut Chooser) -> Self {
        if seqs.is_empty() {
            return Self::Keep;
        }
        seqs.sort_unstable();
        match chooser.below(8) {
            0 => Self::Keep,
            1 => Self::Lose,
            2..=4 => Self::Prefix(chooser.pick(&seqs)),
            _ => Self::Any { few: chooser.between(1, 8), mostly_kept: chooser.below(2) == 0 },
        }
    }

    /// The fate of a sector that these changes touched, in this order; there is at least one.
    pub(super) fn sector(
        self,
        seqs: impl ExactSizeIterator<Item = u64>,
        chooser: &mut Chooser,
    ) -> Fate {
        let newest = seqs.len();
        match self {
            Self::Keep => Fate::Version(newest),
            Self::Lose => Fate::Version(0),
            Self::Prefix(torn) => {
                let (kept, is_torn) = before(seqs, torn);
                match is_torn.then(|| chooser.below(3)) {
                    Some(0) => Fate::Version(kept + 1),
                    Some(1) | None => Fate::Version(kept),
                    Some(_) => Fate::Garbled(kept + 1),
                }
            }
            Self::Any { few, mostly_kept } => {
                let answer = chooser.below(few + 2);
                if answer < few {
                    Fate::Version(if mostly_kept { newest } else { 0 })
                } else if answer == few {
                    Fate::Version(index(chooser.below(newest as u64 + 1)))
                } else {
                    Fate::Garbled(1 + index(chooser.below(newest as u64)))
                }
            }
        }
    }

    /// The version of a file's length, which these changes altered.
    pub(super) fn length(
        self,
        seqs: impl Iterator<Item = u64> + Clone,
        chooser: &mut Chooser,
    ) -> usize {
        let newest = seqs.clone().count();
        match self {
            Self::Keep => newest,
            Self::Lose => 0,
            Self::Prefix(torn) => {
                let (kept, is_torn) = before(seqs, torn);
                kept + usize::from(is_torn && chooser.below(2) == 0)
            }
            Self::Any { .. } => newest - index(chooser.below(newest as u64 + 1)),
        }
    }

    /// Whether a change of a name is kept.
    pub(super) fn name(self, seq: u64, chooser: &mut Chooser) -> bool {
        match self {
            Self::Keep => true,
            Self::Lose => false,
            Self::Prefix(torn) => seq < torn || (seq == torn && chooser.below(2) == 0),
            // Names are few: each may go either way.
            Self::Any { few, mostly_kept } => (chooser.below(few + 1) < few) == mostly_kept,
        }
    }
}

/// How many of `seqs` come before `torn`, and whether it is among them.
fn before(seqs: impl Iterator<Item = u64>, torn: u64) -> (usize, bool) {
    let (mut kept, mut is_torn) = (0, false);
    for seq in seqs {
        kept += usize::from(seq < torn);
        is_torn |= seq == torn;
    }
    (kept, is_torn)
}

fn index(answer: u64) -> usize {
    usize::try_from(answer).unwrap_or_default()
}

/// A sector that was being written when the power went.
pub(super) fn garble(old: &Sector, new: &Sector, chooser: &mut Chooser) -> Sector {
    let mut bytes = *new;
    match chooser.below(4) {
        0 => {
            let cut = 1 + index(chooser.below(SECTOR as u64 - 1));
            bytes[cut..].copy_from_slice(&old[cut..]);
        }
        1 => {
            let cut = 1 + index(chooser.below(SECTOR as u64 - 1));
            bytes[..cut].copy_from_slice(&old[..cut]);
        }
        2 => bytes = bytes.map(|byte| !byte),
        _ => fill_with_nonsense(&mut bytes, chooser),
    }
    bytes
}

/// Fills `bytes` with what one answer spreads to, so that a recording stays short.
pub(super) fn fill_with_nonsense(bytes: &mut [u8], chooser: &mut Chooser) {
    let mut state = chooser.number();
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
    }
}
