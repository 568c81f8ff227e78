//! Who belongs to a group, and the replicated settings its nodes must agree on.
//!
//! A membership is a value: it takes effect when it is appended and is a pure function of
//! (base, log). `outgoing` is empty except during joint consensus (dissertation 4.3), when a
//! decision needs a majority of `voters` *and* of `outgoing`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::encode::{MetadataError, decode, encode};
use super::records::{BaseRecord, MembershipRecord, SettingsRecord};
use super::{DiskId, Index, LogId, NodeId, Payload, Term};

/// One node as the membership knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it listens, `host:port`.
    pub address: String,
    /// The data directory it was first met with; `None` until a leader has met it.
    pub disk_id: Option<DiskId>,
    /// Whether it keeps votes and entry identities but no payloads.
    pub witness: bool,
}

impl Member {
    /// A member at `address` whose disk is not known yet.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), disk_id: None, witness: false }
    }
}

/// The members of a group and who among them votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "MembershipRecord", try_from = "MembershipRecord")]
pub struct Membership {
    /// Everybody: voters of either half and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// Voters of the (incoming) configuration.
    pub voters: BTreeSet<NodeId>,
    /// Voters of the outgoing configuration while joint, else empty.
    pub outgoing: BTreeSet<NodeId>,
}

impl Membership {
    /// A membership in which every given node votes.
    pub fn of_voters(members: impl IntoIterator<Item = (NodeId, Member)>) -> Self {
        let members: BTreeMap<_, _> = members.into_iter().collect();
        let voters = members.keys().copied().collect();
        Self { members, voters, outgoing: BTreeSet::new() }
    }

    /// Whether `id` votes in either half.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` is known at all.
    pub fn contains(&self, id: NodeId) -> bool {
        self.members.contains_key(&id)
    }

    /// Whether two halves must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// All members but `id`.
    pub fn others(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.members.keys().copied().filter(move |member| *member != id)
    }

    /// What is wrong with it, in words; `Ok` when every voter is a member and somebody votes.
    pub fn validate(&self) -> Result<(), String> {
        if self.voters.is_empty() {
            return Err("a membership needs at least one voter".into());
        }
        for id in self.voters.union(&self.outgoing) {
            if !self.contains(*id) {
                return Err(format!("voter {id} is not among the members"));
            }
        }
        Ok(())
    }

    /// The content of a membership entry.
    pub fn to_payload(&self) -> Result<Payload, MetadataError> {
        encode(self).map(Payload::new)
    }

    /// Reads the content of a membership entry.
    pub fn from_payload(payload: &Payload) -> Result<Self, MetadataError> {
        decode(payload.bytes()).map(|(membership, _)| membership)
    }
}

/// What all nodes of a group must agree on. Changed by an entry, kept in the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "SettingsRecord", try_from = "SettingsRecord")]
pub struct Settings {
    /// Feature level in force. Nothing of a higher level is in the log.
    pub feature_level: u32,
    /// Largest payload of a command.
    pub entry_bytes_max: u64,
    /// Smallest election timeout any node may use: how long a voter keeps faith with a leader.
    pub election_timeout_min_ms: u64,
    /// Most client sessions kept at once.
    pub sessions_max: u64,
    /// Log time after which an idle session expires.
    pub session_ttl_ms: u64,
}

impl Settings {
    /// What is wrong with them, in words: a value that no group can run with.
    pub fn validate(&self) -> Result<(), String> {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        if self.election_timeout_min_ms == 0 || self.election_timeout_min_ms > HOUR_MS {
            let ms = self.election_timeout_min_ms;
            return Err(format!("an election timeout of {ms} ms is not between 1 ms and an hour"));
        }
        if self.entry_bytes_max == 0 || self.entry_bytes_max > ENTRY_BYTES_LIMIT {
            let bytes = self.entry_bytes_max;
            return Err(format!(
                "entries of at most {bytes} bytes are not between 1 and {ENTRY_BYTES_LIMIT}"
            ));
        }
        Ok(())
    }
}

/// No node packs entries together into larger messages, so that every node knows how large the
/// messages of the others can be: this and one entry.
pub const APPEND_BYTES_LIMIT: u64 = 16 << 20;

/// No group may allow larger payloads: a frame and a batch must be able to hold one.
pub const ENTRY_BYTES_LIMIT: u64 = 1 << 30;

/// The highest feature level that this version understands.
pub const FEATURE_LEVEL: u32 = 1;

impl Settings {
    /// What a group is founded with that says nothing else.
    pub const DEFAULT: Self = Self {
        feature_level: FEATURE_LEVEL,
        entry_bytes_max: 4 << 20,
        election_timeout_min_ms: 150,
        sessions_max: 4096,
        session_ttl_ms: 30 * 60 * 1000,
    };
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where a log begins: the state that all entries before it led to. At bootstrap it stands at
/// index 0 and holds the founding members; after a snapshot it stands at the snapshot's index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "BaseRecord", try_from = "BaseRecord")]
pub struct Base {
    /// Identity of the last entry that the base covers.
    pub id: LogId,
    /// Its log time in microseconds.
    pub log_time_us: u64,
    /// The membership as of `id`.
    pub membership: Membership,
    /// The settings as of `id`.
    pub settings: Settings,
}

impl Base {
    /// The base record of a new cluster, the same on every founder.
    pub fn founding(membership: Membership, settings: Settings) -> Self {
        Self { id: LogId::new(Term::ZERO, Index::ZERO), log_time_us: 0, membership, settings }
    }

    /// A hash that founders compare in the handshake: founders with different lists refuse each
    /// other. Disk ids are left out, because each founder draws its own.
    pub fn founders_hash(&self) -> u64 {
        let addresses: Vec<(NodeId, &str, bool)> = self
            .membership
            .members
            .iter()
            .map(|(id, member)| (*id, member.address.as_str(), self.membership.is_voter(*id)))
            .collect();
        // Encoding plain numbers and strings into memory cannot fail.
        let bytes = encode(&(addresses, &self.settings)).unwrap_or_default();
        let low = crc32c::crc32c(&bytes);
        let high = crc32c::crc32c_append(0x7261_6674, &bytes);
        u64::from(high) << 32 | u64::from(low)
    }
}
