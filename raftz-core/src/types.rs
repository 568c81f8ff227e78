//! The vocabulary: what every other module speaks. Plain values, no behaviour that decides.

pub mod encode;
mod entries;
mod entry;
mod event;
mod histogram;
mod id;
mod membership;
mod message;
mod outcome;
mod read;
mod records;
mod snapshot;
mod time;
mod transfer;
mod write;

pub use entries::Entries;
pub use entry::{
    ENTRY_HEADER_BYTES, ENTRY_HEADER_SESSION_BYTES, Entry, EntryHeader, EntryHeaderError,
    EntryKind, Payload, SessionTag,
};
pub use event::{
    Event, EventKey, EventKind, EventKinds, FaultReason, Role, SnapshotPhase, SnapshotTransfer,
};
pub use histogram::{BOUNDS, Histogram, Measure};
pub use id::{Boot, ClusterId, DiskId, GroupId, Index, LogId, NodeId, OpId, SANE_MAX, Term, Token};
pub use membership::{
    APPEND_BYTES_LIMIT, Base, ENTRY_BYTES_LIMIT, FEATURE_LEVEL, Member, Membership, Settings,
};
pub use message::{
    Append, AppendOutcome, AppendReply, Forward, ForwardReply, ForwardedProposal, Heartbeat,
    HeartbeatReply, Message, PreVote, RaftBody, RaftMessage, ReadMessage, SnapshotMessage,
    SnapshotOffer, Vote, VoteReply,
};
pub use outcome::{Done, Outcome, Refusal, Reply, Unknown};
pub use read::ReadLevel;
pub use snapshot::{Snapshot, SnapshotId};
pub use time::Now;
pub(crate) use time::earliest;
pub use transfer::{TransferFailure, TransferPhase};
pub use write::{Damage, HardState, Identity, Lost, Recovered, TermRun, WriteOp};
