//! Three nodes over a network in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{NodeError, ProposeOptions};
use raftz_core::types::{Outcome, Refusal};
use support::{Cluster, LONG, done, id, until};

#[test]
fn every_node_takes_proposals_and_applies_all_of_them_in_one_order() {
    for inline in [true, false] {
        let cluster = Cluster::start(3, inline);
        let leader = cluster.leader();
        for node in cluster.running() {
            assert_eq!(node.wait_for_leader(LONG).unwrap(), id(leader));
        }
        std::thread::scope(|scope| {
            for node in cluster.running() {
                scope.spawn(move || {
                    for n in 0..100 {
                        done(node.propose(format!("{}:{n}", node.id())).wait());
                    }
                });
            }
        });
        let last = done(cluster.node(leader).propose("last").wait()).index;
        for node in cluster.running() {
            node.wait_for_applied(last, LONG).unwrap();
        }
        let first = cluster.machine(1).commands();
        assert_eq!(first.len(), 301);
        assert_eq!(first, cluster.machine(2).commands());
        assert_eq!(first, cluster.machine(3).commands());
    }
}

#[test]
fn a_follower_that_may_not_forward_names_the_leader() {
    let cluster = Cluster::start(3, true);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.node(follower).wait_for_leader(LONG).unwrap();
    let options = ProposeOptions { forward: Some(false), ..ProposeOptions::default() };
    let outcome = cluster.node(follower).propose_opt("x", options).wait();
    assert_eq!(outcome, Outcome::Refused(Refusal::NotLeader { hint: Some(id(leader)) }));
}

#[test]
fn when_the_leader_stops_the_others_go_on_and_lose_nothing() {
    let mut cluster = Cluster::start(3, true);
    let old = cluster.leader();
    for n in 0..50 {
        done(cluster.node(old).propose(format!("before {n}")).wait());
    }
    cluster.stop(old);
    let survivor = cluster.running().next().unwrap().id().get();
    // Right after the stop a proposal may still meet the old leader and end as not known.
    until("a write after the failover", || {
        matches!(cluster.node(survivor).propose("after").wait(), Outcome::Done(_))
    });
    let new = cluster.leader();
    assert_ne!(new, old);
    let last = done(cluster.node(new).propose("last").wait()).index;
    for node in cluster.running() {
        node.wait_for_applied(last, LONG).unwrap();
        let commands = cluster.machine(node.id().get()).commands();
        let before = commands.iter().filter(|bytes| bytes.starts_with(b"before")).count();
        assert_eq!(before, 50);
        let status = node.status();
        let gone = status.peers.iter().find(|peer| peer.id == id(old)).unwrap();
        assert!(!gone.connected);
    }
}

#[test]
fn without_a_quorum_the_caller_learns_who_is_unreachable_and_why() {
    let mut cluster = Cluster::start(3, true);
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
    for other in &others {
        cluster.stop(*other);
    }
    let node = cluster.node(leader);
    until("the leader to notice", || node.status().leader.is_none());
    let error = node.wait_for_leader(Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, NodeError::NoLeader { .. }), "{error}");
    for other in &others {
        assert!(
            error.to_string().contains(&format!("node {other} at 127.0.0.1:700{other}")),
            "{error}"
        );
    }
    let outcome = node.propose_blocking("x", Duration::from_millis(300));
    match outcome {
        Outcome::Refused(Refusal::NoLeader { detail }) => {
            assert!(others.iter().any(|other| detail.contains(&other.to_string())), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_callback_that_blocks_for_ten_election_timeouts_causes_no_election() {
    let cluster = Cluster::start(3, true);
    let leader = cluster.leader();
    let term = cluster.node(leader).status().term;
    let (tell, told) = mpsc::channel();
    for node in cluster.running() {
        let tell = tell.clone();
        let blocked = Duration::from_millis(600 * 10);
        node.propose_with("x", ProposeOptions::default(), move |outcome| {
            tell.send(()).unwrap();
            // Blocks on something that never comes: the honest way to hold up a thread.
            let (never, nothing) = mpsc::channel::<()>();
            assert!(nothing.recv_timeout(blocked).is_err());
            drop(never);
            done(outcome);
            tell.send(()).unwrap();
        })
        .unwrap();
    }
    for _ in 0..3 {
        told.recv_timeout(LONG).unwrap();
    }
    // While every callback thread is stuck, writes go on and nobody stands for election.
    let mut finished = 0;
    let mut writes = 0;
    while finished < 3 {
        let outcome = cluster.node(leader).propose_blocking("y", LONG);
        done(outcome);
        writes += 1;
        finished += told.try_iter().count();
    }
    assert!(writes > 10, "{writes} writes went through meanwhile");
    for node in cluster.running() {
        assert_eq!(node.status().term, term);
    }
}

#[test]
fn a_node_cut_off_catches_up_when_it_is_back() {
    let cluster = Cluster::start(3, false);
    let follower = cluster.follower();
    let leader = cluster.leader();
    cluster.network.isolate(id(follower));
    let commands: Vec<Bytes> = (0..500).map(|n| Bytes::from(n.to_string())).collect();
    let outcomes =
        cluster.node(leader).propose_batch(commands.clone(), ProposeOptions::default()).wait();
    let last = done(outcomes.last().unwrap().clone()).index;
    cluster.network.heal();
    cluster.node(follower).wait_for_applied(last, LONG).unwrap();
    assert_eq!(cluster.machine(follower).commands(), commands);
}

#[test]
fn events_reach_the_observer_with_their_group() {
    use raftz_core::types::{Event, GroupId, Role};
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&seen);
    let cluster = Cluster::start_with(
        3,
        move |config| {
            let seen = Arc::clone(&theirs);
            config.on_event = Some(Arc::new(move |group, event| {
                seen.lock().unwrap().push((group, event.clone()));
            }));
        },
        |_| support::TestMachine::default(),
    );
    cluster.leader();
    until("the news of the leader", || {
        seen.lock().unwrap().iter().any(|(group, event)| {
            *group == GroupId::FIRST && matches!(event, Event::Role { role: Role::Leader, .. })
        })
    });
}
