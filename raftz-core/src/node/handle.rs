//! The public handle: bytes in and out, no generics, every call bounded in time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::replica::SnapshotPolicy;
use crate::types::{
    GroupId, Index, NodeId, Outcome, Payload, ReadLevel, Refusal, Reply, SessionTag, Snapshot,
    Term, Unknown,
};

use super::callbacks::Item;
use super::callers::{BatchEnd, CALL_OVERHEAD_BYTES, Caller, Collector, Permit, Sink};
use super::clock;
use super::error::NodeError;
use super::host::Shared;
use super::intake::{Note, QueuedCall, QueuedRead};
use super::pending::{Pending, Slot};
use super::query::{Asked, QueryEnd, QueryJob};
use super::snapshots::SnapshotWish;
use super::status::Status;
use super::threads::{self, Threads};

/// How long dropping a node waits for its threads. Who needs to know that they ended calls
/// [`Node::shutdown`].
const DROP_WAIT: Duration = Duration::from_secs(2);
/// Deadlines of calls are rounded up to a multiple of this.
const DEADLINE_STEP_US: u64 = 1000;
/// How long [`Node::status`] waits for the event loop.
const STATUS_WAIT: Duration = Duration::from_millis(500);

/// How a proposal is to be treated. The default is what the node's configuration says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProposeOptions {
    /// Time after which it is answered; `propose_timeout_ms` of the configuration if `None`.
    pub timeout: Option<Duration>,
    /// Whether a follower may hand it to the leader, or hold it while there is none; `forward` of
    /// the configuration if `None`.
    pub forward: Option<bool>,
    /// The term in which this node must lead when it takes the command, so that what the caller has
    /// learnt in that term still holds; refused with [`Refusal::TermMismatch`] otherwise. It is never
    /// forwarded or held then.
    pub expected_term: Option<Term>,
    /// The mark of a client session, so that a retry is applied once.
    pub session: Option<SessionTag>,
}

/// How a read is to be treated. The default is a linearizable one.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// How new the answer must be.
    pub level: ReadLevel,
    /// Time after which it is answered; `read_timeout_ms` of the configuration if `None`.
    pub timeout: Option<Duration>,
}

impl From<ReadLevel> for ReadOptions {
    fn from(level: ReadLevel) -> Self {
        Self { level, timeout: None }
    }
}

/// A deadline that calls of one moment share.
const fn rounded(exact_us: u64) -> u64 {
    exact_us.div_ceil(DEADLINE_STEP_US).saturating_mul(DEADLINE_STEP_US)
}

/// A running node: one member of one cluster, with its storage, its network and its machine.
///
/// May be shared between threads. Blocking calls are refused, with an error that says so, inside
/// the node's own callbacks, where they would wait for themselves. Dropping it stops it, quietly
/// and within two seconds; [`Node::shutdown`] says whether all of it has ended.
pub struct Node {
    pub(super) id: NodeId,
    pub(super) shared: Arc<Shared>,
    pub(super) threads: Threads,
    pub(super) defaults: Defaults,
    pub(super) listen_address: Option<String>,
}

/// The time that a call has.
#[derive(Clone, Copy)]
struct Span {
    begun_us: u64,
    deadline_us: u64,
}

