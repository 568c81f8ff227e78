//! Fetching a snapshot from a peer: a few pieces asked for ahead, each verified before the next ones are.

use bytes::Bytes;

use crate::types::{
    Event, Message, NodeId, Snapshot, SnapshotId, SnapshotMessage, SnapshotPhase, SnapshotTransfer,
};

use super::super::Action;
use super::super::member::Replica;
use super::{NEWS_BYTES, PIECE_BYTES_MAX, SnapshotPolicy};

/// Pieces asked for and not yet on the disk.
const PIECES_AHEAD: u64 = 4;
/// After this part of the time for giving up, what did not come is asked for again.
pub(super) const RETRY_PARTS: u64 = 5;
/// Pieces that may be found damaged before a transfer is given up.
const DAMAGED_MAX: u32 = 3;

/// A snapshot that is being fetched.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    id: SnapshotId,
    from: NodeId,
    phase: Phase,
    /// On the disk, and verified.
    held: u64,
    /// The offset of the next piece to come, and of the next to ask for.
    expected: u64,
    asked: u64,
    moved_us: u64,
    retry_us: u64,
    damaged: u32,
    told_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Beginning,
    Moving,
    Finishing,
}

impl Fetching {
    /// When what did not come is asked for again.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        (self.phase == Phase::Moving).then_some(self.retry_us)
    }

    /// How far it is.
    pub(super) fn transfer(&self) -> SnapshotTransfer {
        SnapshotTransfer {
            peer: self.from,
            phase: SnapshotPhase::Fetching,
            index: self.id.last.index,
            bytes: self.held,
            total_bytes: self.id.bytes,
        }
    }

    /// Whether this is what is fetched from there.
    pub(super) fn is_of(&self, id: SnapshotId, from: NodeId) -> bool {
        (self.id, self.from) == (id, from)
    }
}

impl Replica {
    /// The leader offers what this node needs. What is being fetched already, and moves, goes on.
    pub(in crate::replica) fn offered(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        out: &mut Vec<Action>,
    ) {
        let now_us = self.now.boot_us;
        let patience_us = self.snapshots.policy.stall_us / RETRY_PARTS;
        if let Some(fetching) = &mut self.snapshots.fetching {
            if fetching.id == id {
                fetching.from = from;
                return;
            }
            let (source, last) = (fetching.from, fetching.id.last.index);
            let is_moving = now_us.saturating_sub(fetching.moved_us) < patience_us;
            if is_moving && self.is_linked(source) && self.raft.wants_snapshot(last) {
                return;
            }
            self.give_up_fetch("another one is offered, and this one does not move", out);
        } else if now_us < self.snapshots.fetch_from_us {
            return;
        }
        self.snapshots.fetching = Some(Fetching {
            id,
            from,
            phase: Phase::Beginning,
            held: 0,
            expected: 0,
            asked: 0,
            moved_us: now_us,
            retry_us: now_us,
            damaged: 0,
            told_bytes: 0,
        });
        out.push(Action::BeginFetch { id });
    }

    pub(in crate::replica) fn fetch_began(
        &mut self,
        id: SnapshotId,
        result: Result<u64, String>,
        out: &mut Vec<Action>,
    ) {
        let now_us = self.now.boot_us;
        let Some(fetching) = self.snapshots.fetching.as_mut().filter(|it| it.id == id) else {
            return;
        };
        match result {
            Ok(held) => {
                fetching.phase = Phase::Moving;
                (fetching.held, fetching.expected, fetching.asked) = (held, held, held);
                fetching.moved_us = now_us;
                let from = fetching.from;
                self.tell(SnapshotPhase::Fetching, Some(from), id, held, out);
                self.ask_for_pieces(out);
            }
            Err(detail) => self.give_up_fetch(&detail, out),
        }
    }

    fn ask_for_pieces(&mut self, out: &mut Vec<Action>) {
        let SnapshotPolicy { stall_us, piece_bytes, .. } = self.snapshots.policy;
        let now_us = self.now.boot_us;
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        if fetching.phase != Phase::Moving {
            return;
        }
        let (id, from) = (fetching.id, fetching.from);
        if fetching.held == id.bytes {
            fetching.phase = Phase::Finishing;
            return out.push(Action::FinishFetch { id });
        }
        let piece = piece_bytes.clamp(1, PIECE_BYTES_MAX);
        let ahead = u64::from(piece) * PIECES_AHEAD;
        while fetching.asked < id.bytes
            && fetching.asked - fetching.held.min(fetching.asked) < ahead
        {
            let offset = fetching.asked;
            let bytes_max = piece.min(u32::try_from(id.bytes - offset).unwrap_or(piece));
            fetching.asked += u64::from(bytes_max);
            let fetch = SnapshotMessage::Fetch { id, offset, bytes_max };
            out.push(Action::Send { to: from, message: Message::Snapshot(fetch) });
        }
        fetching.retry_us = now_us.saturating_add((stall_us / RETRY_PARTS).max(1));
    }

