//! Snapshots, named and described.

use super::{Base, LogId};

/// Names the bytes of one snapshot: two of the same name are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last entry that it covers.
    pub last: LogId,
    /// How many bytes it has.
    pub bytes: u64,
    /// The hash of its bytes.
    pub hash: [u8; 32],
}

/// A snapshot: its name, and what its node must know of the log that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What stands where the log begins behind it.
    pub base: Base,
}
