//! The names of snapshot files. A complete one's name is its whole [`SnapshotId`], hash included.

use crate::types::{GroupId, Index, LogId, SnapshotId, Term};

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// A snapshot, whole and durable.
    Complete(GroupId, SnapshotId),
    /// One that this node is writing, or was when it died.
    Building(GroupId, LogId),
    /// One that comes, or came, from a peer.
    Incoming(GroupId, SnapshotId),
}

impl Name {
    /// The name.
    pub(super) fn text(&self) -> String {
        let place = |group: &GroupId, id: &LogId| {
            format!("{:08x}-{:016x}-{:016x}", group.0, id.index.0, id.term.0)
        };
        let whole = |group: &GroupId, id: &SnapshotId| {
            let hash = blake3::Hash::from_bytes(id.hash).to_hex();
            format!("{}-{:016x}-{hash}", place(group, &id.last), id.bytes)
        };
        match self {
            Self::Complete(group, id) => format!("snap-{}.rz", whole(group, id)),
            Self::Building(group, id) => format!("snap-{}.tmp", place(group, id)),
            Self::Incoming(group, id) => format!("incoming-{}.part", whole(group, id)),
        }
    }

    /// What this is the name of, and of nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (stem, suffix) = text.rsplit_once('.')?;
        let mut fields = stem.split('-');
        let prefix = fields.next()?;
        let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
        let group = GroupId(u32::try_from(number()?).ok()?);
        let index = Index(number()?);
        let last = LogId::new(Term(number()?), index);
        let name = match (prefix, suffix) {
            ("snap", "tmp") => Self::Building(group, last),
            ("snap" | "incoming", _) => {
                let bytes = number()?;
                let hash = *blake3::Hash::from_hex(fields.next()?).ok()?.as_bytes();
                let id = SnapshotId { last, bytes, hash };
                if prefix == "snap" { Self::Complete(group, id) } else { Self::Incoming(group, id) }
            }
            _ => return None,
        };
        (name.text() == text).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_round_trip_and_all_others_are_strangers() {
        let last = LogId::new(Term(2), Index(0x1f));
        let id = SnapshotId { last, bytes: 300, hash: [0xab; 32] };
        let group = GroupId(1);
        for name in
            [Name::Complete(group, id), Name::Building(group, last), Name::Incoming(group, id)]
        {
            let text = name.text();
            assert!(text.len() < 200 && Name::parse(&text) == Some(name), "{text}");
            for cut in 0..text.len() {
                assert_eq!(Name::parse(&text[..cut]), None, "{}", &text[..cut]);
            }
            for stranger in [format!("{text}~"), text.to_uppercase(), text.replace("-", "-0")] {
                assert_eq!(Name::parse(&stranger), None, "{stranger}");
            }
        }
        for stranger in
            ["spare.tmp", "snap-.rz", "wal-0000000000000001.log", "snap-1-2-3.tmp", "vote"]
        {
            assert_eq!(Name::parse(stranger), None, "{stranger}");
        }
    }
}
