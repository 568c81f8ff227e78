//! Nodes that are watched: what their metrics, events, standing and log lines say while things happen to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use raftz_core::machine::{KvCommand, KvStore};
use raftz_core::node::{Config, Metrics, Node, NodeError, PeerNumbers, ProposeOptions};
use raftz_core::types::{
    ClusterId, Event, EventKind, EventKinds, Index, NodeId, Outcome, Role, SnapshotPhase,
};
use support::lines::Lines;
use support::{Cluster, Gate, LONG, TestMachine, done, id, until};

fn of_peer(metrics: &Metrics, peer: u64) -> PeerNumbers {
    let peer = metrics.peers.iter().find(|it| it.id == id(peer)).expect("known to the leader");
    peer.progress.expect("a leader knows how far it is")
}

fn failed(metrics: &Metrics, reason: &str) -> u64 {
    metrics.proposals_failed.iter().find(|(name, _)| *name == reason).unwrap().1
}

#[test]
fn numbers_move_as_what_they_count_does() {
    let mut cluster = Cluster::start(3, true);
    let leader = cluster.leader();
    let node = cluster.node(leader);
    let commands = (0..500).map(|n: u32| n.to_string().into()).collect();
    let outcomes = node.propose_batch(commands, ProposeOptions::default()).wait();
    let last = outcomes.into_iter().map(|outcome| done(outcome).index).max().unwrap();
    until("all of it counted", || node.metrics().proposals_committed == 500);
    let metrics = node.metrics();
    assert_eq!((metrics.node_id, metrics.leader), (id(leader), Some(id(leader))));
    assert!(metrics.is_leader && metrics.commit_index >= last && metrics.applied_index >= last);
    assert_eq!((metrics.first_index, metrics.proposals_pending), (Index(1), 0));
    assert_eq!(metrics.elections[0], ("won", 1));
    assert_eq!(metrics.term, node.status().term);
    assert_eq!(metrics.propose_us.count(), 500);
    assert!(metrics.commit_us.count() > 0 && metrics.apply_batch_us.count() > 0);
    assert!(metrics.append_batch_entries.sum() >= 500);
    assert_eq!((metrics.wal_bytes, metrics.wal_fsync_us.count()), (None, 0), "it has no disk");
    let age = metrics.oldest_log_entry_age.unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    node.query("", LONG).unwrap();
    until("the read counted", || node.metrics().reads[4] == ("stale", 1));

    // What is refused at once, and what is refused by the log, has its reason.
    let limit = node.status().settings.entry_bytes_max as usize;
    let refused = node.propose(vec![0; limit + 1]).wait();
    assert!(matches!(refused, Outcome::Refused(_)));
    assert_eq!(failed(&node.metrics(), "too_large"), 1);
    let follower = cluster.follower();
    let options = ProposeOptions { forward: Some(false), ..ProposeOptions::default() };
    let refused = cluster.node(follower).propose_opt("x", options).wait();
    assert!(matches!(refused, Outcome::Refused(_)));
    until("counted", || failed(&cluster.node(follower).metrics(), "not_leader") == 1);
    assert!(cluster.node(follower).metrics().peers.is_empty(), "only a leader knows");

    // A peer that is stopped is seen in lag and in contact; the other one is not.
    let third = 6 - leader - follower;
    until("a round trip", || of_peer(&cluster.node(leader).metrics(), follower).rtt.is_some());
    cluster.stop(follower);
    let node = cluster.node(leader);
    let at = done(node.propose("without it").wait()).index;
    until("time passes", || {
        of_peer(&node.metrics(), follower).last_contact > Duration::from_millis(300)
    });
    until("the third has it", || of_peer(&node.metrics(), third).match_index >= at);
    let metrics = node.metrics();
    let (gone, there) = (of_peer(&metrics, follower), of_peer(&metrics, third));
    assert!(gone.lag_entries > 0 && gone.state == "probe", "{gone:?}");
    assert_eq!((there.lag_entries, there.state), (0, "replicate"));
    assert!(there.last_contact < gone.last_contact && there.rtt.is_some());
}

