//! Nodes over TCP on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::node::{Config, Node, NodeError, ProposeOptions};
use raftz_core::transport::handshake::{HandshakeMessage, Identity, Reject};
use raftz_core::types::{Boot, ClusterId, DiskId, Event, Outcome, Refusal, Role};
use support::lines::Lines;
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
    assert!(matches!(error, NodeError::Network { .. }), "{text}");
    assert_eq!(error.os_error(), Some(rustix::io::Errno::ADDRINUSE.raw_os_error()));
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
    let lines = Lines::default();
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
fn a_port_that_the_membership_does_not_name_is_warned_of_with_both() {
    let (config, _named) = three().remove(0);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (named, listens) = (config.listen_address.clone(), other.local_addr().unwrap().to_string());
    let lines = Lines::default();
    let _node = tracing::subscriber::with_default(lines.clone(), || {
        Node::start_with_listener(config, other, TestMachine::default().factory()).unwrap()
    });
    until("the warning", || lines.any(|line| line.contains(&named) && line.contains(&listens)));
}

/// A message of a handshake that arrives on a connection.
fn read_handshake(stream: &mut TcpStream) -> HandshakeMessage {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 2048];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed after {bytes:?}");
        bytes.extend_from_slice(&buffer[..count]);
        if let Some((message, _)) = HandshakeMessage::decode(&bytes).unwrap() {
            return message;
        }
    }
}

#[test]
fn refused_strangers_are_told_once_a_second_and_a_refused_member_once() {
    const KNOCKS: usize = 400;
    let (mut config, listener) = three().remove(0);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&refused);
    config.on_event = Some(Arc::new(move |_, event| {
        if let Event::PeerRefused { peer, reason, .. } = event {
            theirs.lock().unwrap().push((*peer, reason.clone()));
        }
    }));
    let lines = Lines::default();
    let node = tracing::subscriber::with_default(lines.clone(), || {
        Node::start_with_listener(config, listener, TestMachine::default().factory()).unwrap()
    });
    let address = node.listen_address().unwrap();
    let knock = |from: u64, to: u64| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let me = Identity::peer(ClusterId(0x7c9), 0, id(from), DiskId(9), Boot(1), 0);
        let hello = HandshakeMessage::Hello(me.addressed_to(Some(id(to))));
        stream.write_all(&hello.encode()).unwrap();
        let answer = read_handshake(&mut stream);
        let HandshakeMessage::Reject(reject) = answer else { panic!("{answer:?}") };
        assert_eq!(reject.code, Reject::NOT_ME);
    };
    let begin = Instant::now();
    for _ in 0..KNOCKS {
        knock(99, 7);
        knock(2, 7);
    }
    let seconds = begin.elapsed().as_secs() as usize + 1;
    let of = |peer: u64| {
        let refused = refused.lock().unwrap();
        let of = refused.iter().filter(|(from, _)| *from == id(peer));
        of.map(|(_, reason)| reason.clone()).collect::<Vec<_>>()
    };
    until("the first to be told", || !of(99).is_empty() && !of(2).is_empty());
    // What was left out is said in the end, though nobody knocks any more.
    let more = |text: &str| {
        let (_, count) = text.split_once("\u{2026} and ")?;
        count.split_once(" more")?.0.parse::<usize>().ok()
    };
    let counted = || {
        let in_events: usize = of(99).iter().filter_map(|reason| more(reason)).sum();
        let of_count = |line: &String| line.contains("more refused handshakes");
        let in_lines: usize =
            lines.all().iter().filter(|line| of_count(line)).filter_map(|line| more(line)).sum();
        in_events + in_lines + of(99).len()
    };
    until("all to be accounted for", || counted() == KNOCKS);
    assert!(of(99).len() <= seconds + 1, "{} events in {seconds} s", of(99).len());
    assert_eq!(of(2).len(), 1, "{:?}", of(2));
}

#[test]
fn a_peers_words_cannot_forge_lines_in_the_log() {
    let mut all = three();
    let (_, liar) = all.remove(1);
    let (config, listener) = all.remove(0);
    let lines = Lines::default();
    let node = tracing::subscriber::with_default(lines.clone(), || {
        Node::start_with_listener(config, listener, TestMachine::default().factory()).unwrap()
    });
    let (mut stream, _) = liar.accept().unwrap();
    let hello = read_handshake(&mut stream);
    assert!(matches!(hello, HandshakeMessage::Hello(_)), "{hello:?}");
    let words = "no\n2026-01-01 ERROR all is lost\r\u{1b}[2J".to_owned();
    let reject = Reject { code: 99, words, known_disk: None };
    stream.write_all(&HandshakeMessage::Reject(reject).encode()).unwrap();
    until("the words", || lines.any(|line| line.contains("node 2 refuses us")));
    assert!(!lines.any(|line| line.chars().any(char::is_control)));
    until("the status to have them", || {
        let peers = node.status().peers;
        peers.iter().any(|peer| {
            peer.unreachable.as_ref().is_some_and(|why| {
                why.contains("all is lost") && !why.chars().any(char::is_control)
            })
        })
    });
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    let config = Config::new(id(1), ClusterId(1)).with_founder(id(1), "127.0.0.1:9");
    let node = Node::start(config, TestMachine::default().factory()).unwrap();
    node.wait_for_leader(LONG).unwrap();
    for n in 0..50_u8 {
        let mut stream = TcpStream::connect(node.listen_address().unwrap()).unwrap();
        let _ = stream.write_all(&[n; 5000]);
    }
    done(node.propose("x").wait());
}
