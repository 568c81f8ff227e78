//! The event loop's side of the metrics: what it counts for itself, and when it publishes.

use std::collections::VecDeque;

use crate::raft::PeerProgress;
use crate::replica::Replica;
use crate::types::{Index, NodeId, Now, Outcome, Role, SnapshotPhase, SnapshotTransfer, Term};

use super::{Meter, Peer, STATES, SnapshotWork, Tally};

/// Time between two publications while the loop has no time to sleep.
const INTERVAL_US: u64 = 1000;
/// The same while nothing happens but heartbeats.
const QUIET_INTERVAL_US: u64 = 100_000;

/// Log time between two marks, and how many there may be.
const MARK_US: u64 = 1_000_000;
const MARKS_MAX: usize = 512;

/// What the loop counts for itself.
#[derive(Debug, Default)]
pub(crate) struct Account {
    tally: Tally,
    ages: Ages,
    /// When the numbers were last published, and whether a turn has been taken since.
    published_us: u64,
    is_stale: bool,
    /// How the node stood after the last turn.
    stood: Option<Stand>,
    /// When work on a snapshot began, for each kind; 0: none is under way.
    begun_us: [u64; 3],
}

/// What stays as it is while nothing happens but heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stand {
    leader: NodeId,
    term: Term,
    base: Index,
    applied: Index,
    commit: Index,
    last: Index,
    /// What the others have of it, all together.
    matched: u64,
    pending: u64,
}

impl Stand {
    /// None where more may change (without a leader, or beside a snapshot that is on its way), and where heartbeats are
    /// so rare that the last answers would be told of too late.
    fn of(replica: &Replica, pending: u64) -> Option<Self> {
        let raft = replica.raft();
        if raft.heartbeat_interval_us() > QUIET_INTERVAL_US / 2 {
            return None;
        }
        let leader = raft.leader().filter(|_| replica.transfers().next().is_none())?;
        let (term, base, last) = (raft.term(), raft.base().index, raft.last().index);
        let (applied, commit) = (raft.applied(), raft.commit());
        let matched = raft.matches().fold(0_u64, |sum, (_, index)| sum.wrapping_add(index.0));
        Some(Self { leader, term, base, applied, commit, last, matched, pending })
    }
}

impl Account {
    /// A proposal has ended.
    pub(crate) fn ended(&mut self, outcome: &Outcome, took_us: u64) {
        self.tally.ended(outcome, took_us);
        self.is_stale = true;
    }

    /// Everything up to here is applied, and was logged at this time.
    pub(crate) fn applied(&mut self, last: Index, log_time_us: u64) {
        self.ages.applied(last, log_time_us);
    }

    /// Work on a snapshot begins.
    pub(crate) fn begin(&mut self, work: SnapshotWork, meter: &Meter) {
        self.begun_us[work as usize] = meter.now_us();
    }

    /// Work on a snapshot has ended, well or not.
    pub(crate) fn end(&mut self, work: SnapshotWork, is_well: bool, meter: &Meter) {
        let begun_us = std::mem::take(&mut self.begun_us[work as usize]);
        if is_well && begun_us > 0 {
            meter.snapshot(work, begun_us);
        }
    }

    /// A turn is over, which had something to tell or not: publishes if that is due.
    pub(crate) fn turn(
        &mut self,
        now: Now,
        meter: &Meter,
        replica: &Replica,
        pending: u64,
        has_news: bool,
    ) {
        let stands = Stand::of(replica, pending).filter(|_| !has_news);
        let before = std::mem::replace(&mut self.stood, stands);
        let is_quiet = stands.is_some() && stands == before && !self.is_stale;
        let interval_us = if is_quiet { QUIET_INTERVAL_US } else { INTERVAL_US };
        let is_due = now.boot_us.saturating_sub(self.published_us) >= interval_us;
        self.is_stale |= is_due || !is_quiet;
        if is_due {
            self.published_us = now.boot_us;
            self.publish(meter, replica, pending);
        }
    }

    /// The loop is about to sleep: publishes what it has not.
    pub(crate) fn publish(&mut self, meter: &Meter, replica: &Replica, pending: u64) {
        if !meter.is_on || !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.tally.publish(meter);
        meter.pending.set(pending);
        meter.oldest_us.set(self.ages.oldest_us(replica.raft().base().index));
        meter.publish(replica);
    }
}

/// When the entries of the log were logged, roughly: marks at equal distances, which grow with the log.
#[derive(Debug, Default)]
struct Ages {
    marks: VecDeque<(Index, u64)>,
    step_us: u64,
}

impl Ages {
    fn applied(&mut self, last: Index, log_time_us: u64) {
        if self.marks.is_empty() {
            self.step_us = MARK_US;
        }
        let is_far = |(_, at_us): &(Index, u64)| log_time_us >= at_us.saturating_add(self.step_us);
        if log_time_us == 0 || !self.marks.back().is_none_or(is_far) {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.step_us = self.step_us.saturating_mul(2);
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.marks.push_back((last, log_time_us));
    }

    /// The log time of the first marked entry above the base; 0 if there is none.
    fn oldest_us(&mut self, base: Index) -> u64 {
        while self.marks.front().is_some_and(|(index, _)| *index <= base) {
            self.marks.pop_front();
        }
        self.marks.front().map_or(0, |(_, at_us)| *at_us)
    }
}

impl Meter {
    fn publish(&self, replica: &Replica) {
        let raft = replica.raft();
        self.leader.set(raft.leader().map_or(0, NodeId::get));
        self.term.set(raft.term().0);
        self.commit.set(raft.commit().0);
        self.applied.set(raft.applied().0);
        self.last.set(raft.last().index.0);
        self.base.set(raft.base().index.0);
        let counts = raft.counts();
        self.leader_changes.set(counts.leader_changes);
        let elections = [
            counts.elections_won,
            counts.elections_lost,
            counts.elections_timed_out,
            counts.elections_not_begun,
        ];
        for (cell, count) in self.elections.iter().zip(elections) {
            cell.set(count);
        }
        self.commit_us.show(&counts.commit_us);
        self.publish_peers(replica);
    }

