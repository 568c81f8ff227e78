//! Bulk connections: what is sent in bulk holds up nothing else, and costs a bounded count and bytes,
//! whoever asks for it.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod transport_rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use raftz_core::transport::handshake::{HandshakeMessage, Identity, Reject, Role};
use raftz_core::transport::tcp::TcpLimits;
use raftz_core::transport::{PeerSpec, SendError, Transport, TransportEvent};
use raftz_core::types::{Boot, ClusterId, DiskId};
use transport_rig::by_hand::{admitted_as, bytes_of, connect, greet, hello_of, is_closed};
use transport_rig::wire::Wire;
use transport_rig::{Rig, config, frame, id, identity, piece, until};

/// Longer than any test has patience.
const LONG_MS: u64 = 600_000;
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Node 1 dials node 2 through the wire; node 2 knows node 1, and dials nobody.
fn wired(change: impl Fn(&mut TcpLimits)) -> (Rig, Rig, Wire) {
    let with = |node| {
        let mut config = config(identity(node));
        config.limits.bulk_idle_ms = LONG_MS;
        change(&mut config.limits);
        Rig::with(config)
    };
    let (mut one, mut two) = (with(1), with(2));
    let wire = Wire::to(&two.address());
    one.knows(&[(2, &wire.address)]);
    two.knows(&[(1, NOWHERE)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    (one, two, wire)
}

/// Queues pieces for node 2 until no more is taken, though node 2 reads; gives their number.
fn fill(one: &mut Rig, two: &mut Rig, bytes: usize) -> u64 {
    let (mut next, mut refusals) = (0, 0);
    // The connection is set up, and the system's buffers take their part, in some turns.
    while refusals < 100 {
        match one.send_piece(2, next, bytes) {
            Ok(()) => {
                (next, refusals) = (next + 1, 0);
                assert!(next < 1000, "nothing bounds what is taken");
            }
            Err(error) => {
                assert_eq!(error, SendError::Full);
                refusals += 1;
                one.poll();
                two.poll();
            }
        }
    }
    next
}

#[test]
fn bulk_frames_arrive_both_ways_on_connections_of_their_own() {
    let (mut one, mut two) = (Rig::new(identity(1)), Rig::new(identity(2)));
    let (to_one, to_two) = (Wire::to(&one.address()), Wire::to(&two.address()));
    one.knows(&[(2, &to_two.address)]);
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    // Only now, so that there are no two links of which one must end.
    two.knows(&[(1, &to_one.address)]);
    assert_eq!((to_one.made(Role::Bulk), to_two.made(Role::Bulk)), (0, 0), "none before its time");
    for (number, size) in [0, 1, 5000, 70_000, 700_000, 3 << 20].into_iter().enumerate() {
        for (here, there) in [(1, 2), (2, 1)] {
            let rig = if here == 1 { &mut one } else { &mut two };
            rig.send_piece(there, number as u64, size).unwrap();
            rig.send(there, number as u64, 100).unwrap();
        }
        until(&mut [&mut one, &mut two], "frames", |rigs| {
            [(0, 2), (1, 1)].into_iter().all(|(at, from): (usize, u64)| {
                rigs[at].pieces(from).len() > number && rigs[at].received(from).len() > number
            })
        });
    }
    assert!(one.pieces(2).into_iter().eq(0..6) && two.pieces(1).into_iter().eq(0..6));
    assert_eq!((to_one.made(Role::Bulk), to_two.made(Role::Bulk)), (1, 1));
    for (rig, peer) in [(&one, 2), (&two, 1)] {
        assert_eq!((rig.ups(peer).len(), rig.downs(peer).len()), (1, 0), "no link of its own");
        assert!(rig.troubles().is_empty(), "{:?}", rig.troubles());
    }
}

#[test]
fn control_goes_to_and_fro_while_megabytes_of_bulk_wait_for_a_slow_wire() {
    let (mut one, mut two, wire) = wired(|_| {});
    wire.allow(0);
    let sent = fill(&mut one, &mut two, 256 << 10);
    let bytes = sent * (256 << 10);
    assert!(bytes >= 1 << 20, "{bytes} bytes");
    // Beyond its own queue little is under way: what the system's buffers hold on both sides.
    assert!(bytes <= 4 << 20, "{bytes} bytes");
    for round in 0..20 {
        // The wire takes some bytes of bulk now and then; a frame of it needs dozens of steps.
        wire.allow_one_more();
        one.send(2, round, 1000).unwrap();
        until(&mut [&mut one, &mut two], "there", |rigs| rigs[1].received(1).len() as u64 > round);
        two.send(1, round, 1000).unwrap();
        until(&mut [&mut one, &mut two], "back", |rigs| rigs[0].received(2).len() as u64 > round);
    }
    assert!(two.pieces(1).is_empty(), "bulk has come first: {:?}", two.pieces(1));
    wire.allow(usize::MAX);
    until(&mut [&mut one, &mut two], "bulk", |rigs| rigs[1].pieces(1).len() as u64 == sent);
    assert!(two.pieces(1).into_iter().eq(0..sent));
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
}

#[test]
fn a_slow_bulk_connection_is_not_taken_for_a_dead_one() {
    let (mut one, mut two, wire) = wired(|limits| {
        limits.ping_after_ms = 50;
        limits.dead_after_ms = 200;
    });
    wire.allow(0);
    let sent = fill(&mut one, &mut two, 256 << 10);
    // Several times as long as a link may be silent.
    let since = std::time::Instant::now();
    until(&mut [&mut one, &mut two], "time", |_| since.elapsed() > Duration::from_millis(800));
    wire.allow(usize::MAX);
    until(&mut [&mut one, &mut two], "bulk", |rigs| rigs[1].pieces(1).len() as u64 == sent);
    assert_eq!(wire.made(Role::Bulk), 1);
}

#[test]
fn an_idle_bulk_connection_is_closed_silently_and_dialled_anew_when_it_is_needed() {
    let (mut one, mut two, wire) = wired(|limits| limits.bulk_idle_ms = 100);
    for number in 0..3 {
        one.send_piece(2, number, 300_000).unwrap();
        until(&mut [&mut one, &mut two], "piece", |rigs| {
            rigs[1].pieces(1).len() as u64 == number + 1
        });
        until(&mut [&mut one, &mut two], "end", |_| wire.open(Role::Bulk) == 0);
        assert_eq!(wire.made(Role::Bulk) as u64, number + 1);
    }
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
    assert!(one.troubles().is_empty() && two.troubles().is_empty(), "{:?}", one.troubles());
}

#[test]
fn a_bulk_connection_that_breaks_loses_its_queue_and_the_link_goes_on() {
    let (mut one, mut two, wire) = wired(|_| {});
    wire.allow(0);
    let sent = fill(&mut one, &mut two, 256 << 10);
    wire.cut(Role::Bulk);
    wire.allow(usize::MAX);
    until(&mut [&mut one, &mut two], "end", |_| wire.open(Role::Bulk) == 0);
    for _ in 0..5 {
        one.poll();
        two.poll();
    }
    one.send_piece(2, 1000, 1000).unwrap();
    until(&mut [&mut one, &mut two], "piece", |rigs| rigs[1].pieces(1).contains(&1000));
    assert!(!two.pieces(1).contains(&(sent - 1)), "what was queued is gone");
    assert_eq!(wire.made(Role::Bulk), 2);
    one.send(2, 1, 10).unwrap();
    until(&mut [&mut one, &mut two], "frame", |rigs| rigs[1].received(1) == [1]);
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
}

#[test]
fn a_bulk_connection_ends_with_its_link() {
    let (mut one, mut two, wire) = wired(|_| {});
    one.send_piece(2, 0, 1000).unwrap();
    until(&mut [&mut one, &mut two], "piece", |rigs| rigs[1].pieces(1) == [0]);
    assert_eq!(wire.open(Role::Bulk), 1);
    wire.cut(Role::Peer);
    until(&mut [&mut one, &mut two], "both ends", |rigs| {
        !rigs[0].downs(2).is_empty() && !rigs[1].downs(1).is_empty() && wire.open(Role::Bulk) == 0
    });
    until(&mut [&mut one, &mut two], "link", |rigs| rigs[0].is_up(2) && rigs[1].is_up(1));
    one.send_piece(2, 1, 1000).unwrap();
    until(&mut [&mut one, &mut two], "piece", |rigs| rigs[1].pieces(1) == [0, 1]);
    assert_eq!((wire.made(Role::Peer), wire.made(Role::Bulk)), (2, 2));
}

#[test]
fn what_is_sent_in_bulk_without_a_link_or_too_large_is_refused_at_once() {
    let mut one = Rig::new(identity(1));
    one.knows(&[(2, NOWHERE)]);
    assert_eq!(one.send_piece(2, 1, 1), Err(SendError::NoLink));
    let small = |limits: &mut TcpLimits| {
        limits.frames.control_bytes_max = 2000;
        limits.frames.data_bytes_max = 2000;
        limits.frames.bulk_bytes_max = 2000;
    };
    let (mut one, mut two, wire) = wired(small);
    assert_eq!(one.send_piece(2, 1, 5000), Err(SendError::TooLarge));
    one.send_piece(2, 2, 500).unwrap();
    until(&mut [&mut one, &mut two], "piece", |rigs| rigs[1].pieces(1) == [2]);
    assert_eq!(one.send_piece(2, 3, 5000), Err(SendError::TooLarge), "nor once it stands");
    assert_eq!(wire.made(Role::Bulk), 1);
}

/// A hand-made node that knows bulk connections, in its second life.
fn bulk_hello_of(node: u64) -> Identity {
    let features = Identity::BULK_CONNECTIONS;
    Identity { role: Role::Bulk, features, boot: Boot(2), ..hello_of(node) }
}

fn link_hello_of(node: u64) -> Identity {
    Identity { role: Role::Peer, ..bulk_hello_of(node) }
}

/// Node 1 and a hand-made node 2, a member that is linked.
fn with_member() -> (Rig, TcpStream) {
    let mut config = config(identity(1));
    // What is made by hand answers no pings.
    config.limits.dead_after_ms = LONG_MS;
    config.limits.bulk_idle_ms = LONG_MS;
    let mut one = Rig::with(config);
    one.transport.set_peers(&[PeerSpec {
        node: id(2),
        address: NOWHERE.into(),
        disk: Some(DiskId(102)),
    }]);
    let stream = admitted_as(&mut one, link_hello_of(2));
    (one, stream)
}

/// A bulk connection that has passed the handshake as far as its dialler sees.
fn bulk_of(rig: &mut Rig, node: u64) -> TcpStream {
    let (mut stream, welcome) = greet(rig, bulk_hello_of(node));
    let HandshakeMessage::Welcome { identity, .. } = welcome else { panic!("{welcome:?}") };
    assert_eq!(identity.role, Role::Bulk);
    stream.write_all(&HandshakeMessage::Confirm.encode()).unwrap();
    stream
}

#[test]
fn a_bulk_connection_is_judged_like_a_link_and_needs_one_of_the_same_life() {
    let (mut one, _link) = with_member();
    let good = bulk_hello_of(2);
    let table = [
        (Identity { disk: DiskId(999), ..good.clone() }, Reject::WRONG_DISK),
        (Identity { boot: Boot(1), ..good.clone() }, Reject::STALE_BOOT),
        (Identity { instance: 9, ..good.clone() }, Reject::ID_IN_USE),
        (Identity { boot: Boot(3), ..good.clone() }, Reject::NO_LINK),
        (Identity { from: Some(id(3)), ..good.clone() }, Reject::NO_LINK),
        (Identity { cluster: ClusterId(8), ..good.clone() }, Reject::WRONG_CLUSTER),
        (Identity { epoch: 8, ..good.clone() }, Reject::WRONG_EPOCH),
        (good.addressed_to(Some(id(5))), Reject::NOT_ME),
    ];
    for (hello, code) in table {
        let (stream, answer) = greet(&mut one, hello);
        let HandshakeMessage::Reject(reject) = answer else { panic!("{answer:?}") };
        assert_eq!(reject.code, code);
        until(&mut [&mut one], "end", |_| is_closed(&stream));
    }
    let codes: Vec<u16> = one.refusals_of(2).into_iter().map(|(code, _)| code).collect();
    assert!(
        codes.contains(&Reject::WRONG_DISK) && codes.contains(&Reject::STALE_BOOT),
        "{codes:?}"
    );
    assert!(!codes.contains(&Reject::NO_LINK), "that one is only early");
    assert!(one.is_up(2) && one.downs(2).is_empty());
    let mut bulk = bulk_of(&mut one, 2);
    bulk.write_all(&bytes_of(&piece(7, 100))).unwrap();
    until(&mut [&mut one], "piece", |rigs| rigs[0].pieces(2) == [7]);
}

#[test]
fn a_role_that_nobody_knows_closes_its_connection_and_nothing_else() {
    let (mut one, _link) = with_member();
    let mut hello = HandshakeMessage::Hello(bulk_hello_of(2)).encode();
    hello[12 + 6] = 4;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&hello[..8]), &hello[12..]);
    hello[8..12].copy_from_slice(&crc.to_le_bytes());
    let mut stream = connect(&one.address());
    stream.write_all(&hello).unwrap();
    until(&mut [&mut one], "end", |_| is_closed(&stream));
    assert!(one.is_up(2) && one.downs(2).is_empty());
}

