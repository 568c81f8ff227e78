//! What a store of C's keeps: one record for each group, and entries. Both are bytes that nobody else looks into,
//! with checksums, so that what a store gives back is either what it was given or is found out.
//!
//! All that is hard about a log is decided here: which entries a write removes, where the next one belongs, what
//! a base replaces. What is left for a store is to keep a record and a run of numbered entries.

use bytes::{Buf, BufMut, Bytes};
use raftz_core::types::encode::{decode, encode};
use raftz_core::types::{
    Base, Boot, ClusterId, Damage, DiskId, Entry, EntryHeader, GroupId, HardState, Identity, Index,
    LogId, Lost, NodeId, Term, TermRun, WriteOp,
};

use crate::bytes::checksum;

/// The first bytes of a record.
const MAGIC: [u8; 4] = *b"rzst";
/// And of a snapshot's base.
const BASE_MAGIC: [u8; 4] = *b"rzsb";
/// Magic and checksum.
const PREFIX_BYTES: usize = 8;
const VERSION: u8 = 1;

/// What a record says of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) identity: Identity,
    pub(crate) boot: Boot,
    pub(crate) hard_state: HardState,
    pub(crate) base: Base,
    /// The last entry; that of the base if there is none.
    pub(crate) last: LogId,
    pub(crate) commit: Index,
    /// How far the log had reached before the store lost some of it. Set until that is replaced.
    pub(crate) lost: Option<LogId>,
}

fn lost_by(last: LogId) -> Lost {
    Lost { last_known: Some(last), term_max: last.term }
}

/// As it is written: fields are only ever appended.
type Fields = (
    u8,
    ClusterId,
    u64,
    NodeId,
    DiskId,
    u64,
    (u64, HardState, LogId, Index, Option<LogId>),
    Vec<u8>,
);

/// Bytes behind their kind and their checksum.
fn sealed(magic: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
    bytes.put_slice(&magic);
    bytes.put_u32_le(checksum(body));
    bytes.put_slice(body);
    bytes
}

/// Takes such bytes apart.
fn unsealed<'a>(magic: [u8; 4], kind: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let count = bytes.len();
    if count < PREFIX_BYTES || !bytes.starts_with(&magic) {
        return Err(format!("the {count} bytes that it gave back are no {kind} of raftz"));
    }
    let (prefix, body) = bytes.split_at(PREFIX_BYTES);
    if prefix[magic.len()..] != checksum(body).to_le_bytes() {
        return Err(format!("the {kind} of {count} bytes does not match its checksum"));
    }
    Ok(body)
}

/// What stands behind a snapshot in the log's place, for the program to keep with it.
pub(crate) fn encode_base(base: &Base) -> Result<Vec<u8>, String> {
    Ok(sealed(BASE_MAGIC, &encode(base).map_err(|error| error.to_string())?))
}

/// Such a base that is given back.
pub(crate) fn decode_base(bytes: &[u8]) -> Result<Base, String> {
    let body = unsealed(BASE_MAGIC, "base", bytes)?;
    let base: Base = decode(body).map_err(|error| error.to_string())?.0;
    base.membership.validate()?;
    base.settings.validate()?;
    if !base.id.index.is_sane() || !base.id.term.is_sane() {
        return Err(format!("the base has an absurd index: {}", base.id));
    }
    Ok(base)
}

impl Kept {
    /// Of a store that is new.
    pub(crate) fn founding(identity: Identity, base: Base) -> Self {
        let (last, commit) = (base.id, base.id.index);
        let (boot, hard_state) = (Boot(0), HardState::default());
        Self { identity, boot, hard_state, base, last, commit, lost: None }
    }

    /// The log ends here now. What was lost is replaced when the log is as new again.
    pub(crate) fn end_with(&mut self, last: LogId) {
        self.last = last;
        self.lost = self.lost.filter(|lost| !lost_by(*lost).is_overwritten_by(last));
    }

