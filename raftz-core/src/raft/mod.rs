//! The algorithm, pure: time and inputs in, actions out.
//!
//! [`Raft`] is one member's part in one group's consensus, after the Raft dissertation (Ongaro 2014),
//! section numbers of which stand at the parts. It has no clock, thread, file or socket; whoever drives
//! it feeds [`Input`]s and carries out [`Action`]s. Everything it promises to others waits until
//! [`Input::Persisted`] covers it, so a driver cannot promise too early.
//!
//! | file | decides |
//! |---|---|
//! | `core` | the object, its step, applying, status |
//! | `receive` | terms, and every cell of (role, message) |
//! | `election` | pre-vote, vote, faith in a living leader |
//! | `follower` | matching, truncation, learning commits |
//! | `leader` | proposals, replication, commitment, the check of the own quorum |
//! | `progress` | one peer as its leader sees it |
//! | `reads` | what a read must see, leases, the age of what is applied |
//! | `log`, `runs` | entries in memory, terms of all entries, durability marks |
//! | `transfer` | handing over, and leaders that should |
//! | `snapshot` | where the log begins, who is offered a snapshot, how one is installed |
//! | `writes` | writes on their way, promises that wait for them |
//! | `config_log` | memberships and settings as the log gives them |
//! | `quorum` | majorities, simple and joint |
//! | `log_time` | the cluster's clock |
//! | `counts` | what happened, for people |

mod config_log;
mod core;
mod counts;
mod election;
mod follower;
mod leader;
mod log;
mod log_time;
mod progress;
pub mod quorum;
mod reads;
mod receive;
mod runs;
mod snapshot;
mod transfer;
mod writes;

pub use self::core::{Raft, Status};
pub use self::counts::Counts;
pub use self::progress::PeerProgress;

use crate::types::{
    Boot, DiskId, Entries, Entry, Event, FaultReason, Index, NodeId, OpId, Payload, RaftMessage,
    Refusal, SessionTag, Snapshot, SnapshotId, Term, Token, TransferFailure, WriteOp,
};

/// What one member may choose for itself. Times in microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// This node's data directory.
    pub disk_id: DiskId,
    /// Shortest wait for a leader's sign of life. Raised to the group's minimum where it is below.
    pub election_timeout_min_us: u64,
    /// Longest wait. Each wait is drawn between the two.
    pub election_timeout_max_us: u64,
    /// Between a leader's signs of life.
    pub heartbeat_interval_us: u64,
    /// Most entry bytes in one append; one entry is sent whatever its size.
    pub append_bytes_max: u64,
    /// Most appends in flight to one peer.
    pub window_messages: usize,
    /// Most entry bytes in flight to one peer.
    pub window_bytes: u64,
    /// Most bytes of entries that a leader holds uncommitted; beyond it proposals are refused.
    pub uncommitted_bytes_max: u64,
    /// Most bytes of entries that a leader holds committed but unapplied; beyond it proposals are
    /// refused.
    pub unapplied_bytes_max: u64,
    /// Most bytes of entries kept in memory beyond what must be.
    pub cache_bytes_max: u64,
    /// Most bytes handed to the machine at once; one entry is handed over whatever its size.
    pub apply_bytes_max: u64,
    /// The last index that a machine which persists itself has in its own storage. Nothing is handed to
    /// it before it is on this node's own disk, so that the log never ends before the machine does.
    /// `None`: the machine is rebuilt from snapshot and log.
    pub machine_applied: Option<Index>,
    /// The newest snapshot on this node's disk, from which the machine was restored.
    pub snapshot: Option<Snapshot>,
    /// Whether this node trusts clocks: it asks for leases when it leads, and promises them when it follows.
    pub lease_reads: bool,
    /// How much faster than any other clock of the group any may run, in percent. A lease is so much shorter.
    pub lease_drift_percent: u8,
    /// How much this node is wanted as leader, 0 to 100; see [`PRIORITY_MAX`].
    pub election_priority: u8,
    /// A leader none of whose writes has become durable for so long, while one waits, makes room for another. 0: the
    /// longest election timeout.
    pub disk_stall_timeout_us: u64,
}

/// The highest election priority, and the default. Nothing can be above it, so where all nodes have it nobody
/// waits longer and nobody hands over.
pub const PRIORITY_MAX: u8 = 100;

impl Config {
    /// Defaults for a node: election 150–300 ms, heartbeat 50 ms.
    pub const fn new(id: NodeId, disk_id: DiskId) -> Self {
        Self {
            id,
            disk_id,
            election_timeout_min_us: 150_000,
            election_timeout_max_us: 300_000,
            heartbeat_interval_us: 50_000,
            append_bytes_max: 1 << 20,
            window_messages: 64,
            window_bytes: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 64 << 20,
            cache_bytes_max: 16 << 20,
            apply_bytes_max: 4 << 20,
            machine_applied: None,
            snapshot: None,
            lease_reads: false,
            lease_drift_percent: 10,
            election_priority: PRIORITY_MAX,
            disk_stall_timeout_us: 0,
        }
    }
}

/// One proposed command.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Names the caller's request.
    pub token: Token,
    /// The command.
    pub payload: Payload,
    /// Its session mark, if any.
    pub session: Option<SessionTag>,
}

