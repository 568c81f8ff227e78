//! What a node is told when it starts. Every field has a default, a name under which every
//! language can set it ([`Config::set`]), and a check ([`Config::validate`]) that names what is
//! wrong, where, and what to do.

mod keys;
mod validate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::raft;
use crate::replica::SnapshotPolicy;
use crate::storage::{Storage, StorageError};
use crate::types::{Base, ClusterId, DiskId, Member, Membership, NodeId, Recovered, Settings};

use super::callbacks::EventObserver;

/// A founding member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub id: NodeId,
    /// Where the others reach it, `host:port`.
    pub address: String,
}

/// Makes a store of the user's own. Called on the thread that starts the node.
pub type StorageFactory =
    Arc<dyn Fn(&Config) -> Result<(Box<dyn Storage>, Recovered), StorageError> + Send + Sync>;

/// Where a node keeps its log.
#[derive(Clone)]
pub enum StorageKind {
    /// In a directory of its own: survives a power cut.
    Directory(PathBuf),
    /// In memory: gone with the process. For tests, and for caches that may be lost.
    Memory,
    /// In a store of the user's own.
    Custom(StorageFactory),
}

impl fmt::Debug for StorageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Memory => f.write_str("Memory"),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// What is wrong with a configuration: which key, which value, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such key.
    #[error("{key:?} is not a configuration key; the nearest is {nearest:?}, all are: {known}")]
    UnknownKey {
        /// What was asked for.
        key: String,
        /// The key that looks most like it.
        nearest: String,
        /// All keys.
        known: String,
    },
    /// A value that its key cannot have.
    #[error("{key} = {value:?}: {problem}")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Contradiction(String),
}

/// A node's configuration.
///
/// The defaults suit three nodes on one local network with disks that sync in milliseconds. All
/// caps are there so that a node under load answers "busy" instead of growing.
#[derive(Clone)]
pub struct Config {
    /// This node; not 0, and never used by another node of the cluster.
    pub node_id: NodeId,
    /// The cluster. Nodes of different clusters refuse each other.
    pub cluster_id: ClusterId,
    /// Where this node listens, `host:port`. Port 0 lets the system choose. Default `127.0.0.1:0`.
    pub listen_address: String,
    /// The founding members, the same list on every founder. Used by `bootstrap`, and by memory
    /// storage at each start; afterwards the membership in the log counts, not this.
    pub founders: Vec<Founder>,
    /// Where the log is kept. Default: memory.
    pub storage: StorageKind,
    /// Where a node with a store of the user's own keeps its snapshots; made if it is not there. Empty: it takes none,
    /// and its log is never shortened. With every other store snapshots lie beside the log. Default empty.
    pub snapshot_directory: PathBuf,
    /// Allows addresses beyond this machine although links are not encrypted. Default `false`.
    pub insecure_plaintext: bool,

    /// Shortest time without a sign of life after which a follower stands for election.
    /// Default 150: three missed heartbeats.
    pub election_timeout_min_ms: u64,
    /// Longest such time; each wait is drawn between the two, so that followers rarely stand at
    /// once. Default 300.
    pub election_timeout_max_ms: u64,
    /// Time between a leader's signs of life. Default 50.
    pub heartbeat_interval_ms: u64,
    /// How much this node is wanted as leader, 0 to 100: at 0 it waits twice as long as others before it stands,
    /// and a leader hands over to a node whose priority is higher by 10. Default 100, the highest.
    pub election_priority: u64,
    /// A leader none of whose writes has become durable for so long, while one waits, hands over to another node.
    /// 0: the longest election timeout. Default 0.
    pub disk_stall_timeout_ms: u64,
    /// Time after which a proposal without a timeout of its own is answered. Default 5000.
    pub propose_timeout_ms: u64,
    /// Time after which a read without a timeout of its own is answered. Default 5000.
    pub read_timeout_ms: u64,
    /// Whether clocks are trusted: a node that leads asks for a lease, one that follows promises it. For reads of
    /// level `Lease`; set it on all nodes. Default `false`. Unsafe where a machine's clock may stand still, as that
    /// of a virtual machine that is paused or restored.
    pub lease_reads: bool,
    /// By how much any clock of the cluster may run faster than another, in percent, at most 50: a lease is so
    /// much shorter. Default 10.
    pub lease_drift_percent: u8,
    /// Whether a follower hands proposals on to the leader, and holds them while there is none.
    /// Default `true`; otherwise they are refused with `NotLeader` and a hint.
    pub forward: bool,

