//! One member of one group, pure: consensus, waiting callers, forwarding, the apply cursor.
//!
//! The runtime and the simulator drive this same object. It owns no thread, clock, file or socket.
//! [`Replica`] (in `member`) puts callers in front of [`raft::Raft`]: it holds their calls while no
//! leader is known, hands them to the leader from a follower (`forward`), matches applied entries to
//! waiting callers, and sees to it that each call ends exactly once, by its deadline (`tickets`).

mod forward;
mod member;
mod reads;
mod snapshots;
mod tickets;
mod transfer;

pub use member::{Config, Replica, Status};
pub use snapshots::SnapshotPolicy;

#[cfg(doc)]
use crate::raft;
use bytes::Bytes;

use crate::types::{
    Base, Boot, DiskId, Entries, Entry, Event, FaultReason, Index, Message, NodeId, OpId, Outcome,
    Payload, ReadLevel, Reply, SessionTag, Snapshot, SnapshotId, Token, TransferFailure, WriteOp,
};

/// A caller's request to put a command into the log.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names the request; unique among the requests in flight of this host.
    pub token: Token,
    /// The command.
    pub payload: Payload,
    /// Its session mark, if any.
    pub session: Option<SessionTag>,
    /// Boot-clock time by which the caller must have its answer.
    pub deadline_us: u64,
    /// Whether a follower may hand it to the leader, or hold it until there is one.
    pub forward: bool,
}

/// A caller's request to ask the machine.
#[derive(Clone, Copy, Debug)]
pub struct ReadCall {
    /// Names the request; unique among the reads in flight of this host.
    pub token: Token,
    /// How new the answer must be.
    pub level: ReadLevel,
    /// Boot-clock time by which the machine must be asked, or the caller told why it is not.
    pub deadline_us: u64,
}

/// Why the machine is not asked. It could have been without harm: reads change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// No leader confirmed it before the deadline.
    NoLeader {
        /// Who cannot be reached and why.
        detail: String,
    },
    /// The machine was not there before the deadline.
    NotApplied {
        /// Where it had to be.
        wanted: Index,
        /// Where it was.
        applied: Index,
    },
    /// The node is shutting down.
    ShuttingDown,
    /// The node has stopped because of a fault.
    Faulted {
        /// What happened.
        reason: String,
    },
}

/// A caller's request that another node lead.
#[derive(Clone, Copy, Debug)]
pub struct TransferCall {
    /// Names the request.
    pub token: Token,
    /// Who is to lead; `None`: whoever suits best.
    pub target: Option<NodeId>,
    /// Boot-clock time by which it must be decided.
    pub deadline_us: u64,
    /// Whether this node leaves elections to others for a while, too.
    pub steps_down: bool,
}

/// What can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A deadline that `next_deadline` asked for has come. Harmless at any time.
    Tick,
    /// A message arrived.
    Receive {
        /// Its sender.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Callers propose; all that came together, in order.
    Propose(Vec<Call>),
    /// Callers want to ask the machine; all that came together. The time that comes with it must have been read
    /// after they asked.
    Read(Vec<ReadCall>),
    /// Campaign now.
    Campaign,
    /// Hand over the leadership; answered by one [`Action::TransferEnded`]. Meanwhile calls are held.
    Transfer(TransferCall),
    /// See [`raft::Input::ForgetLeader`].
    ForgetLeader,
    /// All writes up to this one are durable.
    Persisted(OpId),
    /// A write failed; the storage takes no more.
    PersistFailed(String),
    /// The machine has applied a range that [`Action::Apply`] asked for.
    Applied {
        /// Last index of the range.
        last: Index,
        /// The log time of that entry, in microseconds.
        log_time_us: u64,
        /// What the entries of the range cost, in bytes.
        bytes: u64,
        /// (index, reply) of every command in it, ascending.
        replies: Vec<(Index, Reply)>,
    },
    /// The machine failed.
    ApplyFailed {
        /// Where.
        index: Index,
        /// Which callback.
        kind: &'static str,
        /// What it said.
        detail: String,
    },
    /// The answer to [`Action::ReadEntries`].
    EntriesRead {
        /// The request.
        request: u64,
        /// The entries, or why there are none.
        result: Result<Vec<Entry>, String>,
    },
    /// A link to a peer came up.
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
        /// Why, in words.
        reason: String,
    },
    /// An attempt to reach a peer failed.
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A [`Forward`](crate::types::Forward) could not be handed to the transport.
    ForwardUnsent {
        /// Its id.
        id: u64,
        /// Whether it never can be: no link takes a message as large as one of its calls.
        is_too_large: bool,
    },
    /// A peer refused this node because the cluster knows it by another data directory.
    WrongDisk {
        /// What the cluster knows.
        known: DiskId,
    },
    /// Free space fell below the reserve, or rose above it.
    StorageFull(bool),
    /// Deal with snapshots like this from now on.
    SetSnapshotPolicy(SnapshotPolicy),
    /// Take a snapshot as soon as there is something new to take.
    TakeSnapshot,
    /// The answer to [`Action::TakeSnapshot`]: the snapshot, complete on disk, or why there is none.
    SnapshotBuilt(Result<Snapshot, String>),
    /// The machine is what [`Action::Restore`] asked for.
    Restored(SnapshotId),
    /// The answer to [`Action::ReadPiece`].
    PieceRead {
        /// For whom.
        to: NodeId,
        /// The snapshot.
        id: SnapshotId,
        /// Where the piece begins in it.
        offset: u64,
        /// The bytes, at least one; or why there are none.
        result: Result<Bytes, String>,
    },
    /// The answer to [`Action::BeginFetch`].
    FetchBegan {
        /// The snapshot.
        id: SnapshotId,
        /// How many of its bytes are on disk from an earlier attempt, or why it cannot begin.
        result: Result<u64, String>,
    },
    /// The answer to [`Action::WritePiece`].
    PieceWritten {
        /// The snapshot.
        id: SnapshotId,
        /// How many of its bytes are on disk and sound; the next piece must begin there.
        held_bytes: u64,
        /// What is wrong with the piece, if anything is.
        damage: Option<String>,
    },
    /// The answer to [`Action::FinishFetch`].
    FetchFinished {
        /// The snapshot.
        id: SnapshotId,
        /// It, complete on disk and verified from end to end; or what is wrong with it.
        result: Result<Snapshot, String>,
    },
    /// The answer to [`Action::ScrubSnapshots`]: which are damaged or missing, and how.
    SnapshotsScrubbed(Vec<(SnapshotId, String)>),
    /// The answer to [`Action::FindSnapshot`]: it was verified from end to end.
    SnapshotFound(Snapshot),
    /// Something about snapshots went wrong that is only to be told.
    SnapshotTrouble(String),
    /// Take no more calls and answer those that wait. Consensus goes on until the host stops.
    Shutdown,
}

