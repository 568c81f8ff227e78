//! The host: the replicas of this process and what they share (transport, lanes, callers), with
//! the deeds for each action that a replica asks for. The order of a turn stands in `event_loop`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use litemap::LiteMap;

use crate::replica::{Action, Call, Input, Replica};
use crate::transport::codec::{self, Decoded};
use crate::transport::handshake::Reject;
use crate::transport::{InFrame, PeerSpec, SendError, Transport, TransportEvent};
use crate::types::{
    DiskId, Entries, Entry, Event, FaultReason, ForwardReply, GroupId, Index, Membership, Message,
    NodeId, Now, Outcome, Refusal, Reply, Role, Term, Unknown, WriteOp,
};

use super::callbacks::{Callbacks, Item};
use super::callers::{Caller, Gauge, Table};
use super::error::NodeError;
use super::intake::{Intake, Note, QueuedCall, ReadPurpose};
use super::lanes::{
    Applier, ApplyLane, Cancel, LogLane, ReadJob, ReadLane, SnapshotLane, Sum, rules,
};
use super::log::Line;
use super::metrics::{Account, Meter};
use super::query::{QueryDeadlines, QueryJob};
use super::snapshots::SnapshotWish;
use super::status::{Board, Pulse};
use super::told::Told;
use super::transfer::TransferWishes;
use super::vigil::Vigil;
use super::watch::Standings;

/// What the event loop and the handle share.
pub(crate) struct Shared {
    /// Into the loop.
    pub(crate) intake: Arc<Intake>,
    /// Out of the loop.
    pub(crate) board: Board,
    /// To the callback thread.
    pub(crate) callbacks: Arc<Callbacks>,
    /// Calls in flight.
    pub(crate) gauge: Arc<Gauge>,
    /// What is counted and measured.
    pub(crate) meter: Arc<Meter>,
    /// How the node stands.
    pub(crate) standings: Arc<Standings>,
}

/// Most calls that a replica is given, and entries that a machine is given, in one step.
const AT_ONCE: usize = 256;

/// A range that an inline machine is to apply.
pub(super) struct Range {
    last: Index,
    /// What is at hand of it; empty while the read lane fetches it.
    entries: Entries,
    /// How many of those have been applied.
    done: usize,
}

/// What inline machines may still apply in this turn. Beyond it the network has its turn first, so
/// that a long log to catch up on costs no heartbeat.
pub(super) struct ApplyBudget {
    entries: usize,
    bytes: u64,
}

impl ApplyBudget {
    /// A whole turn's worth.
    pub(super) const TURN: Self = Self { entries: 2048, bytes: 1 << 20 };

    /// Takes what the budget allows from the front of `entries`: at least one, if anything is left.
    fn take<'a>(&mut self, entries: &'a [Entry]) -> &'a [Entry] {
        let mut count = 0;
        for entry in entries.iter().take(AT_ONCE) {
            if self.entries == 0 || self.bytes == 0 {
                break;
            }
            self.entries -= 1;
            self.bytes = self.bytes.saturating_sub(entry.cost_bytes());
            count += 1;
        }
        &entries[..count]
    }
}

/// What inline machines may still answer in this turn; the rest waits for the next, so that no
/// number of questions costs a heartbeat.
struct QueryBudget {
    queries: usize,
    reply_bytes: u64,
}

impl QueryBudget {
    /// A whole turn's worth.
    const TURN: Self = Self { queries: 256, reply_bytes: 1 << 20 };

    const fn is_left(&self) -> bool {
        self.queries > 0 && self.reply_bytes > 0
    }

    const fn spend(&mut self, reply_bytes: u64) {
        self.queries -= 1;
        self.reply_bytes = self.reply_bytes.saturating_sub(reply_bytes);
    }
}