#[test]
fn of_many_bulk_connections_of_one_node_the_newest_stands() {
    let (mut one, mut link) = with_member();
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..50 {
        let mut stream = bulk_of(&mut one, 2);
        stream.write_all(&bytes_of(&piece(number, 10))).unwrap();
        until(&mut [&mut one], "piece", |rigs| rigs[0].pieces(2).len() as u64 == number + 1);
        held.push(stream);
        assert!(held.iter().filter(|stream| !is_closed(stream)).count() <= 1);
    }
    assert!(!is_closed(&held[49]));
    link.write_all(&bytes_of(&frame(1, 10))).unwrap();
    until(&mut [&mut one], "frame", |rigs| rigs[0].received(2) == [1]);
    // A node that no membership names has no more, and they end with its only link.
    let stranger = admitted_as(&mut one, link_hello_of(9));
    let bulk = [bulk_of(&mut one, 9), bulk_of(&mut one, 9)];
    until(&mut [&mut one], "the older", |_| is_closed(&bulk[0]));
    drop(stranger);
    until(&mut [&mut one], "the newer", |_| is_closed(&bulk[1]));
    assert!(one.downs(2).is_empty() && one.troubles().is_empty(), "{:?}", one.troubles());
}

#[test]
fn a_flood_of_bulk_greetings_is_bounded_like_any_other() {
    let (mut one, mut link) = with_member();
    let hello = HandshakeMessage::Hello(bulk_hello_of(2)).encode();
    let mut held: Vec<TcpStream> = Vec::new();
    while held.len() < 200 {
        held.extend((0..20).map(|_| {
            let mut stream = connect(&one.address());
            stream.write_all(&hello).unwrap();
            stream
        }));
        for _ in 0..5 {
            one.poll();
        }
    }
    let places = TcpLimits::default().unauthenticated_max;
    until(&mut [&mut one], "cap", |_| {
        held.iter().filter(|stream| !is_closed(stream)).count() <= places
    });
    link.write_all(&bytes_of(&frame(1, 10))).unwrap();
    until(&mut [&mut one], "frame", |rigs| rigs[0].received(2) == [1]);
    until(&mut [&mut one], "time limit", |_| held.iter().all(is_closed));
    assert!(one.is_up(2) && one.downs(2).is_empty());
}

