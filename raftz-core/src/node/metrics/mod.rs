//! What a node has counted and measured: [`Metrics`], taken at any moment without waiting for anybody.
//!
//! The event loop publishes what its replica knows (`publish`), at most once a millisecond and always before it
//! sleeps, but ten times a second while only heartbeats come and go; lanes add what they measure, a batch at a time
//! (`cells`). `text` renders all of it for Prometheus.

mod cells;
mod publish;
mod tally;
#[cfg(feature = "metrics")]
mod text;

use std::time::Duration;

use crate::types::{
    GroupId, Histogram, Index, Measure, NodeId, ReadLevel, SnapshotPhase, SnapshotTransfer, Term,
};

use super::clock;
use cells::{Cell, Places, Spread};
pub(crate) use publish::Account;
use tally::Tally;

/// Why proposals fail: the codes of [`Outcome::code`](crate::types::Outcome::code), and how they are labelled.
const REASONS: [(i32, &str); 16] = [
    (-1, "not_leader"),
    (-2, "no_leader"),
    (-3, "busy"),
    (-4, "storage_full"),
    (-5, "too_large"),
    (-6, "overwritten"),
    (-7, "shut_down"),
    (-8, "faulted"),
    (-9, "in_callback"),
    (-10, "term_mismatch"),
    (-32, "unknown_timeout"),
    (-33, "unknown_leadership_lost"),
    (-34, "unknown_shut_down"),
    (-35, "unknown_faulted"),
    (-36, "unknown_in_callback"),
    (0, "other"),
];

/// The labels of the levels, in their order.
const LEVELS: [&str; 5] = ["linearizable", "lease", "at_least", "bounded", "stale"];

/// Work on snapshots that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotWork {
    /// From freezing the machine until the snapshot is on disk.
    Build,
    /// From the first question to the source until it is here, whole.
    Fetch,
    /// Until the machine is what it holds.
    Install,
}

/// The labels of that work, in its order: the phases that end it.
const WORKS: [&str; 3] = ["built", "fetched", "installed"];

