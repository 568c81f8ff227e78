//! The TCP transport among strangers: whatever connects and whatever it says, the cluster's own
//! links go on, and a stranger costs a bounded count, bytes and time.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod transport_rig;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use raftz_core::transport::frame::FRAME_HEADER_BYTES;
use raftz_core::transport::handshake::{Accepted, HandshakeMessage, Known, Reject, judge};
use raftz_core::types::{Boot, DiskId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use transport_rig::{Rig, config, frame, id, identity, pair, pair_of, until};

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether the other side has closed the connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

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

/// A hand-made node 9 that has passed the handshake with `rig`.
fn admitted(rig: &mut Rig) -> TcpStream {
    let mut stream = connect(&rig.address());
    let mut me = identity(9);
    me.instance = 4;
    me.frame_bytes_max = 1 << 20;
    let hello = HandshakeMessage::Hello(me.addressed_to(rig_id(rig)));
    stream.write_all(&hello.encode()).unwrap();
    let mut answer = Vec::new();
    let deadline = Instant::now() + transport_rig::PATIENCE;
    let welcome = loop {
        assert!(Instant::now() < deadline);
        rig.poll();
        let mut buffer = [0; 2048];
        if let Ok(count) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
        if let Some((message, _)) = HandshakeMessage::decode(&answer).unwrap() {
            break message;
        }
    };
    assert!(matches!(welcome, HandshakeMessage::Welcome { version: 1, .. }), "{welcome:?}");
    stream.write_all(&HandshakeMessage::Confirm.encode()).unwrap();
    until(&mut [rig], "admission", |rigs| rigs[0].is_up(9));
    stream
}

/// A hand-made node that greets as `node` and, once welcomed, refuses `rig` for its disk.
fn refuse_disk(rig: &mut Rig, node: u64) {
    let mut stream = connect(&rig.address());
    let hello = HandshakeMessage::Hello(identity(node).addressed_to(rig_id(rig)));
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

fn rig_id(_: &Rig) -> Option<raftz_core::types::NodeId> {
    Some(id(1))
}

#[test]
fn an_admitted_peer_that_lies_about_a_length_is_dropped() {
    let (mut one, mut two) = pair();
    let mut stream = admitted(&mut one);
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
    let mut stream = admitted(&mut one);
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
    admitted(&mut one);
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