/// Where a group's machine runs.
pub(super) enum Machine {
    /// On the event loop.
    Inline {
        /// The machine; `None` while it is being restored elsewhere.
        applier: Option<Box<Applier>>,
        /// What it is to apply; its entries are on their way from the read lane when empty.
        range: Option<Range>,
        /// Questions to it, in order.
        queries: VecDeque<QueryJob>,
        /// So many of the first are watched for their deadlines.
        watched: usize,
    },
    /// On the apply lane's thread.
    Lane,
}

/// One group's member on this host.
pub(super) struct Member {
    pub(super) replica: Replica,
    pub(super) machine: Machine,
    pub(super) applied: Index,
    pub(super) halted: Option<FaultReason>,
    /// Ends the snapshot that is being written.
    pub(super) build: Cancel,
    out: Vec<Action>,
}

impl Member {
    pub(super) fn new(replica: Replica, machine: Machine, applied: Index) -> Self {
        let (halted, build) = (None, Cancel::default());
        Self { replica, machine, applied, halted, build, out: Vec::new() }
    }

    /// The refusal for a caller who wants the leader of this term, unless that is who it is.
    fn leads_not_in(&self, wanted: Term) -> Option<Refusal> {
        let raft = self.replica.raft();
        let led = Some(raft.term()).filter(|_| raft.role() == Role::Leader);
        (led != Some(wanted)).then_some(Refusal::TermMismatch { wanted, led })
    }

    /// Feeds one input to the replica, unless it has stopped.
    pub(super) fn step(&mut self, now: Now, input: Input) {
        if self.halted.is_none() {
            self.replica.step(now, input, &mut self.out);
        }
    }
}

/// All of it.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) disk: DiskId,
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) members: LiteMap<GroupId, Member>,
    pub(super) memberships: BTreeMap<GroupId, Membership>,
    pub(super) callers: Table<Caller>,
    /// Reads that the replicas have not released.
    pub(super) reads: Table<QueryJob>,
    pub(super) query_deadlines: QueryDeadlines,
    pub(super) transfers: TransferWishes,
    pub(super) log: LogLane,
    pub(super) read: ReadLane,
    pub(super) apply: Option<ApplyLane>,
    pub(super) snapshots: Option<SnapshotLane>,
    pub(super) wishes: Vec<SnapshotWish>,
    pub(super) read_bytes_max: u64,
    pub(super) stopping: bool,
    pub(super) status_wanted: bool,
    pub(super) writes: Vec<(GroupId, WriteOp)>,
    pub(super) answers: Vec<(Caller, Outcome)>,
    pub(super) later: Vec<Item>,
    pub(super) unsent: Vec<(GroupId, Input)>,
    /// What was told of other nodes.
    pub(super) told: Told,
    /// What the loop counts for itself.
    pub(super) account: Account,
    /// When what is answered now came to its end, as near as it is known without asking the clock again.
    pub(super) answered_us: u64,
    /// Whether there is a leader, and when to say that there is none.
    pub(super) vigil: Vigil,
    /// Something was told that may have changed how the node stands.
    pub(super) has_news: bool,
    pub(super) sent: bool,
}

impl Host {
    // ---- in ----

    /// Feeds one input to a group's replica, unless it has stopped.
    pub(super) fn step(&mut self, now: Now, group: GroupId, input: Input) {
        if let Some(member) = self.members.get_mut(&group) {
            member.step(now, input);
        }
    }

    /// Feeds the same input to every replica.
    pub(super) fn step_all(&mut self, now: Now, input: &Input) {
        for (_, member) in self.members.iter_mut() {
            member.step(now, input.clone());
        }
    }

