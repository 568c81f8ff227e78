//! One node alone: it is its own majority.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::node::{NodeError, ProposeOptions, ReadOptions};
use raftz_core::types::{Index, Outcome, ReadLevel, Refusal, Reply, Role, Unknown};
use support::{Cluster, LONG, Mood, TestMachine, done, id};

#[test]
fn a_node_alone_leads_and_commits() {
    for inline in [true, false] {
        let cluster = Cluster::start(1, inline);
        let node = cluster.node(1);
        assert_eq!(node.wait_for_leader(LONG).unwrap(), id(1));
        let first = done(node.propose("a").wait());
        let second = done(node.propose_blocking("b", LONG));
        assert!(second.index > first.index);
        assert_eq!(first.reply, Reply::Ok(Bytes::from("a")));
        assert_eq!(cluster.machine(1).commands(), ["a", "b"]);
        node.wait_for_applied(second.index, LONG).unwrap();
        assert_eq!(node.query("", LONG).unwrap(), Reply::Ok(Bytes::from("2")));
        let status = node.status();
        assert_eq!((status.role, status.leader), (Role::Leader, Some(id(1))));
        assert!(status.ready && status.commit >= second.index && status.applied >= second.index);
    }
}

#[test]
fn a_rejection_is_an_ordinary_reply() {
    let cluster = Cluster::start(1, true);
    let reply = done(cluster.node(1).propose("reject").wait()).reply;
    assert_eq!(reply, Reply::Rejected(Bytes::from("as asked")));
    done(cluster.node(1).propose("next").wait());
}

#[test]
fn a_batch_keeps_its_order_and_each_command_its_outcome() {
    let cluster = Cluster::start(1, false);
    let commands: Vec<Bytes> = (0..100).map(|n| Bytes::from(n.to_string())).collect();
    let outcomes =
        cluster.node(1).propose_batch(commands.clone(), ProposeOptions::default()).wait();
    let replies: Vec<Reply> = outcomes.into_iter().map(|outcome| done(outcome).reply).collect();
    assert_eq!(replies, commands.iter().cloned().map(Reply::Ok).collect::<Vec<_>>());
    assert_eq!(cluster.machine(1).commands(), commands);
    assert!(cluster.node(1).propose_batch(vec![], ProposeOptions::default()).wait().is_empty());
}

#[test]
fn a_query_that_fails_is_its_asker_s_misfortune() {
    let cluster = Cluster::start(1, false);
    let node = cluster.node(1);
    let error = node.query("fail", LONG).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("told to fail")), (-73, true), "{error}");
    assert!(node.query("panic", LONG).unwrap_err().to_string().contains("it panicked: told to"));
    assert_eq!(node.query("", LONG).unwrap(), Reply::Ok(Bytes::from("0")));
    done(node.propose("goes on").wait());
}

#[test]
fn a_command_for_another_term_is_refused_before_it_reaches_the_log() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let term = node.status().term;
    let propose = |expected| {
        let options = ProposeOptions { expected_term: Some(expected), ..Default::default() };
        node.propose_opt("x", options).wait()
    };
    assert_eq!(done(propose(term)).term, term);
    let wanted = term.next();
    let refused = Outcome::Refused(Refusal::TermMismatch { wanted, led: Some(term) });
    assert_eq!(propose(wanted), refused);
    assert_eq!(cluster.machine(1).commands(), ["x"]);
}

#[test]
fn a_batch_s_completion_runs_once_with_all_outcomes_in_order() {
    let cluster = Cluster::start(1, true);
    let (tell, told) = mpsc::channel();
    let batch = |commands: Vec<Bytes>| {
        let tell = tell.clone();
        let done = move |outcomes| tell.send(outcomes).unwrap();
        cluster.node(1).propose_batch_with(commands, ProposeOptions::default(), done)
    };
    let limit = cluster.node(1).status().settings.entry_bytes_max;
    let too_large = Bytes::from(vec![0; limit as usize + 1]);
    batch(vec!["a".into(), too_large.clone(), "b".into()]).unwrap();
    let outcomes = told.recv_timeout(LONG).unwrap();
    let refused = Outcome::Refused(Refusal::TooLarge { bytes: limit + 1, limit });
    assert_eq!(outcomes[1], refused);
    let replies = [0, 2].map(|at: usize| done(outcomes[at].clone()).reply);
    assert_eq!(replies, ["a", "b"].map(|text| Reply::Ok(text.into())));
    batch(vec![too_large]).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), [refused]);
    batch(vec![]).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), []);
    cluster.node(1).shutdown(LONG).unwrap();
    assert_eq!(batch(vec!["late".into()]), Err(Refusal::ShuttingDown));
    assert_eq!(batch(vec![]), Err(Refusal::ShuttingDown));
    drop(tell);
    assert!(told.recv_timeout(LONG).is_err(), "every batch was told once");
}

#[test]
fn a_query_s_completion_runs_once_by_its_deadline() {
    let gate = support::Gate::default();
    let machine = |_| TestMachine { inline: false, gate: Some(gate.clone()), ..Default::default() };
    let cluster = Cluster::start_with(1, |_| {}, machine);
    let node = cluster.node(1);
    let (tell, told) = mpsc::channel();
    let ask = |timeout| {
        let tell = tell.clone();
        node.read_with(
            "",
            ReadOptions { level: ReadLevel::Stale, timeout: Some(timeout) },
            move |answer| tell.send(answer.map_err(|e| e.code())).unwrap(),
        )
    };
    let pending = node.propose("x");
    support::until("the machine blocks", || gate.is_reached());
    ask(Duration::from_millis(50)).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(-71));
    ask(LONG).unwrap();
    gate.open();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Ok(Reply::Ok(Bytes::from("1"))));
    done(pending.wait());
    support::until("all permits are back", || node.status().calls_in_flight == 0);
    node.shutdown(LONG).unwrap();
    assert_eq!(ask(LONG).unwrap_err().code(), NodeError::ShutDown.code());
    assert!(told.try_recv().is_err());
}

