//! How a node comes to life: the order in which its parts are made, so that whatever is wrong is
//! told before anything is changed, and nothing is left behind by a start that failed.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use litemap::LiteMap;

use crate::machine::{MachineError, StateMachine};
use crate::raft;
use crate::replica::{self, Replica};
use crate::storage::Storage;
use crate::storage::snapshot::SnapshotStore;
use crate::transport::Transport;
use crate::transport::handshake::Identity as Hello;
use crate::transport::memory::MemoryNetwork;
use crate::types::{
    GroupId, Identity, Index, Membership, NodeId, Recovered, Role, Snapshot, SnapshotId,
};

use super::callbacks::{Callbacks, Item};
use super::callers::{Gauge, Table};
use super::config::{Config, ConfigError};
use super::error::NodeError;
use super::event_loop;
use super::handle::{Defaults, Node};
use super::host::{Host, Machine, Member, Shared};
use super::intake::Intake;
use super::lanes::{self, Applier, ApplyLane, LogLane, ReadLane, SnapshotLane, SnapshotPlace};
use super::log::Line;
use super::metrics::{Account, Meter};
use super::query::QueryDeadlines;
use super::snapshots::{log_time_us, restore_at_start};
use super::status::{Board, Status};
use super::threads::{Threads, guarded, run_inside};
use super::told::Told;
use super::transfer::TransferWishes;
use super::vigil::Vigil;
use super::watch::{Standing, Standings};
use super::{clock, stores};

/// Makes the transport of a node that will introduce itself like this, to these members.
type Connect<'a> =
    Box<dyn FnOnce(&Config, Hello, &Membership) -> Result<Box<dyn Transport>, NodeError> + 'a>;

impl Node {
    /// Founds a cluster on this node: formats its *empty* directory with the founding members.
    /// Every founder does this once, with the same list. Memory storage needs none of it.
    ///
    /// # Errors
    /// A configuration that cannot found a cluster, or a directory that is not empty.
    pub fn bootstrap(config: &Config) -> Result<(), NodeError> {
        config.validate()?;
        config.validate_founding()?;
        stores::bootstrap(config)
    }

    /// Whether the configured directory holds a raftz node's data. Memory always does.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn is_formatted(config: &Config) -> Result<bool, NodeError> {
        stores::is_formatted(config)
    }

    /// Starts a node, listening where the configuration says. Never formats anything.
    ///
    /// # Errors
    /// A wrong configuration, a port in use, a directory that cannot be opened, a machine that
    /// cannot be made. Nothing runs then.
    pub fn start(
        config: Config,
        machine: impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send + 'static,
    ) -> Result<Self, NodeError> {
        config.validate()?;
        let listener = stores::listen(&config)?;
        let connect = |config: &Config, hello: Hello, members: &Membership| {
            config.validate_listening(members)?;
            stores::tcp(config, hello, listener)
        };
        start(config, Box::new(connect), machine)
    }

    /// Starts a node on a port that the caller has bound already, so that several nodes can learn
    /// each other's ports before any of them starts.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with_listener(
        config: Config,
        listener: TcpListener,
        machine: impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send + 'static,
    ) -> Result<Self, NodeError> {
        config.validate()?;
        let connect =
            |config: &Config, hello: Hello, _: &Membership| stores::tcp(config, hello, listener);
        start(config, Box::new(connect), machine)
    }

    /// Starts a node in a network of this process, for tests.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_in_network(
        config: Config,
        network: &MemoryNetwork,
        machine: impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send + 'static,
    ) -> Result<Self, NodeError> {
        config.validate()?;
        let connect =
            |_: &Config, hello: Hello, _: &Membership| -> Result<Box<dyn Transport>, NodeError> {
                Ok(Box::new(network.attach(hello)))
            };
        start(config, Box::new(connect), machine)
    }

    /// Starts a node on a transport of the user's own. `connect` is given what the node must say
    /// of itself in its handshakes, with the largest frame that it may be sent.
    ///
    /// # Errors
    /// As [`Node::start`]; what `connect` says is told as [`NodeError::Network`].
    pub fn start_with_transport(
        config: Config,
        connect: impl FnOnce(Hello) -> Result<Box<dyn Transport>, String>,
        machine: impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send + 'static,
    ) -> Result<Self, NodeError> {
        config.validate()?;
        let connect = |config: &Config, hello: Hello, _: &Membership| {
            connect(stores::with_largest_frame(config, hello)).map_err(NodeError::network)
        };
        start(config, Box::new(connect), machine)
    }
}