    /// Hands over everything that callers proposed, to each group in batches of a bounded size: what belongs
    /// together stays in the processor's caches, and others can begin with the first while the rest follows.
    pub(super) fn take_calls(&mut self, now: Now, calls: &mut Vec<QueuedCall>) {
        let count = calls.len();
        let (mut of, mut batch) = (GroupId::FIRST, Vec::new());
        for (nth, queued) in calls.drain(..).enumerate() {
            let QueuedCall { group, caller, payload, session, deadline_us, .. } = queued;
            if group != of {
                self.propose(now, of, &mut batch);
                of = group;
            }
            let refusal = match self.members.get(&group) {
                Some(Member { halted: Some(reason), .. }) => {
                    Some(Refusal::Faulted { reason: reason.to_string() })
                }
                _ if self.stopping => Some(Refusal::ShuttingDown),
                Some(member) => queued.expected_term.and_then(|term| member.leads_not_in(term)),
                None => Some(Refusal::Faulted { reason: format!("no group {}", group.0) }),
            };
            let forward = queued.forward && queued.expected_term.is_none();
            if let Some(refusal) = refusal {
                self.answers.push((caller, Outcome::Refused(refusal)));
                continue;
            }
            let token = self.callers.enter(caller.on_its_way());
            if batch.is_empty() {
                batch.reserve_exact((count - nth).min(AT_ONCE));
            }
            batch.push(Call { token, payload, session, deadline_us, forward });
            if batch.len() == AT_ONCE {
                self.propose(now, of, &mut batch);
            }
        }
        self.propose(now, of, &mut batch);
    }

    fn propose(&mut self, now: Now, group: GroupId, batch: &mut Vec<Call>) {
        if !batch.is_empty() {
            self.step(now, group, Input::Propose(std::mem::take(batch)));
        }
    }

    /// Takes one note out of the inbox.
    pub(super) fn take_note(&mut self, now: Now, note: Note) {
        match note {
            Note::Persisted(group, op) => self.step(now, group, Input::Persisted(op)),
            Note::PersistFailed(group, reason) => {
                self.step(now, group, Input::PersistFailed(reason));
            }
            Note::StorageFull(full) => self.step_all(now, &Input::StorageFull(full)),
            Note::Applied { group, sum, replies } => self.applied(now, group, sum, replies),
            Note::Snapshot(group, input) => self.snapshot_news(now, group, *input),
            Note::Restored { group, applier, id, result } => {
                self.restored(now, group, applier, id, result);
            }
            Note::TakeSnapshot(group, wish) => self.wish_snapshot(now, group, wish),
            Note::SetSnapshotPolicy(group, policy) => {
                self.step(now, group, Input::SetSnapshotPolicy(policy));
            }
            Note::ApplyFailed { group, failure } => {
                self.step(now, group, failed(failure));
            }
            Note::Read { group, purpose: ReadPurpose::Replica(request), result } => {
                self.step(now, group, Input::EntriesRead { request, result });
            }
            Note::Read { group, purpose: ReadPurpose::Apply, result } => {
                self.read_for_apply(now, group, result);
            }
            Note::Transfer(group, wish) => self.wish_transfer(now, group, wish),
            Note::RefreshStatus => self.status_wanted = true,
            Note::Shutdown => {
                self.stopping = true;
                self.step_all(now, &Input::Shutdown);
            }
        }
    }

    /// Takes one event of the transport.
    pub(super) fn take_event(&mut self, now: Now, event: TransportEvent) {
        match event {
            TransportEvent::Frame { from, frame } => self.receive(now, from, &frame),
            TransportEvent::LinkUp(peer) => {
                let (peer, disk, boot) = (peer.node, peer.disk, peer.boot);
                self.told.linked(peer);
                self.step_all(now, &Input::LinkUp { peer, disk, boot });
            }
            TransportEvent::LinkDown { peer, reason } => {
                self.step_all(now, &Input::LinkDown { peer, reason });
            }
            TransportEvent::Unreachable { peer, reason } => {
                if self.told.unreachable(peer, &reason) {
                    let text = format!("node {peer} is out of reach, trying on: {reason}");
                    self.later.push(Item::Line(Line::about(peer, text)));
                }
                self.step_all(now, &Input::Unreachable { peer, reason });
            }
            TransportEvent::Refused { peer, disk, code, reason } => {
                let event = Event::PeerRefused { peer, disk, reason };
                if !is_member(&self.memberships, peer) {
                    self.tell(now, GroupId::FIRST, event);
                } else if self.told.refused(peer, code) {
                    self.later.push(Item::Event(GroupId::FIRST, event));
                }
            }
            TransportEvent::Trouble { detail } => {
                self.tell(now, GroupId::FIRST, Event::NetworkTrouble { detail });
            }
            TransportEvent::RefusedBy { peer, code, reason, known_disk } => {
                if self.told.refused_by(peer, code) {
                    let text = format!("node {peer} refuses us: {reason}");
                    self.later.push(Item::Line(Line::about(peer, text)));
                }
                match known_disk.filter(|_| code == Reject::WRONG_DISK) {
                    Some(known) if self.may_tell_disk(peer, known) => {
                        self.step_all(now, &Input::WrongDisk { known });
                    }
                    Some(_) | None => {
                        let reason = format!("it refuses this node: {reason}");
                        self.step_all(now, &Input::Unreachable { peer, reason });
                    }
                }
            }
        }
    }

