//! Snapshots of real nodes: over TCP, with real files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use raftz_core::machine::{
    Command, KvCommand, KvQuery, KvReply, KvStore, MachineError, SnapshotView, StateMachine,
};
use raftz_core::node::{Config, Node, NodeError, ProposeOptions, StorageKind};
use raftz_core::storage::vfs::RealVfs;
use raftz_core::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use raftz_core::storage::{Storage, StorageError};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{
    Base, ClusterId, Event, FaultReason, Index, Member, Membership, Reply, Role, Settings,
    SnapshotPhase,
};
use support::{LONG, done, id, until};

type Seen = Arc<Mutex<Vec<Event>>>;

/// Where three nodes are, and how they are configured: a snapshot every two hundred entries, almost no tail.
struct Cluster {
    root: tempfile::TempDir,
    addresses: Vec<String>,
    seen: Vec<Seen>,
    /// Whether the log is in a store of the user's own, and snapshots are in a directory of theirs.
    is_apart: bool,
}

impl Cluster {
    fn new() -> (Self, Vec<TcpListener>) {
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let seen = (0..3).map(|_| Seen::default()).collect();
        (Self { root: tempfile::tempdir().unwrap(), addresses, seen, is_apart: false }, listeners)
    }

    /// With all nodes running.
    fn founded() -> (Self, Vec<Node>) {
        Self::founded_as(false)
    }

    fn founded_as(is_apart: bool) -> (Self, Vec<Node>) {
        let (mut cluster, listeners) = Self::new();
        cluster.is_apart = is_apart;
        let mut nodes = Vec::new();
        for (n, listener) in (1..).zip(listeners) {
            let config = cluster.config(n);
            Node::bootstrap(&config).unwrap();
            let machine = || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(KvStore::new())) };
            nodes.push(Node::start_with_listener(config, listener, machine).unwrap());
        }
        (cluster, nodes)
    }

    fn dir(&self, n: usize) -> PathBuf {
        self.root.path().join(n.to_string())
    }

    /// Where a node's snapshots are.
    fn snapshots(&self, n: usize) -> PathBuf {
        if self.is_apart { self.root.path().join(format!("{n}-snapshots")) } else { self.dir(n) }
    }

    fn config(&self, n: usize) -> Config {
        let mut config = Config::new(id(n as u64), ClusterId(0x5a9)).with_directory(self.dir(n));
        if self.is_apart {
            config.storage = own_store(self.dir(n));
            config.snapshot_directory = self.snapshots(n);
        }
        for (founder, address) in (1..).zip(&self.addresses) {
            config = config.with_founder(id(founder), address.clone());
        }
        config.listen_address.clone_from(&self.addresses[n - 1]);
        config.election_timeout_min_ms = 500;
        config.election_timeout_max_ms = 1000;
        config.entry_bytes_max = 64 << 10;
        config.segment_bytes = 128 << 10;
        config.snapshot_log_entries = 200;
        config.snapshot_retain_bytes = 1000;
        let seen = Arc::clone(&self.seen[n - 1]);
        config.on_event = Some(Arc::new(move |_, event| seen.lock().unwrap().push(event.clone())));
        config
    }

    fn start(&self, n: usize) -> Node {
        Node::start(self.config(n), || Ok(Box::new(KvStore::new()))).unwrap()
    }

    fn was(&self, n: usize, wanted: impl Fn(&Event) -> bool) -> usize {
        self.seen[n - 1].lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

/// A store that the library knows nothing of. That it is the library's own makes no difference.
fn own_store(dir: PathBuf) -> StorageKind {
    StorageKind::Custom(Arc::new(move |config: &Config| {
        let options = WalOptions { segment_bytes: config.segment_bytes, reserve_bytes: 0 };
        if !Wal::is_formatted(&RealVfs, &dir)? {
            let members = config.founders.iter().map(|it| (it.id, Member::at(&it.address)));
            let settings = Settings {
                election_timeout_min_ms: config.election_timeout_min_ms,
                entry_bytes_max: config.entry_bytes_max,
                ..Settings::default()
            };
            let spec = BootstrapSpec {
                cluster: config.cluster_id,
                epoch: 0,
                node: config.node_id,
                base: Base::founding(Membership::of_voters(members), settings),
            };
            Wal::bootstrap(&RealVfs, &dir, &spec, options)?;
        }
        let expect = Expect { cluster: config.cluster_id, node: config.node_id };
        let (wal, recovered) = Wal::open(Arc::new(RealVfs), &dir, expect, options)?;
        Ok((Box::new(wal) as Box<dyn Storage>, recovered))
    }))
}

fn is_phase(wanted: SnapshotPhase) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Snapshot { phase, .. } if *phase == wanted)
}