#[test]
fn nonsense_on_a_bulk_connection_ends_it_and_not_the_link() {
    let (mut one, mut link) = with_member();
    let mut bulk = bulk_of(&mut one, 2);
    bulk.write_all(&[7; 100]).unwrap();
    until(&mut [&mut one], "end", |_| is_closed(&bulk));
    assert!(one.troubles()[0].contains("not a raftz frame"), "{:?}", one.troubles());
    link.write_all(&bytes_of(&frame(1, 10))).unwrap();
    until(&mut [&mut one], "frame", |rigs| rigs[0].received(2) == [1]);
    assert!(one.downs(2).is_empty());
}

/// The numbers of the pieces that arrive on `stream`, of `bytes` each.
fn pieces_on(rig: &mut Rig, mut stream: &TcpStream, numbers: &[u64], bytes: usize) {
    let expected: Vec<u8> = numbers.iter().flat_map(|n| bytes_of(&piece(*n, bytes))).collect();
    let mut found = Vec::new();
    let deadline = std::time::Instant::now() + transport_rig::PATIENCE;
    while found.len() < expected.len() {
        assert!(std::time::Instant::now() < deadline, "{} bytes", found.len());
        rig.poll();
        let mut buffer = vec![0; 64 << 10];
        match stream.read(&mut buffer) {
            Ok(count) => found.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert!(found == expected, "other bytes");
}

#[test]
fn who_knows_no_bulk_connections_or_is_no_member_is_sent_bulk_on_its_link() {
    let mut one = Rig::new(identity(1));
    one.knows(&[(2, NOWHERE)]);
    let older = admitted_as(&mut one, hello_of(2));
    let outsider = admitted_as(&mut one, link_hello_of(9));
    for number in 0..3 {
        one.send_piece(2, number, 5000).unwrap();
        one.send_piece(9, number, 5000).unwrap();
    }
    pieces_on(&mut one, &older, &[0, 1, 2], 5000);
    pieces_on(&mut one, &outsider, &[0, 1, 2], 5000);
    assert!(one.troubles().is_empty(), "{:?}", one.troubles());
}

/// Takes the next connection of `rig` and its hello.
fn dialled(rig: &mut Rig, listener: &TcpListener) -> (TcpStream, Identity) {
    let deadline = std::time::Instant::now() + transport_rig::PATIENCE;
    let (mut stream, mut bytes) = (None, Vec::new());
    loop {
        assert!(std::time::Instant::now() < deadline);
        rig.poll();
        if stream.is_none()
            && let Ok((accepted, _)) = listener.accept()
        {
            accepted.set_nonblocking(true).unwrap();
            stream = Some(accepted);
        }
        let mut buffer = [0; 1024];
        if let Some(Ok(count)) = stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            bytes.extend_from_slice(&buffer[..count]);
        }
        if let Some((message, _)) = HandshakeMessage::decode(&bytes).unwrap() {
            let HandshakeMessage::Hello(hello) = message else { panic!("{message:?}") };
            return (stream.unwrap(), hello);
        }
    }
}

#[test]
fn what_waits_for_a_bulk_connection_outlasts_attempts_that_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut one = Rig::new(identity(1));
    one.knows(&[(2, &listener.local_addr().unwrap().to_string())]);
    let welcome = |identity: Identity| HandshakeMessage::Welcome { version: 1, identity }.encode();
    let (mut link, hello) = dialled(&mut one, &listener);
    assert_eq!((hello.role, hello.features), (Role::Peer, Identity::BULK_CONNECTIONS));
    link.write_all(&welcome(link_hello_of(2))).unwrap();
    until(&mut [&mut one], "link", |rigs| rigs[0].is_up(2));
    for number in 0..4 {
        one.send_piece(2, number, 5000).unwrap();
    }
    // Once the attempt is closed, once refused, once answered as if it were a link.
    drop(dialled(&mut one, &listener));
    until(&mut [&mut one], "first failure", |rigs| rigs[0].troubles().len() == 1);
    let (mut attempt, _) = dialled(&mut one, &listener);
    let (code, words) = (Reject::NO_LINK, "not\nyet".to_owned());
    let reject = HandshakeMessage::Reject(Reject { code, words, known_disk: None });
    attempt.write_all(&reject.encode()).unwrap();
    until(&mut [&mut one], "second failure", |rigs| rigs[0].troubles().len() == 2);
    assert!(one.troubles()[1].contains("not\u{fffd}yet"), "{:?}", one.troubles());
    let (mut attempt, _) = dialled(&mut one, &listener);
    attempt.write_all(&welcome(link_hello_of(2))).unwrap();
    until(&mut [&mut one], "third failure", |rigs| rigs[0].troubles().len() == 3);
    let (mut bulk, again) = dialled(&mut one, &listener);
    assert_eq!(Identity { role: Role::Peer, ..again.clone() }, hello, "the same life");
    assert_eq!(again.role, Role::Bulk);
    bulk.write_all(&welcome(bulk_hello_of(2))).unwrap();
    let mut confirm = [0; 12];
    until(&mut [&mut one], "confirm", |_| bulk.peek(&mut [0; 12]).is_ok_and(|n| n == 12));
    bulk.read_exact(&mut confirm).unwrap();
    assert_eq!(confirm[..], HandshakeMessage::Confirm.encode()[..]);
    pieces_on(&mut one, &bulk, &[0, 1, 2, 3], 5000);
    assert!(one.is_up(2) && one.downs(2).is_empty() && one.unreachable(2).is_empty());
    assert!(one.refusals_by(2).is_empty(), "its link is wanted");
}