    /// Whether to believe `peer` that the cluster knows this node by the directory `known`, which
    /// ends this node: it must be a member, and say what can be true.
    fn may_tell_disk(&self, peer: NodeId, known: DiskId) -> bool {
        is_member(&self.memberships, peer) && known != self.disk
    }

    fn receive(&mut self, now: Now, from: NodeId, frame: &InFrame) {
        let what = match codec::decode(frame) {
            Ok((group, Decoded::Message(message))) if self.members.contains_key(&group) => {
                return self.step(now, group, Input::Receive { from, message });
            }
            Ok((group, Decoded::Message(_))) => format!("a message for unknown group {}", group.0),
            // A later version may say things that this one need not understand.
            Ok((_, Decoded::Unknown(_))) => return,
            Err(error) => error.to_string(),
        };
        self.tell(now, GroupId::FIRST, Event::Nonsense { from, what });
    }

    pub(super) fn query(&mut self, group: GroupId, job: QueryJob) {
        match self.members.get_mut(&group).map(|member| &mut member.machine) {
            Some(Machine::Inline { queries, .. }) => queries.push_back(job),
            Some(Machine::Lane) => {
                if let Some(asked) = job.asked() {
                    self.query_deadlines.watch(asked);
                }
                match &self.apply {
                    Some(lane) => lane.query(group, job),
                    None => drop(job),
                }
            }
            None => {
                let reason = format!("no group {}", group.0);
                job.answer(Err(NodeError::Faulted { reason }));
            }
        }
    }

    // ---- out ----

    /// Does what the replicas asked for, in their order. Writes, answers and callbacks are only
    /// gathered here, so that a turn pays once for each.
    pub(super) fn perform(&mut self, now: Now) {
        let wanting = |(group, member): (&GroupId, &mut Member)| {
            (!member.out.is_empty()).then(|| (*group, std::mem::take(&mut member.out)))
        };
        while let Some((group, mut out)) = self.members.iter_mut().find_map(wanting) {
            for action in out.drain(..) {
                self.perform_one(now, group, action);
            }
            if let Some(member) = self.members.get_mut(&group) {
                // For its room: what was asked for meanwhile comes first.
                out.append(&mut member.out);
                member.out = out;
            }
        }
    }