#[test]
fn a_completion_runs_once_on_the_callback_thread() {
    let cluster = Cluster::start(1, true);
    let (tell, told) = mpsc::channel();
    cluster
        .node(1)
        .propose_with("x", ProposeOptions::default(), move |outcome| {
            let name = std::thread::current().name().map(str::to_owned);
            tell.send((name, outcome)).unwrap();
        })
        .unwrap();
    let (name, outcome) = told.recv_timeout(LONG).unwrap();
    assert_eq!(name.as_deref(), Some("raftz-1-call"));
    assert_eq!(done(outcome).reply, Reply::Ok(Bytes::from("x")));
    assert!(told.recv_timeout(LONG).is_err(), "the callback was dropped after its only call");
}

#[test]
fn what_a_long_completion_proposes_is_done_before_it_ends() {
    let cluster = std::sync::Arc::new(Cluster::start(1, true));
    let (tell, told) = mpsc::channel();
    let inner = std::sync::Arc::clone(&cluster);
    cluster
        .node(1)
        .propose_with("first", ProposeOptions::default(), move |_| {
            drop(inner.node(1).propose("second"));
            support::until("the second command is applied", || {
                inner.machine(1).commands() == ["first", "second"]
            });
            tell.send(()).unwrap();
        })
        .unwrap();
    told.recv_timeout(LONG).unwrap();
}

#[test]
fn blocking_calls_inside_a_callback_are_refused_with_a_reason() {
    let cluster = Cluster::start(1, true);
    let node = std::sync::Arc::new(cluster);
    let (tell, told) = mpsc::channel();
    let inner = std::sync::Arc::clone(&node);
    node.node(1)
        .propose_with("x", ProposeOptions::default(), move |_| {
            let node = inner.node(1);
            let blocking = node.propose_blocking("y", LONG);
            let waited = node.propose("z").wait();
            let errors = [
                node.query("", LONG).map(|_| ()).unwrap_err(),
                node.wait_for_leader(LONG).map(|_| ()).unwrap_err(),
                node.wait_for_applied(Index(1), LONG).unwrap_err(),
                node.shutdown(LONG).unwrap_err(),
            ];
            let status = node.status().role;
            drop(inner);
            tell.send((blocking, waited, errors, status)).unwrap();
        })
        .unwrap();
    let (blocking, waited, errors, role) = told.recv_timeout(LONG).unwrap();
    assert!(matches!(blocking, Outcome::Refused(Refusal::InCallback { .. })), "{blocking:?}");
    assert!(
        matches!(waited, Outcome::Unknown(Unknown::InCallback { .. }) | Outcome::Done(_)),
        "{waited:?}"
    );
    for error in errors {
        assert!(matches!(error, NodeError::InCallback { .. }), "{error}");
        assert!(error.to_string().contains("completion callback"), "{error}");
    }
    assert_eq!(role, Role::Leader);
    done(node.node(1).propose("still alive").wait());
}

#[test]
fn a_command_beyond_the_clusters_limit_is_refused_with_both_sizes() {
    let cluster =
        Cluster::start_with(1, |config| config.entry_bytes_max = 1000, |_| TestMachine::default());
    let node = cluster.node(1);
    let outcome = node.propose(vec![0; 1001]).wait();
    assert_eq!(outcome, Outcome::Refused(Refusal::TooLarge { bytes: 1001, limit: 1000 }));
    let batch = vec![Bytes::from(vec![0; 1000]), Bytes::from(vec![0; 2000])];
    let outcomes = node.propose_batch(batch, ProposeOptions::default()).wait();
    done(outcomes[0].clone());
    assert_eq!(outcomes[1], Outcome::Refused(Refusal::TooLarge { bytes: 2000, limit: 1000 }));
    done(node.propose(vec![0; 1000]).wait());
}

#[test]
fn beyond_the_bound_on_calls_in_flight_callers_are_told_busy_at_once() {
    let gate = support::Gate::default();
    let machine =
        TestMachine { gate: Some(gate.clone()), ..TestMachine::with_mood(Mood::Fine, false) };
    let cluster = Cluster::start_with(1, |config| config.calls_max = 10, move |_| machine.clone());
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let pending: Vec<_> = (0..10).map(|n| node.propose(n.to_string())).collect();
    let refused = node.propose("one too many").wait();
    let Outcome::Refused(Refusal::Busy { what }) = &refused else { panic!("{refused:?}") };
    assert!(what.contains("calls_max = 10"), "{what}");
    let direct = node.propose_with("too", ProposeOptions::default(), |_| panic!("not accepted"));
    assert!(matches!(direct, Err(Refusal::Busy { .. })));
    gate.open();
    for call in pending {
        done(call.wait());
    }
    done(node.propose("room again").wait());
}

#[test]
fn a_call_that_cannot_end_ends_by_its_deadline_as_unknown() {
    let gate = support::Gate::default();
    let machine =
        TestMachine { gate: Some(gate.clone()), ..TestMachine::with_mood(Mood::Fine, false) };
    let cluster = Cluster::start_with(1, |_| {}, move |_| machine.clone());
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let outcome = node.propose_blocking("stuck", Duration::from_millis(50));
    assert_eq!(outcome, Outcome::Unknown(Unknown::Timeout));
    let error = node.query("", Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, NodeError::QueryTimeout { .. }), "{error}");
    let error = node.wait_for_applied(Index(100), Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("node 1 leads"), "{error}");
    gate.open();
}
