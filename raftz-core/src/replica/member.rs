//! The replica object: callers in front, consensus behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::raft::quorum::{self, VoteResult};
use crate::raft::{self, Proposal, Raft};
use crate::types::{
    Boot, Done, Event, FaultReason, Index, Message, NodeId, Now, Outcome, Payload, Recovered,
    Refusal, Reply, Role, SessionTag, SnapshotTransfer, Term, Token, TransferFailure, Unknown,
    earliest,
};

use super::forward::{Batch, Seen};
use super::reads::Reads;
use super::snapshots::{SnapshotPolicy, Snapshots};
use super::tickets::{Stage, Ticket, Tickets, Who};
use super::{Action, Call, Input, ReadFailure};

/// What a replica may choose for itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The core's choices.
    pub raft: raft::Config,
    /// Most bytes of calls held while no leader is known or reachable.
    pub held_bytes_max: u64,
    /// When snapshots are taken, and what becomes of them.
    pub snapshots: SnapshotPolicy,
    /// The log time of the last entry that a machine which persists itself has, if that is known.
    pub machine_log_time_us: Option<u64>,
}

/// A replica's state, for people and for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The core's state.
    pub raft: raft::Status,
    /// Callers that wait, of this host and of followers.
    pub waiting: usize,
    /// Bytes of calls held until a leader is known.
    pub held_bytes: u64,
    /// Peers with a usable link.
    pub linked: Vec<NodeId>,
    /// Peers that cannot be reached, and why.
    pub unreachable: Vec<(NodeId, String)>,
    /// Snapshots that are on their way to peers, or from one.
    pub transfers: Vec<SnapshotTransfer>,
    /// Why the replica stopped, if it did.
    pub fault: Option<FaultReason>,
}

/// One member of one group.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(super) config: Config,
    pub(super) raft: Raft,
    pub(super) now: Now,
    pub(super) tickets: Tickets,
    /// Proposals of the present leadership, by index.
    in_log: VecDeque<(Index, Term, u64)>,
    /// Proposals of past leaderships whose slot is not decided yet.
    orphans: BTreeMap<(Index, Term), u64>,
    pub(super) held: VecDeque<u64>,
    pub(super) held_bytes: u64,
    pub(super) batches: BTreeMap<u64, Batch>,
    /// Numbers of different lives are apart.
    pub(super) next_batch: u64,
    /// Batches of followers that were taken in, so that a doubled one is not run twice.
    pub(super) seen: BTreeMap<NodeId, Seen>,
    pub(super) answers: BTreeMap<(NodeId, u64), Vec<(u32, Outcome)>>,
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) snapshots: Snapshots,
    pub(super) reads: Reads,
    pub(super) shutting_down: bool,
    pub(super) fault: Option<FaultReason>,
    scratch: Vec<raft::Action>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up(Boot),
    Down(String),
}

/// What a held call costs beyond its payload.
const HELD_CALL_BYTES: u64 = 64;

pub(super) fn held_cost(payload: &Payload) -> u64 {
    payload.len() as u64 + HELD_CALL_BYTES
}

impl Replica {
    /// A member as its storage recovered it. `seed` feeds its election timeouts.
    pub fn new(config: Config, recovered: &Recovered, now: Now, seed: u64) -> Self {
        let raft = Raft::new(config.raft.clone(), recovered, now, seed);
        let base = raft.base().index;
        let newest = config.raft.snapshot.clone();
        let own = config.raft.machine_applied.map(|own| (own, config.machine_log_time_us));
        let snapshots = Snapshots::new(config.snapshots, newest, base, own, seed);
        Self {
            snapshots,
            config,
            raft,
            now,
            tickets: Tickets::default(),
            in_log: VecDeque::new(),
            orphans: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            batches: BTreeMap::new(),
            // An answer to a batch of an earlier life must not end a call of this one.
            next_batch: if bug!(BatchNumbersStartAnew) { 0 } else { recovered.boot.0 << 40 },
            seen: BTreeMap::new(),
            answers: BTreeMap::new(),
            links: BTreeMap::new(),
            reads: Reads::new(recovered.boot.0 << 40),
            shutting_down: false,
            fault: None,
            scratch: Vec::new(),
        }
    }