    /// Largest payload of a command. Fixed for the whole cluster when it is founded; afterwards what
    /// the log says counts, not this. Default 4 MiB.
    pub entry_bytes_max: u64,
    /// Most entry bytes in one message, at most 16 MiB; a larger entry travels alone. Default 1 MiB.
    pub append_bytes_max: u64,
    /// Most entry bytes on the way to one peer. Default 8 MiB.
    pub window_bytes: u64,
    /// Most appends on the way to one peer. Default 64.
    pub window_messages: u64,
    /// Most bytes of entries that a leader holds uncommitted. Default 64 MiB.
    pub uncommitted_bytes_max: u64,
    /// Most bytes of entries that are committed but not applied. Default 64 MiB.
    pub unapplied_bytes_max: u64,
    /// Most bytes of applied entries kept in memory for followers that lag. Default 16 MiB.
    pub cache_bytes_max: u64,
    /// Most bytes of proposals that a follower holds while no leader is known. Default 16 MiB.
    pub held_bytes_max: u64,
    /// Most bytes of commands given to the state machine at once. Default 4 MiB.
    pub apply_bytes_max: u64,
    /// Most calls in flight on this node, from `propose` to the end of the completion. Default
    /// 65536.
    pub calls_max: u64,
    /// Most payload bytes of calls in flight on this node. Default 128 MiB.
    pub calls_bytes_max: u64,
    /// Most bytes that wait to be sent to one peer. Default 32 MiB.
    pub link_queue_bytes_max: u64,

    /// Size of one log file: the largest entry and 64 KiB at least, 64 GiB at most. Default 64 MiB.
    pub segment_bytes: u64,
    /// Free disk space below which proposals are refused while everything else goes on.
    /// Default 256 MiB.
    pub reserve_bytes: u64,
    /// A snapshot is taken after about so many bytes of applied commands; 0: not for that reason. Default 64 MiB.
    pub snapshot_log_bytes: u64,
    /// Likewise after about so many entries. Default 1,000,000.
    pub snapshot_log_entries: u64,
    /// Bytes of entries that stay in the log behind a snapshot, for followers that are a little behind.
    /// Default 16 MiB.
    pub snapshot_retain_bytes: u64,
    /// How many snapshots are kept, at least 1. Default 2.
    pub snapshots_kept: u64,
    /// Most bytes a second that a snapshot is written with; 0: no bound. Default 128 MiB.
    pub snapshot_write_bytes_per_s: u64,
    /// Most bytes of snapshots sent in a second, to all peers together; 0: no bound. Default 32 MiB.
    pub snapshot_send_bytes_per_s: u64,
    /// A transfer of a snapshot that has not moved for so long is given up, and begun again. Default 10000.
    pub snapshot_stall_timeout_ms: u64,
    /// So often all snapshots on the disk are read, slowly, to find damage while it can be cured; 0: never. Default a day.
    pub snapshot_scrub_interval_ms: u64,
    /// Whether the node counts and measures what [`Node::metrics`](super::Node::metrics) gives. Default true.
    pub metrics: bool,
    /// Seed of the randomness that spreads elections and reconnects; drawn afresh when `None`.
    pub seed: Option<u64>,
    /// Called with every event, on the callback thread. Of events that tell of a state ([`Event::key`](crate::types::Event::key))
    /// only the latest waits for a slow observer.
    pub on_event: Option<EventObserver>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Config");
        for key in keys::KEYS {
            out.field(key.name, &format_args!("{}", (key.show)(self)));
        }
        out.finish_non_exhaustive()
    }
}

impl Config {
    /// A configuration with all defaults: memory storage, no founders yet.
    pub fn new(node_id: NodeId, cluster_id: ClusterId) -> Self {
        Self {
            node_id,
            cluster_id,
            listen_address: "127.0.0.1:0".into(),
            founders: Vec::new(),
            storage: StorageKind::Memory,
            snapshot_directory: PathBuf::new(),
            insecure_plaintext: false,
            election_timeout_min_ms: 150,
            election_timeout_max_ms: 300,
            heartbeat_interval_ms: 50,
            election_priority: 100,
            disk_stall_timeout_ms: 0,
            propose_timeout_ms: 5000,
            read_timeout_ms: 5000,
            lease_reads: false,
            lease_drift_percent: 10,
            forward: true,
            entry_bytes_max: 4 << 20,
            append_bytes_max: 1 << 20,
            window_bytes: 8 << 20,
            window_messages: 64,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 64 << 20,
            cache_bytes_max: 16 << 20,
            held_bytes_max: 16 << 20,
            apply_bytes_max: 4 << 20,
            calls_max: 65_536,
            calls_bytes_max: 128 << 20,
            link_queue_bytes_max: 32 << 20,
            segment_bytes: 64 << 20,
            reserve_bytes: 256 << 20,
            snapshot_log_bytes: 64 << 20,
            snapshot_log_entries: 1_000_000,
            snapshot_retain_bytes: 16 << 20,
            snapshots_kept: 2,
            snapshot_write_bytes_per_s: 128 << 20,
            snapshot_send_bytes_per_s: 32 << 20,
            snapshot_stall_timeout_ms: 10_000,
            snapshot_scrub_interval_ms: 24 * 3_600_000,
            metrics: true,
            seed: None,
            on_event: None,
        }
    }

