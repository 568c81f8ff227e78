//! Nodes over TCP on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{Config, Node, NodeError, ProposeOptions};
use raftz_core::types::{ClusterId, Outcome, Refusal, Role};
use support::{LONG, Mood, TestMachine, done, id, until};

/// Bound listeners and the configurations of nodes that know each other by them.
fn three() -> Vec<(Config, TcpListener)> {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> =
        listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    let configs = (1..=3).map(|n| {
        let mut config = Config::new(id(n), ClusterId(0x7c9));
        for (founder, address) in (1..).zip(&addresses) {
            config = config.with_founder(id(founder), address.clone());
        }
        config.listen_address = addresses[n as usize - 1].clone();
        config.election_timeout_min_ms = 300;
        config.election_timeout_max_ms = 600;
        config
    });
    configs.zip(listeners).collect()
}

fn leader(nodes: &[Node]) -> &Node {
    let mut found = 0;
    until("a ready leader", || {
        let leads = |node: &Node| {
            let status = node.status();
            status.role == Role::Leader && status.ready
        };
        nodes.iter().position(leads).inspect(|at| found = *at).is_some()
    });
    &nodes[found]
}

#[test]
fn three_nodes_over_tcp_commit_from_everywhere_and_survive_their_leader() {
    let machines: Vec<TestMachine> =
        (0..3).map(|_| TestMachine::with_mood(Mood::Fine, false)).collect();
    let mut nodes: Vec<Node> = three()
        .into_iter()
        .zip(&machines)
        .map(|((config, listener), machine)| {
            Node::start_with_listener(config, listener, machine.factory()).unwrap()
        })
        .collect();
    leader(&nodes);
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(move || {
                let commands: Vec<Bytes> = (0..200)
                    .map(|n| Bytes::from(vec![n as u8; if n % 50 == 0 { 100_000 } else { n }]))
                    .collect();
                node.wait_for_leader(LONG).unwrap();
                let outcomes = node.propose_batch(commands, ProposeOptions::default()).wait();
                for outcome in outcomes {
                    done(outcome);
                }
            });
        }
    });
    let last = done(leader(&nodes).propose("last").wait()).index;
    for node in &nodes {
        node.wait_for_applied(last, LONG).unwrap();
    }
    assert_eq!(machines[0].commands().len(), 601);
    assert_eq!(machines[0].commands(), machines[1].commands());
    assert_eq!(machines[0].commands(), machines[2].commands());

    let old = leader(&nodes).id();
    let at = nodes.iter().position(|node| node.id() == old).unwrap();
    nodes.remove(at).shutdown(LONG).unwrap();
    until("a write after the failover", || {
        matches!(nodes[0].propose("after").wait(), Outcome::Done(_))
    });
    until("the survivors to know why it is gone", || {
        nodes.iter().all(|node| {
            let status = node.status();
            let gone = status.peers.iter().find(|peer| peer.id == old).unwrap().clone();
            !gone.connected && gone.unreachable.is_some()
        })
    });
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut config = Config::new(id(1), ClusterId(1)).with_founder(id(1), address.clone());
    config.listen_address = address.clone();
    let error = Node::start(config, TestMachine::default().factory()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, NodeError::Network(_)), "{text}");
    assert!(text.contains(&address) && text.contains("another port"), "{text}");
}

#[test]
fn any_port_is_told_once_it_is_known() {
    let config = Config::new(id(1), ClusterId(1)).with_founder(id(1), "127.0.0.1:9");
    let node = Node::start(config, TestMachine::default().factory()).unwrap();
    let address = node.listen_address().unwrap();
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
    done(node.propose("x").wait());
}

#[test]
fn without_a_quorum_the_refusal_names_the_unreachable_and_the_reason() {
    let (config, listener) = three().remove(0);
    let others: Vec<String> =
        config.founders.iter().skip(1).map(|founder| founder.address.clone()).collect();
    let node =
        Node::start_with_listener(config, listener, TestMachine::default().factory()).unwrap();
    until("both to be known as unreachable", || {
        node.status().peers.iter().filter(|peer| peer.unreachable.is_some()).count() == 2
    });
    let error = node.wait_for_leader(Duration::from_millis(50)).unwrap_err().to_string();
    for address in &others {
        assert!(error.contains(address.as_str()), "{error}");
    }
    assert!(error.to_lowercase().contains("refused"), "{error}");
    let outcome = node.propose_blocking("x", Duration::from_millis(200));
    let Outcome::Refused(Refusal::NoLeader { detail }) = &outcome else { panic!("{outcome:?}") };
    assert!(detail.to_lowercase().contains("refused"), "{detail}");
}

#[test]
fn a_name_that_does_not_resolve_is_warned_of_once_and_tried_again() {
    let (mut config, listener) = three().remove(0);
    config.founders[1].address = "nowhere.invalid:7001".into();
    let lines = support::lines::Lines::default();
    let node = tracing::subscriber::with_default(lines.clone(), || {
        Node::start_with_listener(config, listener, TestMachine::default().factory()).unwrap()
    });
    let about = |line: &str| line.contains("node 2") && line.contains("nowhere.invalid:7001");
    until("the warning", || lines.any(about));
    until("the status to say it", || {
        let peers = node.status().peers;
        let why = peers.iter().find(|peer| peer.id == id(2)).unwrap().unreachable.clone();
        why.is_some_and(|why| why.contains("nowhere.invalid:7001"))
    });
    node.shutdown(LONG).unwrap();
    // One for the slow lookup, one for its failure, at most.
    assert!(lines.count(about) <= 2, "{}", lines.count(about));
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    use std::io::Write;
    let config = Config::new(id(1), ClusterId(1)).with_founder(id(1), "127.0.0.1:9");
    let node = Node::start(config, TestMachine::default().factory()).unwrap();
    node.wait_for_leader(LONG).unwrap();
    for n in 0..50_u8 {
        let mut stream = std::net::TcpStream::connect(node.listen_address().unwrap()).unwrap();
        let _ = stream.write_all(&[n; 5000]);
    }
    done(node.propose("x").wait());
}
