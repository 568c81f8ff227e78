//! What a node can be asked for at once, and what it agrees on with the others, stays within bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test of the runtime lives in real time")]

mod support;

use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply, KvStore};
use raftz_core::node::{Config, Node, NodeError, ProposeOptions, StorageKind};
use raftz_core::storage::{Completion, LogReader, MemoryStorage, Storage, WriteBatch};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{
    Base, ClusterId, DiskId, GroupId, Identity, Member, Membership, Role, Settings, Term,
};
use support::{Cluster, Gate, LONG, Mood, TestMachine, config, done, id, until};

/// Three nodes on disk, founded for entries of 48 MiB and started with the default of 4 MiB.
fn founded_for_large_entries(root: &Path, held_bytes_max: u64) -> Vec<Result<Node, NodeError>> {
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> =
        listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let start = |(n, listener): (u64, TcpListener)| {
        let mut config =
            Config::new(id(n), ClusterId(0x48)).with_directory(root.join(format!("node-{n}")));
        for (founder, address) in (1..).zip(&addresses) {
            config = config.with_founder(id(founder), address.clone());
        }
        // Large writes take their time on a busy machine, and this is not about elections.
        config.election_timeout_min_ms = 2000;
        config.election_timeout_max_ms = 4000;
        config.reserve_bytes = 0;
        config.link_queue_bytes_max = 64 << 20;
        config.held_bytes_max = 64 << 20;
        Node::bootstrap(&Config { entry_bytes_max: 48 << 20, ..config.clone() }).unwrap();
        config.held_bytes_max = held_bytes_max;
        let machine = TestMachine::with_mood(Mood::Fine, false);
        Node::start_with_listener(config, listener, machine.factory())
    };
    (1..).zip(listeners).map(start).collect()
}

#[test]
fn the_largest_entry_is_what_the_cluster_was_founded_with_whatever_a_node_is_told_later() {
    let root = tempfile::tempdir().unwrap();
    let nodes: Vec<Node> =
        founded_for_large_entries(root.path(), 64 << 20).into_iter().map(Result::unwrap).collect();
    for node in &nodes {
        node.wait_for_leader(LONG).unwrap();
        let large = node.propose_blocking(vec![1u8; 36 << 20], LONG);
        let index = done(large).index;
        for other in &nodes {
            other.wait_for_applied(index, LONG).unwrap();
        }
    }
}

#[test]
fn caps_below_the_clusters_largest_entry_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    for start in founded_for_large_entries(root.path(), 16 << 20) {
        let error = start.unwrap_err().to_string();
        assert!(error.contains("held_bytes_max = 16777216"), "{error}");
        assert!(error.contains("entry_bytes_max = 50331648"), "{error}");
        assert!(error.contains("the cluster's own"), "{error}");
    }
}

fn kv_cluster(network: &MemoryNetwork) -> Vec<Node> {
    let start =
        |n| Node::start_in_network(config(n, 3), network, || Ok(Box::new(KvStore::new()))).unwrap();
    (1..=3).map(start).collect()
}

fn leader_of(nodes: &[Node]) -> &Node {
    let leads = |node: &&Node| {
        let status = node.status();
        status.role == Role::Leader && status.ready
    };
    until("a leader", || nodes.iter().any(|node| leads(&node)));
    nodes.iter().find(leads).unwrap()
}

fn terms(nodes: &[Node]) -> Vec<Term> {
    nodes.iter().map(|node| node.status().term).collect()
}

#[test]
fn small_commands_have_small_answers_however_large_the_value() {
    let network = MemoryNetwork::new();
    let nodes = kv_cluster(&network);
    let leader = leader_of(&nodes);
    let key = Bytes::from_static(b"large");
    let value = Bytes::from(vec![7; 2 << 20]);
    done(leader.propose(KvCommand::Set { key: key.clone(), value }.encode()).wait());
    let before = terms(&nodes);
    let swap = KvCommand::CompareAndSet { key, expected: None, value: None }.encode();
    let outcomes = leader.propose_batch(vec![swap; 1000], ProposeOptions::default()).wait();
    for outcome in outcomes {
        let reply = KvReply::decode(&done(outcome).reply).unwrap();
        assert_eq!(reply, KvReply::NotSwappedLarge { actual_bytes: 2 << 20 });
    }
    assert_eq!(terms(&nodes), before, "no election");
}

