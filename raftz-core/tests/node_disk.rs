//! Nodes with their data on disk: restarts, and directories that are not what they should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raftz_core::machine::{Command, MachineError, SnapshotView, StateMachine};
use raftz_core::node::{Config, Node, NodeError, ProposeOptions};
use raftz_core::storage::StorageError;
use raftz_core::types::{ClusterId, Index, Outcome, Reply, Role};
use support::{LONG, Mood, TestMachine, done, id, until};

fn alone(directory: &Path) -> Config {
    let mut config = Config::new(id(1), ClusterId(0xd15c))
        .with_founder(id(1), "127.0.0.1:9")
        .with_directory(directory);
    config.segment_bytes = 256 << 10;
    config.entry_bytes_max = 64 << 10;
    config.reserve_bytes = 0;
    config
}

fn start(config: &Config, machine: &TestMachine) -> Result<Node, NodeError> {
    Node::start(config.clone(), machine.factory())
}

#[test]
fn what_a_node_acknowledged_is_there_after_each_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = alone(&directory.path().join("node-1"));
    assert!(!Node::is_formatted(&config).unwrap());
    Node::bootstrap(&config).unwrap();
    assert!(Node::is_formatted(&config).unwrap());
    let mut expected: Vec<Bytes> = Vec::new();
    for round in 0..4_u64 {
        let machine = TestMachine::with_mood(Mood::Fine, round % 2 == 0);
        let node = start(&config, &machine).unwrap();
        let batch: Vec<Bytes> =
            (0..200).map(|n| Bytes::from(format!("{round}/{n}").repeat(n + 1))).collect();
        let outcomes = node.propose_batch(batch.clone(), ProposeOptions::default()).wait();
        for outcome in outcomes {
            done(outcome);
        }
        expected.extend(batch);
        assert_eq!(machine.commands(), expected);
        assert_eq!(node.status().boot.0, round + 1);
        if round == 2 {
            drop(node);
        } else {
            node.shutdown(LONG).unwrap();
        }
    }
}

/// A test machine that counts as one with a storage of its own: what it has survives its node.
struct Persisting(TestMachine);

impl StateMachine for Persisting {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        self.0.apply(batch, replies)
    }
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.0.query(request)
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        self.0.snapshot()
    }
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        self.0.restore(from)
    }
    fn applied_index(&mut self) -> Result<Option<Index>, MachineError> {
        let seen = self.0.seen.lock().unwrap();
        Ok(Some(seen.last().map_or(Index::ZERO, |(index, _)| *index)))
    }
    fn never_blocks(&self) -> bool {
        self.0.inline
    }
}

#[test]
fn a_machine_that_persists_itself_is_given_everything_once() {
    for inline in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let config = alone(&directory.path().join("node-1"));
        Node::bootstrap(&config).unwrap();
        let machine = TestMachine::with_mood(Mood::Fine, inline);
        let start = |config: &Config| {
            let machine = Persisting(machine.clone());
            Node::start(config.clone(), move || Ok(Box::new(machine)))
        };
        let mut expected: Vec<Bytes> = Vec::new();
        for round in 0..3 {
            let node = start(&config).unwrap();
            if let Some((last, _)) = machine.seen.lock().unwrap().last() {
                node.wait_for_applied(*last, LONG).unwrap();
            }
            for n in 0..20 {
                let command = Bytes::from(format!("{round}/{n}"));
                done(node.propose(command.clone()).wait());
                expected.push(command);
            }
            assert_eq!(machine.commands(), expected, "nothing twice, nothing left out");
            node.shutdown(LONG).unwrap();
        }
        // A log that is not the machine's: the one that was there is gone.
        let other = alone(&directory.path().join("node-1-again"));
        Node::bootstrap(&other).unwrap();
        let error = start(&other).unwrap_err();
        assert!(matches!(error, NodeError::Machine(_)), "{error}");
        assert!(error.to_string().contains("the log ends at"), "{error}");
    }
}

#[test]
fn each_wrong_directory_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let machine = TestMachine::default();
    let config = alone(&directory.path().join("data"));

    let error = start(&config, &machine).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::NotFormatted { .. })), "{error}");
    assert!(error.to_string().contains("bootstrap"), "{error}");

    Node::bootstrap(&config).unwrap();
    let error = Node::bootstrap(&config).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::NotEmpty { .. })), "{error}");

    let running = start(&config, &machine).unwrap();
    let error = start(&config, &machine).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::Locked { .. })), "{error}");
    running.shutdown(LONG).unwrap();

    let mut other = config.clone();
    other.cluster_id = ClusterId(0xbad);
    let error = start(&other, &machine).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::WrongOwner { .. })), "{error}");

    let mut other = config.clone();
    other.node_id = id(2);
    other = other.with_founder(id(2), "127.0.0.1:10");
    let error = start(&other, &machine).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::WrongOwner { .. })), "{error}");

    let mut faster = config.clone();
    faster.election_timeout_min_ms = 100;
    let error = start(&faster, &machine).unwrap_err();
    assert!(error.to_string().contains("election_timeout_min_ms = 100"), "{error}");

    let mut joiner = alone(&directory.path().join("other"));
    joiner.founders.clear();
    joiner.founders.extend(config.founders.clone());
    joiner.node_id = id(7);
    let error = Node::bootstrap(&joiner).unwrap_err();
    assert!(error.to_string().contains("node_id = 7 is not among founders"), "{error}");

    // And the right one still opens.
    done(start(&config, &machine).unwrap().propose("x").wait());
}

