//! One member of one group, pure: consensus, waiting callers, forwarding, the apply cursor.
//!
//! The runtime and the simulator drive this same object. It owns no thread, clock, file or socket.
//! [`Replica`] (in `member`) puts callers in front of [`raft::Raft`]: it holds their calls while no
//! leader is known, hands them to the leader from a follower (`forward`), matches applied entries to
//! waiting callers, and sees to it that each call ends exactly once, by its deadline (`tickets`).

mod forward;
mod member;
mod tickets;

pub use member::{Config, Replica, Status};

#[cfg(doc)]
use crate::raft;
use crate::types::{
    Boot, DiskId, Entries, Entry, Event, FaultReason, Index, Message, NodeId, OpId, Outcome,
    Payload, Reply, SessionTag, Token, WriteOp,
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
    /// Campaign now.
    Campaign,
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
    /// A call has ended. Each token gets exactly one.
    Reply {
        /// The call.
        token: Token,
        /// How it ended.
        outcome: Outcome,
    },
    /// Tell observers.
    Event(Event),
    /// The replica has stopped: it has answered every call and does nothing more.
    Halt(FaultReason),
}
