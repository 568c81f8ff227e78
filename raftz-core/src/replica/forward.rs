//! Handing calls to the leader, and taking in those of followers.
//!
//! Each node hands a call over once, within its deadline. A leader that receives it while it hands over its
//! office, or has lost it, holds it like one of its own and hands it on to the next. That
//! makes no loops: who was believed to lead a term has seen that term, so it hands on to the leader of a
//! later one. What was handed over may be in the leader's log, so if the answer is lost its outcome is
//! unknown, and nothing is ever sent twice. Batch numbers of different lives are apart, and a batch
//! that arrives twice is taken in once.

use std::collections::BTreeSet;

use crate::raft::{self, Proposal};
use crate::types::{
    Forward, ForwardReply, ForwardedProposal, Message, NodeId, Outcome, Refusal, Role, Token,
    Unknown,
};

use super::Action;
use super::member::{Link, Replica, held_cost};
use super::tickets::{Stage, Ticket, Who};

/// Proposals handed to the leader.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) to: NodeId,
    pub(super) tickets: Vec<u64>,
    pub(super) open: usize,
}

/// The batch numbers of one follower that were taken in. They only grow, so a window is enough.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Everything up to here counts as seen.
    floor: u64,
    recent: BTreeSet<u64>,
}

impl Seen {
    /// Most numbers that are remembered one by one.
    const WINDOW: usize = 1024;

    /// Notes a batch. False if it was taken in before, or may have been.
    fn note(&mut self, batch: u64) -> bool {
        if batch <= self.floor || !self.recent.insert(batch) {
            return false;
        }
        while self.recent.len() > Self::WINDOW
            && let Some(oldest) = self.recent.pop_first()
        {
            self.floor = oldest;
        }
        true
    }
}

impl Replica {
    /// The leader, if it is another node that a forward can reach now.
    pub(super) fn linked_leader(&self) -> Option<NodeId> {
        self.raft.leader().filter(|id| *id != self.raft.id() && self.is_linked(*id))
    }

    pub(super) fn is_linked(&self, peer: NodeId) -> bool {
        matches!(self.links.get(&peer), Some(Link::Up(_)))
    }

    /// Hands calls to the leader, once, in batches of a bounded size.
    pub(super) fn forward(&mut self, to: NodeId, numbers: Vec<u64>, out: &mut Vec<Action>) {
        let bytes_max = self.config.raft.append_bytes_max;
        let mut numbers = numbers.into_iter().peekable();
        while numbers.peek().is_some() {
            self.next_batch += 1;
            let id = self.next_batch;
            let (mut bytes, mut patience_us) = (0, 0);
            let (mut tickets, mut proposals) = (Vec::new(), Vec::new());
            while let Some(number) = numbers.next_if(|_| bytes < bytes_max) {
                let Some((payload, session)) = self.unhold(number, Stage::Forwarded { batch: id })
                else {
                    continue;
                };
                if let Some(ticket) = self.tickets.get_mut(number) {
                    let left = ticket.deadline_us.saturating_sub(self.now.boot_us);
                    patience_us = patience_us.max(left);
                }
                bytes += held_cost(&payload);
                tickets.push(number);
                proposals.push(ForwardedProposal { payload, session });
            }
            if tickets.is_empty() {
                continue;
            }
            let open = tickets.len();
            self.batches.insert(id, Batch { to, tickets, open });
            let message = Message::Forward(Forward { id, patience_us, proposals });
            out.push(Action::Send { to, message });
        }
    }

