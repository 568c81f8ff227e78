//! What the log's batches say, taken together: the pure half of recovery.
//!
//! Batches are fed in order; where some are lost, the replay is told so. From then on a group that
//! they touched has a *hole*: its log is intact below, and what follows is only watched for the
//! identity of the true last entry. The hole closes when a later write drops everything from below
//! it on, because then the entries that were lost are gone from the log anyway; and when the log's base
//! passes all of them, if what came behind them is all there.
//!
//! An earlier open that found a hole has said so in the checkpoint of a new segment, and what was written from
//! then on goes on from what it had left. Where that checkpoint is lost, too, later batches therefore prove
//! nothing of what was lost before it: a group *owes* the memory of it until another checkpoint speaks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::format::{BatchHeader, Checkpoint, Placed, Record, payload_of, records};
use super::index::{GroupLog, Place};
use crate::types::{Base, Entry, EntryHeader, EntryKind, GroupId, Index, LogId, Lost};

/// Why a log is refused that nobody can tell the beginning of.
pub(super) const NO_CHECKPOINT: &str = "the oldest segment does not begin with its checkpoint, \
     which holds the log's base; restore the file, or remove this node and join under a new id";

/// Lost entries, as long as only the log itself tells of them.
struct Hole {
    first_faulty: Index,
    /// The log's last entry according to what came after the loss.
    tip: Option<LogId>,
    /// The entries that came after the latest loss, one after the other: intact, and the log again
    /// once a base covers all that is missing before them.
    later: Option<Box<Group>>,
}

impl Hole {
    fn entry(&mut self, header: EntryHeader, payload: Bytes, place: Place) -> Result<(), String> {
        self.tip = Some(LogId::new(header.term, header.index));
        let before = header.index.prev();
        let later = self.later.take().filter(|later| later.log.last.index == before);
        let begun = || Box::new(Group { log: GroupLog::after(before), ..Group::default() });
        self.later.insert(later.unwrap_or_else(begun)).entry(header, payload, place)
    }

    fn truncate(&mut self, from: Index) {
        self.tip = None;
        self.later = self.later.take().filter(|later| from > later.log.base.id.index);
        if let Some(later) = &mut self.later {
            later.truncate(from);
        }
    }
}

/// A group in replay.
#[derive(Default)]
pub(super) struct Group {
    pub(super) log: GroupLog,
    /// Entries that are neither commands nor no-ops.
    pub(super) config: BTreeMap<Index, Entry>,
    hole: Option<Hole>,
    /// Losses of which a lost checkpoint may have told, with the log's last entry if it is known.
    owed: Option<Option<LogId>>,
}

impl Group {
    fn truncate(&mut self, from: Index) {
        self.log.truncate(from);
        self.config.split_off(&from);
    }

    /// Everything from `from` on may be lost.
    fn lose_from(&mut self, from: Index) {
        let from = from.max(self.log.base.id.index.next()).min(self.log.last.index.next());
        self.truncate(from);
        match &mut self.hole {
            Some(hole) => {
                hole.first_faulty = hole.first_faulty.min(from);
                hole.tip = None;
                hole.later = None;
            }
            None => self.hole = Some(Hole { first_faulty: from, tip: None, later: None }),
        }
    }

    /// Ends the log with `last`, if it holds that very entry. By Log Matching it then holds, intact,
    /// everything before it, whatever was lost on the way there.
    fn ends_with(&mut self, last: LogId) -> bool {
        self.log.learn_last(last);
        let holds = self.log.term_at(last.index) == Some(last.term);
        if holds {
            self.hole = None;
            self.truncate(last.index.next());
        }
        holds
    }

    /// A later batch tells what the last entry was at its time.
    fn note_last(&mut self, last: LogId) {
        if self.hole.is_some()
            && !self.ends_with(last)
            && let Some(hole) = &mut self.hole
        {
            hole.tip = Some(last);
        }
    }

    fn entry(&mut self, header: EntryHeader, payload: Bytes, place: Place) -> Result<(), String> {
        let id = LogId::new(header.term, header.index);
        if let Some(hole) = &mut self.hole {
            return hole.entry(header, payload, place);
        }
        if id.index != self.log.last.index.next() {
            return Err(format!("entry {id} follows entry {}", self.log.last));
        }
        match header.kind {
            EntryKind::Noop | EntryKind::Command => {}
            EntryKind::Membership | EntryKind::Settings | EntryKind::Unknown(_) => {
                let entry = header
                    .with_payload(Bytes::copy_from_slice(&payload))
                    .ok_or_else(|| format!("entry {id} does not match its own checksum"))?;
                self.config.insert(id.index, entry);
            }
        }
        self.log.append(id, place);
        Ok(())
    }