    fn perform_one(&mut self, now: Now, group: GroupId, action: Action) {
        match action {
            Action::Persist(op) => self.writes.push((group, op)),
            Action::Send { to, message } => self.send(group, to, &message),
            Action::ReadEntries { request, first, last, bytes_max } => {
                let purpose = ReadPurpose::Replica(request);
                self.read.read(ReadJob { group, purpose, first, last, bytes_max });
            }
            Action::Apply { first, last, entries } => self.apply(group, first, last, entries),
            Action::Reply { token, outcome } => {
                debug_assert!(!matches!(&outcome, Outcome::Unknown(Unknown::InCallback { .. })));
                if let Some(caller) = self.callers.take(token) {
                    self.answers.push((caller, outcome));
                }
            }
            Action::Read { tokens } => self.release(group, tokens),
            Action::EndRead { token, why } => self.end_read(token, why),
            Action::TakeSnapshot { .. }
            | Action::CancelSnapshot
            | Action::Restore { .. }
            | Action::ReadPiece { .. }
            | Action::BeginFetch { .. }
            | Action::WritePiece { .. }
            | Action::FinishFetch { .. }
            | Action::AbandonFetch { .. }
            | Action::PruneSnapshots { .. }
            | Action::FindSnapshot { .. }
            | Action::ScrubSnapshots { .. } => self.perform_snapshot(group, action),
            Action::TransferEnded { token, result } => self.transfer_ended(token, result),
            Action::Event(event) => self.tell(now, group, event),
            Action::Halt(reason) => self.halt(group, reason),
        }
    }

    fn send(&mut self, group: GroupId, to: NodeId, message: &Message) {
        self.sent = true;
        // A frame that finds no link or a full queue is dropped: Raft asks again. Forwarded calls
        // are the exception, since they are handed over at most once.
        let Err(error) = self.transport.send(to, codec::encode(group, message)) else { return };
        match message {
            Message::Forward(forward) => {
                let is_too_large = error == SendError::TooLarge;
                self.unsent.push((group, Input::ForwardUnsent { id: forward.id, is_too_large }));
            }
            Message::ForwardReply(reply) if error == SendError::TooLarge => {
                self.send_in_parts(group, to, reply);
            }
            Message::Raft(_) if error == SendError::TooLarge => {
                // Nodes of one cluster agree on the largest entry, so this is a peer's mistake.
                let why = "it takes no message as large as it needs";
                if self.told.unreachable(to, why) {
                    let text = format!("node {to} is cut off: {why}");
                    self.later.push(Item::Line(Line::about(to, text)));
                }
            }
            // Pieces are asked for again.
            Message::ForwardReply(_)
            | Message::Raft(_)
            | Message::Snapshot(_)
            | Message::Read(_) => {}
        }
    }

    /// Sends answers that are too large for one frame in halves, so that nobody waits in vain for
    /// what can never be sent; a single one is replaced by the reason.
    fn send_in_parts(&mut self, group: GroupId, to: NodeId, reply: &ForwardReply) {
        let part = |outcomes| Message::ForwardReply(ForwardReply { id: reply.id, outcomes });
        match reply.outcomes.as_slice() {
            [] | [(_, Outcome::Unknown(_))] => {}
            [(position, _)] => {
                let reason = "its answer is larger than any message that this node takes".into();
                let outcome = Outcome::Unknown(Unknown::Faulted { reason });
                self.send(group, to, &part(vec![(*position, outcome)]));
            }
            several => {
                let (front, back) = several.split_at(several.len() / 2);
                self.send(group, to, &part(front.to_vec()));
                self.send(group, to, &part(back.to_vec()));
            }
        }
    }

    fn apply(&mut self, group: GroupId, first: Index, last: Index, entries: Entries) {
        let bytes_max = self.read_bytes_max;
        match self.members.get_mut(&group).map(|member| &mut member.machine) {
            Some(Machine::Inline { range, .. }) => {
                if entries.is_empty() {
                    let purpose = ReadPurpose::Apply;
                    self.read.read(ReadJob { group, purpose, first, last, bytes_max });
                }
                *range = Some(Range { last, entries, done: 0 });
            }
            Some(Machine::Lane) => {
                if let Some(lane) = &self.apply {
                    lane.apply(group, first, last, entries);
                }
            }
            None => {}
        }
    }

