//! What a call on a node can fail with, apart from a proposal's [`Outcome`](crate::types::Outcome).

use rustix::io::Errno;

use crate::machine::MachineError;
use crate::storage::StorageError;
use crate::types::{Index, TransferFailure};

use super::config::ConfigError;

/// Why a call on a node failed: what, where, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration is wrong or contradicts itself.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// The network cannot be used.
    #[error("network: {detail}")]
    Network {
        /// What, and what to do about it.
        detail: String,
        /// The system's number, if it was the system that said no.
        os_error: Option<i32>,
    },
    /// The state machine's factory failed, or its own storage does not belong to this log.
    #[error("the state machine cannot be used: {0}")]
    Machine(#[from] MachineError),
    /// The system gave no thread.
    #[error("thread {name:?} was not started: {detail}; raise the limit on threads and retry")]
    Thread {
        /// The thread.
        name: String,
        /// What the system said.
        detail: String,
    },
    /// No leader became known in time.
    #[error("no leader within {waited_ms} ms: {detail}")]
    NoLeader {
        /// How long was waited.
        waited_ms: u64,
        /// Who cannot be reached and why.
        detail: String,
    },
    /// The node did not apply far enough in time.
    #[error("entry {wanted} was not applied within {waited_ms} ms: {applied} is; {detail}")]
    NotApplied {
        /// The entry waited for.
        wanted: Index,
        /// How far the machine has come.
        applied: Index,
        /// How long was waited.
        waited_ms: u64,
        /// Who leads, and who cannot be reached and why.
        detail: String,
    },
    /// A query had no answer in time.
    #[error("the query had no answer within {waited_ms} ms; the state machine may be busy")]
    QueryTimeout {
        /// How long was waited.
        waited_ms: u64,
    },
    /// The machine could not answer a query. The node goes on.
    #[error("the state machine failed to answer the query: {detail}")]
    QueryFailed {
        /// What it said.
        detail: String,
    },
    /// Too many calls are in flight.
    #[error("busy: {what} is at its bound; retry after a short wait")]
    Busy {
        /// Which bound.
        what: String,
    },
    /// A blocking call was made by a callback of the node itself.
    #[error(
        "a blocking call inside {inside} would wait for itself; use the form with a callback or a future, or another thread"
    )]
    InCallback {
        /// Which callback.
        inside: String,
    },
    /// The node was shut down before or during the call.
    #[error("the node is shut down; start a new one")]
    ShutDown,
    /// The node has stopped because of a fault.
    #[error("the node is faulted: {reason}")]
    Faulted {
        /// What happened.
        reason: String,
    },
    /// There is no snapshot: none could be taken, or not in time.
    #[error("no snapshot: {detail}")]
    Snapshot {
        /// Why.
        detail: String,
    },
    /// Another node does not lead, as it was to.
    #[error("{0}")]
    Transfer(TransferFailure),
    /// Some threads did not end in time. They end by themselves once what they are in returns.
    #[error(
        "still running after {waited_ms} ms: {threads}; a callback of the state machine, the storage or the user does not return"
    )]
    StillRunning {
        /// How long was waited.
        waited_ms: u64,
        /// Their names.
        threads: String,
    },
}

impl From<TransferFailure> for NodeError {
    fn from(failure: TransferFailure) -> Self {
        match failure {
            TransferFailure::ShuttingDown => Self::ShutDown,
            TransferFailure::Faulted { reason } => Self::Faulted { reason },
            other @ (TransferFailure::NotLeader { .. }
            | TransferFailure::UnknownTarget { .. }
            | TransferFailure::AlreadyLeads { .. }
            | TransferFailure::NotVoter { .. }
            | TransferFailure::NobodyFit { .. }
            | TransferFailure::TimedOut { .. }
            | TransferFailure::UnderWay { .. }
            | TransferFailure::Overtaken { .. }) => Self::Transfer(other),
        }
    }
}

impl NodeError {
    /// The network said something, and no system call did.
    pub(super) fn network(detail: impl Into<String>) -> Self {
        Self::Network { detail: detail.into(), os_error: None }
    }

    /// The system's number behind it, `errno`, if there is one.
    pub fn os_error(&self) -> Option<i32> {
        if let Self::Network { os_error, .. } = self {
            *os_error
        } else if let Self::Storage(StorageError::Io { source, .. }) = self {
            source.raw_os_error()
        } else if let Self::Storage(StorageError::NoSpace { .. }) = self {
            Some(Errno::NOSPC.raw_os_error())
        } else {
            None
        }
    }

    /// The stable number of this error, the same in every language. What a proposal can be refused
    /// with, too, has that number.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Config(_) => -64,
            Self::Storage(_) => -65,
            Self::Network { .. } => -66,
            Self::Machine(_) => -67,
            Self::Thread { .. } => -68,
            Self::NoLeader { .. } => -69,
            Self::NotApplied { .. } => -70,
            Self::QueryTimeout { .. } => -71,
            Self::QueryFailed { .. } => -73,
            Self::Busy { .. } => -3,
            Self::ShutDown => -7,
            Self::Faulted { .. } => -8,
            Self::InCallback { .. } => -9,
            Self::StillRunning { .. } => -72,
            Self::Snapshot { .. } => -74,
            Self::Transfer(failure) => failure.code(),
        }
    }
}
