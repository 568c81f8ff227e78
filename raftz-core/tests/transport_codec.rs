//! The wire format: what `tests/golden/frames-v1` holds is what this version writes and reads, and
//! no damage to it passes for another message.
//!
//! A golden file that is missing is written by `RAFTZ_WRITE_GOLDEN=1`; one that exists is never
//! rewritten.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use raftz_core::transport::codec::{CodecError, Decoded, GATHER_BYTES, decode, encode};
use raftz_core::transport::frame::{FrameError, FrameLimits, FrameReader};
use raftz_core::transport::handshake::{HANDSHAKE_BYTES_MAX, HandshakeMessage, Identity, Reject};
use raftz_core::transport::{Class, InFrame, OutFrame};
use raftz_core::types::{
    Append, AppendOutcome, AppendReply, Boot, ClusterId, DiskId, Done, Entry, EntryKind, Forward,
    ForwardReply, ForwardedProposal, GroupId, Heartbeat, HeartbeatReply, Index, LogId, Message,
    NodeId, Outcome, Payload, PreVote, RaftBody, RaftMessage, ReadMessage, Refusal, Reply,
    SessionTag, SnapshotId, SnapshotMessage, SnapshotOffer, Term, Unknown, Vote, VoteReply,
};

const GROUP: GroupId = GroupId(3);

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn raft(body: RaftBody) -> Message {
    Message::Raft(RaftMessage { term: Term(0x0102_0304_0506), body })
}

fn entry(index: u64, kind: EntryKind, payload: &[u8], session: Option<SessionTag>) -> Entry {
    Entry {
        term: Term(5),
        index: Index(index),
        log_time_us: 1_700_000_000_000_000 + index,
        kind,
        session,
        payload: Payload::new(payload.to_vec()),
    }
}

fn tag() -> SessionTag {
    SessionTag { session: 11, sequence: 12, acked_below: 10 }
}

fn done(reply: Reply) -> Outcome {
    Outcome::Done(Done { index: Index(70), term: Term(5), reply })
}

fn every_outcome() -> Vec<Outcome> {
    let text = || "words".to_owned();
    vec![
        done(Reply::Ok(Bytes::from_static(b"reply"))),
        done(Reply::Rejected(Bytes::from_static(b"no"))),
        done(Reply::Ok(Bytes::new())),
        Outcome::Refused(Refusal::NotLeader { hint: NodeId::new(2) }),
        Outcome::Refused(Refusal::NotLeader { hint: None }),
        Outcome::Refused(Refusal::NoLeader { detail: text() }),
        Outcome::Refused(Refusal::Busy { what: text() }),
        Outcome::Refused(Refusal::StorageFull),
        Outcome::Refused(Refusal::TooLarge { bytes: 9, limit: 8 }),
        Outcome::Refused(Refusal::Overwritten),
        Outcome::Refused(Refusal::ShuttingDown),
        Outcome::Refused(Refusal::Faulted { reason: text() }),
        Outcome::Refused(Refusal::InCallback { inside: text() }),
        Outcome::Unknown(Unknown::Timeout),
        Outcome::Unknown(Unknown::LeadershipLost),
        Outcome::Unknown(Unknown::ShuttingDown),
        Outcome::Unknown(Unknown::Faulted { reason: text() }),
        Outcome::Unknown(Unknown::InCallback { inside: text() }),
    ]
}