/// What a node has counted and measured up to now; see [`Node::metrics`](super::Node::metrics).
///
/// Counts run from the start of the node. Each number by itself is right; together they need not belong to one
/// moment. Times are counted in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The node.
    pub node_id: NodeId,
    /// Its group.
    pub group: GroupId,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads.
    pub is_leader: bool,
    /// Its term.
    pub term: Term,
    /// How often a leader became known that was not known before, itself included.
    pub leader_changes: u64,
    /// Elections by their result: `won`, `lost` (another leader or a later term appeared), `timed_out`, and
    /// `not_begun` (a round of pre-votes that found no majority).
    pub elections: [(&'static str, u64); 4],
    /// Everything up to here is known to be committed.
    pub commit_index: Index,
    /// Everything up to here is applied.
    pub applied_index: Index,
    /// The last entry of its log.
    pub last_index: Index,
    /// The first entry of its log, or the one that will be the first.
    pub first_index: Index,
    /// Proposals of this node's callers that have not ended.
    pub proposals_pending: u64,
    /// Those that were done.
    pub proposals_committed: u64,
    /// Those that were refused, or ended as unknown, by reason.
    pub proposals_failed: Vec<(&'static str, u64)>,
    /// From a proposal to its end, whatever that was.
    pub propose_us: Histogram,
    /// Of a leader: from appending a batch to its commit.
    pub commit_us: Histogram,
    /// What one write of the log took, its sync included; nothing where the store never blocks.
    pub wal_fsync_us: Histogram,
    /// What the state machine took for one batch.
    pub apply_batch_us: Histogram,
    /// Entries of one write of the log.
    pub append_batch_entries: Histogram,
    /// Other members, as far as something is known of them: on a leader all of them, elsewhere those with
    /// which a snapshot is exchanged.
    pub peers: Vec<PeerMetrics>,
    /// What work on snapshots took that has ended well, by the phase that it ended in: `built`, `fetched`,
    /// `installed`.
    pub snapshot_us: [(&'static str, Histogram); 3],
    /// How old the oldest entry of the log is, to a second or a hundredth of its age, in log time against the wall clock; nothing is
    /// known before something was applied from it. Where that comes near the time that a snapshot takes to reach a
    /// peer, the log is too short for it.
    pub oldest_log_entry_age: Option<Duration>,
    /// What the log takes on disk, room that was prepared included; `None` where there is none on disk.
    pub wal_bytes: Option<u64>,
    /// Events that the node's observer will never see.
    pub events_dropped: u64,
    /// Reads by their level.
    pub reads: [(&'static str, u64); 5],
}

/// What is known of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMetrics {
    /// The member.
    pub id: NodeId,
    /// What this node knows as the leader; nothing elsewhere.
    pub progress: Option<PeerNumbers>,
    /// The snapshot that is on its way to or from it.
    pub transfer: Option<SnapshotTransfer>,
}

/// What a leader knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNumbers {
    /// "probe", "replicate" or "snapshot".
    pub state: &'static str,
    /// Its log equals the leader's up to here, durably.
    pub match_index: Index,
    /// How many entries of the leader's log it is not known to have.
    pub lag_entries: u64,
    /// Time since its last answer.
    pub last_contact: Duration,
    /// Appends on their way to it.
    pub inflight: u64,
    /// What its last answer to a heartbeat took, there and back, its own wait included.
    pub rtt: Option<Duration>,
}

/// What the threads of a node write, and [`Metrics`] are read from.
#[derive(Debug)]
pub(crate) struct Meter {
    is_on: bool,
    node: NodeId,
    leader: Cell,
    term: Cell,
    leader_changes: Cell,
    elections: [Cell; 4],
    commit: Cell,
    applied: Cell,
    last: Cell,
    base: Cell,
    pending: Cell,
    committed: Cell,
    failed: [Cell; REASONS.len()],
    propose_us: Spread,
    commit_us: Spread,
    fsync_us: Spread,
    apply_us: Spread,
    append_entries: Spread,
    peers: Places<Peer>,
    snapshot_us: [Spread; 3],
    /// Log time of the oldest entry; 0: unknown.
    oldest_us: Cell,
    /// One more than the bytes; 0: there is no log on disk.
    wal_bytes: Cell,
    reads: [Cell; 5],
}

/// A peer's place. The first thing written is the id, and it goes before all else does.
#[derive(Debug, Default)]
struct Peer {
    /// 0: free.
    id: Cell,
    /// One more than its place in `STATES`; 0: this node does not lead.
    state: Cell,
    matched: Cell,
    lag: Cell,
    contact_us: Cell,
    in_flight: Cell,
    /// One more than the time; 0: unknown.
    rtt_us: Cell,
    /// 0: none; 1: sending; 2: fetching.
    transfer: Cell,
    transfer_index: Cell,
    bytes: Cell,
    total_bytes: Cell,
}

/// A peer's states, as [`PeerProgress`](crate::raft::PeerProgress) names them.
const STATES: [&str; 3] = ["probe", "replicate", "snapshot"];

impl Meter {
    /// One that has counted nothing, and never will if it is not `is_on`.
    pub(crate) fn new(node: NodeId, is_on: bool) -> Self {
        let times = || Spread::new(Measure::TimesUs);
        Self {
            is_on,
            node,
            leader: Cell::default(),
            term: Cell::default(),
            leader_changes: Cell::default(),
            elections: Default::default(),
            commit: Cell::default(),
            applied: Cell::default(),
            last: Cell::default(),
            base: Cell::default(),
            pending: Cell::default(),
            committed: Cell::default(),
            failed: Default::default(),
            propose_us: times(),
            commit_us: times(),
            fsync_us: times(),
            apply_us: times(),
            append_entries: Spread::new(Measure::Sizes),
            peers: Places::default(),
            snapshot_us: std::array::from_fn(|_| times()),
            oldest_us: Cell::default(),
            wal_bytes: Cell::default(),
            reads: Default::default(),
        }
    }

    /// Whether anything is counted.
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// The time, for who wants to know how long something takes: 0 if nobody does.
    pub(crate) fn now_us(&self) -> u64 {
        if self.is_on { clock::boot_us() } else { 0 }
    }

    /// A write of the log was handed over. One without entries, a vote or a truncation, is no batch.
    pub(crate) fn wrote(&self, entries: u64) {
        if self.is_on && entries > 0 {
            self.append_entries.record(entries);
        }
    }

    /// And is durable.
    pub(crate) fn synced(&self, begun_us: u64) {
        if self.is_on {
            self.fsync_us.record(clock::boot_us().saturating_sub(begun_us));
        }
    }

    /// The log takes so much on disk.
    pub(crate) fn wal_bytes(&self, bytes: Option<u64>) {
        self.wal_bytes.set(bytes.map_or(0, |bytes| bytes.saturating_add(1)));
    }

    /// The state machine is through with a batch. Gives the time; 0 if nobody wants to know it.
    pub(crate) fn applied(&self, begun_us: u64) -> u64 {
        let now_us = self.now_us();
        if self.is_on {
            self.apply_us.record(now_us.saturating_sub(begun_us));
        }
        now_us
    }

    /// Work on a snapshot has ended well.
    pub(crate) fn snapshot(&self, work: SnapshotWork, begun_us: u64) {
        if self.is_on {
            self.snapshot_us[work as usize].record(clock::boot_us().saturating_sub(begun_us));
        }
    }

    /// Proposals were refused before they reached the event loop.
    pub(crate) fn refused(&self, code: i32, count: u64) {
        if self.is_on {
            self.failed[reason(code)].add(count);
        }
    }

    /// Somebody reads.
    pub(crate) fn read(&self, level: ReadLevel) {
        if self.is_on {
            let at = match level {
                ReadLevel::Linearizable => 0,
                ReadLevel::Lease => 1,
                ReadLevel::AtLeast(_) => 2,
                ReadLevel::Bounded(_) => 3,
                ReadLevel::Stale => 4,
            };
            self.reads[at].add(1);
        }
    }

    /// What all of it says now.
    pub(crate) fn metrics(&self, events_dropped: u64) -> Metrics {
        let now = clock::now();
        let leader = NodeId::new(self.leader.get());
        let pairs = |names: &[&'static str], cells: &[Cell]| -> Vec<(&'static str, u64)> {
            names.iter().copied().zip(cells.iter().map(Cell::get)).collect()
        };
        let reasons = REASONS.map(|(_, name)| name);
        let elections = ["won", "lost", "timed_out", "not_begun"];
        let oldest_us = Some(self.oldest_us.get()).filter(|us| *us > 0);
        Metrics {
            node_id: self.node,
            group: GroupId::FIRST,
            leader,
            is_leader: leader == Some(self.node),
            term: Term(self.term.get()),
            leader_changes: self.leader_changes.get(),
            elections: std::array::from_fn(|at| (elections[at], self.elections[at].get())),
            commit_index: Index(self.commit.get()),
            applied_index: Index(self.applied.get()),
            last_index: Index(self.last.get()),
            first_index: Index(self.base.get()).next(),
            proposals_pending: self.pending.get(),
            proposals_committed: self.committed.get(),
            proposals_failed: pairs(&reasons, &self.failed),
            propose_us: self.propose_us.read(),
            commit_us: self.commit_us.read(),
            wal_fsync_us: self.fsync_us.read(),
            apply_batch_us: self.apply_us.read(),
            append_batch_entries: self.append_entries.read(),
            peers: self.peers.iter().filter_map(|peer| peer.read(now.boot_us)).collect(),
            snapshot_us: std::array::from_fn(|at| (WORKS[at], self.snapshot_us[at].read())),
            oldest_log_entry_age: oldest_us
                .map(|us| Duration::from_micros(now.wall_us.saturating_sub(us))),
            wal_bytes: self.wal_bytes.get().checked_sub(1),
            events_dropped,
            reads: std::array::from_fn(|at| (LEVELS[at], self.reads[at].get())),
        }
    }
}

impl Peer {
    fn read(&self, now_us: u64) -> Option<PeerMetrics> {
        let id = NodeId::new(self.id.get())?;
        let state = usize::try_from(self.state.get()).ok().and_then(|at| at.checked_sub(1));
        let progress = state.and_then(|at| STATES.get(at)).map(|state| PeerNumbers {
            state,
            match_index: Index(self.matched.get()),
            lag_entries: self.lag.get(),
            last_contact: Duration::from_micros(now_us.saturating_sub(self.contact_us.get())),
            inflight: self.in_flight.get(),
            rtt: self.rtt_us.get().checked_sub(1).map(Duration::from_micros),
        });
        let phase = match self.transfer.get() {
            1 => Some(SnapshotPhase::Sending),
            2 => Some(SnapshotPhase::Fetching),
            _ => None,
        };
        let transfer = phase.map(|phase| SnapshotTransfer {
            peer: id,
            phase,
            index: Index(self.transfer_index.get()),
            bytes: self.bytes.get(),
            total_bytes: self.total_bytes.get(),
        });
        // The place may have changed hands meanwhile.
        (self.id.get() == id.get()).then_some(PeerMetrics { id, progress, transfer })
    }
}

/// Which reason a code is.
fn reason(code: i32) -> usize {
    REASONS.iter().position(|(known, _)| *known == code).unwrap_or(REASONS.len() - 1)
}

impl Metrics {
    /// All of it as Prometheus reads it (OpenMetrics text), each name with the prefix `raftz_` and the labels
    /// `node` and `group`.
    #[cfg(feature = "metrics")]
    pub fn text(&self) -> String {
        text::render(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Outcome, Refusal, Unknown};

    #[test]
    fn each_way_to_fail_has_its_own_reason() {
        let text = String::new;
        let refusals = [
            Refusal::NotLeader { hint: None },
            Refusal::NoLeader { detail: text() },
            Refusal::Busy { what: text() },
            Refusal::StorageFull,
            Refusal::TooLarge { bytes: 0, limit: 0 },
            Refusal::Overwritten,
            Refusal::ShuttingDown,
            Refusal::Faulted { reason: text() },
            Refusal::InCallback { inside: text() },
            Refusal::TermMismatch { wanted: Term(1), led: None },
        ];
        let unknowns = [
            Unknown::Timeout,
            Unknown::LeadershipLost,
            Unknown::ShuttingDown,
            Unknown::Faulted { reason: text() },
            Unknown::InCallback { inside: text() },
        ];
        let all = refusals.map(Outcome::Refused).into_iter();
        let mut places: Vec<usize> =
            all.chain(unknowns.map(Outcome::Unknown)).map(|it| reason(it.code())).collect();
        places.sort_unstable();
        assert_eq!(places, (0..15).collect::<Vec<_>>());
        assert_eq!(reason(-999), 15, "of a later version");
    }

    #[test]
    fn a_meter_that_is_off_counts_nothing() {
        let Some(node) = NodeId::new(1) else { return };
        for is_on in [false, true] {
            let meter = Meter::new(node, is_on);
            meter.wrote(3);
            meter.synced(meter.now_us());
            meter.applied(meter.now_us());
            meter.snapshot(SnapshotWork::Install, meter.now_us());
            meter.refused(-3, 2);
            meter.read(ReadLevel::Stale);
            let metrics = meter.metrics(0);
            let counted = u64::from(is_on);
            assert_eq!(metrics.append_batch_entries.sum(), 3 * counted);
            assert_eq!(metrics.wal_fsync_us.count(), counted);
            assert_eq!(metrics.apply_batch_us.count(), counted);
            assert_eq!(metrics.snapshot_us[2].1.count(), counted);
            assert_eq!(metrics.proposals_failed[2], ("busy", 2 * counted));
            assert_eq!(metrics.reads[4], ("stale", counted));
        }
    }
}
