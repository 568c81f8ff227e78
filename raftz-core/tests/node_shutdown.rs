//! Shutdown: bounded, and every accepted call ends exactly once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use raftz_core::node::{NodeError, ProposeOptions, ReadOptions};
use raftz_core::types::{Index, Outcome, ReadLevel, Refusal};
use support::{Cluster, LONG, TestMachine, until};

#[test]
fn calls_after_shutdown_are_refused_and_a_second_shutdown_is_harmless() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    node.shutdown(LONG).unwrap();
    assert_eq!(node.propose("x").wait(), Outcome::Refused(Refusal::ShuttingDown));
    let direct = node.propose_with("x", ProposeOptions::default(), |_| panic!("not accepted"));
    assert_eq!(direct, Err(Refusal::ShuttingDown));
    assert!(matches!(node.query("", LONG), Err(NodeError::ShutDown)));
    assert!(matches!(node.wait_for_leader(LONG), Err(NodeError::ShutDown)));
    assert!(matches!(node.wait_for_applied(Index(999), LONG), Err(NodeError::ShutDown)));
    assert!(node.status().shut_down);
    node.shutdown(LONG).unwrap();
}

#[test]
fn a_stuck_completion_makes_shutdown_name_the_thread_instead_of_hanging() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    let gate = support::Gate::default();
    let theirs = gate.clone();
    let entered = Arc::new(AtomicBool::new(false));
    let inside = Arc::clone(&entered);
    node.propose_with("x", ProposeOptions::default(), move |_| {
        inside.store(true, Ordering::SeqCst);
        theirs.pass();
    })
    .unwrap();
    until("the callback to begin", || entered.load(Ordering::SeqCst));
    let error = node.shutdown(Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("raftz-1-call"), "{error}");
    gate.open();
    node.shutdown(LONG).unwrap();
}

#[test]
fn a_query_that_the_machine_is_at_is_answered_once_on_the_callback_thread() {
    for shut_down in [true, false] {
        let machine = |_| TestMachine { inline: false, ..TestMachine::default() };
        let cluster = Cluster::start_with(1, |_| {}, machine);
        let (node, gate) = (cluster.node(1), &cluster.machine(1).query_gate);
        let (tell, told) = mpsc::channel();
        let timeout = if shut_down { LONG } else { Duration::from_millis(50) };
        node.read_with(
            "wait",
            ReadOptions { level: ReadLevel::Stale, timeout: Some(timeout) },
            move |answer| {
                let name = std::thread::current().name().map(str::to_owned);
                tell.send((name, answer.unwrap_err().code())).unwrap();
            },
        )
        .unwrap();
        until("the machine to be asked", || gate.is_reached());
        let code = if shut_down {
            let error = node.shutdown(Duration::from_millis(50)).unwrap_err();
            assert!(error.to_string().contains("raftz-1-apply"), "{error}");
            NodeError::ShutDown.code()
        } else {
            -71
        };
        assert_eq!(told.recv_timeout(LONG).unwrap(), (Some("raftz-1-call".into()), code));
        gate.open();
        node.shutdown(LONG).unwrap();
        assert!(told.try_recv().is_err(), "told twice");
    }
}

#[test]
fn a_shutdown_at_any_moment_loses_no_call() {
    for round in 0..12_u64 {
        let cluster = Cluster::start(if round % 3 == 0 { 3 } else { 1 }, round % 2 == 0);
        let node = cluster.node(1);
        if round % 4 != 0 {
            node.wait_for_leader(LONG).unwrap();
        }
        let accepted = AtomicU64::new(0);
        let ended = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let accepted = &accepted;
                let ended = Arc::clone(&ended);
                scope.spawn(move || {
                    for n in 0.. {
                        if n % 3 == thread % 3 {
                            // Waited for: it must return.
                            let outcome = node.propose("waited").wait();
                            if outcome == Outcome::Refused(Refusal::ShuttingDown) {
                                return;
                            }
                            continue;
                        }
                        let ended = Arc::clone(&ended);
                        let result =
                            node.propose_with("called", ProposeOptions::default(), move |_| {
                                ended.fetch_add(1, Ordering::SeqCst);
                            });
                        match result {
                            Ok(()) => accepted.fetch_add(1, Ordering::SeqCst),
                            Err(Refusal::ShuttingDown) => return,
                            Err(Refusal::Busy { .. }) => continue,
                            Err(other) => panic!("{other}"),
                        };
                    }
                });
            }
            until("some load", || accepted.load(Ordering::SeqCst) > round * 20);
            node.shutdown(LONG).unwrap();
        });
        assert_eq!(accepted.load(Ordering::SeqCst), ended.load(Ordering::SeqCst));
    }
}

#[test]
fn a_node_dropped_under_load_answers_everybody() {
    let mut cluster = Cluster::start(1, true);
    let ended = Arc::new(AtomicU64::new(0));
    let mut accepted = 0;
    let node = cluster.nodes[0].take().unwrap();
    node.wait_for_leader(LONG).unwrap();
    for _ in 0..1000 {
        let ended = Arc::clone(&ended);
        let count = move |_| {
            ended.fetch_add(1, Ordering::SeqCst);
        };
        if node.propose_with("x", ProposeOptions::default(), count).is_ok() {
            accepted += 1;
        }
    }
    drop(node);
    until("all answers", || ended.load(Ordering::SeqCst) == accepted);
}
