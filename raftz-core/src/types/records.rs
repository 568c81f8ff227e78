//! How memberships, settings and bases look as bytes: in entries, in checkpoints, in snapshots.
//!
//! Each record opens with its version and only ever appends fields; a record inside another stands
//! there as bytes with a length, so that a field appended to it shifts nothing behind it. A reader
//! takes the fields of the versions that it knows and skips the rest.

use serde::{Deserialize, Serialize};

use super::encode::{decode, encode};
use super::{Base, DiskId, Index, LogId, Member, Membership, NodeId, Settings, Term};

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct MemberRecord {
    version: u8,
    id: NodeId,
    address: String,
    disk_id: Option<DiskId>,
    witness: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct MembershipRecord {
    version: u8,
    members: Vec<Vec<u8>>,
    voters: Vec<NodeId>,
    outgoing: Vec<NodeId>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SettingsRecord {
    version: u8,
    feature_level: u32,
    entry_bytes_max: u64,
    election_timeout_min_ms: u64,
    sessions_max: u64,
    session_ttl_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BaseRecord {
    version: u8,
    term: Term,
    index: Index,
    log_time_us: u64,
    membership: Vec<u8>,
    settings: Vec<u8>,
}

/// A nested record. Encoding plain values into memory cannot fail.
fn nested<T: Serialize>(record: &T) -> Vec<u8> {
    encode(record).unwrap_or_default()
}

fn known(version: u8) -> Result<(), String> {
    if version == 0 {
        return Err("a record without version".into());
    }
    Ok(())
}

impl From<Membership> for MembershipRecord {
    fn from(membership: Membership) -> Self {
        let member = |(id, member): (NodeId, Member)| {
            let Member { address, disk_id, witness } = member;
            nested(&MemberRecord { version: VERSION, id, address, disk_id, witness })
        };
        Self {
            version: VERSION,
            members: membership.members.into_iter().map(member).collect(),
            voters: membership.voters.into_iter().collect(),
            outgoing: membership.outgoing.into_iter().collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = String;

    fn try_from(record: MembershipRecord) -> Result<Self, String> {
        known(record.version)?;
        let member = |bytes: Vec<u8>| {
            let (member, _) = decode::<MemberRecord>(&bytes).map_err(|error| error.to_string())?;
            let MemberRecord { version, id, address, disk_id, witness } = member;
            known(version)?;
            Ok::<_, String>((id, Member { address, disk_id, witness }))
        };
        Ok(Self {
            members: record.members.into_iter().map(member).collect::<Result<_, _>>()?,
            voters: record.voters.into_iter().collect(),
            outgoing: record.outgoing.into_iter().collect(),
        })
    }
}

impl From<Settings> for SettingsRecord {
    fn from(settings: Settings) -> Self {
        let Settings {
            feature_level,
            entry_bytes_max,
            election_timeout_min_ms,
            sessions_max,
            session_ttl_ms,
        } = settings;
        Self {
            version: VERSION,
            feature_level,
            entry_bytes_max,
            election_timeout_min_ms,
            sessions_max,
            session_ttl_ms,
        }
    }
}

impl TryFrom<SettingsRecord> for Settings {
    type Error = String;

    fn try_from(record: SettingsRecord) -> Result<Self, String> {
        known(record.version)?;
        Ok(Self {
            feature_level: record.feature_level,
            entry_bytes_max: record.entry_bytes_max,
            election_timeout_min_ms: record.election_timeout_min_ms,
            sessions_max: record.sessions_max,
            session_ttl_ms: record.session_ttl_ms,
        })
    }
}

impl From<Base> for BaseRecord {
    fn from(base: Base) -> Self {
        Self {
            version: VERSION,
            term: base.id.term,
            index: base.id.index,
            log_time_us: base.log_time_us,
            membership: nested(&base.membership),
            settings: nested(&base.settings),
        }
    }
}

impl TryFrom<BaseRecord> for Base {
    type Error = String;

    fn try_from(record: BaseRecord) -> Result<Self, String> {
        known(record.version)?;
        let words = |error: super::encode::MetadataError| error.to_string();
        Ok(Self {
            id: LogId::new(record.term, record.index),
            log_time_us: record.log_time_us,
            membership: decode(&record.membership).map_err(words)?.0,
            settings: decode(&record.settings).map_err(words)?.0,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base() -> Base {
        let id = |raw| NodeId::new(raw).unwrap();
        let known = Member { disk_id: Some(DiskId(7)), ..Member::at("127.0.0.1:2") };
        let mut membership =
            Membership::of_voters([(id(1), Member::at("127.0.0.1:1")), (id(2), known)]);
        membership.outgoing.insert(id(2));
        let settings = Settings { entry_bytes_max: 9, ..Settings::default() };
        Base { log_time_us: 5, ..Base::founding(membership, settings) }
    }

    #[test]
    fn a_base_round_trips() {
        let bytes = encode(&base()).unwrap();
        assert_eq!(decode::<Base>(&bytes).unwrap(), (base(), bytes.len()));
    }

    #[test]
    fn fields_that_a_later_version_appends_are_skipped_wherever_they_stand() {
        #[derive(Serialize)]
        struct Later<T> {
            known: T,
            appended: (u64, String),
        }
        let later = |bytes: Vec<u8>| {
            let mut bytes = bytes;
            bytes.extend(encode(&(77u64, "new")).unwrap());
            bytes
        };
        let mut membership = MembershipRecord::from(base().membership);
        membership.members = membership.members.into_iter().map(later).collect();
        let mut record = BaseRecord::from(base());
        record.membership = later(encode(&membership).unwrap());
        record.settings = later(record.settings);
        let known = record;
        let bytes = encode(&Later { known, appended: (1, "x".into()) }).unwrap();
        assert_eq!(decode::<Base>(&bytes).unwrap().0, base());
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        let bytes = encode(&base()).unwrap();
        for len in 0..bytes.len() {
            assert!(decode::<Base>(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(decode::<Settings>(&[0; 40]).is_err(), "version 0");
    }
}
