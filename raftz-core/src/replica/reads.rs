//! Reads, until the machine may be asked: who must confirm them, and what must be applied before.
//!
//! A linearizable read needs an index from the leader, wherever it was made. Reads that wait together share one
//! question: on the leader to its own core, elsewhere to the leader, one at a time. Asking again does no harm, so a
//! question whose leader is gone is asked of the next one, until the reads' deadlines.

use std::collections::BTreeMap;

use crate::raft;
use crate::types::{Index, Message, NodeId, ReadLevel, ReadMessage, Role, Token, earliest};

use super::member::Replica;
use super::{Action, ReadCall, ReadFailure};

/// Questions of one other node that may wait here; an honest one has a single one, or a few after breaks.
const QUESTIONS_MAX: usize = 64;

/// Reads that wait for the same thing.
#[derive(Clone, Debug, Default)]
struct Crowd {
    /// Each with its deadline.
    reads: Vec<(Token, u64)>,
    /// Reads that a lease would not do for.
    strict: usize,
}

impl Crowd {
    fn join(&mut self, mut other: Self) {
        self.strict += other.strict;
        self.reads.append(&mut other.reads);
    }

    fn tokens(self) -> Vec<Token> {
        self.reads.into_iter().map(|(token, _)| token).collect()
    }

    /// Takes out those whose time has come.
    fn expire(&mut self, now_us: u64, expired: &mut Vec<Token>) {
        let late = self.reads.extract_if(.., |(_, deadline_us)| *deadline_us <= now_us);
        expired.extend(late.map(|(token, _)| token));
        self.strict = self.strict.min(self.reads.len());
    }
}

/// A question on its way to another node.
#[derive(Clone, Debug)]
struct Question {
    id: u64,
    to: NodeId,
    /// When it is asked again.
    again_us: u64,
    crowd: Crowd,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    /// Nobody was asked yet.
    queued: Crowd,
    /// The leader was.
    asked: Option<Question>,
    /// This node's own core was, by request.
    own: BTreeMap<u64, Crowd>,
    /// It was on behalf of others: who, and their name for it.
    others: BTreeMap<u64, (NodeId, u64)>,
    /// Confirmed; the machine is not there yet.
    confirmed: BTreeMap<Index, Crowd>,
    /// Nobody's deadline is earlier.
    first_deadline_us: u64,
    /// The leader is not asked before.
    ask_from_us: u64,
    next_request: u64,
}

impl Reads {
    /// For a life whose numbers begin behind `first`: an answer to an earlier one answers nothing here.
    pub(super) const fn new(first: u64) -> Self {
        Self {
            queued: Crowd { reads: Vec::new(), strict: 0 },
            asked: None,
            own: BTreeMap::new(),
            others: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            first_deadline_us: u64::MAX,
            ask_from_us: 0,
            next_request: first,
        }
    }

    const fn issue(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn crowds(&mut self) -> impl Iterator<Item = &mut Crowd> {
        let asked = self.asked.as_mut().map(|question| &mut question.crowd);
        let rest = self.own.values_mut().chain(self.confirmed.values_mut());
        std::iter::once(&mut self.queued).chain(asked).chain(rest)
    }

    fn requeue(&mut self, mut crowd: Crowd) {
        crowd.join(std::mem::take(&mut self.queued));
        self.queued = crowd;
    }
}

impl Replica {
    /// Callers want to read; all that came together.
    pub(super) fn take_reads(&mut self, calls: Vec<ReadCall>, out: &mut Vec<Action>) {
        let applied = self.raft.applied();
        let refusal = if self.shutting_down {
            Some(ReadFailure::ShuttingDown)
        } else {
            self.fault.as_ref().map(|reason| ReadFailure::Faulted { reason: reason.to_string() })
        };
        if let Some(why) = refusal {
            let end = |call: ReadCall| Action::EndRead { token: call.token, why: why.clone() };
            return out.extend(calls.into_iter().map(end));
        }
        let age_us = self.raft.fresh_at_us().map(|at| self.now.boot_us.saturating_sub(at));
        let mut ready = Vec::new();
        for ReadCall { token, level, deadline_us } in calls {
            let is_young = |most: std::time::Duration| {
                age_us.is_some_and(|age_us| u128::from(age_us) <= most.as_micros())
            };
            let crowd = match level {
                ReadLevel::Stale => None,
                ReadLevel::AtLeast(index) if index <= applied => None,
                ReadLevel::Bounded(most) if is_young(most) => None,
                ReadLevel::AtLeast(index) => Some(self.reads.confirmed.entry(index).or_default()),
                ReadLevel::Linearizable | ReadLevel::Bounded(_) | ReadLevel::Lease => {
                    self.reads.queued.strict += usize::from(level != ReadLevel::Lease);
                    Some(&mut self.reads.queued)
                }
            };
            let Some(crowd) = crowd else {
                ready.push(token);
                continue;
            };
            crowd.reads.push((token, deadline_us));
            self.reads.first_deadline_us = self.reads.first_deadline_us.min(deadline_us);
        }
        if !ready.is_empty() {
            out.push(Action::Read { tokens: ready });
        }
    }

