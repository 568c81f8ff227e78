//! The second place of {term, vote}: two slots of one block, always written both.
//!
//! A hard state is promised only when the log and both slots hold it: the log is written first, one
//! slot next, the other one last, each synced before the next. So a slot never knows more than an
//! intact log, each single slot knows all that was promised, and no crash tears both. Whatever else
//! a slot states (the highest durable batch, the newest segment) is a watermark outside the log: it
//! exposes a log whose end was lost as a whole, and damage to one slot leaves it in the other.
//!
//! ```text
//!  0  magic "rzvote01"        16  slot sequence (8)      40  number of groups (4)
//!  8  crc32c of the block     24  watermark, a batch (8) 44  zero (4)
//! 12  format version (4)      32  newest segment (8)     48  per group 32 bytes:
//!                                     group (4), zero (4), sequence (8), term (8), vote (8)
//! ```
//! The disk id follows at byte 4080.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Buf, BufMut};

use super::files::{SlotFile, VOTE, corrupt, io_error};
use super::format::{BLOCK, FORMAT_VERSION, crc_holds, seal_crc};
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs};
use crate::types::{DiskId, GroupId, HardState, NodeId, SANE_MAX, Term};

const MAGIC: [u8; 8] = *b"rzvote01";
const CRC_AT: usize = 8;
const GROUPS_AT: usize = 48;
const GROUP_BYTES: usize = 32;
const DISK_AT: usize = BLOCK - 16;
/// Groups that fit a slot.
pub(super) const GROUPS_MAX: usize = (DISK_AT - GROUPS_AT) / GROUP_BYTES;

/// Hard states by group, each with its number in the store's order of them.
pub(super) type HardStates = BTreeMap<GroupId, (u64, HardState)>;

/// One slot's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its place in the order of slot writes.
    pub(super) seq: u64,
    /// Highest batch that was durable when it was written.
    pub(super) watermark: u64,
    /// Newest segment then.
    pub(super) segment: u64,
    /// Every group's hard state then.
    pub(super) states: HardStates,
}

/// The bytes of a slot.
pub(super) fn encode(slot: &Slot, disk: DiskId) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    out.put_slice(&MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u64_le(slot.seq);
    out.put_u64_le(slot.watermark);
    out.put_u64_le(slot.segment);
    out.put_u32_le(slot.states.len() as u32);
    out.put_u32_le(0);
    for (group, (seq, hard_state)) in &slot.states {
        out.put_u32_le(group.0);
        out.put_u32_le(0);
        out.put_u64_le(*seq);
        out.put_u64_le(hard_state.term.0);
        out.put_u64_le(hard_state.vote.map_or(0, NodeId::get));
    }
    out.resize(DISK_AT, 0);
    out.put_u128_le(disk.0);
    seal_crc(&mut out, CRC_AT);
    out
}

fn decode(bytes: &[u8], disk: DiskId) -> Option<Slot> {
    if bytes.len() < BLOCK || bytes[..8] != MAGIC || !crc_holds(bytes, CRC_AT) {
        return None;
    }
    let mut at = &bytes[12..];
    let version = at.get_u32_le();
    let mut slot = Slot { seq: at.get_u64_le(), ..Slot::default() };
    slot.watermark = at.get_u64_le();
    slot.segment = at.get_u64_le();
    let count = at.get_u32_le() as usize;
    let highest = slot.seq.max(slot.watermark).max(slot.segment);
    if version != FORMAT_VERSION || count > GROUPS_MAX || highest > SANE_MAX {
        return None;
    }
    at.advance(4);
    for _ in 0..count {
        let group = GroupId(at.get_u32_le());
        at.advance(4);
        let seq = at.get_u64_le();
        let term = Term(at.get_u64_le());
        let vote = NodeId::new(at.get_u64_le());
        if seq > SANE_MAX {
            return None;
        }
        slot.states.insert(group, (seq, HardState { term, vote }));
    }
    let mut tail = &bytes[DISK_AT..];
    (tail.get_u128_le() == disk.0).then_some(slot)
}

/// The open file.
pub(super) struct VoteFile {
    file: SlotFile,
    disk: DiskId,
    seq: u64,
}

/// What the file said at open.
pub(super) struct VoteFound {
    /// The newest readable slot, if any.
    pub(super) newest: Option<Slot>,
    /// The other one, if it could be read, too.
    pub(super) older: Option<Slot>,
}

impl VoteFound {
    /// Whether a slot could not be read.
    pub(super) const fn is_torn(&self) -> bool {
        self.older.is_none()
    }

    /// Whether both slots state `states` and cover whatever was found up to `watermark`.
    pub(super) fn covers(&self, states: &HardStates, watermark: u64, segment: u64) -> bool {
        [&self.newest, &self.older].into_iter().all(|slot| {
            slot.as_ref().is_some_and(|slot| {
                slot.states == *states && slot.watermark >= watermark && slot.segment == segment
            })
        })
    }
}

impl VoteFile {
    /// Opens and reads the file.
    pub(super) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        disk: DiskId,
    ) -> Result<(Self, VoteFound), StorageError> {
        let path = dir.join(VOTE);
        let file = vfs
            .open(&path, OpenMode::Existing)
            .map_err(|source| io_error(&path, "opening", source))?;
        let file = SlotFile { path, file };
        let raw = file.read()?;
        let mut slots: Vec<Slot> = raw.iter().filter_map(|bytes| decode(bytes, disk)).collect();
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.seq));
        let mut slots = slots.into_iter();
        let found = VoteFound { newest: slots.next(), older: slots.next() };
        let seq = found.newest.as_ref().map_or(0, |slot| slot.seq);
        Ok((Self { file, disk, seq }, found))
    }

    /// How far its numbers are used up.
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Writes over both slots, the older one first, each durably before the next.
    pub(super) fn write(
        &mut self,
        states: &HardStates,
        watermark: u64,
        segment: u64,
    ) -> Result<(), StorageError> {
        if states.len() > GROUPS_MAX {
            let detail = format!("{} groups; at most {GROUPS_MAX} fit", states.len());
            return Err(corrupt(&self.file.path, 0, detail));
        }
        for _ in 0..2 {
            let seq = self.seq + 1;
            if seq > SANE_MAX {
                let detail = "its numbers are used up, which no use can bring about: it was forged";
                return Err(corrupt(&self.file.path, 0, detail));
            }
            let slot = Slot { seq, watermark, segment, states: states.clone() };
            self.file.write(seq, &encode(&slot, self.disk))?;
            self.seq = seq;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_vote_slot_lies_as_it_is_drawn() {
        let hard_state = HardState { term: Term(6), vote: NodeId::new(7) };
        let states = HardStates::from([(GroupId(4), (5, hard_state))]);
        let slot = Slot { seq: 1, watermark: 2, segment: 3, states };
        let bytes = encode(&slot, DiskId(9));
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..8], b"rzvote01");
        let drawn =
            [(12, 1), (16, 1), (24, 2), (32, 3), (40, 1), (48, 4), (56, 5), (64, 6), (72, 7)];
        for (at, value) in drawn {
            assert_eq!(bytes[at], value, "byte {at}");
        }
        assert_eq!(bytes[4080], 9);
        assert_eq!(decode(&bytes, DiskId(9)), Some(slot));
        assert_eq!(decode(&bytes, DiskId(8)), None, "a slot of another directory");
    }
}
