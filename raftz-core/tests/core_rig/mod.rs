//! What the tests of the pure core stand on: one member fed by hand, and a few of them in virtual time.

use std::collections::VecDeque;

use raftz_core::raft;
use raftz_core::replica::{Action, Call, Config, Input, Replica, SnapshotPolicy};
use raftz_core::types::*;

pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;

pub(crate) fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

fn now(us: u64) -> Now {
    Now { boot_us: us, wall_us: us }
}

/// Node `node` of the voters `1..=voters`, in its first life, with an empty log.
pub(crate) fn recovered(node: u64, voters: u64, term: u64) -> Recovered {
    let members = (1..=voters).map(|raw| (id(raw), Member::at(format!("host{raw}:1"))));
    Recovered {
        identity: Identity {
            cluster: ClusterId(1),
            epoch: 1,
            node: id(node),
            disk: DiskId(u128::from(node)),
            founders_hash: 0,
        },
        boot: Boot(1),
        hard_state: HardState { term: Term(term), vote: None },
        base: Base::founding(Membership::of_voters(members), Settings::default()),
        last: LogId::ZERO,
        runs: Vec::new(),
        config_entries: Vec::new(),
        last_log_time_us: 0,
        commit: Index::ZERO,
        damage: None,
        notes: Vec::new(),
    }
}

pub(crate) fn config(node: u64) -> Config {
    let raft = raft::Config::new(id(node), DiskId(u128::from(node)));
    let (held_bytes_max, snapshots) = (1 << 20, SnapshotPolicy::default());
    Config { raft, held_bytes_max, snapshots, machine_log_time_us: None }
}

pub(crate) fn entry(term: u64, index: u64, kind: EntryKind, payload: Payload) -> Entry {
    Entry {
        term: Term(term),
        index: Index(index),
        log_time_us: index,
        kind,
        session: None,
        payload,
    }
}

pub(crate) fn heartbeat() -> RaftBody {
    RaftBody::Heartbeat(Heartbeat {
        session: 1,
        round: 1,
        commit: LogId::ZERO,
        sent_us: 0,
        confirmed_clock_us: 0,
        faith_us: 0,
    })
}

pub(crate) fn append(prev: LogId, commit: u64, entries: Vec<Entry>) -> RaftBody {
    RaftBody::Append(Append { session: 1, prev, commit: Index(commit), entries: entries.into() })
}

pub(crate) fn vote(transfer: bool) -> RaftBody {
    RaftBody::Vote(Vote { round: 1, last: LogId::ZERO, transfer })
}

pub(crate) fn call(token: u64, payload: impl Into<bytes::Bytes>) -> Call {
    Call {
        token: Token(token),
        payload: Payload::new(payload),
        session: None,
        deadline_us: 1000 * SECOND,
        forward: true,
    }
}

pub(crate) fn link_up(peer: u64, boot: u64) -> Input {
    Input::LinkUp { peer: id(peer), disk: DiskId(u128::from(peer)), boot: Boot(boot) }
}

/// The Raft messages among `actions`.
pub(crate) fn sent(actions: &[Action]) -> impl Iterator<Item = (NodeId, &RaftMessage)> {
    actions.iter().filter_map(|action| match action {
        Action::Send { to, message: Message::Raft(message) } => Some((*to, message)),
        _ => None,
    })
}

pub(crate) fn forward(actions: &[Action]) -> Option<&Forward> {
    actions.iter().find_map(|action| match action {
        Action::Send { message: Message::Forward(forward), .. } => Some(forward),
        _ => None,
    })
}

pub(crate) fn replies(actions: &[Action]) -> Vec<(u64, &Outcome)> {
    let replies = actions.iter().filter_map(|action| match action {
        Action::Reply { token, outcome } => Some((token.0, outcome)),
        _ => None,
    });
    replies.collect()
}

pub(crate) fn halted(actions: &[Action]) -> Option<&FaultReason> {
    actions.iter().find_map(|action| match action {
        Action::Halt(reason) => Some(reason),
        _ => None,
    })
}

pub(crate) fn nonsense(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        Action::Event(Event::Nonsense { what, .. }) => Some(what.as_str()),
        _ => None,
    })
}

/// What a healthy peer with a fast disk answers. As a voter it stands in the term below.
pub(crate) fn healthy(message: &RaftMessage) -> Option<RaftMessage> {
    let grant = |round| VoteReply { round, granted: true, last: LogId::ZERO };
    let (term, body) = match &message.body {
        RaftBody::PreVote(asked) => {
            (Term(message.term.0 - 1), RaftBody::PreVoteReply(grant(asked.round)))
        }
        RaftBody::Vote(asked) => (message.term, RaftBody::VoteReply(grant(asked.round))),
        RaftBody::Append(append) => {
            let matched = append.prev.index.plus(append.entries.len() as u64);
            let outcome = AppendOutcome::Matched { matched, storage_full: false };
            let reply = AppendReply { session: append.session, outcome };
            (message.term, RaftBody::AppendReply(reply))
        }
        RaftBody::Heartbeat(beat) => {
            let Heartbeat { session, round, sent_us, .. } = *beat;
            let reply = HeartbeatReply {
                session,
                round,
                sent_us,
                clock_us: 0,
                faith_us: 0,
                fitness: 0,
                storage_full: false,
            };
            (message.term, RaftBody::HeartbeatReply(reply))
        }
        _ => return None,
    };
    Some(RaftMessage { term, body })
}