#[test]
fn a_log_on_disk_is_measured_in_time_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(id(1), ClusterId(0x3e7)).with_directory(dir.path().join("one"));
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.segment_bytes = 5 << 20;
    Node::bootstrap(&config).unwrap();
    let node = Node::start(config.clone(), || Ok(Box::new(KvStore::new()))).unwrap();
    done(node.propose(KvCommand::Set { key: "a".into(), value: "b".into() }.encode()).wait());
    let snapshot = node.snapshot(LONG).unwrap();
    until("all of it", || {
        let metrics = node.metrics();
        metrics.wal_fsync_us.count() > 0
            && metrics.wal_bytes.is_some_and(|bytes| bytes >= 5 << 20)
            && metrics.snapshot_us[0].1.count() == 1
    });
    assert!(snapshot.base.id.index > Index::ZERO);
    node.shutdown(LONG).unwrap();
    config.metrics = false;
    let node = Node::start(config, || Ok(Box::new(KvStore::new()))).unwrap();
    done(node.propose(KvCommand::Set { key: "a".into(), value: "b".into() }.encode()).wait());
    let metrics = node.metrics();
    assert_eq!((metrics.proposals_committed, metrics.wal_fsync_us.count()), (0, 0), "it is off");
}

/// What a reader of OpenMetrics text finds: series by name and labels, and the type of each family.
#[derive(Default)]
struct Text {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
}

