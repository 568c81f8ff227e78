//! What breaks, breaks one replica: never the process, never in silence, never a caller's wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raftz_core::machine::{MachineError, StateMachine};
use raftz_core::node::{Config, Node, NodeError, ProposeOptions, StorageKind};
use raftz_core::storage::{Completion, LogReader, Storage, StorageError, WriteBatch};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{
    Base, Boot, ClusterId, DiskId, Entry, Event, FaultReason, GroupId, HardState, Identity, Index,
    Member, Membership, Outcome, Recovered, Refusal, Settings, Unknown,
};
use support::{Cluster, LONG, Mood, TestMachine, config, done, id, until};

const BAD_MOODS: [Mood; 4] =
    [Mood::Fails, Mood::Panics, Mood::OneReplyTooMany, Mood::OneReplyTooFew];

#[test]
fn a_machine_that_breaks_faults_its_own_replica_only() {
    for mood in BAD_MOODS {
        for inline in [true, false] {
            let events = Arc::new(Mutex::new(Vec::new()));
            let theirs = Arc::clone(&events);
            let cluster = Cluster::start_with(
                3,
                move |config| {
                    let (seen, node) = (Arc::clone(&theirs), config.node_id);
                    config.on_event = Some(Arc::new(move |_, event| {
                        if let Event::Faulted(reason) = event {
                            seen.lock().unwrap().push((node, reason.clone()));
                        }
                    }));
                },
                |n| TestMachine::with_mood(if n == 2 { mood } else { Mood::Fine }, inline),
            );
            let leader = cluster.leader();
            cluster.node(2).wait_for_leader(LONG).unwrap();
            let from = if leader == 1 { 3 } else { 1 };
            let patience = Duration::from_secs(1);
            let outcome = cluster.node(from).propose_blocking("bad", patience);
            // If the broken node led, its caller's answer may have been lost with it.
            if leader != 2 {
                done(outcome);
            }
            until("the fault", || cluster.node(2).status().fault.is_some());
            let fault = cluster.node(2).status().fault.unwrap();
            let FaultReason::Machine { kind, index, .. } = &fault else { panic!("{fault}") };
            assert_eq!(*kind, "apply");
            assert!(index.0 > 0);
            until("the event", || {
                events.lock().unwrap().iter().any(|(node, why)| *node == id(2) && *why == fault)
            });
            // The others go on; the broken one refuses, with the reason.
            until("a write on the others", || {
                matches!(cluster.node(from).propose_blocking("good", patience), Outcome::Done(_))
            });
            let refused = cluster.node(2).propose("x").wait();
            let Outcome::Refused(Refusal::Faulted { reason }) = &refused else {
                panic!("{mood:?}: {refused:?}")
            };
            assert!(reason.contains("state machine failed at index"), "{reason}");
            assert!(matches!(cluster.node(2).query("", LONG), Err(NodeError::Faulted { .. })));
            let error = cluster.node(2).wait_for_leader(LONG).unwrap_err();
            assert!(matches!(error, NodeError::Faulted { .. }), "{error}");
            assert_eq!(events.lock().unwrap().len(), 1, "{:?}", events.lock().unwrap());
        }
    }
}

#[test]
fn callers_of_a_node_that_faults_are_all_answered() {
    for inline in [true, false] {
        let cluster =
            Cluster::start_with(1, |_| {}, |_| TestMachine::with_mood(Mood::Panics, inline));
        let node = cluster.node(1);
        node.wait_for_leader(LONG).unwrap();
        let commands = (0..50)
            .map(|n| Bytes::from(if n == 20 { "bad".to_owned() } else { n.to_string() }))
            .collect();
        let outcomes = node.propose_batch(commands, ProposeOptions::default()).wait();
        assert_eq!(outcomes.len(), 50);
        assert!(
            outcomes.iter().any(|o| matches!(o, Outcome::Unknown(Unknown::Faulted { .. }))),
            "{outcomes:?}"
        );
        node.shutdown(LONG).unwrap();
    }
}

#[test]
fn a_factory_that_fails_or_panics_starts_nothing() {
    let start = |factory: fn() -> Result<Box<dyn StateMachine>, MachineError>| {
        Node::start_in_network(config(1, 1), &MemoryNetwork::new(), factory).unwrap_err()
    };
    let failed = start(|| Err(MachineError("no licence".into())));
    assert!(failed.to_string().contains("no licence"), "{failed}");
    let panicked = start(|| panic!("no luck"));
    assert!(panicked.to_string().contains("no luck"), "{panicked}");
}

/// A store that fails its submissions after the first few.
struct FailingStore {
    left: u32,
    log: Arc<Mutex<Vec<Entry>>>,
    inline: bool,
}

struct Reader(Arc<Mutex<Vec<Entry>>>);

impl LogReader for Reader {
    fn read(
        &self,
        _: GroupId,
        first: Index,
        last: Index,
        _: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let log = self.0.lock().unwrap();
        Ok(log.iter().filter(|e| e.index >= first && e.index <= last).cloned().collect())
    }
}