    /// What every step may cause here.
    pub(super) fn run_reads(&mut self, out: &mut Vec<Action>) {
        self.release_reads(out);
        self.look_after_question();
        self.ask(out);
        self.expire_reads(out);
    }

    /// When something is due here.
    pub(super) fn reads_deadline(&self) -> Option<u64> {
        let reads = &self.reads;
        let first = Some(reads.first_deadline_us).filter(|at| *at < u64::MAX);
        let again = reads.asked.as_ref().map(|question| question.again_us);
        let waits = !reads.queued.reads.is_empty() && reads.ask_from_us > self.now.boot_us;
        earliest([first, again, waits.then_some(reads.ask_from_us)])
    }

    /// How many wait.
    pub(super) fn reads_waiting(&self) -> usize {
        let reads = &self.reads;
        let asked = reads.asked.as_ref().map_or(0, |question| question.crowd.reads.len());
        let rest = reads.own.values().chain(reads.confirmed.values());
        reads.queued.reads.len() + asked + rest.map(|crowd| crowd.reads.len()).sum::<usize>()
    }

    fn ask(&mut self, out: &mut Vec<Action>) {
        if self.reads.queued.reads.is_empty() {
            return;
        }
        let by_lease = self.reads.queued.strict == 0;
        if self.raft.role() == Role::Leader {
            let request = self.reads.issue();
            let crowd = std::mem::take(&mut self.reads.queued);
            self.reads.own.insert(request, crowd);
            return self.drive(raft::Input::Read { request, by_lease }, out);
        }
        let Some(to) = self.linked_leader() else { return };
        let now_us = self.now.boot_us;
        if self.reads.asked.is_some() || now_us < self.reads.ask_from_us {
            return;
        }
        let id = self.reads.issue();
        let crowd = std::mem::take(&mut self.reads.queued);
        let again_us = now_us.saturating_add(self.config.raft.election_timeout_max_us);
        self.reads.asked = Some(Question { id, to, again_us, crowd });
        let message = Message::Read(ReadMessage::Ask { id, by_lease });
        out.push(Action::Send { to, message });
    }

    /// Gives up a question that nobody will answer: its reads wait for another.
    fn look_after_question(&mut self) {
        if self.reads.asked.is_none() {
            return;
        }
        let (leader, now_us) = (self.linked_leader(), self.now.boot_us);
        let is_lost = |asked: &mut Question| leader != Some(asked.to) || now_us >= asked.again_us;
        if let Some(question) = self.reads.asked.take_if(is_lost) {
            self.reads.requeue(question.crowd);
        }
    }

    pub(super) fn take_read_message(
        &mut self,
        from: NodeId,
        message: ReadMessage,
        out: &mut Vec<Action>,
    ) {
        match message {
            ReadMessage::Ask { id, by_lease } => {
                let others = &mut self.reads.others;
                let theirs = others.values().filter(|(node, _)| *node == from).count();
                if theirs >= QUESTIONS_MAX || self.fault.is_some() {
                    return;
                }
                let request = self.reads.issue();
                self.reads.others.insert(request, (from, id));
                self.drive(raft::Input::Read { request, by_lease }, out);
            }
            ReadMessage::Answer { id, index } => {
                let is_it = |asked: &mut Question| (asked.id, asked.to) == (id, from);
                let Some(question) = self.reads.asked.take_if(is_it) else { return };
                match index {
                    Some(index) => self.confirm(index, question.crowd, out),
                    None => {
                        // Word of who leads is on its way.
                        let pause_us = self.config.raft.heartbeat_interval_us;
                        self.reads.ask_from_us = self.now.boot_us.saturating_add(pause_us);
                        self.reads.requeue(question.crowd);
                    }
                }
            }
        }
    }

