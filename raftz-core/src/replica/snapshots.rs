//! Snapshots of one replica: when to take one, what the log keeps behind it, whom to serve, what to fetch.
//!
//! The core decides who needs a snapshot and when the machine is restored. Here is what moves bytes: a node that
//! is offered a snapshot *pulls* it piece by piece, from any node that has it; so a transfer outlives a leader,
//! goes on where it broke off, and is never faster than its receiver. Whoever is asked gives one piece after the
//! other, within a rate. Pieces are read, checked and written elsewhere.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::raft;
use crate::types::{
    Event, Index, Message, NodeId, Snapshot, SnapshotId, SnapshotMessage, SnapshotPhase,
};

use super::Action;
use super::member::Replica;

/// How a replica deals with snapshots. May be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// A snapshot is due after so many bytes of applied entries, give or take a fifth; 0: never for that reason.
    pub log_bytes: u64,
    /// Likewise after so many entries; 0: never for that reason.
    pub log_entries: u64,
    /// Bytes of entries that stay in the log behind a snapshot, for peers that are a little behind.
    pub retain_bytes: u64,
    /// How many snapshots are kept, at least one.
    pub keep: usize,
    /// Most bytes of snapshots sent in a second, to all peers together; 0: no bound.
    pub send_bytes_per_s: u64,
    /// Bytes asked for at once.
    pub piece_bytes: u32,
    /// A transfer that has not moved for so long is given up, and begun again at the leader's next offer.
    pub stall_us: u64,
}

impl SnapshotPolicy {
    /// No snapshot is taken by itself; the log is never shortened.
    pub const NEVER: Self =
        Self { log_bytes: 0, log_entries: 0, retain_bytes: u64::MAX, ..Self::DEFAULT };

    const DEFAULT: Self = Self {
        log_bytes: 64 << 20,
        log_entries: 1_000_000,
        retain_bytes: 16 << 20,
        keep: 2,
        send_bytes_per_s: 0,
        piece_bytes: 256 << 10,
        stall_us: 10_000_000,
    };
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The most that anybody is given at once.
const PIECE_BYTES_MAX: u32 = 1 << 20;
/// Pieces asked for and not yet on the disk.
const PIECES_AHEAD: u64 = 4;
/// Requests of one peer that wait to be served.
const REQUESTS_MAX: usize = 8;
/// After this part of the time for giving up, what did not come is asked for again.
const RETRY_PARTS: u64 = 5;
/// Pieces that may be found damaged before a transfer is given up.
const DAMAGED_MAX: u32 = 3;
/// Every so many bytes a transfer is told of.
const NEWS_BYTES: u64 = 32 << 20;
/// While a peer fetches a snapshot, the log keeps so many times the bytes that it otherwise would.
const FETCHING_RETAINS: u64 = 8;
/// After failures the next snapshot waits for up to so many times the log that is otherwise enough.
const BACK_OFF_MAX: u32 = 6;

/// A peer that is given a snapshot.
#[derive(Clone, Debug)]
struct Serving {
    id: SnapshotId,
    requests: VecDeque<(u64, u32)>,
    is_reading: bool,
    asked_us: u64,
    told_bytes: u64,
}

/// A snapshot that is being fetched.
#[derive(Clone, Debug)]
struct Fetching {
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

/// What of the send rate is left.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    bytes: u64,
    filled_us: u64,
}

impl Budget {
    /// Fills up to what a tenth of a second allows. True where something may be sent.
    fn fill(&mut self, now_us: u64, bytes_per_s: u64) -> bool {
        if bytes_per_s == 0 {
            self.bytes = u64::MAX;
            return true;
        }
        let most = (bytes_per_s / 10).max(1);
        let passed_us = now_us.saturating_sub(self.filled_us);
        let gained = u128::from(bytes_per_s) * u128::from(passed_us) / 1_000_000;
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        if gained > 0 {
            self.bytes = self.bytes.min(most).saturating_add(gained).min(most);
            self.filled_us = now_us;
        }
        self.bytes > 0
    }