impl Storage for FailingStore {
    fn submit(&mut self, batch: WriteBatch, done: Completion) {
        if self.left == 0 {
            return done.complete(Err(StorageError::Poisoned {
                path: "/dev/broken".into(),
                first: "the disk is gone".into(),
            }));
        }
        self.left -= 1;
        for (_, op) in batch {
            self.log.lock().unwrap().extend(op.entries.iter().cloned());
        }
        done.complete(Ok(()));
    }
    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(Reader(Arc::clone(&self.log)))
    }
    fn never_blocks(&self) -> bool {
        self.inline
    }
}

fn recovered(config: &Config) -> Recovered {
    let members = config.founders.iter().map(|f| (f.id, Member::at(f.address.clone())));
    let settings =
        Settings { election_timeout_min_ms: config.election_timeout_min_ms, ..Settings::default() };
    let base = Base::founding(Membership::of_voters(members), settings);
    Recovered {
        identity: Identity {
            cluster: config.cluster_id,
            epoch: 0,
            node: config.node_id,
            disk: DiskId(5),
            founders_hash: base.founders_hash(),
        },
        boot: Boot(1),
        hard_state: HardState::default(),
        last: base.id,
        base,
        runs: Vec::new(),
        config_entries: Vec::new(),
        last_log_time_us: 0,
        commit: Index::ZERO,
        damage: None,
        notes: vec!["a torn tail of 12 bytes was cut".into()],
    }
}

fn with_store(mut config: Config, left: u32, inline: bool) -> Config {
    config.storage = StorageKind::Custom(Arc::new(move |config| {
        let store = FailingStore { left, log: Arc::default(), inline };
        Ok((Box::new(store) as Box<dyn Storage>, recovered(config)))
    }));
    config
}

#[test]
fn a_failed_write_faults_the_node_and_answers_everybody() {
    for inline in [true, false] {
        let config = with_store(config(1, 1), 8, inline);
        let network = MemoryNetwork::new();
        let node =
            Node::start_in_network(config, &network, TestMachine::default().factory()).unwrap();
        let mut outcomes = Vec::new();
        until("the fault", || {
            outcomes.push(node.propose("x").wait());
            !matches!(outcomes.last(), Some(Outcome::Done(_)))
        });
        let last = outcomes.last().unwrap();
        let text = format!("{last:?}");
        assert!(text.contains("the disk is gone"), "{text}");
        assert!(matches!(node.status().fault, Some(FaultReason::Storage(_))));
        let refused = node.propose("x").wait();
        assert!(matches!(refused, Outcome::Refused(Refusal::Faulted { .. })), "{refused:?}");
        node.shutdown(LONG).unwrap();
    }
}

#[test]
fn a_store_of_another_node_is_refused_by_name() {
    let mut config = with_store(config(1, 1), 8, true);
    config.storage = StorageKind::Custom(Arc::new(|config| {
        let mut recovered = recovered(config);
        recovered.identity.cluster = ClusterId(0xabc);
        let store = FailingStore { left: 9, log: Arc::default(), inline: true };
        Ok((Box::new(store) as Box<dyn Storage>, recovered))
    }));
    let error =
        Node::start_in_network(config, &MemoryNetwork::new(), TestMachine::default().factory())
            .unwrap_err();
    assert!(error.to_string().contains("abc"), "{error}");
}

#[test]
fn a_stuck_machine_does_not_hang_shutdown() {
    let gate = support::Gate::default();
    let machine =
        TestMachine { gate: Some(gate.clone()), ..TestMachine::with_mood(Mood::Fine, false) };
    let cluster = Cluster::start_with(1, |_| {}, move |_| machine.clone());
    let node = cluster.node(1);
    node.wait_for_leader(LONG).unwrap();
    let stuck = node.propose("stuck");
    until("apply to begin", || gate.is_reached());
    let error = node.shutdown(Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().contains("raftz-1-apply"), "{error}");
    assert_eq!(stuck.wait(), Outcome::Unknown(Unknown::ShuttingDown));
    gate.open();
    node.shutdown(LONG).unwrap();
}

#[test]
fn a_voter_that_comes_back_with_another_disk_faults_by_name() {
    let mut cluster = Cluster::start(3, true);
    let follower = cluster.follower();
    let leader = cluster.leader();
    // The leader writes each member's disk into the membership at first contact.
    until("the membership to know all disks", || {
        let membership = cluster.node(leader).status().membership;
        membership.members.values().all(|member| member.disk_id.is_some())
    });
    let last = done(cluster.node(leader).propose("x").wait()).index;
    cluster.node(leader).wait_for_applied(last, LONG).unwrap();
    cluster.stop(follower);
    // Memory storage starts empty: the same id on another disk.
    let wiped = Node::start_in_network(
        config(follower, 3),
        &cluster.network,
        TestMachine::default().factory(),
    )
    .unwrap();
    until("the fault", || wiped.status().fault.is_some());
    let fault = wiped.status().fault.unwrap();
    let FaultReason::WrongDisk { node, known, ours } = &fault else { panic!("{fault}") };
    assert_eq!(*node, id(follower));
    assert_ne!(known, ours);
    assert_eq!(*ours, wiped.status().disk_id);
    let expected = cluster.node(leader).status().membership.members[&id(follower)].disk_id;
    assert_eq!(Some(*known), expected);
    done(cluster.node(leader).propose("still a majority").wait());
}