fn files(dir: &Path, prefix: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix))
        .count()
}

fn set(node: &Node, keys: std::ops::Range<u64>) -> Index {
    let commands: Vec<Bytes> = keys
        .map(|n| {
            let (key, value) =
                (Bytes::from(format!("key{}", n % 500)), Bytes::from(vec![n as u8; 900]));
            KvCommand::Set { key, value }.encode()
        })
        .collect();
    let outcomes = node.propose_batch(commands, ProposeOptions::default()).wait();
    outcomes.into_iter().map(|outcome| done(outcome).index).max().unwrap()
}

fn digest(node: &Node) -> (u64, u64) {
    let reply = node.query(KvQuery::Digest.encode(), LONG).unwrap();
    let Ok(KvReply::Digest { entries, digest }) = KvReply::decode(&reply) else { panic!() };
    (entries, digest)
}

fn leader(nodes: &[Node]) -> &Node {
    let mut found = 0;
    until("a ready leader", || {
        let leads = |node: &Node| node.status().role == Role::Leader && node.status().ready;
        nodes.iter().position(leads).inspect(|at| found = *at).is_some()
    });
    &nodes[found]
}

#[test]
fn a_node_that_was_away_comes_back_by_snapshot_while_writes_go_on_and_logs_stay_short() {
    comes_back_by_snapshot(false);
}

#[test]
fn so_it_does_where_logs_are_in_stores_of_the_users_own() {
    comes_back_by_snapshot(true);
}

fn comes_back_by_snapshot(is_apart: bool) {
    let (cluster, mut nodes) = Cluster::founded_as(is_apart);
    set(leader(&nodes), 0..100);
    let away = nodes.iter().position(|node| node.status().role != Role::Leader).unwrap();
    nodes.remove(away).shutdown(LONG).unwrap();
    let away = away + 1;
    for round in 0..15 {
        set(leader(&nodes), round * 100..(round + 1) * 100);
    }
    until("compaction beyond what the missing node has", || {
        nodes.iter().all(|node| node.status().base.index > Index(200))
    });
    let term = leader(&nodes).status().term;

    let back = cluster.start(away);
    let last = set(leader(&nodes), 0..300);
    back.wait_for_applied(last, LONG).unwrap();
    assert!(cluster.was(away, is_phase(SnapshotPhase::Installed)) > 0, "by the log alone");
    assert_eq!(leader(&nodes).status().term, term, "an election");
    for node in &nodes {
        node.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(node), digest(&back));
    }
    // Two thousand entries of a kilobyte were written, sixteen segments of them; what is kept is less.
    for n in 1..=3 {
        let (log, snapshots) = (cluster.dir(n), cluster.snapshots(n));
        until("old segments to go", || files(&log, "wal-") <= 8);
        until("old snapshots to go", || (1..=2).contains(&files(&snapshots, "snap-")));
    }

    // Everything again from what is on the disks.
    nodes.push(back);
    for node in nodes {
        node.shutdown(LONG).unwrap();
    }
    let nodes: Vec<Node> = (1..=3).map(|n| cluster.start(n)).collect();
    let last = set(leader(&nodes), 0..1);
    for node in &nodes {
        node.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(node).0, 500);
    }
}

