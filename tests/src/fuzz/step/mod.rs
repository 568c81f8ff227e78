//! One member among liars. Input: who belongs to the group, then one input to the replica after another.
//!
//! The member's disk makes durable what it is told to and forgets the rest in a crash; everybody else says
//! whatever the bytes say (`tongue`). `watch` checks after every step what must hold whatever the
//! others do: what is promised is durable, one vote a term over restarts, no office without a majority's
//! votes, no commit without a majority's word, nothing committed is ever taken back, each call ends once.

mod tongue;
mod watch;

use std::time::Duration;

use raftz_core::raft;
use raftz_core::replica::{
    Action, Call, Config, Input, ReadCall, Replica, SnapshotPolicy, TransferCall,
};
use raftz_core::types::{
    Base, Boot, DiskId, EntryKind, Index, Member, Membership, Message, NodeId, Now, Payload,
    ReadLevel, ReadMessage, Reply, Settings, Token,
};

use super::model_disk::Disk;
use super::tape::Tape;
use tongue::Heard;
use watch::Watch;

/// Inputs of one run; more only repeat what fewer show.
const STEPS_MAX: usize = 400;

fn node(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

/// The member under test: always node 1.
struct Member1 {
    config: Config,
    replica: Replica,
    disk: Disk,
    now: Now,
    watch: Watch,
    heard: Heard,
    applying: Option<(Index, Index)>,
    reads: Vec<(u64, Index, Index)>,
    calls: u64,
    halted: bool,
}

pub(super) fn check(input: &[u8]) {
    let mut tape = Tape::new(input);
    let mut member = Member1::new(&mut tape);
    for _ in 0..STEPS_MAX {
        if tape.is_done() {
            break;
        }
        member.play(&mut tape);
    }
    member.end();
}

/// One to five voters; the member itself may be a learner, and node 4 may be one.
fn membership(tape: &mut Tape<'_>) -> Membership {
    let size = [3, 3, 1, 2, 5, 4][tape.below(6)];
    let members = (1..=size).map(|id| (node(id), Member::at(format!("10.0.0.{id}:1"))));
    let mut membership = Membership::of_voters(members);
    let role = tape.byte();
    if size > 1 && role & 7 == 1 {
        membership.voters.remove(&node(1));
    }
    if size > 3 && role & 8 != 0 {
        membership.voters.remove(&node(4));
    }
    membership
}

impl Member1 {
    fn new(tape: &mut Tape<'_>) -> Self {
        let base = Base::founding(membership(tape), Settings::default());
        let mut disk = Disk::new(node(1), base);
        let mut raft = raft::Config::new(node(1), disk.id);
        // Small, so that every bound is met.
        raft.append_bytes_max = 300;
        raft.window_messages = 3;
        raft.window_bytes = 1000;
        raft.uncommitted_bytes_max = 2000;
        raft.unapplied_bytes_max = 1000;
        raft.cache_bytes_max = 200;
        raft.apply_bytes_max = 200;
        let (held_bytes_max, snapshots) = (500, SnapshotPolicy::NEVER);
        let config = Config { raft, held_bytes_max, snapshots, machine_log_time_us: None };
        let now = Now { boot_us: 1_000_000, wall_us: 2_000_000 };
        let recovered = disk.open();
        let replica = Replica::new(config.clone(), &recovered, now, 7);
        Self {
            watch: Watch::new(&replica, &disk),
            config,
            replica,
            disk,
            now,
            heard: Heard::default(),
            applying: None,
            reads: Vec::new(),
            calls: 0,
            halted: false,
        }
    }

    fn play(&mut self, tape: &mut Tape<'_>) {
        let input = match tape.below(24) {
            0..=10 => {
                let from = node(1 + tape.below(7) as u64);
                let message = tongue::message(tape, from, &self.replica, &self.heard);
                Input::Receive { from, message }
            }
            11..=13 => match self.persist(1 + tape.below(3)) {
                Some(input) => input,
                None => return,
            },
            14 | 15 => {
                self.pass_time(tape);
                Input::Tick
            }
            16 => Input::Campaign,
            17 => self.propose(tape),
            18 => match self.apply(tape) {
                Some(input) => input,
                None => return,
            },
            19 => match self.read(tape) {
                Some(input) => input,
                None => return,
            },
            20 => {
                let peer = node(1 + tape.below(7) as u64);
                let (disk, boot) = (DiskId(u128::from(tape.number())), Boot(tape.number()));
                Input::LinkUp { peer, disk, boot }
            }
            21 => Input::LinkDown { peer: node(1 + tape.below(7) as u64), reason: "cut".into() },
            22 => match tape.below(8) {
                4 => self.transfer(tape),
                0 => Input::ForgetLeader,
                1 => Input::StorageFull(tape.flag()),
                2 => Input::ForwardUnsent { id: self.heard.forwarded, is_too_large: false },
                3 => Input::Unreachable { peer: node(2), reason: "refused".into() },
                5 | 6 => self.read_calls(tape),
                _ => {
                    let (from, id) = (node(1 + tape.below(7) as u64), tape.number());
                    let read = match tape.below(3) {
                        0 => ReadMessage::Ask { id, by_lease: tape.flag() },
                        1 => ReadMessage::Answer { id, index: None },
                        _ => ReadMessage::Answer { id, index: Some(Index(tape.number())) },
                    };
                    Input::Receive { from, message: Message::Read(read) }
                }
            },
            _ => return self.restart(tape),
        };
        self.step(input);
    }

    fn step(&mut self, input: Input) {
        if let Input::Receive { from, message } = &input {
            self.watch.hears(*from, message);
        }
        let ticks = matches!(input, Input::Tick);
        let mut actions = Vec::new();
        self.replica.step(self.now, input, &mut actions);
        for action in actions {
            self.perform(action);
        }
        if !self.halted {
            self.watch.after(&self.replica, &self.disk);
            let due = self.replica.next_deadline();
            assert!(
                !ticks || due.is_none_or(|due| due > self.now.boot_us),
                "a deadline that a tick does not move"
            );
        }
        if ticks {
            let _ = self.replica.raft().fingerprint();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Persist(op) => {
                self.watch.writes(&op);
                self.watch.log.edit(&op);
                self.disk.queue.push_back(op);
            }
            Action::Send { to, message } => {
                self.watch.says(to, &message, &self.disk);
                self.heard.note(to, &message);
            }
            Action::ReadEntries { request, first, last, .. } => {
                self.reads.push((request, first, last));
            }
            Action::Apply { first, last, entries } => {
                self.watch.applies(first, last, &entries);
                assert!(self.applying.replace((first, last)).is_none(), "two ranges at once");
            }
            Action::Reply { token, .. } => self.watch.replies(token),
            Action::TransferEnded { token, .. } => self.watch.replies(token),
            Action::Event(_) => {}
            Action::Read { tokens } => tokens.into_iter().for_each(|it| self.watch.replies(it)),
            Action::EndRead { token, .. } => self.watch.replies(token),
            // Liars offer snapshots and ask for pieces; nothing ever comes of it.
            Action::BeginFetch { .. } | Action::AbandonFetch { .. } | Action::ReadPiece { .. } => {}
            Action::TakeSnapshot { .. }
            | Action::CancelSnapshot
            | Action::Restore { .. }
            | Action::WritePiece { .. }
            | Action::FinishFetch { .. }
            | Action::PruneSnapshots { .. }
            | Action::FindSnapshot { .. }
            | Action::ScrubSnapshots { .. } => panic!("{action:?} of a member without snapshots"),
            // Goes on being fed: callers do not know yet.
            Action::Halt(_) => self.halted = true,
        }
    }

    fn persist(&mut self, count: usize) -> Option<Input> {
        let done = (0..count).map_while(|_| self.disk.persist_one()).last();
        done.map(Input::Persisted)
    }

    fn pass_time(&mut self, tape: &mut Tape<'_>) {
        let due = self.replica.next_deadline().unwrap_or(self.now.boot_us);
        self.now = match tape.below(4) {
            0 => self.now.plus_us(u64::from(tape.byte()) * 1000),
            1 => Now { wall_us: tape.number(), ..self.now },
            _ => Now { boot_us: due.max(self.now.boot_us).min(1 << 60), ..self.now },
        };
    }

    fn propose(&mut self, tape: &mut Tape<'_>) -> Input {
        let calls = (0..tape.below(4)).map(|_| {
            self.calls += 1;
            self.watch.calls(Token(self.calls));
            let length = tape.below(200);
            Call {
                token: Token(self.calls),
                payload: Payload::new(vec![self.calls as u8; length]),
                session: None,
                deadline_us: self.now.boot_us.saturating_add(u64::from(tape.byte()) * 10_000),
                forward: tape.flag(),
            }
        });
        Input::Propose(calls.collect())
    }

    fn read_calls(&mut self, tape: &mut Tape<'_>) -> Input {
        let calls = (0..tape.below(4)).map(|_| {
            self.calls += 1;
            let token = Token(self.calls);
            self.watch.calls(token);
            let level = match tape.below(5) {
                0 => ReadLevel::Stale,
                1 => ReadLevel::AtLeast(Index(tape.number())),
                2 => ReadLevel::Bounded(Duration::from_micros(tape.number())),
                3 => ReadLevel::Lease,
                _ => ReadLevel::Linearizable,
            };
            let deadline_us = self.now.boot_us.saturating_add(u64::from(tape.byte()) * 10_000);
            ReadCall { token, level, deadline_us }
        });
        Input::Read(calls.collect())
    }

    fn transfer(&mut self, tape: &mut Tape<'_>) -> Input {
        self.calls += 1;
        let token = Token(self.calls);
        self.watch.calls(token);
        let target = NodeId::new(tape.below(8) as u64);
        let deadline_us = self.now.boot_us.saturating_add(u64::from(tape.byte()) * 10_000);
        Input::Transfer(TransferCall { token, target, deadline_us, steps_down: tape.flag() })
    }

    fn apply(&mut self, tape: &mut Tape<'_>) -> Option<Input> {
        let (first, last) = self.applying.take()?;
        if tape.byte() == 255 {
            let detail = "no such account".into();
            return Some(Input::ApplyFailed { index: first, kind: "apply", detail });
        }
        let commands = self.watch.log.entries.iter().filter(|entry| {
            entry.index >= first && entry.index <= last && entry.kind == EntryKind::Command
        });
        let replies = commands.map(|entry| (entry.index, Reply::Ok(entry.payload.bytes().clone())));
        let replies = replies.collect();
        self.watch.applied = last;
        Some(Input::Applied { last, log_time_us: 0, bytes: 0, replies })
    }

    fn read(&mut self, tape: &mut Tape<'_>) -> Option<Input> {
        let (request, first, last) = self.reads.pop()?;
        let entries = self.watch.log.from(first).iter();
        let entries: Vec<_> = entries.take_while(|entry| entry.index <= last).cloned().collect();
        let result = match tape.below(4) {
            0 => Err("input/output error".to_owned()),
            1 => Ok(entries.into_iter().skip(1).collect()),
            _ => Ok(entries),
        };
        Some(Input::EntriesRead { request, result })
    }

    /// The process dies, perhaps after a failed write; what was not durable is gone.
    fn restart(&mut self, tape: &mut Tape<'_>) {
        match tape.below(3) {
            0 => self.step(Input::PersistFailed("input/output error".into())),
            1 => self.step(Input::Shutdown),
            _ => self.watch.forgets_calls(),
        }
        self.watch.ends_life();
        let recovered = self.disk.open();
        self.now = self.now.plus_us(1000);
        let seed = u64::from(tape.byte());
        self.replica = Replica::new(self.config.clone(), &recovered, self.now, seed);
        self.watch.restarts(&self.replica, &self.disk);
        (self.applying, self.halted) = (None, false);
        self.reads.clear();
    }

    /// Everything becomes durable, then the host stops: every call has its answer.
    fn end(&mut self) {
        if let Some(input) = self.persist(usize::MAX) {
            self.step(input);
        }
        self.step(Input::Shutdown);
        self.watch.ends_life();
    }
}

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let stories: [(&str, &[&[u8]]); 9] = [
        ("nothing", &[]),
        // Pre-vote, vote and office; a call; the other's word; applied.
        ("elected-and-committed", &[ELECTED, PERSIST, PROPOSE, PERSIST, ACK, APPLY]),
        ("elected-alone", &[&[16], PERSIST, PROPOSE, PERSIST, APPLY]),
        ("deposed", &[ELECTED, PERSIST, PROPOSE, HIGHER_HEARTBEAT, PERSIST]),
        ("votes-twice", &[VOTE_FOR_2, VOTE_FOR_3, PERSIST, RESTART, VOTE_FOR_3, PERSIST]),
        ("follows", &[APPEND, PERSIST, HEARTBEAT, APPLY, APPEND, PERSIST]),
        ("follows-and-crashes", &[APPEND, RESTART, APPEND, PERSIST, RESTART, HEARTBEAT]),
        ("absurd", &[&[0, 1, 2, 199, 6, 199, 199, 199], ELECTED, &[0, 1, 5, 199, 199, 199]]),
        ("calls-and-no-leader", &[&[17, 3, 9, 50, 1, 9, 0, 1, 9, 50, 0], &[14, 0, 255], &[14, 2]]),
    ];
    let mut seeds = Vec::new();
    for (name, story) in stories {
        for (group, header) in [("three", [0, 0]), ("five", [4, 0]), ("one", [2, 0])] {
            let input = [&header[..], &story.concat()].concat();
            seeds.push((format!("{name}-of-{group}"), input));
        }
    }
    seeds
}