    /// Lets inline machines apply what is at hand, within the turn's budget; `true` if any replica
    /// was stepped by it.
    pub(super) fn apply_inline(&mut self, now: Now, budget: &mut ApplyBudget) -> bool {
        let mut stepped = false;
        for at in 0..self.members.len() {
            let Some((group, member)) = self.members.iter_mut().nth(at) else { continue };
            let group = *group;
            let Machine::Inline { applier: Some(applier), range: wanted, .. } = &mut member.machine
            else {
                continue;
            };
            let Some(range) = wanted else { continue };
            let entries = budget.take(&range.entries[range.done..]);
            let Some(sum) = Sum::of(entries) else { continue };
            let upto = sum.last;
            let begun_us = self.shared.meter.now_us();
            let outcome = applier.apply(entries);
            self.answered_us = self.shared.meter.applied(begun_us);
            range.done += entries.len();
            if range.done == range.entries.len() {
                if upto < range.last {
                    range.entries = Entries::new();
                    range.done = 0;
                    let (first, last, bytes_max) = (upto.next(), range.last, self.read_bytes_max);
                    let purpose = ReadPurpose::Apply;
                    self.read.read(ReadJob { group, purpose, first, last, bytes_max });
                } else {
                    *wanted = None;
                }
            }
            stepped = true;
            match outcome {
                Ok(replies) => self.applied(now, group, sum, replies),
                Err(failure) => self.step(now, group, failed(failure)),
            }
        }
        stepped
    }

    /// Lets inline machines answer questions, within a turn's budget. Whoever must wait is watched from then on.
    pub(super) fn answer_inline(&mut self) {
        let mut budget = QueryBudget::TURN;
        for (_, member) in self.members.iter_mut() {
            let Machine::Inline { applier, queries, watched, .. } = &mut member.machine else {
                continue;
            };
            while let Some(applier) = applier
                && budget.is_left()
                && let Some(job) = queries.pop_front()
            {
                let answer = applier.query(&job.request);
                budget.spend(answer.as_ref().map_or(0, |reply| reply.bytes().len() as u64));
                job.answer_on_loop(answer, &mut self.later);
                *watched = watched.saturating_sub(1);
            }
            for asked in queries.iter().skip(*watched).filter_map(QueryJob::asked) {
                self.query_deadlines.watch(asked);
            }
            *watched = queries.len();
        }
        self.shared.callbacks.push_all(&mut self.later);
    }

    /// Whether an inline machine has something at hand that the last turn left over.
    pub(super) fn has_inline_work(&self) -> bool {
        self.members.values().any(|member| match &member.machine {
            Machine::Inline { applier: None, .. } => false,
            Machine::Inline { range, queries, .. } => {
                let unapplied = range.as_ref().is_some_and(|r| r.done < r.entries.len());
                unapplied || !queries.is_empty()
            }
            Machine::Lane => false,
        })
    }

    /// A chunk that the read lane brought for an inline machine.
    fn read_for_apply(&mut self, now: Now, group: GroupId, result: Result<Vec<Entry>, String>) {
        let Some(member) = self.members.get_mut(&group) else { return };
        let next = member.applied.next();
        let Machine::Inline { range: wanted, .. } = &mut member.machine else { return };
        let Some(range) = wanted else { return };
        let checked = result
            .and_then(|entries| rules::check_run(&entries, next, range.last).map(|_| entries));
        match checked {
            Ok(entries) => {
                range.entries = entries.into();
                range.done = 0;
            }
            Err(detail) => {
                *wanted = None;
                let reason = format!("reading entries to apply: {detail}");
                self.step(now, group, Input::PersistFailed(reason));
            }
        }
    }

    fn applied(&mut self, now: Now, group: GroupId, sum: Sum, replies: Vec<(Index, Reply)>) {
        let Sum { last, log_time_us, bytes } = sum;
        self.account.applied(last, log_time_us);
        if let Some(member) = self.members.get_mut(&group) {
            member.applied = member.applied.max(last);
        }
        self.step(now, group, Input::Applied { last, log_time_us, bytes, replies });
    }

    fn tell(&mut self, now: Now, group: GroupId, event: Event) {
        self.has_news = true;
        if let Event::Membership { membership, .. } = &event {
            self.memberships.insert(group, membership.clone());
            self.set_peers();
        }
        let memberships = &self.memberships;
        let event = self.told.admit(now.boot_us, event, |node| is_member(memberships, node));
        self.later.extend(event.map(|event| Item::Event(group, event)));
    }

