//! What a node's threads would do: write, read and apply, each in its time.

use crate::node::lanes::{Sum, rules};
use crate::replica::Input;
use crate::storage::{IDLE_SEAL_MS, Space, Storage};
use crate::types::{Entries, GroupId};

use super::marker::Marker;
use super::node::{Range, ReadJob};
use super::world::{Event, World, node_id};

/// How often a node whose disk lacks room looks again.
const SPACE_RETRY_US: u64 = 500_000;

impl World {
    /// How long a write takes on this node now, and its life.
    pub(super) fn disk_time(&mut self, at: usize) -> (u64, u64) {
        let node = &mut self.nodes[at];
        let life = node.life.as_ref().map_or(0, |life| life.number);
        (node.chooser.around(self.plan.disk_us * node.disk_slow), life)
    }

    /// Lets the log lane begin its next submission, if it is free.
    pub(super) fn kick_log(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.writing.is_some() || life.queue.is_empty() || life.halted.is_some() {
            return;
        }
        life.writing = Some(rules::next_submission(&mut life.queue, self.plan.submission_bytes));
        life.is_sealed = false;
        life.submissions += 1;
        let (after_us, life) = self.disk_time(at);
        self.later(after_us, Event::Written { at, life });
    }

    pub(super) fn written(&mut self, at: usize, number: u64) {
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

    pub(super) fn take_fates(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let fates = std::mem::take(&mut *life.fates.lock());
        life.is_sealed &= fates.is_empty();
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

    pub(super) fn check_space(&mut self, at: usize) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let lacks_room = life.storage.space() == Space::Low;
        let news = lacks_room != life.lacks_room;
        life.lacks_room = lacks_room;
        let (number, submissions) = (life.number, life.submissions);
        if news && !lacks_room {
            self.later(IDLE_SEAL_MS * 1000, Event::Idle { at, life: number, submissions });
        }
        self.take_fates(at);
        if lacks_room {
            self.mark(Marker::DiskFull);
            self.later(SPACE_RETRY_US, Event::Space { at, life: number });
        }
        if news {
            self.step(at, Input::StorageFull(lacks_room));
        }
    }

    pub(super) fn idle(&mut self, at: usize, number: u64, submissions: u64) {
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

    pub(super) fn read(&mut self, at: usize, number: u64, job: ReadJob) {
        if !self.is_life(at, number) {
            return;
        }
        let Some(life) = &self.nodes[at].life else { return };
        let ReadJob { request, first, last, bytes_max } = job;
        let result = life.reader.read(GroupId::FIRST, first, last, bytes_max);
        let result = result.map_err(|error| error.to_string());
        self.step(at, Input::EntriesRead { request, result });
    }

    pub(super) fn apply(&mut self, at: usize, number: u64) {
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
                Ok(entries) => range.entries = entries.into(),
                Err(detail) => {
                    let reason = format!("reading entries to apply: {detail}");
                    return self.step(at, Input::PersistFailed(reason));
                }
            }
        }
        let last = range.entries.last().map_or(range.last, |entry| entry.index);
        match life.applier.apply(&range.entries) {
            Ok(replies) => {
                let sum = Sum::of(&range.entries);
                let (log_time_us, bytes) = sum.map_or((0, 0), |it| (it.log_time_us, it.bytes));
                life.machine_applied = last;
                if last < range.last {
                    let (first, last) = (last.next(), range.last);
                    life.applying = Some(Range { first, last, entries: Entries::new() });
                    self.later(self.plan.apply_us, Event::Applied { at, life: number });
                }
                self.oracle.on_applied(node_id(at), last, &replies);
                self.step(at, Input::Applied { last, log_time_us, bytes, replies });
            }
            Err(failure) => {
                let rules::ApplyFailure { index, kind, detail } = failure;
                self.step(at, Input::ApplyFailed { index, kind, detail });
            }
        }
    }
}