/// One of every kind of message.
fn messages() -> Vec<(&'static str, Message)> {
    let mismatch = |led| Outcome::Refused(Refusal::TermMismatch { wanted: Term(5), led });
    let of_a_term = vec![(0, mismatch(Some(Term(6)))), (1, mismatch(None))];
    let reply = VoteReply { round: 6, granted: true, last: log_id(4, 40) };
    let entries = vec![
        entry(41, EntryKind::Noop, b"", None),
        entry(42, EntryKind::Command, b"set a=1", Some(tag())),
        entry(43, EntryKind::Unknown(200), b"later", None),
    ];
    let append =
        Append { session: 8, prev: log_id(4, 40), commit: Index(39), entries: entries.into() };
    let probe = Append { entries: vec![].into(), ..append.clone() };
    let matched = AppendOutcome::Matched { matched: Index(43), storage_full: false };
    let full = AppendOutcome::Matched { matched: Index(43), storage_full: true };
    let rejected = AppendOutcome::Rejected { prev: Index(40), hint: log_id(3, 30) };
    let proposals = vec![
        ForwardedProposal { payload: Payload::new(&b"one"[..]), session: None },
        ForwardedProposal { payload: Payload::new(&b""[..]), session: Some(tag()) },
    ];
    let outcomes = (0..).zip(every_outcome()).collect();
    let hash = std::array::from_fn(|at| at as u8);
    let id = SnapshotId { last: log_id(4, 40), bytes: 1 << 34, hash };
    let offer = SnapshotOffer { session: 8, id, commit: Index(43) };
    vec![
        ("pre-vote", raft(RaftBody::PreVote(PreVote { round: 6, last: log_id(4, 40) }))),
        ("pre-vote-reply", raft(RaftBody::PreVoteReply(reply))),
        ("vote", raft(RaftBody::Vote(Vote { round: 6, last: log_id(4, 40), transfer: true }))),
        ("vote-reply", raft(RaftBody::VoteReply(VoteReply { granted: false, ..reply }))),
        ("append", raft(RaftBody::Append(append))),
        ("append-probe", raft(RaftBody::Append(probe))),
        (
            "append-reply-matched",
            raft(RaftBody::AppendReply(AppendReply { session: 8, outcome: matched })),
        ),
        (
            "append-reply-full",
            raft(RaftBody::AppendReply(AppendReply { session: 8, outcome: full })),
        ),
        (
            "append-reply-rejected",
            raft(RaftBody::AppendReply(AppendReply { session: 8, outcome: rejected })),
        ),
        (
            "heartbeat",
            raft(RaftBody::Heartbeat(Heartbeat {
                session: 8,
                round: 17,
                commit: log_id(4, 39),
                sent_us: 123_456,
                confirmed_clock_us: 120_000,
                faith_us: 150_000,
            })),
        ),
        (
            "heartbeat-reply",
            raft(RaftBody::HeartbeatReply(HeartbeatReply {
                session: 8,
                round: 17,
                sent_us: 123_456,
                clock_us: u64::MAX,
                faith_us: 149_000,
                fitness: 100,
                storage_full: false,
            })),
        ),
        ("timeout-now", raft(RaftBody::TimeoutNow)),
        ("forward", Message::Forward(Forward { id: 21, patience_us: 5_000_000, proposals })),
        ("forward-reply", Message::ForwardReply(ForwardReply { id: 21, outcomes })),
        ("forward-reply-term", Message::ForwardReply(ForwardReply { id: 22, outcomes: of_a_term })),
        ("snapshot-offer", raft(RaftBody::SnapshotOffer(offer))),
        (
            "snapshot-fetch",
            Message::Snapshot(SnapshotMessage::Fetch { id, offset: 1 << 33, bytes_max: 1 << 20 }),
        ),
        (
            "snapshot-piece",
            Message::Snapshot(SnapshotMessage::Piece {
                id,
                offset: 1 << 33,
                bytes: Bytes::from_static(b"state of the machine"),
            }),
        ),
        ("snapshot-gone", Message::Snapshot(SnapshotMessage::Gone { id })),
        ("snapshot-want", Message::Snapshot(SnapshotMessage::Want { least: Index(7) })),
        ("snapshot-have", Message::Snapshot(SnapshotMessage::Have { id })),
        ("read-ask", Message::Read(ReadMessage::Ask { id: 3 << 40, by_lease: true })),
        ("read-answer", Message::Read(ReadMessage::Answer { id: 3 << 40, index: Some(Index(39)) })),
        ("read-answer-no", Message::Read(ReadMessage::Answer { id: 3 << 40, index: None })),
    ]
}

fn identity() -> Identity {
    let mut identity = Identity::peer(
        ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        2,
        NodeId::new(1).unwrap(),
        DiskId(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100),
        Boot(9),
        0x1234_5678_9abc_def0,
    );
    identity.instance = 77;
    identity.frame_bytes_max = 1 << 25;
    identity.address = "127.0.0.1:7001".into();
    identity.addressed_to(NodeId::new(2))
}