    fn publish_peers(&self, replica: &Replica) {
        let raft = replica.raft();
        let leads = raft.role() == Role::Leader;
        for peer in self.peers.iter().filter(|peer| peer.id.get() > 0) {
            let id = NodeId::new(peer.id.get());
            let is_known = leads && id.is_some_and(|id| raft.membership().contains(id));
            let moves = replica.transfers().any(|it| Some(it.peer) == id);
            if !is_known {
                peer.state.set(0);
            }
            if !moves {
                peer.transfer.set(0);
            }
            if !is_known && !moves {
                peer.id.set(0);
            }
        }
        for progress in raft.progress() {
            self.place(progress.id).show(&progress, raft.last().index);
        }
        for transfer in replica.transfers() {
            self.place(transfer.peer).show_transfer(&transfer);
        }
    }

    /// A peer's place, a free one if it has none.
    fn place(&self, id: NodeId) -> &Peer {
        if let Some(peer) = self.peers.iter().find(|peer| peer.id.get() == id.get()) {
            return peer;
        }
        let peer = self.peers.find_or_add(|peer| peer.id.get() == 0);
        peer.state.set(0);
        peer.transfer.set(0);
        peer.id.set(id.get());
        peer
    }
}

impl Peer {
    fn show(&self, progress: &PeerProgress, last: Index) {
        let state = STATES.iter().position(|state| *state == progress.mode);
        self.matched.set(progress.matched.0);
        self.lag.set(progress.matched.distance_to(last));
        self.contact_us.set(progress.contact_us);
        self.in_flight.set(progress.in_flight as u64);
        self.rtt_us.set(progress.rtt_us.map_or(0, |us| us.saturating_add(1)));
        self.state.set(state.map_or(0, |at| at as u64 + 1));
    }

    fn show_transfer(&self, transfer: &SnapshotTransfer) {
        self.transfer_index.set(transfer.index.0);
        self.bytes.set(transfer.bytes);
        self.total_bytes.set(transfer.total_bytes);
        self.transfer.set(if transfer.phase == SnapshotPhase::Fetching { 2 } else { 1 });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::raft;
    use crate::replica::{Action, Config, Input, SnapshotPolicy};
    use crate::types::{Base, DiskId, Member, Membership, Recovered, Refusal, Settings};

    use super::*;

    /// A node that leads alone, after its election.
    fn lone_leader() -> Replica {
        let (node, disk) = (NodeId::new(1).unwrap(), DiskId(1));
        let voters = [(node, Member::at("10.0.0.1:1"))];
        let base = Base::founding(Membership::of_voters(voters), Settings::default());
        let recovered = Recovered::founded(node, disk, base);
        let config = Config {
            raft: raft::Config::new(node, disk),
            held_bytes_max: 1,
            snapshots: SnapshotPolicy::NEVER,
            machine_log_time_us: None,
        };
        let mut replica = Replica::new(config, &recovered, Now::default(), 1);
        let mut inputs = VecDeque::from([Input::Tick]);
        while let Some(input) = inputs.pop_front() {
            let mut actions = Vec::new();
            replica.step(Now::default(), input, &mut actions);
            for action in actions {
                if let Action::Persist(write) = action {
                    inputs.push_back(Input::Persisted(write.id));
                }
            }
        }
        replica
    }

    #[test]
    fn a_quiet_node_publishes_rarely_and_one_that_is_not_at_once() {
        let (replica, meter) = (lone_leader(), Meter::new(NodeId::new(1).unwrap(), true));
        assert_eq!(replica.raft().role(), Role::Leader);
        let mut account = Account::default();
        // Whether a turn leaves nothing to be published before the loop sleeps, and whether it published.
        let turn = |account: &mut Account, at_ms: u64, has_news: bool| {
            let now = Now { boot_us: at_ms * 1000, wall_us: 0 };
            account.turn(now, &meter, &replica, 0, has_news);
            (account.is_stale, account.published_us == now.boot_us)
        };
        assert_eq!(turn(&mut account, 1000, false), (false, true), "the first");
        assert_eq!(turn(&mut account, 1050, false), (false, false), "quiet");
        assert_eq!(turn(&mut account, 1100, false), (false, true), "a tenth of a second later");
        assert_eq!(turn(&mut account, 1150, true), (false, true), "news");
        assert_eq!(turn(&mut account, 1151, false), (false, true), "as before the news, yet new");
        assert_eq!(turn(&mut account, 1152, false), (false, false), "quiet");
        account.ended(&Outcome::Refused(Refusal::ShuttingDown), 1);
        assert_eq!(turn(&mut account, 1160, false), (false, true), "a call has ended");
    }

    #[test]
    fn the_age_of_the_oldest_entry_is_nearly_right_and_a_long_log_takes_little() {
        let mut ages = Ages::default();
        assert_eq!(ages.oldest_us(Index(0)), 0);
        for index in 1..=1_000_000 {
            ages.applied(Index(index), index * 10_000);
        }
        assert!(ages.marks.len() <= MARKS_MAX);
        assert_eq!(ages.oldest_us(Index(0)), 10_000);
        let oldest_us = ages.oldest_us(Index(500_000));
        let exact_us = 500_001 * 10_000;
        assert!(oldest_us >= exact_us && oldest_us < exact_us + 64 * MARK_US, "{oldest_us}");
        assert_eq!(ages.oldest_us(Index(2_000_000)), 0, "an empty log has no age");
    }
}
