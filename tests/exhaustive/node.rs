//! One core, its disk, and one event after the other. What a node may say or do by itself is judged here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use raftz_core::raft::{Action, Config, Input, Proposal, Raft};
use raftz_core::types::{
    AppendOutcome, Base, Entry, Event as News, Index, LogId, Member, Membership, NodeId, Now,
    Payload, RaftBody, RaftMessage, Settings, Token, WriteOp,
};

use super::disk::Disk;

/// Time stands still.
const NOW: Now = Now { boot_us: 1_000_000, wall_us: 2_000_000 };

/// What honest nodes are accused of where messages come late or twice: a refusal that comes after the
/// same place was acknowledged looks like a loss, and an answer to a node's earlier life, in a term that
/// this life has not reached again, like a lie. Neither accusation costs more than another question.
const MISTAKEN: [&str; 2] =
    ["it refuses what it has acknowledged", "a pre-vote granted from a higher term"];

/// What is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) property: &'static str,
    pub(crate) sentence: String,
}

/// `Err` with what is wrong, unless `holds`.
pub(crate) fn ensure(
    holds: bool,
    property: &'static str,
    sentence: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { property, sentence: sentence() }) }
}

/// Who drives the cores: as they ask to be driven, or broken, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Honest,
    /// Writes of terms and votes alone are called durable when they are issued. Watched, what nodes tell is compared with their disks; else only what comes of it counts.
    EarlyVotes {
        watched: bool,
    },
    /// Writes of entries are called durable when they are issued.
    EarlyEntries,
    /// A crash loses the last durable entry.
    LostEntry,
}

impl Driver {
    fn calls_durable(self, op: &WriteOp, disk: &Disk) -> bool {
        match self {
            Self::Honest | Self::LostEntry => false,
            Self::EarlyVotes { .. } => {
                let is_bare = |op: &WriteOp| op.entries.is_empty();
                op.hard_state.is_some() && is_bare(op) && disk.queue.iter().all(is_bare)
            }
            Self::EarlyEntries => !op.entries.is_empty(),
        }
    }

    const fn is_watched(self) -> bool {
        matches!(self, Self::Honest | Self::EarlyVotes { watched: true })
    }
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The message of this number arrives.
    Deliver(u32),
    /// A deadline may have come: a leader that owes news of a commit sends them.
    Tick,
    /// It stands for election.
    Campaign,
    /// A caller proposes the command of this number.
    Propose(u8),
    /// So many writes become durable.
    Persist(usize),
    /// It crashes when so many of its writes have reached the disk, untold, and starts again.
    Crash(usize),
    /// Its link to this node breaks.
    Break(NodeId),
}

/// A node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    window: usize,
}

/// A message on its way.
pub(crate) type Letter = (NodeId, RaftMessage);

impl Node {
    /// Node `id` of three that have just been founded.
    pub(crate) fn new(id: NodeId, window: usize) -> Self {
        let everybody = (1..=3).filter_map(NodeId::new);
        let members = everybody.map(|id| (id, Member::at(format!("10.0.0.{id}:7000"))));
        // No faith: see the module's documentation.
        let settings = Settings { election_timeout_min_ms: 0, ..Settings::default() };
        let mut disk = Disk::new(id, Base::founding(Membership::of_voters(members), settings));
        Self { raft: open(id, &mut disk, window), disk, window }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.raft.id()
    }

    /// The log as all writes issued so far leave it.
    pub(crate) fn log(&self) -> Vec<Entry> {
        let mut log = self.disk.log.clone();
        self.disk.queue.iter().for_each(|op| log.edit(op));
        log.entries
    }