    fn spend(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    policy: SnapshotPolicy,
    rng: ChaCha8Rng,
    /// Of what was applied in this life: all bytes, and those up to some indexes, ascending.
    applied_bytes: u64,
    marks: VecDeque<(Index, u64)>,
    /// The last entry that was applied in this life, or that the machine was restored to, and its log time.
    log_time: Option<(Index, u64)>,
    newest: Option<Snapshot>,
    /// What had been applied when the last snapshot was begun.
    begun_at: (Index, u64),
    /// Of the present round: how much more or less log than the policy says, in thousandths.
    jitter: u64,
    is_building: bool,
    is_wanted: bool,
    failures: u32,
    serving: BTreeMap<NodeId, Serving>,
    budget: Budget,
    fetching: Option<Fetching>,
    compacted_us: u64,
}

impl Snapshots {
    pub(super) fn new(
        policy: SnapshotPolicy,
        newest: Option<Snapshot>,
        base: Index,
        seed: u64,
    ) -> Self {
        let log_time = newest.as_ref().map(|kept| (kept.base.id.index, kept.base.log_time_us));
        let start = log_time.map_or(base, |(start, _)| start);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x736e_6170);
        let jitter = draw_jitter(&mut rng);
        Self {
            policy,
            rng,
            applied_bytes: 0,
            marks: VecDeque::from([(base, 0), (start, 0)]),
            log_time,
            newest,
            begun_at: (start, 0),
            jitter,
            is_building: false,
            is_wanted: false,
            failures: 0,
            serving: BTreeMap::new(),
            budget: Budget::default(),
            fetching: None,
            compacted_us: 0,
        }
    }

    fn is_due(&self, applied: Index) -> bool {
        if self.is_wanted {
            return true;
        }
        let SnapshotPolicy { log_bytes, log_entries, .. } = self.policy;
        let scaled = |least: u64| {
            let scaled = u128::from(least) * u128::from(self.jitter) / 1000;
            u64::try_from(scaled << self.failures).unwrap_or(u64::MAX).max(1)
        };
        let bytes = self.applied_bytes.saturating_sub(self.begun_at.1);
        let entries = self.begun_at.0.distance_to(applied);
        (log_bytes > 0 && bytes >= scaled(log_bytes))
            || (log_entries > 0 && entries >= scaled(log_entries))
    }

    /// The first index behind which the log up to the newest snapshot holds at most `bytes`.
    fn tail_from(&self, newest: Index, bytes: u64) -> Index {
        let upto =
            self.marks.iter().rev().find(|(index, _)| *index <= newest).map_or(0, |(_, at)| *at);
        let is_more = |(_, at): &&(Index, u64)| upto.saturating_sub(*at) > bytes;
        let first = self.marks.iter().skip_while(is_more).map(|(index, _)| *index).next();
        first.unwrap_or(newest).min(newest)
    }

    /// The time at which something is due here, if anything is.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let retry =
            self.fetching.as_ref().filter(|it| it.phase == Phase::Moving).map(|it| it.retry_us);
        let is_waiting = |it: &Serving| !it.is_reading && !it.requests.is_empty();
        let rate = self.policy.send_bytes_per_s.max(1);
        let refill = self.serving.values().any(is_waiting).then(|| {
            let wait_us = (1_000_000 / rate).max(10_000);
            self.budget.filled_us.saturating_add(wait_us)
        });
        [retry, refill].into_iter().flatten().min()
    }
}

/// Between four and six fifths, in thousandths: nodes of one group should not all pause at once.
fn draw_jitter(rng: &mut ChaCha8Rng) -> u64 {
    800 + rng.next_u64() % 401
}

impl Replica {
    /// Changes how this replica deals with snapshots from now on.
    pub(super) fn set_snapshot_policy(&mut self, policy: SnapshotPolicy) {
        self.snapshots.policy = policy;
    }

    /// The newest snapshot on this node's disk.
    pub fn newest_snapshot(&self) -> Option<&Snapshot> {
        self.snapshots.newest.as_ref()
    }

    /// A snapshot is wanted now, whatever the policy says.
    pub(super) fn want_snapshot(&mut self) {
        self.snapshots.is_wanted = true;
    }