    /// The core answers a question.
    pub(super) fn answered(&mut self, request: u64, index: Option<Index>, out: &mut Vec<Action>) {
        if let Some((to, id)) = self.reads.others.remove(&request) {
            let message = Message::Read(ReadMessage::Answer { id, index });
            return out.push(Action::Send { to, message });
        }
        let Some(crowd) = self.reads.own.remove(&request) else { return };
        match index {
            Some(index) => self.confirm(index, crowd, out),
            None => self.reads.requeue(crowd),
        }
    }

    /// This node leads no more, or in another term: its core has forgotten what it was asked.
    pub(super) fn lose_questions(&mut self, out: &mut Vec<Action>) {
        for (_, (to, id)) in std::mem::take(&mut self.reads.others) {
            let message = Message::Read(ReadMessage::Answer { id, index: None });
            out.push(Action::Send { to, message });
        }
        for (_, crowd) in std::mem::take(&mut self.reads.own) {
            self.reads.requeue(crowd);
        }
    }

    fn confirm(&mut self, index: Index, crowd: Crowd, out: &mut Vec<Action>) {
        if crowd.reads.is_empty() {
            return;
        }
        if index <= self.raft.applied() || bug!(ReadsDoNotWaitForTheMachine) {
            return out.push(Action::Read { tokens: crowd.tokens() });
        }
        self.reads.confirmed.entry(index).or_default().join(crowd);
    }

    /// The machine may have come to where reads wait for it.
    fn release_reads(&mut self, out: &mut Vec<Action>) {
        let applied = self.raft.applied();
        while let Some(first) = self.reads.confirmed.first_entry().filter(|it| *it.key() <= applied)
        {
            let tokens = first.remove().tokens();
            if !tokens.is_empty() {
                out.push(Action::Read { tokens });
            }
        }
    }

    fn expire_reads(&mut self, out: &mut Vec<Action>) {
        let (now_us, applied) = (self.now.boot_us, self.raft.applied());
        if now_us < self.reads.first_deadline_us {
            return;
        }
        for (wanted, crowd) in &mut self.reads.confirmed {
            let mut expired = Vec::new();
            crowd.expire(now_us, &mut expired);
            let why = ReadFailure::NotApplied { wanted: *wanted, applied };
            let end = |token| Action::EndRead { token, why: why.clone() };
            out.extend(expired.into_iter().map(end));
        }
        self.reads.confirmed.retain(|_, crowd| !crowd.reads.is_empty());
        let mut expired = Vec::new();
        self.reads.crowds().for_each(|crowd| crowd.expire(now_us, &mut expired));
        if !expired.is_empty() {
            let why = ReadFailure::NoLeader { detail: self.why_unconfirmed() };
            let end = |token| Action::EndRead { token, why: why.clone() };
            out.extend(expired.into_iter().map(end));
        }
        let left = self.reads.crowds().flat_map(|crowd| crowd.reads.iter());
        let first = left.map(|(_, deadline_us)| *deadline_us).min();
        self.reads.first_deadline_us = first.unwrap_or(u64::MAX);
    }

    fn why_unconfirmed(&self) -> String {
        match self.raft.leader() {
            Some(leader) if leader == self.raft.id() => {
                "this node leads, and too few voters have confirmed that in time".into()
            }
            Some(leader) if self.is_linked(leader) => {
                format!("node {leader} leads, and has not confirmed it in time")
            }
            Some(leader) => format!("node {leader} leads, and cannot be reached"),
            None => self.why_no_leader(),
        }
    }

    /// Ends all of them.
    pub(super) fn end_reads(&mut self, why: &ReadFailure, out: &mut Vec<Action>) {
        let mut tokens = Vec::new();
        self.reads.crowds().for_each(|crowd| {
            tokens.extend(std::mem::take(crowd).tokens());
        });
        self.reads.asked = None;
        self.reads.own.clear();
        self.reads.others.clear();
        self.reads.confirmed.clear();
        self.reads.first_deadline_us = u64::MAX;
        out.extend(tokens.into_iter().map(|token| Action::EndRead { token, why: why.clone() }));
    }
}
