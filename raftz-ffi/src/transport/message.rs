//! What travels over a program's links: messages of the handshake, frames and signs of life, each behind an envelope
//! that says which link it belongs to and where in it. A program's transport may lose messages, but also double them,
//! give them late or mix them up; what the envelope is there for is that none of that is ever believed.
//!
//! ```text
//! byte 0       4        8       16       24
//!      +-------+--------+--------+--------+------
//!      | "RFL" | crc32c | link 8 | number | handshake message, frame, or nothing
//!      | kind  |        |        |   8    |
//!      +-------+--------+--------+--------+------
//! ```
//! `link` is what the receiver called this link in its part of the handshake, so that nothing of another one counts;
//! it is 0 in a hello. `number` is what the sender calls it, in a handshake; with a frame it grows within its class.
//! All numbers are little-endian. The checksum covers the other 20 bytes; what follows has its own.

use bytes::{Buf, BufMut, Bytes};
use raftz_core::transport::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits};
use raftz_core::transport::handshake::HandshakeMessage;
use raftz_core::transport::{Class, OutFrame};

use crate::bytes::checksum;

/// Bytes before a handshake message or frame.
pub(crate) const ENVELOPE_BYTES: usize = 24;
const MAGIC: &[u8; 3] = b"RFL";
const CRC_AT: usize = 4;
const LINK_AT: usize = 8;

/// What an envelope is around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Handshake,
    Frame,
    Ping,
    Pong,
}

impl Kind {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Handshake => 1,
            Self::Frame => 2,
            Self::Ping => 3,
            Self::Pong => 4,
        }
    }

    const fn from_u8(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Handshake),
            2 => Some(Self::Frame),
            3 => Some(Self::Ping),
            4 => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The more urgent, the lower.
pub(crate) const fn rank(class: Class) -> usize {
    match class {
        Class::Control => 0,
        Class::Data => 1,
        Class::Bulk => 2,
    }
}

/// A message to be sent, and all its parts.
#[derive(Debug)]
pub(crate) struct OutMessage {
    pub(crate) envelope: [u8; ENVELOPE_BYTES],
    pub(crate) inside: OutFrame,
}

impl OutMessage {
    pub(crate) fn of_frame(link: u64, number: u64, frame: OutFrame) -> Self {
        Self { envelope: envelope(Kind::Frame, link, number), inside: frame }
    }

    pub(crate) fn of_handshake(link: u64, number: u64, message: &HandshakeMessage) -> Self {
        Self::control(Kind::Handshake, link, number, Bytes::from(message.encode()))
    }

    pub(crate) fn sign_of_life(kind: Kind, link: u64) -> Self {
        Self::control(kind, link, 0, Bytes::new())
    }

    fn control(kind: Kind, link: u64, number: u64, head: Bytes) -> Self {
        let inside = OutFrame { class: Class::Control, head, payloads: Vec::new() };
        Self { envelope: envelope(kind, link, number), inside }
    }

    /// All its bytes.
    pub(crate) fn len(&self) -> usize {
        ENVELOPE_BYTES + self.inside.len()
    }

    /// The pieces that its bytes lie in.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let frame = std::iter::once(&self.inside.head).chain(&self.inside.payloads);
        let frame = frame.map(|part| &part[..]).filter(|part| !part.is_empty());
        std::iter::once(&self.envelope[..]).chain(frame)
    }
}

