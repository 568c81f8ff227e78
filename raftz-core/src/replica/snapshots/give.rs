//! Giving snapshots to peers: one piece after the other to each, all of them within one rate.
//!
//! The rate is shared by so many peers at once as get a piece each before they ask again; the others wait for
//! their turn. Were it shared by more, every transfer could be given up before it moves, and none would end.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::types::{
    Event, Message, NodeId, SnapshotId, SnapshotMessage, SnapshotPhase, SnapshotTransfer,
};

use super::super::Action;
use super::super::member::Replica;
use super::{NEWS_BYTES, PIECE_BYTES_MAX};

/// Requests of one peer that wait to be served.
const REQUESTS_MAX: usize = 8;

/// All peers that are given a snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Giving {
    peers: BTreeMap<NodeId, Serving>,
    pace: Pace,
    /// How many transfers have begun, and which of them was given the last piece.
    begun: u64,
    last: u64,
}

/// A peer that is given a snapshot.
#[derive(Clone, Debug)]
struct Serving {
    id: SnapshotId,
    /// Which transfer it is, counted from 1.
    number: u64,
    /// Where pieces begin and their most bytes, ascending.
    requests: VecDeque<(u64, u32)>,
    reading: Option<(u64, u32)>,
    asked_us: u64,
    told_bytes: u64,
    /// Where the last piece ended that it was given.
    given_bytes: u64,
    /// It was given the last piece, and has asked for nothing since.
    is_done: bool,
}

/// Keeps pieces apart, so that they keep to a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When the next piece may go.
    free_us: u64,
}

impl Pace {
    /// So much lateness is made up for: whoever waits is not woken to the microsecond.
    const LATE_US: u64 = 10_000;

    fn spend(&mut self, now_us: u64, bytes: u64, bytes_per_s: u64) {
        let takes_us = u128::from(bytes) * 1_000_000;
        let takes_us = takes_us.checked_div(u128::from(bytes_per_s)).unwrap_or_default();
        let takes_us = u64::try_from(takes_us).unwrap_or(u64::MAX);
        let from_us = self.free_us.max(now_us.saturating_sub(Self::LATE_US));
        self.free_us = from_us.saturating_add(takes_us);
    }
}

impl Giving {
    /// The snapshots that somebody is given.
    pub(super) fn ids(&self) -> impl Iterator<Item = SnapshotId> {
        self.peers.values().map(|it| it.id)
    }

    /// How far each is that is not done.
    pub(super) fn transfers(&self) -> impl Iterator<Item = SnapshotTransfer> {
        let open = self.peers.iter().filter(|(_, it)| !it.is_done);
        open.map(|(peer, it)| SnapshotTransfer {
            peer: *peer,
            phase: SnapshotPhase::Sending,
            index: it.id.last.index,
            bytes: it.given_bytes,
            total_bytes: it.id.bytes,
        })
    }

    /// What a peer is given.
    pub(super) fn id_for(&self, peer: NodeId) -> Option<SnapshotId> {
        self.peers.get(&peer).map(|it| it.id)
    }

    /// When the rate allows the next piece, if one waits for that.
    pub(super) fn next_deadline(&self, most: usize) -> Option<u64> {
        self.turn(most).map(|_| self.pace.free_us)
    }

    /// Another rate is in force.
    pub(super) fn rate_changed(&mut self) {
        self.pace = Pace::default();
    }

    /// Lets those go who have not asked for so long. True if there were any.
    fn forget_silent(&mut self, now_us: u64, stall_us: u64) -> bool {
        let before = self.peers.len();
        let is_there = |it: &Serving| now_us.saturating_sub(it.asked_us) < stall_us;
        self.peers.retain(|_, it| it.reading.is_some() || is_there(it));
        self.peers.len() < before
    }

    /// Whose turn it is, among the `most` oldest transfers.
    fn turn(&self, most: usize) -> Option<(u64, NodeId)> {
        if self.peers.is_empty() {
            return None;
        }
        let open = self.peers.iter().filter(|(_, it)| !it.is_done);
        let mut oldest: Vec<(u64, NodeId)> = open.map(|(peer, it)| (it.number, *peer)).collect();
        oldest.sort_unstable();
        oldest.truncate(most);
        oldest.retain(|(_, peer)| self.peers.get(peer).is_some_and(Serving::is_waiting));
        let behind = oldest.iter().find(|(number, _)| *number > self.last);
        behind.or(oldest.first()).copied()
    }

