//! What has been told of other nodes, and what may be told now.
//!
//! Who may connect may also knock, speak and hang up as often as it likes, and each time is an event
//! and a line in the log. So a member's trouble is told once for each reason until it is linked
//! again, what makes no sense in its messages once a second for each thing it says, and what anybody
//! else can cause at will once a second for all of them, with a count of the rest.
//! Otherwise one stranger could fill a disk with log lines, and push the events that matter out of
//! the bounded queue to the callback thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::types::{Event, NodeId, SnapshotPhase};

use super::limiter::Limiter;

/// Most reasons, and most codes, that are told of one member while it is not linked: a name or an
/// address is tried again for ever, and codes come from outside.
const REASONS_MAX: usize = 8;

/// Most things that members say and that make no sense which are told apart; the rest share one
/// line a second.
const NONSENSE_MAX: usize = 64;

/// Events that others can cause at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Handshakes that were refused.
    Refused,
    /// Members' messages that no honest node sends.
    Nonsense,
    /// The same, from outside the membership.
    OutsideNonsense,
    /// Links of nodes outside the membership.
    OutsideLinks,
    /// Snapshots that members ask for.
    Snapshots,
    /// What concerns no peer in particular.
    Network,
}

impl Kind {
    const fn plural(self) -> &'static str {
        match self {
            Self::Refused => "refused handshakes",
            Self::Nonsense => "senseless messages of members",
            Self::OutsideNonsense => "senseless messages from outside the membership",
            Self::OutsideLinks => "links from outside the membership that came or went",
            Self::Snapshots => "pieces of snapshots that members asked for",
            Self::Network => "troubles of the network",
        }
    }
}

/// What kind an event is of, if others can cause it at will, and its words.
fn caused_by_others(
    event: &mut Event,
    is_member: impl Fn(NodeId) -> bool,
) -> Option<(Kind, Option<&mut String>)> {
    match event {
        Event::PeerRefused { reason, .. } => Some((Kind::Refused, Some(reason))),
        Event::Nonsense { from, what } => {
            let kind = if is_member(*from) { Kind::Nonsense } else { Kind::OutsideNonsense };
            Some((kind, Some(what)))
        }
        Event::PeerUp { peer } => (!is_member(*peer)).then_some((Kind::OutsideLinks, None)),
        Event::PeerDown { peer, reason } => {
            (!is_member(*peer)).then_some((Kind::OutsideLinks, Some(reason)))
        }
        Event::NetworkTrouble { detail } => Some((Kind::Network, Some(detail))),
        Event::Snapshot { phase: SnapshotPhase::Sending, .. } => Some((Kind::Snapshots, None)),
        Event::Role { .. }
        | Event::Leader { .. }
        | Event::Ready { .. }
        | Event::Membership { .. }
        | Event::Healed { .. }
        | Event::PeerStalled { .. }
        | Event::StorageTrouble { .. }
        | Event::StorageFull { .. }
        | Event::Snapshot { .. }
        | Event::Transfer { .. }
        | Event::Faulted(_)
        | Event::Dropped { .. } => None,
    }
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Members out of reach, and the reasons that were told since they were last linked.
    unreachable: BTreeMap<NodeId, BTreeSet<String>>,
    /// Members that refuse this node, and the codes they gave.
    refused_by: BTreeMap<NodeId, BTreeSet<u16>>,
    /// Members that this node refused, and the codes it gave.
    refused: BTreeMap<NodeId, BTreeSet<u16>>,
    limiters: BTreeMap<Kind, Limiter>,
    /// What makes no sense, by the member that says it.
    nonsense: BTreeMap<(NodeId, String), Limiter>,
}

impl Told {
    /// A node is linked: what is wrong with it from here on is news.
    pub(super) fn linked(&mut self, peer: NodeId) {
        self.unreachable.remove(&peer);
        self.refused_by.remove(&peer);
        self.refused.remove(&peer);
    }

    /// Whether it is news that a member is out of reach for this reason.
    pub(super) fn unreachable(&mut self, peer: NodeId, reason: &str) -> bool {
        let told = self.unreachable.entry(peer).or_default();
        told.len() < REASONS_MAX && told.insert(reason.to_owned())
    }

    /// Whether it is news that a member refuses this node with this code.
    pub(super) fn refused_by(&mut self, peer: NodeId, code: u16) -> bool {
        let told = self.refused_by.entry(peer).or_default();
        told.len() < REASONS_MAX && told.insert(code)
    }

    /// Whether it is news that this node refused a member with this code.
    pub(super) fn refused(&mut self, peer: NodeId, code: u16) -> bool {
        self.refused.entry(peer).or_default().insert(code)
    }

    /// The event, if it may be told now. Its words then say how many of its kind were left out.
    pub(super) fn admit(
        &mut self,
        now_us: u64,
        mut event: Event,
        is_member: impl Fn(NodeId) -> bool,
    ) -> Option<Event> {
        let said = if let Event::Nonsense { from, what } = &event {
            Some((*from, what.clone()))
        } else {
            None
        };
        let Some((kind, words)) = caused_by_others(&mut event, is_member) else {
            return Some(event);
        };
        let has_place = |said: &(NodeId, String)| {
            kind == Kind::Nonsense
                && (self.nonsense.len() < NONSENSE_MAX || self.nonsense.contains_key(said))
        };
        let limiter = match said.filter(has_place) {
            Some(said) => self.nonsense.entry(said).or_default(),
            None => self.limiters.entry(kind).or_default(),
        };
        let left_out = limiter.admit(now_us)?;
        match words {
            // Writing to a string cannot fail.
            Some(words) if left_out > 0 => {
                let _ = write!(words, " \u{2026} and {left_out} more");
            }
            Some(_) => {}
            None => limiter.put_back(left_out),
        }
        Some(event)
    }

