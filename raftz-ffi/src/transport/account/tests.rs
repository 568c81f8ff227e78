//! The account, between two of them with a wire that a test can stop, double and reorder.
#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]
use raftz_core::transport::frame::FrameLimits;
use raftz_core::types::{Boot, ClusterId, DiskId};

use super::super::message::tests::{frame, whole};
use super::*;

fn id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

fn spec(node: u64) -> PeerSpec {
    PeerSpec { node: id(node), address: format!("h:{node}"), disk: None }
}

fn identity(node: u64, boot: u64) -> Identity {
    let disk = DiskId(100 + u128::from(node));
    let hello = Identity::peer(ClusterId(1), 0, id(node), disk, Boot(boot), 7);
    Identity { instance: node * 1000 + boot, frame_bytes_max: 1 << 20, ..hello }
}

fn account(node: u64, boot: u64) -> Account {
    let mut account = Account::new(identity(node, boot), node << 32 | boot << 16);
    account.set_peers(&[spec(1), spec(2), spec(3)]);
    account
}

/// Two nodes, and links between them by both their numbers.
struct Pair {
    sides: [Account; 2],
    links: Vec<(u64, u64)>,
    /// What was sent by either side and not given to the other yet: its own link, and the bytes.
    wire: [Vec<(u64, Bytes)>; 2],
    ended: [Vec<(u64, String)>; 2],
    now_us: u64,
}

impl Pair {
    fn of(one: Account, two: Account) -> Self {
        let (wire, ended) = (Default::default(), Default::default());
        Self { sides: [one, two], links: Vec::new(), wire, ended, now_us: 0 }
    }

    fn new() -> Self {
        Self::of(account(1, 1), account(2, 1))
    }

    /// A new link that this side dialled; what it is called on either side.
    fn dial(&mut self, side: usize) -> u64 {
        let number = self.links.len() as u64 + 1;
        self.links.push((number, number));
        let other = self.sides[1 - side].identity.from;
        self.sides[side].opened(number, other);
        self.sides[1 - side].opened(number, None);
        number
    }

    fn gather(&mut self) {
        for side in 0..2 {
            for order in std::mem::take(&mut self.sides[side].orders) {
                match order {
                    Order::Send { link, message } => self.wire[side].push((link, whole(&message))),
                    Order::End { link, reason, .. } => self.ended[side].push((link, reason)),
                    Order::Proven { .. } | Order::Dial { .. } => {}
                }
            }
        }
    }

    fn give(&mut self, to: usize, link: u64, bytes: Bytes) {
        let message = InMessage::read(bytes, &FrameLimits::default()).unwrap();
        self.sides[to].received(link, message);
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        loop {
            self.gather();
            let [one, two] = std::mem::take(&mut self.wire);
            if one.is_empty() && two.is_empty() {
                return;
            }
            one.into_iter().for_each(|(link, bytes)| self.give(1, link, bytes));
            two.into_iter().for_each(|(link, bytes)| self.give(0, link, bytes));
        }
    }

    fn told(&mut self, side: usize) -> Vec<TransportEvent> {
        std::mem::take(&mut self.sides[side].told)
    }

    fn linked() -> Self {
        let mut pair = Self::new();
        pair.dial(0);
        pair.settle();
        for side in 0..2 {
            assert!(matches!(pair.told(side)[..], [TransportEvent::LinkUp(_)]));
        }
        pair
    }

    fn send(&mut self, from: usize, bytes: usize) -> (u64, Bytes) {
        let to = self.sides[1 - from].identity.from.unwrap();
        let (link, message) = self.sides[from].send(to, frame(bytes)).unwrap();
        (link, whole(&message))
    }

    fn tick(&mut self, ms: u64) {
        for side in &mut self.sides {
            side.next_deadline_us();
        }
        self.now_us += ms * 1000;
        for side in &mut self.sides {
            side.at(self.now_us);
            side.tick(|_| Progress::default());
        }
    }
}