    fn next(&mut self, most: usize) -> Option<(NodeId, &mut Serving)> {
        let (number, peer) = self.turn(most)?;
        self.last = number;
        self.peers.get_mut(&peer).map(|it| (peer, it))
    }
}

impl Serving {
    fn is_waiting(&self) -> bool {
        self.reading.is_none() && !self.requests.is_empty()
    }

    /// Takes a request. Somebody asks for one piece after the other: who asks for an earlier one than before
    /// has begun anew, and whatever it asked for from there on is asked for once more or not wanted.
    fn ask(&mut self, request: (u64, u32)) {
        self.is_done = false;
        self.requests.retain(|(offset, _)| *offset < request.0);
        if self.reading != Some(request) && self.requests.len() < REQUESTS_MAX {
            self.requests.push_back(request);
        }
    }
}

impl Replica {
    pub(super) fn take_fetch(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        request: (u64, u32),
        out: &mut Vec<Action>,
    ) {
        let is_absurd = request.0 >= id.bytes || request.1 == 0;
        if is_absurd || !self.raft.membership().contains(from) {
            return;
        }
        let request = (request.0, request.1.min(PIECE_BYTES_MAX));
        let now_us = self.now.boot_us;
        let giving = &mut self.snapshots.giving;
        let serving = giving.peers.entry(from).or_insert_with(|| Serving {
            id,
            number: giving.begun.saturating_add(1),
            requests: VecDeque::new(),
            reading: None,
            asked_us: now_us,
            told_bytes: 0,
            given_bytes: 0,
            is_done: false,
        });
        giving.begun = giving.begun.max(serving.number);
        if serving.id != id {
            serving.id = id;
            serving.requests.clear();
            serving.told_bytes = 0;
        }
        serving.asked_us = now_us;
        serving.ask(request);
        let is_news = request.0 == 0 || request.0 >= serving.told_bytes.saturating_add(NEWS_BYTES);
        if is_news {
            serving.told_bytes = request.0;
            self.tell(SnapshotPhase::Sending, Some(from), id, request.0, out);
        }
    }

    /// Starts the reads that the rate allows.
    pub(super) fn give(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        let policy = self.snapshots.policy;
        let giving = &mut self.snapshots.giving;
        if giving.peers.is_empty() {
            return;
        }
        if giving.forget_silent(now_us, policy.stall_us) {
            self.prune(out);
        }
        let most = policy.served_at_once();
        let giving = &mut self.snapshots.giving;
        while now_us >= giving.pace.free_us {
            let Some((to, serving)) = giving.next(most) else { return };
            let id = serving.id;
            let Some((offset, bytes_max)) = serving.requests.pop_front() else { return };
            serving.reading = Some((offset, bytes_max));
            giving.pace.spend(now_us, u64::from(bytes_max), policy.send_bytes_per_s);
            out.push(Action::ReadPiece { to, id, offset, bytes_max });
        }
    }

    pub(in crate::replica) fn piece_read(
        &mut self,
        to: NodeId,
        id: SnapshotId,
        offset: u64,
        result: Result<Bytes, String>,
        out: &mut Vec<Action>,
    ) {
        if let Some(serving) = self.snapshots.giving.peers.get_mut(&to) {
            serving.reading = None;
        }
        let message = match result {
            Ok(bytes) => {
                let end = offset.saturating_add(bytes.len() as u64);
                if let Some(serving) = self.snapshots.giving.peers.get_mut(&to) {
                    serving.given_bytes = end;
                    serving.is_done = end >= id.bytes && serving.requests.is_empty();
                }
                if end >= id.bytes {
                    self.tell(SnapshotPhase::Sent, Some(to), id, id.bytes, out);
                }
                SnapshotMessage::Piece { id, offset, bytes }
            }
            Err(detail) => {
                self.snapshots.giving.peers.remove(&to);
                if self.snapshots.newest.as_ref().is_some_and(|kept| kept.id == id) {
                    self.snapshot_damaged(id, &detail, out);
                }
                let detail = format!("node {to} is refused a snapshot: {detail}");
                out.push(Action::Event(Event::StorageTrouble { detail }));
                SnapshotMessage::Gone { id }
            }
        };
        out.push(Action::Send { to, message: Message::Snapshot(message) });
    }
}