    pub(super) fn take_piece(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        offset: u64,
        bytes: Bytes,
        out: &mut Vec<Action>,
    ) {
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        let end = offset.saturating_add(bytes.len() as u64);
        let fits = !bytes.is_empty() && bytes.len() <= PIECE_BYTES_MAX as usize && end <= id.bytes;
        let is_next = fetching.phase == Phase::Moving && fetching.expected == offset;
        if fetching.id != id || fetching.from != from || !fits || !is_next {
            return;
        }
        fetching.expected = end;
        fetching.asked = fetching.asked.max(end);
        out.push(Action::WritePiece { id, offset, bytes });
    }

    pub(in crate::replica) fn piece_written(
        &mut self,
        id: SnapshotId,
        held: u64,
        damage: Option<String>,
        out: &mut Vec<Action>,
    ) {
        let now_us = self.now.boot_us;
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        if fetching.id != id || fetching.phase != Phase::Moving {
            return;
        }
        if held > fetching.held {
            fetching.moved_us = now_us;
        }
        fetching.held = held;
        if let Some(detail) = damage {
            fetching.damaged += 1;
            (fetching.expected, fetching.asked) = (held, held);
            if fetching.damaged > DAMAGED_MAX {
                return self.give_up_fetch(&detail, out);
            }
        }
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        let from = fetching.from;
        if held >= fetching.told_bytes.saturating_add(NEWS_BYTES) {
            fetching.told_bytes = held;
            self.tell(SnapshotPhase::Fetching, Some(from), id, held, out);
        }
        self.ask_for_pieces(out);
    }

    pub(in crate::replica) fn fetch_finished(
        &mut self,
        id: SnapshotId,
        result: Result<Snapshot, String>,
        out: &mut Vec<Action>,
    ) {
        if self.snapshots.fetching.take_if(|it| it.id == id).is_none() {
            return;
        }
        match result {
            Ok(snapshot) => {
                self.tell(SnapshotPhase::Fetched, None, id, id.bytes, out);
                self.keep_snapshot(snapshot, out);
            }
            Err(detail) => {
                self.pause_fetching();
                let detail = format!("a fetched snapshot is not whole: {detail}");
                out.push(Action::Event(Event::StorageTrouble { detail }));
                self.tell(SnapshotPhase::Failed, None, id, 0, out);
            }
        }
    }

    /// Asks again for what did not come, and gives up what has not moved for too long.
    pub(super) fn retry_fetch(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        let stall_us = self.snapshots.policy.stall_us;
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        let last = fetching.id.last.index;
        if fetching.phase != Phase::Finishing && !self.raft.wants_snapshot(last) {
            return self.abandon_fetch(out);
        }
        if fetching.phase != Phase::Moving || now_us < fetching.retry_us {
            return;
        }
        if now_us.saturating_sub(fetching.moved_us) >= stall_us {
            return self.give_up_fetch("it has not moved for too long", out);
        }
        fetching.asked = fetching.expected;
        self.ask_for_pieces(out);
    }

    pub(super) fn give_up_fetch(&mut self, why: &str, out: &mut Vec<Action>) {
        if let Some(Fetching { from, .. }) = &self.snapshots.fetching {
            let detail = format!("fetching a snapshot from node {from} ended: {why}");
            out.push(Action::Event(Event::StorageTrouble { detail }));
        }
        self.pause_fetching();
        self.abandon_fetch(out);
    }

    /// What just failed would only fail again.
    fn pause_fetching(&mut self) {
        let patience_us = self.snapshots.policy.stall_us / RETRY_PARTS;
        self.snapshots.fetch_from_us = self.now.boot_us.saturating_add(patience_us);
    }

    fn abandon_fetch(&mut self, out: &mut Vec<Action>) {
        let Some(Fetching { id, from, held, .. }) = self.snapshots.fetching.take() else { return };
        out.push(Action::AbandonFetch { id });
        self.tell(SnapshotPhase::Failed, Some(from), id, held, out);
    }
}