#[test]
fn a_link_is_up_where_both_sides_agree_and_carries_frames_both_ways() {
    let mut pair = Pair::linked();
    for from in 0..2 {
        let (link, bytes) = pair.send(from, 10);
        pair.give(1 - from, link, bytes);
        let told = pair.told(1 - from);
        assert!(matches!(told[..], [TransportEvent::Frame { .. }]), "{told:?}");
    }
    pair.sides[0].closed(1, "cut");
    let told = pair.told(0);
    assert!(matches!(&told[..], [TransportEvent::LinkDown { reason, .. }] if reason == "cut"));
    assert_eq!(pair.sides[0].send(id(2), frame(1)).unwrap_err(), SendError::NoLink);
    pair.gather();
    assert_eq!(pair.ended[0], [(1, "cut".to_owned())]);
}

#[test]
fn what_comes_twice_late_or_on_another_link_is_left_out() {
    let mut pair = Pair::linked();
    let (link, first) = pair.send(0, 1);
    let (_, second) = pair.send(0, 2);
    for bytes in [&second, &first, &second, &first] {
        pair.give(1, link, bytes.clone());
    }
    assert_eq!(pair.told(1).len(), 1, "the second, once");
    // The link breaks and another one stands: nothing of the old one counts there.
    pair.sides[0].closed(link, "cut");
    pair.sides[1].closed(link, "cut");
    let anew = pair.dial(0);
    pair.settle();
    pair.told(1);
    for bytes in [first, second] {
        pair.give(1, anew, bytes);
    }
    let told = pair.told(1);
    let [TransportEvent::Trouble { detail }] = &told[..] else { panic!("{told:?}") };
    assert!(detail.contains("another link"), "{detail}");
    let (link, third) = pair.send(0, 3);
    pair.give(1, link, third);
    assert!(matches!(pair.told(1)[..], [TransportEvent::Frame { .. }]));
}

#[test]
fn each_urgency_has_an_order_of_its_own() {
    let mut pair = Pair::linked();
    let (link, data) = pair.send(0, 1);
    let bulk = OutFrame { class: Class::Bulk, ..frame(2) };
    let (_, bulk) = pair.sides[0].send(id(2), bulk).unwrap();
    let (_, more) = pair.send(0, 3);
    // The header says data, whatever was said when it was sent.
    assert_eq!(bulk.inside.class, Class::Bulk);
    for bytes in [more, data] {
        pair.give(1, link, bytes);
    }
    assert_eq!(pair.told(1).len(), 1);
    assert_eq!(pair.sides[0].links[&link].sent, [0, 2, 1]);
}

#[test]
fn a_frame_before_the_handshake_ends_the_link_and_a_doubled_handshake_changes_nothing() {
    let mut pair = Pair::linked();
    let (_, bytes) = pair.send(0, 1);
    let link = pair.dial(0);
    pair.give(1, link, bytes);
    pair.gather();
    assert!(pair.ended[1][0].1.contains("before the handshake"));
    assert!(matches!(pair.told(1)[..], [TransportEvent::Trouble { .. }]));

    let mut pair = Pair::new();
    let link = pair.dial(0);
    pair.gather();
    for _ in 0..3 {
        let [hello, _] = pair.wire.clone();
        pair.give(1, link, hello[0].1.clone());
    }
    pair.gather();
    assert_eq!(pair.wire[1].len(), 1, "one welcome");
    pair.settle();
    assert!(matches!(pair.told(1)[..], [TransportEvent::LinkUp(_)]));
}

