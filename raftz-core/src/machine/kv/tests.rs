//! What the store promises, against a plain map and against hostile bytes.
#![allow(clippy::wildcard_enum_match_arm, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::types::{Index, Term};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn bytes(raw: &[u8]) -> Bytes {
    Bytes::copy_from_slice(raw)
}

fn apply(store: &mut KvStore, payload: impl Into<Bytes>) -> Reply {
    let payload = payload.into();
    let command = Command { index: Index(1), term: Term(1), log_time_us: 0, payload: &payload };
    let mut replies = Vec::new();
    store.apply(&[command], &mut replies).unwrap();
    assert_eq!(replies.len(), 1, "one reply for one command");
    replies.remove(0)
}

fn run(store: &mut KvStore, command: KvCommand) -> KvReply {
    KvReply::decode(&apply(store, command.encode())).unwrap()
}

fn ask(store: &KvStore, query: KvQuery) -> KvReply {
    KvReply::decode(&store.query(&query.encode()).unwrap()).unwrap()
}

fn set(key: &[u8], value: &[u8]) -> KvCommand {
    KvCommand::Set { key: bytes(key), value: bytes(value) }
}

fn words(reply: &Reply) -> &str {
    match reply {
        Reply::Rejected(words) => std::str::from_utf8(words).unwrap(),
        Reply::Ok(bytes) => panic!("not a rejection: {bytes:?}"),
    }
}

fn frozen(store: &mut KvStore) -> Vec<u8> {
    let mut out = Vec::new();
    store.snapshot().unwrap().write_to(&mut out).unwrap();
    out
}

/// Few and short keys, so that commands meet; values that are sometimes numbers.
fn key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(0u8), Just(b'a'), Just(255u8)], 0..3).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..4).prop_map(Bytes::from),
        prop_oneof![any::<i64>(), -3..3i64].prop_map(|n| Bytes::from(n.to_string())),
    ]
}

fn command() -> impl Strategy<Value = KvCommand> {
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| KvCommand::Set { key, value }),
        key().prop_map(|key| KvCommand::Delete { key }),
        (key(), option::of(value()), option::of(value()))
            .prop_map(|(key, expected, value)| KvCommand::CompareAndSet { key, expected, value }),
        (key(), prop_oneof![any::<i64>(), -3..3i64])
            .prop_map(|(key, by)| KvCommand::Increment { key, by }),
    ]
}

fn query() -> impl Strategy<Value = KvQuery> {
    prop_oneof![
        key().prop_map(|key| KvQuery::Get { key }),
        (key(), option::of(key()), any::<u32>()).prop_map(|(prefix, after, limit)| KvQuery::Scan {
            prefix,
            after,
            limit
        }),
        Just(KvQuery::Digest),
    ]
}

fn reply() -> impl Strategy<Value = KvReply> {
    prop_oneof![
        Just(KvReply::Stored),
        any::<bool>().prop_map(|existed| KvReply::Deleted { existed }),
        Just(KvReply::Swapped),
        option::of(value()).prop_map(|actual| KvReply::NotSwapped { actual }),
        any::<u64>().prop_map(|actual_bytes| KvReply::NotSwappedLarge { actual_bytes }),
        any::<i64>().prop_map(KvReply::Number),
        option::of(value()).prop_map(KvReply::Value),
        (vec((key(), value()), 0..4), any::<bool>())
            .prop_map(|(entries, more)| KvReply::Scanned { entries, more }),
        any::<(u64, u64)>().prop_map(|(entries, digest)| KvReply::Digest { entries, digest }),
    ]
}

/// What the command does to a plain map, written from the documentation. `None`: rejected.
fn on_model(model: &mut Model, command: &KvCommand) -> Option<KvReply> {
    let key = command.key().to_vec();
    if key.is_empty() {
        return None;
    }
    Some(match command {
        KvCommand::Set { value, .. } => {
            model.insert(key, value.to_vec());
            KvReply::Stored
        }
        KvCommand::Delete { .. } => KvReply::Deleted { existed: model.remove(&key).is_some() },
        KvCommand::CompareAndSet { expected, value, .. } => {
            let actual = model.get(&key).map(|value| bytes(value));
            if actual != *expected {
                return Some(KvReply::NotSwapped { actual });
            }
            match value {
                Some(value) => drop(model.insert(key, value.to_vec())),
                None => drop(model.remove(&key)),
            }
            KvReply::Swapped
        }
        KvCommand::Increment { by, .. } => {
            let before = match model.get(&key) {
                None => 0,
                Some(text) => {
                    let text = std::str::from_utf8(text).ok()?;
                    if text.starts_with('+') {
                        return None;
                    }
                    text.parse().ok()?
                }
            };
            let after = i64::checked_add(before, *by)?;
            model.insert(key, after.to_string().into_bytes());
            KvReply::Number(after)
        }
    })
}