#[test]
fn founders_that_differ_from_the_log_are_ignored_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let config = alone(&directory.path().join("data"));
    Node::bootstrap(&config).unwrap();
    let lines = support::lines::Lines::default();
    let changed = config.with_founder(id(2), "127.0.0.1:10");
    let node = tracing::subscriber::with_default(lines.clone(), || {
        start(&changed, &TestMachine::default()).unwrap()
    });
    done(node.propose("alone all the same").wait());
    until("the warning", || {
        lines.any(|line| line.contains("node 2 is configured but not a member"))
    });
}

/// A cluster of three on disk that can be stopped and started as a whole or node by node.
struct Disks {
    _directory: tempfile::TempDir,
    configs: Vec<Config>,
    nodes: Vec<Option<Node>>,
    machines: Vec<TestMachine>,
}

impl Disks {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> =
            listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let configs: Vec<Config> = (1..=3)
            .map(|n| {
                let mut config = Config::new(id(n), ClusterId(0x3d15c))
                    .with_directory(directory.path().join(format!("node-{n}")));
                for (founder, address) in (1..).zip(&addresses) {
                    config = config.with_founder(id(founder), address.clone());
                }
                config.listen_address = addresses[n as usize - 1].clone();
                config.election_timeout_min_ms = 300;
                config.election_timeout_max_ms = 600;
                config.segment_bytes = 1 << 20;
                config.entry_bytes_max = 256 << 10;
                config.reserve_bytes = 0;
                config
            })
            .collect();
        let machines = vec![TestMachine::default(); 3];
        let mut disks =
            Self { _directory: directory, configs, nodes: vec![None, None, None], machines };
        for (at, listener) in listeners.into_iter().enumerate() {
            let config = disks.configs[at].clone();
            Node::bootstrap(&config).unwrap();
            disks.machines[at] = TestMachine::with_mood(Mood::Fine, at != 0);
            let factory = disks.machines[at].factory();
            disks.nodes[at] = Some(Node::start_with_listener(config, listener, factory).unwrap());
        }
        disks
    }

    fn start(&mut self, at: usize) {
        self.machines[at] = TestMachine::with_mood(Mood::Fine, at != 0);
        self.nodes[at] = Some(start(&self.configs[at], &self.machines[at]).unwrap());
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    fn leader(&self) -> usize {
        let mut found = None;
        until("a ready leader", || {
            found = self.nodes.iter().position(|node| {
                node.as_ref().is_some_and(|node| {
                    let status = node.status();
                    status.role == Role::Leader && status.ready
                })
            });
            found.is_some()
        });
        found.unwrap()
    }
}

#[test]
fn three_nodes_on_disk_lose_nothing_while_leaders_come_and_go() {
    let mut disks = Disks::new();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for round in 0..3 {
        let leader = disks.leader();
        std::thread::scope(|scope| {
            for node in disks.running() {
                let acknowledged = Arc::clone(&acknowledged);
                scope.spawn(move || {
                    for n in 0..30 {
                        let command = Bytes::from(format!("{round}/{}/{n}", node.id()));
                        if let Outcome::Done(_) = node.propose(command.clone()).wait() {
                            acknowledged.lock().unwrap().push(command);
                        }
                    }
                });
            }
        });
        // The leader goes; the others carry on; it comes back with its disk and catches up.
        let old = disks.nodes[leader].take().unwrap();
        old.shutdown(LONG).unwrap();
        let next = disks.leader();
        let command = Bytes::from(format!("{round}/without {leader}"));
        let last = done(disks.nodes[next].as_ref().unwrap().propose(command.clone()).wait()).index;
        acknowledged.lock().unwrap().push(command);
        disks.start(leader);
        disks.nodes[leader].as_ref().unwrap().wait_for_applied(last, LONG).unwrap();
    }
    // The whole cluster goes and comes back.
    for node in disks.nodes.iter_mut().filter_map(Option::take) {
        node.shutdown(LONG).unwrap();
    }
    for at in 0..3 {
        disks.start(at);
    }
    let leader = disks.leader();
    let last = done(disks.nodes[leader].as_ref().unwrap().propose("end").wait()).index;
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    for (node, machine) in disks.running().zip(&disks.machines) {
        node.wait_for_applied(last, LONG).unwrap();
        let commands = machine.commands();
        for command in acknowledged.iter() {
            let times = commands.iter().filter(|seen| *seen == command).count();
            assert_eq!(times, 1, "{command:?} on node {}", node.id());
        }
    }
    let all: Vec<_> = disks.machines.iter().map(TestMachine::commands).collect();
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
}

#[test]
fn a_node_alone_of_three_applies_what_it_knows_to_be_committed() {
    let mut disks = Disks::new();
    let leader = disks.leader();
    for n in 0..20 {
        done(disks.nodes[leader].as_ref().unwrap().propose(n.to_string()).wait());
    }
    for node in disks.nodes.iter_mut().filter_map(Option::take) {
        node.shutdown(LONG).unwrap();
    }
    disks.start(leader);
    let node = disks.nodes[leader].as_ref().unwrap();
    let status = node.status();
    assert!(status.commit.0 >= 10, "{}", status.commit);
    node.wait_for_applied(status.commit, LONG).unwrap();
    assert!(disks.machines[leader].commands().len() >= 9);
}
