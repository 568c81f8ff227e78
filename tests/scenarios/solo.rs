//! One bare core with a disk, to feed it what no honest cluster would send.

use raftz_core::raft::{Action, Config, Input, Raft};
use raftz_core::types::{
    AppendOutcome, Base, Event, HardState, Index, Member, Membership, NodeId, Now, RaftBody,
    RaftMessage, Settings, Term,
};

use super::by_hand::command;
use super::cluster::node;
use super::disk::{Disk, Log};

/// The core of node 1.
#[derive(Clone)]
pub(crate) struct Solo {
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    log: Log,
    pub(crate) now: Now,
    commit: Index,
    term: Term,
}

/// What one input brought.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) sent: Vec<(NodeId, RaftMessage)>,
    pub(crate) events: Vec<Event>,
}

impl Solo {
    /// Node 1 among `members`, with a log of these terms, a persisted term and no vote; the faith of
    /// boot time has expired.
    pub(crate) fn new(membership: Membership, terms: &[u64], term: u64) -> Self {
        let mut disk = Disk::new(node(1), Base::founding(membership, Settings::default()));
        for (index, term) in (1..).zip(terms) {
            let id = raftz_core::types::LogId::new(Term(*term), Index(index));
            disk.log.entries.push(command(id));
        }
        disk.hard_state = HardState { term: Term(term), vote: None };
        let log = disk.log.clone();
        let mut config = Config::new(node(1), disk.id);
        config.election_timeout_min_us = 1_000_000;
        config.election_timeout_max_us = 2_000_000;
        let now = Now { boot_us: 1_000_000, wall_us: 2_000_000 };
        let raft = Raft::new(config, &disk.open(), now, 7);
        let now = now.plus_us(150_000);
        Self { raft, disk, log, now, commit: Index::ZERO, term: Term(term) }
    }

    /// Voters 1 to `voters`.
    pub(crate) fn among(voters: u64, terms: &[u64], term: u64) -> Self {
        let members = (1..=voters).map(|id| (node(id), Member::at("10.0.0.1:1")));
        Self::new(Membership::of_voters(members), terms, term)
    }

    /// Feeds one input and checks what must hold whatever it was.
    pub(crate) fn step(&mut self, input: Input) -> Said {
        let mut actions = Vec::new();
        self.raft.step(self.now, input, &mut actions);
        let mut said = Said::default();
        for action in actions {
            match action {
                Action::Persist(op) => {
                    self.log.edit(&op);
                    self.disk.queue.push_back(op);
                }
                Action::Send { to, message } => {
                    self.check_promise(to, &message);
                    said.sent.push((to, message));
                }
                Action::Event(event) => said.events.push(event),
                Action::ReadEntries { .. }
                | Action::Apply { .. }
                | Action::Restore { .. }
                | Action::Fetch { .. }
                | Action::MayRead { .. }
                | Action::MayNotRead { .. }
                | Action::Accepted { .. }
                | Action::Refused { .. }
                | Action::TransferEnded { .. }
                | Action::Halt(_) => {}
            }
        }
        assert!(self.raft.commit() >= self.commit, "the commit index went back");
        assert!(self.raft.term() >= self.term, "the term went back");
        assert!(self.raft.commit().0 <= self.raft.status().last.index.0);
        (self.commit, self.term) = (self.raft.commit(), self.raft.term());
        let _ = (self.raft.fingerprint(), self.raft.next_deadline());
        said
    }

    fn check_promise(&self, to: NodeId, message: &RaftMessage) {
        let (hard, term) = (self.disk.hard_state, message.term);
        match &message.body {
            RaftBody::Vote(_) => assert_eq!((hard.term, hard.vote), (term, Some(node(1)))),
            RaftBody::VoteReply(reply) if reply.granted => {
                assert_eq!((hard.term, hard.vote), (term, Some(to)));
            }
            RaftBody::AppendReply(reply) => {
                if let AppendOutcome::Matched { matched, .. } = reply.outcome {
                    assert!(matched <= self.disk.last().index && hard.term >= term);
                }
            }
            RaftBody::VoteReply(_)
            | RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::Append(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::HeartbeatReply(_)
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => {}
        }
    }

    pub(crate) fn receive(&mut self, from: u64, term: u64, body: RaftBody) -> Said {
        let message = RaftMessage { term: Term(term), body };
        self.step(Input::Receive { from: node(from), message })
    }

    /// Makes all that waits durable.
    pub(crate) fn persist(&mut self) -> Said {
        let mut done = None;
        while let Some(op) = self.disk.persist_one() {
            done = Some(op);
        }
        done.map_or_else(Said::default, |op| self.step(Input::Persisted { op }))
    }
}
