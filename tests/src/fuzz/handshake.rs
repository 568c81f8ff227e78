//! The handshake. Input: flags, what the judge knows, the bytes of a message.
//!
//! Whatever decodes is written back as a message of at most a kibibyte that reads the same; no part of
//! a message is a message; who is accepted fulfils every condition of it; a refusal can be sent.

use raftz_core::transport::PeerIdentity;
use raftz_core::transport::handshake::{
    HANDSHAKE_BYTES_MAX, HANDSHAKE_HEADER_BYTES, HandshakeMessage, Identity, Known, Reject, Role,
    judge,
};
use raftz_core::types::{Boot, ClusterId, DiskId, NodeId};

/// Puts magic, length and checksum right.
const RESEAL: u8 = 1;
/// Longer texts are cut when they are written.
const TEXT_BYTES: usize = 512;

fn here() -> Identity {
    let mut identity = Identity::peer(ClusterId(1), 1, node(1), DiskId(101), Boot(1), 7);
    identity.instance = 1;
    identity
}

fn there() -> Identity {
    let mut identity = Identity::peer(ClusterId(1), 1, node(2), DiskId(102), Boot(5), 7);
    identity.instance = 2;
    identity.frame_bytes_max = 1 << 20;
    identity.address = "127.0.0.1:7002".into();
    identity.addressed_to(Some(node(1)))
}

fn node(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

pub(super) fn check(input: &[u8]) {
    let [flags, known, bytes @ ..] = input else { return };
    let mut bytes = bytes.to_vec();
    if flags & RESEAL != 0 && bytes.len() >= HANDSHAKE_HEADER_BYTES {
        reseal(&mut bytes);
    }
    let Ok(Some((message, taken))) = HandshakeMessage::decode(&bytes) else { return };
    assert!(taken <= HANDSHAKE_BYTES_MAX && taken <= bytes.len());
    for part in [0, 3, 4, HANDSHAKE_HEADER_BYTES, taken / 2, taken - 1] {
        if part < taken {
            assert_eq!(HandshakeMessage::decode(&bytes[..part]), Ok(None), "{part} of {taken}");
        }
    }
    comes_back(&message);
    match &message {
        HandshakeMessage::Hello(remote) | HandshakeMessage::Welcome { identity: remote, .. } => {
            judged(remote, *known);
        }
        HandshakeMessage::Reject(_) | HandshakeMessage::Confirm => {}
    }
}

fn reseal(bytes: &mut [u8]) {
    let body = (bytes.len() - HANDSHAKE_HEADER_BYTES).min(HANDSHAKE_BYTES_MAX);
    bytes[..4].copy_from_slice(b"RFHS");
    bytes[5] = 0;
    bytes[6..8].copy_from_slice(&(body as u16).to_le_bytes());
    let behind = &bytes[HANDSHAKE_HEADER_BYTES..HANDSHAKE_HEADER_BYTES + body];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), behind);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn comes_back(message: &HandshakeMessage) {
    let written = message.encode();
    assert!(written.len() <= HANDSHAKE_BYTES_MAX, "{} bytes", written.len());
    let (again, taken) = HandshakeMessage::decode(&written).unwrap().expect("whole");
    assert_eq!(taken, written.len());
    assert_eq!(again.encode(), written);
    let text = match message {
        HandshakeMessage::Hello(it) | HandshakeMessage::Welcome { identity: it, .. } => &it.address,
        HandshakeMessage::Reject(reject) => &reject.words,
        HandshakeMessage::Confirm => "",
    };
    if text.len() <= TEXT_BYTES {
        assert_eq!(again, *message);
    }
}

fn judged(remote: &Identity, knows: u8) {
    let local = here();
    let known = Known {
        expected: (knows & 1 != 0).then(|| node(2)),
        disk: (knows & 2 != 0).then_some(DiskId(102)),
        connected: (knows & 4 != 0).then_some((DiskId(102), Boot(5), 2)),
    };
    match judge(&local, remote, &known) {
        Ok(accepted) => {
            let PeerIdentity { node, disk, boot } = accepted.peer;
            assert_eq!((remote.cluster, remote.epoch), (local.cluster, local.epoch));
            assert_eq!((remote.from, remote.disk, remote.boot), (Some(node), disk, boot));
            assert_eq!(remote.to, local.from);
            let life = (disk, boot, remote.instance);
            let is_beside_a_link = remote.role == Role::Bulk && known.connected == Some(life);
            assert!(remote.role == Role::Peer || is_beside_a_link);
            assert_ne!(Some(node), local.from);
            assert!((remote.version_min..=remote.version_max).contains(&accepted.version));
            assert!((local.version_min..=local.version_max).contains(&accepted.version));
            assert!(known.expected.is_none_or(|expected| expected == node));
            assert!(known.disk.is_none_or(|known| known == disk));
            if let Some((known_disk, known_boot, instance)) = known.connected {
                assert!(known_disk == disk && known_boot <= boot);
                assert!(known_boot < boot || instance == remote.instance);
            }
        }
        Err(refused) => comes_back(&HandshakeMessage::Reject(refused.told)),
    }
}

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<(String, Vec<u8>)> = super::golden_frames()
        .into_iter()
        .filter(|(_, bytes)| bytes.starts_with(b"RFHS"))
        .map(|(name, bytes)| (format!("golden-{name}"), [&[0, 0], &bytes[..]].concat()))
        .collect();
    let long = Identity { address: "x".repeat(600), ..there() };
    let reject = Reject { code: 4, words: "wiped".into(), known_disk: Some(DiskId(9)) };
    let messages = [
        ("accepted", 7, HandshakeMessage::Hello(there())),
        ("welcome", 1, HandshakeMessage::Welcome { version: 1, identity: there() }),
        ("another-boot", 4, HandshakeMessage::Hello(Identity { boot: Boot(4), ..there() })),
        ("another-disk", 2, HandshakeMessage::Hello(Identity { disk: DiskId(5), ..there() })),
        ("long-address", 0, HandshakeMessage::Hello(long)),
        ("reject", 0, HandshakeMessage::Reject(reject)),
    ];
    for (name, known, message) in messages {
        seeds.push((name.into(), [&[RESEAL, known], &message.encode()[..]].concat()));
    }
    seeds
}
