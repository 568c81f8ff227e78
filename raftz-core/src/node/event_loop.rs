//! One turn of the event loop, and its end.
//!
//! The loop sleeps in the transport's `poll` and nowhere else. When it wakes it takes everything
//! that has come (lane answers, frames, proposals, deadlines), lets the replicas decide, and only
//! then acts: writes to the log lane and one flush of the network first, then answers to callers, then machines
//! that run here. Nothing in a turn waits for anything.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::replica::Input;
use crate::transport::TransportEvent;
use crate::types::{Event, FaultReason, GroupId, Now, Outcome, Refusal, Unknown, earliest};

use super::callbacks::Item;
use super::clock;
use super::error::NodeError;
use super::host::{ApplyBudget, Host, Machine, Shared};
use super::intake::Batch;
use super::threads::{self, Waiting};

/// Failed polls in a row after which the network is given up. One may be bad luck; the system
/// answering like this again and again would make the loop spin.
const POLL_FAILURES_MAX: u32 = 100;

/// How long completions may run before what they propose wakes the loop at once.
const NAP_US: u64 = 1000;

/// Runs a host until it is shut down or its loop fails.
pub(super) fn run(mut host: Host) {
    threads::mark_as_loop();
    let mut turn = Turn::default();
    // What is known to be committed is applied at once, also where no deadline would come.
    host.step_all(clock::now(), &Input::Tick);
    let fault = loop {
        match threads::guarded(|| turn.take(&mut host)) {
            Ok(Ok(())) if host.stopping => break None,
            Ok(Ok(())) => {}
            Ok(Err(fault)) => break Some(fault),
            Err(panic) => {
                break Some(FaultReason::Host(format!("the event loop panicked: {panic}")));
            }
        }
    };
    if let Some(reason) = &fault {
        host.later.push(Item::Event(GroupId::FIRST, Event::Faulted(reason.clone())));
        for (_, member) in host.members.iter_mut() {
            member.halted.get_or_insert_with(|| reason.clone());
        }
    }
    end(&mut host, fault);
}

/// Buffers that live from turn to turn.
#[derive(Default)]
struct Turn {
    batch: Batch,
    events: Vec<TransportEvent>,
    poll_failures: u32,
    is_begun: bool,
    /// When the last turn looked at the clock.
    now_us: u64,
    /// The push of completions during which the loop naps, and until when.
    nap: (u64, u64),
    waiting: Waiting,
}

impl Turn {
    fn take(&mut self, host: &mut Host) -> Result<(), FaultReason> {
        let polled = if self.is_begun && !host.has_inline_work() {
            self.wait(host)
        } else {
            // The first turn does not sleep: it performs what the start itself asks for.
            self.is_begun = true;
            host.transport.poll(Some(Duration::ZERO), &mut self.events)
        };
        match polled {
            Ok(()) => self.poll_failures = 0,
            Err(error) => {
                self.poll_failures += 1;
                if self.poll_failures >= POLL_FAILURES_MAX {
                    return Err(FaultReason::Host(format!("waiting for the network: {error}")));
                }
            }
        }
        let now = clock::now();
        self.now_us = now.boot_us;
        host.answered_us = now.boot_us;
        host.shared.intake.drain(&mut self.batch);
        for note in self.batch.notes.drain(..) {
            host.take_note(now, note);
        }
        for event in self.events.drain(..) {
            host.take_event(now, event);
        }
        host.take_calls(now, &mut self.batch.calls);
        host.take_reads(&mut self.batch.reads);
        while let Some(group) = self.batch.campaigns.pop_first() {
            host.step(now, group, Input::Campaign);
        }
        tick(host, now);
        host.tell_left_out(now);
        let mut budget = ApplyBudget::TURN;
        loop {
            host.perform(now);
            let answered = write_and_send(host, now);
            deliver(host);
            let mut more = host.apply_inline(now, &mut budget);
            if answered {
                host.shared.intake.drain_notes(&mut self.batch.notes);
                for note in self.batch.notes.drain(..) {
                    host.take_note(now, note);
                    more = true;
                }
            }
            if !host.unsent.is_empty() {
                more = true;
                for (group, input) in std::mem::take(&mut host.unsent) {
                    host.step(now, group, input);
                }
            }
            if !more {
                break;
            }
        }
        host.answer_inline();
        host.log.tick(now.boot_us);
        host.query_deadlines.expire(now.boot_us);
        host.publish();
        host.watch(now);
        Ok(())
    }
}

impl Turn {
    /// Waits for whatever comes first: something in the inbox, from the network, or a deadline.
    fn wait(&mut self, host: &mut Host) -> io::Result<()> {
        let events = &mut self.events;
        let mut polled = Ok(());
        let Shared { callbacks, intake, .. } = host.shared.as_ref();
        // What completions propose is taken when they are through.
        let has_come = || {
            polled = host.transport.poll(Some(Duration::ZERO), events);
            let is_asked = intake.has_some(callbacks.busy_with().is_some());
            polled.is_err() || !events.is_empty() || is_asked
        };
        self.waiting.has_computed();
        self.waiting.begin(|| callbacks.busy_with().is_some(), has_come);
        if polled.is_ok() && self.events.is_empty() {
            host.publish_metrics();
            let timeout = self.rest(host);
            polled = host.transport.poll(timeout, &mut self.events);
        }
        self.waiting.end();
        polled
    }