    /// Counts what was applied.
    pub(super) fn note_applied(&mut self, last: Index, log_time_us: u64, bytes: u64) {
        let it = &mut self.snapshots;
        it.log_time = Some((last, log_time_us));
        it.applied_bytes = it.applied_bytes.saturating_add(bytes);
        let step = (it.policy.retain_bytes / 16).max(1);
        let at = it.marks.back().map_or(0, |(_, at)| *at);
        if it.applied_bytes.saturating_sub(at) >= step {
            it.marks.push_back((last, it.applied_bytes));
        }
    }

    /// What every step may cause here: a snapshot, a shorter log, pieces to read and to ask for.
    pub(super) fn run_snapshots(&mut self, out: &mut Vec<Action>) {
        if self.fault.is_some() {
            return;
        }
        self.take_snapshot(out);
        self.serve(out);
        self.retry_fetch(out);
        let now_us = self.now.boot_us;
        if now_us.saturating_sub(self.snapshots.compacted_us) >= self.snapshots.policy.stall_us / 10
        {
            self.compact(out);
        }
    }

    // ---- taking one ----

    fn take_snapshot(&mut self, out: &mut Vec<Action>) {
        let applied = self.raft.applied();
        let it = &self.snapshots;
        let is_new = it.newest.as_ref().is_none_or(|kept| kept.base.id.index < applied);
        if it.is_building || !is_new || !it.is_due(applied) || self.raft.is_applying() {
            return;
        }
        // Of what a machine kept from an earlier life the log time is not known before more is applied.
        let Some(log_time_us) = it.log_time.filter(|(at, _)| *at == applied).map(|(_, us)| us)
        else {
            return;
        };
        let stands_still = bug!(SnapshotForgetsItsLogTime) && self.raft.id().get() == 1;
        let log_time_us = if stands_still { 0 } else { log_time_us };
        let Some(base) = self.raft.base_at(applied, log_time_us) else { return };
        let it = &mut self.snapshots;
        it.is_building = true;
        it.is_wanted = false;
        it.begun_at = (applied, it.applied_bytes);
        it.marks.push_back(it.begun_at);
        it.jitter = draw_jitter(&mut it.rng);
        out.push(Action::TakeSnapshot { base: Box::new(base) });
    }

    pub(super) fn snapshot_built(
        &mut self,
        result: Result<Snapshot, String>,
        out: &mut Vec<Action>,
    ) {
        self.snapshots.is_building = false;
        match result {
            Ok(snapshot) => {
                self.snapshots.failures = 0;
                self.tell(SnapshotPhase::Built, None, snapshot.id, snapshot.id.bytes, out);
                self.keep_snapshot(snapshot, out);
            }
            Err(detail) => {
                let failures = &mut self.snapshots.failures;
                *failures = failures.saturating_add(1).min(BACK_OFF_MAX);
                let detail = format!("a snapshot could not be taken: {detail}");
                out.push(Action::Event(Event::StorageTrouble { detail }));
            }
        }
    }

    /// A snapshot is complete on this disk, whoever made it.
    fn keep_snapshot(&mut self, snapshot: Snapshot, out: &mut Vec<Action>) {
        let is_newer =
            self.snapshots.newest.as_ref().is_none_or(|kept| kept.id.last <= snapshot.id.last);
        if is_newer {
            self.snapshots.newest = Some(snapshot.clone());
        }
        self.drive(raft::Input::SnapshotKept { snapshot }, out);
        self.compact(out);
        self.prune(out);
    }

    fn prune(&self, out: &mut Vec<Action>) {
        let spare = self.snapshots.serving.values().map(|it| it.id).collect();
        let keep = self.snapshots.policy.keep.max(1);
        out.push(Action::PruneSnapshots { keep, spare });
    }