/// What 200 callers scanning at once cost when each turn of the event loop answered all of them:
/// turns of several election timeouts.
#[test]
fn questions_to_the_built_in_store_cause_no_election() {
    const CALLERS: usize = 200;
    let network = MemoryNetwork::new();
    let nodes = kv_cluster(&network);
    let leader = leader_of(&nodes);
    let set = |n| {
        let (key, value) = (Bytes::from(format!("key-{n:08}")), Bytes::from(vec![0u8; 80]));
        KvCommand::Set { key, value }.encode()
    };
    let batch = (0..10_000).map(set).collect();
    leader.propose_batch(batch, ProposeOptions::default()).wait().into_iter().for_each(|o| {
        done(o);
    });
    let before = terms(&nodes);
    let scan = KvQuery::Scan { prefix: Bytes::new(), after: None, limit: 10_000 }.encode();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                for _ in 0..5 {
                    leader.query(scan.clone(), LONG).unwrap();
                }
            });
        }
    });
    assert_eq!(terms(&nodes), before, "no election");
}

struct SlowWaker(Gate, AtomicBool);

impl Wake for SlowWaker {
    fn wake(self: Arc<Self>) {
        self.0.pass();
        self.1.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_future_whose_waker_blocks_holds_up_nobody_else() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let slow = Arc::new(SlowWaker(Gate::default(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&slow));
    // The answer may be there before the future is asked; then nobody is to be woken.
    let mut polled = Vec::new();
    while !polled.iter().any(|(_, pending)| *pending) {
        let mut call = Box::pin(node.propose("polled"));
        let pending = Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending();
        polled.push((call, pending));
    }
    // The event loop goes on, although the waker does not return.
    for _ in 0..3 {
        done(node.propose_blocking("meanwhile", LONG));
    }
    assert!(!slow.1.load(Ordering::SeqCst));
    slow.0.open();
    until("the future to be woken", || slow.1.load(Ordering::SeqCst));
}

#[test]
fn asking_for_an_election_again_and_again_costs_no_memory_and_no_time() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let resident_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident_kib();
    for _ in 0..1_000_000 {
        node.campaign();
    }
    assert!(resident_kib() < before + (32 << 10), "grown by what nobody needs");
    done(node.propose_blocking("at once", LONG));
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, while it is dropped");
    }
}

#[test]
fn a_panic_that_panics_again_when_it_is_dropped_ends_no_thread() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let options = ProposeOptions::default();
    node.propose_with("x", options, |_| std::panic::panic_any(Bomb)).unwrap();
    let (told, ran) = std::sync::mpsc::channel();
    node.propose_with("y", options, move |outcome| told.send(outcome).unwrap()).unwrap();
    done(ran.recv_timeout(LONG).unwrap());
    node.shutdown(LONG).unwrap();
}

/// A store of the user's own whose reader panics.
struct NoReader(MemoryStorage);

impl Storage for NoReader {
    fn submit(&mut self, batch: WriteBatch, done: Completion) {
        self.0.submit(batch, done);
    }
    fn reader(&self) -> Arc<dyn LogReader> {
        panic!("no reader, on purpose")
    }
}

#[test]
fn a_store_that_panics_at_the_start_is_an_error_and_leaves_no_thread() {
    let mut config = Config::new(id(77), ClusterId(3)).with_founder(id(77), "127.0.0.1:7001");
    config.storage = StorageKind::Custom(Arc::new(|config: &Config| {
        let settings = Settings {
            election_timeout_min_ms: config.election_timeout_min_ms,
            ..Settings::default()
        };
        let members = [(config.node_id, Member::at("127.0.0.1:7001"))];
        let base = Base::founding(Membership::of_voters(members), settings);
        let identity = Identity {
            cluster: config.cluster_id,
            epoch: 0,
            node: config.node_id,
            disk: DiskId(5),
            founders_hash: base.founders_hash(),
        };
        let (store, recovered) = MemoryStorage::new(identity, GroupId::FIRST, base);
        Ok((Box::new(NoReader(store)) as Box<dyn Storage>, recovered))
    }));
    let network = MemoryNetwork::new();
    let error = Node::start_in_network(config, &network, TestMachine::default().factory())
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("no reader, on purpose"), "{error}");
    let ours = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name).filter(|name| name.starts_with("raftz-77")).count()
    };
    until("its threads to end", || ours() == 0);
}