    /// Names the state: equal numbers, equal futures.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let disk = &self.disk;
        (self.id(), self.raft.fingerprint(), disk.boot).hash(&mut hasher);
        (disk.hard_state.term, disk.hard_state.vote, disk.commit).hash(&mut hasher);
        hash_entries(&disk.log.entries, &mut hasher);
        disk.queue.len().hash(&mut hasher);
        for op in &disk.queue {
            op.hard_state.map(|hard_state| (hard_state.term, hard_state.vote)).hash(&mut hasher);
            (op.truncate_from, op.commit).hash(&mut hasher);
            hash_entries(&op.entries, &mut hasher);
        }
        hasher.finish()
    }

    /// Everything in it, also what its future does not depend on.
    pub(crate) fn words(&self) -> String {
        format!("{:?} {:?}", self.raft, self.disk)
    }

    /// Takes one event and says what is sent. `message` comes with [`Event::Deliver`].
    pub(crate) fn take(
        &mut self,
        event: Event,
        message: Option<&Letter>,
        driver: Driver,
    ) -> Result<Vec<Letter>, Violation> {
        catch_unwind(AssertUnwindSafe(|| self.take_unguarded(event, message, driver)))
            .unwrap_or_else(|panic| {
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Err(Violation { property: "no panic", sentence: words })
            })
    }

    fn take_unguarded(
        &mut self,
        event: Event,
        message: Option<&Letter>,
        driver: Driver,
    ) -> Result<Vec<Letter>, Violation> {
        let input = match event {
            Event::Deliver(_) => {
                let (from, message) = message.expect("a message").clone();
                Input::Receive { from, message }
            }
            Event::Tick => Input::Tick,
            Event::Campaign => Input::Campaign,
            Event::Propose(number) => {
                let payload = Payload::new(vec![b'a' + number]);
                let token = Token(number.into());
                Input::Propose { proposals: vec![Proposal { token, payload, session: None }] }
            }
            Event::Persist(count) => {
                let done = (0..count).filter_map(|_| self.disk.persist_one()).last();
                Input::Persisted { op: done.expect("a write") }
            }
            Event::Crash(kept) => {
                for _ in 0..kept {
                    self.disk.persist_one();
                }
                if driver == Driver::LostEntry {
                    self.disk.log.entries.pop();
                }
                self.raft = open(self.id(), &mut self.disk, self.window);
                Input::Tick
            }
            Event::Break(peer) => Input::LinkDown { peer },
        };
        let before =
            if matches!(event, Event::Crash(_)) { Index::ZERO } else { self.raft.commit() };
        let sent = self.step(input, driver)?;
        let (commit, last) = (self.raft.commit(), self.raft.last());
        let id = self.id();
        ensure(commit >= before && commit <= last.index, "commits only grow", || {
            format!("{id} goes from {before} to {commit}, its log ends at {last}")
        })?;
        let written = self.log().last().map_or(LogId::ZERO, Entry::id);
        ensure(last == written, "the log is what was written", || {
            format!("{id} holds {last} and wrote {written}")
        })?;
        Ok(sent)
    }

    /// Feeds an input, and the answers to what the core wants at once.
    fn step(&mut self, input: Input, driver: Driver) -> Result<Vec<Letter>, Violation> {
        let (mut inputs, mut sent) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            let mut actions = Vec::new();
            self.raft.step(NOW, input, &mut actions);
            for action in actions {
                match action {
                    Action::Persist(op) => {
                        if driver.calls_durable(&op, &self.disk) {
                            inputs.push(Input::Persisted { op: op.id });
                        }
                        self.disk.queue.push_back(op);
                    }
                    Action::Send { to, message } => {
                        if driver.is_watched() {
                            self.judge_promise(to, &message)?;
                        }
                        sent.push((to, message));
                    }
                    Action::ReadEntries { request, first, last, .. } => {
                        let range = first.prev().0 as usize..last.0 as usize;
                        let entries = self.disk.log.entries.get(range).map(<[Entry]>::to_vec);
                        let result = entries.ok_or_else(|| format!("no entries {first}–{last}"));
                        inputs.push(Input::EntriesRead { request, result });
                    }
                    Action::Apply { last, .. } => inputs.push(Input::Applied { index: last }),
                    Action::Restore { .. }
                    | Action::Fetch { .. }
                    | Action::MayRead { .. }
                    | Action::MayNotRead { .. } => {
                        ensure(false, "there are no snapshots and no reads", || {
                            format!("{action:?}")
                        })?;
                    }
                    Action::Accepted { .. }
                    | Action::Refused { .. }
                    | Action::TransferEnded { .. } => {}
                    Action::Halt(reason) => ensure(false, "nobody halts", || reason.to_string())?,
                    Action::Event(News::Nonsense { what, .. }) if MISTAKEN.contains(&&*what) => {}
                    Action::Event(News::Nonsense { from, what }) => {
                        let sentence = || format!("{} accuses {from} of {what}", self.id());
                        ensure(false, "honest nodes are not accused", sentence)?;
                    }
                    Action::Event(News::StorageTrouble { detail }) => {
                        ensure(false, "reads are answered", || detail)?;
                    }
                    Action::Event(_) => {}
                }
            }
        }
        Ok(sent)
    }

    /// Nothing is promised that the disk does not hold.
    fn judge_promise(&self, to: NodeId, message: &RaftMessage) -> Result<(), Violation> {
        let (id, disk) = (self.id(), &self.disk);
        let voted = told_vote(id, to, message);
        let is_held = match &message.body {
            RaftBody::Vote(_) | RaftBody::VoteReply(_) => {
                voted.is_none()
                    || (disk.hard_state.term, disk.hard_state.vote) == (message.term, voted)
            }
            RaftBody::AppendReply(reply) => match reply.outcome {
                AppendOutcome::Matched { matched, .. } => {
                    matched <= disk.last().index && disk.hard_state.term >= message.term
                }
                AppendOutcome::Rejected { .. } => true,
            },
            RaftBody::Append(_) | RaftBody::Heartbeat(_) | RaftBody::SnapshotOffer(_) => {
                disk.hard_state.term >= message.term
            }
            RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::HeartbeatReply(_)
            | RaftBody::TimeoutNow => true,
        };
        ensure(is_held, "durable before told", || {
            format!("{id} tells {to} {message:?}, and its disk holds {:?}", disk.hard_state)
        })
    }
}

/// For whom a message tells its sender's vote.
pub(crate) fn told_vote(from: NodeId, to: NodeId, message: &RaftMessage) -> Option<NodeId> {
    match &message.body {
        RaftBody::Vote(_) => Some(from),
        RaftBody::VoteReply(reply) if reply.granted => Some(to),
        RaftBody::VoteReply(_)
        | RaftBody::PreVote(_)
        | RaftBody::PreVoteReply(_)
        | RaftBody::Append(_)
        | RaftBody::AppendReply(_)
        | RaftBody::Heartbeat(_)
        | RaftBody::HeartbeatReply(_)
        | RaftBody::TimeoutNow
        | RaftBody::SnapshotOffer(_) => None,
    }
}

/// A new life on this disk.
fn open(id: NodeId, disk: &mut Disk, window: usize) -> Raft {
    let mut config = Config::new(id, disk.id);
    // The least spread is half of the least timeout, rounded down: every draw is 1.
    config.election_timeout_min_us = 1;
    config.election_timeout_max_us = 1;
    config.window_messages = window;
    Raft::new(config, &disk.open(), NOW, id.get())
}

fn hash_entries(entries: &[Entry], state: &mut impl Hasher) {
    entries.len().hash(state);
    for entry in entries {
        (entry.id(), entry.kind, entry.log_time_us, entry.payload.bytes()).hash(state);
    }
}