    /// The machine is at a snapshot that was not its own: counting starts there.
    pub(super) fn snapshot_restored(&mut self, id: SnapshotId, out: &mut Vec<Action>) {
        let it = &mut self.snapshots;
        if let Some(kept) = it.newest.as_ref().filter(|kept| kept.id == id) {
            it.log_time = Some((id.last.index, kept.base.log_time_us));
        }
        let last = id.last.index;
        it.marks = VecDeque::from([(last, it.applied_bytes)]);
        it.begun_at = (last, it.applied_bytes);
        self.tell(SnapshotPhase::Installed, None, id, id.bytes, out);
    }

    // ---- the log behind it ----

    fn compact(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        self.snapshots.compacted_us = now_us;
        let Some(newest) = self.snapshots.newest.as_ref().map(|kept| kept.base.id.index) else {
            return;
        };
        let it = &self.snapshots;
        let retain = it.policy.retain_bytes;
        let mut upto = it.tail_from(newest, retain);
        let since_us = now_us.saturating_sub(it.policy.stall_us);
        if let Some(needs) = self.raft.peers_need(since_us) {
            // A leader knows what is needed: no more is kept for peers that are there.
            let mut wanted = newest;
            for (peer, need) in needs {
                match need {
                    Some(next) => wanted = wanted.min(next.prev().max(upto)),
                    None => {
                        let far = it.tail_from(newest, retain.saturating_mul(FETCHING_RETAINS));
                        let fetched = it.serving.get(&peer).map_or(newest, |it| it.id.last.index);
                        wanted = wanted.min(fetched.max(far));
                    }
                }
            }
            upto = wanted;
        }
        if upto <= self.raft.base().index {
            return;
        }
        self.drive(raft::Input::Compact { upto }, out);
        let base = self.raft.base().index;
        let marks = &mut self.snapshots.marks;
        while marks.len() > 1 && marks.get(1).is_some_and(|(index, _)| *index <= base) {
            marks.pop_front();
        }
    }

    // ---- giving ----

    pub(super) fn take_snapshot_message(
        &mut self,
        from: NodeId,
        message: SnapshotMessage,
        out: &mut Vec<Action>,
    ) {
        match message {
            SnapshotMessage::Fetch { id, offset, bytes_max } => {
                if self.raft.membership().contains(from) && offset < id.bytes && bytes_max > 0 {
                    self.take_fetch(from, id, (offset, bytes_max.min(PIECE_BYTES_MAX)), out);
                }
            }
            SnapshotMessage::Piece { id, offset, bytes } => {
                self.take_piece(from, id, offset, bytes, out)
            }
            SnapshotMessage::Gone { id } => {
                if self.snapshots.fetching.as_ref().is_some_and(|it| it.id == id && it.from == from)
                {
                    self.give_up_fetch("its source has it no more", out);
                }
            }
        }
    }

    fn take_fetch(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        request: (u64, u32),
        out: &mut Vec<Action>,
    ) {
        let now_us = self.now.boot_us;
        let serving = self.snapshots.serving.entry(from).or_insert_with(|| Serving {
            id,
            requests: VecDeque::new(),
            is_reading: false,
            asked_us: now_us,
            told_bytes: 0,
        });
        if serving.id != id {
            serving.id = id;
            serving.requests.clear();
            serving.told_bytes = 0;
        }
        serving.asked_us = now_us;
        if serving.requests.contains(&request) {
            return;
        }
        if serving.requests.len() == REQUESTS_MAX {
            serving.requests.pop_front();
        }
        serving.requests.push_back(request);
        let is_news = request.0 == 0 || request.0 >= serving.told_bytes.saturating_add(NEWS_BYTES);
        if is_news {
            serving.told_bytes = request.0;
            self.tell(SnapshotPhase::Sending, Some(from), id, request.0, out);
        }
    }