#[test]
fn a_turn_takes_a_bounded_part_of_bulk_and_other_frames_come_first() {
    let (mut one, mut link) = with_member();
    let mut bulk = bulk_of(&mut one, 2);
    until(&mut [&mut one], "bulk", |_| true);
    let block: Vec<u8> = (0..200).flat_map(|n| bytes_of(&piece(n, 10_000))).collect();
    let part = TcpLimits::default().turn_bytes / 4;
    let (mut at, mut turns_with_bulk) = (0, 0);
    for turn in 0..60 {
        while let Ok(count) = bulk.write(&block[at % block.len()..]) {
            at += count;
        }
        link.write_all(&bytes_of(&frame(turn, 100))).unwrap();
        let from = one.seen.len();
        one.transport.poll(Some(Duration::ZERO), &mut one.seen).unwrap();
        let (mut bytes, mut is_bulk) = (0, false);
        for event in &one.seen[from..] {
            let TransportEvent::Frame { frame, .. } = event else { continue };
            if frame.bytes.len() < 10_000 {
                assert!(!is_bulk, "a frame of the link waited behind bulk");
            } else {
                is_bulk = true;
                bytes += frame.bytes.len();
            }
        }
        // A share may run over by one read.
        assert!(bytes <= part + (128 << 10), "{bytes} bytes in one turn");
        turns_with_bulk += usize::from(is_bulk);
    }
    assert!(turns_with_bulk > 20, "{turns_with_bulk} turns");
    until(&mut [&mut one], "the link's frames", |rigs| rigs[0].received(2).len() == 60);
}