/// What a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// See [`raft::Action::Persist`].
    Persist(WriteOp),
    /// Send a message.
    Send {
        /// Its receiver.
        to: NodeId,
        /// What it says.
        message: Message,
    },
    /// See [`raft::Action::ReadEntries`].
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
    /// See [`raft::Action::Apply`]; answered by [`Input::Applied`] or [`Input::ApplyFailed`].
    Apply {
        /// First index.
        first: Index,
        /// Last index.
        last: Index,
        /// The entries, or none when they must be read from storage.
        entries: Entries,
    },
    /// Freeze the machine, which has applied everything up to `base.id` and nothing else, write what it froze
    /// into a snapshot beside it, and answer with [`Input::SnapshotBuilt`]. One at a time.
    TakeSnapshot {
        /// What the snapshot stands for.
        base: Box<Base>,
    },
    /// What [`Action::TakeSnapshot`] began is not wanted any more: end it soon, and answer that it failed, or that
    /// it was complete before.
    CancelSnapshot,
    /// See [`raft::Action::Restore`]; answered by [`Input::Restored`] or [`Input::ApplyFailed`].
    Restore {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Read a piece of a snapshot, for a peer; answered by [`Input::PieceRead`].
    ReadPiece {
        /// For whom.
        to: NodeId,
        /// The snapshot.
        id: SnapshotId,
        /// Where the piece begins.
        offset: u64,
        /// Most bytes of it.
        bytes_max: u32,
    },
    /// Begin to receive a snapshot, or go on with it; answered by [`Input::FetchBegan`].
    BeginFetch {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Add a piece, if it begins where the last one ended; answered by [`Input::PieceWritten`].
    WritePiece {
        /// The snapshot.
        id: SnapshotId,
        /// Where the piece begins.
        offset: u64,
        /// It.
        bytes: Bytes,
    },
    /// Verify the whole and keep it; answered by [`Input::FetchFinished`].
    FinishFetch {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Receive no more of it for now. What is there may stay, to go on with.
    AbandonFetch {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Delete the damaged ones, then all complete snapshots but the newest ones and those that peers are fetching.
    PruneSnapshots {
        /// How many of the newest stay.
        keep: usize,
        /// Which others stay.
        spare: Vec<SnapshotId>,
        /// Which are damaged.
        damaged: Vec<SnapshotId>,
    },
    /// Look once more for a snapshot here that can be read and covers `least`, and answer with
    /// [`Input::SnapshotFound`] if there is one.
    FindSnapshot {
        /// The entry to cover.
        least: Index,
    },
    /// Read and verify everything that is kept, without hurry; answered by [`Input::SnapshotsScrubbed`].
    ScrubSnapshots {
        /// The newest one, which must be there.
        newest: Option<SnapshotId>,
    },
    /// A call has ended. Each token gets exactly one.
    Reply {
        /// The call.
        token: Token,
        /// How it ended.
        outcome: Outcome,
    },
    /// Ask the machine for these reads, now or when it has applied more. Each read gets this or
    /// [`Action::EndRead`], once.
    Read {
        /// The reads.
        tokens: Vec<Token>,
    },
    /// A read has ended without an answer.
    EndRead {
        /// The read.
        token: Token,
        /// Why.
        why: ReadFailure,
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
    /// The replica has stopped: it has answered every call and does nothing more.
    Halt(FaultReason),
}
