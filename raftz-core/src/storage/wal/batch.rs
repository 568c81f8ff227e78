//! Turns a submission into the bytes of one batch, without copying large payloads.
//!
//! Small pieces are gathered into one buffer; a payload of a block or more stays where it is and
//! is written from there. Beside the bytes come the *effects*: what the index must learn once the
//! batch is durable, and not before.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use super::format::{
    BATCH_HEADER, BLOCK, BatchHeader, Record, padded, put_entry_record, put_record, seal_batch,
};
use super::index::{GroupLog, LogIndex};
use crate::types::{Base, GroupId, HardState, Index, LogId, TermRun, WriteOp};

/// What a record does to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A new hard state.
    HardState(HardState, u64),
    /// Entries dropped.
    Truncate(Index),
    /// The log begins here.
    Base(Box<Base>),
    /// An entry, by its record's place in the batch.
    Append(LogId, u64),
    /// More is known committed.
    Commit(Index),
}

enum Piece {
    Gathered(Range<usize>),
    Borrowed(Bytes),
}

/// A batch under construction.
#[derive(Default)]
pub(super) struct Batch {
    gathered: Vec<u8>,
    /// Where the part of `gathered` begins that no piece covers yet.
    open: usize,
    pieces: Vec<Piece>,
    borrowed_bytes: u64,
    records: u32,
    /// In order.
    pub(super) effects: Vec<(GroupId, Effect)>,
    /// Lowest index touched per group; `u64::MAX` where none was.
    pub(super) touched: BTreeMap<GroupId, Index>,
    /// Highest hard-state sequence in it, if any.
    pub(super) hard_state_seq: Option<u64>,
}

impl Batch {
    /// Empties it and keeps the buffer.
    pub(super) fn clear(&mut self) {
        self.gathered.clear();
        self.gathered.resize(BATCH_HEADER, 0);
        self.open = BATCH_HEADER;
        self.pieces.clear();
        self.borrowed_bytes = 0;
        self.records = 0;
        self.effects.clear();
        self.touched.clear();
        self.hard_state_seq = None;
    }

    /// Length on disk.
    pub(super) fn bytes(&self) -> u64 {
        padded(self.unpadded())
    }

    fn unpadded(&self) -> u64 {
        self.gathered.len() as u64 + self.borrowed_bytes
    }

    /// Adds a record that is not an entry.
    pub(super) fn record(&mut self, group: GroupId, record: &Record) -> Result<(), String> {
        self.records += 1;
        put_record(&mut self.gathered, group, record)
    }

    fn touch(&mut self, group: GroupId, index: Index) {
        let lowest = self.touched.entry(group).or_insert(index);
        *lowest = (*lowest).min(index);
    }

    /// Adds a group's write. `log` is how far the group is, and is moved along.
    pub(super) fn write(
        &mut self,
        group: GroupId,
        op: &WriteOp,
        log: &mut Progress<'_>,
        hard_state_seq: &mut u64,
    ) -> Result<(), String> {
        if let Some(hard_state) = op.hard_state {
            *hard_state_seq = hard_state_seq.saturating_add(1);
            let seq = *hard_state_seq;
            self.record(group, &Record::HardState { hard_state, seq })?;
            self.effects.push((group, Effect::HardState(hard_state, seq)));
            self.hard_state_seq = Some(seq);
            self.touch(group, Index(u64::MAX));
        }
        if let Some(from) = op.truncate_from {
            if from <= log.base.index {
                return Err(format!(
                    "entry {from} is part of the log's base and cannot be dropped"
                ));
            }
            self.truncate(group, from, log)?;
        }
        if let Some(base) = op.base.as_deref().filter(|base| base.id != log.base) {
            self.rebase(group, base, log)?;
        }
        for entry in &op.entries {
            if entry.index != log.last.next() {
                return Err(format!("entry {} does not follow entry {}", entry.index, log.last));
            }
            let bytes = u32::try_from(entry.payload.len())
                .map_err(|_| format!("entry {} does not fit 32 bits of length", entry.index))?;
            let at = self.unpadded();
            let body = entry.header_bytes() as u64 + u64::from(bytes);
            put_entry_record(&mut self.gathered, group, body);
            entry.encode_header(group, &mut self.gathered);
            self.payload(entry.payload.bytes());
            self.records += 1;
            self.effects.push((group, Effect::Append(entry.id(), at)));
            self.touch(group, entry.index);
            log.append(entry.id());
        }
        let commit = if bug!(CommitHintIsTheLastEntry) { log.last } else { op.commit };
        if commit > log.commit {
            self.record(group, &Record::Commit { commit })?;
            self.effects.push((group, Effect::Commit(commit)));
            log.commit = commit;
        }
        Ok(())
    }

