//! What must hold of one member, whatever it hears.

use std::collections::{BTreeMap, BTreeSet};

use raftz_core::replica::Replica;
use raftz_core::types::{
    AppendOutcome, Entry, Index, Membership, Message, NodeId, RaftBody, RaftMessage, Role, Term,
    Token, WriteOp,
};

use super::node;
use crate::fuzz::model_disk::{Disk, Log};

/// What the member has promised and been told.
pub(super) struct Watch {
    /// Its log as its writes make it.
    pub(super) log: Log,
    /// What its machine has applied.
    pub(super) applied: Index,
    term: Term,
    commit: Index,
    role: Role,
    writes: u64,
    /// Whom it voted for, over all its lives.
    votes: BTreeMap<Term, NodeId>,
    /// Who granted what, by term and round.
    grants: BTreeMap<(Term, u64), BTreeSet<NodeId>>,
    /// The furthest match that a peer claimed in a term.
    acks: BTreeMap<(Term, NodeId), Index>,
    /// The furthest commit that anybody claimed as leader of a term.
    claims: BTreeMap<Term, Index>,
    open_calls: BTreeSet<Token>,
}

impl Watch {
    pub(super) fn new(replica: &Replica, disk: &Disk) -> Self {
        Self {
            log: disk.log.clone(),
            applied: Index::ZERO,
            term: replica.raft().term(),
            commit: replica.raft().commit(),
            role: Role::Follower,
            writes: 0,
            votes: BTreeMap::new(),
            grants: BTreeMap::new(),
            acks: BTreeMap::new(),
            claims: BTreeMap::new(),
            open_calls: BTreeSet::new(),
        }
    }

    // ---- what happens ----

    pub(super) fn hears(&mut self, from: NodeId, message: &Message) {
        let Message::Raft(RaftMessage { term, body }) = message else { return };
        match body {
            RaftBody::VoteReply(reply) if reply.granted => {
                self.grants.entry((*term, reply.round)).or_default().insert(from);
            }
            RaftBody::AppendReply(reply) => {
                if let AppendOutcome::Matched { matched, .. } = reply.outcome {
                    let known = self.acks.entry((*term, from)).or_default();
                    *known = matched.max(*known);
                }
            }
            RaftBody::Append(append) => self.claim(*term, append.commit),
            RaftBody::Heartbeat(heartbeat) => self.claim(*term, heartbeat.commit.index),
            // What a snapshot covers is committed.
            RaftBody::SnapshotOffer(offer) => self.claim(*term, offer.id.last.index),
            RaftBody::VoteReply(_)
            | RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::Vote(_)
            | RaftBody::HeartbeatReply(_)
            | RaftBody::TimeoutNow => {}
        }
    }

    fn claim(&mut self, term: Term, commit: Index) {
        let known = self.claims.entry(term).or_default();
        *known = commit.max(*known);
    }

    pub(super) fn writes(&mut self, op: &WriteOp) {
        assert_eq!(op.id.seq, self.writes + 1, "writes are numbered without gaps");
        self.writes = op.id.seq;
        if let Some(from) = op.truncate_from {
            assert!(from > self.commit, "{from} is committed and is truncated");
        }
    }