    /// What is lost, if anything is.
    pub(crate) fn damage(&self) -> Option<Damage> {
        let lost = lost_by(self.lost?);
        Some(Damage { first_faulty: self.last.index.next(), lost })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let Identity { cluster, epoch, node, disk, founders_hash } = self.identity;
        let base = encode(&self.base).map_err(|error| error.to_string())?;
        let state = (self.boot.0, self.hard_state, self.last, self.commit, self.lost);
        let fields: Fields = (VERSION, cluster, epoch, node, disk, founders_hash, state, base);
        let body = encode(&fields).map_err(|error| error.to_string())?;
        Ok(sealed(MAGIC, &body))
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, String> {
        let body = unsealed(MAGIC, "record", record)?;
        let words = |error: raftz_core::types::encode::MetadataError| error.to_string();
        let (fields, _) = decode::<Fields>(body).map_err(words)?;
        let (version, cluster, epoch, node, disk, founders_hash, state, base) = fields;
        if version == 0 {
            return Err("the record has no version".into());
        }
        let (boot, hard_state, last, commit, lost) = state;
        let base: Base = decode(&base).map_err(words)?.0;
        let identity = Identity { cluster, epoch, node, disk, founders_hash };
        if last < base.id || last.index < base.id.index || commit > last.index {
            return Err(format!("the record contradicts itself: {last} is behind {}", base.id));
        }
        Ok(Self { identity, boot: Boot(boot), hard_state, base, last, commit, lost })
    }
}

/// An entry as a store keeps it: the checksum of the header, the header, the payload.
pub(crate) fn encode_entry(entry: &Entry, group: GroupId, out: &mut Vec<u8>) {
    let mut header = Vec::with_capacity(entry.header_bytes());
    entry.encode_header(group, &mut header);
    out.put_u32_le(checksum(&header));
    out.put_slice(&header);
    out.put_slice(entry.payload.bytes());
}

/// An entry that a store gives back.
pub(crate) fn decode_entry(bytes: &[u8], group: GroupId) -> Result<Entry, String> {
    let count = bytes.len();
    let mut rest = bytes;
    let stated = rest.try_get_u32_le().map_err(|_| format!("{count} bytes are no entry"))?;
    let header = EntryHeader::decode(rest).map_err(|error| format!("no entry: {error}"))?;
    let (head, payload) = rest.split_at(header.header_bytes);
    if stated != checksum(head) {
        return Err("the header of an entry does not match its checksum".into());
    }
    if header.group != group {
        let other = header.group.0;
        return Err(format!("entry {} is of group {other}, not {}", header.index, group.0));
    }
    let index = header.index;
    header.with_payload(Bytes::copy_from_slice(payload)).ok_or_else(|| {
        format!("the payload of entry {index} does not match its checksum, or is cut short")
    })
}

/// What one submission changes of a group: first removals, then entries; and the record afterwards.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Entries at and above this index go.
    pub(crate) remove_from: Option<Index>,
    /// Entries at and below this index go.
    pub(crate) remove_upto: Option<Index>,
    pub(crate) entries: Vec<Entry>,
}

impl Change {
    fn remove_from(&mut self, from: Index) {
        self.remove_from = Some(self.remove_from.map_or(from, |other| other.min(from)));
    }
}

/// A group's log as its store has it once everything submitted is written.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) kept: Kept,
    /// The terms of all entries above the base.
    pub(crate) runs: Vec<TermRun>,
}

impl Log {
    /// The term of an entry above the base.
    pub(crate) fn term_of(&self, index: Index) -> Option<Term> {
        if index <= self.kept.base.id.index || index > self.kept.last.index {
            return None;
        }
        let behind = self.runs.partition_point(|run| run.first <= index);
        Some(self.runs.get(behind.checked_sub(1)?)?.term)
    }

    /// Takes an entry that follows the last one.
    pub(crate) fn follow(&mut self, entry: &Entry) {
        if self.runs.last().is_none_or(|run| run.term != entry.term) {
            self.runs.push(TermRun { first: entry.index, term: entry.term });
        }
        self.kept.end_with(entry.id());
    }

    /// Adds a write to what a submission changes. One that contradicts the log changes nothing.
    pub(crate) fn write(&mut self, op: WriteOp, change: &mut Change) -> Result<(), String> {
        self.contradiction(&op)?;
        if let Some(hard_state) = op.hard_state {
            self.kept.hard_state = hard_state;
        }
        if let Some(from) = op.truncate_from {
            self.truncate(from, change);
        }
        if let Some(base) = op.base.filter(|base| base.id != self.kept.base.id) {
            self.rebase(*base, change);
        }
        if let Some(first) = op.entries.first().filter(|_| self.kept.lost.is_some()) {
            // What is left of the lost end makes room.
            change.remove_from(first.index);
        }
        for entry in &op.entries {
            self.follow(entry);
            change.entries.push(entry.clone());
        }
        self.kept.commit = self.kept.commit.max(op.commit.min(self.kept.last.index));
        Ok(())
    }

