//! Snapshots, named and described.

use std::fmt;

use super::{Base, LogId};

/// Names the bytes of one snapshot: two of the same name are the same bytes, on whatever node.
///
/// Of two snapshots of a group the one that covers more of its log is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last entry that it covers.
    pub last: LogId,
    /// How many bytes it has.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes.
    pub hash: [u8; 32],
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes, hash ", self.last, self.bytes)?;
        self.hash[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A snapshot: its name, and what its node must know of the log that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What stands where the log begins behind it.
    pub base: Base,
}