    /// Says how much was left untold, where nothing followed that could say it.
    pub(super) fn tell_left_out(&mut self, now: Now) {
        if self.told.has_limited() {
            let lines = self.told.left_out(now.boot_us).map(|text| Item::Line(Line::new(text)));
            self.later.extend(lines);
        }
    }

    /// Tells the transport whom the groups of this host need.
    pub(super) fn set_peers(&mut self) {
        let mut peers: BTreeMap<NodeId, PeerSpec> = BTreeMap::new();
        for membership in self.memberships.values() {
            for (id, member) in membership.members.iter().filter(|(id, _)| **id != self.id) {
                peers.insert(
                    *id,
                    PeerSpec { node: *id, address: member.address.clone(), disk: member.disk_id },
                );
            }
        }
        let peers: Vec<PeerSpec> = peers.into_values().collect();
        self.transport.set_peers(&peers);
    }

    fn halt(&mut self, group: GroupId, reason: FaultReason) {
        if let Some(member) = self.members.get_mut(&group) {
            self.shared.intake.close(Refusal::Faulted { reason: reason.to_string() });
            member.halted = Some(reason);
            self.status_wanted = true;
            self.has_news = true;
        }
    }

    // ---- the board ----

    /// Pins up where things stand.
    pub(super) fn publish(&mut self) {
        let Some(member) = self.members.get(&GroupId::FIRST) else { return };
        self.shared.board.beat(Pulse {
            leader: member.replica.raft().leader(),
            applied: member.applied,
            stopped: member.halted.is_some(),
        });
        if std::mem::take(&mut self.status_wanted) {
            let upto = self.shared.board.asked();
            let status = member.replica.status();
            let calls = self.shared.gauge.calls();
            let dropped = self.shared.callbacks.dropped();
            self.shared.board.publish(upto, |board| {
                board.update(&status);
                board.calls_in_flight = calls;
                board.events_dropped = dropped;
            });
        }
    }

    /// Pins up the last word, when the loop ends.
    pub(super) fn publish_last(&self) {
        let status = self.members.get(&GroupId::FIRST).map(|member| {
            let mut status = member.replica.status();
            status.fault = status.fault.or_else(|| member.halted.clone());
            status
        });
        let dropped = self.shared.callbacks.dropped();
        self.shared.board.publish_last(|board| {
            if let Some(status) = &status {
                board.update(status);
            }
            board.leader = None;
            board.shut_down = self.stopping;
            board.events_dropped = dropped;
        });
    }
}

fn is_member(memberships: &BTreeMap<GroupId, Membership>, node: NodeId) -> bool {
    memberships.values().any(|membership| membership.members.contains_key(&node))
}

fn failed(failure: rules::ApplyFailure) -> Input {
    let rules::ApplyFailure { index, kind, detail } = failure;
    Input::ApplyFailed { index, kind, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_applies_a_bounded_part_of_a_long_log_and_always_some_of_it() {
        let entry = |index, bytes: usize| Entry {
            term: crate::types::Term(1),
            index: Index(index),
            log_time_us: 0,
            kind: crate::types::EntryKind::Command,
            session: None,
            payload: crate::types::Payload::new(vec![0u8; bytes]),
        };
        let small: Vec<Entry> = (1..=5000).map(|index| entry(index, 8)).collect();
        let mut budget = ApplyBudget::TURN;
        for step in 0..8 {
            assert_eq!(budget.take(&small[step * AT_ONCE..]).len(), AT_ONCE);
        }
        assert_eq!(budget.take(&small[8 * AT_ONCE..]).len(), 0, "the rest is for the next turn");
        let large: Vec<Entry> = (1..=3).map(|index| entry(index, 3 << 20)).collect();
        budget = ApplyBudget::TURN;
        assert_eq!(budget.take(&large).len(), 1, "one, whatever its size");
    }
}
