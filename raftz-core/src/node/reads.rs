//! Reads in the runtime: to the replica, which says when the machine may be asked, and from there to the machine.

use std::collections::BTreeMap;

use crate::replica::{Input, ReadCall, ReadFailure};
use crate::types::{GroupId, ReadLevel, Token};

use super::clock;
use super::error::NodeError;
use super::host::Host;
use super::intake::QueuedRead;

impl Host {
    /// Hands over everything that callers want to read.
    pub(super) fn take_reads(&mut self, reads: &mut Vec<QueuedRead>) {
        if reads.is_empty() {
            return;
        }
        // The clock is read after the callers asked: a lease that holds now held then, also if this process stood
        // still in between.
        let now = clock::now();
        let mut batches: BTreeMap<GroupId, Vec<ReadCall>> = BTreeMap::new();
        for QueuedRead { group, level, deadline_us, job } in reads.drain(..) {
            let fault = self.members.get(&group).and_then(|member| member.halted.as_ref());
            if level == ReadLevel::Stale {
                self.query(group, job);
            } else if let Some(reason) = fault {
                job.answer(Err(NodeError::Faulted { reason: reason.to_string() }));
            } else {
                let token = self.reads.enter(job);
                batches.entry(group).or_default().push(ReadCall { token, level, deadline_us });
            }
        }
        for (group, calls) in batches {
            self.step(now, group, Input::Read(calls));
        }
    }

    /// The machine may be asked.
    pub(super) fn release(&mut self, group: GroupId, tokens: Vec<Token>) {
        for token in tokens {
            if let Some(job) = self.reads.take(token) {
                self.query(group, job);
            }
        }
    }

    /// It may not.
    pub(super) fn end_read(&mut self, token: Token, why: ReadFailure) {
        let Some(job) = self.reads.take(token) else { return };
        let waited_ms = job.asked().map_or(0, |asked| asked.timeout_ms());
        job.answer(Err(match why {
            ReadFailure::NoLeader { detail } => NodeError::NoLeader { waited_ms, detail },
            ReadFailure::NotApplied { wanted, applied } => {
                let detail = "this node is behind, or there is no such entry".to_owned();
                NodeError::NotApplied { wanted, applied, waited_ms, detail }
            }
            ReadFailure::ShuttingDown => NodeError::ShutDown,
            ReadFailure::Faulted { reason } => NodeError::Faulted { reason },
        }));
    }
}
