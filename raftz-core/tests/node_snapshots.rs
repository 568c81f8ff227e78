//! Snapshots of real nodes: over TCP, with real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raftz_core::machine::{
    Command, KvCommand, KvQuery, KvReply, KvStore, MachineError, SnapshotView, StateMachine,
};
use raftz_core::node::{Config, Node, NodeError, ProposeOptions};
use raftz_core::types::{ClusterId, Event, FaultReason, Index, Reply, Role, SnapshotPhase};
use support::{LONG, done, id, until};

type Seen = Arc<Mutex<Vec<Event>>>;

/// Where three nodes are, and how they are configured: a snapshot every two hundred entries, almost no tail.
struct Cluster {
    root: tempfile::TempDir,
    addresses: Vec<String>,
    seen: Vec<Seen>,
}

impl Cluster {
    fn new() -> (Self, Vec<TcpListener>) {
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let seen = (0..3).map(|_| Seen::default()).collect();
        (Self { root: tempfile::tempdir().unwrap(), addresses, seen }, listeners)
    }

    fn config(&self, n: usize) -> Config {
        let mut config = Config::new(id(n as u64), ClusterId(0x5a9))
            .with_directory(self.root.path().join(n.to_string()));
        for (founder, address) in (1..).zip(&self.addresses) {
            config = config.with_founder(id(founder), address.clone());
        }
        config.listen_address.clone_from(&self.addresses[n - 1]);
        config.election_timeout_min_ms = 500;
        config.election_timeout_max_ms = 1000;
        config.entry_bytes_max = 64 << 10;
        config.segment_bytes = 128 << 10;
        config.snapshot_log_entries = 200;
        config.snapshot_retain_bytes = 1000;
        let seen = Arc::clone(&self.seen[n - 1]);
        config.on_event = Some(Arc::new(move |_, event| seen.lock().unwrap().push(event.clone())));
        config
    }

    fn start(&self, n: usize) -> Node {
        Node::start(self.config(n), || Ok(Box::new(KvStore::new()))).unwrap()
    }

    fn was(&self, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen[n - 1].lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

fn is_phase(wanted: SnapshotPhase) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Snapshot { phase, .. } if *phase == wanted)
}

fn files(dir: &Path, prefix: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix))
        .count()
}

fn set(node: &Node, keys: std::ops::Range<u64>) -> Index {
    let commands: Vec<Bytes> = keys
        .map(|n| {
            let (key, value) =
                (Bytes::from(format!("key{}", n % 500)), Bytes::from(vec![n as u8; 900]));
            KvCommand::Set { key, value }.encode()
        })
        .collect();
    let outcomes = node.propose_batch(commands, ProposeOptions::default()).wait();
    outcomes.into_iter().map(|outcome| done(outcome).index).max().unwrap()
}

fn digest(node: &Node) -> (u64, u64) {
    let reply = node.query(KvQuery::Digest.encode(), LONG).unwrap();
    let Ok(KvReply::Digest { entries, digest }) = KvReply::decode(&reply) else { panic!() };
    (entries, digest)
}

fn leader(nodes: &[Node]) -> &Node {
    let mut found = 0;
    until("a ready leader", || {
        let leads = |node: &Node| node.status().role == Role::Leader && node.status().ready;
        nodes.iter().position(leads).inspect(|at| found = *at).is_some()
    });
    &nodes[found]
}