    fn contradiction(&self, op: &WriteOp) -> Result<(), String> {
        let (base, last) = (self.kept.base.id, self.kept.last);
        let mut next = last.index.next();
        if let Some(from) = op.truncate_from {
            if from <= base.index {
                return Err(format!("entry {from} is part of the log's base"));
            }
            next = next.min(from);
        }
        if let Some(to) = op.base.as_deref().map(|to| to.id).filter(|to| *to != base) {
            if to.index <= base.index {
                return Err(format!("the base {base} cannot move to {to}"));
            }
            if to.index >= next || self.term_of(to.index) != Some(to.term) {
                next = to.index.next();
            }
        }
        for entry in &op.entries {
            if entry.index != next {
                return Err(format!("entry {} came where {next} comes next", entry.index));
            }
            next = next.next();
        }
        Ok(())
    }

    fn truncate(&mut self, from: Index, change: &mut Change) {
        change.entries.retain(|entry| entry.index < from);
        change.remove_from(from);
        if from <= self.kept.last.index {
            let end = from.prev();
            let term = self.term_of(end);
            self.kept.last = term.map_or(self.kept.base.id, |term| LogId::new(term, end));
            self.runs.retain(|run| run.first < from);
        }
    }

    fn rebase(&mut self, base: Base, change: &mut Change) {
        let to = base.id;
        if self.term_of(to.index) == Some(to.term) {
            change.entries.retain(|entry| entry.index > to.index);
            change.remove_upto = Some(to.index);
            let first = to.index.next();
            let whole = self.runs.partition_point(|run| run.first <= first);
            self.runs.drain(..whole.saturating_sub(1));
            match self.runs.first_mut() {
                Some(run) if first <= self.kept.last.index => run.first = run.first.max(first),
                Some(_) | None => self.runs.clear(),
            }
        } else {
            self.truncate(self.kept.base.id.index.next(), change);
            self.runs.clear();
            self.kept.end_with(to);
        }
        self.kept.commit = self.kept.commit.max(to.index);
        self.kept.base = base;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use raftz_core::types::{EntryKind, Member, Membership, Payload, SessionTag, Settings};

    use super::*;

    fn kept() -> Kept {
        let node = NodeId::new(1).unwrap();
        let base =
            Base::founding(Membership::of_voters([(node, Member::at("h:1"))]), Settings::default());
        let (cluster, disk) = (ClusterId(7), DiskId(8));
        Kept::founding(Identity { cluster, epoch: 0, node, disk, founders_hash: 9 }, base)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            term: Term(term),
            index: Index(index),
            log_time_us: 5,
            kind: EntryKind::Unknown(9),
            session: Some(SessionTag { session: 1, sequence: 2, acked_below: 3 }),
            payload: Payload::new(format!("{term}.{index}")),
        }
    }

    fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_every_other_is_found_out() {
        let mut kept = kept();
        kept.hard_state = HardState { term: Term(4), vote: NodeId::new(3) };
        kept.last = LogId::new(Term(4), Index(6));
        kept.commit = Index(5);
        kept.lost = Some(LogId::new(Term(4), Index(9)));
        let record = kept.encode().unwrap();
        assert_eq!(Kept::decode(&record), Ok(kept));
        for at in 0..record.len() {
            assert!(Kept::decode(&flipped(&record, at)).is_err(), "byte {at}");
            assert!(Kept::decode(&record[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was_and_every_other_is_found_out() {
        let (mut bytes, group) = (Vec::new(), GroupId::FIRST);
        encode_entry(&entry(3, 4), group, &mut bytes);
        assert_eq!(decode_entry(&bytes, group), Ok(entry(3, 4)));
        for at in 0..bytes.len() {
            assert!(decode_entry(&flipped(&bytes, at), group).is_err(), "byte {at}");
            assert!(decode_entry(&bytes[..at], group).is_err(), "{at} bytes");
        }
        assert!(decode_entry(&bytes, GroupId(2)).unwrap_err().contains("group"));
    }

    /// A store as simple as one can be, beside the log that tells it what to do.
    struct Model {
        log: Log,
        stored: std::collections::BTreeMap<Index, Term>,
    }

    impl Model {
        fn submit(&mut self, ops: Vec<WriteOp>) {
            let mut change = Change::default();
            for op in ops {
                self.log.write(op, &mut change).unwrap();
            }
            let (from, upto) = (change.remove_from, change.remove_upto);
            self.stored.retain(|index, _| {
                from.is_none_or(|from| *index < from) && upto.is_none_or(|upto| *index > upto)
            });
            for entry in change.entries {
                assert_eq!(
                    self.stored.insert(entry.index, entry.term),
                    None,
                    "it was to be removed"
                );
            }
            let Kept { base, last, .. } = &self.log.kept;
            let held: Vec<Index> = self.stored.keys().copied().collect();
            let wanted = (base.id.index.0 + 1..=last.index.0).map(Index);
            assert_eq!(held, wanted.collect::<Vec<_>>());
            for (index, term) in &self.stored {
                assert_eq!(self.log.term_of(*index), Some(*term), "{index}");
            }
        }
    }

    fn append(term: u64, indexes: std::ops::RangeInclusive<u64>) -> WriteOp {
        let entries = indexes.map(|index| entry(term, index)).collect();
        WriteOp { entries, ..WriteOp::default() }
    }

    fn cut(from: u64, term: u64, upto: u64) -> WriteOp {
        WriteOp { truncate_from: Some(Index(from)), ..append(term, from..=upto) }
    }

    fn base(term: u64, index: u64) -> WriteOp {
        let id = LogId::new(Term(term), Index(index));
        WriteOp { base: Some(Box::new(Base { id, ..Base::default() })), ..WriteOp::default() }
    }

    #[test]
    fn a_store_that_does_as_it_is_told_holds_the_log() {
        let mut model =
            Model { log: Log { kept: kept(), runs: Vec::new() }, stored: Default::default() };
        model.submit(vec![append(1, 1..=5), append(2, 6..=8)]);
        model.submit(vec![cut(7, 3, 9), cut(8, 4, 8), append(4, 9..=12)]);
        model.submit(vec![base(2, 6), append(4, 13..=13)]);
        model.submit(vec![append(4, 14..=15), base(4, 14), cut(15, 5, 17)]);
        model.submit(vec![base(5, 17)]);
        assert!(model.log.runs.is_empty());
        model.submit(vec![append(6, 18..=20), base(7, 19), append(7, 20..=21)]);
        model.submit(vec![base(7, 20), base(8, 40), append(8, 41..=42)]);
        model.submit(vec![WriteOp { truncate_from: Some(Index(41)), ..base(8, 42) }]);
        assert_eq!(model.log.kept.last, LogId::new(Term(8), Index(42)));
    }

    #[test]
    fn a_lost_end_makes_room_and_is_whole_when_the_log_is_as_new_again() {
        let mut model =
            Model { log: Log { kept: kept(), runs: Vec::new() }, stored: Default::default() };
        model.submit(vec![append(1, 1..=4), append(2, 5..=9)]);
        // From 7 on it is garbage.
        let log = &mut model.log;
        log.kept.lost = Some(log.kept.last);
        log.kept.last = LogId::new(Term(2), Index(6));
        let damage = log.kept.damage().unwrap();
        assert_eq!(damage.first_faulty, Index(7));
        assert_eq!(damage.lost.last_known, Some(LogId::new(Term(2), Index(9))));
        model.submit(vec![append(2, 7..=7), append(2, 8..=8)]);
        assert_eq!(model.log.kept.damage().unwrap().first_faulty, Index(9));
        model.submit(vec![append(2, 9..=9)]);
        assert_eq!(model.log.kept.damage(), None);
    }

    #[test]
    fn a_contradiction_changes_nothing() {
        let mut log = Log { kept: kept(), runs: Vec::new() };
        log.write(append(1, 1..=5), &mut Change::default()).unwrap();
        log.write(base(1, 3), &mut Change::default()).unwrap();
        let before = log.kept.clone();
        for op in [append(1, 7..=7), append(1, 5..=5), cut(3, 2, 4), base(1, 2), base(2, 3)] {
            let mut change = Change::default();
            assert!(log.write(op, &mut change).is_err());
            assert!(change.entries.is_empty() && change.remove_from.is_none());
            assert_eq!(log.kept, before);
        }
    }
}