    fn truncated(&mut self, from: Index) {
        match &mut self.hole {
            Some(hole) if from > hole.first_faulty => hole.truncate(from),
            Some(_) | None => {
                self.hole = None;
                self.truncate(from);
            }
        }
    }

    /// The log begins at `base`: what is missing at and below it is missed no more.
    fn rebase(&mut self, base: Base) -> Result<(), String> {
        let (present, upto) = (self.log.base.id, base.id.index);
        if base.id == present {
            return Ok(());
        }
        if upto <= present.index {
            return Err(format!("the log's base moves back from {present} to {}", base.id));
        }
        if let Some(mut hole) = self.hole.take_if(|hole| hole.first_faulty <= upto) {
            let is_beyond = hole.tip.is_some_and(|tip| tip.index <= upto);
            if let Some(later) = hole.later.take_if(|later| later.reaches(upto)) {
                self.log.take_entries(later.log);
                self.config = later.config;
            } else if !is_beyond {
                self.hole = Some(Hole { first_faulty: upto.next(), ..hole });
            }
        }
        self.log.rebase(base);
        self.config = self.config.split_off(&upto.next());
        Ok(())
    }

    /// Whether all entries behind `index` are in it, as far as the log goes.
    fn reaches(&self, index: Index) -> bool {
        (self.log.base.id.index..=self.log.last.index).contains(&index)
    }

    fn checkpoint(&mut self, state: Checkpoint) -> Result<(), String> {
        // A base that was moved by a batch that is lost is stated here again.
        self.rebase(state.base.clone())?;
        if self.hole.is_some() {
            self.note_last(state.last);
        } else {
            if state.recovered {
                self.truncate(state.last.index.next());
            }
            self.log.learn_last(state.last);
            if self.log.last != state.last || self.log.base != state.base {
                return Err(format!(
                    "the log ends with {}, but the checkpoint here says {}",
                    self.log.last, state.last
                ));
            }
        }
        self.hard_state(state.hard_state_seq, state.hard_state);
        self.log.commit = self.log.commit.max(state.commit);
        self.log.damage = state.damage;
        self.owed = None;
        Ok(())
    }

    /// A checkpoint is lost, and unless it `is_first_lost` what came right before it.
    fn owe(&mut self, is_first_lost: bool) {
        let hole = self.hole.as_ref().map(|hole| hole.tip);
        let here = hole.or_else(|| (!is_first_lost).then_some(None));
        self.owed = [self.owed, here].into_iter().flatten().reduce(newest);
    }

    /// Takes a hard state if it is newer than the one known.
    pub(super) fn hard_state(&mut self, seq: u64, hard_state: crate::types::HardState) {
        if seq >= self.log.hard_state_seq {
            self.log.hard_state_seq = seq;
            self.log.hard_state = hard_state;
        }
    }

    /// Turns a hole, and what is owed, into damage that is remembered. True if there was any.
    fn settle(&mut self) -> bool {
        let found = [self.owed.take(), self.hole.take().map(|hole| hole.tip)];
        let found = found.into_iter().flatten().filter(|_| !bug!(DamageIsNotRemembered));
        let earlier = self.log.damage.map(|damage| damage.last_known);
        let Some(known) = found.reduce(newest) else { return false };
        let known = earlier.map_or(known, |earlier| newest(earlier, known));
        let term_max =
            self.log.hard_state.term.max(known.map_or_else(Default::default, |k| k.term));
        let lost = Lost { last_known: known, term_max };
        // Where a checkpoint is owed, what it told of may have been brought back since.
        let is_lost = !lost.is_overwritten_by(self.log.last);
        if is_lost {
            self.log.damage = Some(lost);
        }
        is_lost
    }
}

/// Of two losses the newer last entry, if both are known.
fn newest(one: Option<LogId>, other: Option<LogId>) -> Option<LogId> {
    Some(one?.max(other?))
}

/// All groups in replay.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// Highest watermark that any batch stated.
    pub(super) watermark: u64,
    /// Highest hard-state sequence that any batch header stated.
    pub(super) hard_state_stated: u64,
    /// What the last batch touched, for the next one to restate.
    pub(super) touched: BTreeMap<GroupId, Index>,
    /// Whether the last batch carries nothing but its watermark.
    pub(super) sealed: bool,
    /// Whether the base has moved since the last checkpoint.
    pub(super) base_moved: bool,
    /// Whether any batch was taken: the first one states the log's base.
    pub(super) begun: bool,
}