    pub(super) fn says(&mut self, to: NodeId, message: &Message, disk: &Disk) {
        let Message::Raft(RaftMessage { term, body }) = message else { return };
        let hard = disk.hard_state;
        let voted = match body {
            RaftBody::Vote(_) => Some(node(1)),
            RaftBody::VoteReply(reply) if reply.granted => Some(to),
            RaftBody::AppendReply(reply) => {
                if let AppendOutcome::Matched { matched, .. } = reply.outcome {
                    assert!(matched <= disk.last().index, "{matched} is acknowledged, not durable");
                    assert!(hard.term >= *term, "an acknowledgement in a term not durable");
                }
                None
            }
            RaftBody::Append(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => {
                assert!(hard.term >= *term, "an office in a term that is not durable");
                None
            }
            RaftBody::VoteReply(_)
            | RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::HeartbeatReply(_) => None,
        };
        if let Some(voted) = voted {
            assert_eq!((hard.term, hard.vote), (*term, Some(voted)), "a vote that is not durable");
            let first = *self.votes.entry(*term).or_insert(voted);
            assert_eq!(first, voted, "two votes in t{term}");
        }
    }

    pub(super) fn applies(&self, first: Index, last: Index, entries: &[Entry]) {
        assert_eq!(first, self.applied.next(), "a gap between what is applied");
        assert!(last >= first);
        let log = &self.log.from(first)[..(last.0 - first.0 + 1) as usize];
        assert!(entries.is_empty() || entries == log, "other entries are applied");
    }

    pub(super) fn calls(&mut self, token: Token) {
        self.open_calls.insert(token);
    }

    pub(super) fn replies(&mut self, token: Token) {
        assert!(self.open_calls.remove(&token), "{token:?} is answered twice");
    }

    // ---- what holds after a step ----

    pub(super) fn after(&mut self, replica: &Replica, disk: &Disk) {
        let status = replica.raft().status();
        assert_eq!(status.last, self.log.last(), "log and writes");
        assert!(status.durable <= disk.last().index, "more is believed durable than is");
        assert!(status.commit <= status.last.index, "commit beyond the log");
        assert!(status.applied <= status.commit, "applied beyond commit");
        assert!(status.commit >= self.commit, "commit went back");
        assert!(status.term >= self.term, "the term went back");
        let (term, leads) = (status.term, status.role == Role::Leader);
        if leads && (self.role, self.term) != (Role::Leader, term) {
            self.took_office(term, &status.membership, disk);
        }
        if status.commit > self.commit && leads {
            self.leader_committed(term, status.commit, &status.membership, disk);
        } else if status.commit > self.commit {
            let claimed = self.claims.get(&term).copied().unwrap_or_default();
            assert!(status.commit <= claimed, "{} is committed, {claimed} claimed", status.commit);
        }
        (self.term, self.commit, self.role) = (term, status.commit, status.role);
    }

    fn took_office(&self, term: Term, membership: &Membership, disk: &Disk) {
        let own = (disk.hard_state.term, disk.hard_state.vote) == (term, Some(node(1)));
        let nobody = BTreeSet::new();
        let elected = self
            .grants
            .iter()
            .filter(|((granted_in, _), _)| *granted_in == term)
            .map(|(_, granted)| granted)
            .chain([&nobody])
            .any(|granted| {
                is_quorum(membership, |id| granted.contains(&id) || (id == node(1) && own))
            });
        assert!(elected, "an office in t{term} without a majority's votes");
    }

    fn leader_committed(&self, term: Term, commit: Index, membership: &Membership, disk: &Disk) {
        let at = self.log.entry(commit).map(|entry| entry.term);
        assert_eq!(at, Some(term), "{commit} is committed by a leader of another term");
        let holds = |id| {
            if id == node(1) {
                disk.last().index >= commit
            } else {
                self.acks.get(&(term, id)).is_some_and(|acked| *acked >= commit)
            }
        };
        assert!(is_quorum(membership, holds), "{commit} is committed without a majority");
    }

    // ---- lives ----

    /// Callers die with their process.
    pub(super) fn forgets_calls(&mut self) {
        self.open_calls.clear();
    }

    pub(super) fn ends_life(&self) {
        assert!(self.open_calls.is_empty(), "calls without an answer: {:?}", self.open_calls);
    }

    pub(super) fn restarts(&mut self, replica: &Replica, disk: &Disk) {
        assert!(replica.raft().term() >= disk.hard_state.term);
        assert_eq!(replica.raft().role(), Role::Follower, "an office is resumed");
        self.log.clone_from(&disk.log);
        (self.term, self.commit) = (replica.raft().term(), replica.raft().commit());
        (self.applied, self.role, self.writes) = (Index::ZERO, Role::Follower, 0);
        // What was promised to a life ends with it, but not what was voted.
        (self.acks, self.grants) = (BTreeMap::new(), BTreeMap::new());
    }
}

/// A majority of each half that has voters; nobody's where there are none at all.
fn is_quorum(membership: &Membership, has: impl Fn(NodeId) -> bool) -> bool {
    let halves = [&membership.voters, &membership.outgoing];
    let mut asked = halves.iter().filter(|half| !half.is_empty()).peekable();
    asked.peek().is_some()
        && asked.all(|half| half.iter().filter(|id| has(**id)).count() > half.len() / 2)
}
