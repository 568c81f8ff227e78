//! What a node tells about itself, and the board on which the event loop publishes it.
//!
//! Each turn the loop pins up the few numbers that threads wait for; a whole [`Status`] is made
//! only when somebody asks for one.

use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::replica;
use crate::types::{
    Boot, ClusterId, DiskId, FaultReason, GroupId, Index, LogId, Membership, NodeId, Role,
    Settings, SnapshotTransfer, Term,
};

use super::clock;

/// How a node is and what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node_id: NodeId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its group.
    pub group: GroupId,
    /// Its data directory.
    pub disk_id: DiskId,
    /// How many times that directory was opened.
    pub boot: Boot,
    /// Where it listens, if it does.
    pub listen_address: Option<String>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Whether it leads and has committed an entry of its own term.
    pub ready: bool,
    /// Where its log begins.
    pub base: LogId,
    /// Its last entry.
    pub last: LogId,
    /// Everything up to here is on its disk.
    pub durable: Index,
    /// Everything up to here is known to be committed.
    pub commit: Index,
    /// Everything up to here is applied to its machine.
    pub applied: Index,
    /// The membership in force.
    pub membership: Membership,
    /// The settings in force.
    pub settings: Settings,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Whom it is handing its leadership to.
    pub transfer: Option<NodeId>,
    /// Calls that wait in the replica, of this node and of followers.
    pub waiting: u64,
    /// Calls in flight on this node, from `propose` to the end of the completion.
    pub calls_in_flight: u64,
    /// First log entry that the disk has lost and the leader has not yet replaced.
    pub damaged_from: Option<Index>,
    /// Events that the node's observer will never see, because it was busy for too long.
    pub events_dropped: u64,
    /// Why the node stopped, if it did.
    pub fault: Option<FaultReason>,
    /// Whether it was shut down.
    pub shut_down: bool,
}

/// Another member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: NodeId,
    /// Where it is expected.
    pub address: String,
    /// Whether there is a usable link.
    pub connected: bool,
    /// Why there is none, in words.
    pub unreachable: Option<String>,
    /// On a leader: "probe", "replicate" or "snapshot".
    pub mode: Option<&'static str>,
    /// On a leader: the peer's log equals the leader's up to here, durably.
    pub matched: Option<Index>,
    /// On a leader: the next entry to send.
    pub next: Option<Index>,
    /// On a leader: appends on the way.
    pub in_flight: Option<u64>,
    /// The snapshot that is on its way to or from it, and how far that is.
    pub transfer: Option<SnapshotTransfer>,
}

impl Status {
    /// Why there may be no leader: who cannot be reached and why, in one line.
    pub fn obstacles(&self) -> String {
        if let Some(fault) = &self.fault {
            return format!("this node is faulted: {fault}");
        }
        if self.shut_down {
            return "this node is shut down".into();
        }
        let mut text = String::new();
        for peer in self.peers.iter().filter(|peer| !peer.connected) {
            let separator = if text.is_empty() { "" } else { "; " };
            let reason = peer.unreachable.as_deref().unwrap_or("not connected yet");
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{separator}node {} at {} is unreachable ({reason})",
                peer.id, peer.address
            );
        }
        if self.peers.is_empty() {
            text.push_str("no other members are known");
        } else if text.is_empty() {
            text.push_str("all peers are connected");
        }
        text
    }

    /// Takes in what the replica says.
    pub(crate) fn update(&mut self, replica: &replica::Status) {
        let raft = &replica.raft;
        self.role = raft.role;
        self.term = raft.term;
        self.leader = raft.leader;
        self.ready = raft.ready;
        self.base = raft.base;
        self.last = raft.last;
        self.durable = raft.durable;
        self.commit = raft.commit;
        self.applied = raft.applied;
        self.membership = raft.membership.clone();
        self.settings = raft.settings.clone();
        self.damaged_from = raft.damage.map(|damage| damage.first_faulty);
        self.transfer = raft.transfer;
        self.waiting = replica.waiting as u64;
        self.fault = self.fault.take().or_else(|| replica.fault.clone());
        let others = raft.membership.members.iter().filter(|(id, _)| **id != self.node_id);
        self.peers = others
            .map(|(id, member)| {
                let progress = raft.peers.iter().find(|progress| progress.id == *id);
                let why = replica.unreachable.iter().find(|(peer, _)| peer == id);
                PeerStatus {
                    id: *id,
                    address: member.address.clone(),
                    connected: replica.linked.contains(id),
                    unreachable: why.map(|(_, reason)| reason.clone()),
                    mode: progress.map(|progress| progress.mode),
                    matched: progress.map(|progress| progress.matched),
                    next: progress.map(|progress| progress.next),
                    in_flight: progress.map(|progress| progress.in_flight as u64),
                    transfer: replica.transfers.iter().find(|it| it.peer == *id).copied(),
                }
            })
            .collect();
    }
}

/// What threads wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// The leader known.
    pub(crate) leader: Option<NodeId>,
    /// Applied up to here.
    pub(crate) applied: Index,
    /// The node does nothing more: it is faulted or shut down.
    pub(crate) stopped: bool,
}

/// Where the loop publishes and others read and wait.
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    pulse: Pulse,
    status: Status,
    /// Requests for a status so far; each takes the next number.
    asked: u64,
    /// Requests up to this one are answered by `status`.
    answered: u64,
    waiters: usize,
    /// The loop is gone; what is here is the last word.
    final_edition: bool,
}