#[test]
fn a_directory_of_snapshots_is_one_nodes_and_without_one_it_is_said_that_there_are_none() {
    let (mut cluster, _) = Cluster::new();
    cluster.is_apart = true;
    let begin = |config: Config| Node::start(config, || Ok(Box::new(KvStore::new())));
    let alone = |n: usize| {
        let mut config = cluster.config(n);
        config.founders.retain(|founder| founder.id == config.node_id);
        config.listen_address = "127.0.0.1:0".into();
        config
    };
    let node = begin(alone(1)).unwrap();
    let mut other = alone(2);
    other.snapshot_directory = cluster.snapshots(1);
    let error = begin(other).map(drop).unwrap_err();
    assert!(matches!(error, NodeError::Storage(StorageError::Locked { .. })), "{error}");
    let last = set(&node, 0..500);
    assert!(node.snapshot(LONG).unwrap().base.id.index >= last);
    until("a shorter log", || node.status().base.index > Index::ZERO);
    node.shutdown(LONG).unwrap();
    let mut forgotten = alone(1);
    forgotten.snapshot_directory = PathBuf::new();
    let error = begin(forgotten).map(drop).unwrap_err();
    assert!(error.to_string().contains("(snapshot_directory)"), "{error}");

    let mut without = alone(2);
    without.snapshot_directory = PathBuf::new();
    let node = begin(without).unwrap();
    node.wait_for_leader(LONG).unwrap();
    set(&node, 0..500);
    let asked = Instant::now();
    let error = node.snapshot(LONG).unwrap_err();
    assert!(error.to_string().contains("snapshot_directory is not set"), "{error}");
    assert!(asked.elapsed() < LONG / 2, "it was waited for");

    let mut beside = alone(3).with_directory(cluster.dir(3));
    let error = begin(beside.clone()).map(drop).unwrap_err();
    assert!(error.to_string().contains("snapshot_directory = "), "{error}");
    beside.storage = StorageKind::Memory;
    assert!(begin(beside).is_err(), "in memory, too");
    let mut nowhere = alone(3);
    nowhere.snapshot_directory = cluster.root.path().join("not/there");
    let error = begin(nowhere).map(drop).unwrap_err();
    assert!(error.to_string().contains("whose parent must exist"), "{error}");
}

#[test]
fn a_snapshot_on_demand_is_as_new_as_what_was_done_before_and_the_same_when_nothing_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(id(1), ClusterId(0x5aa)).with_directory(dir.path().join("one"));
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.snapshot_log_entries = 0;
    config.snapshot_log_bytes = 0;
    Node::bootstrap(&config).unwrap();
    let node = Node::start(config.clone(), || Ok(Box::new(KvStore::new()))).unwrap();
    node.wait_for_leader(LONG).unwrap();
    let last = set(&node, 0..50);
    let snapshot = node.snapshot(LONG).unwrap();
    assert!(snapshot.base.id.index >= last);
    assert_eq!(node.snapshot(LONG).unwrap(), snapshot);
    let wanted = digest(&node);
    node.shutdown(LONG).unwrap();
    assert!(matches!(node.snapshot(LONG), Err(NodeError::ShutDown)));
    let node = Node::start(config, || Ok(Box::new(KvStore::new()))).unwrap();
    assert_eq!(digest(&node), wanted, "before anything is applied");
}

/// Takes everything and cannot be restored.
struct Stubborn(KvStore);

impl StateMachine for Stubborn {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        self.0.apply(batch, replies)
    }
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.0.query(request)
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        self.0.snapshot()
    }
    fn restore(&mut self, _: &mut dyn std::io::Read) -> Result<(), MachineError> {
        Err(MachineError("on purpose".into()))
    }
}

#[test]
fn a_machine_that_cannot_be_restored_leaves_its_node_faulted_and_its_old_log_on_disk() {
    let (cluster, mut nodes) = Cluster::founded();
    set(leader(&nodes), 0..50);
    let away = nodes.iter().position(|node| node.status().role != Role::Leader).unwrap();
    nodes.remove(away).shutdown(LONG).unwrap();
    for round in 0..10 {
        set(leader(&nodes), round * 100..(round + 1) * 100);
    }
    until("compaction", || nodes.iter().all(|node| node.status().base.index > Index(200)));
    let stubborn =
        || -> Result<Box<dyn StateMachine>, _> { Ok(Box::new(Stubborn(KvStore::new()))) };
    let node = Node::start(cluster.config(away + 1), stubborn).unwrap();
    until("the fault", || node.status().fault.is_some());
    let status = node.status();
    assert!(
        matches!(status.fault, Some(FaultReason::Machine { kind: "restore", .. })),
        "{:?}",
        status.fault
    );
    assert_eq!(status.base.index, Index::ZERO, "the log was replaced before the machine was");
    node.shutdown(LONG).unwrap();
    // With a machine that can, the very same directory goes on.
    let node = cluster.start(away + 1);
    let last = set(leader(&nodes), 0..10);
    node.wait_for_applied(last, LONG).unwrap();
    assert_eq!(digest(&node), digest(leader(&nodes)));
}

