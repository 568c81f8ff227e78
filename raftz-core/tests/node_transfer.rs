//! Leadership that is moved, through the public handle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use raftz_core::node::{Config, NodeError};
use raftz_core::types::{Event, Outcome, TransferPhase};
use support::{Cluster, LONG, TestMachine, done, id, until};

/// The leader, once everybody has everything.
fn settled(cluster: &Cluster) -> u64 {
    let leader = cluster.leader();
    until("a transfer to be possible", || {
        let status = cluster.node(leader).status();
        status.peers.iter().all(|peer| peer.connected && peer.matched == Some(status.last.index))
    });
    leader
}

fn transfer(cluster: &Cluster, from: u64, to: Option<u64>) -> u64 {
    cluster.node(from).transfer_leadership(to.map(id), LONG).unwrap().get()
}

#[test]
fn leadership_moves_to_the_node_that_is_named_and_to_the_best() {
    let cluster = Cluster::start(3, true);
    let first = settled(&cluster);
    let named = if first == 3 { 1 } else { 3 };
    assert_eq!(transfer(&cluster, first, Some(named)), named);
    assert_eq!(cluster.leader(), named);
    assert_eq!(cluster.node(first).status().leader, Some(id(named)));
    let best = transfer(&cluster, named, None);
    assert_ne!(best, named);
    assert_eq!(cluster.leader(), best);
    assert_eq!(cluster.node(best).status().transfer, None);
    done(cluster.node(first).propose("after").wait());
}

#[test]
fn a_transfer_that_cannot_be_says_why_by_number() {
    let cluster = Cluster::start(3, true);
    let leader = settled(&cluster);
    let follower = cluster.follower();
    cluster.node(follower).wait_for_leader(LONG).unwrap();
    let code = |at: u64, to: u64| {
        let error = cluster.node(at).transfer_leadership(Some(id(to)), LONG).unwrap_err();
        (error.code(), error.to_string())
    };
    let (number, words) = code(follower, leader);
    assert_eq!(number, -1);
    assert!(words.contains(&format!("node {leader} does")), "{words}");
    assert_eq!(code(leader, 9).0, -80);
    assert_eq!(code(leader, leader).0, -80);
    assert_eq!(cluster.leader(), leader);
    let alone = Cluster::start(1, true);
    alone.leader();
    let error = alone.node(1).step_down(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string()),
        (-81, "nobody to hand over to: there is no other voter".into())
    );
    alone.node(1).shutdown(LONG).unwrap();
    assert!(matches!(alone.node(1).step_down(LONG), Err(NodeError::ShutDown)));
    let late = alone.node(1).step_down_with(LONG, |_| panic!("not accepted"));
    assert!(matches!(late, Err(NodeError::ShutDown)));
}

#[test]
fn a_callback_is_told_once_and_may_not_wait_for_another_transfer() {
    let cluster = Cluster::start(3, true);
    let leader = settled(&cluster);
    let (tell, told) = mpsc::channel();
    let node = cluster.node(leader);
    node.step_down_with(LONG, move |ended| tell.send(ended).unwrap()).unwrap();
    assert_ne!(told.recv_timeout(LONG).unwrap().unwrap(), id(leader));
    assert!(told.recv().is_err(), "told once");
    let cluster = Arc::new(cluster);
    let theirs = Arc::clone(&cluster);
    let (tell, told) = mpsc::channel();
    let node = cluster.node(leader);
    node.transfer_leadership_with(None, LONG, move |ended| {
        let inside = theirs.node(leader).transfer_leadership(None, LONG);
        tell.send((ended.unwrap_err().code(), inside.unwrap_err().code())).unwrap();
        drop(theirs);
    })
    .unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), (-1, -9), "it follows; and it is inside");
    assert!(told.recv().is_err(), "told once");
}

#[test]
fn calls_on_every_node_go_on_while_leadership_moves_around() {
    let cluster = Cluster::start(3, true);
    let mut leader = settled(&cluster);
    let stop = AtomicBool::new(false);
    let proposed = std::thread::scope(|scope| {
        let clients: Vec<_> = cluster
            .running()
            .map(|node| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let outcome = node.propose(format!("{}:{count}", node.id())).wait();
                        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for _ in 0..6 {
            let next = transfer(&cluster, leader, Some(leader % 3 + 1));
            assert_eq!(next, leader % 3 + 1);
            leader = next;
            let index = cluster.node(leader).status().commit.0 + 20;
            until("calls to go on", || cluster.node(leader).status().commit.0 > index);
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    let last = done(cluster.node(leader).propose("last").wait()).index;
    for node in cluster.running() {
        node.wait_for_applied(last, LONG).unwrap();
        assert_eq!(cluster.machine(node.id().get()).commands().len(), proposed + 1);
    }
}

#[test]
fn a_leader_that_shuts_down_hands_over_first() {
    let handed = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&handed);
    let adjust = move |config: &mut Config| {
        let events = Arc::clone(&events);
        config.on_event = Some(Arc::new(move |_, event| {
            if let Event::Transfer { to, phase: TransferPhase::Done, .. } = event {
                events.lock().unwrap().push(*to);
            }
        }));
    };
    let mut cluster = Cluster::start_with(3, adjust, |_| TestMachine::default());
    let old = settled(&cluster);
    cluster.stop(old);
    let handed = handed.lock().unwrap().clone();
    assert_eq!(handed.len(), 1, "{handed:?}");
    assert_eq!(id(cluster.leader()), handed[0]);
}

#[test]
fn a_shutdown_with_nobody_to_hand_over_to_waits_for_nobody() {
    let mut cluster = Cluster::start(3, true);
    let leader = settled(&cluster);
    for follower in (1..=3).filter(|n| *n != leader) {
        cluster.stop(follower);
    }
    let begun = Instant::now();
    cluster.stop(leader);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_node_that_is_dropped_or_shut_down_ends_every_transfer() {
    let (tell, told) = mpsc::channel();
    for n in 0..3 {
        let cluster = Cluster::start(3, true);
        let leader = settled(&cluster);
        for _ in 0..4 {
            let tell = tell.clone();
            let node = cluster.node(leader);
            node.transfer_leadership_with(None, LONG, move |_| tell.send(()).unwrap()).unwrap();
        }
        if n == 0 {
            cluster.node(leader).shutdown(LONG).unwrap();
        }
        drop(cluster);
        for _ in 0..4 {
            told.recv_timeout(LONG).unwrap();
        }
    }
    drop(tell);
    assert!(told.recv().is_err(), "each is told once");
}

#[test]
fn the_preferred_node_leads_in_the_end() {
    let adjust = |config: &mut Config| {
        config.election_priority = if config.node_id == id(2) { 90 } else { 20 };
    };
    let cluster = Cluster::start_with(3, adjust, |_| TestMachine::default());
    until("node 2 to lead", || cluster.leader() == 2);
}

#[test]
fn wrong_priorities_are_refused_by_name() {
    let mut config = support::config(1, 1);
    config.set("election_priority", "101").unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("election_priority") && error.contains("100"), "{error}");
    config.set("election_priority", "0").unwrap();
    config.set("disk_stall_timeout_ms", "3600001").unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("disk_stall_timeout_ms"), "{error}");
    config.set("disk_stall_timeout_ms", "250").unwrap();
    config.validate().unwrap();
}