fn handshakes() -> Vec<(&'static str, HandshakeMessage)> {
    let reject =
        Reject { code: Reject::WRONG_DISK, words: "another disk".into(), known_disk: None };
    let of_disk = Reject { known_disk: Some(DiskId(0x0102_0304)), ..reject.clone() };
    vec![
        ("reject-known-disk", HandshakeMessage::Reject(of_disk)),
        ("hello", HandshakeMessage::Hello(identity())),
        ("welcome", HandshakeMessage::Welcome { version: 1, identity: identity() }),
        ("reject", HandshakeMessage::Reject(reject)),
        ("confirm", HandshakeMessage::Confirm),
    ]
}

fn flat(frame: &OutFrame) -> Vec<u8> {
    let mut bytes = frame.head.to_vec();
    frame.payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
    bytes
}

/// What a receiver makes of bytes: the message in them, if they are one whole frame.
fn receive(bytes: &[u8]) -> Result<Option<(GroupId, Decoded)>, CodecError> {
    let mut reader = FrameReader::new(FrameLimits::default());
    let mut frames = Vec::new();
    reader.push(bytes, &mut frames)?;
    match &frames[..] {
        [frame] if !reader.is_mid_frame() => decode(frame).map(Some),
        [] => Ok(None),
        more => panic!("{} frames out of one", more.len()),
    }
}

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/frames-v1");
    let path = folder.join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("RAFTZ_WRITE_GOLDEN").is_some() {
        let mut text = String::new();
        for line in bytes.chunks(16) {
            let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &line.join(" ");
            text.push('\n');
        }
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("golden file {}: {error}", path.display()));
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn every_message_is_written_as_its_golden_frame_and_read_back() {
    for (name, message) in messages() {
        let bytes = flat(&encode(GROUP, &message));
        let golden = golden(name, &bytes);
        assert_eq!(bytes, golden, "{name}");
        assert_eq!(receive(&golden).unwrap(), Some((GROUP, Decoded::Message(message))), "{name}");
    }
}

#[test]
fn every_handshake_message_is_written_as_its_golden_bytes_and_read_back() {
    for (name, message) in handshakes() {
        let bytes = message.encode();
        let golden = golden(name, &bytes);
        assert_eq!(bytes, golden, "{name}");
        assert_eq!(HandshakeMessage::decode(&golden), Ok(Some((message, golden.len()))), "{name}");
    }
}

#[test]
fn the_drawn_frame_header_is_the_written_one() {
    let message = raft(RaftBody::TimeoutNow);
    let bytes = flat(&encode(GROUP, &message));
    assert_eq!(&bytes[0..4], b"RFTZ");
    assert_eq!(bytes[4..6], 1u16.to_le_bytes(), "version");
    assert_eq!(bytes[6..8], 9u16.to_le_bytes(), "kind");
    assert_eq!(bytes[8..10], [0, 0], "flags");
    assert_eq!(bytes[10..12], [0, 0], "class, reserved");
    assert_eq!(bytes[12..16], GROUP.0.to_le_bytes(), "group");
    assert_eq!(bytes[16..20], (bytes.len() as u32 - 32).to_le_bytes(), "length");
    assert_eq!(bytes[20..24], (bytes.len() as u32 - 32).to_le_bytes(), "metadata length");
    assert_eq!(bytes[24..28], crc32c::crc32c(&bytes[..24]).to_le_bytes(), "header crc32c");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..28]), &bytes[32..]);
    assert_eq!(bytes[28..32], crc.to_le_bytes(), "crc32c");
    assert_eq!(bytes[32..36], (bytes.len() as u32 - 36).to_le_bytes(), "struct length");
}

#[test]
fn the_drawn_hello_is_the_written_one() {
    let hello = HandshakeMessage::Hello(identity()).encode();
    assert_eq!(&hello[0..6], b"RFHS\x01\x00");
    assert_eq!(hello[6..8], (hello.len() as u16 - 12).to_le_bytes(), "length");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&hello[..8]), &hello[12..]);
    assert_eq!(hello[8..12], crc.to_le_bytes(), "crc32c");
    let body = &hello[12..];
    assert_eq!(body[0..8], [1, 0, 1, 0, 0, 0, 0, 0], "versions, role");
    assert_eq!(body[24..40], identity().cluster.0.to_le_bytes(), "cluster");
    assert_eq!(body[40..48], 2u64.to_le_bytes(), "epoch");
    assert_eq!(body[48..56], 1u64.to_le_bytes(), "from");
    assert_eq!(body[56..64], 2u64.to_le_bytes(), "to");
    assert_eq!(body[64..80], identity().disk.0.to_le_bytes(), "disk id");
    assert_eq!(body[80..88], 9u64.to_le_bytes(), "boot");
    assert_eq!(body[88..96], 77u64.to_le_bytes(), "instance");
    assert_eq!(body[96..104], identity().founders_hash.to_le_bytes(), "founders hash");
    assert_eq!(body[104..108], (1u32 << 25).to_le_bytes(), "largest frame");
    assert_eq!(&body[108..], b"\x0e\x00127.0.0.1:7001");
}

