//! The bare core: three members in one thread, no queues, no encoding, writes durable at once.
//!
//! Prints committed entries a second for several numbers of outstanding proposals. It measures what
//! the algorithm itself costs, and nothing of threads, disks or sockets.
#![allow(clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use raftz_core::raft::{Action, Config, Input, Proposal, Raft};
use raftz_core::types::{
    Base, Boot, ClusterId, DiskId, HardState, Identity, Index, LogId, Member, Membership, NodeId,
    Now, Payload, RaftMessage, Recovered, Settings, Term, Token,
};

struct Loop {
    members: Vec<Raft>,
    mail: VecDeque<(NodeId, NodeId, RaftMessage)>,
    now: Now,
    applied: u64,
    actions: Vec<Action>,
}

fn node(raw: u64) -> NodeId {
    NodeId::new(raw).expect("ids start at one")
}

fn member(id: u64, of: u64) -> Raft {
    let members = (1..=of).map(|id| (node(id), Member::at(format!("127.0.0.1:{id}"))));
    let base = Base::founding(Membership::of_voters(members), Settings::default());
    let identity = Identity {
        cluster: ClusterId(1),
        epoch: 1,
        node: node(id),
        disk: DiskId(u128::from(id)),
        founders_hash: base.founders_hash(),
    };
    let recovered = Recovered {
        identity,
        boot: Boot(1),
        hard_state: HardState { term: Term::ZERO, vote: None },
        base,
        last: LogId::ZERO,
        runs: vec![],
        config_entries: vec![],
        last_log_time_us: 0,
        commit: Index::ZERO,
        damage: None,
        notes: vec![],
    };
    Raft::new(Config::new(node(id), DiskId(u128::from(id))), &recovered, Now::default(), id)
}

impl Loop {
    fn new() -> Self {
        let mut this = Self {
            members: (1..=3).map(|id| member(id, 3)).collect(),
            mail: VecDeque::new(),
            now: Now { boot_us: 1_000_000, wall_us: 1_000_000 },
            applied: 0,
            actions: Vec::new(),
        };
        this.step(0, Input::Campaign);
        this.run();
        assert!(this.members[0].is_ready(), "the first member leads");
        this
    }

    fn step(&mut self, at: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut actions = std::mem::take(&mut self.actions);
            self.members[at].step(self.now, input, &mut actions);
            let from = self.members[at].id();
            for action in actions.drain(..) {
                match action {
                    Action::Persist(op) => inputs.push_back(Input::Persisted { op: op.id }),
                    Action::Send { to, message } => self.mail.push_back((from, to, message)),
                    Action::Apply { last, entries, .. } => {
                        if at == 0 {
                            self.applied += entries.len() as u64;
                        }
                        inputs.push_back(Input::Applied { index: last });
                    }
                    Action::ReadEntries { .. }
                    | Action::Accepted { .. }
                    | Action::Refused { .. }
                    | Action::Event(_)
                    | Action::Halt(_) => {}
                }
            }
            self.actions = actions;
        }
    }

    fn run(&mut self) {
        while let Some((from, to, message)) = self.mail.pop_front() {
            self.step(to.get() as usize - 1, Input::Receive { from, message });
        }
    }
}

fn measure(outstanding: u64, payload: &Payload, time: Duration) -> f64 {
    let mut cluster = Loop::new();
    let before = cluster.applied;
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..16 {
            let proposals = (0..outstanding)
                .map(|token| Proposal {
                    token: Token(token),
                    payload: payload.clone(),
                    session: None,
                })
                .collect();
            cluster.now = cluster.now.plus_us(50);
            cluster.step(0, Input::Propose { proposals });
            cluster.run();
        }
    }
    (cluster.applied - before) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let time = Duration::from_millis(700);
    println!("core, three members in one thread, 64-byte payloads");
    println!("{:>12}  {:>16}", "outstanding", "entries/s");
    let payload = Payload::new(vec![7u8; 64]);
    for outstanding in [1, 16, 64, 256, 1024] {
        let mut runs: Vec<f64> = (0..3).map(|_| measure(outstanding, &payload, time)).collect();
        runs.sort_by(f64::total_cmp);
        println!("{outstanding:>12}  {:>16.0}  [{:.0}–{:.0}]", runs[1], runs[0], runs[2]);
    }
}