/// What can happen to the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A deadline that [`next_deadline`](Raft::next_deadline) asked for has come. Harmless at any time.
    Tick,
    /// A message arrived.
    Receive {
        /// Its sender.
        from: NodeId,
        /// What it says.
        message: RaftMessage,
    },
    /// Callers propose; all together, in order.
    Propose {
        /// The commands.
        proposals: Vec<Proposal>,
    },
    /// How much must be applied before an answer holds everything acknowledged by now? Answered by
    /// [`Action::MayRead`] or [`Action::MayNotRead`], unless the office is lost before.
    Read {
        /// Names the question.
        request: u64,
        /// Whether a lease is enough.
        by_lease: bool,
    },
    /// Campaign now, with pre-vote, as if the election timeout had passed. Not while a promise to a leader with
    /// a lease lasts.
    Campaign,
    /// Hand over the leadership; answered by one [`Action::TransferEnded`].
    Transfer {
        /// Names the request.
        token: Token,
        /// To whom; `None`: to whoever suits best.
        target: Option<NodeId>,
        /// Boot-clock time by which it must be decided.
        deadline_us: u64,
        /// Leave elections to others for a while, too.
        steps_down: bool,
    },
    /// The leader is known to be dead, from a better source than silence. A follower keeps term, vote
    /// and timer, but helps others into office at once, unless it has promised not to.
    ForgetLeader,
    /// All writes up to this one are durable.
    Persisted {
        /// The last of them.
        op: OpId,
    },
    /// A write failed; the storage takes no more.
    PersistFailed {
        /// What it said.
        reason: String,
    },
    /// The state machine has applied everything up to here.
    Applied {
        /// The last applied index.
        index: Index,
    },
    /// The answer to [`Action::ReadEntries`].
    EntriesRead {
        /// The request.
        request: u64,
        /// The entries from the first asked for, at least one; or why there are none.
        result: Result<Vec<Entry>, String>,
    },
    /// A snapshot is complete on this node's disk: of its own making, or fetched.
    SnapshotKept {
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// A snapshot turned out to be damaged, or is gone.
    SnapshotLost {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Nobody needs entries up to here from this node's log any more. A snapshot covers them.
    Compact {
        /// Last index that may go.
        upto: Index,
    },
    /// The machine is what [`Action::Restore`] asked for.
    Restored {
        /// The snapshot.
        id: SnapshotId,
    },
    /// A link to a peer came up, with the identity it proved.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// Its data directory.
        disk: DiskId,
        /// Its life.
        boot: Boot,
    },
    /// The last link to a peer is gone.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// Free space fell below the reserve, or rose above it.
    StorageFull {
        /// Whether proposals are to be refused.
        full: bool,
    },
}

/// What the core wants done. Order matters only among `Persist` actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this write durable, after all earlier ones.
    Persist(WriteOp),
    /// Send a message. It may be lost, doubled or overtaken.
    Send {
        /// Its receiver.
        to: NodeId,
        /// What it says.
        message: RaftMessage,
    },
    /// Read entries that are no longer in memory and answer with [`Input::EntriesRead`].
    ReadEntries {
        /// Names the request.
        request: u64,
        /// First index wanted.
        first: Index,
        /// Last index wanted.
        last: Index,
        /// Stop after this many bytes, but give at least one entry.
        bytes_max: u64,
    },
    /// Apply `first..=last` and answer with [`Input::Applied`]. One at a time.
    Apply {
        /// First index.
        first: Index,
        /// Last index.
        last: Index,
        /// The entries, or none when they are no longer in memory and must be read.
        entries: Entries,
    },
    /// Restore the machine from a snapshot that [`Input::SnapshotKept`] told of, and answer with
    /// [`Input::Restored`]. Nothing is applied meanwhile.
    Restore {
        /// The snapshot.
        id: SnapshotId,
    },
    /// The leader offers a snapshot that this node needs: fetch it, unless that is under way.
    Fetch {
        /// Who has it.
        from: NodeId,
        /// The snapshot.
        id: SnapshotId,
    },
    /// These proposals are in the leader's log, at `first`, `first + 1`, …
    Accepted {
        /// Index of the first.
        first: Index,
        /// Their term.
        term: Term,
        /// Their requests, in order.
        tokens: Vec<Token>,
    },
    /// These proposals are not in the log and never will be.
    Refused {
        /// Their requests.
        tokens: Vec<Token>,
        /// Why.
        why: Refusal,
    },
    /// The answer to [`Input::Read`]: everything up to `index`.
    MayRead {
        /// The question.
        request: u64,
        /// What must be applied.
        index: Index,
    },
    /// The answer to [`Input::Read`] of a node that does not lead.
    MayNotRead {
        /// The question.
        request: u64,
    },
    /// The answer to [`Input::Transfer`]: who leads now, or why nothing came of it.
    TransferEnded {
        /// The request.
        token: Token,
        /// How it ended.
        result: Result<NodeId, TransferFailure>,
    },
    /// Tell observers.
    Event(Event),
    /// Stop this replica; nothing more is to be fed to it.
    Halt(FaultReason),
}