/// The first time that it is frozen there is more and more to write.
struct Endless {
    store: KvStore,
    is_first: bool,
    never_blocks: bool,
    stage: Arc<Mutex<&'static str>>,
}

impl StateMachine for Endless {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        self.store.apply(batch, replies)
    }
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.store.query(request)
    }
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        if std::mem::take(&mut self.is_first) {
            return Ok(Box::new(EndlessView(Arc::clone(&self.stage))));
        }
        self.store.snapshot()
    }
    fn restore(&mut self, from: &mut dyn std::io::Read) -> Result<(), MachineError> {
        self.store.restore(from)
    }
    fn never_blocks(&self) -> bool {
        self.never_blocks
    }
}

struct EndlessView(Arc<Mutex<&'static str>>);

impl SnapshotView for EndlessView {
    fn write_to(&mut self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        *self.0.lock().unwrap() = "writing";
        let begun = Instant::now();
        while begun.elapsed() < 3 * LONG {
            out.write_all(&[0; 100])?;
        }
        Ok(())
    }
}

impl Drop for EndlessView {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = "ended";
    }
}

#[test]
fn a_nodes_own_snapshot_ends_when_a_newer_one_is_installed_and_whoever_waited_gets_that() {
    for never_blocks in [true, false] {
        let (cluster, listeners) = Cluster::new();
        drop(listeners);
        let network = MemoryNetwork::new();
        let stage = Arc::new(Mutex::new("not begun"));
        let start = |n: usize| {
            let mut config = cluster.config(n);
            if n == 3 {
                config.snapshot_write_bytes_per_s = 64 << 10;
            }
            Node::bootstrap(&config).unwrap();
            let (store, stage) = (KvStore::new(), Arc::clone(&stage));
            let machine = Endless { store, is_first: n == 3, never_blocks, stage };
            Node::start_in_network(config, &network, || Ok(Box::new(machine))).unwrap()
        };
        let nodes = [start(1), start(2)];
        leader(&nodes);
        let slow = start(3);
        let last = set(leader(&nodes), 0..100);
        slow.wait_for_applied(last, LONG).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| slow.snapshot(LONG).unwrap());
            until("its snapshot to begin", || *stage.lock().unwrap() == "writing");
            network.isolate(id(3));
            for round in 0..10 {
                set(leader(&nodes), round * 100..(round + 1) * 100);
            }
            until("compaction", || nodes.iter().all(|node| node.status().base.index > Index(300)));
            assert_eq!(*stage.lock().unwrap(), "writing");
            network.heal();
            let newer = waiter.join().unwrap();
            assert!(newer.base.id.index > Index(300), "{:?}", newer.base.id);
            until("its own to end", || *stage.lock().unwrap() == "ended");
        });
        let last = set(leader(&nodes), 0..10);
        slow.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(&slow), digest(leader(&nodes)));
        let trouble = |event: &Event| matches!(event, Event::StorageTrouble { .. });
        assert_eq!(cluster.was(3, trouble), 0, "{:?}", cluster.seen[2].lock().unwrap());
    }
}

/// The complete snapshots in a directory.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|it| it == "rz")).collect()
}