// Words of the stories; `tongue::message` says how a message is read.
const PERSIST: &[u8] = &[11, 2];
const PROPOSE: &[u8] = &[17, 1, 9, 50, 1];
const APPLY: &[u8] = &[18, 0];
const RESTART: &[u8] = &[23, 2, 1];
/// Campaign; 2 grants the pre-vote; the own vote becomes durable; 2 and 3 grant the vote.
const ELECTED: &[u8] =
    &[16, 0, 1, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 11, 2, 0, 1, 0, 3, 0, 0, 0, 2, 0, 3, 0, 0];
/// 2 and 3 have stored everything.
const ACK: &[u8] = &[0, 1, 0, 5, 0, 0, 0, 0, 2, 0, 5, 0, 0, 0];
const HIGHER_HEARTBEAT: &[u8] = &[0, 1, 1, 6, 0, 0, 0, 0, 0];
const HEARTBEAT: &[u8] = &[0, 1, 0, 6, 0, 0, 0, 0, 0];
const VOTE_FOR_2: &[u8] = &[0, 1, 1, 2, 0, 0, 0, 1];
const VOTE_FOR_3: &[u8] = &[0, 2, 0, 2, 0, 0, 0, 1];
/// 2 leads the next term and has two commands behind the last entry.
const APPEND: &[u8] = &[0, 1, 1, 4, 0, 0, 0, 0, 2, 0, 0, 0, 5, 65, 0, 0, 0, 5, 66];

#[cfg(test)]
mod tests {
    use raftz_core::types::Role;

    use super::*;

    #[test]
    fn the_seeds_tell_the_stories_that_their_names_say() {
        let end_of = |name: &str| {
            let (_, input) = seeds().into_iter().find(|(seed, _)| seed == name).unwrap();
            let mut tape = Tape::new(&input);
            let mut member = Member1::new(&mut tape);
            while !tape.is_done() {
                member.play(&mut tape);
            }
            member.replica.raft().status()
        };
        let elected = end_of("elected-and-committed-of-three");
        assert_eq!((elected.role, elected.commit), (Role::Leader, Index(2)), "{elected:?}");
        assert_eq!(end_of("elected-alone-of-one").role, Role::Leader);
        assert_eq!(end_of("deposed-of-three").role, Role::Follower);
        let follows = end_of("follows-of-three");
        assert!(follows.leader == Some(node(2)) && follows.last.index.0 > 0, "{follows:?}");
    }
}