    /// Sets a field by its name, as C, Python and the environment do.
    ///
    /// Numbers are decimal, with an optional `k`, `m` or `g` (powers of 1024) on `_bytes` keys;
    /// booleans are `true` or `false`; `founders` is `1=host:port,2=host:port,…`; `storage` is
    /// `memory` or `directory:<path>`; `seed` is a number or `random`.
    ///
    /// # Errors
    /// An unknown key, or a value that the key cannot have. Nothing is changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        keys::set(self, key, value)
    }

    /// Every key and its present value, as [`Config::set`] takes it.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        keys::KEYS.iter().map(|key| (key.name, (key.show)(self))).collect()
    }

    /// Adds a founding member.
    #[must_use]
    pub fn with_founder(mut self, id: NodeId, address: impl Into<String>) -> Self {
        self.founders.push(Founder { id, address: address.into() });
        self
    }

    /// Keeps the log in this directory.
    #[must_use]
    pub fn with_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.storage = StorageKind::Directory(path.into());
        self
    }

    /// Checks every value and their agreement.
    ///
    /// # Errors
    /// The first thing that is wrong, with what to do about it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::validate(self)
    }

    /// Checks that the other members can find this node where it is about to listen.
    pub(crate) fn validate_listening(&self, members: &Membership) -> Result<(), ConfigError> {
        validate::validate_listening(self, members)
    }

    /// How the port that this node listens on differs from the one at which the other members look
    /// for it, in words. Not an error, because something in between may translate the two.
    pub(crate) fn listens_elsewhere(
        &self,
        members: &Membership,
        listens: Option<&str>,
    ) -> Option<String> {
        validate::listens_elsewhere(self, members, listens?)
    }

    /// Checks what founding a cluster needs beyond [`Config::validate`].
    pub(crate) fn validate_founding(&self) -> Result<(), ConfigError> {
        validate::validate_founding(self)
    }

    /// Checks what concerns the bare core of such a node ([`Config::core`]), and what founding its cluster needs if it
    /// is to be founded. Addresses are only words to a core, so they may be anywhere.
    ///
    /// # Errors
    /// As [`Config::validate`].
    pub fn validate_core(&self, founds: bool) -> Result<(), ConfigError> {
        validate::validate_core(self)?;
        if founds { self.validate_founding() } else { Ok(()) }
    }

    /// Checks that what was recovered is this node's, and that its timeouts suit what the cluster has agreed on.
    ///
    /// # Errors
    /// The first thing that does not go together.
    pub fn check_identity(&self, recovered: &Recovered) -> Result<(), ConfigError> {
        validate::check_identity(self, recovered)
    }

    /// What the bare core of such a node is told, on this disk.
    pub fn core(&self, disk: DiskId) -> raft::Config {
        let us = |ms: u64| ms.saturating_mul(1000);
        raft::Config {
            election_timeout_min_us: us(self.election_timeout_min_ms),
            election_timeout_max_us: us(self.election_timeout_max_ms),
            heartbeat_interval_us: us(self.heartbeat_interval_ms),
            lease_reads: self.lease_reads,
            lease_drift_percent: self.lease_drift_percent,
            append_bytes_max: self.append_bytes_max,
            window_messages: usize::try_from(self.window_messages).unwrap_or(usize::MAX),
            window_bytes: self.window_bytes,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            unapplied_bytes_max: self.unapplied_bytes_max,
            cache_bytes_max: self.cache_bytes_max,
            apply_bytes_max: self.apply_bytes_max,
            election_priority: u8::try_from(self.election_priority).unwrap_or(u8::MAX),
            disk_stall_timeout_us: us(self.disk_stall_timeout_ms),
            ..raft::Config::new(self.node_id, disk)
        }
    }

    /// How the node deals with snapshots.
    pub fn snapshot_policy(&self) -> SnapshotPolicy {
        SnapshotPolicy {
            log_bytes: self.snapshot_log_bytes,
            log_entries: self.snapshot_log_entries,
            retain_bytes: self.snapshot_retain_bytes,
            keep: usize::try_from(self.snapshots_kept).unwrap_or(usize::MAX),
            send_bytes_per_s: self.snapshot_send_bytes_per_s,
            stall_us: self.snapshot_stall_timeout_ms.saturating_mul(1000),
            scrub_interval_us: self.snapshot_scrub_interval_ms.saturating_mul(1000),
            ..SnapshotPolicy::default()
        }
    }

    /// The base record that every founder writes; a store of the user's own is formatted with it.
    pub fn founding_base(&self) -> Base {
        let members = self.founders.iter().map(|f| (f.id, Member::at(f.address.clone())));
        let settings = Settings {
            entry_bytes_max: self.entry_bytes_max,
            election_timeout_min_ms: self.election_timeout_min_ms,
            ..Settings::default()
        };
        Base::founding(Membership::of_voters(members), settings)
    }
}
