//! The world of one run: nodes, links, clients and faults on one line of virtual time.
//!
//! Everything that happens is an *event*: a message that arrives, a deadline, a write that is done, a call, a
//! fault. Events happen in the order of their times; those of the same time in an order that is drawn. After
//! each event the oracle looks at the node that it happened to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;

use crate::node::lanes::{Applier, rules};
use crate::replica::{Action, Call, Input, Replica};
use crate::storage::wal::{BootstrapSpec, Wal};
use crate::storage::{IDLE_SEAL_MS, Space, Storage, StorageError};
use crate::transport::codec::{self, Decoded};
use crate::transport::frame::FrameError;
use crate::transport::handshake::{Identity, Known, Reject, judge};
use crate::transport::{InFrame, SendError};
use crate::types::{
    AppendOutcome, Base, Event as Told, FaultReason, GroupId, Member, Membership, Message, NodeId,
    Outcome, Payload, RaftBody, Refusal, Role, Settings, Unknown,
};

use super::calls::Calls;
use super::choice::{Choices, Chooser, Stream};
use super::clock::Clock;
use super::disk::{DiskFaults, SimDisk};
use super::marker::Marker;
use super::mix::Mix;
use super::nemesis::Undo;
use super::network::{Network, Passage};
use super::node::{self, Life, Range, ReadJob, SimNode};
use super::oracle::Oracle;
use super::plan::{Fault, Plan, Wire};
use super::{Machine, Report, Workload};

/// How long a side waits for a sign of the other before it gives a connection up.
pub(super) const DEAD_AFTER_US: u64 = 1_000_000;
/// How often two nodes look after their connection.
const LINK_CARE_US: u64 = 40_000;
/// How often a node whose disk lacks room looks again.
const SPACE_RETRY_US: u64 = 500_000;
/// Commands of a run beyond which something feeds itself.
const EVENTS_MAX: u64 = 20_000_000;

/// Something that happens at a time.
pub(super) enum Event {
    Deliver {
        from: usize,
        to: usize,
        connection: u64,
        message: Message,
    },
    Chunk {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Bytes,
    },
    /// A side learns that its connection is gone.
    Broken {
        at: usize,
        peer: usize,
        connection: u64,
    },
    Care {
        a: usize,
        b: usize,
    },
    Tick {
        at: usize,
        life: u64,
        number: u64,
    },
    Written {
        at: usize,
        life: u64,
    },
    Idle {
        at: usize,
        life: u64,
        submissions: u64,
    },
    Space {
        at: usize,
        life: u64,
    },
    Read {
        at: usize,
        life: u64,
        job: ReadJob,
    },
    Applied {
        at: usize,
        life: u64,
    },
    Start {
        at: usize,
    },
    Resume {
        at: usize,
    },
    Client {
        client: u64,
    },
    Fault,
    Undo {
        undo: Undo,
    },
}

impl Event {
    /// The node that must be awake for it.
    const fn node(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } | Self::Chunk { to, .. } => Some(*to),
            Self::Broken { at, .. }
            | Self::Tick { at, .. }
            | Self::Written { at, .. }
            | Self::Idle { at, .. }
            | Self::Space { at, .. }
            | Self::Read { at, .. }
            | Self::Applied { at, .. } => Some(*at),
            Self::Care { .. }
            | Self::Start { .. }
            | Self::Resume { .. }
            | Self::Client { .. }
            | Self::Fault
            | Self::Undo { .. } => None,
        }
    }

    const fn number(&self) -> u64 {
        match self {
            Self::Deliver { from, to, .. } => 1 << 8 | (*from as u64) << 4 | *to as u64,
            Self::Chunk { from, to, .. } => 2 << 8 | (*from as u64) << 4 | *to as u64,
            Self::Broken { at, peer, .. } => 3 << 8 | (*at as u64) << 4 | *peer as u64,
            Self::Care { a, b } => 4 << 8 | (*a as u64) << 4 | *b as u64,
            Self::Tick { at, .. } => 5 << 8 | *at as u64,
            Self::Written { at, .. } => 6 << 8 | *at as u64,
            Self::Idle { at, .. } => 7 << 8 | *at as u64,
            Self::Space { at, .. } => 8 << 8 | *at as u64,
            Self::Read { at, .. } => 9 << 8 | *at as u64,
            Self::Applied { at, .. } => 10 << 8 | *at as u64,
            Self::Start { at } => 11 << 8 | *at as u64,
            Self::Resume { at } => 12 << 8 | *at as u64,
            Self::Client { client } => 13 << 8 | *client,
            Self::Fault => 14 << 8,
            Self::Undo { .. } => 15 << 8,
        }
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process alone: its files are as it left them.
    Killed,
    /// The machine: what was not synced may be gone.
    PowerCut,
}

/// Where lines go that tell what happens.
pub(super) type Teller = Box<dyn FnMut(String)>;

/// The whole of a run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) nodes: Vec<SimNode>,
    pub(super) net: Network,
    pub(super) calls: Calls,
    pub(super) oracle: Oracle,
    pub(super) now_us: u64,
    pub(super) events: u64,
    pub(super) markers: BTreeMap<Marker, u64>,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) fault_number: u64,
    pub(super) fates: Chooser,
    /// A hash of all that has happened.
    pub(super) trace: Mix,
    pub(super) teller: Option<Teller>,
    /// The safety phase: clients call and faults strike.
    pub(super) is_stormy: bool,
    /// More was damaged than any cluster survives.
    pub(super) is_beyond_survival: bool,
    pub(super) machine: Machine,
    workload: Workload,
    work: Chooser,
    clients: Vec<Chooser>,
    order: Chooser,
    heap: BinaryHeap<Reverse<(u64, u64, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    queued: u64,
    stashed: Vec<Vec<Event>>,
    lives: u64,
    out: Vec<Action>,
    base: Base,
}