    /// A follower's callers propose.
    pub(super) fn take_forward(&mut self, from: NodeId, forward: Forward, out: &mut Vec<Action>) {
        let Forward { id: batch, patience_us, proposals } = forward;
        if !self.seen.entry(from).or_default().note(batch) && !bug!(DoubledForwardsRunTwice) {
            return;
        }
        let deadline_us = self.now.boot_us.saturating_add(patience_us);
        let refusal = if self.shutting_down {
            Some(Refusal::ShuttingDown)
        } else if let Some(reason) = &self.fault {
            Some(Refusal::Faulted { reason: reason.to_string() })
        } else if self.raft.role() != Role::Leader && !self.raft.membership().contains(from) {
            // What strangers ask for is not kept, and not passed on.
            Some(Refusal::NotLeader { hint: self.raft.leader() })
        } else {
            None
        };
        if let Some(why) = refusal {
            let outcomes = (0u32..).zip(proposals);
            let outcomes = outcomes.map(|(at, _)| (at, Outcome::Refused(why.clone()))).collect();
            self.answers.insert((from, batch), outcomes);
            return;
        }
        let mut offered = Vec::with_capacity(proposals.len());
        for (position, ForwardedProposal { payload, session }) in (0..).zip(proposals) {
            let who = Who::Remote { node: from, batch, position };
            if !self.takes_proposals() {
                if self.held_is_full(payload.len() as u64) {
                    let what = "the bytes of calls that wait for a leader".into();
                    let outcome = Outcome::Refused(Refusal::Busy { what });
                    self.answers.entry((from, batch)).or_default().push((position, outcome));
                } else {
                    self.hold(who, deadline_us, Stage::Held { payload, session, may_move: true });
                }
                continue;
            }
            let number = self.tickets.issue(Ticket { who, deadline_us, stage: Stage::Offered });
            offered.push(Proposal { token: Token(number), payload, session });
        }
        if !offered.is_empty() {
            self.drive(raft::Input::Propose { proposals: offered }, out);
        }
    }

    pub(super) fn take_forward_reply(
        &mut self,
        from: NodeId,
        reply: ForwardReply,
        out: &mut Vec<Action>,
    ) {
        for (position, outcome) in reply.outcomes {
            let Some(batch) = self.batches.get(&reply.id).filter(|batch| batch.to == from) else {
                return;
            };
            if let Some(number) = batch.tickets.get(position as usize).copied() {
                self.end(number, outcome, out);
            }
        }
    }

    /// The link that a batch went over is gone, and with it, perhaps, the answers.
    pub(super) fn lose_batches_of(&mut self, peer: NodeId, out: &mut Vec<Action>) {
        let lost: Vec<u64> =
            self.batches.iter().filter(|(_, b)| b.to == peer).map(|(id, _)| *id).collect();
        for id in lost {
            let Some(batch) = self.batches.remove(&id) else { continue };
            let outcome = if bug!(LostForwardsAreToldRefused) {
                Outcome::Refused(Refusal::Busy { what: "the link to the leader".into() })
            } else {
                Outcome::Unknown(Unknown::LeadershipLost)
            };
            for number in batch.tickets {
                self.end(number, outcome.clone(), out);
            }
        }
    }

    /// Forgets the nodes outside the membership that are not linked: anybody may come under any id,
    /// and what is kept of each would add up. What they handed over need not be remembered any
    /// longer, since of what came over a link that is gone no second copy comes.
    pub(super) fn forget_strangers(&mut self) {
        let members = &self.raft.membership().members;
        self.links.retain(|id, link| matches!(link, Link::Up(_)) || members.contains_key(id));
        self.seen.retain(|id, _| self.links.contains_key(id) || members.contains_key(id));
    }

    /// A batch never left this host. One that never can is no reason to try again.
    pub(super) fn return_batch(&mut self, id: u64, is_too_large: bool, out: &mut Vec<Action>) {
        let Some(batch) = self.batches.remove(&id) else { return };
        let why = if is_too_large {
            let detail = format!("node {} takes no message as large as this call", batch.to);
            Refusal::NoLeader { detail }
        } else {
            Refusal::Busy { what: "the link to the leader".into() }
        };
        for number in batch.tickets {
            self.end(number, Outcome::Refused(why.clone()), out);
        }
    }

    pub(super) fn send_answers(&mut self, out: &mut Vec<Action>) {
        if self.answers.is_empty() {
            return;
        }
        for ((to, id), outcomes) in std::mem::take(&mut self.answers) {
            let message = Message::ForwardReply(ForwardReply { id, outcomes });
            out.push(Action::Send { to, message });
        }
    }
}