#[test]
fn whoever_does_not_belong_is_refused_by_name_on_both_sides() {
    let with = |change: fn(&mut Identity)| {
        let mut other = account(2, 1);
        change(&mut other.identity);
        other
    };
    let table: [(Account, u16); 4] = [
        (with(|it| it.cluster = ClusterId(9)), Reject::WRONG_CLUSTER),
        (with(|it| it.epoch = 5), Reject::WRONG_EPOCH),
        (with(|it| it.founders_hash = 8), Reject::FOUNDERS_DIFFER),
        (with(|it| it.role = Role::Client), Reject::ROLE_NOT_SERVED),
    ];
    for (other, wanted) in table {
        for side in 0..2 {
            let mut pair = Pair::of(account(1, 1), Account::new(other.identity.clone(), 5));
            pair.dial(side);
            pair.settle();
            let told = [pair.told(0), pair.told(1)].into_iter().flatten().collect::<Vec<_>>();
            let refused = told.iter().find_map(|it| match it {
                TransportEvent::Refused { code, .. } => Some(*code),
                _ => None,
            });
            assert_eq!(refused, Some(wanted), "{told:?}");
            assert!(!told.iter().any(|it| matches!(it, TransportEvent::LinkUp(_))), "{told:?}");
            assert_eq!((pair.ended[0].len(), pair.ended[1].len()), (1, 1));
        }
    }
    // A wiped one learns by which disk it is known, if it dialled.
    let mut pair = Pair::new();
    pair.sides[0].set_peers(&[PeerSpec { disk: Some(DiskId(5)), ..spec(2) }]);
    pair.dial(1);
    pair.settle();
    let told = pair.told(1);
    let [TransportEvent::RefusedBy { known_disk, code, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((*known_disk, *code), (Some(DiskId(5)), Reject::WRONG_DISK));
}

#[test]
fn of_two_links_at_once_both_sides_keep_the_same_and_lose_nothing() {
    let mut pair = Pair::new();
    let (low, high) = (pair.dial(0), pair.dial(1));
    pair.settle();
    for side in 0..2 {
        assert!(matches!(pair.told(side)[..], [TransportEvent::LinkUp(_)]));
        assert_eq!(pair.send(side, 1).0, low, "the one that the lower id dialled");
    }
    // What is on its way on the other one still counts.
    let late = pair.sides[0].links.get_mut(&high).unwrap();
    let bytes = whole(&OutMessage::of_frame(late.there, 1, frame(1)));
    pair.give(1, high, bytes);
    assert!(matches!(pair.told(1)[..], [TransportEvent::Frame { .. }]));
    pair.tick(1001);
    pair.gather();
    for side in 0..2 {
        assert_eq!(pair.ended[side].len(), 1);
        assert_eq!(pair.ended[side][0].0, high);
        assert!(pair.told(side).is_empty());
    }
}

#[test]
fn a_restarted_peer_is_down_and_up_again_and_an_old_life_is_refused() {
    let mut pair = Pair::linked();
    pair.sides[1] = account(2, 2);
    pair.dial(1);
    pair.settle();
    let told = pair.told(0);
    assert!(
        matches!(&told[..], [TransportEvent::LinkDown { reason, .. },
        TransportEvent::LinkUp(_)] if reason.contains("restarted")),
        "{told:?}"
    );
    pair.sides[1] = account(2, 1);
    pair.dial(1);
    pair.settle();
    assert!(matches!(pair.told(0)[..], [TransportEvent::Refused { code, .. }]
        if code == Reject::STALE_BOOT));
}

#[test]
fn silence_is_pinged_answered_and_where_it_is_not_the_end() {
    let mut pair = Pair::linked();
    for _ in 0..10 {
        pair.tick(2000);
        pair.settle();
    }
    assert!(pair.told(0).is_empty() && pair.ended[0].is_empty(), "both live");
    let mut heard = 0;
    for _ in 0..3 {
        pair.tick(2000);
        pair.gather();
        heard += pair.wire.iter().map(Vec::len).sum::<usize>();
        pair.wire = Default::default();
    }
    assert_eq!(heard, 2, "one ping each");
    for side in 0..2 {
        let told = pair.told(side);
        assert!(
            matches!(&told[..], [TransportEvent::LinkDown { reason, .. }]
            if reason.contains("heard")),
            "{told:?}"
        );
    }
}

#[test]
fn whoever_was_held_up_does_not_blame_its_peers() {
    let mut pair = Pair::linked();
    pair.tick(60_000);
    pair.settle();
    assert!(pair.told(0).is_empty() && pair.told(1).is_empty());
}

#[test]
fn a_link_that_takes_nothing_ends_and_one_that_is_slow_does_not() {
    for is_slow in [true, false] {
        let mut account = account(1, 1);
        let mut pair = Pair::linked();
        std::mem::swap(&mut account, &mut pair.sides[0]);
        let mut taken = 0;
        for second in 1..30_u64 {
            account.next_deadline_us();
            account.links.get_mut(&1).into_iter().for_each(|it| it.heard_us = second * 1_000_000);
            taken += u64::from(is_slow);
            account.at(second * 1_000_000);
            account.tick(|_| Progress { waits: true, taken });
        }
        assert_eq!(account.up.len(), usize::from(is_slow));
    }
}

#[test]
fn a_handshake_has_three_seconds() {
    let mut pair = Pair::new();
    pair.dial(0);
    pair.gather();
    pair.wire = Default::default();
    pair.tick(2999);
    assert!(pair.told(0).is_empty());
    pair.tick(1);
    assert!(matches!(&pair.told(0)[..], [TransportEvent::Unreachable { reason, .. }]
        if reason.contains("3000 ms")));
    assert!(matches!(pair.told(1)[..], [TransportEvent::Trouble { .. }]));
}

#[test]
fn a_member_that_is_known_by_another_disk_is_dropped_and_strangers_are_few() {
    let mut pair = Pair::linked();
    pair.sides[0].set_peers(&[spec(3), PeerSpec { disk: Some(DiskId(5)), ..spec(2) }]);
    assert!(matches!(&pair.told(0)[..], [TransportEvent::LinkDown { reason, .. }]
        if reason.contains("data directory")));
    let mut pair = Pair::new();
    pair.sides[0].set_peers(&[]);
    for stranger in 10..40 {
        pair.sides[1] = account(stranger, 1);
        pair.dial(1);
        pair.settle();
    }
    assert_eq!(pair.sides[0].up.len(), pair.sides[0].limits.non_members_max);
}

/// Which peers were to be dialled, by the time at which it was said.
fn dials(account: &mut Account, from_ms: u64, to_ms: u64) -> Vec<(u64, u64)> {
    let mut dials = Vec::new();
    for ms in from_ms..to_ms {
        account.at(ms * 1000);
        account.tick(|_| Progress::default());
        account.next_deadline_us();
        for order in std::mem::take(&mut account.orders) {
            if let Order::Dial { peer, address } = order {
                assert_eq!(address, format!("h:{peer}"));
                dials.push((ms, peer.get()));
            }
        }
    }
    dials
}

#[test]
fn members_without_a_link_are_dialled_with_pauses_that_grow() {
    let mut account = account(1, 1);
    account.next_deadline_us();
    assert_eq!(dials(&mut account, 0, 2999), [(0, 2), (0, 3)], "once, until there is an answer");
    assert_eq!(
        dials(&mut account, 2999, 3005),
        [(3000, 2), (3000, 3)],
        "or until it takes too long"
    );
    let mut last_ms = 3005;
    let mut pauses = Vec::new();
    account.set_peers(&[spec(1), spec(2)]);
    for _ in 0..9 {
        account.unreachable(id(2), "no road".into());
        account.next_deadline_us();
        let dials = dials(&mut account, last_ms, last_ms + 1002);
        let [(at_ms, 2)] = dials[..] else { panic!("{dials:?}") };
        pauses.push(at_ms - last_ms);
        last_ms += 1002;
    }
    assert!((10..=21).contains(&pauses[0]) && pauses[8] >= 500, "{pauses:?}");
    // While a link is tried, or stands, there is nothing to be done; nor for what is no member.
    account.opened(7, Some(id(2)));
    account.next_deadline_us();
    assert_eq!(dials(&mut account, last_ms, last_ms + 2000), []);
    account.set_peers(&[]);
    account.next_deadline_us();
    assert_eq!(dials(&mut account, last_ms + 2000, last_ms + 9000), []);
}