fn parse(text: &str) -> Text {
    let mut parsed = Text::default();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    for line in &lines[..lines.len() - 1] {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 10 && parsed.helps.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(parsed.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
            assert!(
                name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_' || c.is_ascii_digit())
            );
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(!key.is_empty() && !value.trim_end_matches('"').is_empty(), "{line}");
            }
            let suffixes = ["", "_total", "_sum", "_count", "_bucket"];
            let family = suffixes.iter().find_map(|suffix| {
                let family = name.strip_suffix(suffix)?;
                parsed.types.contains_key(family).then_some(family)
            });
            let family = family.unwrap_or_else(|| panic!("{line}: of no family"));
            assert_eq!(parsed.types[family] == "counter", name.ends_with("_total"), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(parsed.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    assert_eq!(parsed.helps, parsed.types.keys().cloned().collect(), "each with both");
    parsed
}

#[test]
fn the_text_parses_and_every_name_is_documented() {
    let cluster = Cluster::start(3, false);
    let leader = cluster.leader();
    let node = cluster.node(leader);
    (0..20).for_each(|n: u32| drop(done(node.propose(n.to_string()).wait())));
    until("round trips", || {
        let metrics = node.metrics();
        metrics.peers.len() == 2
            && metrics.peers.iter().all(|it| it.progress.unwrap().rtt.is_some())
    });
    let text = parse(&node.metrics_text());
    let of_node = format!("{{node=\"{leader}\",group=\"1\"}}");
    assert_eq!(text.series[&format!("raftz_is_leader{of_node}")], 1.0);
    assert_eq!(text.series[&format!("raftz_proposals_committed_total{of_node}")], 20.0);
    let won = format!("raftz_elections_total{{node=\"{leader}\",group=\"1\",result=\"won\"}}");
    assert_eq!(text.series[&won], 1.0);
    let bucket = |le: &str| {
        let series =
            format!("raftz_propose_seconds_bucket{{le=\"{le}\",node=\"{leader}\",group=\"1\"}}");
        let other =
            format!("raftz_propose_seconds_bucket{{node=\"{leader}\",group=\"1\",le=\"{le}\"}}");
        *text.series.get(&series).or_else(|| text.series.get(&other)).expect("a bucket")
    };
    assert_eq!(bucket("+Inf"), 20.0, "buckets are cumulative");
    assert!(bucket("0.00001") <= bucket("60.0"));
    let other = if leader == 1 { 2 } else { 1 };
    let state = |it: &&String| {
        it.starts_with("raftz_state{")
            && it.contains(&format!("peer=\"{other}\""))
            && it.contains("state=\"replicate\"")
    };
    assert_eq!(text.series.keys().filter(state).count(), 1);
    let documented = include_str!("../../README.md");
    for name in text.types.keys() {
        let short = name.strip_prefix("raftz_").expect("the prefix");
        assert!(documented.contains(&format!("`{short}`")), "README.md does not name {short}");
    }
}

#[test]
fn both_sides_of_a_transfer_show_who_how_much_and_which_phase() {
    let root = tempfile::tempdir().unwrap();
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> =
        listeners.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    let config = |n: u64| {
        let dir = root.path().join(n.to_string());
        let mut config = Config::new(id(n), ClusterId(0x3e8)).with_directory(dir);
        for (founder, address) in (1..).zip(&addresses) {
            config = config.with_founder(id(founder), address.clone());
        }
        config.listen_address.clone_from(&addresses[n as usize - 1]);
        (config.election_timeout_min_ms, config.election_timeout_max_ms) = (500, 1000);
        (config.snapshot_log_entries, config.snapshot_retain_bytes) = (0, 1000);
        // Slow enough to be seen on its way.
        config.snapshot_send_bytes_per_s = 1 << 20;
        config
    };
    let mut nodes: Vec<Option<Node>> = (1..)
        .zip(listeners)
        .map(|(n, listener)| {
            Node::bootstrap(&config(n)).unwrap();
            let machine = || Ok(Box::new(KvStore::new()) as _);
            Some(Node::start_with_listener(config(n), listener, machine).unwrap())
        })
        .collect();
    let leads = |nodes: &[Option<Node>]| {
        let mut found = 0;
        until("a ready leader", || {
            let ready = |node: &Option<Node>| node.as_ref().is_some_and(|it| it.status().ready);
            nodes.iter().position(ready).inspect(|at| found = *at).is_some()
        });
        found
    };
    let leader = leads(&nodes);
    let away = (leader + 1) % 3;
    nodes[away].take().unwrap().shutdown(LONG).unwrap();
    let leader = leads(&nodes);
    let node = nodes[leader].as_ref().unwrap();
    let value = |n: u64| KvCommand::Set {
        key: n.to_string().into(),
        value: vec![n as u8; 32 << 10].into(),
    };
    let commands = (0..64).map(|n| value(n).encode()).collect();
    node.propose_batch(commands, ProposeOptions::default())
        .wait()
        .into_iter()
        .for_each(|it| drop(done(it)));
    node.snapshot(LONG).unwrap();
    until("the log is short", || node.status().base.index > Index(10));
    let back = Node::start(config(away as u64 + 1), || Ok(Box::new(KvStore::new()) as _)).unwrap();
    let (giver, taker) = (id(leader as u64 + 1), id(away as u64 + 1));
    let transfer = |metrics: &Metrics, peer: NodeId| {
        metrics.peers.iter().find(|it| it.id == peer).and_then(|it| it.transfer)
    };
    let mut watch = back.watch();
    let (mut sent, mut fetched) = (None, None);
    until("both sides on the way", || {
        sent = transfer(&node.metrics(), taker).filter(|it| it.bytes > 0).or(sent);
        fetched = transfer(&back.metrics(), giver).filter(|it| it.bytes > 0).or(fetched);
        sent.is_some() && fetched.is_some()
    });
    let (sent, fetched) = (sent.unwrap(), fetched.unwrap());
    assert_eq!((sent.phase, fetched.phase), (SnapshotPhase::Sending, SnapshotPhase::Fetching));
    assert_eq!((sent.total_bytes, sent.index), (fetched.total_bytes, fetched.index));
    assert!(sent.total_bytes > 64 * (32 << 10) && sent.bytes <= sent.total_bytes);
    assert_eq!(watch.current().transfers.first().map(|it| it.peer), Some(giver));
    let total = format!(
        "raftz_snapshot_total_bytes{{node=\"{taker}\",group=\"1\",peer=\"{giver}\",phase=\"fetching\"}}"
    );
    assert_eq!(parse(&back.metrics_text()).series[&total], sent.total_bytes as f64);
    until("it is through", || {
        let metrics = back.metrics();
        metrics.snapshot_us[1].1.count() == 1 && metrics.snapshot_us[2].1.count() == 1
    });
    until("nothing is on its way", || {
        transfer(&back.metrics(), giver).is_none() && transfer(&node.metrics(), taker).is_none()
    });
    until("nor does it stand so", || watch.current().transfers.is_empty());
}

#[test]
fn an_observer_that_blocks_misses_no_latest_state() {
    let gate = Gate::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let cluster = Cluster::start_with(
        3,
        |config| {
            if config.node_id == id(1) {
                let (gate, events) = (gate.clone(), Arc::clone(&events));
                config.on_event = Some(Arc::new(move |_, event: &Event| {
                    gate.pass();
                    events.lock().unwrap().push(event.clone());
                }));
            }
        },
        |_| TestMachine::default(),
    );
    let subscription = cluster.node(1).subscribe(EventKinds::of(&[EventKind::Leader]));
    cluster.leader();
    // Cut off and back, again and again: whoever looks sees only how it ends.
    for _ in 0..3 {
        let mut watch = cluster.node(1).watch();
        cluster.network.isolate(id(1));
        until("it is alone", || watch.current().connected.is_empty());
        cluster.network.heal();
        until("it is led", || {
            let standing = watch.current();
            standing.leader.is_some() && standing.connected.len() == 2
        });
    }
    until("the observer blocks", || gate.is_reached());
    gate.open();
    let node = cluster.node(1);
    let latest = |wanted: fn(&Event) -> bool| {
        events.lock().unwrap().iter().rev().find(|event| wanted(event)).cloned()
    };
    let links = |peer: u64| {
        let mut seen = events.lock().unwrap().clone();
        seen.retain(|event| match event {
            Event::PeerUp { peer: it } | Event::PeerDown { peer: it, .. } => *it == id(peer),
            _ => false,
        });
        seen
    };
    until("the latest of everything", || {
        let status = node.status();
        let role = Event::Role { role: status.role, term: status.term };
        let leader = Event::Leader { leader: status.leader, term: status.term };
        latest(|event| matches!(event, Event::Role { .. })) == Some(role)
            && latest(|event| matches!(event, Event::Leader { .. })) == Some(leader)
            && [2, 3]
                .iter()
                .all(|peer| links(*peer).last() == Some(&Event::PeerUp { peer: id(*peer) }))
    });
    for peer in [2, 3] {
        let links = links(peer);
        assert!(links.len() <= 2, "one may have been on its way already: {links:?}");
    }
    assert_eq!((node.status().events_dropped, node.metrics().events_dropped), (0, 0));
    let mut leaders = Vec::new();
    while let Some((_, event)) = subscription.try_next() {
        leaders.push(event);
    }
    assert!(matches!(leaders[..], [Event::Leader { leader: Some(_), .. }]), "{leaders:?}");
}

#[test]
fn a_watch_tells_of_a_change_to_a_thread_and_to_a_future_and_of_the_end() {
    let cluster = Cluster::start(1, true);
    let node = cluster.node(1);
    let mut watch = node.watch();
    let leads =
        |standing: &raftz_core::node::Standing| standing.role == Role::Leader && standing.ready;
    if !leads(&watch.current()) {
        while !leads(&watch.changed(LONG).unwrap().expect("it will lead")) {}
    }
    assert_eq!(watch.changed(Duration::from_millis(20)).unwrap(), None, "nothing happens");
    done(node.propose("x").wait());
    assert_eq!(watch.changed(Duration::ZERO).unwrap(), None, "nor is load a change");
    let mut other = node.watch();
    let mut next = std::pin::pin!(other.next());
    let mut context = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut context).is_pending());
    node.shutdown(LONG).unwrap();
    let Poll::Ready(Ok(standing)) = next.as_mut().poll(&mut context) else { panic!("the end") };
    assert!(standing.shut_down && standing.leader.is_none());
    assert!(watch.changed(LONG).unwrap().unwrap().shut_down);
    assert!(matches!(watch.changed(LONG), Err(NodeError::ShutDown)));
    let late = node.subscribe(EventKinds::ALL);
    assert!(matches!(late.next(LONG), Err(NodeError::ShutDown)));
}

#[test]
fn without_a_quorum_a_line_says_every_five_seconds_who_is_missing() {
    let lines = Lines::default();
    let mut cluster = tracing::subscriber::with_default(lines.clone(), || Cluster::start(3, true));
    let leader = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
    let said = |line: &str| line.contains("no quorum: 1 of 3 reachable; node ");
    assert_eq!(lines.count(said), 0);
    for n in &others {
        cluster.stop(*n);
    }
    let begun = Instant::now();
    until("it is said", || lines.any(said));
    let first = begun.elapsed();
    assert!(first > Duration::from_secs(5), "not at once: {first:?}");
    until("it is said again", || lines.count(said) == 2);
    let second = begun.elapsed() - first;
    assert!(second > Duration::from_secs(4), "{second:?}");
    let line = lines.all().into_iter().find(|line| said(line)).unwrap();
    for n in others {
        assert!(line.contains(&format!("node {n} at 127.0.0.1:{}: ", 7000 + n)), "{line}");
    }
    assert!(line.contains(&format!("node={leader} ")) && line.contains("group=1 "), "{line}");
}
