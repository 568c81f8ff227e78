//! Reads of real nodes, at every level.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply, KvStore, StateMachine};
use raftz_core::node::{Config, Node, NodeError, ReadOptions};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{ClusterId, Index, NodeId, ReadLevel, Role};
use support::{LONG, done, id, until};

struct Cluster {
    network: MemoryNetwork,
    nodes: Vec<Node>,
}

impl Cluster {
    fn start(settings: &[(&str, &str)]) -> Self {
        let network = MemoryNetwork::new();
        let nodes = (1..=3).map(|n| {
            let mut config = Config::new(id(n), ClusterId(0x4ead));
            for founder in 1..=3 {
                config = config.with_founder(id(founder), format!("127.0.0.1:{}", 7000 + founder));
            }
            settings.iter().for_each(|(key, value)| config.set(key, value).unwrap());
            let machine = || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(KvStore::new())) };
            Node::start_in_network(config, &network, machine).unwrap()
        });
        let nodes = nodes.collect();
        let cluster = Self { network, nodes };
        cluster.leader();
        cluster
    }

    fn leader(&self) -> &Node {
        let mut found = 0;
        until("a ready leader", || {
            let leads = |node: &Node| node.status().role == Role::Leader && node.status().ready;
            self.nodes.iter().position(leads).inspect(|at| found = *at).is_some()
        });
        &self.nodes[found]
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.iter().find(|node| node.id() == id).unwrap()
    }

    fn followers(&self) -> impl Iterator<Item = &Node> {
        let leader = self.leader().id();
        self.nodes.iter().filter(move |node| node.id() != leader)
    }
}

fn set(node: &Node, value: u64) -> Index {
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from(value.to_string()));
    let command = KvCommand::Set { key, value }.encode();
    done(node.propose_blocking(command, LONG)).index
}

fn get() -> Bytes {
    KvQuery::Get { key: Bytes::from_static(b"k") }.encode()
}

fn value(reply: &raftz_core::types::Reply) -> Option<u64> {
    match KvReply::decode(reply).unwrap() {
        KvReply::Value(Some(bytes)) => std::str::from_utf8(&bytes).unwrap().parse().ok(),
        KvReply::Value(None) => None,
        other => panic!("{other:?}"),
    }
}

fn read(node: &Node, level: ReadLevel) -> Option<u64> {
    value(&node.read_blocking(get(), level).unwrap())
}

const ANY_AGE: ReadLevel = ReadLevel::Bounded(Duration::from_secs(3600));

#[test]
fn what_was_acknowledged_anywhere_is_read_everywhere() {
    for lease_reads in ["false", "true"] {
        let cluster = Cluster::start(&[("lease_reads", lease_reads)]);
        for round in 0..50 {
            let writer = &cluster.nodes[round as usize % 3];
            let index = set(writer, round);
            for node in &cluster.nodes {
                for level in [ReadLevel::Linearizable, ReadLevel::Lease, ReadLevel::AtLeast(index)]
                {
                    assert_eq!(read(node, level), Some(round), "{level:?} at {}", node.id());
                }
            }
        }
        // A read is no entry.
        let last = cluster.leader().status().last;
        for node in &cluster.nodes {
            read(node, ReadLevel::Linearizable);
        }
        assert_eq!(cluster.leader().status().last, last);
    }
}

#[test]
fn futures_and_functions_are_told_the_same() {
    struct Woken(std::thread::Thread);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let cluster = Cluster::start(&[]);
    set(cluster.leader(), 7);
    let node = cluster.followers().next().unwrap();
    let (tell, told) = mpsc::channel();
    node.read_with(get(), ReadLevel::Linearizable, move |answer| tell.send(answer).unwrap())
        .unwrap();
    assert_eq!(value(&told.recv_timeout(LONG).unwrap().unwrap()), Some(7));
    let waker = Arc::new(Woken(std::thread::current())).into();
    let mut future = pin!(node.read(get(), ReadLevel::Linearizable));
    let begun = Instant::now();
    let answer = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => std::thread::park_timeout(LONG),
        }
        assert!(begun.elapsed() < LONG);
    };
    assert_eq!(value(&answer.unwrap()), Some(7));
}

#[test]
fn a_leader_that_lost_its_quorum_answers_nothing_that_must_be_confirmed_and_a_follower_tells_its_age()
 {
    let cluster = Cluster::start(&[]);
    let old = cluster.leader().id();
    set(cluster.leader(), 1);
    let follower = cluster.followers().next().unwrap();
    until("an age", || {
        let young = ReadLevel::Bounded(Duration::from_millis(500));
        follower.read_blocking(get(), young).is_ok()
    });
    cluster.network.isolate(old);
    let short = |level| ReadOptions { level, timeout: Some(Duration::from_millis(100)) };
    let before = cluster.node(old).read(get(), short(ReadLevel::Linearizable)).wait();
    assert!(matches!(before, Err(NodeError::NoLeader { waited_ms: 100, .. })), "{before:?}");
    let rest = cluster.nodes.iter().filter(|node| node.id() != old);
    until("another leader", || {
        rest.clone().any(|node| node.status().role == Role::Leader && node.status().ready)
    });
    let new = rest.clone().find(|node| node.status().role == Role::Leader).unwrap();
    set(new, 2);
    // What it has is old, and it says so.
    assert_eq!(read(cluster.node(old), ReadLevel::Stale), Some(1));
    assert_eq!(read(cluster.node(old), ANY_AGE), Some(1));
    let young = short(ReadLevel::Bounded(Duration::from_millis(50)));
    assert!(cluster.node(old).read(get(), young).wait().is_err());
    let ahead = new.status().commit;
    let behind = cluster.node(old).read(get(), short(ReadLevel::AtLeast(ahead))).wait();
    assert!(
        matches!(&behind, Err(NodeError::NotApplied { wanted, .. }) if *wanted == ahead),
        "{behind:?}"
    );
    // A read that waits is answered when the link is back.
    let waiting = cluster.node(old).read(get(), ReadLevel::Linearizable);
    cluster.network.heal();
    assert_eq!(value(&waiting.wait().unwrap()), Some(2));
}

#[test]
fn reads_end_with_their_node() {
    let cluster = Cluster::start(&[]);
    let node = cluster.followers().next().unwrap();
    let waiting = node.read(get(), ReadLevel::AtLeast(Index(1 << 40)));
    node.shutdown(LONG).unwrap();
    assert!(matches!(waiting.wait(), Err(NodeError::ShutDown)));
    let late = node.read_blocking(get(), ReadLevel::Linearizable);
    assert!(matches!(late, Err(NodeError::ShutDown)), "{late:?}");
}

#[test]
fn a_read_inside_a_callback_does_not_wait_for_itself() {
    let cluster = Cluster::start(&[]);
    let node = cluster.leader();
    let answer = raftz_core::node::run_callback("a callback", || {
        node.read_blocking(get(), ReadLevel::Linearizable)
    });
    assert!(matches!(answer, Err(NodeError::InCallback { .. })), "{answer:?}");
}

#[test]
fn drift_beyond_a_half_is_no_ground_for_leases() {
    let mut config = Config::new(id(1), ClusterId(1)).with_founder(id(1), "127.0.0.1:7001");
    config.set("lease_drift_percent", "51").unwrap();
    let refusal = config.validate().unwrap_err().to_string();
    assert!(refusal.contains("lease_drift_percent") && refusal.contains("51"), "{refusal}");
    assert!(config.set("lease_drift_percent", "300").is_err());
}
