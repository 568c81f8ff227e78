//! What the tests of the runtime share: a machine with moods, clusters in one process, and waits
//! that end with a reason.
#![allow(
    clippy::wildcard_enum_match_arm,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod lines;

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{Command, MachineError, SnapshotView, StateMachine};
use raftz_core::node::{Config, Node};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{ClusterId, Done, Index, NodeId, Outcome, Reply, Role};

/// Longer than anything here takes; only a failure waits for it.
pub const LONG: Duration = Duration::from_secs(20);

pub fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

/// Waits until `done`, or fails naming `what`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A gate that threads wait at.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar, AtomicU64)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
    /// Whether anybody has come to it.
    pub fn is_reached(&self) -> bool {
        self.0.2.load(Ordering::SeqCst) > 0
    }
    pub fn pass(&self) {
        self.0.2.fetch_add(1, Ordering::SeqCst);
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// What a [`TestMachine`] does with the command `bad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Fine,
    Fails,
    Panics,
    OneReplyTooMany,
    OneReplyTooFew,
}

/// Keeps every command in order; answers each with its own bytes and each query with how many
/// there are.
#[derive(Clone)]
pub struct TestMachine {
    pub seen: Arc<Mutex<Vec<(Index, Bytes)>>>,
    pub mood: Mood,
    pub inline: bool,
    pub gate: Option<Gate>,
    /// Where the query `wait` waits.
    pub query_gate: Gate,
}

impl Default for TestMachine {
    fn default() -> Self {
        let (seen, query_gate) = (Arc::default(), Gate::default());
        Self { seen, mood: Mood::Fine, inline: true, gate: None, query_gate }
    }
}

impl TestMachine {
    pub fn with_mood(mood: Mood, inline: bool) -> Self {
        Self { mood, inline, ..Self::default() }
    }
    pub fn commands(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().iter().map(|(_, bytes)| bytes.clone()).collect()
    }
    pub fn factory(
        &self,
    ) -> impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send + 'static {
        let machine = self.clone();
        move || Ok(Box::new(machine) as Box<dyn StateMachine>)
    }
}

impl StateMachine for TestMachine {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        for command in batch {
            let bad = command.payload == "bad";
            match self.mood {
                Mood::Fails if bad => return Err(MachineError("told to fail".into())),
                Mood::Panics if bad => panic!("told to panic"),
                Mood::OneReplyTooMany if bad => replies.push(Reply::Ok(Bytes::new())),
                Mood::OneReplyTooFew if bad => continue,
                _ => {}
            }
            self.seen.lock().unwrap().push((command.index, command.payload.clone()));
            replies.push(if command.payload == "reject" {
                Reply::Rejected(Bytes::from_static(b"as asked"))
            } else {
                Reply::Ok(command.payload.clone())
            });
        }
        Ok(())
    }
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        if request == b"wait" {
            self.query_gate.pass();
        }
        match request {
            b"fail" => Err(MachineError("told to fail".into())),
            b"panic" => panic!("told to panic"),
            _ => Ok(Reply::Ok(Bytes::from(self.seen.lock().unwrap().len().to_string()))),
        }
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        Err(MachineError("not in these tests".into()))
    }
    fn restore(&mut self, _: &mut dyn Read) -> Result<(), MachineError> {
        Err(MachineError("not in these tests".into()))
    }
    fn never_blocks(&self) -> bool {
        self.inline
    }
}

static CLUSTERS: AtomicU64 = AtomicU64::new(1);

/// A configuration for node `of` of `count`, in memory. Timeouts are longer than the defaults: the
/// tests run beside each other on few cores, and most of them are not about elections.
pub fn config(of: u64, count: u64) -> Config {
    let mut config = Config::new(id(of), ClusterId(77));
    for n in 1..=count {
        config = config.with_founder(id(n), format!("127.0.0.1:{}", 7000 + n));
    }
    config.election_timeout_min_ms = 300;
    config.election_timeout_max_ms = 600;
    config
}

/// Three nodes over an in-memory network.
pub struct Cluster {
    pub network: MemoryNetwork,
    pub nodes: Vec<Option<Node>>,
    pub machines: Vec<TestMachine>,
}

impl Cluster {
    pub fn start(count: u64, inline: bool) -> Self {
        Self::start_with(count, |_| {}, |_| TestMachine::with_mood(Mood::Fine, inline))
    }

    pub fn start_with(
        count: u64,
        adjust: impl Fn(&mut Config),
        machine: impl Fn(u64) -> TestMachine,
    ) -> Self {
        CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let network = MemoryNetwork::new();
        let machines: Vec<TestMachine> = (1..=count).map(machine).collect();
        let nodes = (1..=count)
            .zip(&machines)
            .map(|(n, machine)| {
                let mut config = config(n, count);
                adjust(&mut config);
                Some(Node::start_in_network(config, &network, machine.factory()).unwrap())
            })
            .collect();
        Self { network, nodes, machines }
    }

    pub fn node(&self, n: u64) -> &Node {
        self.nodes[(n - 1) as usize].as_ref().unwrap()
    }

    pub fn machine(&self, n: u64) -> &TestMachine {
        &self.machines[(n - 1) as usize]
    }

    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The leader that says itself that it leads and is ready.
    pub fn leader(&self) -> u64 {
        let mut leader = None;
        until("a ready leader", || {
            leader = self
                .running()
                .map(Node::status)
                .find(|status| status.role == Role::Leader && status.ready)
                .map(|status| status.node_id.get());
            leader.is_some()
        });
        leader.unwrap()
    }

    /// A running node that does not lead.
    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        self.running().map(|node| node.id().get()).find(|n| *n != leader).unwrap()
    }

    pub fn stop(&mut self, n: u64) {
        self.nodes[(n - 1) as usize].take().unwrap().shutdown(LONG).unwrap();
    }
}

pub fn done(outcome: Outcome) -> Done {
    match outcome {
        Outcome::Done(done) => done,
        other => panic!("not done: {other:?}"),
    }
}
