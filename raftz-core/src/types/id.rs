//! Identifiers and positions. Each is its own type, so that a term can never be used as an index.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Largest term or index that is believed when it arrives from outside. Far beyond any real
/// history, and far enough from `u64::MAX` that adding a message's length can never overflow.
pub const SANE_MAX: u64 = 1 << 62;

/// A member of a cluster. Never zero: zero means "nobody" in the C ABI and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The id `raw`, or `None` for zero.
    pub const fn new(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The number behind the id.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A consensus group inside a host. Today every host holds the one group [`GroupId::FIRST`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The only group of today's hosts.
    pub const FIRST: Self = Self(1);
}

/// An election term.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

impl Term {
    /// Before any election.
    pub const ZERO: Self = Self(0);

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether a term from outside is within [`SANE_MAX`].
    pub const fn is_sane(self) -> bool {
        self.0 <= SANE_MAX
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A position in the log. The first entry has index 1; 0 means "before the first".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Index(pub u64);

impl Index {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index `n` further on.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// How many entries lie in `(self, upto]`; 0 when `upto` is not beyond `self`.
    pub const fn distance_to(self, upto: Self) -> u64 {
        upto.0.saturating_sub(self.0)
    }

    /// Whether an index from outside is within [`SANE_MAX`].
    pub const fn is_sane(self) -> bool {
        self.0 <= SANE_MAX
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The identity of an entry: two logs that hold the same `LogId` are equal up to it (Log Matching).
/// Ordered as Raft orders logs: by term, then by index.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogId {
    /// Term in which the entry was first appended.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl LogId {
    /// The position before the first entry of an empty log.
    pub const ZERO: Self = Self { term: Term::ZERO, index: Index::ZERO };

    /// The identity (`term`, `index`).
    pub const fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@t{}", self.index, self.term)
    }
}

/// Names a cluster for ever. Nodes of different clusters refuse each other in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// Names one formatted data directory for ever; drawn at random when it is formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub u128);

macro_rules! hex_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            /// Reads 1 to 32 hexadecimal digits; dashes are ignored, so a UUID is accepted.
            fn from_str(text: &str) -> Result<Self, String> {
                let wrong = || format!("{text:?} is not 1 to 32 hexadecimal digits");
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                // A sign would pass for one.
                let is_digits = digits.chars().all(|c| c.is_ascii_hexdigit());
                if text.starts_with('-') || !is_digits || !(1..=32).contains(&digits.len()) {
                    return Err(wrong());
                }
                u128::from_str_radix(&digits, 16).map(Self).map_err(|_| wrong())
            }
        }
    };
}
hex_id!(ClusterId);
hex_id!(DiskId);

/// Counts the times a data directory was opened; raised and synced at each open, so that it
/// names one life of a process.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Boot(pub u64);

/// Names one write of one group in one life of the process. Completions are cumulative: `OpId`
/// (b, s) confirms every write (b, ≤ s) of its group and none of another boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// The life of the process that issued the write.
    pub boot: Boot,
    /// Its number in that life, from 1, without gaps.
    pub seq: u64,
}

/// Names a caller's request inside one host, from intake to its one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hexadecimal_digits_and_nothing_that_passes_for_some() {
        assert_eq!("5eed".parse(), Ok(ClusterId(0x5eed)));
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(uuid.parse(), Ok(ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
        let long = "0".repeat(33);
        for wrong in ["", "-", "+1", "-1", "0x10", "c_1", " 1", "٣", long.as_str()] {
            let error = wrong.parse::<ClusterId>().map_err(|error| error.contains("1 to 32"));
            assert_eq!(error, Err(true), "{wrong:?}");
        }
    }
}