    /// Takes one input and appends what is to be done to `out`.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        self.now = Now { boot_us: now.boot_us.max(self.now.boot_us), wall_us: now.wall_us };
        let was_leader = self.raft.role() == Role::Leader;
        let term = self.raft.term();
        match input {
            Input::Tick => self.drive(raft::Input::Tick, out),
            Input::Receive { from, message } => self.receive(from, message, out),
            Input::Propose(calls) => self.take_calls(calls, out),
            Input::Read(calls) => self.take_reads(calls, out),
            Input::Campaign => self.drive(raft::Input::Campaign, out),
            Input::Transfer(call) => self.take_transfer(call, out),
            Input::ForgetLeader => self.drive(raft::Input::ForgetLeader, out),
            Input::Persisted(op) => self.drive(raft::Input::Persisted { op }, out),
            Input::PersistFailed(reason) => {
                self.drive(raft::Input::PersistFailed { reason }, out);
            }
            Input::Applied { last, log_time_us, bytes, replies } => {
                self.note_applied(last, log_time_us, bytes);
                self.answer_applied(last, replies, out);
                self.drive(raft::Input::Applied { index: last }, out);
            }
            Input::ApplyFailed { index, kind, detail } => {
                self.fail(FaultReason::Machine { index, kind, detail }, out);
            }
            Input::EntriesRead { request, result } => {
                self.drive(raft::Input::EntriesRead { request, result }, out);
            }
            Input::LinkUp { peer, disk, boot } => {
                if self.links.get(&peer).is_some_and(|link| *link != Link::Up(boot)) {
                    // What an earlier life of the peer was handed, it will never answer.
                    self.lose_batches_of(peer, out);
                }
                self.links.insert(peer, Link::Up(boot));
                out.push(Action::Event(Event::PeerUp { peer }));
                self.drive(raft::Input::LinkUp { peer, disk, boot }, out);
            }
            Input::LinkDown { peer, reason } => {
                self.links.insert(peer, Link::Down(reason.clone()));
                out.push(Action::Event(Event::PeerDown { peer, reason }));
                self.lose_batches_of(peer, out);
                self.drive(raft::Input::LinkDown { peer }, out);
                self.forget_strangers();
            }
            Input::Unreachable { peer, reason } => {
                if !self.is_linked(peer) {
                    self.links.insert(peer, Link::Down(reason));
                }
            }
            Input::ForwardUnsent { id, is_too_large } => {
                self.return_batch(id, is_too_large, out);
            }
            Input::WrongDisk { known } => {
                let raft::Config { id, disk_id, .. } = self.config.raft;
                self.fail(FaultReason::WrongDisk { node: id, known, ours: disk_id }, out);
            }
            Input::SetSnapshotPolicy(policy) => self.set_snapshot_policy(policy),
            Input::TakeSnapshot => self.want_snapshot(),
            Input::SnapshotBuilt(result) => self.snapshot_built(result, out),
            Input::Restored(id) => {
                self.drive(raft::Input::Restored { id }, out);
                self.snapshot_restored(id, out);
            }
            Input::PieceRead { to, id, offset, result } => {
                self.piece_read(to, id, offset, result, out);
            }
            Input::FetchBegan { id, result } => self.fetch_began(id, result, out),
            Input::PieceWritten { id, held_bytes, damage } => {
                self.piece_written(id, held_bytes, damage, out);
            }
            Input::FetchFinished { id, result } => self.fetch_finished(id, result, out),
            Input::SnapshotFound(snapshot) => self.found(snapshot, out),
            Input::SnapshotsScrubbed(damaged) => self.scrubbed(damaged, out),
            Input::SnapshotTrouble(detail) => {
                out.push(Action::Event(Event::StorageTrouble { detail }));
            }
            Input::StorageFull(full) => self.drive(raft::Input::StorageFull { full }, out),
            Input::Shutdown => {
                self.shutting_down = true;
                self.end_transfer(TransferFailure::ShuttingDown, out);
                self.end_all(Refusal::ShuttingDown, &Unknown::ShuttingDown, out);
                self.end_reads(&ReadFailure::ShuttingDown, out);
            }
        }
        self.expire_transfer(out);
        let leads = self.raft.role() == Role::Leader && self.raft.term() == term;
        if was_leader && !leads {
            self.orphan_calls();
            self.lose_questions(out);
            self.refuse_held_that_stay(out);
        }
        self.offer_held(out);
        self.run_reads(out);
        self.run_snapshots(out);
        self.expire(out);
        self.send_answers(out);
    }

    /// The boot-clock time at which [`Input::Tick`] is wanted. May change with every step.
    pub fn next_deadline(&mut self) -> Option<u64> {
        let callers = earliest([self.tickets.next_deadline(), self.reads_deadline()]);
        if self.fault.is_some() {
            return callers;
        }
        let snapshots = self.snapshot_deadline();
        earliest([self.raft.next_deadline(), callers, snapshots])
    }

    /// The core, to look at.
    pub const fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The peers with a usable link.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> {
        let up = self.links.iter().filter(|(_, link)| matches!(link, Link::Up(_)));
        up.map(|(id, _)| *id)
    }

    /// Its state, for people and for tests.
    pub fn status(&self) -> Status {
        let down = |(id, link): (&NodeId, &Link)| match link {
            Link::Up(_) => None,
            Link::Down(reason) => Some((*id, reason.clone())),
        };
        Status {
            raft: self.raft.status(),
            waiting: self.tickets.waiting() + self.reads_waiting(),
            held_bytes: self.held_bytes,
            linked: self.connected().collect(),
            unreachable: self.links.iter().filter_map(down).collect(),
            transfers: self.transfers().collect(),
            fault: self.fault.clone(),
        }
    }

    /// Runs one step of the core and translates what it wants.
    /// A replica that has stopped drives nothing any more.
    pub(super) fn drive(&mut self, input: raft::Input, out: &mut Vec<Action>) {
        if self.fault.is_some() {
            return;
        }
        let mut actions = std::mem::take(&mut self.scratch);
        self.raft.step(self.now, input, &mut actions);
        for action in actions.drain(..) {
            match action {
                raft::Action::Persist(op) => out.push(Action::Persist(op)),
                raft::Action::Send { to, message } => {
                    out.push(Action::Send { to, message: Message::Raft(message) });
                }
                raft::Action::ReadEntries { request, first, last, bytes_max } => {
                    out.push(Action::ReadEntries { request, first, last, bytes_max });
                }
                raft::Action::Apply { first, last, entries } => {
                    out.push(Action::Apply { first, last, entries });
                }
                raft::Action::Restore { id } => out.push(Action::Restore { id }),
                raft::Action::Fetch { from, id } => self.offered(from, id, out),
                raft::Action::Accepted { first, term, tokens } => {
                    for (offset, Token(number)) in (0..).zip(tokens) {
                        let index = first.plus(offset);
                        self.in_log.push_back((index, term, number));
                        if let Some(ticket) = self.tickets.get_mut(number) {
                            ticket.stage = Stage::InLog { index, term };
                        }
                    }
                }
                raft::Action::Refused { tokens, why } => {
                    for Token(number) in tokens {
                        self.end(number, Outcome::Refused(why.clone()), out);
                    }
                }
                raft::Action::MayRead { request, index } => {
                    self.answered(request, Some(index), out);
                }
                raft::Action::MayNotRead { request } => self.answered(request, None, out),
                raft::Action::TransferEnded { token, result } => {
                    out.push(Action::TransferEnded { token, result });
                }
                raft::Action::Event(event) => out.push(Action::Event(event)),
                raft::Action::Halt(reason) => self.stop(reason, out),
            }
        }
        self.scratch = actions;
    }

    // ---- calls in ----

    fn take_calls(&mut self, calls: Vec<Call>, out: &mut Vec<Action>) {
        let limit = self.raft.settings().entry_bytes_max;
        let mut offered = Vec::with_capacity(calls.len());
        let mut forwarded = Vec::new();
        let leads = self.takes_proposals();
        let hands_over = self.raft.hands_over();
        let leader = self.linked_leader();
        for call in calls {
            let Call { token, payload, session, deadline_us, forward } = call;
            let who = Who::Local(token);
            let bytes = payload.len() as u64;
            let refusal = if self.shutting_down {
                Some(Refusal::ShuttingDown)
            } else if let Some(reason) = &self.fault {
                Some(Refusal::Faulted { reason: reason.to_string() })
            } else if bytes > limit {
                Some(Refusal::TooLarge { bytes, limit })
            } else if !leads && !forward && !hands_over {
                Some(Refusal::NotLeader { hint: self.raft.leader() })
            } else if !leads && leader.is_none() && self.held_is_full(bytes) {
                Some(Refusal::Busy { what: "the bytes of calls that wait for a leader".into() })
            } else {
                None
            };
            if let Some(why) = refusal {
                out.push(Action::Reply { token, outcome: Outcome::Refused(why) });
                continue;
            }
            if leads {
                let ticket = Ticket { who, deadline_us, stage: Stage::Offered };
                let token = Token(self.tickets.issue(ticket));
                offered.push(Proposal { token, payload, session });
                continue;
            }
            let stage = Stage::Held { payload, session, may_move: forward };
            if leader.is_some() {
                forwarded.push(self.tickets.issue(Ticket { who, deadline_us, stage }));
            } else {
                self.hold(who, deadline_us, stage);
            }
        }
        if !offered.is_empty() {
            self.drive(raft::Input::Propose { proposals: offered }, out);
        }
        if let Some(leader) = leader {
            self.forward(leader, forwarded, out);
        }
    }

    pub(super) fn held_is_full(&self, bytes: u64) -> bool {
        let wanted = self.held_bytes.saturating_add(bytes).saturating_add(HELD_CALL_BYTES);
        self.held_bytes > 0 && wanted > self.config.held_bytes_max
    }

    /// Gives held calls to a leader that has become known.
    fn offer_held(&mut self, out: &mut Vec<Action>) {
        if self.held.is_empty() || self.raft.hands_over() {
            return;
        }
        if self.raft.role() == Role::Leader {
            let mut proposals = Vec::with_capacity(self.held.len());
            self.held_bytes = 0;
            for number in std::mem::take(&mut self.held) {
                if let Some((payload, session)) = self.unhold(number, Stage::Offered) {
                    proposals.push(Proposal { token: Token(number), payload, session });
                }
            }
            self.drive(raft::Input::Propose { proposals }, out);
        } else if let Some(leader) = self.linked_leader() {
            self.held_bytes = 0;
            let numbers = std::mem::take(&mut self.held);
            self.forward(leader, numbers.into(), out);
        }
    }

    pub(super) fn unhold(
        &mut self,
        number: u64,
        next: Stage,
    ) -> Option<(Payload, Option<SessionTag>)> {
        let ticket = self.tickets.get_mut(number)?;
        match std::mem::replace(&mut ticket.stage, next) {
            Stage::Held { payload, session, .. } => Some((payload, session)),
            other @ (Stage::Offered | Stage::Forwarded { .. } | Stage::InLog { .. }) => {
                ticket.stage = other;
                None
            }
        }
    }

    // ---- messages in ----

    fn receive(&mut self, from: NodeId, message: Message, out: &mut Vec<Action>) {
        match message {
            Message::Raft(message) => self.drive(raft::Input::Receive { from, message }, out),
            Message::Forward(forward) => self.take_forward(from, forward, out),
            Message::ForwardReply(reply) => self.take_forward_reply(from, reply, out),
            Message::Snapshot(message) => self.take_snapshot_message(from, message, out),
            Message::Read(message) => self.take_read_message(from, message, out),
        }
    }

    // ---- calls out ----

    /// Tells a caller how it ended. Does nothing if it was told before.
    pub(super) fn end(&mut self, number: u64, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(ticket) = self.tickets.take(number) else { return };
        match ticket.stage {
            Stage::Held { payload, .. } => {
                self.held_bytes = self.held_bytes.saturating_sub(held_cost(&payload));
            }
            Stage::Forwarded { batch } => {
                if let Some(open) = self.batches.get_mut(&batch) {
                    open.open -= 1;
                    if open.open == 0 {
                        self.batches.remove(&batch);
                    }
                }
            }
            Stage::InLog { index, term } => {
                self.orphans.remove(&(index, term));
            }
            Stage::Offered => {}
        }
        match ticket.who {
            Who::Local(token) => out.push(Action::Reply { token, outcome }),
            Who::Remote { node, batch, position } => {
                self.answers.entry((node, batch)).or_default().push((position, outcome));
            }
        }
    }

    /// Entries up to `last` are applied: their slots are decided.
    fn answer_applied(&mut self, last: Index, replies: Vec<(Index, Reply)>, out: &mut Vec<Action>) {
        let mut replies = replies.into_iter().peekable();
        loop {
            let newest = self.in_log.front().map(|(index, term, _)| (*index, *term));
            let oldest = self.orphans.first_key_value().map(|(key, _)| *key);
            let from_orphans = match (newest, oldest) {
                (Some(newest), Some(oldest)) => oldest.0 < newest.0,
                (None, Some(_)) => true,
                (Some(_) | None, None) => false,
            };
            let slot = if from_orphans { oldest } else { newest };
            let Some((index, term)) = slot.filter(|(index, _)| *index <= last) else { return };
            let number = if from_orphans {
                self.orphans.pop_first().map(|(_, number)| number)
            } else {
                self.in_log.pop_front().map(|(_, _, number)| number)
            };
            while replies.next_if(|(at, _)| *at < index).is_some() {}
            let Some(number) = number else { continue };
            let outcome = match self.raft.term_at(index) {
                Some(applied) if applied == term || bug!(SlotIsMatchedWithoutItsTerm) => {
                    match replies.next_if(|(at, _)| *at == index) {
                        Some((_, reply)) => Outcome::Done(Done { index, term, reply }),
                        // The machine's lane owes a reply for every command; without one nobody
                        // can say what the command did.
                        None => Outcome::Unknown(Unknown::Faulted {
                            reason: "the state machine gave no reply".into(),
                        }),
                    }
                }
                Some(_) => Outcome::Refused(Refusal::Overwritten),
                // The slot is below the log's base, so what won it is no longer known.
                None => Outcome::Unknown(Unknown::LeadershipLost),
            };
            self.end(number, outcome, out);
        }
    }

    /// This node leads no more. Its proposals may yet be committed by a successor, so their callers
    /// wait until the slot is decided or their deadline comes.
    fn orphan_calls(&mut self) {
        for (index, term, number) in std::mem::take(&mut self.in_log) {
            if self.tickets.get_mut(number).is_some() {
                self.orphans.insert((index, term), number);
            }
        }
    }

    fn expire(&mut self, out: &mut Vec<Action>) {
        let expired = self.tickets.expired(self.now.boot_us);
        if expired.is_empty() {
            return;
        }
        for number in expired {
            let Some(ticket) = self.tickets.get_mut(number) else { continue };
            let outcome = match ticket.stage {
                Stage::Held { .. } => {
                    Outcome::Refused(Refusal::NoLeader { detail: self.why_no_leader() })
                }
                Stage::Offered | Stage::Forwarded { .. } => Outcome::Unknown(Unknown::Timeout),
                Stage::InLog { .. } if bug!(ExpiredCallsAreToldRefused) => {
                    Outcome::Refused(Refusal::NoLeader { detail: self.why_no_leader() })
                }
                Stage::InLog { index, term }
                    if bug!(OrphanedCallsNeverEnd) && self.orphans.contains_key(&(index, term)) =>
                {
                    continue;
                }
                Stage::InLog { index, term } => {
                    if self.orphans.contains_key(&(index, term)) {
                        Outcome::Unknown(Unknown::LeadershipLost)
                    } else {
                        Outcome::Unknown(Unknown::Timeout)
                    }
                }
            };
            self.end(number, outcome, out);
        }
        let tickets = &mut self.tickets;
        self.held.retain(|number| tickets.get_mut(*number).is_some());
    }

    /// Who is missing, in words.
    pub fn why_no_leader(&self) -> String {
        if let Some(to) = self.raft.hands_over_to() {
            return format!("leadership is being handed to node {to}");
        }
        let membership = self.raft.membership();
        let mut missing = Vec::new();
        for (id, member) in &membership.members {
            if *id == self.raft.id() || !membership.is_voter(*id) {
                continue;
            }
            match self.links.get(id) {
                Some(Link::Up(_)) => {}
                Some(Link::Down(reason)) => {
                    missing.push(format!("node {id} at {}: {reason}", member.address));
                }
                None => missing.push(format!("node {id} at {}: not reached yet", member.address)),
            }
        }
        if !membership.is_voter(self.raft.id()) {
            return "this node does not vote and has heard no leader".into();
        }
        let voters = membership.voters.len();
        if self.raft.damage().is_some() {
            let words = "this node's log is damaged and must be healed by a leader; until then it \
                         does not stand for election";
            return match voters {
                1 => format!("{words}, and there is no other voter: restore its directory"),
                _ if missing.is_empty() => words.into(),
                _ => format!("{words}; {}", missing.join("; ")),
            };
        }
        if missing.is_empty() {
            return "all voters are reachable; an election is under way".into();
        }
        let is_there = |id: &NodeId| *id == self.raft.id() || self.is_linked(*id);
        let voters: Vec<NodeId> =
            membership.members.keys().copied().filter(|id| membership.is_voter(*id)).collect();
        let (all, missing) = (voters.len(), missing.join("; "));
        let there: BTreeSet<NodeId> = voters.into_iter().filter(is_there).collect();
        let reachable = there.len();
        match quorum::vote(membership, &there, &BTreeSet::new()) {
            VoteResult::Won => format!(
                "{reachable} of {all} reachable, which is a quorum; an election is under way; {missing}"
            ),
            VoteResult::Lost | VoteResult::Pending => {
                format!("no quorum: {reachable} of {all} reachable; {missing}")
            }
        }
    }

    // ---- the end ----

    fn fail(&mut self, reason: FaultReason, out: &mut Vec<Action>) {
        if self.fault.is_none() {
            out.push(Action::Event(Event::Faulted(reason.clone())));
            self.stop(reason, out);
        }
    }

    fn stop(&mut self, reason: FaultReason, out: &mut Vec<Action>) {
        let words = reason.to_string();
        self.fault = Some(reason.clone());
        self.fail_transfer(&reason, out);
        self.raft.stop();
        self.end_all(
            Refusal::Faulted { reason: words.clone() },
            &Unknown::Faulted { reason: words.clone() },
            out,
        );
        self.end_reads(&ReadFailure::Faulted { reason: words }, out);
        self.send_answers(out);
        out.push(Action::Halt(reason));
    }

    fn end_all(&mut self, refusal: Refusal, unknown: &Unknown, out: &mut Vec<Action>) {
        for number in self.tickets.all() {
            let Some(ticket) = self.tickets.get_mut(number) else { continue };
            let outcome = match ticket.stage {
                Stage::Held { .. } => Outcome::Refused(refusal.clone()),
                Stage::Offered | Stage::Forwarded { .. } | Stage::InLog { .. } => {
                    Outcome::Unknown(unknown.clone())
                }
            };
            self.end(number, outcome, out);
        }
        self.held.clear();
        self.held_bytes = 0;
    }
}