#[test]
fn a_frame_of_a_newer_version_is_refused_naming_both_versions() {
    for (name, message) in messages() {
        let mut bytes = golden(name, &flat(&encode(GROUP, &message)));
        bytes[4..6].copy_from_slice(&2u16.to_le_bytes());
        let error = receive(&bytes).unwrap_err();
        assert_eq!(error, CodecError::Frame(FrameError::BadVersion { found: 2 }));
        let words = error.to_string();
        assert!(words.contains("version 2") && words.contains("version 1"), "{words}");
    }
}

#[test]
fn a_truncated_frame_is_never_a_message() {
    for (name, message) in messages() {
        let bytes = flat(&encode(GROUP, &message));
        for length in 0..bytes.len() {
            assert_eq!(receive(&bytes[..length]), Ok(None), "{name} cut at {length}");
            let frame = InFrame { bytes: Bytes::copy_from_slice(&bytes[..length]) };
            assert!(decode(&frame).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_flipped_bit_is_never_another_message() {
    for (name, message) in messages() {
        let bytes = flat(&encode(GROUP, &message));
        let good = Decoded::Message(message);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some((group, decoded))) = receive(&bad) {
                assert_eq!((group, &decoded), (GROUP, &good), "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_damaged_handshake_is_an_error_or_incomplete() {
    for (name, message) in handshakes() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert_eq!(HandshakeMessage::decode(&bytes[..length]), Ok(None), "{name} at {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = HandshakeMessage::decode(&bad);
            assert!(!matches!(result, Ok(Some(_))), "{name}, bit {bit}: {result:?}");
        }
    }
}

#[test]
fn no_handshake_message_exceeds_its_bound() {
    let mut long = identity();
    long.address = "é".repeat(5000);
    let reject = Reject { code: 1, words: "ß".repeat(5000), known_disk: Some(DiskId(1)) };
    for message in [HandshakeMessage::Hello(long), HandshakeMessage::Reject(reject)] {
        let bytes = message.encode();
        assert!(bytes.len() <= HANDSHAKE_BYTES_MAX);
        assert!(HandshakeMessage::decode(&bytes).unwrap().is_some());
    }
}

/// Rewrites a frame's header fields and seals it anew.
fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    let metadata = u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
    let header_crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&header_crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    let crc = crc32c::crc32c_append(crc, &bytes[32..32 + metadata]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn grow(bytes: &mut [u8], field: usize, by: u32) {
    let old = u32::from_le_bytes(bytes[field..field + 4].try_into().unwrap());
    bytes[field..field + 4].copy_from_slice(&(old + by).to_le_bytes());
}

#[test]
fn surplus_fields_of_a_later_version_are_skipped() {
    for (name, message) in messages() {
        let bytes = resealed(flat(&encode(GROUP, &message)), |bytes| {
            let struct_end = 36 + u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
            bytes.splice(struct_end..struct_end, [9, 9, 9]);
            for field in [16, 20, 32] {
                grow(bytes, field, 3);
            }
        });
        assert_eq!(receive(&bytes).unwrap(), Some((GROUP, Decoded::Message(message))), "{name}");
    }
}

#[test]
fn an_unknown_kind_is_an_answer() {
    let bytes = resealed(flat(&encode(GROUP, &raft(RaftBody::TimeoutNow))), |bytes| bytes[6] = 99);
    assert_eq!(receive(&bytes).unwrap(), Some((GROUP, Decoded::Unknown(99))));
}

#[test]
fn surplus_payload_or_metadata_is_refused() {
    for (name, message) in messages() {
        let payload = resealed(flat(&encode(GROUP, &message)), |bytes| {
            bytes.push(0);
            grow(bytes, 16, 1);
        });
        let error = receive(&payload).unwrap_err();
        assert!(matches!(error, CodecError::Surplus { what: "payload", bytes: 1, .. }), "{name}");
    }
}

#[test]
fn a_count_beyond_the_bytes_present_is_refused_without_allocating() {
    let append = Append {
        session: 1,
        prev: log_id(1, 1),
        commit: Index(1),
        entries: vec![entry(2, EntryKind::Command, b"x", None)].into(),
    };
    let bytes = flat(&encode(GROUP, &raft(RaftBody::Append(append))));
    // The count is the struct's last field: one byte that stands for 1.
    let struct_end = 36 + u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    let bytes = resealed(bytes, |bytes| {
        assert_eq!(bytes[struct_end - 1], 1);
        // 252 announces four bytes to come.
        bytes.splice(struct_end - 1..struct_end, [252, 255, 255, 255, 255]);
        for field in [16, 20, 32] {
            grow(bytes, field, 4);
        }
    });
    let error = receive(&bytes).unwrap_err();
    assert!(matches!(error, CodecError::Short { .. }), "{error:?}");
}

#[test]
fn an_entry_of_another_group_is_refused() {
    let append = Append {
        session: 1,
        prev: log_id(1, 1),
        commit: Index(1),
        entries: vec![entry(2, EntryKind::Command, b"x", None)].into(),
    };
    let frame = flat(&encode(GROUP, &raft(RaftBody::Append(append))));
    let bytes = resealed(frame, |bytes| bytes[12] = 4);
    let error = receive(&bytes).unwrap_err();
    assert!(matches!(error, CodecError::WrongGroup { found: 3, group: 4, .. }), "{error:?}");
}

#[test]
fn an_outcome_code_of_a_later_version_is_told_as_unknown() {
    let reply =
        |outcome| Message::ForwardReply(ForwardReply { id: 1, outcomes: vec![(0, outcome)] });
    let overwritten = reply(Outcome::Refused(Refusal::Overwritten));
    let bytes = flat(&encode(GROUP, &overwritten));
    // Record: position 0, then the code, zigzag of -6 is 11; 199 stands for -100.
    let at = bytes.windows(2).rposition(|pair| pair == [0, 11]).unwrap() + 1;
    let bytes = resealed(bytes, |bytes| bytes[at] = 199);
    let Some((_, Decoded::Message(Message::ForwardReply(reply)))) = receive(&bytes).unwrap() else {
        panic!("not a reply")
    };
    let Outcome::Unknown(Unknown::Faulted { reason }) = &reply.outcomes[0].1 else {
        panic!("{reply:?}")
    };
    assert!(reason.contains("-100"), "{reason}");
}

#[test]
fn large_payloads_are_neither_copied_out_nor_in() {
    let large = Payload::new(vec![1; GATHER_BYTES]);
    let small = Payload::new(vec![2; GATHER_BYTES - 1]);
    let payloads = [&small, &large, &small, &small, &large];
    let proposals = payloads
        .iter()
        .map(|payload| ForwardedProposal { payload: (*payload).clone(), session: None })
        .collect();
    let message = Message::Forward(Forward { id: 1, patience_us: 1, proposals });
    let out = encode(GROUP, &message);
    assert_eq!(out.class, Class::Data);
    assert_eq!(out.payloads.len(), 3, "the small ones between are gathered");
    assert_eq!(out.payloads[0].as_ptr(), large.bytes().as_ptr());
    assert_eq!(out.payloads[2].as_ptr(), large.bytes().as_ptr());

    let frame = InFrame { bytes: flat(&out).into() };
    let (_, Decoded::Message(Message::Forward(forward))) = decode(&frame).unwrap() else {
        panic!("not a forward")
    };
    let whole = frame.bytes.as_ptr_range();
    for (proposal, payload) in forward.proposals.iter().zip(payloads) {
        assert_eq!(&proposal.payload, payload);
        assert!(whole.contains(&proposal.payload.bytes().as_ptr()), "sliced, not copied");
    }
}

#[test]
fn a_piece_of_a_snapshot_is_neither_copied_out_nor_in() {
    let piece = Bytes::from(vec![3; 1 << 20]);
    let id = SnapshotId { last: log_id(1, 2), bytes: 1 << 30, hash: [1; 32] };
    let message =
        Message::Snapshot(SnapshotMessage::Piece { id, offset: 1 << 20, bytes: piece.clone() });
    let out = encode(GROUP, &message);
    assert_eq!(out.payloads.len(), 1);
    assert_eq!(out.payloads[0].as_ptr(), piece.as_ptr());

    let frame = InFrame { bytes: flat(&out).into() };
    let (_, Decoded::Message(Message::Snapshot(SnapshotMessage::Piece { bytes, .. }))) =
        decode(&frame).unwrap()
    else {
        panic!("not a piece")
    };
    assert_eq!(bytes, piece);
    assert!(frame.bytes.as_ptr_range().contains(&bytes.as_ptr()), "sliced, not copied");
}

#[test]
fn a_damaged_piece_of_a_snapshot_is_refused() {
    let id = SnapshotId { last: log_id(1, 2), bytes: 100, hash: [1; 32] };
    let bytes = Bytes::from_static(b"one hundred bytes");
    let message = Message::Snapshot(SnapshotMessage::Piece { id, offset: 0, bytes });
    let mut bytes = flat(&encode(GROUP, &message));
    *bytes.last_mut().unwrap() ^= 1;
    let refused = CodecError::BadPayload { kind: 19, position: 0 };
    assert_eq!(receive(&bytes), Err(refused));
}

#[test]
fn classes_follow_what_a_frame_carries() {
    for (name, message) in messages() {
        let class = encode(GROUP, &message).class;
        let expected = match name {
            "append" | "forward" | "forward-reply" | "forward-reply-term" => Class::Data,
            "snapshot-piece" => Class::Bulk,
            _ => Class::Control,
        };
        assert_eq!(class, expected, "{name}");
    }
}

prop_compose! {
    fn any_tag()(session: u64, sequence: u64, acked_below: u64) -> SessionTag {
        SessionTag { session, sequence, acked_below }
    }
}

prop_compose! {
    fn any_log_id()(term: u64, index: u64) -> LogId {
        log_id(term, index)
    }
}

prop_compose! {
    fn any_entry()(
        term: u64,
        index: u64,
        log_time_us: u64,
        kind: u8,
        session in proptest::option::of(any_tag()),
        payload in proptest::collection::vec(any::<u8>(), 0..6000),
    ) -> Entry {
        let (term, index) = (Term(term), Index(index));
        let kind = EntryKind::from_u8(kind);
        Entry { term, index, log_time_us, kind, session, payload: Payload::new(payload) }
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..6000).prop_map(Bytes::from);
    let replied =
        (any::<u64>(), any::<u64>(), any::<bool>(), bytes).prop_map(|(index, term, ok, bytes)| {
            let reply = if ok { Reply::Ok(bytes) } else { Reply::Rejected(bytes) };
            Outcome::Done(Done { index: Index(index), term: Term(term), reply })
        });
    let other = (0..every_outcome().len()).prop_map(|at| every_outcome()[at].clone());
    prop_oneof![replied, other]
}

prop_compose! {
    fn any_snapshot_id()(last in any_log_id(), bytes: u64, hash: [u8; 32]) -> SnapshotId {
        SnapshotId { last, bytes, hash }
    }
}

fn any_snapshot_message() -> impl Strategy<Value = SnapshotMessage> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..6000).prop_map(Bytes::from);
    prop_oneof![
        (any_snapshot_id(), any::<u64>(), any::<u32>()).prop_map(|(id, offset, bytes_max)| {
            SnapshotMessage::Fetch { id, offset, bytes_max }
        }),
        (any_snapshot_id(), any::<u64>(), bytes)
            .prop_map(|(id, offset, bytes)| SnapshotMessage::Piece { id, offset, bytes }),
        any_snapshot_id().prop_map(|id| SnapshotMessage::Gone { id }),
        any::<u64>().prop_map(|least| SnapshotMessage::Want { least: Index(least) }),
        any_snapshot_id().prop_map(|id| SnapshotMessage::Have { id }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let vote_reply =
        || {
            (any::<u64>(), any::<bool>(), any_log_id())
                .prop_map(|(round, granted, last)| VoteReply { round, granted, last })
        };
    let body = prop_oneof![
        (any::<u64>(), any_log_id())
            .prop_map(|(round, last)| RaftBody::PreVote(PreVote { round, last })),
        vote_reply().prop_map(RaftBody::PreVoteReply),
        (any::<u64>(), any_log_id(), any::<bool>())
            .prop_map(|(round, last, transfer)| RaftBody::Vote(Vote { round, last, transfer })),
        vote_reply().prop_map(RaftBody::VoteReply),
        (any::<u64>(), any_log_id(), any::<u64>(), proptest::collection::vec(any_entry(), 0..5))
            .prop_map(|(session, prev, commit, entries)| RaftBody::Append(Append {
                session,
                prev,
                commit: Index(commit),
                entries: entries.into(),
            })),
        (any::<u64>(), any::<bool>(), any_log_id(), any::<u64>()).prop_map(
            |(session, matched, hint, index)| {
                let index = Index(index);
                let outcome = if matched {
                    AppendOutcome::Matched { matched: index, storage_full: session & 1 > 0 }
                } else {
                    AppendOutcome::Rejected { prev: index, hint }
                };
                RaftBody::AppendReply(AppendReply { session, outcome })
            }
        ),
        (any::<[u64; 5]>(), any_log_id()).prop_map(|(numbers, commit)| {
            let [session, round, sent_us, confirmed_clock_us, faith_us] = numbers;
            RaftBody::Heartbeat(Heartbeat {
                session,
                round,
                commit,
                sent_us,
                confirmed_clock_us,
                faith_us,
            })
        }),
        (any::<[u64; 5]>(), any::<u8>()).prop_map(|(numbers, fitness)| {
            let [session, round, sent_us, clock_us, faith_us] = numbers;
            RaftBody::HeartbeatReply(HeartbeatReply {
                session,
                round,
                sent_us,
                clock_us,
                faith_us,
                fitness,
                storage_full: false,
            })
        }),
        Just(RaftBody::TimeoutNow),
        (any::<u64>(), any_snapshot_id(), any::<u64>()).prop_map(|(session, id, commit)| {
            RaftBody::SnapshotOffer(SnapshotOffer { session, id, commit: Index(commit) })
        }),
    ];
    let proposal =
        (proptest::collection::vec(any::<u8>(), 0..6000), proptest::option::of(any_tag()))
            .prop_map(|(bytes, session)| ForwardedProposal {
                payload: Payload::new(bytes),
                session,
            });
    prop_oneof![
        6 => (any::<u64>(), body)
            .prop_map(|(term, body)| Message::Raft(RaftMessage { term: Term(term), body })),
        1 => (any::<u64>(), any::<u64>(), proptest::collection::vec(proposal, 0..5)).prop_map(
            |(id, patience_us, proposals)| Message::Forward(Forward { id, patience_us, proposals })
        ),
        1 => (any::<u64>(), proptest::collection::vec((any::<u32>(), any_outcome()), 0..5))
            .prop_map(|(id, outcomes)| Message::ForwardReply(ForwardReply { id, outcomes })),
        1 => any_snapshot_message().prop_map(Message::Snapshot),
        1 => (any::<u64>(), any::<bool>())
            .prop_map(|(id, by_lease)| Message::Read(ReadMessage::Ask { id, by_lease })),
        1 => (any::<u64>(), proptest::option::of(any::<u64>())).prop_map(|(id, index)| {
            Message::Read(ReadMessage::Answer { id, index: index.map(Index) })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_message_survives_the_wire(message in any_message(), group: u32) {
        let out = encode(GroupId(group), &message);
        prop_assert_eq!(out.len(), flat(&out).len());
        let decoded = receive(&flat(&out)).unwrap();
        prop_assert_eq!(decoded, Some((GroupId(group), Decoded::Message(message))));
    }

    #[test]
    fn arbitrary_metadata_never_panics(kind in 0u16..26, metadata: Vec<u8>, payload: Vec<u8>) {
        let mut bytes = vec![0; 32];
        bytes[0..4].copy_from_slice(b"RFTZ");
        bytes[4] = 1;
        bytes[6..8].copy_from_slice(&kind.to_le_bytes());
        let length = (metadata.len() + payload.len()) as u32;
        bytes[16..20].copy_from_slice(&length.to_le_bytes());
        bytes[20..24].copy_from_slice(&(metadata.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&metadata);
        bytes.extend_from_slice(&payload);
        let bytes = resealed(bytes, |_| {});
        let _ = receive(&bytes);
        let _ = HandshakeMessage::decode(&metadata);
    }
}
