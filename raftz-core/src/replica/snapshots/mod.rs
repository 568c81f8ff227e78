//! Snapshots of one replica: when to take one, what the log keeps behind it, whom to serve, what to fetch.
//!
//! The core decides who needs a snapshot and when the machine is restored. Here is what moves bytes: a node that
//! is offered a snapshot *pulls* it piece by piece, from any node that has it; so a transfer outlives a leader,
//! goes on where it broke off, and is never faster than its receiver. Whoever is asked gives one piece after the
//! other, within a rate. Pieces are read, checked and written elsewhere.

mod cure;
mod fetch;
mod give;

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::raft;
use crate::types::{
    Event, Index, NodeId, Snapshot, SnapshotId, SnapshotMessage, SnapshotPhase, SnapshotTransfer,
    earliest,
};

use self::cure::Cure;
use self::fetch::{Fetching, RETRY_PARTS};
use self::give::Giving;
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
    /// So often all of what is kept is read, to find damage while it can still be cured; 0: never.
    pub scrub_interval_us: u64,
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
        send_bytes_per_s: 32 << 20,
        piece_bytes: 256 << 10,
        stall_us: 10_000_000,
        scrub_interval_us: 24 * 3_600_000_000,
    };
}

impl SnapshotPolicy {
    /// How many peers share the rate.
    fn served_at_once(&self) -> usize {
        if self.send_bytes_per_s == 0 {
            return usize::MAX;
        }
        let patience_us = self.stall_us / RETRY_PARTS;
        let bytes = u128::from(self.send_bytes_per_s) * u128::from(patience_us) / 1_000_000;
        let pieces = bytes / u128::from(self.piece_bytes.clamp(1, PIECE_BYTES_MAX));
        usize::try_from(pieces).unwrap_or(usize::MAX).max(1)
    }
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The most that anybody is given at once.
const PIECE_BYTES_MAX: u32 = 1 << 20;
/// Every so many bytes a transfer is told of.
const NEWS_BYTES: u64 = 32 << 20;
/// While a peer fetches a snapshot, the log keeps so many times the bytes that it otherwise would.
const FETCHING_RETAINS: u64 = 8;
/// Positions of the log whose bytes are known.
const MARKS_MAX: usize = 4096;
/// After failures the next snapshot waits for up to so many times the log that is otherwise enough.
const BACK_OFF_MAX: u32 = 6;

/// A snapshot of this node's own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Building {
    /// None is under way.
    No,
    /// One is.
    Yes,
    /// One is, and it will not be needed: the machine goes on from a newer one.
    Cancelled,
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
    building: Building,
    is_wanted: bool,
    failures: u32,
    giving: Giving,
    fetching: Option<Fetching>,
    /// After a failure, when the next attempt may begin.
    fetch_from_us: u64,
    cure: Cure,
    compacted_us: u64,
}

impl Snapshots {
    pub(super) fn new(
        policy: SnapshotPolicy,
        newest: Option<Snapshot>,
        base: Index,
        own: Option<(Index, Option<u64>)>,
        seed: u64,
    ) -> Self {
        let kept = newest.as_ref().map(|kept| (kept.base.id.index, kept.base.log_time_us));
        let start = kept.map_or(base, |(start, _)| start);
        // A machine that persists itself may be ahead of it.
        let log_time = match own {
            None => kept,
            Some((own, log_time_us)) => {
                kept.filter(|(at, _)| *at == own).or(log_time_us.map(|us| (own, us)))
            }
        };
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
            building: Building::No,
            is_wanted: false,
            failures: 0,
            giving: Giving::default(),
            fetching: None,
            fetch_from_us: 0,
            cure: Cure::default(),
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
}

/// Between four and six fifths, in thousandths: nodes of one group should not all pause at once.
fn draw_jitter(rng: &mut ChaCha8Rng) -> u64 {
    800 + rng.next_u64() % 401
}

impl Replica {
    /// Changes how this replica deals with snapshots from now on.
    pub(super) fn set_snapshot_policy(&mut self, policy: SnapshotPolicy) {
        self.snapshots.policy = policy;
        self.snapshots.giving.rate_changed();
    }

