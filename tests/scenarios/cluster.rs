//! A whole cluster of replicas in one thread: nothing moves unless it is told to.
//!
//! Time stands still until it is advanced; messages wait in a queue for each direction of each pair;
//! writes wait on each node's disk; a committed range waits for each node's machine. Every step of every
//! node goes through [`Cluster::step`], which carries out what the replica wants, shows it to the
//! `oracle` and writes it down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raftz_core::raft;
use raftz_core::replica::{Action, Call, Config, Input, Replica, SnapshotPolicy, TransferCall};
use raftz_core::types::{
    Base, DiskId, Entries, Entry, EntryKind, Event, FaultReason, HardState, Index, LogId, Member,
    Membership, Message, NodeId, Now, Outcome, Payload, Reply, Role, Settings, Term, Token,
};

use super::disk::{Disk, Log};
use super::machine::Machine;
use super::oracle::Oracle;
use super::reads::Readers;
use super::show;
use super::snapshots::Snapshots;

/// Calls for another leader have tokens above this.
const TRANSFER_TOKENS: u64 = 1 << 32;

/// Wall time runs this far ahead of boot time.
const WALL_AHEAD_US: u64 = 1_000_000_000;

/// One member, alive or not.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    seed: u64,
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    /// The log as all writes issued so far leave it.
    pub(crate) log: Log,
    pub(crate) machine: Machine,
    pub(crate) snapshots: Snapshots,
    pub(crate) applying: Option<(Index, Index, Entries)>,
    pub(crate) reads: VecDeque<(u64, Index, Index, u64)>,
    pub(crate) commit_seen: Index,
    pub(crate) halted: Option<FaultReason>,
    pub(crate) shutting_down: bool,
    /// Its lanes do nothing in [`Cluster::stabilize`] while they are held.
    pub(crate) disk_held: bool,
    pub(crate) apply_held: bool,
    /// Its disk gives no old entries back.
    pub(crate) reads_fail: bool,
}

/// A call, and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct CallRecord {
    pub(crate) node: NodeId,
    pub(crate) payload: Vec<u8>,
    pub(crate) deadline_us: u64,
    pub(crate) outcome: Option<Outcome>,
    /// Its node crashed before it ended: nobody is left to be told.
    pub(crate) caller_died: bool,
}

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Voice {
    /// Nothing.
    Silent,
    /// Roles, commits, ends of calls.
    News,
    /// Messages, writes and applies, too.
    All,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) voters: u64,
    pub(crate) learners: u64,
    pub(crate) seed: u64,
    pub(crate) raft: raft::Config,
    pub(crate) held_bytes_max: u64,
    pub(crate) settings: Settings,
    pub(crate) snapshots: SnapshotPolicy,
    /// Of node 1, 2, …; the highest for those that are not named.
    pub(crate) priorities: Vec<u8>,
}

impl Plan {
    pub(crate) fn of(voters: u64) -> Self {
        let disk = Disk::new(node(1), Base::default()).id;
        Self {
            voters,
            learners: 0,
            seed: 1,
            raft: raft::Config::new(node(1), disk),
            held_bytes_max: 1 << 20,
            settings: Settings::default(),
            snapshots: SnapshotPolicy::NEVER,
            priorities: Vec::new(),
        }
    }
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) now_us: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) net: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    /// Messages that were overtaken: they arrive when it is said.
    pub(crate) late: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    pub(crate) links: BTreeSet<(NodeId, NodeId)>,
    pub(crate) oracle: Oracle,
    pub(crate) calls: BTreeMap<Token, CallRecord>,
    /// Calls that have not ended, by node and deadline; among them those for another leader, by tokens of their own.
    waiting: BTreeSet<(NodeId, u64, Token)>,
    pub(crate) readers: Readers,
    transfers: u64,
    pub(crate) voice: Voice,
    /// Print at once, for a run that may not come to its end.
    pub(crate) aloud: bool,
    out: Vec<String>,
}

