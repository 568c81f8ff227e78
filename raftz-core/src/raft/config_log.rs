//! Memberships and settings as the log gives them: a pure function of (base, log).
//!
//! A membership is in force from the moment it is appended and falls back to the one before when
//! its entry is truncated. Settings, and anything of a later feature level, matter only when they
//! are about to be applied.

use std::collections::VecDeque;

use crate::types::encode::decode;
use crate::types::{Base, Entry, EntryKind, FEATURE_LEVEL, Index, Membership, Settings};

#[derive(Clone, Debug)]
pub(crate) struct ConfigLog {
    /// Ascending; the first is the base's, the last is the latest appended.
    memberships: VecDeque<(Index, Membership)>,
    /// Likewise.
    settings: VecDeque<(Index, Settings)>,
    /// Everything up to here is known to be committed; never below the base.
    committed: Index,
    /// The first entry that this version must not apply, and why.
    too_new: Option<(Index, String)>,
}

/// The last of `list` that an entry at or below `index` gave, or the base's.
fn as_of<T>(list: &VecDeque<(Index, T)>, index: Index) -> Option<&T> {
    let first = list.front().map(|(_, first)| first);
    let given = list.iter().rev().find(|(at, _)| *at <= index);
    given.map(|(_, given)| given).or(first)
}

impl ConfigLog {
    pub(crate) fn new(base: &Base) -> Self {
        let index = base.id.index;
        Self {
            memberships: VecDeque::from([(index, base.membership.clone())]),
            settings: VecDeque::from([(index, base.settings.clone())]),
            committed: index,
            too_new: None,
        }
    }

    /// Notes an appended entry. Returns true if it changed the membership in force.
    pub(crate) fn appended(&mut self, entry: &Entry) -> bool {
        match entry.kind {
            EntryKind::Noop | EntryKind::Command => false,
            EntryKind::Membership => match Membership::from_payload(&entry.payload) {
                Ok(membership) if membership.validate().is_ok() => {
                    self.memberships.push_back((entry.index, membership));
                    true
                }
                Ok(_) | Err(_) => {
                    self.refuse(entry.index, "a membership that does not decode".into());
                    false
                }
            },
            EntryKind::Settings => {
                match decode::<Settings>(entry.payload.bytes()) {
                    Ok((settings, _)) if settings.feature_level > FEATURE_LEVEL => self.refuse(
                        entry.index,
                        format!(
                            "it raises the feature level to {}, this version knows {FEATURE_LEVEL}",
                            settings.feature_level
                        ),
                    ),
                    Ok((settings, _)) => match settings.validate() {
                        Ok(()) => self.settings.push_back((entry.index, settings)),
                        Err(wrong) => self.refuse(entry.index, wrong),
                    },
                    Err(_) => self.refuse(entry.index, "settings that do not decode".into()),
                }
                false
            }
            EntryKind::Unknown(kind) => {
                self.refuse(entry.index, format!("an entry of kind {kind}"));
                false
            }
        }
    }

    fn refuse(&mut self, index: Index, what: String) {
        if self.too_new.as_ref().is_none_or(|(first, _)| index < *first) {
            self.too_new = Some((index, what));
        }
    }

    /// Forgets everything at and above `from`. Returns true if that changed the membership in force.
    pub(crate) fn truncate(&mut self, from: Index) -> bool {
        let before = self.memberships.len();
        while self.memberships.len() > 1
            && self.memberships.back().is_some_and(|(index, _)| *index >= from)
        {
            self.memberships.pop_back();
        }
        while self.settings.len() > 1
            && self.settings.back().is_some_and(|(index, _)| *index >= from)
        {
            self.settings.pop_back();
        }
        if self.too_new.as_ref().is_some_and(|(index, _)| *index >= from) {
            self.too_new = None;
        }
        self.memberships.len() != before
    }

    /// Everything up to `commit` is committed.
    pub(crate) fn committed(&mut self, commit: Index) {
        self.committed = self.committed.max(commit);
    }

    /// The log begins at `base` from now on; what lies behind it stays.
    pub(crate) fn rebase(&mut self, base: &Base) {
        let index = base.id.index;
        self.memberships.retain(|(at, _)| *at > index);
        self.memberships.push_front((index, base.membership.clone()));
        self.settings.retain(|(at, _)| *at > index);
        self.settings.push_front((index, base.settings.clone()));
        self.committed(index);
    }

    /// The latest membership in the log, and the index of its entry.
    pub(crate) fn latest(&self) -> (Index, &Membership) {
        // The list is never empty: the base's membership stays in it.
        self.memberships.back().map_or((Index::ZERO, EMPTY), |(index, m)| (*index, m))
    }