fn start(
    config: Config,
    connect: Connect<'_>,
    machine: impl FnOnce() -> Result<Box<dyn StateMachine>, MachineError>,
) -> Result<Node, NodeError> {
    let stores::Opened { storage, snapshots, recovered } = stores::open(&config)?;
    // A store of the user's own is not checked by anybody else.
    config.check_identity(&recovered)?;
    let (config, configured) = (agreed(&config, &recovered)?, config);
    let Identity { cluster, epoch, node, disk, founders_hash } = recovered.identity;
    let hello = Hello::peer(cluster, epoch, node, disk, recovered.boot, founders_hash);
    let membership = latest_membership(&recovered);
    let transport = guarded(|| connect(&config, hello, &membership))
        .unwrap_or_else(|panic| Err(NodeError::network(format!("it panicked: {panic}"))))?;
    let listen_address = transport.local_address();
    let mut machine = guarded(|| run_inside("the state machine's factory", machine))
        .unwrap_or_else(|panic| Err(MachineError(format!("its factory panicked: {panic}"))))?;
    let applied = || run_inside("the state machine's applied_index", || machine.applied_index());
    let applied = guarded(applied).unwrap_or_else(|panic| {
        Err(MachineError(format!("its applied_index panicked: {panic}")))
    })?;
    let restore_machine = |store: &dyn SnapshotStore, id: &SnapshotId| {
        lanes::restore(machine.as_mut(), store, GroupId::FIRST, id)
    };
    let (snapshot, notes) =
        restore_at_start(restore_machine, applied, snapshots.as_deref(), &recovered)?;
    let restored = snapshot.as_ref().map_or(Index::ZERO, |kept| kept.base.id.index);
    let applied = applied.map(|own| own.max(restored));
    fits(applied, restored, &recovered)?;
    let membership = match &snapshot {
        Some(kept) if restored > recovered.last.index => kept.base.membership.clone(),
        Some(_) | None => membership,
    };

    let threads = Threads::new(format!("raftz-{}", config.node_id));
    let (callbacks, intake) = (Callbacks::of(config.node_id), Arc::new(Intake::new()));
    let (thread, inbox) = (Arc::clone(&callbacks), Arc::clone(&intake));
    let observer = config.on_event.clone();
    threads.spawn("call", move || thread.run(observer, &inbox))?;
    let mut told = news(&configured, &recovered, &membership, listen_address.as_deref());
    told.extend(notes.into_iter().map(|note| Item::Line(Line::new(note))));
    callbacks.push_all(&mut told);

    let shared = Arc::new(Shared {
        intake,
        board: Board::new(first_status(&config, &recovered, listen_address.clone())),
        callbacks: Arc::clone(&callbacks),
        gauge: Gauge::new(config.calls_max, config.calls_bytes_max),
        meter: Arc::new(Meter::new(config.node_id, config.metrics)),
        standings: Arc::new(Standings::new(Standing::new(recovered.hard_state.term))),
    });
    let defaults = Defaults {
        timeout: Duration::from_millis(config.propose_timeout_ms),
        read_timeout: Duration::from_millis(config.read_timeout_ms),
        forward: config.forward,
        entry_bytes_max: config.entry_bytes_max,
        election_timeout_max: Duration::from_millis(config.election_timeout_max_ms),
    };
    let id = config.node_id;
    let put_together = || {
        host(
            &config,
            Arc::clone(&shared),
            transport,
            (storage, snapshots),
            (&recovered, snapshot),
            (machine, applied),
            &threads,
        )
    };
    let started = guarded(put_together)
        .unwrap_or_else(|panic| Err(stores::custom_panicked("first calls", &panic)))
        .and_then(|host| {
            shared.intake.set_waker(host.transport.waker());
            threads.spawn("loop", move || event_loop::run(host))
        });
    if let Err(error) = started {
        // The host was dropped with its lanes, which ends their threads.
        callbacks.close();
        let _ = threads.join_until(clock::deadline_us(Duration::from_secs(2)));
        return Err(error);
    }
    Ok(Node { id, shared, threads, defaults, listen_address })
}