    fn truncate(
        &mut self,
        group: GroupId,
        from: Index,
        log: &mut Progress<'_>,
    ) -> Result<(), String> {
        if !bug!(TruncationIsNotLogged) {
            self.record(group, &Record::Truncate { from })?;
        }
        self.effects.push((group, Effect::Truncate(from)));
        self.touch(group, from);
        log.truncate(from);
        Ok(())
    }

    /// Where the log does not hold the base's entry, everything is dropped by a record of its own.
    /// Recovery, which may not know the terms of what older segments held, need not ask then.
    fn rebase(
        &mut self,
        group: GroupId,
        base: &Base,
        log: &mut Progress<'_>,
    ) -> Result<(), String> {
        if base.id.index <= log.base.index {
            return Err(format!("the log's base {} cannot move to {}", log.base, base.id));
        }
        if log.last > log.base.index && !log.holds(base.id) {
            self.truncate(group, log.base.index.next(), log)?;
        }
        self.record(group, &Record::Base(Box::new(base.clone())))?;
        self.effects.push((group, Effect::Base(Box::new(base.clone()))));
        // Beyond the log's end it stands for entries, and without it these are missed.
        let is_beyond = base.id.index > log.last;
        self.touch(group, if is_beyond { log.last.next() } else { Index(u64::MAX) });
        log.base = base.id;
        log.last = log.last.max(base.id.index);
        log.commit = log.commit.max(base.id.index);
        Ok(())
    }

    fn payload(&mut self, payload: &Bytes) {
        if payload.len() < BLOCK {
            self.gathered.extend_from_slice(payload);
            return;
        }
        self.close_piece();
        self.borrowed_bytes += payload.len() as u64;
        self.pieces.push(Piece::Borrowed(payload.clone()));
    }

    fn close_piece(&mut self) {
        if self.open < self.gathered.len() {
            self.pieces.push(Piece::Gathered(self.open..self.gathered.len()));
            self.open = self.gathered.len();
        }
    }

    /// Pads the batch, seals it with its checksum, and gives `write` all of it in order.
    pub(super) fn finish<R>(
        &mut self,
        mut header: BatchHeader,
        write: impl FnOnce(&mut [IoSlice<'_>]) -> R,
    ) -> R {
        header.records = self.records;
        header.bytes = self.bytes();
        let padding = (header.bytes - self.unpadded()) as usize;
        self.gathered.resize(self.gathered.len() + padding, 0);
        self.close_piece();
        let mut head = header.encode();
        let rest: Vec<&[u8]> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Gathered(range) => &self.gathered[range.clone()],
                Piece::Borrowed(bytes) => &bytes[..],
            })
            .collect();
        seal_batch(&mut head, rest.iter().copied());
        let mut slices = Vec::with_capacity(rest.len() + 1);
        slices.push(IoSlice::new(&head));
        slices.extend(rest.iter().map(|piece| IoSlice::new(piece)));
        write(&mut slices)
    }
}

/// How far a group's log is, counting what the batch under construction will add.
#[derive(Debug, Default)]
pub(super) struct Progress<'a> {
    durable: Option<&'a GroupLog>,
    base: LogId,
    last: Index,
    commit: Index,
    /// The terms of what the batch itself appends.
    added: Vec<TermRun>,
}

impl<'a> Progress<'a> {
    /// As the index has it.
    pub(super) fn of(index: &'a LogIndex, group: GroupId) -> Self {
        index.groups.get(&group).map_or_else(Self::default, |log| Self {
            durable: Some(log),
            base: log.base.id,
            last: log.last.index,
            commit: log.commit,
            added: Vec::new(),
        })
    }

    fn append(&mut self, id: LogId) {
        if self.added.last().is_none_or(|run| run.term != id.term) {
            self.added.push(TermRun { first: id.index, term: id.term });
        }
        self.last = id.index;
    }

    fn truncate(&mut self, from: Index) {
        self.added.retain(|run| run.first < from);
        self.last = self.last.min(from.prev());
    }

    /// Whether an entry above the base is in the log.
    fn holds(&self, id: LogId) -> bool {
        let added = self.added.iter().rfind(|run| run.first <= id.index).map(|run| run.term);
        let durable = || self.durable.and_then(|log| log.term_at(id.index));
        id.index <= self.last && added.or_else(durable) == Some(id.term)
    }
}
