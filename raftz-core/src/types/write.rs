//! What a group asks its storage to make durable, and what storage gives back at open.

use serde::{Deserialize, Serialize};

use super::{Base, Boot, ClusterId, DiskId, Entries, Entry, Index, LogId, NodeId, OpId, Term};

/// The promise that must survive everything: one record, written as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
}

/// One ordered write of a group. Its parts take effect in the order of the fields, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOp {
    /// Its place in the group's order.
    pub id: OpId,
    /// A new hard state.
    pub hard_state: Option<HardState>,
    /// Drop every entry at and above this index.
    pub truncate_from: Option<Index>,
    /// The log begins here from now on: entries at and below `base.id` are dropped. Where the log does
    /// not hold `base.id`, everything is dropped, and the log is empty at `base`. The present base
    /// changes nothing; one at or below its index with another identity is invalid.
    pub base: Option<Box<Base>>,
    /// Append these, in order; the first one follows the log's last entry.
    pub entries: Entries,
    /// The commit index known at the time: a hint that lets a restart apply without waiting.
    pub commit: Index,
}

/// What a data directory is, fixed when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Raised when a cluster is rebuilt from survivors; nodes of other epochs refuse each other.
    pub epoch: u64,
    /// The node.
    pub node: NodeId,
    /// The directory.
    pub disk: DiskId,
    /// [`Base::founders_hash`] of the base record that it was formatted with; 0 if it joined.
    pub founders_hash: u64,
}

/// Entries from `first` up to the next run were appended in `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// First index of the run.
    pub first: Index,
    /// Its term.
    pub term: Term,
}

/// What storage lost although it had been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First index whose entry is damaged. Everything below is intact.
    pub first_faulty: Index,
    /// How far the log had reached.
    pub lost: Lost,
}

/// How far a log had reached before it was damaged, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its last entry, if its identity survived.
    pub last_known: Option<LogId>,
    /// No entry that was lost had a later term.
    pub term_max: Term,
}

impl Lost {
    /// Whether a log that equals a leader's up to its own end, `last`, holds again whatever this
    /// one ever helped to commit: it is as new as the last entry lost or, if that is not known, its
    /// last term began after everything that was lost. A commit of the same term would prove
    /// nothing: an acknowledgement from before the loss may still be on its way.
    pub fn is_overwritten_by(&self, last: LogId) -> bool {
        match self.last_known {
            Some(known) => last >= known || bug!(DamageHealsTooSoon),
            None => last.term > self.term_max,
        }
    }
}

/// What storage found at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What the directory is.
    pub identity: Identity,
    /// This life of it, already durable.
    pub boot: Boot,
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins.
    pub base: Base,
    /// Last usable entry; equals `base.id` when there is none. Below `damage.first_faulty`.
    pub last: LogId,
    /// The terms of all entries in `(base, last]`, ascending, one run per change of term.
    pub runs: Vec<TermRun>,
    /// All entries in `(base, last]` that are neither commands nor no-ops.
    pub config_entries: Vec<Entry>,
    /// Log time of `last`.
    pub last_log_time_us: u64,
    /// Highest commit index ever written beside a batch, at most `last`.
    pub commit: Index,
    /// What was durable and is lost.
    pub damage: Option<Damage>,
    /// What a person should know about this open: a torn tail that was cut, and the like.
    pub notes: Vec<String>,
}

#[cfg(test)]
impl Recovered {
    /// What a founder finds in its new directory.
    pub(crate) fn founded(node: NodeId, disk: DiskId, base: Base) -> Self {
        let cluster = ClusterId(1);
        Self {
            identity: Identity { cluster, epoch: 1, node, disk, founders_hash: 0 },
            boot: Boot(1),
            hard_state: HardState::default(),
            base,
            last: LogId::ZERO,
            runs: Vec::new(),
            config_entries: Vec::new(),
            last_log_time_us: 0,
            commit: Index::ZERO,
            damage: None,
            notes: Vec::new(),
        }
    }
}