pub(super) fn node_id(at: usize) -> NodeId {
    NodeId::new(at as u64 + 1).unwrap_or_else(|| unreachable!("at + 1 is not 0"))
}

pub(super) fn place(id: NodeId) -> usize {
    usize::try_from(id.get() - 1).unwrap_or(usize::MAX)
}

impl World {
    /// A cluster that is about to be started for the first time.
    pub(super) fn new(
        plan: &Plan,
        choices: &Choices,
        machine: Machine,
        workload: Workload,
        teller: Option<Teller>,
    ) -> Self {
        let count = usize::try_from(plan.voters + plan.learners).unwrap_or(1);
        let ids: Vec<NodeId> = (0..count).map(node_id).collect();
        let voters: Vec<NodeId> =
            ids.iter().copied().filter(|id| id.get() <= plan.voters).collect();
        let base = founding_base(plan, &ids, &voters);
        let oracle = Oracle::new(voters, ids.iter().copied(), machine());
        let nodes = ids.iter().map(|id| new_node(*id, choices)).collect();
        let mut world = Self {
            nodes,
            net: Network::new(plan, count, choices),
            calls: Calls::default(),
            oracle,
            now_us: 0,
            events: 0,
            markers: BTreeMap::new(),
            faults: BTreeMap::new(),
            fault_number: 0,
            fates: choices.stream(Stream::Faults),
            trace: Mix(plan.seed),
            teller,
            is_stormy: true,
            is_beyond_survival: false,
            machine,
            workload,
            work: choices.stream(Stream::Workload),
            clients: (0..plan.clients).map(|c| choices.stream(Stream::Client(c))).collect(),
            order: choices.stream(Stream::Order),
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            queued: 0,
            stashed: (0..count).map(|_| Vec::new()).collect(),
            lives: 0,
            out: Vec::new(),
            base,
            plan: plan.clone(),
        };
        for at in 0..count {
            world.bootstrap(at);
            world.later(at as u64, Event::Start { at });
            for b in at + 1..count {
                world.later(1_000, Event::Care { a: at, b });
            }
        }
        for client in 0..plan.clients {
            world.later(plan.think_us / 2, Event::Client { client });
        }
        if !plan.is_calm() {
            world.later(plan.fault_every_us, Event::Fault);
        }
        world
    }

    fn bootstrap(&mut self, at: usize) {
        let spec = BootstrapSpec {
            cluster: node::CLUSTER,
            epoch: 0,
            node: node_id(at),
            base: self.base.clone(),
        };
        let options = node::wal_options(&self.plan);
        if let Err(error) = Wal::bootstrap(&self.nodes[at].disk, &node::directory(), &spec, options)
        {
            let sentence = format!("node {} cannot be founded: {error}", node_id(at));
            self.oracle.object("recovery", sentence);
        }
    }

    /// Formats a node's disk anew, as an operator might who replaced it.
    pub(super) fn replace_disk(&mut self, at: usize) {
        self.nodes[at].disk.wipe();
        self.nodes[at].faults = DiskFaults::default();
        self.nodes[at].disk.set_faults(DiskFaults::default());
        self.bootstrap(at);
        self.nodes[at].is_replaced = true;
    }

    /// The whole run: the storm, the healing, and what must hold in the end.
    pub(super) fn play(&mut self) {
        self.run_until(self.plan.duration_us, |_| false);
        if self.oracle.violation.is_none() && self.plan.is_calm() {
            self.check_calm();
        }
        if self.oracle.violation.is_none() {
            self.is_beyond_survival = !self.recover();
        }
        if self.oracle.violation.is_none() {
            self.calls.settle(&mut self.oracle);
        }
        if self.oracle.votes_split() {
            self.mark(Marker::VoteSplit);
        }
    }

    /// Where nothing goes wrong, one leader serves all the time, and quickly.
    fn check_calm(&mut self) {
        let terms = self.oracle.terms();
        if terms > 2 {
            let sentence = format!("{terms} leaders in a run in which nothing went wrong");
            self.oracle.object("calm runs stay calm", sentence);
        }
        let Plan { delay_us, disk_us, apply_us, heartbeat_us, election_us, .. } = self.plan;
        // The first leader has to be elected first, and a window may be a single entry.
        let bound_us = 4 * election_us.1 + 2 * heartbeat_us + 200 * (delay_us + disk_us + apply_us);
        let longest_us = self.calls.longest_us;
        if longest_us > bound_us {
            let sentence = format!("a call took {longest_us} us, more than {bound_us}");
            self.oracle.object("calm runs stay calm", sentence);
        }
    }

    /// What became of it.
    pub(super) fn report(self) -> Report {
        let mut markers = self.markers;
        let calls = [self.calls.count(), self.calls.done, self.calls.refused, self.calls.unknown];
        markers.retain(|_, count| *count > 0);
        Report {
            violation: self.oracle.violation.clone(),
            virtual_us: self.now_us,
            events: self.events,
            faults: self.faults,
            faults_drawn: self.fault_number,
            markers,
            committed: self.oracle.committed(),
            calls,
            longest_call_us: self.calls.longest_us,
            is_beyond_survival: self.is_beyond_survival,
            trace: self.trace.0,
            history: self.calls.history(),
        }
    }

    // ---- time ----

    /// Schedules an event.
    pub(super) fn later(&mut self, after_us: u64, event: Event) {
        let tie = self.order.below(1 << 16);
        self.schedule(self.now_us + after_us, tie, event);
    }

    /// Schedules an event that keeps its place among those of the same time.
    fn at(&mut self, time_us: u64, event: Event) {
        self.schedule(time_us, 0, event);
    }

    fn schedule(&mut self, time_us: u64, tie: u64, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.queued += 1;
        self.heap.push(Reverse((time_us, tie, self.queued, slot)));
    }

