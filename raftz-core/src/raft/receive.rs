//! Messages in: one common prologue about terms, then every cell of (role, message).
//!
//! The prologue is Raft's: a higher term makes a follower, a lower term is answered with ours, so
//! that nobody waits for ever on silence (dissertation 3.3). Pre-votes are outside it: they change
//! nothing on their receiver. A vote request is outside it, too, while this voter keeps faith with a
//! leader (dissertation 4.2.3): it is answered, and otherwise ignored.

use crate::types::{
    Append, AppendOutcome, AppendReply, HeartbeatReply, LogId, NodeId, RaftBody, RaftMessage,
    SnapshotId, SnapshotOffer, Term,
};

use super::Action;
use super::core::{Raft, RoleState};

/// How far a message's term may lie ahead of ours. At a thousand elections a second, thirty years.
const TERM_JUMP_MAX: u64 = 1 << 40;

impl Raft {
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        message: RaftMessage,
        actions: &mut Vec<Action>,
    ) {
        let RaftMessage { term, body } = message;
        if from == self.config.id {
            return self.nonsense(from, "a message from this node's own id", actions);
        }
        if !term.is_sane() || term.0.saturating_sub(self.hard.term.0) > TERM_JUMP_MAX {
            return self.nonsense(from, "an absurd term", actions);
        }
        if term == Term::ZERO && is_request(&body) {
            return self.nonsense(
                from,
                "a request of term 0, in which nobody stands or leads",
                actions,
            );
        }
        // A pre-vote is granted by voters of lower terms, too, and its round says what it answers:
        // dropping those grants would leave a node above its voters unelectable.
        let outlives_its_term = matches!(body, RaftBody::PreVoteReply(_))
            || (bug!(OldLeadersAreObeyed) && matches!(body, RaftBody::Append(_)));
        let is_stale = term < self.hard.term && !outlives_its_term;
        if is_stale {
            if !bug!(StaleSendersGetNoAnswer) {
                self.answer_stale(from, &body, actions);
            }
            return;
        }
        if term > self.hard.term && !self.meet_higher_term(from, term, &body, actions) {
            return;
        }
        self.dispatch(from, term, body, actions);
    }

    /// Adopts a higher term where the message warrants it. False: the message is dealt with.
    fn meet_higher_term(
        &mut self,
        from: NodeId,
        term: Term,
        body: &RaftBody,
        actions: &mut Vec<Action>,
    ) -> bool {
        match body {
            // The term of a pre-vote is a wish. A granted one repeats nothing but the voter's
            // term, which cannot be above ours; only a refusal brings news.
            RaftBody::PreVote(_) => true,
            RaftBody::PreVoteReply(reply) if reply.granted => {
                self.nonsense(from, "a pre-vote granted from a higher term", actions);
                false
            }
            RaftBody::Vote(request) if !request.transfer && self.keeps_faith() => {
                self.refuse_vote(from, request.round, actions);
                false
            }
            RaftBody::PreVoteReply(_)
            | RaftBody::Vote(_)
            | RaftBody::VoteReply(_)
            | RaftBody::AppendReply(_)
            | RaftBody::HeartbeatReply(_) => {
                self.become_follower(term, None);
                true
            }
            RaftBody::Append(_) | RaftBody::Heartbeat(_) | RaftBody::SnapshotOffer(_) => {
                self.become_follower(term, Some(from));
                true
            }
            // Only the leader of the present term hands over.
            RaftBody::TimeoutNow => false,
        }
    }

    /// Answers a sender that is behind, so that it learns the term. Late answers are dropped. A leader is told
    /// nothing but the term: by the time that it hears, it may lead again, and must not take this for an answer to
    /// what it says then.
    fn answer_stale(&mut self, from: NodeId, body: &RaftBody, actions: &mut Vec<Action>) {
        let session = 0;
        match body {
            RaftBody::PreVote(request) => self.refuse_pre_vote(from, request.round, actions),
            RaftBody::Vote(request) => self.refuse_vote(from, request.round, actions),
            RaftBody::Append(Append { prev: LogId { index: prev, .. }, .. })
            | RaftBody::SnapshotOffer(SnapshotOffer {
                id: SnapshotId { last: LogId { index: prev, .. }, .. },
                ..
            }) => {
                let outcome = AppendOutcome::Rejected { prev: *prev, hint: self.log.last() };
                let reply = AppendReply { session, outcome };
                self.send(from, RaftBody::AppendReply(reply), actions);
            }
            RaftBody::Heartbeat(_) => {
                let reply = HeartbeatReply {
                    session,
                    round: 0,
                    sent_us: 0,
                    clock_us: 0,
                    faith_us: 0,
                    fitness: 0,
                    storage_full: false,
                };
                self.send(from, RaftBody::HeartbeatReply(reply), actions);
            }
            RaftBody::AppendReply(AppendReply {
                outcome: AppendOutcome::Matched { matched, .. },
                ..
            }) if bug!(AcksOfOlderTermsCount) => {
                let matched = self.log.last().index.min(*matched);
                self.peer_mut(from).map(|peer| peer.on_matched(matched));
            }
            RaftBody::VoteReply(reply) if reply.granted && bug!(VotesOfOlderTermsCount) => {
                if let RoleState::Candidate(tally) = &mut self.role {
                    tally.granted.insert(from);
                    self.count_votes(actions);
                }
            }
            RaftBody::PreVoteReply(_)
            | RaftBody::VoteReply(_)
            | RaftBody::AppendReply(_)
            | RaftBody::HeartbeatReply(_)
            | RaftBody::TimeoutNow => {}
        }
    }

    /// The cells. `term` is ours; or above ours in a pre-vote, or below ours in the answer to one.
    fn dispatch(&mut self, from: NodeId, term: Term, body: RaftBody, actions: &mut Vec<Action>) {
        if bug!(CandidateIgnoresTheLeader)
            && matches!(self.role, RoleState::PreCandidate(_) | RoleState::Candidate(_))
            && matches!(body, RaftBody::Append(_) | RaftBody::Heartbeat(_))
        {
            return;
        }
        match (&mut self.role, body) {
            // Anybody judges a pre-vote by term, log and faith.
            (
                RoleState::Follower { .. }
                | RoleState::PreCandidate(_)
                | RoleState::Candidate(_)
                | RoleState::Leader(_),
                RaftBody::PreVote(request),
            ) => self.judge_pre_vote(from, term, request, actions),

            // A follower may still have its vote; the others have given it to themselves, or, as a
            // pre-candidate, are free to help a candidate that was faster.
            (RoleState::Follower { .. } | RoleState::PreCandidate(_), RaftBody::Vote(request)) => {
                self.judge_vote(from, request, actions)
            }
            (RoleState::Candidate(_) | RoleState::Leader(_), RaftBody::Vote(request)) => {
                self.refuse_vote(from, request.round, actions);
            }

            (RoleState::PreCandidate(tally), RaftBody::PreVoteReply(reply))
            | (RoleState::Candidate(tally), RaftBody::VoteReply(reply)) => {
                if tally.round == reply.round {
                    if reply.granted {
                        tally.granted.insert(from);
                    } else {
                        tally.refused.insert(from);
                    }
                    self.count_votes(actions);
                }
            }
            // Answers to a question that is no longer asked.
            (
                RoleState::Follower { .. } | RoleState::Candidate(_) | RoleState::Leader(_),
                RaftBody::PreVoteReply(_),
            )
            | (
                RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Leader(_),
                RaftBody::VoteReply(_),
            )
            | (
                RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_),
                RaftBody::AppendReply(_) | RaftBody::HeartbeatReply(_),
            ) => {}

            // The leader of this term speaks: whoever else stood in it has lost.
            (RoleState::Follower { .. }, RaftBody::Append(append)) => {
                if self.follow(from, actions) {
                    self.on_append(from, append, actions);
                }
            }
            (RoleState::PreCandidate(_) | RoleState::Candidate(_), RaftBody::Append(append)) => {
                self.become_follower(term, Some(from));
                self.on_append(from, append, actions);
            }
            (RoleState::Follower { .. }, RaftBody::Heartbeat(heartbeat)) => {
                if self.follow(from, actions) {
                    self.on_heartbeat(from, &heartbeat, actions);
                }
            }
            (
                RoleState::PreCandidate(_) | RoleState::Candidate(_),
                RaftBody::Heartbeat(heartbeat),
            ) => {
                self.become_follower(term, Some(from));
                self.on_heartbeat(from, &heartbeat, actions);
            }
            (RoleState::Follower { .. }, RaftBody::SnapshotOffer(offer)) => {
                if self.follow(from, actions) {
                    self.on_snapshot_offer(from, offer, actions);
                }
            }
            (
                RoleState::PreCandidate(_) | RoleState::Candidate(_),
                RaftBody::SnapshotOffer(offer),
            ) => {
                self.become_follower(term, Some(from));
                self.on_snapshot_offer(from, offer, actions);
            }
            (
                RoleState::Leader(_),
                RaftBody::Append(_) | RaftBody::Heartbeat(_) | RaftBody::SnapshotOffer(_),
            ) => {
                self.nonsense(from, "a second leader in this node's own term", actions);
            }

            (RoleState::Leader(_), RaftBody::AppendReply(reply)) => {
                self.on_append_reply(from, reply, actions);
            }
            (RoleState::Leader(_), RaftBody::HeartbeatReply(reply)) => {
                self.on_heartbeat_reply(from, reply, actions);
            }

            (RoleState::Follower { .. }, RaftBody::TimeoutNow) => {
                if self.leader == Some(from) && self.may_campaign() && !self.sits_out() {
                    self.start_election(true, actions);
                }
            }
            (
                RoleState::PreCandidate(_) | RoleState::Candidate(_) | RoleState::Leader(_),
                RaftBody::TimeoutNow,
            ) => {}
        }
    }

    /// A follower hears the leader of its term. False: it has another one, which no honest
    /// cluster can produce.
    fn follow(&mut self, from: NodeId, actions: &mut Vec<Action>) -> bool {
        match self.leader {
            Some(leader) if leader != from => {
                self.nonsense(from, "a second leader in one term", actions);
                false
            }
            Some(_) => true,
            None => {
                self.leader = Some(from);
                true
            }
        }
    }
}

/// Whether only a candidate or a leader says this.
const fn is_request(body: &RaftBody) -> bool {
    match body {
        RaftBody::PreVote(_)
        | RaftBody::Vote(_)
        | RaftBody::Append(_)
        | RaftBody::Heartbeat(_)
        | RaftBody::SnapshotOffer(_)
        | RaftBody::TimeoutNow => true,
        RaftBody::PreVoteReply(_)
        | RaftBody::VoteReply(_)
        | RaftBody::AppendReply(_)
        | RaftBody::HeartbeatReply(_) => false,
    }
}
