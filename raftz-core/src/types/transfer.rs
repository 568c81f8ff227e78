//! Leadership on its way from one node to another: what is told of it, and why it may not arrive.

use std::fmt;

use super::NodeId;

/// How far a transfer of leadership has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransferPhase {
    /// This node brings its successor up to date, and then asks it to stand.
    Begun,
    /// The other node leads.
    Done,
    /// It does not; this node may have gone on leading.
    Failed,
}

impl fmt::Display for TransferPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

/// Why leadership was not transferred. Unless it says otherwise, who led before leads on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferFailure {
    /// Only a leader hands over.
    #[error("this node does not lead; {}", match .hint { Some(id) => format!("node {id} does: ask there"), None => "no leader is known".into() })]
    NotLeader {
        /// Who leads, as far as is known.
        hint: Option<NodeId>,
    },
    /// No member has this id.
    #[error("node {target} is no member of this cluster")]
    UnknownTarget {
        /// The id.
        target: NodeId,
    },
    /// The node leads already.
    #[error("node {target} leads already; name another node, or none")]
    AlreadyLeads {
        /// The node.
        target: NodeId,
    },
    /// The node does not vote, so it cannot lead.
    #[error("node {target} is no voter, and only voters lead")]
    NotVoter {
        /// The node.
        target: NodeId,
    },
    /// The node that was named cannot lead now, or no node can.
    #[error("nobody to hand over to: {detail}")]
    NobodyFit {
        /// Why.
        detail: String,
    },
    /// It was not decided in time.
    #[error("leadership did not reach node {target} in time: {detail}")]
    TimedOut {
        /// Who was to lead.
        target: NodeId,
        /// How far it had come.
        detail: String,
    },
    /// Another transfer is not over yet.
    #[error("leadership is being handed to node {target} already; wait for the end of that")]
    UnderWay {
        /// Who is to lead.
        target: NodeId,
    },
    /// Another node leads than the one that was named.
    #[error("node {leader} leads instead")]
    Overtaken {
        /// Who leads.
        leader: NodeId,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has stopped because of a fault.
    #[error("the node is faulted: {reason}")]
    Faulted {
        /// What happened.
        reason: String,
    },
}

impl TransferFailure {
    /// The stable number of this failure, the same in every language.
    pub const fn code(&self) -> i32 {
        match self {
            Self::NotLeader { .. } => -1,
            Self::ShuttingDown => -7,
            Self::Faulted { .. } => -8,
            Self::UnknownTarget { .. } | Self::AlreadyLeads { .. } | Self::NotVoter { .. } => -80,
            Self::NobodyFit { .. } => -81,
            Self::TimedOut { .. } => -82,
            Self::UnderWay { .. } => -83,
            Self::Overtaken { .. } => -84,
        }
    }
}