fn spoil(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = usize::try_from(at).unwrap() % bytes.len();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn whatever_happened_to_its_snapshots_a_node_starts_and_is_cured_by_the_others() {
    let (cluster, mut nodes) = Cluster::founded();
    for round in 0..10 {
        set(leader(&nodes), round * 100..(round + 1) * 100);
    }
    until("compaction", || nodes.iter().all(|node| node.status().base.index > Index(200)));
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("a byte in the middle", |path| spoil(path, 70_000)),
        ("a byte of the head", |path| spoil(path, 40)),
        ("cut short", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("missing", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (what, harm) in harms {
        let away = nodes.iter().position(|node| node.status().role != Role::Leader).unwrap();
        let n = usize::try_from(nodes[away].id().get()).unwrap();
        nodes.remove(away).shutdown(LONG).unwrap();
        snapshots(&cluster.dir(n)).iter().for_each(|path| harm(path));
        cluster.seen[n - 1].lock().unwrap().clear();
        let back = cluster.start(n);
        let last = set(leader(&nodes), 0..10);
        back.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(&back), digest(leader(&nodes)), "{what}");
        assert!(cluster.was(n, is_phase(SnapshotPhase::Fetched)) > 0, "{what}: without the others");
        // What it has now is whole: it starts from that.
        back.shutdown(LONG).unwrap();
        cluster.seen[n - 1].lock().unwrap().clear();
        let back = cluster.start(n);
        back.wait_for_applied(last, LONG).unwrap();
        assert_eq!(digest(&back), digest(leader(&nodes)), "{what}, and again");
        assert_eq!(cluster.was(n, is_phase(SnapshotPhase::Fetched)), 0, "{what}: not cured");
        nodes.push(back);
    }
}

#[test]
fn a_node_alone_whose_snapshot_is_damaged_is_refused_by_name_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(id(1), ClusterId(0x5ab)).with_directory(dir.path().join("one"));
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.snapshot_log_entries = 100;
    config.snapshot_retain_bytes = 0;
    Node::bootstrap(&config).unwrap();
    let start = |config: &Config| Node::start(config.clone(), || Ok(Box::new(KvStore::new())));
    let node = start(&config).unwrap();
    node.wait_for_leader(LONG).unwrap();
    set(&node, 0..300);
    until("compaction", || node.status().base.index > Index(100));
    node.snapshot(LONG).unwrap();
    let wanted = digest(&node);
    node.shutdown(LONG).unwrap();
    let kept = snapshots(&dir.path().join("one"));
    kept.iter().for_each(|path| spoil(path, 70_000));
    let refusal = start(&config).unwrap_err().to_string();
    assert!(refusal.contains("restore the directory from a copy"), "{refusal}");
    // The same byte once more: as if the copy were there.
    kept.iter().for_each(|path| spoil(path, 70_000));
    assert_eq!(digest(&start(&config).unwrap()), wanted);
}

#[test]
fn a_scrub_finds_damage_while_the_machine_is_whole_and_another_snapshot_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one");
    let seen = Seen::default();
    let mut config = Config::new(id(1), ClusterId(0x5ac)).with_directory(&path);
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.snapshot_log_entries = 0;
    config.snapshot_log_bytes = 0;
    config.snapshot_scrub_interval_ms = 20;
    let told = Arc::clone(&seen);
    config.on_event = Some(Arc::new(move |_, event| told.lock().unwrap().push(event.clone())));
    Node::bootstrap(&config).unwrap();
    let node = Node::start(config.clone(), || Ok(Box::new(KvStore::new()))).unwrap();
    node.wait_for_leader(LONG).unwrap();
    set(&node, 0..200);
    let snapshot = node.snapshot(LONG).unwrap();
    let harms: [fn(&Path); 2] =
        [|path| spoil(path, 70_000), |path| std::fs::remove_file(path).unwrap()];
    for (round, harm) in (2..).zip(harms) {
        let [file] = &snapshots(&path)[..] else { panic!("{:?}", snapshots(&path)) };
        let whole = std::fs::read(file).unwrap();
        harm(file);
        let built = || {
            let seen = seen.lock().unwrap();
            seen.iter().filter(|event| is_phase(SnapshotPhase::Built)(event)).count()
        };
        until("another one", || built() == round);
        // Nothing was written since: it is the same, in the place of the damaged one.
        assert_eq!(std::fs::read(file).unwrap(), whole);
        assert_eq!(node.snapshot(LONG).unwrap(), snapshot);
    }
    let damage = |event: &Event| matches!(event, Event::StorageTrouble { detail } if detail.contains("another one is taken"));
    assert_eq!(seen.lock().unwrap().iter().filter(|event| damage(event)).count(), 2);
}