impl Replay {
    /// Takes the next intact batch; `lost` batches before it could not be read.
    pub(super) fn batch(
        &mut self,
        header: &BatchHeader,
        bytes: &Bytes,
        lost: u64,
        place: Place,
    ) -> Result<(), String> {
        let placed = records(bytes, header)?;
        if lost > 0 {
            self.lost_before(lost, &placed);
        }
        self.watermark = self.watermark.max(header.watermark);
        self.hard_state_stated = self.hard_state_stated.max(header.hard_state_seq);
        self.touched.clear();
        self.sealed = false;
        if !self.begun
            && !matches!(placed.first(), Some(Placed { record: Record::Checkpoint(_), .. }))
        {
            return Err(NO_CHECKPOINT.into());
        }
        for Placed { at, group, record } in placed {
            let place = Place { record_at: at as u64, ..place };
            self.record(group, record, bytes, place)?;
        }
        self.begun = true;
        Ok(())
    }

    /// A segment's checkpoint is lost; `is_first_lost` if the batch before it is not.
    pub(super) fn lost_checkpoint(&mut self, is_first_lost: bool) {
        for group in self.groups.values_mut() {
            group.owe(is_first_lost);
        }
    }

    /// The last batches are lost, and nothing tells what they held.
    pub(super) fn lost_at_end(&mut self) {
        for group in self.groups.values_mut() {
            group.lose_from(group.log.commit.next());
        }
        // The next batch follows a lost one, of which this says nothing.
        self.touched.clear();
        self.sealed = false;
    }

    fn lost_before(&mut self, lost: u64, placed: &[Placed]) {
        let mut intact = BTreeSet::new();
        for Placed { group, record, .. } in placed {
            let last = match record {
                Record::Previous { last, .. } => *last,
                Record::Checkpoint(state) => state.last,
                Record::Entry { .. }
                | Record::HardState { .. }
                | Record::Truncate { .. }
                | Record::Commit { .. }
                | Record::Seal
                | Record::Base(_) => continue,
            };
            if self.groups.get_mut(group).is_some_and(|log| log.ends_with(last)) {
                intact.insert(*group);
            }
        }
        if lost > 1 {
            for (id, group) in &mut self.groups {
                if !intact.contains(id) {
                    group.lose_from(group.log.commit.next());
                }
            }
        }
        for Placed { group, record, .. } in placed {
            let Record::Previous { lowest, last } = record else { continue };
            if intact.contains(group) {
                continue;
            }
            let group = self.groups.entry(*group).or_default();
            if lost == 1 && lowest.0 != u64::MAX {
                group.lose_from(*lowest);
            }
            group.note_last(*last);
        }
    }

    fn touch(&mut self, group: GroupId, index: Index) {
        let lowest = self.touched.entry(group).or_insert(index);
        *lowest = (*lowest).min(index);
    }

    fn record(
        &mut self,
        id: GroupId,
        record: Record,
        bytes: &Bytes,
        place: Place,
    ) -> Result<(), String> {
        if let Record::Checkpoint(state) = record {
            self.base_moved = false;
            if !self.begun {
                let log = GroupLog::from_checkpoint(*state);
                self.groups.insert(id, Group { log, ..Group::default() });
                return Ok(());
            }
            return self.groups.entry(id).or_default().checkpoint(*state);
        }
        let group = self.groups.entry(id).or_default();
        match record {
            Record::Entry { header, payload } => {
                group.entry(header, payload_of(bytes, payload), place)?;
                self.touch(id, header.index);
            }
            Record::HardState { hard_state, seq } => {
                group.hard_state(seq, hard_state);
                self.touch(id, Index(u64::MAX));
            }
            Record::Truncate { from } => {
                if from <= group.log.base.id.index {
                    return Err(format!("entry {from} is dropped from below the base"));
                }
                group.truncated(from);
                self.touch(id, from);
            }
            Record::Commit { commit } => group.log.commit = group.log.commit.max(commit),
            Record::Base(base) => {
                let end = group.log.last.index;
                let is_beyond = base.id.index > end;
                group.rebase(*base)?;
                self.touch(id, if is_beyond { end.next() } else { Index(u64::MAX) });
                self.base_moved = true;
            }
            Record::Seal => self.sealed = true,
            Record::Previous { .. } | Record::Checkpoint(_) => {}
        }
        Ok(())
    }

    /// Ends the replay. True if something is newly lost, so that it must be written down.
    pub(super) fn settle(&mut self) -> bool {
        // Every group must settle, so this must not stop at the first that has lost something.
        let newly_lost = self.groups.values_mut().map(Group::settle);
        newly_lost.filter(|lost| *lost).count() > 0
    }
}
