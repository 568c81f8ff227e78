//! What a read may see.

use std::time::Duration;

use super::Index;

/// How new an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadLevel {
    /// All that was acknowledged anywhere before the read began. The leader asks a quorum whether it still leads;
    /// no clock is trusted and no disk is written.
    #[default]
    Linearizable,
    /// The same, and where a leader has a lease its clock answers instead of a quorum. Only with `lease_reads` in
    /// the configuration of the nodes; otherwise, or while there is no lease, as [`ReadLevel::Linearizable`].
    ///
    /// As good as the clocks: none may run faster than another by more than `lease_drift_percent`, and none may stand
    /// still. A virtual machine that is paused, or restored from an image, may be given a stale answer.
    Lease,
    /// At least what was done by the entry at this index, which a write was told: reads one's own writes on any node.
    AtLeast(Index),
    /// All that was acknowledged so long before the read began, or longer. Answered by any node that can prove it by
    /// its own clock; others ask the leader as for [`ReadLevel::Linearizable`].
    Bounded(Duration),
    /// Whatever this node has applied, which may be old. Nobody is asked.
    Stale,
}