    /// The latest membership that is known to be committed.
    pub(crate) fn latest_committed(&self) -> &Membership {
        self.membership_as_of(self.committed)
    }

    /// The membership that the entries up to `index` gave; `index` is not below the base.
    pub(crate) fn membership_as_of(&self, index: Index) -> &Membership {
        as_of(&self.memberships, index).unwrap_or(EMPTY)
    }

    /// Whether a membership is appended that is not known to be committed.
    pub(crate) fn change_pending(&self) -> bool {
        self.latest().0 > self.committed
    }

    /// The settings in force: those that are committed.
    pub(crate) fn settings(&self) -> &Settings {
        self.settings_as_of(self.committed)
    }

    /// The settings that the entries up to `index` gave; `index` is not below the base.
    pub(crate) fn settings_as_of(&self, index: Index) -> &Settings {
        as_of(&self.settings, index).unwrap_or(&DEFAULTS)
    }

    /// The first entry that must not be applied by this version, and why.
    pub(crate) fn too_new(&self) -> Option<(Index, &str)> {
        self.too_new.as_ref().map(|(index, what)| (*index, what.as_str()))
    }
}

static DEFAULTS: Settings = Settings::DEFAULT;

static EMPTY: &Membership = &Membership {
    members: std::collections::BTreeMap::new(),
    voters: std::collections::BTreeSet::new(),
    outgoing: std::collections::BTreeSet::new(),
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::types::encode::encode;
    use crate::types::{Member, NodeId, Payload, Term};

    use super::*;

    fn membership(ids: &[u64]) -> Membership {
        Membership::of_voters(
            ids.iter().map(|id| (NodeId::new(*id).unwrap(), Member::at("127.0.0.1:1"))),
        )
    }

    fn entry(index: u64, kind: EntryKind, payload: Payload) -> Entry {
        let (term, index) = (Term(1), Index(index));
        Entry { term, index, log_time_us: 0, kind, session: None, payload }
    }

    fn change(index: u64, ids: &[u64]) -> Entry {
        entry(index, EntryKind::Membership, membership(ids).to_payload().unwrap())
    }

    fn log() -> ConfigLog {
        ConfigLog::new(&Base::founding(membership(&[1]), Settings::default()))
    }

    #[test]
    fn a_membership_is_in_force_when_appended_and_falls_back_when_truncated() {
        let mut log = log();
        assert!(log.appended(&change(3, &[1, 2])));
        assert!(log.appended(&change(5, &[1, 2, 3])));
        assert_eq!(log.latest(), (Index(5), &membership(&[1, 2, 3])));
        assert_eq!(log.latest_committed(), &membership(&[1]));
        assert!(log.change_pending());
        assert!(log.truncate(Index(5)));
        assert_eq!(log.latest().1, &membership(&[1, 2]));
        log.committed(Index(4));
        assert!(!log.change_pending());
        assert_eq!(log.latest_committed(), &membership(&[1, 2]));
        assert!(!log.truncate(Index(9)));
    }

    #[test]
    fn settings_are_in_force_when_committed() {
        let mut log = log();
        let wanted = Settings { entry_bytes_max: 77, ..Settings::default() };
        let payload = Payload::new(encode(&wanted).unwrap());
        log.appended(&entry(2, EntryKind::Settings, payload));
        assert_ne!(log.settings().entry_bytes_max, 77);
        log.committed(Index(2));
        assert_eq!(log.settings().entry_bytes_max, 77);
    }

    #[test]
    fn what_is_not_understood_is_found_before_it_is_applied_and_forgotten_when_truncated() {
        let mut log = log();
        log.appended(&entry(2, EntryKind::Unknown(9), Payload::empty()));
        assert_eq!(log.too_new().unwrap().0, Index(2));
        log.truncate(Index(2));
        assert_eq!(log.too_new(), None);
        let level = Settings { feature_level: FEATURE_LEVEL + 1, ..Settings::default() };
        log.appended(&entry(2, EntryKind::Settings, Payload::new(encode(&level).unwrap())));
        assert!(log.too_new().unwrap().1.contains("feature level"));
        log.truncate(Index(2));
        let endless = Settings { election_timeout_min_ms: u64::MAX, ..Settings::default() };
        log.appended(&entry(2, EntryKind::Settings, Payload::new(encode(&endless).unwrap())));
        assert!(log.too_new().unwrap().1.contains("election timeout"));
        log.truncate(Index(1));
        log.appended(&entry(1, EntryKind::Membership, Payload::new(&b"\xff"[..])));
        assert!(log.too_new().unwrap().1.contains("decode"));
    }
}