    /// Lets everything happen until `end_us`, or until something is found wrong, or `until` says so.
    pub(super) fn run_until(
        &mut self,
        end_us: u64,
        mut until: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        loop {
            let due = self.heap.peek().map(|Reverse((time_us, ..))| *time_us);
            if self.oracle.violation.is_some() || until(self) {
                return true;
            }
            if due.is_none_or(|due| due > end_us) {
                self.now_us = end_us;
                return false;
            }
            self.next();
        }
    }

    fn next(&mut self) {
        let Some(Reverse((time_us, _, _, slot))) = self.heap.pop() else { return };
        let Some(event) = self.slots[slot].take() else { return };
        self.free.push(slot);
        self.now_us = self.now_us.max(time_us);
        self.oracle.now_us = self.now_us;
        self.events += 1;
        if self.events > EVENTS_MAX {
            self.oracle.object("bounds", format!("more than {EVENTS_MAX} events in one run"));
        }
        self.trace = self.trace.and(self.now_us << 16 ^ event.number());
        if let Some(at) = event.node()
            && self.nodes[at].paused_until_us > self.now_us
        {
            self.stashed[at].push(event);
            return;
        }
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, connection, message } => {
                if self.arrives(from, to, connection) {
                    self.tell(|| format!("{} hears {message:?} of {}", to + 1, from + 1));
                    self.step(to, Input::Receive { from: node_id(from), message });
                }
            }
            Event::Chunk { from, to, connection, bytes } => {
                if self.arrives(from, to, connection) {
                    self.take_bytes(from, to, &bytes);
                }
            }
            Event::Broken { at, peer, connection } => {
                if self.net.get(at, peer).connection == Some(connection) {
                    self.link_down(at, peer, "connection reset");
                }
            }
            Event::Care { a, b } => self.care(a, b),
            Event::Tick { at, life, number } => self.tick(at, life, number),
            Event::Written { at, life } => self.written(at, life),
            Event::Idle { at, life, submissions } => self.idle(at, life, submissions),
            Event::Space { at, life } => {
                if self.is_life(at, life) {
                    self.check_space(at);
                }
            }
            Event::Read { at, life, job } => self.read(at, life, job),
            Event::Applied { at, life } => self.apply(at, life),
            Event::Start { at } => self.start(at),
            Event::Resume { at } => {
                if self.nodes[at].paused_until_us <= self.now_us {
                    for event in std::mem::take(&mut self.stashed[at]) {
                        self.at(self.now_us, event);
                    }
                }
            }
            Event::Client { client } => self.client(client),
            Event::Fault => self.strike(),
            Event::Undo { undo } => {
                // Healing has taken everything back.
                if self.is_stormy {
                    self.undo(undo);
                }
            }
        }
    }

    // ---- what is told ----

    /// Tells what happens, if anybody listens.
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(teller) = &mut self.teller {
            let now = self.now_us;
            teller(format!("{:>6}.{:06} {}", now / 1_000_000, now % 1_000_000, line()));
        }
    }

    /// Notes that a rare situation was met.
    pub(super) fn mark(&mut self, marker: Marker) {
        *self.markers.entry(marker).or_default() += 1;
    }

    // ---- nodes ----

    pub(super) fn is_life(&self, at: usize, number: u64) -> bool {
        self.nodes[at]
            .life
            .as_ref()
            .is_some_and(|life| life.number == number && life.halted.is_none())
    }

    pub(super) fn is_running(&self, at: usize) -> bool {
        self.nodes[at].life.as_ref().is_some_and(|life| life.halted.is_none())
    }

    /// Feeds one input to a node and does what it wants.
    pub(super) fn step(&mut self, at: usize, input: Input) {
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(at) else { return };
        let now = node.clock.now(now_us);
        let Some(life) = node.life.as_mut().filter(|life| life.halted.is_none()) else { return };
        let number = life.number;
        let mut out = std::mem::take(&mut self.out);
        life.replica.step(now, input, &mut out);
        for action in out.drain(..) {
            let Some(life) = self.nodes[at].life.as_mut().filter(|life| life.number == number)
            else {
                // It has died between two outputs; the rest never happens.
                break;
            };
            match &mut life.outputs_left {
                Some(0) => {
                    self.mark(Marker::CrashBetweenOutputs);
                    let death = self.draw_death(at);
                    self.die(at, death);
                    break;
                }
                Some(left) => *left -= 1,
                None => {}
            }
            self.perform(at, action);
        }
        out.clear();
        self.out = out;
        let Some(life) = self.nodes[at].life.as_mut().filter(|life| life.number == number) else {
            return;
        };
        let unsent = std::mem::take(&mut life.unsent);
        if life.halted.is_some() {
            // Stopped in the middle of a step, which has therefore come to nothing.
            return;
        }
        let raft = life.replica.raft();
        self.oracle.on_step(node_id(at), raft);
        let (term, commit) = (raft.term().0, raft.commit().0);
        self.trace = self.trace.and(term << 40 ^ commit << 8 ^ at as u64);
        if self.calls.overdue(node_id(at), now.boot_us) {
            let sentence =
                format!("node {} leaves a call without an answer after its deadline", at + 1);
            self.oracle.object("calls end once", sentence);
        }
        self.schedule_tick(at);
        for input in unsent {
            self.step(at, input);
        }
    }

    /// Schedules a tick for the replica's deadline, unless an earlier one is on its way.
    fn schedule_tick(&mut self, at: usize) {
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        let Some(life) = &mut node.life else { return };
        let Some(due) = life.replica.next_deadline() else { return };
        let due_us = node.clock.true_us(due).max(now_us);
        if life.tick_at_us.is_some_and(|tick_at_us| tick_at_us <= due_us) {
            return;
        }
        life.tick_at_us = Some(due_us);
        life.ticks += 1;
        let (life, number) = (life.number, life.ticks);
        // The operating system wakes nobody exactly on time.
        let late_us = node.chooser.below(200);
        self.later(due_us - now_us + late_us, Event::Tick { at, life, number });
    }

    /// Schedules the tick anew: its clock has changed.
    pub(super) fn reschedule_tick(&mut self, at: usize) {
        if let Some(life) = &mut self.nodes[at].life {
            life.tick_at_us = None;
            self.schedule_tick(at);
        }
    }

    fn tick(&mut self, at: usize, life: u64, number: u64) {
        if !self.is_life(at, life) {
            return;
        }
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        let Some(life) = node.life.as_mut().filter(|life| life.ticks == number) else { return };
        life.tick_at_us = None;
        let now = node.clock.now(now_us);
        let due = life.replica.next_deadline();
        if due.is_none_or(|due| due > now.boot_us) {
            return self.schedule_tick(at);
        }
        self.step(at, Input::Tick);
        let Some(life) = &mut self.nodes[at].life else { return };
        let due = life.replica.next_deadline();
        if life.halted.is_none() && due.is_some_and(|due| due <= now.boot_us) {
            let sentence = format!("node {} has a deadline that a tick does not move", at + 1);
            self.oracle.object("deadlines", sentence);
        }
    }

    fn perform(&mut self, at: usize, action: Action) {
        let id = node_id(at);
        match action {
            Action::Persist(op) => {
                let Some(life) = &mut self.nodes[at].life else { return };
                if op.truncate_from.is_some() {
                    *self.markers.entry(Marker::Truncated).or_default() += 1;
                }
                self.oracle.on_write(id, life.replica.raft(), &op);
                life.queue.push_back((GroupId::FIRST, op));
                self.kick_log(at);
            }
            Action::Send { to, message } => {
                self.oracle.on_send(id, to, &message);
                self.note_message(&message);
                self.send(at, place(to), message);
            }
            Action::ReadEntries { request, first, last, bytes_max } => {
                self.mark(Marker::ReadForPeer);
                let job = ReadJob { request, first, last, bytes_max };
                let (after_us, life) = self.disk_time(at);
                self.later(after_us / 2, Event::Read { at, life, job });
            }
            Action::Apply { first, last, entries } => {
                let mean = self.plan.apply_us * self.nodes[at].machine_slow;
                let after_us = self.nodes[at].chooser.around(mean);
                let Some(life) = &mut self.nodes[at].life else { return };
                life.applying = Some(Range { first, last, entries });
                let life = life.number;
                self.later(after_us, Event::Applied { at, life });
            }
            Action::Reply { token, outcome } => {
                self.note_outcome(&outcome);
                self.tell(|| format!("{id} tells call {}: {outcome:?}", token.0));
                let now_us = self.now_us;
                self.calls.answer(id, token, &outcome, now_us, &mut self.oracle);
            }
            Action::Event(event) => self.on_event(at, event),
            Action::Halt(reason) => self.halted(at, reason),
        }
    }

    fn note_outcome(&mut self, outcome: &Outcome) {
        let marker = match outcome {
            Outcome::Refused(Refusal::Overwritten) => Marker::Overwritten,
            Outcome::Refused(Refusal::NoLeader { .. }) => Marker::NoLeader,
            Outcome::Refused(Refusal::Busy { .. }) => Marker::Busy,
            Outcome::Refused(Refusal::StorageFull) => Marker::StorageFull,
            Outcome::Unknown(Unknown::LeadershipLost) => Marker::LeadershipLost,
            Outcome::Done(_) | Outcome::Refused(_) | Outcome::Unknown(_) => return,
        };
        self.mark(marker);
    }

    fn note_message(&mut self, message: &Message) {
        let Message::Raft(message) = message else { return };
        match &message.body {
            RaftBody::AppendReply(reply)
                if matches!(reply.outcome, AppendOutcome::Rejected { .. }) =>
            {
                self.mark(Marker::AppendRejected);
            }
            RaftBody::PreVoteReply(reply) if !reply.granted => self.mark(Marker::FaithKept),
            RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::Vote(_)
            | RaftBody::VoteReply(_)
            | RaftBody::Append(_)
            | RaftBody::AppendReply(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::HeartbeatReply(_)
            | RaftBody::TimeoutNow => {}
        }
    }

    fn on_event(&mut self, at: usize, event: Told) {
        self.tell(|| format!("{}: {event:?}", at + 1));
        match event {
            Told::Healed { .. } => self.mark(Marker::Healed),
            Told::Role { role: Role::Leader, .. } => {
                if self.oracle.is_figure_8(node_id(at)) {
                    self.mark(Marker::Figure8);
                }
            }
            Told::Role { role: Role::Follower, term } => {
                if self.oracle.leads(node_id(at), term) {
                    self.mark(Marker::QuorumLost);
                }
            }
            Told::Nonsense { from, what } => {
                if !self.net.has_flipped && !self.net.has_mixed {
                    let sentence =
                        format!("node {} takes what node {from} said for nonsense: {what}", at + 1);
                    self.oracle.object("honest nodes make sense", sentence);
                }
            }
            Told::Role { .. }
            | Told::Leader { .. }
            | Told::Ready { .. }
            | Told::Membership { .. }
            | Told::PeerUp { .. }
            | Told::PeerDown { .. }
            | Told::PeerRefused { .. }
            | Told::PeerStalled { .. }
            | Told::StorageTrouble { .. }
            | Told::NetworkTrouble { .. }
            | Told::StorageFull { .. }
            | Told::Faulted(_) => {}
        }
    }

    /// A replica has stopped. It is started again, as by a supervisor, unless that is hopeless.
    fn halted(&mut self, at: usize, reason: FaultReason) {
        self.tell(|| format!("{} stops: {reason}", at + 1));
        let node = &mut self.nodes[at];
        let (excused, replaced) = (node.is_excused() || node.is_damaged, node.is_replaced);
        let Some(life) = &mut node.life else { return };
        let led = life.replica.raft().role() == Role::Leader;
        life.halted = Some(reason.clone());
        let expected = match &reason {
            FaultReason::Storage(_) => excused,
            FaultReason::WrongDisk { .. } => replaced,
            FaultReason::Machine { .. }
            | FaultReason::TooNew { .. }
            | FaultReason::Safety(_)
            | FaultReason::Host(_) => false,
        };
        if !expected {
            self.oracle.object("nodes run", format!("node {} stops: {reason}", at + 1));
        }
        match reason {
            FaultReason::WrongDisk { .. } => {
                self.mark(Marker::WrongDisk);
                self.nodes[at].is_gone = true;
            }
            FaultReason::Storage(_) => {
                self.mark(Marker::StorageFault);
                if led {
                    self.mark(Marker::LeaderSyncFailed);
                }
            }
            FaultReason::Machine { .. }
            | FaultReason::TooNew { .. }
            | FaultReason::Safety(_)
            | FaultReason::Host(_) => {}
        }
        let after_us = self.downtime(at);
        self.later(after_us, Event::Start { at });
    }

    fn downtime(&mut self, at: usize) -> u64 {
        if !self.is_stormy {
            return 1_000;
        }
        self.nodes[at].chooser.around(self.plan.downtime_us)
    }

    pub(super) fn draw_death(&mut self, at: usize) -> Death {
        if self.nodes[at].chooser.percent(50) { Death::PowerCut } else { Death::Killed }
    }

    /// A node's process ends, in the middle of whatever it does.
    pub(super) fn die(&mut self, at: usize, death: Death) {
        let Some(mut life) = self.nodes[at].life.take() else { return };
        self.tell(|| format!("{} dies: {death:?}", at + 1));
        let node = &mut self.nodes[at];
        if let Some(batch) = life.writing.take() {
            // Some of the operations of this submission have happened.
            node.disk.cut_after(Some(node.chooser.below(6)));
            life.fates = Arc::default();
            life.submit(batch);
            *self.markers.entry(Marker::CrashInWrite).or_default() += 1;
        } else {
            node.disk.cut_after(Some(0));
        }
        drop(life);
        match death {
            Death::Killed => node.disk.kill(),
            Death::PowerCut => node.disk.power_cut(),
        }
        node.disk.cut_after(None);
        for event in std::mem::take(&mut self.stashed[at]) {
            if let Event::Deliver { from, to, .. } | Event::Chunk { from, to, .. } = event {
                self.net.arrived(from, to);
            }
        }
        self.calls.node_died(node_id(at), self.now_us);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != at) {
            self.net.to(at, peer).connection = None;
            if let Some(connection) = self.net.get(peer, at).connection
                && death == Death::Killed
                && self.net.is_open(at, peer)
            {
                let after_us = self.nodes[at].chooser.around(self.plan.delay_us);
                self.later(after_us, Event::Broken { at: peer, peer: at, connection });
            }
        }
        let after_us = self.downtime(at);
        self.later(after_us, Event::Start { at });
    }

    /// A node is started, unless it runs or can never run again.
    fn start(&mut self, at: usize) {
        if self.is_running(at) || self.nodes[at].is_gone {
            return;
        }
        if self.nodes[at].paused_until_us > self.now_us {
            let after_us = self.nodes[at].paused_until_us - self.now_us;
            return self.later(after_us, Event::Start { at });
        }
        if self.nodes[at].life.is_some() {
            // It had stopped by itself; its process is still there.
            return self.die(at, Death::Killed);
        }
        let id = node_id(at);
        let node = &mut self.nodes[at];
        let cut = node.dies_while_recovering > 0;
        if cut {
            node.dies_while_recovering -= 1;
            node.disk.cut_after(Some(node.chooser.below(12)));
        }
        let opened = node::open(&node.disk, id, &self.plan).and_then(|(storage, recovered)| {
            let reader = storage.reader();
            let entries = node::read_all(reader.as_ref(), recovered.last.index)?;
            Ok((storage, recovered, entries))
        });
        if cut {
            drop(opened);
            let death = self.draw_death(at);
            let node = &mut self.nodes[at];
            match death {
                Death::Killed => node.disk.kill(),
                Death::PowerCut => node.disk.power_cut(),
            }
            node.disk.cut_after(None);
            self.mark(Marker::CrashInRecovery);
            let after_us = self.downtime(at);
            return self.later(after_us, Event::Start { at });
        }
        match opened {
            Ok((storage, recovered, entries)) => self.open(at, storage, &recovered, &entries),
            Err(error) => self.refuses_to_start(at, &error),
        }
    }

    fn refuses_to_start(&mut self, at: usize, error: &StorageError) {
        self.tell(|| format!("{} does not start: {error}", at + 1));
        let node = &mut self.nodes[at];
        node.disk.kill();
        let for_good = matches!(
            error,
            StorageError::Corrupt { .. }
                | StorageError::HardStateLost { .. }
                | StorageError::NotFormatted { .. }
                | StorageError::TooNew { .. }
                | StorageError::WrongOwner { .. }
                | StorageError::UnknownFeature { .. }
        );
        let damaged = node.is_damaged;
        let is_sound = !damaged && (for_good || !node.is_excused());
        if is_sound {
            let sentence =
                format!("node {} does not start, and its disk is sound: {error}", at + 1);
            self.oracle.object("recovery", sentence);
        } else if damaged && for_good {
            self.nodes[at].is_gone = true;
            self.mark(Marker::Refused);
        } else {
            let after_us = self.downtime(at);
            self.later(after_us, Event::Start { at });
        }
    }

    fn open(
        &mut self,
        at: usize,
        storage: Wal,
        recovered: &crate::types::Recovered,
        entries: &[crate::types::Entry],
    ) {
        let id = node_id(at);
        self.tell(|| {
            format!(
                "{id} starts: boot {}, {:?}, last {}, committed {}, {:?}{}",
                recovered.boot.0,
                recovered.hard_state,
                recovered.last,
                recovered.commit,
                recovered.damage,
                recovered.notes.iter().map(|note| format!("\n    {note}")).collect::<String>()
            )
        });
        if recovered.damage.is_some() {
            self.mark(Marker::DamagedOpen);
        }
        if recovered.notes.iter().any(|note| note.contains("torn")) {
            self.mark(Marker::TornTail);
        }
        if self.nodes[at].segments() > 1 {
            self.mark(Marker::ManySegments);
        }
        let was_damaged = self.nodes[at].is_damaged;
        if self.nodes[at].is_replaced {
            self.oracle.on_replaced(id);
        }
        self.oracle.on_recovered(id, recovered, entries, was_damaged);
        self.lives += 1;
        let number = self.lives;
        let group = GroupId::FIRST;
        let reader = storage.reader();
        let node = &mut self.nodes[at];
        node.errors_seen = node.disk_errors();
        node.starts += 1;
        let applier = Applier::new(group, (self.machine)(), reader.clone(), self.plan.apply_bytes);
        let config = node::replica_config(&self.plan, id, recovered.identity.disk);
        let now = node.clock.now(self.now_us);
        let seed = node.chooser.number();
        node.life = Some(Life {
            number,
            boot: recovered.boot,
            disk_id: recovered.identity.disk,
            founders_hash: recovered.identity.founders_hash,
            replica: Replica::new(config, recovered, now, seed),
            storage,
            reader,
            applier,
            queue: std::collections::VecDeque::new(),
            writing: None,
            fates: Arc::default(),
            submissions: 0,
            is_sealed: false,
            lacks_room: false,
            applying: None,
            tick_at_us: None,
            ticks: 0,
            halted: None,
            outputs_left: None,
            unsent: Vec::new(),
        });
        self.step(at, Input::Tick);
    }

    // ---- lanes ----

    /// How long a write takes on this node now, and its life.
    fn disk_time(&mut self, at: usize) -> (u64, u64) {
        let node = &mut self.nodes[at];
        let life = node.life.as_ref().map_or(0, |life| life.number);
        (node.chooser.around(self.plan.disk_us * node.disk_slow), life)
    }

    /// Lets the log lane begin its next submission, if it is free.
    fn kick_log(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.writing.is_some() || life.queue.is_empty() || life.halted.is_some() {
            return;
        }
        let bytes_max = self.plan.segment_bytes / 2;
        life.writing = Some(rules::next_submission(&mut life.queue, bytes_max));
        life.is_sealed = false;
        life.submissions += 1;
        let (after_us, life) = self.disk_time(at);
        self.later(after_us, Event::Written { at, life });
    }

    fn written(&mut self, at: usize, number: u64) {
        if !self.is_life(at, number) {
            return;
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(batch) = life.writing.take() else { return };
        life.submit(batch);
        let submissions = life.submissions;
        self.take_fates(at);
        if !self.is_life(at, number) {
            return;
        }
        self.check_space(at);
        self.kick_log(at);
        self.later(IDLE_SEAL_MS * 1000, Event::Idle { at, life: number, submissions });
    }

    fn take_fates(&mut self, at: usize) {
        let Some(life) = &self.nodes[at].life else { return };
        let fates = std::mem::take(&mut *life.fates.lock());
        let id = node_id(at);
        for (marks, result) in fates {
            for (_, op) in marks {
                match &result {
                    Ok(()) => {
                        self.oracle.on_durable(id, op);
                        self.step(at, Input::Persisted(op));
                    }
                    Err(error) => {
                        self.step(at, Input::PersistFailed(error.to_string()));
                    }
                }
            }
        }
    }

    fn check_space(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let lacks_room = life.storage.space() == Space::Low;
        let news = lacks_room != life.lacks_room;
        life.lacks_room = lacks_room;
        let number = life.number;
        self.take_fates(at);
        if lacks_room {
            self.mark(Marker::DiskFull);
            self.later(SPACE_RETRY_US, Event::Space { at, life: number });
        }
        if news {
            self.step(at, Input::StorageFull(lacks_room));
        }
    }

    fn idle(&mut self, at: usize, number: u64, submissions: u64) {
        if !self.is_life(at, number) {
            return;
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.submissions != submissions || life.writing.is_some() {
            return;
        }
        match life.storage.idle() {
            Ok(()) => life.is_sealed = true,
            Err(error) => {
                self.step(at, Input::PersistFailed(error.to_string()));
            }
        }
    }

    fn read(&mut self, at: usize, number: u64, job: ReadJob) {
        if !self.is_life(at, number) {
            return;
        }
        let Some(life) = &self.nodes[at].life else { return };
        let ReadJob { request, first, last, bytes_max } = job;
        let result = life.reader.read(GroupId::FIRST, first, last, bytes_max);
        let result = result.map_err(|error| error.to_string());
        self.step(at, Input::EntriesRead { request, result });
    }

    fn apply(&mut self, at: usize, number: u64) {
        if !self.is_life(at, number) {
            return;
        }
        let bytes_max = self.plan.apply_bytes;
        let Some(life) = &mut self.nodes[at].life else { return };
        let Some(mut range) = life.applying.take() else { return };
        if range.entries.is_empty() {
            *self.markers.entry(Marker::ReadForApply).or_default() += 1;
            let read = life.reader.read(GroupId::FIRST, range.first, range.last, bytes_max);
            let checked = read.map_err(|error| error.to_string()).and_then(|entries| {
                rules::check_run(&entries, range.first, range.last).map(|_| entries)
            });
            match checked {
                Ok(entries) => range.entries = entries,
                Err(detail) => {
                    let reason = format!("reading entries to apply: {detail}");
                    return self.step(at, Input::PersistFailed(reason));
                }
            }
        }
        let last = range.entries.last().map_or(range.last, |entry| entry.index);
        match life.applier.apply(&range.entries) {
            Ok(replies) => {
                if last < range.last {
                    let (first, last) = (last.next(), range.last);
                    life.applying = Some(Range { first, last, entries: Vec::new() });
                    self.later(self.plan.apply_us, Event::Applied { at, life: number });
                }
                self.oracle.on_applied(node_id(at), last, &replies);
                self.step(at, Input::Applied { last, replies });
            }
            Err(failure) => {
                let rules::ApplyFailure { index, kind, detail } = failure;
                self.step(at, Input::ApplyFailed { index, kind, detail });
            }
        }
    }

    // ---- links ----

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let forward = match &message {
            Message::Forward(forward) => Some(forward.id),
            Message::ForwardReply(_) | Message::Raft(_) => None,
        };
        if self.hand_over(from, to, message).is_err()
            && let Some(id) = forward
        {
            // As the host does: after everything else of this step.
            self.mark(Marker::ForwardUnsent);
            let is_too_large = false;
            let life = self.nodes[from].life.as_mut();
            if let Some(life) = life {
                life.unsent.push(Input::ForwardUnsent { id, is_too_large });
            }
        }
    }

    fn hand_over(&mut self, from: usize, to: usize, message: Message) -> Result<(), SendError> {
        let now_us = self.now_us;
        let Some(connection) = self.net.get(from, to).connection else {
            return Err(SendError::NoLink);
        };
        if self.net.get(from, to).in_flight >= self.net.bound {
            self.mark(Marker::LinkFull);
            return Err(SendError::Full);
        }
        let Passage::Arrives(arrival_us, again_us) = self.net.passage(from, to, now_us) else {
            return Ok(());
        };
        match self.net.wire {
            Wire::Messages => {
                if let Some(again_us) = again_us {
                    let message = message.clone();
                    self.net.to(from, to).in_flight += 1;
                    self.at(again_us, Event::Deliver { from, to, connection, message });
                }
                self.net.to(from, to).in_flight += 1;
                self.at(arrival_us, Event::Deliver { from, to, connection, message });
            }
            Wire::Bytes => {
                let frame = codec::encode(GroupId::FIRST, &message);
                let mut bytes = Vec::with_capacity(frame.len());
                bytes.extend_from_slice(&frame.head);
                frame.payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
                for arrival_us in [Some(arrival_us), again_us].into_iter().flatten() {
                    for bytes in self.net.chunks(from, to, bytes.clone()) {
                        self.net.to(from, to).in_flight += 1;
                        self.at(arrival_us, Event::Chunk { from, to, connection, bytes });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether what was sent on this connection reaches a process that holds it.
    fn arrives(&mut self, from: usize, to: usize, connection: u64) -> bool {
        self.net.arrived(from, to);
        if self.net.get(to, from).connection != Some(connection) || !self.is_running(to) {
            self.mark(Marker::StaleMessage);
            return false;
        }
        if !self.net.is_open(from, to) && self.net.wire == Wire::Messages {
            return false;
        }
        let now_us = self.now_us;
        self.net.to(to, from).heard_us = now_us;
        true
    }

    fn take_bytes(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let mut frames: Vec<InFrame> = Vec::new();
        let connection = self.net.get(to, from).connection;
        let result = self.net.to(from, to).reader.push(bytes, &mut frames);
        for frame in frames {
            if !self.is_running(to) || self.net.get(to, from).connection != connection {
                return;
            }
            match codec::decode(&frame) {
                Ok((_, Decoded::Message(message))) => {
                    self.tell(|| format!("{} hears {message:?} of {}", to + 1, from + 1));
                    self.step(to, Input::Receive { from: node_id(from), message });
                }
                Ok((_, Decoded::Unknown(kind))) => self.bad_frame(&format!("unknown kind {kind}")),
                Err(error) => self.bad_frame(&error.to_string()),
            }
        }
        if let Err(error) = result {
            let error: FrameError = error;
            self.bad_frame(&error.to_string());
            self.break_link(from, to, "bad frame");
        }
    }

    fn bad_frame(&mut self, what: &str) {
        self.mark(Marker::BadFrame);
        if !self.net.has_flipped {
            self.oracle.object("codec", format!("a frame that nobody damaged is refused: {what}"));
        }
    }

    /// One side's connection is gone, and the other is told, if it can be.
    pub(super) fn break_link(&mut self, a: usize, b: usize, reason: &str) {
        if let Some(connection) = self.net.get(a, b).connection
            && self.net.is_open(b, a)
        {
            let after_us = self.plan.delay_us;
            self.later(after_us, Event::Broken { at: a, peer: b, connection });
        }
        self.link_down(b, a, reason);
    }

    /// A side gives its connection up.
    pub(super) fn link_down(&mut self, at: usize, peer: usize, reason: &str) {
        if self.net.to(at, peer).connection.take().is_some() {
            if self.net.get(peer, at).reader.is_mid_frame() {
                self.mark(Marker::CutFrame);
            }
            let input = Input::LinkDown { peer: node_id(peer), reason: reason.to_owned() };
            self.step(at, input);
        }
    }

    /// Two nodes look after their connection: dial, answer what belongs to an old one, give up the silent.
    fn care(&mut self, a: usize, b: usize) {
        let (held_a, held_b) = (self.net.get(a, b).connection, self.net.get(b, a).connection);
        let awake = |at: usize| self.nodes[at].paused_until_us <= self.now_us;
        let both_ways = self.net.is_open(a, b) && self.net.is_open(b, a) && awake(a) && awake(b);
        if held_a == held_b {
            if held_a.is_some() {
                self.give_up_if_silent(a, b);
                self.give_up_if_silent(b, a);
            } else if both_ways && self.is_running(a) && self.is_running(b) {
                self.connect(a, b);
            }
        } else {
            for (at, peer) in [(a, b), (b, a)] {
                if self.net.get(at, peer).connection.is_some() {
                    if both_ways {
                        self.link_down(at, peer, "connection reset");
                    } else {
                        self.give_up_if_silent(at, peer);
                    }
                }
            }
        }
        let after_us = self.net.to(a, b).chooser.around(LINK_CARE_US);
        self.later(after_us, Event::Care { a, b });
    }

    fn give_up_if_silent(&mut self, at: usize, peer: usize) {
        let direction = self.net.get(at, peer);
        let asleep = self.nodes[at].paused_until_us > self.now_us;
        // An idle but open connection is kept alive by pings.
        let silent = !self.net.is_open(peer, at) || !self.is_running(peer);
        if silent && !asleep && self.now_us.saturating_sub(direction.heard_us) > DEAD_AFTER_US {
            self.link_down(at, peer, "nothing heard");
        }
    }

    fn identity(&self, at: usize) -> Option<Identity> {
        let life = self.nodes[at].life.as_ref()?;
        Some(Identity::peer(
            node::CLUSTER,
            0,
            node_id(at),
            life.disk_id,
            life.boot,
            life.founders_hash,
        ))
    }

    /// A handshake: each side judges the other by what it knows.
    fn connect(&mut self, a: usize, b: usize) {
        for (at, peer) in [(a, b), (b, a)] {
            let (Some(own), Some(other)) = (self.identity(at), self.identity(peer)) else { return };
            let (own, other) =
                (own.addressed_to(Some(node_id(peer))), other.addressed_to(Some(node_id(at))));
            let member = self.nodes[at]
                .life
                .as_ref()
                .and_then(|life| life.replica.raft().membership().members.get(&node_id(peer)));
            let disk = member.and_then(|member| member.disk_id);
            let known = Known { expected: Some(node_id(peer)), disk, connected: None };
            if let Err(refused) = judge(&own, &other, &known) {
                let told = refused.told;
                match told.known_disk.filter(|_| told.code == Reject::WRONG_DISK) {
                    Some(known) => self.step(peer, Input::WrongDisk { known }),
                    None => {
                        let sentence =
                            format!("node {} refuses node {}: {}", at + 1, peer + 1, told.words);
                        self.oracle.object("handshake", sentence);
                    }
                }
                return;
            }
        }
        self.net.connect(a, b, self.now_us);
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(Identity { disk, boot, .. }) = self.identity(peer) {
                self.step(at, Input::LinkUp { peer: node_id(peer), disk, boot });
            }
        }
    }

    // ---- clients ----

    fn client(&mut self, client: u64) {
        if !self.is_stormy {
            return;
        }
        let nodes = self.nodes.len() as u64;
        let Some(chooser) = self.clients.get_mut(usize::try_from(client).unwrap_or_default())
        else {
            return;
        };
        let after_us = chooser.around(self.plan.think_us);
        if !self.calls.waits(client) {
            let at = usize::try_from(chooser.below(nodes)).unwrap_or_default();
            let count = chooser.between(1, self.plan.calls_at_once);
            let patience_us = chooser.between(self.plan.patience_us / 4, self.plan.patience_us);
            let forward = !chooser.percent(10);
            self.propose(client, at, count, patience_us, forward);
        }
        self.later(after_us, Event::Client { client });
    }

    /// A client proposes something at a node, if that runs.
    pub(super) fn propose(
        &mut self,
        client: u64,
        at: usize,
        count: u64,
        patience_us: u64,
        forward: bool,
    ) {
        let now_us = self.now_us;
        if !self.is_running(at) || self.nodes[at].paused_until_us > now_us {
            return;
        }
        let id = node_id(at);
        let deadline_us = self.nodes[at].clock.now(now_us).boot_us + patience_us;
        let calls = (0..count)
            .map(|_| {
                let payload = Payload::new((self.workload)(&mut self.work));
                let token = self.calls.ask(client, id, payload.clone(), now_us, deadline_us);
                Call { token, payload, session: None, deadline_us, forward }
            })
            .collect();
        self.tell(|| format!("client {client} calls {id}: {calls:?}"));
        self.step(at, Input::Propose(calls));
    }
}

impl SimNode {
    /// Whether its disk has failed an operation since its last good start: what fails then proves nothing
    /// against the code.
    fn is_excused(&self) -> bool {
        self.disk_errors() > self.errors_seen
    }
}

fn founding_base(plan: &Plan, ids: &[NodeId], voters: &[NodeId]) -> Base {
    let member = |id: &NodeId| (*id, Member::at(format!("10.0.0.{id}:7001")));
    let mut membership = Membership::of_voters(ids.iter().map(member));
    membership.voters = voters.iter().copied().collect();
    let settings = Settings {
        entry_bytes_max: plan.entry_bytes_max,
        election_timeout_min_ms: plan.election_us.0 / 1000,
        ..Settings::default()
    };
    Base::founding(membership, settings)
}

fn new_node(id: NodeId, choices: &Choices) -> SimNode {
    SimNode {
        id,
        disk: SimDisk::new(choices.stream(Stream::Disk(id.get()))),
        clock: Clock::new(),
        life: None,
        chooser: choices.stream(Stream::Process(id.get())),
        is_damaged: false,
        errors_seen: 0,
        is_gone: false,
        is_replaced: false,
        is_outside: false,
        paused_until_us: 0,
        faults: DiskFaults::default(),
        disk_slow: 1,
        machine_slow: 1,
        dies_while_recovering: 0,
        starts: 0,
    }
}
