//! What a node tells its observers. Nothing depends on an event being seen.

use std::fmt;

use super::{DiskId, Index, Membership, NodeId, Term, TransferPhase};

/// What a member of a group is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election would succeed.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node's role or term changed.
    Role {
        /// The new role.
        role: Role,
        /// In this term.
        term: Term,
    },
    /// Another leader is known, or none any more.
    Leader {
        /// Who leads.
        leader: Option<NodeId>,
        /// In this term.
        term: Term,
    },
    /// The leader has committed an entry of its own term: everything older is known committed.
    Ready {
        /// The leader's term.
        term: Term,
    },
    /// A membership took effect.
    Membership {
        /// Index of its entry.
        index: Index,
        /// The membership.
        membership: Membership,
    },
    /// A link to a peer is usable.
    PeerUp {
        /// The peer.
        peer: NodeId,
    },
    /// No link to a peer is usable any more.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// A peer was refused because it is not what the membership says.
    PeerRefused {
        /// The id that it claims.
        peer: NodeId,
        /// Its data directory.
        disk: DiskId,
        /// Why it was refused.
        reason: String,
    },
    /// A message that no honest node sends was dropped.
    Nonsense {
        /// Its sender.
        from: NodeId,
        /// What is wrong with it.
        what: String,
    },
    /// Damaged entries have been overwritten by the leader; the node is whole again.
    Healed {
        /// The log is intact up to here.
        upto: Index,
    },
    /// A peer answers heartbeats, but its log has not moved for a long time although it is behind.
    PeerStalled {
        /// The peer.
        peer: NodeId,
        /// Its log equals the leader's up to here.
        matched: Index,
        /// The leader's last index.
        last: Index,
    },
    /// Storage could not do something that the node can live without for now.
    StorageTrouble {
        /// What it said.
        detail: String,
    },
    /// The network could not do something that concerns no peer in particular.
    NetworkTrouble {
        /// What it said.
        detail: String,
    },
    /// Free disk space fell below the reserve, or rose above it again.
    StorageFull {
        /// Whether proposals are refused.
        full: bool,
    },
    /// A snapshot has come to this phase.
    Snapshot {
        /// What is done with it.
        phase: SnapshotPhase,
        /// The other node, where there is one.
        peer: Option<NodeId>,
        /// The last entry that it covers.
        index: Index,
        /// Bytes that are through.
        bytes: u64,
        /// All its bytes.
        total_bytes: u64,
    },
    /// Leadership is being handed over by this node.
    Transfer {
        /// Who is to lead; who leads, once it is done.
        to: NodeId,
        /// How far it has come.
        phase: TransferPhase,
        /// Why it was begun, or why it failed; empty once it is done.
        detail: String,
    },
    /// The node has stopped and does nothing more for its group.
    Faulted(FaultReason),
    /// Events were dropped because this observer was busy for too long. None of those that replace each other
    /// (see [`Event::key`]) is among them.
    Dropped {
        /// How many, since the node or the subscription began.
        total: u64,
    },
}

impl Event {
    /// What it tells of, to choose by.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Role { .. } => EventKind::Role,
            Self::Leader { .. } => EventKind::Leader,
            Self::Ready { .. } => EventKind::Ready,
            Self::Membership { .. } => EventKind::Membership,
            Self::PeerUp { .. } => EventKind::PeerUp,
            Self::PeerDown { .. } => EventKind::PeerDown,
            Self::PeerRefused { .. } => EventKind::PeerRefused,
            Self::Nonsense { .. } => EventKind::Nonsense,
            Self::Healed { .. } => EventKind::Healed,
            Self::PeerStalled { .. } => EventKind::PeerStalled,
            Self::StorageTrouble { .. } => EventKind::StorageTrouble,
            Self::NetworkTrouble { .. } => EventKind::NetworkTrouble,
            Self::StorageFull { .. } => EventKind::StorageFull,
            Self::Snapshot { .. } => EventKind::Snapshot,
            Self::Transfer { .. } => EventKind::Transfer,
            Self::Faulted(_) => EventKind::Faulted,
            Self::Dropped { .. } => EventKind::Dropped,
        }
    }

    /// What it tells the present state of, if it does: while an event waits to be delivered, a later one with the
    /// same key takes its place, because it says all that is still true. Events without a key tell of something
    /// that happened, each for itself.
    pub const fn key(&self) -> Option<EventKey> {
        match self {
            Self::Role { .. } => Some(EventKey::Role),
            Self::Leader { .. } => Some(EventKey::Leader),
            Self::Ready { .. } => Some(EventKey::Ready),
            Self::Membership { .. } => Some(EventKey::Membership),
            Self::PeerUp { peer } | Self::PeerDown { peer, .. } => Some(EventKey::Link(*peer)),
            Self::PeerStalled { peer, .. } => Some(EventKey::Stalled(*peer)),
            Self::StorageFull { .. } => Some(EventKey::StorageFull),
            Self::Snapshot { phase, peer, .. } => Some(EventKey::Snapshot(*peer, *phase)),
            Self::Transfer { .. } => Some(EventKey::Transfer),
            Self::Faulted(_) => Some(EventKey::Faulted),
            Self::Dropped { .. } => Some(EventKey::Dropped),
            Self::PeerRefused { .. }
            | Self::Nonsense { .. }
            | Self::Healed { .. }
            | Self::StorageTrouble { .. }
            | Self::NetworkTrouble { .. } => None,
        }
    }
}

