//! The TCP transport among strangers: whatever connects and whatever it says, the cluster's own
//! links go on, and a stranger costs a bounded count, bytes and time.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod transport_rig;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use raftz_core::transport::frame::FRAME_HEADER_BYTES;
use raftz_core::transport::handshake::{
    Accepted, HandshakeMessage, Identity, Known, Reject, judge,
};
use raftz_core::transport::tcp::TcpLimits;
use raftz_core::transport::{Transport, TransportEvent};
use raftz_core::types::{Boot, ClusterId, DiskId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use transport_rig::by_hand::{
    admitted, bytes_of, connect, greet, hello_of, is_closed, write_slowly,
};
use transport_rig::{Rig, config, frame, id, identity, pair, pair_of, until};

/// The link between the two still carries frames both ways.
fn assert_alive(one: &mut Rig, two: &mut Rig) {
    let (before_one, before_two) = (one.received(2).len(), two.received(1).len());
    one.send(2, 1, 5000).unwrap();
    two.send(1, 2, 5000).unwrap();
    until(&mut [one, two], "frames", |rigs| {
        rigs[0].received(2).len() > before_one && rigs[1].received(1).len() > before_two
    });
    assert!(one.downs(2).is_empty() && two.downs(1).is_empty());
}

#[test]
fn random_bytes_close_their_connection_and_nothing_else() {
    let (mut one, mut two) = pair();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let address = one.address();
    for round in 0..50 {
        let mut stream = connect(&address);
        let mut bytes: Vec<u8> = (0..rng.random_range(1..5000)).map(|_| rng.random()).collect();
        if round % 2 == 0 {
            // Begins like a handshake.
            let front = bytes.len().min(4);
            bytes[..front].copy_from_slice(&b"RFHS"[..front]);
            bytes.resize(bytes.len().max(2000), 0);
        }
        let _ = stream.write(&bytes);
        until(&mut [&mut one, &mut two], "closed", |_| is_closed(&stream));
    }
    assert_alive(&mut one, &mut two);
}

#[test]
fn a_stranger_that_speaks_byte_by_byte_is_cut_off_in_time() {
    let quick = |node| {
        let mut config = config(identity(node));
        config.limits.handshake_ms = 300;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(quick(1), quick(2));
    let mut stream = connect(&one.address());
    let hello = HandshakeMessage::Hello(identity(9).addressed_to(Some(id(1)))).encode();
    let start = Instant::now();
    let mut bytes = hello.iter();
    let mut next = Instant::now();
    until(&mut [&mut one, &mut two], "cut off", |_| is_closed(&stream) || Instant::now() >= next);
    while !is_closed(&stream) {
        if Instant::now() >= next {
            next += Duration::from_millis(10);
            if let Some(byte) = bytes.next() {
                let _ = stream.write(&[*byte]);
            }
        }
        assert!(start.elapsed() < transport_rig::PATIENCE);
        one.poll();
        two.poll();
    }
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    assert_alive(&mut one, &mut two);
}

#[test]
fn two_hundred_idle_connections_keep_nobody_out() {
    let quick = |node| {
        let mut config = config(identity(node));
        config.limits.handshake_ms = 500;
        Rig::with(config)
    };
    let (mut one, mut two) = pair_of(quick(1), quick(2));
    let address = one.address();
    let mut idle: Vec<TcpStream> = Vec::new();
    while idle.len() < 200 {
        // In portions that the listen queue holds, so that connecting never waits.
        idle.extend((0..20).map(|_| connect(&address)));
        one.poll();
        two.poll();
    }
    // Beyond the cap they are closed at once, long before the time limit of the others.
    until(&mut [&mut one, &mut two], "cap", |_| {
        idle.iter().filter(|stream| is_closed(stream)).count() >= 200 - 64
    });
    assert_alive(&mut one, &mut two);
    until(&mut [&mut one, &mut two], "time limit", |_| idle.iter().all(is_closed));
    // A newcomer gets in again.
    let mut three = Rig::new(identity(3));
    three.knows(&[(1, &address)]);
    until(&mut [&mut one, &mut two, &mut three], "newcomer", |rigs| rigs[2].is_up(1));
}

#[test]
fn a_stranger_is_not_told_what_admission_asks_for() {
    let mut secret = identity(1);
    secret.cluster = ClusterId(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);
    secret.epoch = 31_337;
    let mut one = Rig::new(secret.clone());
    let told = |rig: &mut Rig, hello: Identity| {
        let (_, answer) = greet(rig, hello);
        let HandshakeMessage::Reject(reject) = answer else { panic!("{answer:?}") };
        reject
    };
    let guess = Identity { cluster: ClusterId(0), ..hello_of(9) };
    let reject = told(&mut one, guess);
    assert_eq!(reject.code, Reject::WRONG_CLUSTER);
    assert!(!reject.words.contains(&secret.cluster.to_string()), "{reject}");
    let guess = Identity { cluster: secret.cluster, epoch: 0, ..hello_of(9) };
    let reject = told(&mut one, guess);
    assert_eq!(reject.code, Reject::WRONG_EPOCH);
    assert!(!reject.words.contains("31337"), "{reject}");
    let guess = Identity { cluster: secret.cluster, epoch: secret.epoch, ..hello_of(9) };
    let reject = told(&mut one, guess.addressed_to(Some(id(7))));
    assert_eq!(reject.code, Reject::NOT_ME);
    assert!(!reject.words.contains("node 1"), "{reject}");
    // This side's own log says it all.
    let own: Vec<&str> = one.refusals_of(9).into_iter().map(|(_, words)| words).collect();
    assert!(own[0].contains(&secret.cluster.to_string()), "{own:?}");
    assert!(own[1].contains("31337") && own[2].contains("node 1"), "{own:?}");
}

#[test]
fn nodes_outside_the_membership_have_few_places_and_members_need_none() {
    let (mut one, mut two) = pair();
    let mut three = Rig::new(identity(3));
    let (first, second, third) = (one.address(), two.address(), three.address());
    let places = TcpLimits::default().non_members_max as u64;
    let mut held: Vec<TcpStream> = (0..places).map(|n| admitted(&mut one, 100 + n)).collect();
    for stranger in 200..210 {
        let (stream, answer) = greet(&mut one, hello_of(stranger));
        let HandshakeMessage::Reject(reject) = answer else { panic!("{answer:?}") };
        assert_eq!(reject.code, Reject::NO_PLACE);
        assert!(reject.words.contains("try again"), "{reject}");
        until(&mut [&mut one], "end", |_| is_closed(&stream));
    }
    // Who is linked already may come again, and takes no second place.
    let again = admitted(&mut one, 100);
    until(&mut [&mut one], "end of the first", |_| is_closed(&held[0]));
    held[0] = again;
    // A member is let in whatever the others do.
    one.knows(&[(2, &second), (3, "127.0.0.1:1")]);
    three.knows(&[(1, &first), (3, &third)]);
    until(&mut [&mut one, &mut two, &mut three], "the member", |rigs| {
        rigs[0].is_up(3) && rigs[2].is_up(1)
    });
    assert_alive(&mut one, &mut two);
    // A place that is given up is free.
    drop(held.pop());
    until(&mut [&mut one], "departure", |rigs| !rigs[0].downs(100 + places - 1).is_empty());
    admitted(&mut one, 300);
}

#[test]
fn unfinished_frames_from_outside_the_membership_are_bounded_together_and_the_oldest_goes() {
    let mut config = config(identity(1));
    config.limits.frames.data_bytes_max = 1 << 20;
    config.limits.frames.bulk_bytes_max = 1 << 20;
    config.limits.non_members_bytes_max = 2 << 20;
    let mut one = Rig::with(config);
    let mut streams: Vec<TcpStream> = (101..=103).map(|node| admitted(&mut one, node)).collect();
    let bytes = bytes_of(&frame(5, 1_000_000));
    let part = 900_000;
    for stream in &mut streams[..2] {
        write_slowly(&mut one, stream, &bytes[..part]);
    }
    for _ in 0..20 {
        one.poll();
    }
    assert!((101..=103).all(|node| one.is_up(node)), "two fit");
    write_slowly(&mut one, &mut streams[2], &bytes[..part]);
    until(&mut [&mut one], "end of the oldest", |rigs| !rigs[0].downs(101).is_empty());
    assert!(one.downs(101)[0].contains("not finished"), "{:?}", one.downs(101));
    write_slowly(&mut one, &mut streams[2], &bytes[part..]);
    write_slowly(&mut one, &mut streams[1], &bytes[part..]);
    until(&mut [&mut one], "frames", |rigs| {
        rigs[0].received(103) == [5] && rigs[0].received(102) == [5]
    });
}

#[test]
fn a_turn_takes_a_bounded_part_of_what_strangers_send_in_fair_shares_and_members_come_first() {
    let (mut one, mut two) = pair();
    let mut strangers: Vec<TcpStream> = (100..108).map(|node| admitted(&mut one, node)).collect();
    let block: Vec<u8> = (0..2000).flat_map(|n| bytes_of(&frame(n, 1000))).collect();
    let mut at = vec![0; strangers.len()];
    let part = TcpLimits::default().turn_bytes / 4;
    // A share may run over by one read.
    let most = part + (128 << 10);
    let mut received = vec![0; strangers.len()];
    let mut turns = 0;
    while turns < 60 {
        for (stream, at) in strangers.iter_mut().zip(&mut at) {
            // As much as the sockets take.
            while let Ok(count) = stream.write(&block[*at % block.len()..]) {
                *at += count;
            }
        }
        two.send(1, turns, 100).unwrap();
        two.transport.flush();
        let from = one.seen.len();
        one.transport.poll(Some(Duration::ZERO), &mut one.seen).unwrap();
        let mut bytes = 0;
        let mut strangers_spoke = false;
        for event in &one.seen[from..] {
            let TransportEvent::Frame { from, frame } = event else { continue };
            if *from == id(2) {
                assert!(!strangers_spoke, "a member's frame waited behind strangers'");
                continue;
            }
            strangers_spoke = true;
            bytes += frame.bytes.len();
            received[(from.get() - 100) as usize] += frame.bytes.len();
        }
        assert!(bytes <= most, "{bytes} bytes in one turn");
        turns += 1;
    }
    until(&mut [&mut one], "the member's frames", |rigs| rigs[0].received(2).len() == 60);
    let (least, largest) = (received.iter().min().unwrap(), received.iter().max().unwrap());
    assert!(*least > 0 && largest / 3 <= *least, "unfair shares: {received:?}");
}

#[test]
fn members_meet_though_both_listeners_are_full_of_silent_connections() {
    // No time limit helps: it is longer than this test's patience.
    let patient = |node| {
        let mut config = config(identity(node));
        config.limits.handshake_ms = 3 * transport_rig::PATIENCE.as_millis() as u64;
        Rig::with(config)
    };
    let (mut one, mut two) = (patient(1), patient(2));
    let (first, second) = (one.address(), two.address());
    let mut idle: [Vec<TcpStream>; 2] = [Vec::new(), Vec::new()];
    // Whatever is closed comes back at once.
    let mut renew = || {
        for (idle, address) in idle.iter_mut().zip([&first, &second]) {
            idle.retain(|stream| !is_closed(stream));
            idle.extend((idle.len()..80).map(|_| connect(address)));
        }
    };
    for _ in 0..20 {
        renew();
        one.poll();
        two.poll();
    }
    one.knows(&[(1, &first), (2, &second)]);
    two.knows(&[(1, &first), (2, &second)]);
    let deadline = Instant::now() + transport_rig::PATIENCE;
    while !(one.is_up(2) && two.is_up(1)) {
        assert!(Instant::now() < deadline, "kept apart; {:?}", one.unreachable(2).last());
        renew();
        one.poll();
        two.poll();
    }
}

#[test]
fn a_hello_that_lies_in_the_socket_counts_before_its_place_is_given_away() {
    let mut config = config(identity(1));
    config.limits.unauthenticated_max = 4;
    let mut one = Rig::with(config);
    one.knows(&[(2, "127.0.0.1:1")]);
    let address = one.address();
    let mut stream = connect(&address);
    stream.write_all(&HandshakeMessage::Hello(hello_of(2)).encode()).unwrap();
    // All of them are taken in at once, by the first poll.
    let idle: Vec<TcpStream> = (0..12).map(|_| connect(&address)).collect();
    until(&mut [&mut one], "cap", |_| idle.iter().filter(|stream| is_closed(stream)).count() >= 8);
    stream.write_all(&HandshakeMessage::Confirm.encode()).unwrap();
    until(&mut [&mut one], "admission", |rigs| rigs[0].is_up(2));
}

#[test]
fn who_has_greeted_is_not_pushed_out_by_who_has_not() {
    let mut one = Rig::new(identity(1));
    one.knows(&[(2, "127.0.0.1:1")]);
    let (mut stream, welcome) = greet(&mut one, hello_of(2));
    assert!(matches!(welcome, HandshakeMessage::Welcome { .. }), "{welcome:?}");
    let address = one.address();
    let mut idle: Vec<TcpStream> = Vec::new();
    while idle.len() < 200 {
        idle.extend((0..20).map(|_| connect(&address)));
        one.poll();
    }
    until(&mut [&mut one], "cap", |_| {
        idle.iter().filter(|stream| is_closed(stream)).count() >= 200 - 64
    });
    stream.write_all(&HandshakeMessage::Confirm.encode()).unwrap();
    until(&mut [&mut one], "admission", |rigs| rigs[0].is_up(2));
}

/// A hand-made node that greets as `node` and, once welcomed, refuses `rig` for its disk.
fn refuse_disk(rig: &mut Rig, node: u64) {
    let mut stream = connect(&rig.address());
    let hello = HandshakeMessage::Hello(identity(node).addressed_to(Some(id(1))));
    stream.write_all(&hello.encode()).unwrap();
    let words = "liar".to_owned();
    let known_disk = Some(DiskId(66));
    let reject = Reject { code: Reject::WRONG_DISK, words, known_disk };
    stream.write_all(&HandshakeMessage::Reject(reject).encode()).unwrap();
    until(&mut [rig], "closed", |_| is_closed(&stream));
}

#[test]
fn who_dials_in_cannot_say_by_which_disk_this_node_is_known() {
    let mut one = Rig::new(identity(1));
    one.knows(&[(2, "127.0.0.1:1")]);
    for stranger in 9..40 {
        refuse_disk(&mut one, stranger);
        assert!(one.refusals_by(stranger).is_empty());
    }
    refuse_disk(&mut one, 2);
    until(&mut [&mut one], "refusal", |rigs| !rigs[0].refusals_by(2).is_empty());
    assert_eq!(one.disks_known_by(2), [None]);
}

#[test]
fn an_admitted_peer_that_lies_about_a_length_is_dropped() {
    let (mut one, mut two) = pair();
    let mut stream = admitted(&mut one, 9);
    let mut bytes = frame(1, 100).head.to_vec();
    bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let header_crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&header_crc.to_le_bytes());
    stream.write_all(&bytes[..FRAME_HEADER_BYTES]).unwrap();
    until(&mut [&mut one, &mut two], "drop", |_| is_closed(&stream));
    assert!(one.downs(9)[0].contains("exceeds the limit"), "{:?}", one.downs(9));
    assert_alive(&mut one, &mut two);
}

#[test]
fn an_admitted_peer_of_a_newer_frame_version_is_dropped_naming_both() {
    let (mut one, mut two) = pair();
    let mut stream = admitted(&mut one, 9);
    let mut bytes = frame(1, 100).head.to_vec();
    bytes[4] = 2;
    stream.write_all(&bytes).unwrap();
    until(&mut [&mut one, &mut two], "drop", |_| is_closed(&stream));
    let words = one.downs(9)[0];
    assert!(words.contains("version 2") && words.contains("version 1"), "{words}");
    assert_alive(&mut one, &mut two);
}

#[test]
fn frames_before_the_handshake_are_never_parsed() {
    let (mut one, mut two) = pair();
    let mut stream = connect(&one.address());
    stream.write_all(&frame(1, 100).head).unwrap();
    until(&mut [&mut one, &mut two], "drop", |_| is_closed(&stream));
    assert!(one.received(2).is_empty());
    assert_alive(&mut one, &mut two);
}

#[test]
fn a_peer_that_goes_away_in_each_phase_of_the_handshake_leaves_nothing_behind() {
    let (mut one, mut two) = pair();
    let address = one.address();
    let hello = HandshakeMessage::Hello(identity(9).addressed_to(Some(id(1)))).encode();
    for _ in 0..3 {
        // More than the cap in all: a leak would shut everybody out.
        let streams: Vec<TcpStream> = (0..40)
            .map(|number| {
                let mut stream = connect(&address);
                let part = if number % 2 == 0 { hello.len() } else { 20 };
                stream.write_all(&hello[..part]).unwrap();
                stream
            })
            .collect();
        drop(streams);
        for _ in 0..20 {
            one.poll();
            two.poll();
        }
    }
    admitted(&mut one, 9);
    assert_alive(&mut one, &mut two);
}

#[test]
fn an_accepted_identity_carries_what_was_said() {
    let mut remote = identity(2).addressed_to(Some(id(1)));
    remote.frame_bytes_max = 77;
    remote.address = "somewhere:1".into();
    let accepted = judge(&identity(1), &remote, &Known::default()).unwrap();
    let Accepted { peer, frame_bytes_max, address, version, .. } = accepted;
    assert_eq!((peer.node, peer.disk, peer.boot), (id(2), DiskId(102), Boot(1)));
    assert_eq!((frame_bytes_max, address.as_str(), version), (77, "somewhere:1", 1));
}