/// Whether a machine that persists itself and this log belong together.
fn fits(
    applied: Option<Index>,
    restored: Index,
    recovered: &Recovered,
) -> Result<(), MachineError> {
    let (Some(applied), last) = (applied, recovered.last.index.max(restored)) else {
        return Ok(());
    };
    // A damaged log is filled again.
    if applied > last && recovered.damage.is_none() {
        return Err(MachineError(format!(
            "its own storage has applied up to entry {applied}, and the log ends at {last}: they do not belong together, or the log was wiped; restore the one that is missing"
        )));
    }
    Ok(())
}

/// Lanes, replica and machine, put together on this thread and moved to the loop's.
fn host(
    config: &Config,
    shared: Arc<Shared>,
    transport: Box<dyn Transport>,
    (storage, snapshots): (Box<dyn Storage>, Option<Arc<dyn SnapshotStore>>),
    (recovered, snapshot): (&Recovered, Option<Snapshot>),
    (machine, machine_applied): (Box<dyn StateMachine>, Option<Index>),
    threads: &Threads,
) -> Result<Host, NodeError> {
    let group = GroupId::FIRST;
    let reader = storage.reader();
    let never_blocks = storage.never_blocks();
    let intake = Arc::clone(&shared.intake);
    let read = ReadLane::start(Arc::clone(&reader), never_blocks, Arc::clone(&intake), threads)?;
    let log = LogLane::start(
        storage,
        vec![group],
        // So that a submission, or the largest entry alone, fits an ordinary segment.
        config.segment_bytes / 2,
        (Arc::clone(&intake), Arc::clone(&shared.meter)),
        threads,
    )?;
    let lane = match &snapshots {
        Some(store) => {
            let (rate, intake) = (config.snapshot_write_bytes_per_s, Arc::clone(&intake));
            Some(SnapshotLane::start(Arc::clone(store), rate, intake, threads)?)
        }
        None => None,
    };
    let place = snapshots
        .zip(lane.as_ref())
        .map(|(store, lane)| SnapshotPlace { store, builder: lane.builder() });
    let machine_log_time_us =
        machine_applied.and_then(|own| log_time_us(reader.as_ref(), recovered, own));
    let applier = Box::new(Applier::new(group, machine, reader, config.apply_bytes_max));
    let (machine, apply) = if applier.never_blocks() {
        let (range, queries) = (None, VecDeque::new());
        (Machine::Inline { applier: Some(applier), range, queries, watched: 0 }, None)
    } else {
        let appliers = BTreeMap::from([(group, *applier)]);
        (
            Machine::Lane,
            Some(ApplyLane::start(appliers, place, (intake, Arc::clone(&shared.meter)), threads)?),
        )
    };
    let restored = snapshot.as_ref().map_or(Index::ZERO, |kept| kept.base.id.index);
    let own = (machine_applied, machine_log_time_us);
    let replica = Replica::new(
        replica_config(config, &recovered.identity, own, snapshot),
        recovered,
        clock::now(),
        config.seed.unwrap_or_else(clock::random_u64),
    );
    let membership = replica.raft().membership().clone();
    let base = recovered.base.id.index.max(restored);
    let applied = if replica.raft().lacks_snapshot() {
        replica.raft().applied()
    } else {
        machine_applied.unwrap_or(base).max(base)
    };
    let member = Member::new(replica, machine, applied);
    let mut host = Host {
        id: config.node_id,
        disk: recovered.identity.disk,
        shared,
        transport,
        members: LiteMap::from_iter([(group, member)]),
        memberships: BTreeMap::from([(group, membership)]),
        callers: Table::default(),
        reads: Table::default(),
        query_deadlines: QueryDeadlines::default(),
        transfers: TransferWishes::default(),
        log,
        read,
        apply,
        snapshots: lane,
        wishes: Vec::new(),
        read_bytes_max: config.apply_bytes_max,
        stopping: false,
        status_wanted: true,
        writes: Vec::new(),
        answers: Vec::new(),
        later: Vec::new(),
        unsent: Vec::new(),
        told: Told::default(),
        account: Account::default(),
        answered_us: 0,
        vigil: Vigil::default(),
        has_news: true,
        sent: false,
    };
    host.set_peers();
    Ok(host)
}