    /// Whether anything has been told that is told now and then only.
    pub(super) fn has_limited(&self) -> bool {
        !self.limiters.is_empty() || !self.nonsense.is_empty()
    }

    /// What to say of those that were left out and that nothing followed.
    pub(super) fn left_out(&mut self, now_us: u64) -> impl Iterator<Item = String> {
        let shared = self.limiters.iter_mut().filter_map(move |(kind, limiter)| {
            let left_out = limiter.overdue(now_us)?;
            Some(format!("\u{2026} and {left_out} more {}", kind.plural()))
        });
        let apart = self.nonsense.iter_mut().filter_map(move |((from, what), limiter)| {
            let left_out = limiter.overdue(now_us)?;
            Some(format!("\u{2026} and node {from} said {left_out} times more: {what}"))
        });
        shared.chain(apart)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::types::{DiskId, Term};

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn refused(peer: u64) -> Event {
        Event::PeerRefused { peer: id(peer), disk: DiskId(1), reason: "who?".into() }
    }

    /// Nodes 1 to 3 are members.
    fn admit(told: &mut Told, now_us: u64, event: Event) -> Option<Event> {
        told.admit(now_us, event, |node| node.get() <= 3)
    }

    #[test]
    fn a_flood_of_one_kind_is_one_event_a_second_with_a_count_and_hides_no_other_kind() {
        let mut told = Told::default();
        let mut seen = Vec::new();
        for n in 0..3000 {
            seen.extend(admit(&mut told, n * 1000, refused(100 + n)));
        }
        let words: Vec<String> = seen
            .iter()
            .map(|event| match event {
                Event::PeerRefused { reason, .. } => reason.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(words, ["who?", "who? \u{2026} and 999 more", "who? \u{2026} and 999 more"]);
        let now_us = 2_999_999;
        let nonsense = |from| Event::Nonsense { from: id(from), what: "?".into() };
        assert_eq!(admit(&mut told, now_us, nonsense(2)), Some(nonsense(2)));
        assert_eq!(admit(&mut told, now_us, nonsense(99)), Some(nonsense(99)));
        assert_eq!(admit(&mut told, now_us, nonsense(98)), None);
        let other = |from| Event::Nonsense { from: id(from), what: "!".into() };
        assert_eq!(admit(&mut told, now_us, other(2)), Some(other(2)), "members' are told apart");
        assert_eq!(admit(&mut told, now_us, other(2)), None);
        assert_eq!(admit(&mut told, now_us, other(3)), Some(other(3)));
        for _ in 0..100 {
            let ready = Event::Ready { term: Term(1) };
            assert_eq!(admit(&mut told, now_us, ready.clone()), Some(ready), "never limited");
        }
        let rest: Vec<String> = told.left_out(4_999_999).collect();
        assert_eq!(rest.len(), 3, "{rest:?}");
        assert!(rest[0].contains("and 999 more refused"), "{rest:?}");
        assert!(rest[1].contains("and 1 more senseless"), "{rest:?}");
        assert!(rest[2].contains("and node 2 said 1 times more: !"), "{rest:?}");
        assert_eq!(told.left_out(9_000_000).count(), 0);
    }

    #[test]
    fn links_of_members_are_always_told_and_those_of_others_now_and_then() {
        let mut told = Told::default();
        let down = |peer| Event::PeerDown { peer: id(peer), reason: "gone".into() };
        for _ in 0..50 {
            assert!(admit(&mut told, 0, Event::PeerUp { peer: id(2) }).is_some());
            assert!(admit(&mut told, 0, down(2)).is_some());
        }
        assert!(admit(&mut told, 0, Event::PeerUp { peer: id(9) }).is_some());
        assert_eq!(admit(&mut told, 1, down(9)), None);
        assert!(admit(&mut told, 1_000_000, Event::PeerUp { peer: id(9) }).is_some());
        let Some(Event::PeerDown { reason, .. }) = admit(&mut told, 2_000_000, down(9)) else {
            panic!("due")
        };
        assert!(reason.contains("and 1 more"), "an event without words loses no count: {reason}");
    }

    #[test]
    fn a_members_trouble_is_told_once_for_each_reason_until_it_is_linked() {
        let mut told = Told::default();
        for _ in 0..2 {
            assert!(told.refused(id(2), 4) && told.refused(id(2), 5) && told.refused(id(3), 4));
            assert!(told.refused_by(id(2), 4) && told.unreachable(id(2), "no route"));
            assert!(!told.refused(id(2), 4) && !told.refused(id(2), 5));
            assert!(!told.refused_by(id(2), 4) && !told.unreachable(id(2), "no route"));
            told.linked(id(2));
            told.linked(id(3));
        }
        let told_of = (0..1000).filter(|code| told.refused_by(id(2), *code)).count();
        assert_eq!(told_of, REASONS_MAX, "codes come from outside");
    }
}
