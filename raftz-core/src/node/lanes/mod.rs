//! Lanes: the roles that do the slow work beside the event loop.
//!
//! A lane is a role, not a thread. The log lane writes and syncs, the apply lane runs the state
//! machine, the read lane fetches old entries. A storage or machine that declares that it never
//! blocks has its lane run on the event loop itself; the answers go through the same inbox either
//! way, so the loop does not care. What the lanes decide (what to merge, what to cut, how replies
//! pair with commands) stands in [`rules`], apart from the threads, for the simulator to share.

mod apply;
mod log;
mod queue;
mod read;
pub(crate) mod rules;
mod snapshot;

pub(crate) use apply::{Applier, ApplyLane, RestoreFailure, SnapshotPlace, Sum, restore};
pub(crate) use log::LogLane;
pub(crate) use read::{ReadJob, ReadLane};
pub(crate) use rules::ApplyFailure;
pub(crate) use snapshot::{BuildJob, Cancel, PieceJob, SnapshotLane};
#[cfg(feature = "sim")]
pub(crate) use snapshot::{Pieces, build, scrub};