/// What events tell of. The numbers are the same in every language and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum EventKind {
    /// [`Event::Role`].
    Role = 1,
    /// [`Event::Leader`].
    Leader = 2,
    /// [`Event::Ready`].
    Ready = 3,
    /// [`Event::Membership`].
    Membership = 4,
    /// [`Event::PeerUp`].
    PeerUp = 5,
    /// [`Event::PeerDown`].
    PeerDown = 6,
    /// [`Event::PeerRefused`].
    PeerRefused = 7,
    /// [`Event::Nonsense`].
    Nonsense = 8,
    /// [`Event::Healed`].
    Healed = 9,
    /// [`Event::PeerStalled`].
    PeerStalled = 10,
    /// [`Event::StorageTrouble`].
    StorageTrouble = 11,
    /// [`Event::NetworkTrouble`].
    NetworkTrouble = 12,
    /// [`Event::StorageFull`].
    StorageFull = 13,
    /// [`Event::Faulted`].
    Faulted = 14,
    /// [`Event::Snapshot`].
    Snapshot = 15,
    /// [`Event::Transfer`].
    Transfer = 16,
    /// [`Event::Dropped`].
    Dropped = 17,
}

/// Kinds of events to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKinds(u64);

impl EventKinds {
    /// Every kind, also those of later versions.
    pub const ALL: Self = Self(u64::MAX);

    /// These kinds, and [`EventKind::Dropped`], without which nobody would learn what is missing.
    pub fn of(kinds: &[EventKind]) -> Self {
        let bit = |kind: &EventKind| 1 << *kind as u32;
        Self(kinds.iter().chain(&[EventKind::Dropped]).map(bit).fold(0, |all, bit| all | bit))
    }

    /// Whether this kind is among them.
    pub const fn contains(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

impl EventKey {
    /// Whether a node has one such state, and not one for each peer.
    pub const fn is_of_the_node(self) -> bool {
        !matches!(self, Self::Link(_) | Self::Stalled(_) | Self::Snapshot(Some(_), _))
    }
}

/// What an event tells the present state of; see [`Event::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKey {
    /// Role and term.
    Role,
    /// Who leads.
    Leader,
    /// Since which term this leader is ready.
    Ready,
    /// The membership in force.
    Membership,
    /// Whether a peer is connected.
    Link(NodeId),
    /// That a peer stands still.
    Stalled(NodeId),
    /// Whether the disk is full.
    StorageFull,
    /// How far a transfer is, or what was last done with snapshots.
    Snapshot(Option<NodeId>, SnapshotPhase),
    /// How far the last transfer of leadership is.
    Transfer,
    /// Why the node stopped.
    Faulted,
    /// How many events were dropped.
    Dropped,
}

/// A snapshot on its way between this node and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTransfer {
    /// The peer.
    pub peer: NodeId,
    /// [`SnapshotPhase::Sending`] or [`SnapshotPhase::Fetching`].
    pub phase: SnapshotPhase,
    /// The last entry that it covers.
    pub index: Index,
    /// How many of its bytes have been given, or are on this node's disk.
    pub bytes: u64,
    /// How many it has.
    pub total_bytes: u64,
}

/// What is done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotPhase {
    /// This node has taken it.
    Built,
    /// A peer fetches it from this node.
    Sending,
    /// The peer was given its last piece.
    Sent,
    /// This node fetches it.
    Fetching,
    /// It is on this node's disk, whole.
    Fetched,
    /// The state machine was restored from it.
    Installed,
    /// It is not fetched any more; a later offer may go on with it.
    Failed,
}

impl fmt::Display for SnapshotPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Built => "built",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Fetching => "fetching",
            Self::Fetched => "fetched",
            Self::Installed => "installed",
            Self::Failed => "failed",
        })
    }
}

/// Why a replica stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultReason {
    /// A write or sync failed. The directory takes no more writes in this life.
    #[error("storage failed: {0}; check the disk, then restart the node")]
    Storage(String),
    /// The state machine failed.
    #[error("the state machine failed at index {index} ({kind}): {detail}")]
    Machine {
        /// First entry of the batch that failed, or the entry itself where it is known.
        index: Index,
        /// Which callback: apply, restore, …
        kind: &'static str,
        /// What it said.
        detail: String,
    },
    /// The log holds something of a later feature level.
    #[error("entry {index} needs a newer version of raftz: {what}")]
    TooNew {
        /// The entry.
        index: Index,
        /// What is not understood.
        what: String,
    },
    /// A committed entry contradicts the log. Some promise was broken: by a disk that lied, by two
    /// nodes with one identity, or by a bug.
    #[error("safety violation: {0}; keep the data directory for inspection")]
    Safety(String),
    /// The runtime around the replica failed.
    #[error("the node's runtime failed: {0}; restart the node and report this")]
    Host(String),
    /// The cluster knows another data directory under this node's id.
    #[error(
        "the cluster knows node {node} by another data directory ({known}, not {ours}): this one was wiped or copied; join under a new id"
    )]
    WrongDisk {
        /// This node.
        node: NodeId,
        /// What the membership says.
        known: DiskId,
        /// What this directory is.
        ours: DiskId,
    },
}