    /// How long the loop may sleep now. While completions run it only naps: what they propose need not wake
    /// it one by one. If they take long, it does.
    fn rest(&mut self, host: &mut Host) -> Option<Duration> {
        let busy_with = host.shared.callbacks.busy_with();
        if let Some(push) = busy_with.filter(|push| *push != self.nap.0) {
            self.nap = (push, self.now_us.saturating_add(NAP_US));
        }
        let left_us = self.nap.1.saturating_sub(self.now_us);
        let naps = busy_with.is_some() && left_us > 0;
        if !host.shared.intake.may_sleep(naps) {
            return Some(Duration::ZERO);
        }
        let nap = naps.then(|| Duration::from_micros(left_us));
        [sleep_at_most(host), nap].into_iter().flatten().min()
    }
}

/// How long the loop may sleep: until the nearest deadline of a replica or an inline lane.
fn sleep_at_most(host: &mut Host) -> Option<Duration> {
    let lanes = [
        host.log.next_deadline_us(),
        host.query_deadlines.next_us(),
        host.vigil.next_deadline_us(),
    ];
    let mut nearest = earliest(lanes);
    for (_, member) in host.members.iter_mut().filter(|(_, member)| member.halted.is_none()) {
        nearest = earliest([nearest, member.replica.next_deadline()]);
    }
    nearest.map(clock::left_until)
}

fn tick(host: &mut Host, now: Now) {
    for (_, member) in host.members.iter_mut().filter(|(_, member)| member.halted.is_none()) {
        if member.replica.next_deadline().is_some_and(|due| due <= now.boot_us) {
            member.step(now, Input::Tick);
        }
    }
}

/// Starts the writes and sends what is to be sent, whatever takes longer first: a lane of its own only has to be
/// woken. Whether writes may have been answered already.
fn write_and_send(host: &mut Host, now: Now) -> bool {
    if !host.log.is_inline() {
        host.log.write(&mut host.writes, now.boot_us);
    }
    if std::mem::take(&mut host.sent) {
        host.transport.flush();
    }
    let has_more = !host.writes.is_empty();
    host.log.write(&mut host.writes, now.boot_us);
    has_more
}

/// Answers callers: futures and blocked threads here, user functions on the callback thread.
fn deliver(host: &mut Host) {
    if host.answers.is_empty() && host.later.is_empty() {
        return;
    }
    let (is_counted, now_us) = (host.shared.meter.is_on(), host.answered_us);
    for (caller, outcome) in host.answers.drain(..) {
        if is_counted {
            host.account.ended(&outcome, now_us.saturating_sub(caller.begun_us()));
        }
        caller.answer(outcome, &mut host.later);
    }
    host.shared.callbacks.push_all(&mut host.later);
}

/// The end: everybody is answered, the lanes are told, the callback thread may finish.
fn end(host: &mut Host, fault: Option<FaultReason>) {
    let (refusal, unknown, error) = match fault {
        None => (Refusal::ShuttingDown, Unknown::ShuttingDown, NodeError::ShutDown),
        Some(reason) => {
            let reason = reason.to_string();
            (
                Refusal::Faulted { reason: reason.clone() },
                Unknown::Faulted { reason: reason.clone() },
                NodeError::Faulted { reason },
            )
        }
    };
    // First: whoever is answered in the following may look there for the reason.
    let _ = threads::guarded(|| host.publish_last());
    let _ = threads::guarded(|| host.watch_last());
    let left = host.shared.intake.end(refusal.clone());
    for call in left.calls {
        host.answers.push((call.caller, Outcome::Refused(refusal.clone())));
    }
    drop(left.notes);
    let inline = host.members.iter_mut().flat_map(|(_, member)| match &mut member.machine {
        Machine::Inline { queries, .. } => std::mem::take(queries),
        Machine::Lane => VecDeque::new(),
    });
    let reads = left.reads.into_iter().map(|read| read.job).chain(host.reads.drain());
    for job in reads.chain(inline) {
        job.answer(Err(error.clone()));
    }
    // Also what the machine is working at: when it is through, nobody hears of it any more.
    host.query_deadlines.end(&error);
    host.answers.extend(host.callers.drain().map(|c| (c, Outcome::Unknown(unknown.clone()))));
    deliver(host);
    let _ = threads::guarded(|| host.publish_metrics());
    let _ = threads::guarded(|| {
        host.transport.flush();
        host.log.write(&mut host.writes, clock::boot_us());
    });
    host.log.stop();
    host.read.stop();
    if let Some(lane) = &host.apply {
        lane.stop();
    }
    if let Some(lane) = &host.snapshots {
        lane.stop();
    }
    host.transfers.end(&error);
    for wish in host.wishes.drain(..) {
        wish.grant(Err(error.clone()));
    }
    host.shared.callbacks.close();
}