fn assert_equal(store: &KvStore, model: &Model) {
    assert_eq!(store.len(), model.len());
    assert!(
        store.iter().map(|(k, v)| (&k[..], &v[..])).eq(model.iter().map(|(k, v)| (&k[..], &v[..])))
    );
}

proptest! {
    #[test]
    fn every_command_does_to_the_store_what_it_does_to_a_plain_map(
        commands in vec(command(), 0..60),
    ) {
        let (mut store, mut model) = (KvStore::new(), Model::new());
        for command in commands {
            let reply = run(&mut store, command.clone());
            match on_model(&mut model, &command) {
                Some(expected) => prop_assert_eq!(reply, expected),
                None => prop_assert!(matches!(reply, KvReply::Rejected(_)), "{:?}", reply),
            }
            assert_equal(&store, &model);
        }
    }

    #[test]
    fn scans_in_pieces_give_what_one_scan_of_a_plain_map_gives(
        pairs in vec((key(), value()), 0..40),
        prefix in key(),
        limit in 1..5u32,
    ) {
        let (mut store, mut model) = (KvStore::new(), Model::new());
        for (key, value) in pairs.into_iter().filter(|(key, _)| !key.is_empty()) {
            model.insert(key.to_vec(), value.to_vec());
            run(&mut store, KvCommand::Set { key, value });
        }
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let query = KvQuery::Scan { prefix: prefix.clone(), after, limit };
            let KvReply::Scanned { entries, more } = ask(&store, query) else {
                panic!("not a scan's answer");
            };
            prop_assert!(entries.len() <= limit as usize);
            found.extend(entries);
            if !more {
                break;
            }
            after = found.last().map(|(key, _)| key.clone());
        }
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| (bytes(key), bytes(value)))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn commands_queries_and_replies_survive_encoding(
        command in command(),
        query in query(),
        reply in reply(),
    ) {
        prop_assert_eq!(KvCommand::decode(&command.encode()), Ok(command));
        prop_assert_eq!(KvQuery::decode(&query.encode()), Ok(query));
        prop_assert_eq!(KvReply::decode(&Reply::Ok(reply.encode())), Ok(reply));
    }

    #[test]
    fn a_command_cut_short_or_followed_by_more_is_rejected_and_changes_nothing(
        command in command(),
        surplus in vec(any::<u8>(), 1..9),
    ) {
        let mut store = KvStore::new();
        run(&mut store, set(b"a", b"1"));
        let before = store.digest();
        let whole = command.encode();
        for length in 0..whole.len() {
            words(&apply(&mut store, whole.slice(..length)));
        }
        words(&apply(&mut store, [&whole[..], &surplus].concat()));
        prop_assert_eq!(store.digest(), before);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_answered_alike_by_every_replica(
        mut raw in vec(any::<u8>(), 0..40),
        tag in 0..6u8,
    ) {
        if let Some(first) = raw.first_mut() {
            *first = tag;
        }
        let (mut one, mut two) = (KvStore::new(), KvStore::new());
        prop_assert_eq!(apply(&mut one, raw.clone()), apply(&mut two, raw.clone()));
        prop_assert_eq!(one.query(&raw).unwrap(), two.query(&raw).unwrap());
        prop_assert_eq!(one.digest(), two.digest());
        let _ = KvReply::decode(&Reply::Ok(Bytes::from(raw)));
    }

    #[test]
    fn the_digest_follows_from_the_contents_alone(pairs in vec((key(), value()), 0..20)) {
        let pairs: Vec<_> = pairs.into_iter().filter(|(key, _)| !key.is_empty()).collect();
        let (mut one, mut two) = (KvStore::new(), KvStore::new());
        for (key, value) in &pairs {
            run(&mut one, set(key, value));
        }
        run(&mut two, set(b"gone", b"x"));
        let mut last: Vec<_> = one.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        last.reverse();
        for (key, value) in &last {
            run(&mut two, set(key, b"first"));
            run(&mut two, set(key, value));
        }
        run(&mut two, KvCommand::Delete { key: bytes(b"gone") });
        prop_assert_eq!(one.digest(), two.digest());
        run(&mut two, set(b"other", b""));
        prop_assert_ne!(one.digest(), two.digest());
    }

    #[test]
    fn a_restored_store_equals_the_frozen_one_byte_for_byte(pairs in vec((key(), value()), 0..40)) {
        let mut store = KvStore::new();
        for (key, value) in pairs.into_iter().filter(|(key, _)| !key.is_empty()) {
            run(&mut store, KvCommand::Set { key, value });
        }
        let file = frozen(&mut store);
        let mut other = KvStore::new();
        run(&mut other, set(b"old", b"state"));
        for _ in 0..2 {
            other.restore(&mut &file[..]).unwrap();
            prop_assert_eq!(other.digest(), store.digest());
            prop_assert_eq!(frozen(&mut other), &file[..]);
        }
    }
}