fn envelope(kind: Kind, link: u64, number: u64) -> [u8; ENVELOPE_BYTES] {
    let mut bytes = [0; ENVELOPE_BYTES];
    let mut at = &mut bytes[..];
    at.put_slice(MAGIC);
    at.put_u8(kind.to_u8());
    at.put_u32_le(0);
    at.put_u64_le(link);
    at.put_u64_le(number);
    let crc = envelope_crc(&bytes);
    bytes[CRC_AT..LINK_AT].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn envelope_crc(bytes: &[u8; ENVELOPE_BYTES]) -> u32 {
    let mut covered = [0; ENVELOPE_BYTES - (LINK_AT - CRC_AT)];
    covered[..CRC_AT].copy_from_slice(&bytes[..CRC_AT]);
    covered[CRC_AT..].copy_from_slice(&bytes[LINK_AT..]);
    checksum(&covered)
}

/// A message that arrived, whole and checked.
#[derive(Clone, Debug)]
pub(crate) struct InMessage {
    pub(crate) link: u64,
    pub(crate) number: u64,
    pub(crate) inside: Inside,
}

#[derive(Clone, Debug)]
pub(crate) enum Inside {
    Handshake(Box<HandshakeMessage>),
    Frame(Class, Bytes),
    Ping,
    Pong,
}

impl InMessage {
    /// Reads a message; or says why it is none.
    pub(crate) fn read(mut bytes: Bytes, limits: &FrameLimits) -> Result<Self, String> {
        let whole = bytes.len();
        let most = ENVELOPE_BYTES.saturating_add(limits.largest());
        if whole > most {
            return Err(format!("a message of {whole} bytes, and at most {most} can come"));
        }
        let Some(front) = bytes.first_chunk::<ENVELOPE_BYTES>().copied() else {
            return Err(format!("{whole} bytes are no message"));
        };
        let kind = Kind::from_u8(front[MAGIC.len()]);
        let Some(kind) = kind.filter(|_| front.starts_with(MAGIC)) else {
            return Err(format!("no message of raftz: it starts with {:02x?}", &front[..CRC_AT]));
        };
        if (&front[CRC_AT..LINK_AT]).get_u32_le() != envelope_crc(&front) {
            return Err("a message's envelope does not match its checksum".into());
        }
        let mut at = &front[LINK_AT..];
        let (link, number) = (at.get_u64_le(), at.get_u64_le());
        bytes.advance(ENVELOPE_BYTES);
        let inside = match kind {
            Kind::Handshake => Inside::Handshake(Box::new(handshake(&bytes)?)),
            Kind::Frame => Inside::Frame(class_of(&bytes, limits)?, bytes),
            Kind::Ping | Kind::Pong if !bytes.is_empty() => {
                return Err(format!("a sign of life with {} bytes in it", bytes.len()));
            }
            Kind::Ping => Inside::Ping,
            Kind::Pong => Inside::Pong,
        };
        Ok(Self { link, number, inside })
    }
}

fn handshake(bytes: &[u8]) -> Result<HandshakeMessage, String> {
    match HandshakeMessage::decode(bytes) {
        Ok(Some((message, taken))) if taken == bytes.len() => Ok(message),
        Ok(Some((_, taken))) => {
            Err(format!("a handshake message of {taken} bytes in a message of {}", bytes.len()))
        }
        Ok(None) => Err("a handshake message is cut short".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The class of a frame that is whole, no larger than that class allows, and intact.
fn class_of(bytes: &[u8], limits: &FrameLimits) -> Result<Class, String> {
    let count = bytes.len();
    let header = bytes
        .first_chunk::<FRAME_HEADER_BYTES>()
        .ok_or_else(|| format!("{count} bytes are no frame"))?;
    let header = FrameHeader::parse(header).map_err(|error| error.to_string())?;
    if header.frame_bytes() != count as u64 {
        return Err(format!("a frame of {} bytes came as {count}", header.frame_bytes()));
    }
    let limit = limits.of(header.class);
    if count > limit {
        let class = header.class;
        return Err(format!("a {class:?} frame of {count} bytes exceeds the limit of {limit}"));
    }
    let front = FRAME_HEADER_BYTES + header.metadata_length as usize;
    header.verify(&bytes[..front]).map_err(|error| error.to_string())?;
    Ok(header.class)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use raftz_core::transport::codec::encode;
    use raftz_core::types::{Forward, ForwardedProposal, GroupId, Message, Payload};

    use super::*;

    /// A frame with a payload of so many bytes.
    pub(crate) fn frame(bytes: usize) -> OutFrame {
        let proposal = ForwardedProposal { payload: Payload::new(vec![7; bytes]), session: None };
        let forward = Forward { id: 1, patience_us: 2, proposals: vec![proposal] };
        encode(GroupId::FIRST, &Message::Forward(forward))
    }

    /// As it arrives.
    pub(crate) fn whole(message: &OutMessage) -> Bytes {
        Bytes::from(message.parts().collect::<Vec<_>>().concat())
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        let limits = FrameLimits::default();
        for bytes in [0, 1, 4096, 100_000] {
            let sent = OutMessage::of_frame(5, 9, frame(bytes));
            assert_eq!(whole(&sent).len(), sent.len());
            let InMessage { link, number, inside } =
                InMessage::read(whole(&sent), &limits).unwrap();
            let Inside::Frame(class, got) = inside else { panic!("{inside:?}") };
            assert_eq!((link, number, class), (5, 9, Class::Data));
            assert_eq!(got, whole(&sent).slice(ENVELOPE_BYTES..));
        }
        let ping = whole(&OutMessage::sign_of_life(Kind::Ping, 5));
        assert!(matches!(InMessage::read(ping, &limits).unwrap().inside, Inside::Ping));
    }

    #[test]
    fn no_flipped_bit_of_an_envelope_header_or_metadata_and_no_cut_passes() {
        let limits = FrameLimits::default();
        let hello = OutMessage::of_handshake(0, 7, &HandshakeMessage::Confirm);
        for sent in [hello, OutMessage::of_frame(5, 9, frame(10))] {
            let good = whole(&sent).to_vec();
            // The payload's own checksum is with the codec.
            let checked =
                if matches!(sent.inside.class, Class::Data) { good.len() - 10 } else { good.len() };
            for at in 0..checked {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    assert!(InMessage::read(bad.into(), &limits).is_err(), "byte {at}, bit {bit}");
                }
            }
            for end in 0..good.len() {
                assert!(InMessage::read(good[..end].to_vec().into(), &limits).is_err());
            }
            let longer = [&good[..], b"x"].concat();
            assert!(InMessage::read(longer.into(), &limits).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_told_with_both_numbers() {
        let limits = FrameLimits { control_bytes_max: 0, data_bytes_max: 1000, bulk_bytes_max: 0 };
        let sent = whole(&OutMessage::of_frame(1, 1, frame(2000)));
        let words = InMessage::read(sent.clone(), &limits).unwrap_err();
        assert!(words.contains(&sent.len().to_string()) && words.contains("1024"), "{words}");
    }
}