fn replica_config(
    config: &Config,
    identity: &Identity,
    (machine_applied, machine_log_time_us): (Option<Index>, Option<u64>),
    snapshot: Option<Snapshot>,
) -> replica::Config {
    let raft = raft::Config { machine_applied, snapshot, ..config.core(identity.disk) };
    let held_bytes_max = config.held_bytes_max;
    let snapshots = config.snapshot_policy();
    replica::Config { raft, held_bytes_max, snapshots, machine_log_time_us }
}

/// The configuration with what the cluster has agreed on in the place of what it says itself.
fn agreed(config: &Config, recovered: &Recovered) -> Result<Config, NodeError> {
    let mut agreed = config.clone();
    agreed.entry_bytes_max = recovered.base.settings.entry_bytes_max;
    agreed.validate().map_err(|error| {
        ConfigError::Contradiction(format!("{error} (entry_bytes_max is the cluster's own)"))
    })?;
    Ok(agreed)
}

/// What a person should know about this start.
fn news(
    config: &Config,
    recovered: &Recovered,
    membership: &Membership,
    listens: Option<&str>,
) -> Vec<Item> {
    let mut news: Vec<Item> =
        recovered.notes.iter().map(|note| Item::Line(Line::new(note.clone()))).collect();
    let agreed = recovered.base.settings.entry_bytes_max;
    if config.entry_bytes_max != agreed {
        news.push(Item::Line(Line::new(format!(
            "entry_bytes_max = {} is ignored, the cluster was founded with {agreed}",
            config.entry_bytes_max
        ))));
    }
    if let Some(difference) = founders_differ(config, membership) {
        news.push(Item::Line(Line::new(format!(
            "the configured founders are ignored, the membership in the log counts: {difference}"
        ))));
    }
    if let Some(difference) = config.listens_elsewhere(membership, listens) {
        news.push(Item::Line(Line::new(difference)));
    }
    news
}

/// The membership in force at the end of the log.
pub(super) fn latest_membership(recovered: &Recovered) -> Membership {
    let entries = recovered.config_entries.iter().rev();
    entries
        .filter(|entry| entry.kind == crate::types::EntryKind::Membership)
        .find_map(|entry| Membership::from_payload(&entry.payload).ok())
        .unwrap_or_else(|| recovered.base.membership.clone())
}

/// How the configured founders differ from the membership, in words.
fn founders_differ(config: &Config, membership: &Membership) -> Option<String> {
    if config.founders.is_empty() {
        return None;
    }
    let configured: BTreeMap<NodeId, &str> =
        config.founders.iter().map(|f| (f.id, f.address.as_str())).collect();
    let mut differences = Vec::new();
    for (id, address) in &configured {
        match membership.members.get(id) {
            None => differences.push(format!("node {id} is configured but not a member")),
            Some(member) if member.address != *address => differences.push(format!(
                "node {id} is at {} by the log, at {address} by the configuration",
                member.address
            )),
            Some(_) => {}
        }
    }
    for id in membership.members.keys().filter(|id| !configured.contains_key(id)) {
        differences.push(format!("node {id} is a member but not configured"));
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}

fn first_status(config: &Config, recovered: &Recovered, listen_address: Option<String>) -> Status {
    Status {
        node_id: config.node_id,
        cluster_id: config.cluster_id,
        group: GroupId::FIRST,
        disk_id: recovered.identity.disk,
        boot: recovered.boot,
        listen_address,
        role: Role::Follower,
        term: recovered.hard_state.term,
        leader: None,
        ready: false,
        base: recovered.base.id,
        last: recovered.last,
        durable: recovered.last.index,
        commit: recovered.commit,
        applied: recovered.base.id.index,
        membership: latest_membership(recovered),
        settings: recovered.base.settings.clone(),
        peers: Vec::new(),
        transfer: None,
        waiting: 0,
        calls_in_flight: 0,
        damaged_from: recovered.damage.map(|damage| damage.first_faulty),
        events_dropped: 0,
        fault: None,
        shut_down: false,
    }
}
