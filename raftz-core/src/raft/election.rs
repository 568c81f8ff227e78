//! Elections: pre-vote, vote, and keeping faith with a living leader (dissertation 3.4, 4.2.3, 9.6).
//!
//! The three are one feature: without pre-vote a returning node deposes a healthy leader, without
//! faith a partly connected one does, and without the leader's own check of its quorum (see
//! `leader`) faith would keep a deaf leader in office. A voter judges by term and log alone, never by
//! its own idea of the membership; a candidate counts only voters of its latest membership.

use crate::types::{HardState, LogId, NodeId, PreVote, RaftBody, Term, Vote, VoteReply};

use super::Action;
use super::core::{Raft, RoleState, Tally};
use super::quorum::{VoteResult, vote};

impl Raft {
    /// Whether this node would help nobody else into office for now: it heard a leader a moment ago,
    /// or leads with a quorum behind it.
    pub(super) fn keeps_faith(&self) -> bool {
        match self.role {
            RoleState::Leader(_) => true,
            RoleState::Follower { .. } | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.now.boot_us < self.faithful_until_us
            }
        }
    }

    /// Whether this node may stand: a voter in its latest appended membership or in the latest that
    /// it knows to be committed, with an undamaged log.
    pub(super) fn may_campaign(&self) -> bool {
        let id = self.config.id;
        (self.damage.is_none() || bug!(DamagedNodeStands))
            && (self.configs.latest().1.is_voter(id)
                || self.configs.latest_committed().is_voter(id))
    }

    /// The log that a candidate must equal or exceed to get this node's vote; `None` when that
    /// cannot be known, because what was lost cannot be named.
    fn voting_last(&self) -> Option<LogId> {
        match self.damage {
            None => Some(self.log.last()),
            Some(_) if bug!(DamagedNodeVotesByWhatIsLeft) => Some(self.log.last()),
            Some(damage) => damage.lost.last_known.map(|known| known.max(self.log.last())),
        }
    }

    fn is_up_to_date(&self, candidate: LogId) -> bool {
        self.voting_last().is_some_and(|ours| {
            candidate >= ours
                || (bug!(VoteComparesOnlyIndexes) && candidate.index >= ours.index)
                || (bug!(VoteComparesOnlyTerms) && candidate.term >= ours.term)
        })
    }

    /// The election timeout has passed, or somebody asks for a campaign.
    pub(super) fn start_campaign(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.role, RoleState::Leader(_)) || !self.may_campaign() {
            return;
        }
        self.leader = None;
        let tally = self.open_round();
        let request = PreVote { round: tally.round, last: self.log.last() };
        self.role = RoleState::PreCandidate(tally);
        self.await_election();
        let wish = self.hard.term.next();
        for to in self.voters() {
            let message =
                crate::types::RaftMessage { term: wish, body: RaftBody::PreVote(request) };
            actions.push(Action::Send { to, message });
        }
        self.count_votes(actions);
    }

    /// Stands for election in the next term. The requests leave once our own vote is durable.
    pub(super) fn start_election(&mut self, transfer: bool, actions: &mut Vec<Action>) {
        let term = self.hard.term.next();
        if !term.is_sane() {
            return;
        }
        self.hard = HardState { term, vote: Some(self.config.id) };
        self.writes.hard_state(self.hard);
        self.writes.drop_promises_of_other_terms(term);
        self.leader = None;
        let mut tally = self.open_round();
        // Our own vote counts like any other: once it is durable.
        tally.granted.clear();
        if bug!(PreVotesCountAsVotes)
            && let RoleState::PreCandidate(asked) = &self.role
        {
            tally.granted.extend(asked.granted.iter().filter(|id| **id != self.config.id));
        }
        let request = Vote { round: tally.round, last: self.log.last(), transfer };
        self.role = RoleState::Candidate(tally);
        self.await_election();
        for to in self.voters() {
            self.send_promise(to, RaftBody::Vote(request), 0, actions);
        }
    }

    fn open_round(&mut self) -> Tally {
        self.round += 1;
        let mut tally = Tally { round: self.round, ..Tally::default() };
        tally.granted.insert(self.config.id);
        tally
    }

    /// The other voters of both halves.
    fn voters(&self) -> Vec<NodeId> {
        let membership = self.configs.latest().1;
        membership.others(self.config.id).filter(|id| membership.is_voter(*id)).collect()
    }

    /// The latest hard state is durable: a candidate's own vote now counts.
    pub(super) fn on_own_vote_durable(&mut self, actions: &mut Vec<Action>) {
        if let RoleState::Candidate(tally) = &mut self.role
            && tally.granted.insert(self.config.id)
        {
            // The requests leave only now: the voters get a whole timeout to answer.
            self.await_election();
            self.count_votes(actions);
        }
    }

    /// Somebody knows that the leader is dead.
    pub(super) fn forget_leader(&mut self) {
        if matches!(self.role, RoleState::Follower { .. }) && !self.is_pledged() {
            self.leader = None;
            self.faithful_until_us = self.now.boot_us;
        }
    }

    /// Acts on the answers so far.
    pub(super) fn count_votes(&mut self, actions: &mut Vec<Action>) {
        let membership = self.configs.latest().1;
        match &self.role {
            RoleState::PreCandidate(tally) => {
                match vote(membership, &tally.granted, &tally.refused) {
                    VoteResult::Won => self.start_election(false, actions),
                    // A lost round is tried again when its timeout has passed, not at once.
                    VoteResult::Lost | VoteResult::Pending => {}
                }
            }
            RoleState::Candidate(tally) => match vote(membership, &tally.granted, &tally.refused) {
                VoteResult::Won => self.become_leader(actions),
                VoteResult::Lost | VoteResult::Pending => {}
            },
            RoleState::Follower { .. } | RoleState::Leader(_) => {}
        }
    }

    /// Would we vote for it? Changes nothing here.
    pub(super) fn judge_pre_vote(
        &self,
        from: NodeId,
        wish: Term,
        request: PreVote,
        actions: &mut Vec<Action>,
    ) {
        let granted =
            wish > self.hard.term && !self.keeps_faith() && self.is_up_to_date(request.last);
        let reply = VoteReply { round: request.round, granted, last: self.log.last() };
        self.send(from, RaftBody::PreVoteReply(reply), actions);
    }

    pub(super) fn refuse_pre_vote(&self, from: NodeId, round: u64, actions: &mut Vec<Action>) {
        let reply = VoteReply { round, granted: false, last: self.log.last() };
        self.send(from, RaftBody::PreVoteReply(reply), actions);
    }

    /// One vote a term, to a log that is not behind ours, and not while a leader was heard a moment
    /// ago (unless that leader asked for it); durable before it is told.
    pub(super) fn judge_vote(&mut self, from: NodeId, request: Vote, actions: &mut Vec<Action>) {
        // Asked here, too: our term may have risen to the candidate's by another way.
        let unbound = request.transfer || !self.keeps_faith();
        let unused = self.hard.vote.is_none() || bug!(VotesForWhoeverAsks);
        let free = unused && self.leader.is_none() && unbound;
        let again = self.hard.vote == Some(from);
        if !(free || again) || !self.is_up_to_date(request.last) {
            return self.refuse_vote(from, request.round, actions);
        }
        if free {
            self.hard.vote = Some(from);
            if !bug!(VoteIsNotPersisted) {
                self.writes.hard_state(self.hard);
            }
            // A pre-candidate that has voted waits like anybody else.
            self.role = RoleState::Follower { verified: self.log.base().index };
            self.await_election();
        }
        let reply = VoteReply { round: request.round, granted: true, last: self.log.last() };
        self.send_promise(from, RaftBody::VoteReply(reply), 0, actions);
    }

    pub(super) fn refuse_vote(&self, from: NodeId, round: u64, actions: &mut Vec<Action>) {
        let reply = VoteReply { round, granted: false, last: self.log.last() };
        self.send(from, RaftBody::VoteReply(reply), actions);
    }
}