    /// The time at which something is due here, if anything is.
    pub(super) fn snapshot_deadline(&self) -> Option<u64> {
        let it = &self.snapshots;
        let retry = it.fetching.as_ref().and_then(Fetching::next_deadline);
        let refill = it.giving.next_deadline(it.policy.served_at_once());
        earliest([retry, refill, self.cure_deadline()])
    }

    /// The newest snapshot on this node's disk.
    pub fn newest_snapshot(&self) -> Option<&Snapshot> {
        self.snapshots.newest.as_ref()
    }

    /// The snapshots that are on their way to peers, and from one.
    pub fn transfers(&self) -> impl Iterator<Item = SnapshotTransfer> {
        let fetching = self.snapshots.fetching.as_ref().map(Fetching::transfer);
        self.snapshots.giving.transfers().chain(fetching)
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
        if it.marks.len() > MARKS_MAX {
            // The log is not shortened for now: a coarser picture of it will do.
            let mut is_kept = false;
            it.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    /// What every step may cause here: a snapshot, a shorter log, pieces to read and to ask for.
    pub(super) fn run_snapshots(&mut self, out: &mut Vec<Action>) {
        if self.fault.is_some() {
            return;
        }
        self.want_what_must_be();
        self.take_snapshot(out);
        self.give(out);
        self.retry_fetch(out);
        self.ask_for_snapshot(out);
        self.scrub(out);
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
        if it.building != Building::No || !is_new || !it.is_due(applied) || self.raft.is_applying()
        {
            return;
        }
        let Some(log_time_us) = it.log_time.filter(|(at, _)| *at == applied).map(|(_, us)| us)
        else {
            return;
        };
        let stands_still = bug!(SnapshotForgetsItsLogTime) && self.raft.id().get() == 1;
        let log_time_us = if stands_still { 0 } else { log_time_us };
        let Some(base) = self.raft.base_at(applied, log_time_us) else { return };
        let it = &mut self.snapshots;
        it.building = Building::Yes;
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
        let building = std::mem::replace(&mut self.snapshots.building, Building::No);
        match result {
            Ok(snapshot) => {
                self.snapshots.failures = 0;
                self.tell(SnapshotPhase::Built, None, snapshot.id, snapshot.id.bytes, out);
                self.keep_snapshot(snapshot, out);
            }
            Err(_) if building == Building::Cancelled => {}
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
        // It may have taken the place of one that was damaged.
        self.snapshots.cure.damaged.retain(|id| *id != snapshot.id);
        self.drive(raft::Input::SnapshotKept { snapshot }, out);
        self.compact(out);
        // Until the machine is at the new one, the old one is what it was made from.
        if self.raft.installing().is_none() {
            self.prune(out);
        } else if self.snapshots.building == Building::Yes {
            self.snapshots.building = Building::Cancelled;
            out.push(Action::CancelSnapshot);
        }
    }

    /// Lets go what is not needed, once there is something to do without it.
    fn prune(&mut self, out: &mut Vec<Action>) {
        if self.snapshots.newest.is_none() {
            return;
        }
        let spare = self.snapshots.giving.ids().chain(self.raft.installing()).collect();
        let keep = self.snapshots.policy.keep.max(1);
        let damaged = std::mem::take(&mut self.snapshots.cure.damaged);
        out.push(Action::PruneSnapshots { keep, spare, damaged });
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
        self.prune(out);
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
                        let given = it.giving.id_for(peer).map_or(newest, |id| id.last.index);
                        wanted = wanted.min(given.max(far));
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

    pub(in crate::replica) fn take_snapshot_message(
        &mut self,
        from: NodeId,
        message: SnapshotMessage,
        out: &mut Vec<Action>,
    ) {
        match message {
            SnapshotMessage::Fetch { id, offset, bytes_max } => {
                self.take_fetch(from, id, (offset, bytes_max), out);
            }
            SnapshotMessage::Piece { id, offset, bytes } => {
                self.take_piece(from, id, offset, bytes, out)
            }
            SnapshotMessage::Gone { id } => {
                if self.snapshots.fetching.as_ref().is_some_and(|it| it.is_of(id, from)) {
                    self.give_up_fetch("its source has it no more", out);
                }
            }
            SnapshotMessage::Want { least } => self.take_want(from, least, out),
            SnapshotMessage::Have { id } => self.take_have(from, id, out),
        }
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
