//! What readers asked, what they saw, and whether that can be true.
//!
//! The machine is asked when the replica says so, and what it has applied then is what the reader sees. Whatever
//! had been told to anybody before a linearizable read began must be among it; before a bounded one, what had been
//! told so long before, by the clock of the node that was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::replica::{Input, ReadCall, ReadFailure};
use crate::types::{Index, NodeId, ReadLevel, Role, Token};

use super::marker::Marker;
use super::world::{Event, World, node_id};

struct Read {
    node: NodeId,
    level: ReadLevel,
    /// What it must see.
    floor: Index,
    deadline_us: u64,
    asked_us: u64,
    end: Option<Result<Index, ReadFailure>>,
}

/// All reads of a run.
#[derive(Default)]
pub(super) struct Reads {
    all: Vec<Read>,
    /// Those that wait, by node and deadline on its clock.
    waiting: BTreeMap<NodeId, BTreeSet<(u64, u64)>>,
    pub(super) answered: u64,
    pub(super) failed: u64,
}

impl Reads {
    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// How the last one ended, if it has.
    pub(super) fn last_end(&self) -> Option<&Result<Index, ReadFailure>> {
        self.all.last()?.end.as_ref()
    }

    /// Whether one that waits at this node should have ended by `boot_us` on its clock.
    pub(super) fn overdue(&self, id: NodeId, boot_us: u64) -> bool {
        let first = self.waiting.get(&id).and_then(BTreeSet::first);
        first.is_some_and(|(deadline_us, _)| *deadline_us <= boot_us)
    }

    /// A node is gone, with its readers.
    pub(super) fn node_died(&mut self, id: NodeId) {
        for (_, token) in self.waiting.remove(&id).unwrap_or_default() {
            self.failed += 1;
            if let Some(read) = self.all.get_mut(usize::try_from(token).unwrap_or(usize::MAX)) {
                read.end = Some(Err(ReadFailure::ShuttingDown));
            }
        }
    }

    /// Takes out a read that waits at this node.
    fn end(&mut self, id: NodeId, token: Token) -> Option<&mut Read> {
        let at = usize::try_from(token.0).unwrap_or(usize::MAX);
        let read = self.all.get_mut(at).filter(|it| it.node == id && it.end.is_none())?;
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.remove(&(read.deadline_us, token.0));
        }
        Some(read)
    }
}

impl World {
    /// A reader reads, and comes again.
    pub(super) fn reader(&mut self, reader: u64) {
        if !self.is_stormy {
            return;
        }
        let (nodes, plan) = (self.nodes.len() as u64, &self.plan);
        let floor = self.calls.floor();
        let Some(chooser) = self.readers.get_mut(usize::try_from(reader).unwrap_or_default())
        else {
            return;
        };
        let after_us = chooser.around(plan.think_us);
        let at = usize::try_from(chooser.below(nodes)).unwrap_or_default();
        let patience_us = chooser.between(plan.patience_us / 4, plan.patience_us);
        let age_us = chooser.pick(&[1_000, 100_000, 300_000, 2_000_000]);
        let level = match chooser.below(10) {
            0 => ReadLevel::Stale,
            1 => ReadLevel::AtLeast(floor),
            2 => ReadLevel::AtLeast(floor.plus(chooser.below(20))),
            3..5 => ReadLevel::Bounded(Duration::from_micros(age_us)),
            5..7 => ReadLevel::Lease,
            _ => ReadLevel::Linearizable,
        };
        let count = chooser.pick(&[1, 1, 1, 5]);
        (0..count).for_each(|_| self.read_at(at, level, patience_us));
        self.later(after_us, Event::Reader { reader });
    }

    /// Somebody reads at a node, if that runs.
    pub(super) fn read_at(&mut self, at: usize, level: ReadLevel, patience_us: u64) {
        let now_us = self.now_us;
        if !self.is_running(at) || self.nodes[at].paused_until_us > now_us {
            return;
        }
        let (node, clock) = (node_id(at), &self.nodes[at].clock);
        let boot_us = clock.now(now_us).boot_us;
        let floor = match level {
            ReadLevel::Linearizable | ReadLevel::Lease => self.calls.floor(),
            ReadLevel::AtLeast(index) => index,
            ReadLevel::Bounded(most) => {
                let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
                self.calls.floor_at(clock.showed(boot_us.saturating_sub(most_us)))
            }
            ReadLevel::Stale => Index::ZERO,
        };
        let deadline_us = boot_us + patience_us;
        let token = Token(self.reads.all.len() as u64);
        let end = None;
        self.reads.all.push(Read { node, level, floor, deadline_us, asked_us: now_us, end });
        self.reads.waiting.entry(node).or_default().insert((deadline_us, token.0));
        self.tell(|| format!("somebody reads at {node}: {level:?}, of which {floor} is the least"));
        self.step(at, Input::Read(vec![ReadCall { token, level, deadline_us }]));
    }

    /// The machine is asked.
    pub(super) fn release(&mut self, at: usize, tokens: Vec<Token>) {
        let (id, now_us) = (node_id(at), self.now_us);
        let Some(life) = &self.nodes[at].life else { return };
        let index = life.machine_applied;
        let raft = life.replica.raft();
        let leads = raft.role() == Role::Leader;
        let boot_us = self.nodes[at].clock.now(now_us).boot_us;
        let has_lease = leads && raft.lease_until_us().min(u64::MAX - 1) > boot_us;
        for token in tokens {
            let Some(read) = self.reads.end(id, token) else {
                let sentence = format!("node {id} answers read {} twice", token.0);
                return self.oracle.object("calls end once", sentence);
            };
            read.end = Some(Ok(index));
            let (level, floor, asked_us) = (read.level, read.floor, read.asked_us);
            self.reads.answered += 1;
            if index < floor {
                let sentence = format!(
                    "a read of level {level:?} at node {id}, asked at {asked_us} µs, sees what is applied up to {index}, and must see {floor}"
                );
                return self.oracle.object("reads see what was acknowledged", sentence);
            }
            match level {
                ReadLevel::Linearizable => self.calls.saw(index, now_us),
                ReadLevel::Lease => {
                    self.calls.saw(index, now_us);
                    if has_lease && asked_us == now_us && self.plan.voters > 1 {
                        self.mark(Marker::LeaseRead);
                    }
                }
                ReadLevel::Bounded(_) if !leads && asked_us == now_us => {
                    self.mark(Marker::BoundedRead);
                }
                ReadLevel::Bounded(_) | ReadLevel::AtLeast(_) | ReadLevel::Stale => {}
            }
        }
    }

    /// The machine is not asked.
    pub(super) fn end_read(&mut self, at: usize, token: Token, why: ReadFailure) {
        let id = node_id(at);
        match self.reads.end(id, token) {
            Some(read) => {
                read.end = Some(Err(why));
                self.reads.failed += 1;
            }
            None => {
                let sentence = format!("node {id} ends read {} twice", token.0);
                self.oracle.object("calls end once", sentence);
            }
        }
    }
}
