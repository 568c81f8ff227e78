//! Readers: what they ask, when the machine may be asked for them, and what they see then.

use std::collections::BTreeMap;
use std::time::Duration;

use raftz_core::replica::{Input, ReadCall, ReadFailure};
use raftz_core::types::{Index, NodeId, Outcome, ReadLevel, Token};

use super::cluster::{Cluster, Voice};

/// All reads of a transcript, by name.
#[derive(Default)]
pub(crate) struct Readers {
    reads: BTreeMap<Token, Reader>,
    /// What a linearizable read has seen, every later one sees.
    seen: Index,
}

struct Reader {
    node: NodeId,
    name: String,
    level: ReadLevel,
    floor: Index,
    has_ended: bool,
}

/// "linearizable", "lease", "stale", "at:7" or "bounded:100ms".
pub(crate) fn level(word: &str, micros: impl Fn(&str) -> u64) -> ReadLevel {
    match word.split_once(':') {
        None if word == "linearizable" => ReadLevel::Linearizable,
        None if word == "lease" => ReadLevel::Lease,
        None if word == "stale" => ReadLevel::Stale,
        Some(("at", index)) => ReadLevel::AtLeast(Index(index.parse().unwrap())),
        Some(("bounded", most)) => ReadLevel::Bounded(Duration::from_micros(micros(most))),
        _ => panic!("unknown level {word:?}"),
    }
}

impl Cluster {
    /// Readers of a node ask, in one batch.
    pub(crate) fn read_at(&mut self, id: NodeId, names: &[&str], level: ReadLevel, wait_us: u64) {
        // Whatever was done by now must be seen.
        let done = self.calls.values().filter_map(|call| match &call.outcome {
            Some(Outcome::Done(done)) => Some(done.index),
            Some(Outcome::Refused(_) | Outcome::Unknown(_)) | None => None,
        });
        let floor = match level {
            ReadLevel::Linearizable | ReadLevel::Lease => {
                done.max().unwrap_or_default().max(self.readers.seen)
            }
            ReadLevel::AtLeast(index) => index,
            ReadLevel::Bounded(_) | ReadLevel::Stale => Index::ZERO,
        };
        let deadline_us = self.now_us + wait_us;
        let mut calls = Vec::new();
        for name in names {
            let token = Token(self.readers.reads.len() as u64);
            let name = (*name).to_owned();
            self.readers
                .reads
                .insert(token, Reader { node: id, name, level, floor, has_ended: false });
            calls.push(ReadCall { token, level, deadline_us });
        }
        self.step(id, Input::Read(calls));
    }

    fn end(&mut self, id: NodeId, token: Token) -> (String, ReadLevel, Index) {
        let reader = self.readers.reads.get_mut(&token).expect("a read that was never made");
        assert_eq!(reader.node, id, "a read of another node");
        assert!(!reader.has_ended, "{} ends twice", reader.name);
        reader.has_ended = true;
        (reader.name.clone(), reader.level, reader.floor)
    }

    /// The machine may be asked.
    pub(crate) fn on_read(&mut self, id: NodeId, tokens: Vec<Token>) {
        let applied = self.nodes[&id].machine.applied;
        for token in tokens {
            let (name, level, floor) = self.end(id, token);
            assert!(applied >= floor, "{name} must see {floor} and sees {applied}");
            if matches!(level, ReadLevel::Linearizable | ReadLevel::Lease) {
                self.readers.seen = self.readers.seen.max(applied);
            }
            self.say(Voice::News, || format!("{id}: answers {name} with all up to {applied}"));
        }
    }

    /// It may not.
    pub(crate) fn on_end_read(&mut self, id: NodeId, token: Token, why: &ReadFailure) {
        let (name, ..) = self.end(id, token);
        let why = match why {
            ReadFailure::NoLeader { detail } => format!("no leader: {detail}"),
            ReadFailure::NotApplied { wanted, applied } => {
                format!("not applied: {applied} is, and {wanted} is not")
            }
            ReadFailure::ShuttingDown => "shutting down".into(),
            ReadFailure::Faulted { reason } => format!("faulted: {reason}"),
        };
        self.say(Voice::News, || format!("{id}: tells {name}: {why}"));
    }

    /// Every read ends by its deadline, also on a node that has stopped.
    pub(crate) fn forget_readers_of(&mut self, id: NodeId) {
        for reader in self.readers.reads.values_mut().filter(|it| it.node == id) {
            reader.has_ended = true;
        }
    }
}
