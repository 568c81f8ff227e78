//! The honest nodes: real logs in directories of their own, links over loopback.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raftz_core::node::{Config, Node, Pending, ProposeOptions};
use raftz_core::storage::vfs::RealVfs;
use raftz_core::storage::wal::{BootstrapSpec, Wal, WalOptions};
use raftz_core::types::{
    Base, ClusterId, Done, Event, Index, Member, Membership, NodeId, Outcome, Role, Settings,
};
use tempfile::TempDir;

use super::support::{Gate, LONG, Mood, TestMachine, done, id, until};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x11a5);
/// Long, because the tests run beside each other and the liar's mouth is driven by the test's thread.
const ELECTION_MS: u64 = 1000;
/// Segments are small, and hold the largest entry.
const ENTRY_BYTES_MAX: u64 = 64 << 10;

type Events = Arc<Mutex<Vec<(u64, Event)>>>;

/// Some running nodes of a cluster of founders.
pub(crate) struct Honest {
    pub(crate) base: Base,
    pub(crate) addresses: BTreeMap<u64, String>,
    pub(crate) machines: BTreeMap<u64, TestMachine>,
    listeners: BTreeMap<u64, TcpListener>,
    nodes: BTreeMap<u64, Node>,
    events: Events,
    root: TempDir,
}

impl Honest {
    /// Directories and ports for `voters` and `learners`, nothing running yet.
    pub(crate) fn found(voters: &[u64], learners: &[u64]) -> Self {
        let all: Vec<u64> = voters.iter().chain(learners).copied().collect();
        let listeners: BTreeMap<u64, TcpListener> =
            all.iter().map(|n| (*n, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
        let addresses: BTreeMap<u64, String> = listeners
            .iter()
            .map(|(n, listener)| (*n, listener.local_addr().unwrap().to_string()))
            .collect();
        let members = addresses.iter().map(|(n, address)| (id(*n), Member::at(address.clone())));
        let mut membership = Membership::of_voters(members);
        membership.voters = voters.iter().map(|n| id(*n)).collect();
        let settings = Settings {
            election_timeout_min_ms: ELECTION_MS,
            entry_bytes_max: ENTRY_BYTES_MAX,
            ..Settings::default()
        };
        let base = Base::founding(membership, settings);
        let root = tempfile::tempdir().unwrap();
        let machines = all.iter().map(|n| (*n, TestMachine::with_mood(Mood::Fine, false)));
        Self {
            base,
            addresses,
            machines: machines.collect(),
            listeners,
            nodes: BTreeMap::new(),
            events: Events::default(),
            root,
        }
    }

    /// Nodes 1 and 2 of three, with a ready leader: (all, leader, follower).
    pub(crate) fn two_of_three() -> (Self, u64, u64) {
        Self::two_of_three_behind(None)
    }

    /// The same, with machines that wait at a gate.
    pub(crate) fn two_of_three_behind(gate: Option<&Gate>) -> (Self, u64, u64) {
        let mut honest = Self::found(&[1, 2, 3], &[]);
        for machine in honest.machines.values_mut() {
            machine.gate = gate.cloned();
        }
        honest.start(1);
        honest.start(2);
        let leader = honest.leader();
        (honest, leader, 3 - leader)
    }

    pub(crate) fn start(&mut self, n: u64) {
        let address = self.addresses[&n].clone();
        let listener =
            self.listeners.remove(&n).unwrap_or_else(|| TcpListener::bind(&address).unwrap());
        let path = self.root.path().join(format!("node-{n}"));
        let options = WalOptions { segment_bytes: 1 << 18, reserve_bytes: 0 };
        if !path.exists() {
            let base = self.base.clone();
            let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: id(n), base };
            Wal::bootstrap(&RealVfs, &path, &spec, options).unwrap();
        }
        let mut config = Config::new(id(n), CLUSTER).with_directory(path);
        for (founder, address) in &self.addresses {
            config = config.with_founder(id(*founder), address.clone());
        }
        config.listen_address = address;
        config.segment_bytes = options.segment_bytes;
        config.entry_bytes_max = ENTRY_BYTES_MAX;
        config.reserve_bytes = 0;
        config.election_timeout_min_ms = ELECTION_MS;
        config.election_timeout_max_ms = 2 * ELECTION_MS;
        let events = Arc::clone(&self.events);
        config.on_event = Some(Arc::new(move |_, event: &Event| {
            events.lock().unwrap().push((n, event.clone()));
        }));
        // A new life applies from the beginning.
        self.machines[&n].seen.lock().unwrap().clear();
        let machine = self.machines[&n].factory();
        self.nodes.insert(n, Node::start_with_listener(config, listener, machine).unwrap());
    }

    pub(crate) fn stop(&mut self, n: u64) {
        self.nodes.remove(&n).unwrap().shutdown(LONG).unwrap();
    }

    pub(crate) fn node(&self, n: u64) -> &Node {
        &self.nodes[&n]
    }

    /// Has the leader propose a command; gives the call and the index that its entry has.
    pub(crate) fn propose(&self, leader: u64, command: &'static str) -> (Pending<Outcome>, Index) {
        let before = self.node(leader).status().last.index;
        let options = ProposeOptions { timeout: Some(LONG), ..ProposeOptions::default() };
        let pending = self.node(leader).propose_opt(command, options);
        until("the entry", || self.node(leader).status().last.index > before);
        (pending, self.node(leader).status().last.index)
    }

    pub(crate) fn leader(&self) -> u64 {
        let mut leader = 0;
        until("a ready leader", || {
            let leads = |node: &Node| {
                let status = node.status();
                status.role == Role::Leader && status.ready
            };
            let found = self.nodes.iter().find(|(_, node)| leads(node)).map(|(n, _)| *n);
            found.inspect(|n| leader = *n).is_some()
        });
        leader
    }

    /// What a node has said about messages that no honest node sends.
    pub(crate) fn nonsense(&self, n: u64) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let of = |(at, event): &(u64, Event)| match event {
            Event::Nonsense { what, .. } if *at == n => Some(what.clone()),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    pub(crate) fn count_nonsense(&self, n: u64, what: &str) -> usize {
        self.nonsense(n).iter().filter(|told| told.contains(what)).count()
    }

    /// The honest go on: a command commits, and every running machine has applied the very same.
    pub(crate) fn go_on(&self, command: &'static str) -> Done {
        let leader = self.leader();
        let options = ProposeOptions { timeout: Some(LONG), ..ProposeOptions::default() };
        let mut outcome = None;
        until("a commit among the honest", || {
            // An election may come between: such a command is sent again, and may be there twice.
            match self.node(leader).propose_opt(command, options).wait() {
                Outcome::Done(done) => outcome = Some(done),
                other => println!("again after {other:?}"),
            }
            outcome.is_some()
        });
        let outcome = done(Outcome::Done(outcome.unwrap()));
        for node in self.nodes.values() {
            node.wait_for_applied(outcome.index, LONG).unwrap();
        }
        let held: Vec<Vec<Bytes>> =
            self.nodes.keys().map(|n| self.machines[n].commands()).collect();
        assert!(held.iter().all(|commands| *commands == held[0]), "{held:?}");
        assert!(held[0].iter().all(|command| *command != "forged"), "{held:?}");
        assert!(held[0].iter().any(|held| held == command), "{held:?}");
        outcome
    }

    pub(crate) fn liar(&self) -> NodeId {
        id(3)
    }
}