#[test]
fn a_node_that_was_away_comes_back_by_snapshot_while_writes_go_on_and_logs_stay_short() {
    let (cluster, listeners) = Cluster::new();
    let mut nodes = Vec::new();
    for (n, listener) in (1..).zip(listeners) {
        let config = cluster.config(n);
        Node::bootstrap(&config).unwrap();
        let machine = || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(KvStore::new())) };
        nodes.push(Node::start_with_listener(config, listener, machine).unwrap());
    }
    set(leader(&nodes), 0..100);
    let away = nodes.iter().position(|node| node.status().role != Role::Leader).unwrap();
    nodes.remove(away).shutdown(LONG).unwrap();
    let away = away + 1;
    for round in 0..15 {
        set(leader(&nodes), round * 100..(round + 1) * 100);
    }
    until("compaction beyond what the missing node has", || {
        nodes.iter().all(|node| node.status().base.index > Index(200))
    });
    let term = leader(&nodes).status().term;

    let back = cluster.start(away);
    let last = set(leader(&nodes), 0..300);
    back.wait_for_applied(last, LONG).unwrap();
    assert!(cluster.was(away, is_phase(SnapshotPhase::Installed)) > 0, "by the log alone");
    assert_eq!(leader(&nodes).status().term, term, "an election");
    for node in &nodes {
        node.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(node), digest(&back));
    }
    // Two thousand entries of a kilobyte were written, sixteen segments of them; what is kept is less.
    for n in 1..=3 {
        let dir = cluster.root.path().join(n.to_string());
        until("old segments to go", || files(&dir, "wal-") <= 8);
        until("old snapshots to go", || (1..=2).contains(&files(&dir, "snap-")));
    }

    // Everything again from what is on the disks.
    nodes.push(back);
    for node in nodes {
        node.shutdown(LONG).unwrap();
    }
    let nodes: Vec<Node> = (1..=3).map(|n| cluster.start(n)).collect();
    let last = set(leader(&nodes), 0..1);
    for node in &nodes {
        node.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(node).0, 500);
    }
}

#[test]
fn a_snapshot_on_demand_is_as_new_as_what_was_done_before_and_the_same_when_nothing_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(id(1), ClusterId(0x5aa)).with_directory(dir.path().join("one"));
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.snapshot_log_entries = 0;
    config.snapshot_log_bytes = 0;
    Node::bootstrap(&config).unwrap();
    let node = Node::start(config.clone(), || Ok(Box::new(KvStore::new()))).unwrap();
    node.wait_for_leader(LONG).unwrap();
    let last = set(&node, 0..50);
    let snapshot = node.snapshot(LONG).unwrap();
    assert!(snapshot.base.id.index >= last);
    assert_eq!(node.snapshot(LONG).unwrap(), snapshot);
    let wanted = digest(&node);
    node.shutdown(LONG).unwrap();
    assert!(matches!(node.snapshot(LONG), Err(NodeError::ShutDown)));
    let node = Node::start(config, || Ok(Box::new(KvStore::new()))).unwrap();
    assert_eq!(digest(&node), wanted, "before anything is applied");
}

/// Takes everything and cannot be restored.
struct Stubborn(KvStore);

impl StateMachine for Stubborn {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        self.0.apply(batch, replies)
    }
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.0.query(request)
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        self.0.snapshot()
    }
    fn restore(&mut self, _: &mut dyn std::io::Read) -> Result<(), MachineError> {
        Err(MachineError("on purpose".into()))
    }
}

#[test]
fn a_machine_that_cannot_be_restored_leaves_its_node_faulted_and_its_old_log_on_disk() {
    let (cluster, listeners) = Cluster::new();
    let mut nodes = Vec::new();
    for (n, listener) in (1..).zip(listeners) {
        let config = cluster.config(n);
        Node::bootstrap(&config).unwrap();
        let machine = || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(KvStore::new())) };
        nodes.push(Node::start_with_listener(config, listener, machine).unwrap());
    }
    set(leader(&nodes), 0..50);
    let away = nodes.iter().position(|node| node.status().role != Role::Leader).unwrap();
    nodes.remove(away).shutdown(LONG).unwrap();
    for round in 0..10 {
        set(leader(&nodes), round * 100..(round + 1) * 100);
    }
    until("compaction", || nodes.iter().all(|node| node.status().base.index > Index(200)));
    let stubborn =
        || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(Stubborn(KvStore::new()))) };
    let node = Node::start(cluster.config(away + 1), stubborn).unwrap();
    until("the fault", || node.status().fault.is_some());
    let status = node.status();
    assert!(
        matches!(status.fault, Some(FaultReason::Machine { kind: "restore", .. })),
        "{:?}",
        status.fault
    );
    assert_eq!(status.base.index, Index::ZERO, "the log was replaced before the machine was");
    node.shutdown(LONG).unwrap();
    // With a machine that can, the very same directory goes on.
    let node = cluster.start(away + 1);
    let last = set(leader(&nodes), 0..10);
    node.wait_for_applied(last, LONG).unwrap();
    assert_eq!(digest(&node), digest(leader(&nodes)));
}