#[test]
fn increments_start_at_zero_and_refuse_overflow_and_what_is_no_number() {
    let mut store = KvStore::new();
    let add = |store: &mut KvStore, by| run(store, KvCommand::Increment { key: bytes(b"n"), by });
    assert_eq!(add(&mut store, 5), KvReply::Number(5));
    assert_eq!(add(&mut store, -7), KvReply::Number(-2));
    assert_eq!(store.get(b"n"), Some(&bytes(b"-2")));
    run(&mut store, set(b"n", i64::MAX.to_string().as_bytes()));
    assert!(matches!(add(&mut store, 1), KvReply::Rejected(_)));
    run(&mut store, set(b"n", i64::MIN.to_string().as_bytes()));
    assert!(matches!(add(&mut store, -1), KvReply::Rejected(_)));
    assert_eq!(add(&mut store, 1), KvReply::Number(i64::MIN + 1));
    for no_number in ["", "-", "+1", " 1", "1 ", "1.5", "0x1", "9223372036854775808", "one"] {
        run(&mut store, set(b"n", no_number.as_bytes()));
        assert!(matches!(add(&mut store, 1), KvReply::Rejected(_)), "{no_number:?}");
        assert_eq!(store.get(b"n"), Some(&bytes(no_number.as_bytes())));
    }
}

#[test]
fn rejections_say_what_is_wrong() {
    let mut store = KvStore::new();
    let cases: [(&[u8], &str); 7] = [
        (b"", "command: empty; the first byte must say which kind it is"),
        (b"\x09", "command: unknown kind 9"),
        (b"\x02\x05\0\0\0ab", "command: cut short in its key: 5 bytes wanted, 2 left"),
        (b"\x02\xff\xff\xff\xff", "command: cut short in its key: 4294967295 bytes wanted, 0 left"),
        (b"\x02\x01\0\0\0axyz", "command: 3 bytes too many after its end"),
        (b"\x03\x01\0\0\0a\x02", "command: expected value must begin with 0 or 1, not 2"),
        (b"\x02\0\0\0\0", "the key is empty; a key has at least one byte"),
    ];
    for (raw, expected) in cases {
        assert_eq!(words(&apply(&mut store, raw)), expected);
    }
    assert_eq!(
        words(&store.query(b"\x01\0\0\0\0").unwrap()),
        "the key is empty; a key has at least one byte"
    );
}

#[test]
fn a_stored_value_shares_no_memory_with_the_frame_it_came_in() {
    let payload = set(b"key", b"value").encode();
    let mut frame = vec![7; 1 << 20];
    frame[..payload.len()].copy_from_slice(&payload);
    let frame = Bytes::from(frame);
    let memory = frame.as_ptr_range();
    let mut store = KvStore::new();
    apply(&mut store, frame.slice(..payload.len()));
    for (key, value) in store.iter() {
        assert!(!memory.contains(&key.as_ptr()) && !memory.contains(&value.as_ptr()));
    }
    assert!(frame.is_unique(), "nothing else holds the frame");
}

#[test]
fn a_frozen_view_is_not_touched_by_later_commands() {
    let mut store = KvStore::new();
    run(&mut store, set(b"a", b"1"));
    let expected = frozen(&mut store);
    let mut view = store.snapshot().unwrap();
    run(&mut store, set(b"a", b"2"));
    run(&mut store, set(b"b", b"3"));
    let mut written = Vec::new();
    view.write_to(&mut written).unwrap();
    assert_eq!(written, expected);
}

#[test]
fn a_damaged_snapshot_is_an_error_and_leaves_the_old_state() {
    let mut store = KvStore::new();
    for n in 0..20u8 {
        run(&mut store, set(&[b'k', n], &[n; 9]));
    }
    let file = frozen(&mut store);
    let mut other = KvStore::new();
    run(&mut other, set(b"old", b"state"));
    let before = (other.digest(), other.len());
    let mut refuse = |bytes: &[u8], what: &str| {
        let error = other.restore(&mut &bytes[..]).expect_err(what);
        assert!(error.to_string().contains("snapshot"), "{error}");
        assert_eq!((other.digest(), other.len()), before, "{what}");
    };
    for length in 0..file.len() {
        refuse(&file[..length], "cut short");
    }
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << bit;
            refuse(&flipped, "one bit flipped");
        }
    }
    refuse(&[&file[..], b"x"].concat(), "bytes after the end");
}

