//! Every message. Input: flags, kind, group, two bytes for the length of the metadata, the body.
//!
//! The frame around the body is made here, with a right checksum. Whatever decodes is encoded to a frame
//! that decodes to the same message and encodes to the same bytes.

use bytes::Bytes;
use raftz_core::transport::codec::{Decoded, decode, encode, kind};
use raftz_core::transport::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION};
use raftz_core::transport::{InFrame, OutFrame};
use raftz_core::types::{EntryHeader, GroupId, Message};

/// Puts group and payload checksum of every entry header right.
const RESEAL: u8 = 1;

pub(super) fn check(input: &[u8]) {
    let [flags, kind, group, low, high, body @ ..] = input else { return };
    let mut body = body.to_vec();
    let metadata = usize::from(u16::from_le_bytes([*low, *high])).min(body.len());
    let (kind, group) = (u16::from(*kind), GroupId(u32::from(*group)));
    if flags & RESEAL != 0 && matches!(kind, kind::APPEND | kind::FORWARD) {
        reseal_entries(&mut body, metadata, group);
    }
    let frame = InFrame { bytes: framed(kind, group, metadata, &body) };
    let Ok((found, decoded)) = decode(&frame) else { return };
    assert_eq!(found, group);
    match decoded {
        Decoded::Unknown(unknown) => assert_eq!(unknown, kind),
        Decoded::Message(message) => comes_back(group, &message),
    }
}

fn comes_back(group: GroupId, message: &Message) {
    let written = encode(group, message);
    let bytes = whole(&written);
    let (found, again) = decode(&InFrame { bytes: bytes.clone() }).expect("our own frame");
    assert_eq!((found, &again), (group, &Decoded::Message(message.clone())));
    let Decoded::Message(again) = again else { return };
    let rewritten = encode(group, &again);
    assert_eq!((whole(&rewritten), rewritten.class), (bytes, written.class));
}

fn whole(frame: &OutFrame) -> Bytes {
    let mut bytes = frame.head.to_vec();
    frame.payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
    bytes.into()
}

fn framed(kind: u16, group: GroupId, metadata: usize, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    bytes.extend_from_slice(&FRAME_MAGIC);
    bytes.extend_from_slice(&FRAME_VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&group.0.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(metadata as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body[..metadata]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

fn reseal_entries(body: &mut [u8], metadata: usize, group: GroupId) {
    let (metadata, payloads) = body.split_at_mut(metadata);
    let Some(length) = metadata.first_chunk::<4>() else { return };
    let mut at = 4usize.saturating_add(u32::from_le_bytes(*length) as usize);
    let mut payload = 0;
    while let Some(header) = metadata.get(at..).and_then(|rest| EntryHeader::decode(rest).ok()) {
        let end = payload + header.payload_bytes as usize;
        let Some(bytes) = payloads.get(payload..end) else { return };
        metadata[at + 4..at + 8].copy_from_slice(&group.0.to_le_bytes());
        metadata[at + 36..at + 40].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        at += header.header_bytes;
        payload = end;
    }
}

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    super::golden_frames()
        .into_iter()
        .filter(|(_, bytes)| bytes.starts_with(&FRAME_MAGIC))
        .map(|(name, bytes)| {
            let mut input = vec![RESEAL, bytes[6], bytes[12], bytes[20], bytes[21]];
            input.extend_from_slice(&bytes[FRAME_HEADER_BYTES..]);
            (name, input)
        })
        .collect()
}