/// The id `raw`, which is not zero.
pub(crate) fn node(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

impl Cluster {
    /// A cluster that has just been founded; the voters' faith of boot time has expired.
    pub(crate) fn new(plan: &Plan) -> Self {
        let everybody = (1..=plan.voters + plan.learners).map(node);
        let members = everybody.map(|id| (id, Member::at(format!("10.0.0.{id}:7000"))));
        let mut membership = Membership::of_voters(members);
        membership.voters.retain(|id| id.get() <= plan.voters);
        let mut oracle = Oracle::default();
        oracle.voters.clone_from(&membership.voters);
        let base = Base::founding(membership, plan.settings.clone());
        let mut cluster = Self {
            now_us: 1_000_000,
            nodes: BTreeMap::new(),
            net: BTreeMap::new(),
            late: BTreeMap::new(),
            cut: BTreeSet::new(),
            links: BTreeSet::new(),
            oracle,
            calls: BTreeMap::new(),
            waiting: BTreeSet::new(),
            readers: Readers::default(),
            transfers: 0,
            voice: Voice::All,
            aloud: false,
            out: Vec::new(),
        };
        for id in base.membership.members.keys().copied() {
            let disk = Disk::new(id, base.clone());
            let mut raft = raft::Config { id, disk_id: disk.id, ..plan.raft.clone() };
            if let Some(priority) = plan.priorities.get(id.get() as usize - 1) {
                raft.election_priority = *priority;
            }
            let member = Node {
                id,
                config: Config {
                    raft,
                    held_bytes_max: plan.held_bytes_max,
                    snapshots: plan.snapshots,
                    machine_log_time_us: None,
                },
                seed: plan.seed.wrapping_mul(1000).wrapping_add(id.get()),
                replica: None,
                snapshots: Snapshots::new(&disk),
                log: disk.log.clone(),
                disk,
                machine: Machine::default(),
                applying: None,
                reads: VecDeque::new(),
                commit_seen: Index::ZERO,
                halted: None,
                shutting_down: false,
                disk_held: false,
                apply_held: false,
                reads_fail: false,
            };
            cluster.nodes.insert(id, member);
        }
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster.now_us += plan.settings.election_timeout_min_ms * 1000;
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) const fn now(&self) -> Now {
        Now { boot_us: self.now_us, wall_us: self.now_us + WALL_AHEAD_US }
    }

    pub(crate) fn is_alive(&self, id: NodeId) -> bool {
        self.nodes[&id].replica.is_some()
    }

    /// The core of a live node.
    pub(crate) fn raft(&self, id: NodeId) -> &raft::Raft {
        self.nodes[&id].replica.as_ref().unwrap().raft()
    }

    /// Live nodes that believe they lead.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let alive = self.ids().into_iter().filter(|id| self.is_alive(*id));
        alive.filter(|id| self.raft(*id).role() == Role::Leader).collect()
    }

    pub(crate) fn say(&mut self, voice: Voice, line: impl FnOnce() -> String) {
        if self.voice >= voice {
            let line = line();
            if self.aloud {
                println!("{} {line}", self.now_us / 1000);
            }
            self.out.push(line);
        }
    }

    /// What has been written down since the last call.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out)
    }

    // ---- one node, one step ----

    /// Feeds one input to one node and carries out what it wants.
    pub(crate) fn step(&mut self, id: NodeId, input: Input) {
        let now = self.now();
        let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else {
            return;
        };
        let mut actions = Vec::new();
        let ends = matches!(input, Input::Shutdown);
        replica.step(now, input, &mut actions);
        self.nodes.get_mut(&id).unwrap().shutting_down |= ends;
        for action in actions {
            self.act(id, action);
        }
        self.oracle.on_step(id, &self.nodes);
        let overdue = self.waiting.range((id, 0, Token(0))..=(id, self.now_us, Token(u64::MAX)));
        assert_eq!(overdue.count(), 0, "{id}: a call outlives its deadline");
        let commit = self.raft(id).commit();
        let node = self.nodes.get_mut(&id).unwrap();
        if commit > node.commit_seen {
            node.commit_seen = commit;
            self.say(Voice::News, || format!("{id}: commits up to {commit}"));
        }
    }

    fn act(&mut self, id: NodeId, action: Action) {
        let node = self.nodes.get_mut(&id).unwrap();
        match action {
            Action::Persist(op) => {
                let term = node.replica.as_ref().unwrap().raft().term();
                self.oracle.on_write(node, term, &op);
                node.log.edit(&op);
                let line = format!("{id}: writes {}", show::write(&op));
                node.disk.queue.push_back(op);
                self.say(Voice::All, || line);
            }
            Action::Send { to, message } => {
                self.oracle.on_send(&self.nodes[&id], to, &message);
                let lost = self.cut.contains(&(id, to));
                self.say(Voice::All, || {
                    let lost = if lost { " (lost)" } else { "" };
                    format!("{id}→{to} {}{lost}", show::message(&message))
                });
                if !lost {
                    self.net.entry((id, to)).or_default().push_back(message);
                }
            }
            Action::ReadEntries { request, first, last, bytes_max } => {
                node.reads.push_back((request, first, last, bytes_max));
                self.say(Voice::All, || format!("{id}: reads {first}–{last}"));
            }
            Action::Apply { first, last, entries } => {
                assert!(node.applying.is_none(), "{id} applies two ranges at once");
                node.applying = Some((first, last, entries));
            }
            Action::Reply { token, outcome } => self.on_reply(id, token, outcome),
            Action::Event(event) => {
                let voice = if matches!(event, Event::PeerUp { .. } | Event::PeerDown { .. }) {
                    Voice::All
                } else {
                    Voice::News
                };
                self.say(voice, || format!("{id}: {}", show::event(&event)));
            }
            Action::Halt(reason) => node.halted = Some(reason),
            Action::Read { tokens } => self.on_read(id, tokens),
            Action::EndRead { token, why } => self.on_end_read(id, token, &why),
            Action::TransferEnded { token, result } => {
                let before = self.waiting.len();
                self.waiting.retain(|(_, _, waits)| *waits != token);
                assert_eq!(self.waiting.len() + 1, before, "a transfer that ends twice");
                self.say(Voice::News, || match &result {
                    Ok(leader) => format!("{id}: tells its asker: node {leader} leads"),
                    Err(why) => format!("{id}: tells its asker: {why}"),
                });
            }
            Action::TakeSnapshot { base } => self.freeze(id, *base),
            Action::CancelSnapshot => node.snapshots.is_cancelled = true,
            Action::Restore { id: snapshot } => {
                assert!(node.applying.is_none(), "{id} restores while it applies");
                node.snapshots.restoring = Some(snapshot);
                self.say(Voice::All, || format!("{id}: is to restore {}", snapshot.last));
            }
            Action::ReadPiece { .. }
            | Action::BeginFetch { .. }
            | Action::WritePiece { .. }
            | Action::FinishFetch { .. }
            | Action::AbandonFetch { .. }
            | Action::PruneSnapshots { .. }
            | Action::FindSnapshot { .. }
            | Action::ScrubSnapshots { .. } => node.snapshots.pieces.push_back(action),
        }
    }

    fn on_reply(&mut self, id: NodeId, token: Token, outcome: Outcome) {
        let call = self.calls.get_mut(&token).expect("a reply to a call that was never made");
        assert!(call.outcome.is_none(), "a second reply to one call: {outcome:?}");
        assert_eq!(call.node, id, "a reply on another node");
        self.waiting.remove(&(id, call.deadline_us, token));
        if let Outcome::Done(done) = &outcome {
            let entry = self.oracle.committed.get(done.index.0 as usize - 1);
            let entry = entry.expect("done, but not committed");
            assert_eq!((entry.term, entry.kind), (done.term, EntryKind::Command));
            assert_eq!(entry.payload.bytes(), &call.payload[..], "done with another payload");
            let state = self.oracle.state_after(done.index).unwrap().to_string();
            assert_eq!(done.reply, Reply::Ok(state.into_bytes().into()), "another call's reply");
        }
        call.outcome = Some(outcome.clone());
        let payload = String::from_utf8_lossy(&call.payload).into_owned();
        self.say(Voice::News, || format!("{id}: tells {payload}: {}", show::outcome(&outcome)));
    }

    // ---- callers ----

    pub(crate) fn propose(&mut self, id: NodeId, payloads: &[&str], wait_us: u64, forward: bool) {
        let mut calls = Vec::new();
        for payload in payloads {
            let token = Token(self.calls.len() as u64 + 1);
            let deadline_us = self.now_us + wait_us;
            let record = CallRecord {
                node: id,
                payload: payload.as_bytes().to_vec(),
                deadline_us,
                outcome: None,
                caller_died: !self.is_alive(id),
            };
            self.calls.insert(token, record);
            if self.is_alive(id) {
                self.waiting.insert((id, deadline_us, token));
            }
            let payload = Payload::new(payload.as_bytes().to_vec());
            calls.push(Call { token, payload, session: None, deadline_us, forward });
        }
        self.step(id, Input::Propose(calls));
    }

    /// A caller of a node wants another leader.
    pub(crate) fn transfer(
        &mut self,
        id: NodeId,
        target: Option<NodeId>,
        wait_us: u64,
        down: bool,
    ) {
        self.transfers += 1;
        let token = Token(TRANSFER_TOKENS + self.transfers);
        let deadline_us = self.now_us + wait_us;
        if self.is_alive(id) {
            self.waiting.insert((id, deadline_us, token));
        }
        let call = TransferCall { token, target, deadline_us, steps_down: down };
        self.step(id, Input::Transfer(call));
    }

    // ---- the lanes ----

    /// Makes the first `count` waiting writes durable, with one completion for all of them.
    pub(crate) fn persist(&mut self, id: NodeId, count: usize) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut done = None;
        for _ in 0..count {
            match node.disk.persist_one() {
                Some(op) => done = Some(op),
                None => break,
            }
        }
        let Some(op) = done else { return false };
        self.say(Voice::All, || format!("{id}: durable up to #{}", op.seq));
        self.step(id, Input::Persisted(op));
        true
    }

    /// Applies what waits for the node's machine.
    pub(crate) fn apply(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((first, last, mut entries)) = node.applying.take() else {
            return self.restore(id);
        };
        if entries.is_empty() {
            let count = (last.0 - first.0 + 1) as usize;
            let range = node.disk.log.from(first).get(..count);
            entries = range.expect("must be readable").to_vec().into();
        }
        assert_eq!(entries.len() as u64, last.0 - first.0 + 1, "a range without its entries");
        let mut replies = Vec::new();
        for entry in &entries {
            if let Some(reply) = node.machine.apply(entry) {
                replies.push((entry.index, reply));
            }
            self.oracle.on_applied(id, entry.index, node.machine.state());
        }
        self.say(Voice::All, || format!("{id}: applies [{}]", show::entries(&entries)));
        let log_time_us = entries.iter().last().unwrap().log_time_us;
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        self.step(id, Input::Applied { last, log_time_us, bytes, replies });
        true
    }

    /// Answers the oldest read of old entries.
    pub(crate) fn read(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((request, first, last, bytes_max)) = node.reads.pop_front() else { return false };
        let mut bytes = 0;
        let mut entries: Vec<Entry> = Vec::new();
        for entry in node.disk.log.from(first) {
            bytes += entry.cost_bytes();
            if entry.index > last || (!entries.is_empty() && bytes > bytes_max) {
                break;
            }
            entries.push(entry.clone());
        }
        let result = if node.reads_fail || entries.is_empty() {
            Err(format!("entry {first} cannot be read"))
        } else {
            Ok(entries)
        };
        self.step(id, Input::EntriesRead { request, result });
        true
    }

    // ---- the network ----

    /// Delivers the oldest message of a direction.
    pub(crate) fn deliver(&mut self, from: NodeId, to: NodeId) -> bool {
        let Some(message) = self.net.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        if self.is_alive(to) {
            self.step(to, Input::Receive { from, message });
        } else {
            self.say(Voice::All, || format!("{from}→{to} lost: {to} is down"));
        }
        true
    }

    pub(crate) fn link_up(&mut self, a: NodeId, b: NodeId) {
        if !(self.is_alive(a) && self.is_alive(b)) {
            return;
        }
        for (at, peer) in [(a, b), (b, a)] {
            let member = self.raft(at).membership().members.get(&peer);
            let known = member.and_then(|member| member.disk_id);
            if let Some(known) = known.filter(|known| *known != self.nodes[&peer].disk.id) {
                // The handshake refuses the link and says why.
                self.say(Voice::All, || format!("{at}: refuses a link from {peer}"));
                return self.step(peer, Input::WrongDisk { known });
            }
        }
        self.links.insert((a.min(b), a.max(b)));
        for (at, peer) in [(a, b), (b, a)] {
            let (disk, boot) = (self.nodes[&peer].disk.id, self.nodes[&peer].disk.boot);
            self.step(at, Input::LinkUp { peer, disk, boot });
        }
    }

    pub(crate) fn link_down(&mut self, a: NodeId, b: NodeId, reason: &str) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            for (at, peer) in [(a, b), (b, a)] {
                self.step(at, Input::LinkDown { peer, reason: reason.into() });
            }
        }
    }

    pub(crate) fn is_linked(&self, a: NodeId, b: NodeId) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    // ---- life and death ----

    /// Ends a life. The first `keep` waiting writes reach the disk before, but nobody learns of it.
    pub(crate) fn crash(&mut self, id: NodeId, keep: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        for _ in 0..keep {
            node.disk.persist_one();
        }
        node.disk.queue.clear();
        node.log = node.disk.log.clone();
        node.snapshots.crash();
        node.replica = None;
        node.applying = None;
        node.reads.clear();
        node.commit_seen = Index::ZERO;
        self.forget_readers_of(id);
        for call in self.calls.values_mut().filter(|call| call.node == id) {
            call.caller_died |= call.outcome.is_none();
        }
        self.waiting.retain(|(node, _, _)| *node != id);
        let links: Vec<_> =
            self.links.iter().filter(|(a, b)| *a == id || *b == id).copied().collect();
        for (a, b) in links {
            self.link_down(a, b, "connection reset");
        }
    }

    pub(crate) fn start(&mut self, id: NodeId) {
        let now = self.now();
        let node = self.nodes.get_mut(&id).unwrap();
        let recovered = node.disk.open();
        // A machine that persists itself has what it applied, and says how far that goes.
        if node.config.raft.machine_applied.is_none() {
            node.machine = Machine::default();
        }
        match node.restore_at_start() {
            Ok(snapshot) => node.config.raft.snapshot = snapshot,
            Err(why) => return self.say(Voice::News, || format!("{id}: does not start: {why}")),
        }
        if let Some(applied) = &mut node.config.raft.machine_applied {
            *applied = node.machine.applied;
            // As a node reads it out of its log.
            let last = node.disk.log.from(*applied).first().map(|entry| entry.log_time_us);
            let base = &node.disk.log.base;
            let is_base = *applied == base.id.index;
            node.config.machine_log_time_us = if is_base { Some(base.log_time_us) } else { last };
        }
        node.log = node.disk.log.clone();
        node.halted = None;
        node.shutting_down = false;
        node.replica = Some(Replica::new(node.config.clone(), &recovered, now, node.seed));
        self.step(id, Input::Tick);
    }

    /// A write fails: the disk takes no more in this life.
    pub(crate) fn fail_disk(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().disk.queue.clear();
        self.step(id, Input::PersistFailed("input/output error".into()));
    }

    /// The machine fails at the entry it should apply next.
    pub(crate) fn fail_machine(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let detail = "no such account".into();
        if let Some((index, _, _)) = node.applying.take() {
            self.step(id, Input::ApplyFailed { index, kind: "apply", detail });
        }
    }

    /// Gives a node that is down a hard state, and a log of commands with these terms.
    pub(crate) fn preset(&mut self, id: NodeId, terms: Option<&[u64]>, hard_state: HardState) {
        self.nodes.get_mut(&id).unwrap().disk.hard_state = hard_state;
        let Some(terms) = terms else { return };
        let mut entries: Vec<Entry> = Vec::new();
        for (index, term) in (1..).zip(terms) {
            let entry = Entry {
                term: Term(*term),
                index: Index(index),
                log_time_us: 1_000_000 + index,
                kind: EntryKind::Command,
                session: None,
                payload: Payload::new(format!("{index}@{term}").into_bytes()),
            };
            let prev = entries.last().map_or(LogId::ZERO, Entry::id);
            self.oracle.on_entry(prev, &entry);
            entries.push(entry);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.log.entries = entries;
        node.log = node.disk.log.clone();
    }

    /// Loses everything on a disk from `first_faulty` on.
    pub(crate) fn sabotage(&mut self, id: NodeId, first_faulty: Index, last: Option<LogId>) {
        self.nodes.get_mut(&id).unwrap().disk.sabotage(first_faulty, last);
    }

    /// Replaces a dead node's directory by a new, empty one.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk = Disk::new(id, node.disk.log.base.clone());
        node.disk.id = DiskId(u128::from(id.get()) + 1000);
        node.config.raft.disk_id = node.disk.id;
    }

    // ---- time ----

    pub(crate) fn tick(&mut self, id: NodeId) {
        self.step(id, Input::Tick);
        let now_us = self.now_us;
        if let Some(replica) = &mut self.nodes.get_mut(&id).unwrap().replica {
            let due = replica.next_deadline();
            assert!(
                due.is_none_or(|due| due > now_us),
                "{id}: a deadline that a tick does not move"
            );
        }
    }

    /// Advances time at once and tells these nodes.
    pub(crate) fn advance(&mut self, us: u64, nodes: &[NodeId]) {
        self.now_us += us;
        for id in nodes {
            self.tick(*id);
        }
    }

    /// Works off everything that waits, on and between these nodes, while time stands still.
    pub(crate) fn stabilize(&mut self, nodes: &[NodeId]) {
        for round in 0.. {
            assert!(round < 10_000, "the cluster does not come to rest");
            let mut busy = false;
            for id in nodes {
                if !self.nodes[id].disk_held {
                    busy |= self.persist(*id, usize::MAX);
                }
                while self.read(*id) {
                    busy = true;
                }
                if !self.nodes[id].snapshots.pieces_held {
                    busy |= self.pieces(*id, usize::MAX);
                }
                if !self.nodes[id].snapshots.build_held {
                    busy |= self.build(*id, false);
                }
            }
            for from in nodes {
                for to in nodes {
                    let waiting = self.net.get(&(*from, *to)).map_or(0, VecDeque::len);
                    for _ in 0..waiting {
                        busy |= self.deliver(*from, *to);
                    }
                }
            }
            for id in nodes {
                if !self.nodes[id].apply_held {
                    busy |= self.apply(*id);
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// Lets time pass: everything that comes due happens, everything that waits is worked off.
    pub(crate) fn run(&mut self, us: u64, nodes: &[NodeId]) {
        let end_us = self.now_us + us;
        self.stabilize(nodes);
        loop {
            let next = nodes.iter().filter_map(|id| self.deadline(*id)).min();
            let Some(next) = next.filter(|next| *next <= end_us) else { break };
            self.now_us = self.now_us.max(next);
            for id in nodes {
                if self.deadline(*id).is_some_and(|due| due <= self.now_us) {
                    self.tick(*id);
                }
            }
            self.stabilize(nodes);
        }
        self.now_us = end_us;
    }

    pub(crate) fn deadline(&mut self, id: NodeId) -> Option<u64> {
        self.nodes.get_mut(&id)?.replica.as_mut()?.next_deadline()
    }
}