/// What a peer answers whose disk hangs: it is there, but promises nothing.
pub(crate) fn disk_hangs(message: &RaftMessage) -> Option<RaftMessage> {
    healthy(message).filter(|reply| matches!(reply.body, RaftBody::HeartbeatReply(_)))
}

/// One member, fed by hand.
pub(crate) struct Solo {
    pub(crate) replica: Replica,
    pub(crate) now_us: u64,
    /// Whether writes complete in [`Solo::run`].
    pub(crate) disk_works: bool,
}

impl Solo {
    pub(crate) fn new(config: Config, recovered: &Recovered) -> Self {
        let replica = Replica::new(config, recovered, now(0), 1);
        Self { replica, now_us: 0, disk_works: true }
    }

    /// Node 1 of three, ready to take proposals; its peers answer as [`healthy`] does.
    pub(crate) fn leader(config: Config) -> Self {
        let mut solo = Self::new(config, &recovered(1, 3, 0));
        solo.run(Input::Campaign, healthy);
        assert!(solo.replica.raft().is_ready());
        solo
    }

    /// One step; nothing that it asks for is done.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.replica.step(now(self.now_us), input, &mut actions);
        actions
    }

    /// A Raft message arrives; nothing that it leads to is done.
    pub(crate) fn receive(&mut self, from: u64, term: u64, body: RaftBody) -> Vec<Action> {
        let message = Message::Raft(RaftMessage { term: Term(term), body });
        self.step(Input::Receive { from: id(from), message })
    }

    /// A step and all that follows from it at this moment, with peers that answer as told. Returns
    /// everything that was asked for on the way.
    pub(crate) fn run(
        &mut self,
        input: Input,
        peers: fn(&RaftMessage) -> Option<RaftMessage>,
    ) -> Vec<Action> {
        let mut inputs = VecDeque::from([input]);
        let mut all = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let actions = self.step(input);
            inputs.extend(actions.iter().filter_map(|action| match action {
                Action::Persist(op) if self.disk_works => Some(Input::Persisted(op.id)),
                Action::Apply { first, last, .. } => Some(applied(*first, *last)),
                Action::Send { to, message: Message::Raft(message) } => {
                    let message = Message::Raft(peers(message)?);
                    Some(Input::Receive { from: *to, message })
                }
                _ => None,
            }));
            all.extend(actions);
        }
        all
    }

    pub(crate) fn status(&self) -> raft::Status {
        self.replica.raft().status()
    }
}

/// A machine that answers every command with nothing.
fn applied(first: Index, last: Index) -> Input {
    let reply = |raw| (Index(raw), Reply::Ok(bytes::Bytes::new()));
    let (log_time_us, bytes) = (last.0, 1);
    Input::Applied { last, log_time_us, bytes, replies: (first.0..=last.0).map(reply).collect() }
}

/// Members in virtual time: links and disks take as long as they are said to take. The dead ones take
/// nothing in.
pub(crate) struct Net {
    members: Vec<Option<Replica>>,
    /// (when, order, member, what).
    coming: Vec<(u64, u64, usize, Input)>,
    order: u64,
    now_us: u64,
    disk_us: u64,
}

impl Net {
    const LINK_US: u64 = 100;

    pub(crate) fn new(disk_us: u64, members: Vec<Option<Recovered>>) -> Self {
        let member = |recovered: Recovered| {
            let node = recovered.identity.node.get();
            Replica::new(config(node), &recovered, now(0), node)
        };
        let members = members.into_iter().map(|recovered| recovered.map(member)).collect();
        Self { members, coming: Vec::new(), order: 0, now_us: 0, disk_us }
    }

    /// Lets time pass until somebody leads and is ready. False: nobody was by then.
    pub(crate) fn elects_within(&mut self, limit_us: u64) -> bool {
        while !self.members.iter().flatten().any(|member| member.raft().is_ready()) {
            let deadline = |(at, member): (usize, &mut Option<Replica>)| {
                Some((member.as_mut()?.next_deadline()?, 0, at, Input::Tick))
            };
            let ticks = self.members.iter_mut().enumerate().filter_map(deadline);
            let key = |(when, order, ..): &(u64, u64, usize, Input)| (*when, *order);
            let tick = ticks.min_by_key(key);
            let first = self.coming.iter().enumerate().min_by_key(|(_, next)| key(next));
            let (when, _, at, input) = match (tick, first) {
                (Some(tick), Some((_, next))) if tick.0 <= next.0 => tick,
                (_, Some((position, _))) => self.coming.swap_remove(position),
                (Some(tick), None) => tick,
                (None, None) => return false,
            };
            if when > limit_us {
                return false;
            }
            self.now_us = self.now_us.max(when);
            self.step(at, input);
        }
        true
    }

    fn step(&mut self, at: usize, input: Input) {
        let Some(member) = self.members[at].as_mut() else { return };
        let mut actions = Vec::new();
        member.step(now(self.now_us), input, &mut actions);
        let from = member.raft().id();
        for action in actions {
            let (after_us, to, input) = match action {
                Action::Persist(op) => (self.disk_us, at, Input::Persisted(op.id)),
                Action::Apply { first, last, .. } => (0, at, applied(first, last)),
                Action::Send { to, message } => {
                    (Self::LINK_US, to.get() as usize - 1, Input::Receive { from, message })
                }
                _ => continue,
            };
            self.order += 1;
            self.coming.push((self.now_us + after_us, self.order, to, input));
        }
    }
}