#[test]
fn an_answer_to_a_scan_is_bounded_in_entries_and_bytes() {
    let mut store = KvStore::new();
    for n in 0..SCAN_ENTRIES_MAX as u32 + 1 {
        run(&mut store, set(&n.to_be_bytes(), b""));
    }
    let all = KvQuery::Scan { prefix: Bytes::new(), after: None, limit: u32::MAX };
    match ask(&store, all.clone()) {
        KvReply::Scanned { entries, more } => {
            assert_eq!((entries.len(), more), (SCAN_ENTRIES_MAX, true));
        }
        other => panic!("{other:?}"),
    }
    let mut store = KvStore::new();
    for n in 0..8u8 {
        run(&mut store, set(&[n], &vec![n; SCAN_REPLY_BYTES_MAX / 4]));
    }
    match ask(&store, all) {
        KvReply::Scanned { entries, more } => assert_eq!((entries.len(), more), (4, true)),
        other => panic!("{other:?}"),
    }
}

/// Logs and snapshots of this version must be read by every later one: these bytes never change.
#[test]
fn the_bytes_are_the_documented_ones() {
    let (key, value) = (bytes(b"k"), bytes(b"vw"));
    let commands: [(KvCommand, &[u8]); 5] = [
        (set(b"k", b"vw"), b"\x01\x01\0\0\0k\x02\0\0\0vw"),
        (KvCommand::Delete { key: key.clone() }, b"\x02\x01\0\0\0k"),
        (
            KvCommand::CompareAndSet {
                key: key.clone(),
                expected: None,
                value: Some(value.clone()),
            },
            b"\x03\x01\0\0\0k\0\x01\x02\0\0\0vw",
        ),
        (
            KvCommand::CompareAndSet {
                key: key.clone(),
                expected: Some(value.clone()),
                value: None,
            },
            b"\x03\x01\0\0\0k\x01\x02\0\0\0vw\0",
        ),
        (
            KvCommand::Increment { key: key.clone(), by: -2 },
            b"\x04\x01\0\0\0k\xfe\xff\xff\xff\xff\xff\xff\xff",
        ),
    ];
    for (command, expected) in commands {
        assert_eq!(command.encode(), expected, "{command:?}");
    }
    let queries: [(KvQuery, &[u8]); 3] = [
        (KvQuery::Get { key: key.clone() }, b"\x01\x01\0\0\0k"),
        (
            KvQuery::Scan { prefix: key.clone(), after: Some(value.clone()), limit: 258 },
            b"\x02\x01\0\0\0k\x01\x02\0\0\0vw\x02\x01\0\0",
        ),
        (KvQuery::Digest, b"\x03"),
    ];
    for (query, expected) in queries {
        assert_eq!(query.encode(), expected, "{query:?}");
    }
    let replies: [(KvReply, &[u8]); 9] = [
        (KvReply::Stored, b"\x01"),
        (KvReply::Deleted { existed: true }, b"\x02\x01"),
        (KvReply::Swapped, b"\x03"),
        (KvReply::NotSwapped { actual: None }, b"\x04\0"),
        (KvReply::NotSwappedLarge { actual_bytes: 258 }, b"\x09\x02\x01\0\0\0\0\0\0"),
        (KvReply::Number(1), b"\x05\x01\0\0\0\0\0\0\0"),
        (KvReply::Value(Some(value.clone())), b"\x06\x01\x02\0\0\0vw"),
        (
            KvReply::Scanned { entries: vec![(key, value)], more: true },
            b"\x07\x01\x01\0\0\0\x01\0\0\0k\x02\0\0\0vw",
        ),
        (KvReply::Digest { entries: 1, digest: 2 }, b"\x08\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"),
    ];
    for (reply, expected) in replies {
        assert_eq!(reply.encode(), expected, "{reply:?}");
    }
    let mut store = KvStore::new();
    run(&mut store, set(b"k", b"vw"));
    let mut snapshot = b"RAFTZKV1\x01\0\0\0\0\0\0\0\x01\0\0\0k\x02\0\0\0vw".to_vec();
    snapshot.extend_from_slice(&crc32c::crc32c(&snapshot).to_le_bytes());
    assert_eq!(frozen(&mut store), snapshot);
}