    /// Starts the reads that the rate allows.
    fn serve(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        let it = &mut self.snapshots;
        if it.serving.is_empty() {
            return;
        }
        let stall_us = it.policy.stall_us;
        let before = it.serving.len();
        it.serving.retain(|_, serving| {
            serving.is_reading || now_us.saturating_sub(serving.asked_us) < stall_us
        });
        if it.serving.len() < before {
            self.prune(out);
        }
        let it = &mut self.snapshots;
        for (peer, serving) in &mut it.serving {
            if serving.is_reading || serving.requests.is_empty() {
                continue;
            }
            if !it.budget.fill(now_us, it.policy.send_bytes_per_s) {
                return;
            }
            if let Some((offset, bytes_max)) = serving.requests.pop_front() {
                it.budget.spend(u64::from(bytes_max));
                serving.is_reading = true;
                out.push(Action::ReadPiece { to: *peer, id: serving.id, offset, bytes_max });
            }
        }
    }

    pub(super) fn piece_read(
        &mut self,
        to: NodeId,
        id: SnapshotId,
        offset: u64,
        result: Result<Bytes, String>,
        out: &mut Vec<Action>,
    ) {
        if let Some(serving) = self.snapshots.serving.get_mut(&to) {
            serving.is_reading = false;
        }
        let message = match result {
            Ok(bytes) => {
                if offset.saturating_add(bytes.len() as u64) >= id.bytes {
                    self.tell(SnapshotPhase::Sent, Some(to), id, id.bytes, out);
                }
                SnapshotMessage::Piece { id, offset, bytes }
            }
            Err(detail) => {
                self.snapshots.serving.remove(&to);
                let detail = format!("node {to} is refused a snapshot: {detail}");
                out.push(Action::Event(Event::StorageTrouble { detail }));
                SnapshotMessage::Gone { id }
            }
        };
        out.push(Action::Send { to, message: Message::Snapshot(message) });
    }

    // ---- taking ----

    /// The leader offers what this node needs. What is being fetched already, and moves, goes on.
    pub(super) fn offered(&mut self, from: NodeId, id: SnapshotId, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        let patience_us = self.snapshots.policy.stall_us / RETRY_PARTS;
        if let Some(fetching) = &mut self.snapshots.fetching {
            if fetching.id == id {
                fetching.from = from;
                return;
            }
            let (source, last) = (fetching.from, fetching.id.last.index);
            let is_moving = now_us.saturating_sub(fetching.moved_us) < patience_us;
            if is_moving && self.is_linked(source) && last > self.raft.commit() {
                return;
            }
            self.give_up_fetch("another one is offered, and this one does not move", out);
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

    pub(super) fn fetch_began(
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

    fn take_piece(
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

    pub(super) fn piece_written(
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

    pub(super) fn fetch_finished(
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
                let detail = format!("a fetched snapshot is not whole: {detail}");
                out.push(Action::Event(Event::StorageTrouble { detail }));
                self.tell(SnapshotPhase::Failed, None, id, 0, out);
            }
        }
    }

    /// Asks again for what did not come, and gives up what has not moved for too long.
    fn retry_fetch(&mut self, out: &mut Vec<Action>) {
        let now_us = self.now.boot_us;
        let stall_us = self.snapshots.policy.stall_us;
        let Some(fetching) = self.snapshots.fetching.as_mut() else { return };
        if fetching.phase != Phase::Moving || now_us < fetching.retry_us {
            return;
        }
        if now_us.saturating_sub(fetching.moved_us) >= stall_us {
            return self.give_up_fetch("it has not moved for too long", out);
        }
        fetching.asked = fetching.expected;
        self.ask_for_pieces(out);
    }

    fn give_up_fetch(&mut self, why: &str, out: &mut Vec<Action>) {
        let Some(fetching) = self.snapshots.fetching.take() else { return };
        let Fetching { id, from, held, .. } = fetching;
        out.push(Action::AbandonFetch { id });
        let detail = format!("fetching a snapshot from node {from} ended: {why}");
        out.push(Action::Event(Event::StorageTrouble { detail }));
        self.tell(SnapshotPhase::Failed, Some(from), id, held, out);
    }

    fn tell(
        &self,
        phase: SnapshotPhase,
        peer: Option<NodeId>,
        id: SnapshotId,
        bytes: u64,
        out: &mut Vec<Action>,
    ) {
        let (index, total_bytes) = (id.last.index, id.bytes);
        out.push(Action::Event(Event::Snapshot { phase, peer, index, bytes, total_bytes }));
    }
}