impl Board {
    /// A board with a first status.
    pub(crate) fn new(status: Status) -> Self {
        let pulse = Pulse { leader: None, applied: status.applied, stopped: false };
        let state =
            State { pulse, status, asked: 0, answered: 0, waiters: 0, final_edition: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Pins up what threads wait for; wakes them only if it changed and they are there.
    pub(crate) fn beat(&self, pulse: Pulse) {
        let mut state = self.state.lock();
        if state.pulse == pulse {
            return;
        }
        state.pulse = pulse;
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// The last request so far. A status made after this call answers all up to it.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().asked
    }

    /// Pins up a whole status, which answers the requests up to `upto`.
    pub(crate) fn publish(&self, upto: u64, update: impl FnOnce(&mut Status)) {
        self.pin(update, |state| state.answered = state.answered.max(upto));
    }

    /// Pins up the last status there will be.
    pub(crate) fn publish_last(&self, update: impl FnOnce(&mut Status)) {
        // All at once: whoever reads the last status must also find the pulse stopped.
        self.pin(update, |state| {
            state.final_edition = true;
            state.pulse.stopped = true;
        });
    }

    fn pin(&self, update: impl FnOnce(&mut Status), more: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        update(&mut state.status);
        more(&mut state);
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// The status as last published.
    pub(crate) fn status(&self) -> Status {
        self.state.lock().status.clone()
    }

    /// A status made after this call, or the last one if the loop does not get to it in time.
    pub(crate) fn fresh_status(&self, ask: impl FnOnce(), patience: Duration) -> Status {
        let deadline_us = clock::deadline_us(patience);
        let mut state = self.state.lock();
        if state.final_edition {
            return state.status.clone();
        }
        // Numbered, so that askers whom the loop finds together share one status, and one that is
        // in the making already does not pass for a later request's answer.
        state.asked += 1;
        let number = state.asked;
        drop(state);
        ask();
        let mut state = self.state.lock();
        state.waiters += 1;
        while state.answered < number && !state.final_edition {
            let left = clock::left_until(deadline_us);
            if left.is_zero() || self.changed.wait_for(&mut state, left).timed_out() {
                break;
            }
        }
        state.waiters -= 1;
        state.status.clone()
    }

    /// Waits until `done` finds something in the pulse, or the node stops, or time is up.
    pub(crate) fn wait<T>(
        &self,
        deadline_us: u64,
        mut done: impl FnMut(&Pulse) -> Option<T>,
    ) -> Result<T, Pulse> {
        let mut state = self.state.lock();
        state.waiters += 1;
        let result = loop {
            if let Some(found) = done(&state.pulse) {
                break Ok(found);
            }
            let left = clock::left_until(deadline_us);
            if left.is_zero() || state.pulse.stopped {
                break Err(state.pulse.clone());
            }
            self.changed.wait_for(&mut state, left);
        };
        state.waiters -= 1;
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::types::{Base, Membership};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn board() -> Arc<Board> {
        let base = Base::founding(Membership::default(), Settings::default());
        Arc::new(Board::new(Status {
            node_id: NodeId::new(1).unwrap(),
            cluster_id: ClusterId(1),
            group: GroupId::FIRST,
            disk_id: DiskId(1),
            boot: Boot(1),
            listen_address: None,
            role: Role::Follower,
            term: Term::ZERO,
            leader: None,
            ready: false,
            base: base.id,
            last: base.id,
            durable: Index::ZERO,
            commit: Index::ZERO,
            applied: Index::ZERO,
            membership: base.membership.clone(),
            settings: base.settings,
            peers: Vec::new(),
            transfer: None,
            waiting: 0,
            calls_in_flight: 0,
            damaged_from: None,
            events_dropped: 0,
            fault: None,
            shut_down: false,
        }))
    }

    #[test]
    fn askers_that_come_together_share_one_status_and_none_waits_in_vain() {
        const ASKERS: u64 = 4;
        let board = board();
        let asked = Arc::new(AtomicU64::new(0));
        let patience = Duration::from_secs(20);
        let start = clock::boot_us();
        let threads = crate::node::threads::Threads::new("t".into());
        for n in 0..ASKERS {
            let (board, asked) = (Arc::clone(&board), Arc::clone(&asked));
            threads
                .spawn(&format!("ask{n}"), move || {
                    let ask = || {
                        asked.fetch_add(1, Ordering::SeqCst);
                    };
                    board.fresh_status(ask, patience);
                })
                .unwrap();
        }
        // As a loop does that finds all the requests in one batch.
        while asked.load(Ordering::SeqCst) < ASKERS {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let upto = board.asked();
        board.publish(upto, |_| {});
        threads.join_until(clock::deadline_us(Duration::from_secs(10))).unwrap();
        assert!(clock::boot_us() - start < 10_000_000);
    }

    #[test]
    fn a_status_in_the_making_does_not_answer_who_asks_meanwhile() {
        let board = board();
        let upto = board.asked();
        let late = board.fresh_status(|| board.publish(upto, |_| {}), Duration::from_millis(20));
        assert_eq!(late.term, Term::ZERO);
        let fresh = board.fresh_status(
            || board.publish(board.asked(), |status| status.term = Term(3)),
            Duration::from_secs(10),
        );
        assert_eq!(fresh.term, Term(3));
    }
}
