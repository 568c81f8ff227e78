//! What a caller is told. Every accepted call ends exactly once, in one of three ways that are
//! distinct types here and distinct codes in every language.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Index, NodeId, Term};

/// How a proposal ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Committed and applied.
    Done(Done),
    /// Certainly not in the log, now or ever. Safe to retry.
    Refused(Refusal),
    /// It may still commit, or may have. Safe to retry only when the command is idempotent.
    Unknown(Unknown),
}

/// A committed, applied proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Index of its entry.
    pub index: Index,
    /// Term of its entry.
    pub term: Term,
    /// What the state machine answered.
    pub reply: Reply,
}

/// A state machine's deterministic answer to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The command took effect.
    Ok(Bytes),
    /// The machine turned the command down, alike on every replica; the bytes say why.
    Rejected(Bytes),
}

impl Reply {
    /// The bytes, whichever way it went.
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Ok(bytes) | Self::Rejected(bytes) => bytes,
        }
    }
}

/// Why a proposal is certainly not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another node leads, or did when this was asked.
    #[error("this node does not lead; {}", match .hint { Some(id) => format!("node {id} does"), None => "no leader is known".into() })]
    NotLeader {
        /// Who leads, as far as is known.
        hint: Option<NodeId>,
    },
    /// No leader appeared before the deadline.
    #[error("no leader before the deadline: {detail}")]
    NoLeader {
        /// Who cannot be reached and why.
        detail: String,
    },
    /// A bound of the node is reached; retry later.
    #[error("busy: {what} is at its bound; retry after a short wait")]
    Busy {
        /// Which bound.
        what: String,
    },
    /// The leader's disk is below its reserve of free space, or so many others' are that nothing could be committed.
    #[error("the leader's disk is almost full, or those of a quorum are; free space, then retry")]
    StorageFull,
    /// The payload exceeds the largest entry that the cluster agreed on.
    #[error("a payload of {bytes} bytes exceeds the cluster's limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// This node does not lead in the term that the caller asked for.
    #[error("wanted a leader of term {wanted}; {}", match .led { Some(term) => format!("this node leads in term {term}"), None => "this node does not lead".into() })]
    TermMismatch {
        /// The caller's term.
        wanted: Term,
        /// The term in which this node leads, if it does.
        led: Option<Term>,
    },
    /// A later leader's entry was committed in its place.
    #[error("a later leader committed another entry in its place")]
    Overwritten,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has stopped because of a fault.
    #[error("the node is faulted: {reason}")]
    Faulted {
        /// What happened.
        reason: String,
    },
    /// A blocking call was made by a callback of the node itself, which would wait for itself.
    #[error(
        "a blocking call inside {inside} would wait for itself; use the form with a callback or a future"
    )]
    InCallback {
        /// Which callback.
        inside: String,
    },
}

impl Refusal {
    /// The stable number of this refusal, the same in every language.
    pub const fn code(&self) -> i32 {
        match self {
            Self::NotLeader { .. } => -1,
            Self::NoLeader { .. } => -2,
            Self::Busy { .. } => -3,
            Self::StorageFull => -4,
            Self::TooLarge { .. } => -5,
            Self::Overwritten => -6,
            Self::ShuttingDown => -7,
            Self::Faulted { .. } => -8,
            Self::InCallback { .. } => -9,
            Self::TermMismatch { .. } => -10,
        }
    }
}

/// Why nobody here can say whether a proposal will commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unknown {
    /// The deadline passed while it was in the log or on its way there.
    #[error("timed out after it was handed to the log; it may still commit")]
    Timeout,
    /// The leader that had it lost office, or contact with it broke.
    #[error("its leader was lost after it was handed over; it may still commit")]
    LeadershipLost,
    /// The node shut down while it was in the log.
    #[error("the node shut down after it was handed to the log; it may still commit")]
    ShuttingDown,
    /// The node faulted while it was in the log.
    #[error("the node faulted after it was handed to the log; it may still commit: {reason}")]
    Faulted {
        /// What happened.
        reason: String,
    },
    /// It goes on, but the thread that wants to wait for it is a callback of the node itself.
    #[error(
        "waiting inside {inside} would wait for itself; the proposal goes on and may still commit"
    )]
    InCallback {
        /// Which callback.
        inside: String,
    },
}

impl Unknown {
    /// The stable number of this outcome, the same in every language.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Timeout => -32,
            Self::LeadershipLost => -33,
            Self::ShuttingDown => -34,
            Self::Faulted { .. } => -35,
            Self::InCallback { .. } => -36,
        }
    }
}
