//! The world of one run: nodes, links, clients and faults on one line of virtual time.
//!
//! Everything that happens is an *event*: a message that arrives, a deadline, a write that is done, a call, a
//! fault. Events happen in the order of their times; those of the same time in an order that is drawn. After
//! each event the oracle looks at the node that it happened to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use crate::node::lanes::PieceJob;
use crate::replica::{Action, Call, Input};
use crate::storage::wal::{BootstrapSpec, Wal};
use crate::types::{
    AppendOutcome, Base, Event as Told, GroupId, Member, Membership, Message, NodeId, Outcome,
    Payload, RaftBody, Refusal, Role, Settings, SnapshotPhase, Unknown,
};

use super::calls::Calls;
use super::choice::{Choices, Chooser, Stream};
use super::disk::DiskFaults;
use super::handover::Transfers;
use super::marker::Marker;
use super::mix::Mix;
use super::nemesis::Sequel;
use super::network::Network;
use super::node::{self, Range, ReadJob, SimNode, SnapshotJob};
use super::oracle::Oracle;
use super::plan::{Fault, Plan};
use super::reads::Reads;
use super::{Machine, Report, Workload};

/// Events of a run beyond which something feeds itself.
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
    Snapshot {
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
    Reader {
        reader: u64,
    },
    Fault,
    Sequel {
        sequel: Sequel,
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
            | Self::Applied { at, .. }
            | Self::Snapshot { at, .. } => Some(*at),
            Self::Care { .. }
            | Self::Start { .. }
            | Self::Resume { .. }
            | Self::Client { .. }
            | Self::Reader { .. }
            | Self::Fault
            | Self::Sequel { .. } => None,
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
            Self::Sequel { .. } => 15 << 8,
            Self::Snapshot { at, .. } => 16 << 8 | *at as u64,
            Self::Reader { reader } => 17 << 8 | *reader,
        }
    }
}

/// Where lines go that tell what happens.
pub(super) type Teller = Box<dyn FnMut(String)>;

/// The whole of a run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) nodes: Vec<SimNode>,
    pub(super) net: Network,
    pub(super) calls: Calls,
    pub(super) reads: Reads,
    pub(super) transfers: Transfers,
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
    /// Whether machines make snapshots: all of them, or none.
    pub(super) makes_snapshots: bool,
    workload: Workload,
    work: Chooser,
    clients: Vec<Chooser>,
    pub(super) readers: Vec<Chooser>,
    order: Chooser,
    heap: BinaryHeap<Reverse<(u64, u64, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    queued: u64,
    pub(super) stashed: Vec<Vec<Event>>,
    pub(super) lives: u64,
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
        let mut reference = machine();
        let makes_snapshots = super::freeze(reference.as_mut()).is_ok();
        let oracle = Oracle::new(voters, ids.iter().copied(), reference);
        let nodes = ids.iter().map(|id| SimNode::new(*id, choices)).collect();
        let mut world = Self {
            nodes,
            net: Network::new(plan, count, choices),
            calls: Calls::default(),
            reads: Reads::default(),
            transfers: Transfers::default(),
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
            makes_snapshots,
            workload,
            work: choices.stream(Stream::Workload),
            clients: (0..plan.clients).map(|c| choices.stream(Stream::Client(c))).collect(),
            readers: (0..plan.readers).map(|r| choices.stream(Stream::Reader(r))).collect(),
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
        for reader in 0..plan.readers {
            world.later(plan.think_us / 3, Event::Reader { reader });
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
        self.nodes[at].kept = None;
        self.nodes[at].struck = node::Struck::default();
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
        let reads = [self.reads.count(), self.reads.answered, self.reads.failed];
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
            reads,
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

    /// Schedules an event that keeps its place among those of the same time and tie.
    pub(super) fn at(&mut self, time_us: u64, tie: u64, event: Event) {
        self.schedule(time_us, tie, event);
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
            Event::Snapshot { at, life } => self.snapshot_work(at, life),
            Event::Start { at } => self.start(at),
            Event::Resume { at } => {
                if self.nodes[at].paused_until_us <= self.now_us {
                    for event in std::mem::take(&mut self.stashed[at]) {
                        self.at(self.now_us, 0, event);
                    }
                }
            }
            Event::Client { client } => self.client(client),
            Event::Reader { reader } => self.reader(reader),
            Event::Fault => self.strike(),
            Event::Sequel { sequel } => {
                // Healing has taken everything back.
                if self.is_stormy {
                    self.follow(sequel);
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
                    self.oracle.on_cut_step(node_id(at), life.replica.raft());
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
        let id = node_id(at);
        let is_overdue = self.calls.overdue(id, now.boot_us) || self.reads.overdue(id, now.boot_us);
        if is_overdue || self.transfers.overdue(at, now.boot_us) {
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
                if op.base.is_some() {
                    *self.markers.entry(Marker::Compacted).or_default() += 1;
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
            Action::Read { tokens } => self.release(at, tokens),
            Action::EndRead { token, why } => self.end_read(at, token, why),
            Action::TakeSnapshot { base } => self.freeze(at, base),
            Action::CancelSnapshot => {
                if let Some(life) = &self.nodes[at].life {
                    life.build.cancel();
                }
            }
            Action::Restore { id } => self.snapshot_later(at, SnapshotJob::Restore(id)),
            Action::ReadPiece { to, id, offset, bytes_max } => {
                self.piece_later(at, PieceJob::Read { to, id, offset, bytes_max });
            }
            Action::BeginFetch { id } => self.piece_later(at, PieceJob::Begin(id)),
            Action::WritePiece { id, offset, bytes } => {
                self.piece_later(at, PieceJob::Write { id, offset, bytes });
            }
            Action::FinishFetch { id } => self.piece_later(at, PieceJob::Finish(id)),
            Action::AbandonFetch { id } => self.piece_later(at, PieceJob::Abandon(id)),
            Action::PruneSnapshots { keep, spare, damaged } => {
                self.piece_later(at, PieceJob::Prune { keep, spare, damaged });
            }
            Action::FindSnapshot { least } => self.piece_later(at, PieceJob::Find(least)),
            Action::ScrubSnapshots { newest } => {
                self.snapshot_later(at, SnapshotJob::Scrub(newest));
            }
            Action::TransferEnded { token, result } => self.transfer_ended(at, token, &result),
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
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => {}
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
            Told::StorageTrouble { .. } => {
                let raft = self.nodes[at].life.as_ref().map(|life| life.replica.raft());
                if raft.is_some_and(|raft| raft.role() != Role::Leader) {
                    self.mark(Marker::ResignedForItsDisk);
                }
            }
            Told::Transfer { phase, detail, .. } => self.note_transfer(phase, &detail),
            Told::Snapshot { phase, .. } => match phase {
                SnapshotPhase::Built => self.mark(Marker::SnapshotBuilt),
                SnapshotPhase::Installed => self.mark(Marker::SnapshotInstalled),
                SnapshotPhase::Failed => self.mark(Marker::TransferFailed),
                SnapshotPhase::Fetching => self.mark(Marker::SnapshotFetched),
                SnapshotPhase::Sending | SnapshotPhase::Sent | SnapshotPhase::Fetched => {}
            },
            Told::Role { .. }
            | Told::Leader { .. }
            | Told::Ready { .. }
            | Told::Membership { .. }
            | Told::PeerUp { .. }
            | Told::PeerDown { .. }
            | Told::PeerRefused { .. }
            | Told::PeerStalled { .. }
            | Told::NetworkTrouble { .. }
            | Told::StorageFull { .. }
            | Told::Faulted(_)
            | Told::Dropped { .. } => {}
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
