//! The bare core: three members in one thread, no queues, no encoding, writes durable at once.
//!
//! It measures what the algorithm itself costs, and nothing of threads, disks or sockets. Instructions are
//! counted by callgrind as the difference between a long run and a short one, so that the start does not count.

use std::collections::VecDeque;
use std::process::Command;
use std::time::{Duration, Instant};

use raftz_core::raft::{Action, Config, Input, Proposal, Raft};
use raftz_core::types::{
    Base, Boot, ClusterId, DiskId, HardState, Identity, Index, LogId, Member, Membership, NodeId,
    Now, Payload, RaftMessage, Recovered, Settings, Term, Token,
};

use super::allocations;
use super::figures::{Figures, median, rounds};

/// The number of outstanding proposals that the figures are about.
const FIGURE_AT: u64 = 64;
/// Rounds of a counted run: a short one, and what a long one has more.
const SHORT: u64 = 500;
const MORE: u64 = 1000;

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
                    | Action::Restore { .. }
                    | Action::Fetch { .. }
                    | Action::MayRead { .. }
                    | Action::MayNotRead { .. }
                    | Action::Accepted { .. }
                    | Action::Refused { .. }
                    | Action::TransferEnded { .. }
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

    fn propose(&mut self, outstanding: u64, payload: &Payload) {
        let proposal =
            |token| Proposal { token: Token(token), payload: payload.clone(), session: None };
        let proposals = (0..outstanding).map(proposal).collect();
        self.now = self.now.plus_us(50);
        self.step(0, Input::Propose { proposals });
        self.run();
    }
}

fn payload() -> Payload {
    Payload::new(vec![7u8; 64])
}

/// Committed entries per second.
fn measure(outstanding: u64, time: Duration) -> f64 {
    let (mut cluster, payload) = (Loop::new(), payload());
    let before = cluster.applied;
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..16 {
            cluster.propose(outstanding, &payload);
        }
    }
    (cluster.applied - before) as f64 / start.elapsed().as_secs_f64()
}

/// The program that callgrind watches.
pub(crate) fn rounds_alone(rounds: u64) {
    let (mut cluster, payload) = (Loop::new(), payload());
    for _ in 0..rounds {
        cluster.propose(FIGURE_AT, &payload);
    }
    assert_eq!(cluster.applied, rounds * FIGURE_AT + 1, "with the entry that opens the term");
}

/// Instructions of such a run; `None` where there is no callgrind.
fn instructions(rounds: u64) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--role=core", &rounds.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    line?.1.trim().parse().ok()
}

fn instructions_per_entry() -> Option<f64> {
    let (short, long) = (instructions(SHORT)?, instructions(SHORT + MORE)?);
    Some((long - short) / (MORE * FIGURE_AT) as f64)
}

/// Allocations of all three members for each batch, once their buffers have grown.
fn allocations_per_batch(outstanding: u64) -> f64 {
    let (mut cluster, payload) = (Loop::new(), payload());
    (0..SHORT).for_each(|_| cluster.propose(outstanding, &payload));
    let count = allocations::count(|| {
        (0..MORE).for_each(|_| cluster.propose(outstanding, &payload));
    });
    count as f64 / MORE as f64
}

pub(crate) fn bench(figures: &mut Figures) {
    println!("\nbare core, three members in one thread, 64-byte payloads");
    println!("{:>6} {:>11}  spread", "outst.", "entries/s");
    for outstanding in [1, 16, FIGURE_AT, 256, 1024] {
        let time = Duration::from_millis(500);
        let runs: Vec<f64> = (0..rounds()).map(|_| measure(outstanding, time)).collect();
        let (low, high) = (
            runs.iter().copied().fold(f64::MAX, f64::min),
            runs.iter().copied().fold(0.0, f64::max),
        );
        let entries = median(runs);
        println!("{outstanding:>6} {entries:>11.0}  [{low:.0}–{high:.0}]");
        if outstanding == FIGURE_AT {
            figures.set("core_entries_per_s_64", Some(entries));
        }
    }
    let instructions = instructions_per_entry();
    match instructions {
        Some(count) => println!("{count:.0} instructions an entry for the three together"),
        None => println!("instructions not counted: valgrind is not installed"),
    }
    // None for an entry: what there are belong to the batch, however many entries it has.
    for outstanding in [1, FIGURE_AT, 1024] {
        let (count, entries) = (allocations_per_batch(outstanding), outstanding as f64);
        println!(
            "{count:.1} allocations a batch of {outstanding}, {:.3} an entry",
            count / entries
        );
        if outstanding == FIGURE_AT {
            figures.set("core_allocations_per_entry_64", Some(count / entries));
        }
    }
    figures.set("core_instructions_per_entry_64", instructions);
}