/// What a proposal without options of its own gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) forward: bool,
    pub(super) entry_bytes_max: u64,
    pub(super) election_timeout_max: Duration,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("listen_address", &self.listen_address)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// This node's id.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens, `host:port`, with the port that it really got; `None` if it does not.
    pub fn listen_address(&self) -> Option<String> {
        self.listen_address.clone()
    }

    /// Proposes a command. Never blocks; the answer is a future, and can be waited for.
    pub fn propose(&self, command: impl Into<Bytes>) -> Pending<Outcome> {
        self.propose_opt(command, ProposeOptions::default())
    }

    /// Proposes a command with options. Never blocks.
    pub fn propose_opt(
        &self,
        command: impl Into<Bytes>,
        options: ProposeOptions,
    ) -> Pending<Outcome> {
        let slot = Slot::empty();
        let span = self.span(options);
        let deadline_us = span.deadline_us;
        let sink = Sink::Slot(Arc::clone(&slot));
        match self.submit(command.into(), options, span, sink) {
            Ok(()) => Pending::new(slot, deadline_us, 1),
            Err(refusal) => Pending::new(Slot::full(Outcome::Refused(refusal)), deadline_us, 1),
        }
    }

    /// Proposes a command and has `done` called with its outcome, once, on the callback thread.
    /// Never blocks and never calls `done` itself.
    ///
    /// # Errors
    /// The command was not accepted, and `done` will not be called.
    pub fn propose_with(
        &self,
        command: impl Into<Bytes>,
        options: ProposeOptions,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<(), Refusal> {
        let span = self.span(options);
        let sink = Sink::Callback(Box::new(done), Arc::clone(&self.shared.callbacks));
        self.submit(command.into(), options, span, sink)
    }

    /// Proposes commands that reach the log in this order, though other callers' may stand
    /// between them; each has an outcome of its own. Never blocks.
    pub fn propose_batch(
        &self,
        commands: Vec<Bytes>,
        options: ProposeOptions,
    ) -> Pending<Vec<Outcome>> {
        let count = commands.len();
        let span = self.span(options);
        let deadline_us = span.deadline_us;
        if commands.is_empty() {
            return Pending::new(Slot::full(Vec::new()), deadline_us, 0);
        }
        let slot = Slot::empty();
        let end = |permit| (BatchEnd::Slot(Arc::clone(&slot)), permit);
        match self.submit_batch(commands, options, span, end) {
            Ok(()) => Pending::new(slot, deadline_us, count),
            Err(refusal) => {
                let outcomes = vec![Outcome::Refused(refusal); count];
                Pending::new(Slot::full(outcomes), deadline_us, count)
            }
        }
    }

    /// As [`Node::propose_batch`], and has `done` called with all the outcomes in order, once, on the
    /// callback thread. Never calls it itself.
    ///
    /// # Errors
    /// None of the commands was accepted, and `done` will not be called.
    pub fn propose_batch_with(
        &self,
        commands: Vec<Bytes>,
        options: ProposeOptions,
        done: impl FnOnce(Vec<Outcome>) + Send + 'static,
    ) -> Result<(), Refusal> {
        let span = self.span(options);
        if commands.is_empty() {
            if let Some(refusal) = self.shared.intake.closed() {
                return Err(refusal);
            }
            let permit = self.admit(1, 0)?;
            return self.offer(Item::Answer(Box::new(move || {
                let _permit = permit;
                done(Vec::new());
            })));
        }
        let nothing = self.shared.gauge.nothing();
        let end = |permit| (BatchEnd::Callback(Box::new(done), permit), nothing);
        self.submit_batch(commands, options, span, end)
    }

    /// `end` is given the permit of the whole batch, to keep it or to leave it to the commands.
    fn submit_batch(
        &self,
        commands: Vec<Bytes>,
        options: ProposeOptions,
        span: Span,
        end: impl FnOnce(Permit) -> (BatchEnd, Permit),
    ) -> Result<(), Refusal> {
        let count = commands.len() as u64;
        let accepted = self.try_submit_batch(commands, options, span, end);
        accepted.inspect_err(|refusal| self.shared.meter.refused(refusal.code(), count))
    }

    fn try_submit_batch(
        &self,
        commands: Vec<Bytes>,
        options: ProposeOptions,
        span: Span,
        end: impl FnOnce(Permit) -> (BatchEnd, Permit),
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.shared.intake.closed() {
            return Err(refusal);
        }
        let count = commands.len();
        let bytes: u64 = commands.iter().map(cost).sum();
        let (end, mut permit) = end(self.admit(count as u64, bytes)?);
        let collector = Collector::new(count, end);
        let mut calls = Vec::with_capacity(count);
        let mut later = Vec::new();
        for (at, command) in commands.into_iter().enumerate() {
            let callbacks = Arc::clone(&self.shared.callbacks);
            let sink = Sink::Batch(Arc::clone(&collector), at, callbacks);
            let caller = Caller::new(sink, permit.split(cost(&command)), span.begun_us);
            match self.check_size(&command) {
                Ok(()) => calls.push(self.queued(command, options, span.deadline_us, caller)),
                Err(refusal) => {
                    self.shared.meter.refused(refusal.code(), 1);
                    caller.answer(Outcome::Refused(refusal), &mut later);
                }
            }
        }
        self.shared.intake.propose(calls).map_err(|(refusal, calls)| {
            collector.disarm();
            drop(calls);
            refusal
        })?;
        // Only where none of the commands could be taken.
        later.into_iter().try_for_each(|item| self.offer(item))
    }

    fn offer(&self, item: Item) -> Result<(), Refusal> {
        self.shared.callbacks.offer(item).map_err(|_| Refusal::ShuttingDown)
    }

    /// Proposes a command and waits for its outcome, at most `timeout`.
    ///
    /// Refused with [`Refusal::InCallback`] inside a callback of a node.
    pub fn propose_blocking(&self, command: impl Into<Bytes>, timeout: Duration) -> Outcome {
        if let Some(inside) = threads::inside() {
            return Outcome::Refused(Refusal::InCallback { inside: inside.into() });
        }
        let options = ProposeOptions { timeout: Some(timeout), ..ProposeOptions::default() };
        self.propose_opt(command, options).wait()
    }

    /// Asks the machine. Never blocks; the answer is a future, and can be waited for.
    ///
    /// A read writes nothing to a disk and may be asked again at will: it fails, or it has its answer.
    pub fn read(
        &self,
        request: impl Into<Bytes>,
        options: impl Into<ReadOptions>,
    ) -> Pending<Result<Reply, NodeError>> {
        let options = options.into();
        let slot = Slot::empty();
        let timeout = options.timeout.unwrap_or(self.defaults.read_timeout);
        let deadline_us = rounded(clock::deadline_us(timeout));
        let end = QueryEnd::Slot(Arc::clone(&slot));
        match self.ask(request.into(), options.level, (deadline_us, timeout), end) {
            Ok(()) => Pending::new(slot, deadline_us, 1),
            Err(error) => Pending::new(Slot::full(Err(error)), deadline_us, 1),
        }
    }

    /// As [`Node::read`], and has `done` called with the answer, once, on the callback thread. Never blocks and
    /// never calls `done` itself.
    ///
    /// # Errors
    /// Too many calls in flight, or a node that has ended; `done` will not be called.
    pub fn read_with(
        &self,
        request: impl Into<Bytes>,
        options: impl Into<ReadOptions>,
        done: impl FnOnce(Result<Reply, NodeError>) + Send + 'static,
    ) -> Result<(), NodeError> {
        let options = options.into();
        let timeout = options.timeout.unwrap_or(self.defaults.read_timeout);
        let deadline_us = rounded(clock::deadline_us(timeout));
        let end = QueryEnd::Function(Box::new(done));
        self.ask(request.into(), options.level, (deadline_us, timeout), end)
    }

    /// Asks the machine and waits for the answer.
    ///
    /// # Errors
    /// [`NodeError::NoLeader`] if no leader confirmed in time that the answer would be new enough, with who is out of
    /// reach and why; [`NodeError::NotApplied`] if this node did not come so far; no answer in time, a faulted
    /// machine, too many calls in flight, or a node that is shut down; [`NodeError::InCallback`] inside a
    /// callback of a node.
    pub fn read_blocking(
        &self,
        request: impl Into<Bytes>,
        options: impl Into<ReadOptions>,
    ) -> Result<Reply, NodeError> {
        self.may_block()?;
        match self.read(request, options).wait() {
            Err(NodeError::ShutDown) => Err(stopped(&self.status())),
            answer => answer,
        }
    }

    /// Asks the local machine, as it is now: [`Node::read_blocking`] with [`ReadLevel::Stale`].
    ///
    /// # Errors
    /// As there, but for what concerns leaders.
    pub fn query(&self, request: impl Into<Bytes>, timeout: Duration) -> Result<Reply, NodeError> {
        let options = ReadOptions { level: ReadLevel::Stale, timeout: Some(timeout) };
        self.read_blocking(request, options)
    }

    fn ask(
        &self,
        request: Bytes,
        level: ReadLevel,
        (deadline_us, timeout): (u64, Duration),
        end: QueryEnd,
    ) -> Result<(), NodeError> {
        let permit =
            self.shared.gauge.admit(1, cost(&request)).map_err(|what| NodeError::Busy { what })?;
        let callbacks = Arc::clone(&self.shared.callbacks);
        let job = QueryJob::new(request, Asked::new(end, permit, callbacks, deadline_us, timeout));
        let group = GroupId::FIRST;
        self.shared.meter.read(level);
        let read = QueuedRead { group, level, deadline_us, job };
        self.shared.intake.ask(read).map_err(|read| {
            read.job.disarm();
            stopped(&self.shared.board.status())
        })
    }

    /// How the node is. Waits for the event loop to say so, which is a matter of microseconds;
    /// if the loop cannot, what it last said.
    pub fn status(&self) -> Status {
        if threads::on_loop() {
            return self.shared.board.status();
        }
        let ask = || self.shared.intake.notify([Note::RefreshStatus]);
        self.shared.board.fresh_status(ask, STATUS_WAIT)
    }

    /// Waits until this node knows a leader.
    ///
    /// # Errors
    /// [`NodeError::NoLeader`] names who is out of reach and why.
    pub fn wait_for_leader(&self, timeout: Duration) -> Result<NodeId, NodeError> {
        self.may_block()?;
        let deadline_us = clock::deadline_us(timeout);
        match self.shared.board.wait(deadline_us, |pulse| pulse.leader.filter(|_| !pulse.stopped)) {
            Ok(leader) => Ok(leader),
            Err(pulse) => {
                let status = self.status();
                if pulse.stopped {
                    return Err(stopped(&status));
                }
                Err(NodeError::NoLeader { waited_ms: ms(timeout), detail: status.obstacles() })
            }
        }
    }

    /// Waits until this node's machine has applied everything up to `index`.
    ///
    /// # Errors
    /// [`NodeError::NotApplied`] says how far it is, who leads, and who is out of reach and why.
    pub fn wait_for_applied(&self, index: Index, timeout: Duration) -> Result<(), NodeError> {
        self.may_block()?;
        let deadline_us = clock::deadline_us(timeout);
        let there = |pulse: &super::status::Pulse| (pulse.applied >= index).then_some(());
        match self.shared.board.wait(deadline_us, there) {
            Ok(()) => Ok(()),
            Err(pulse) => {
                let status = self.status();
                if pulse.stopped {
                    return Err(stopped(&status));
                }
                let leader = match status.leader {
                    Some(leader) => format!("node {leader} leads"),
                    None => "no leader is known".to_owned(),
                };
                Err(NodeError::NotApplied {
                    wanted: index,
                    applied: pulse.applied,
                    waited_ms: ms(timeout),
                    detail: format!("{leader}; {}", status.obstacles()),
                })
            }
        }
    }

    /// Takes a snapshot of everything that is applied now, and waits for it. Gives the newest one at once if
    /// that is as new already. The log behind it becomes shorter by itself.
    ///
    /// # Errors
    /// A machine that makes no snapshots, a full disk, no snapshot in time (it may still come), a node that is
    /// shut down or faulted; [`NodeError::InCallback`] inside a callback of a node.
    pub fn snapshot(&self, timeout: Duration) -> Result<Snapshot, NodeError> {
        self.may_block()?;
        let (wish, slot) = SnapshotWish::new();
        self.shared.intake.notify([Note::TakeSnapshot(GroupId::FIRST, wish)]);
        match slot.take_until(clock::deadline_us(timeout)) {
            Some(Err(NodeError::ShutDown)) => Err(stopped(&self.status())),
            Some(answer) => answer,
            None => {
                let detail = format!("it was not complete within {} ms", ms(timeout));
                Err(NodeError::Snapshot { detail })
            }
        }
    }

    /// Deals with snapshots like this from now on, until the node is started again.
    pub fn set_snapshot_policy(&self, policy: SnapshotPolicy) {
        self.shared.intake.notify([Note::SetSnapshotPolicy(GroupId::FIRST, policy)]);
    }

    /// Makes this node stand for election now instead of waiting for its timeout. It wins only
    /// if the others agree.
    pub fn campaign(&self) {
        self.shared.intake.campaign(GroupId::FIRST);
    }

    /// Stops the node: refuses new calls, hands over if it leads, answers calls in flight, seals and closes
    /// the log, and waits until all its threads have ended. May be called again.
    ///
    /// Handing over takes no more than half of `timeout` and three of the longest election timeouts.
    ///
    /// # Errors
    /// [`NodeError::StillRunning`] if something did not return within `timeout`. Every call has
    /// been answered all the same, and what runs ends by itself once it returns.
    /// [`NodeError::InCallback`] inside a callback of a node; nothing is stopped then.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), NodeError> {
        self.may_block()?;
        let deadline_us = clock::deadline_us(timeout);
        self.shared.intake.close(Refusal::ShuttingDown);
        self.hand_over_before_end(timeout);
        self.request_stop();
        self.threads.join_until(deadline_us).map_err(|left| NodeError::StillRunning {
            waited_ms: ms(timeout),
            threads: left.join(", "),
        })
    }

    fn request_stop(&self) {
        self.shared.intake.close(Refusal::ShuttingDown);
        self.shared.intake.notify([Note::Shutdown]);
    }

    pub(super) fn may_block(&self) -> Result<(), NodeError> {
        match threads::inside() {
            None => Ok(()),
            Some(inside) => Err(NodeError::InCallback { inside: inside.into() }),
        }
    }

    /// From now to the deadline, which is rounded up, so that calls made in one moment share it.
    fn span(&self, options: ProposeOptions) -> Span {
        let timeout = options.timeout.unwrap_or(self.defaults.timeout).as_micros();
        let begun_us = clock::boot_us();
        let exact_us = begun_us.saturating_add(u64::try_from(timeout).unwrap_or(u64::MAX));
        Span { begun_us, deadline_us: rounded(exact_us) }
    }

    fn check_size(&self, command: &Bytes) -> Result<(), Refusal> {
        let (bytes, limit) = (command.len() as u64, self.defaults.entry_bytes_max);
        if bytes > limit { Err(Refusal::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Admits calls unless a bound is reached or the node takes none any more, which is the
    /// better reason to give.
    fn admit(&self, calls: u64, bytes: u64) -> Result<Permit, Refusal> {
        self.shared
            .gauge
            .admit(calls, bytes)
            .map_err(|what| self.shared.intake.closed().unwrap_or(Refusal::Busy { what }))
    }

    fn queued(
        &self,
        command: Bytes,
        options: ProposeOptions,
        deadline_us: u64,
        caller: Caller,
    ) -> QueuedCall {
        QueuedCall {
            group: GroupId::FIRST,
            caller,
            payload: Payload::new(command),
            session: options.session,
            expected_term: options.expected_term,
            deadline_us,
            forward: options.forward.unwrap_or(self.defaults.forward),
        }
    }

    fn submit(
        &self,
        command: Bytes,
        options: ProposeOptions,
        span: Span,
        sink: Sink,
    ) -> Result<(), Refusal> {
        let accepted = self.try_submit(command, options, span, sink);
        accepted.inspect_err(|refusal| self.shared.meter.refused(refusal.code(), 1))
    }

    fn try_submit(
        &self,
        command: Bytes,
        options: ProposeOptions,
        span: Span,
        sink: Sink,
    ) -> Result<(), Refusal> {
        self.check_size(&command)?;
        let permit = self.admit(1, cost(&command))?;
        let caller = Caller::new(sink, permit, span.begun_us);
        let call = self.queued(command, options, span.deadline_us, caller);
        self.shared.intake.propose_one(call)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.request_stop();
        // The last handle may go inside one of the node's own callbacks; waiting there would be
        // waiting for itself.
        if threads::inside().is_none() {
            let _ = self.threads.join_until(clock::deadline_us(DROP_WAIT));
        }
    }
}

/// What a command takes from the bound on bytes in flight.
fn cost(command: &Bytes) -> u64 {
    command.len() as u64 + CALL_OVERHEAD_BYTES
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn stopped(status: &Status) -> NodeError {
    match &status.fault {
        Some(fault) => NodeError::Faulted { reason: fault.to_string() },
        None => NodeError::ShutDown,
    }
}

impl Outcome {
    /// The stable number of this outcome, the same in every language: 0 for done.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Done(_) => 0,
            Self::Refused(refusal) => refusal.code(),
            Self::Unknown(unknown) => Unknown::code(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_be_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Node>();
        shared::<Pending<Outcome>>();
    }
}
