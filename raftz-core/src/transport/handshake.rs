//! Who is there: the first bytes on every link, and the verdict on them. Pure; nothing else of a
//! connection is read before the verdict is known.
//!
//! The dialling side sends [`HandshakeMessage::Hello`]; the listening side judges it and answers
//! `Welcome`, with its own identity, or `Reject`, with a stable code and words. The dialling side
//! judges the welcome by the same rules and ends with `Confirm`, behind which its frames may
//! follow at once, or with a `Reject` of its own. So either side learns by name why the other
//! does not want it, and a link is up only where both agree.
//!
//! ```text
//! byte 0         4       5     6          8
//!      +---------+-------+-----+----------+------------+------
//!      | "RFHS"  | kind  | 0   | length 2 | crc32c 4   | body
//!      +---------+-------+-----+----------+------------+------
//! body of hello and welcome
//!   0  version min 2 | version max 2 | chosen version 2 (0 in hello) | role 1 | 0 1
//!   8  features 8 | level min 4 | level max 4
//!  24  cluster 16 | epoch 8 | from 8 | to 8 | disk id 16 | boot 8 | instance 8
//!  96  founders hash 8 | largest frame 4 | address length 2 | address
//! body of confirm: empty
//! body of reject
//!   0  code 2 | words length 2 | words | known disk id 16, where the code is of the disk
//! ```
//! All numbers are little-endian. This layout is frozen apart from fields appended at the end of a
//! body, which an older reader skips: a node of any version must be able to say why it refuses.

mod verdict;

use bytes::{Buf, BufMut};

pub use verdict::{Accepted, Known, Refused, judge, keeps_new};

use crate::types::{Boot, ClusterId, DiskId, FEATURE_LEVEL, NodeId};

/// Largest handshake message that is sent or accepted, header included.
pub const HANDSHAKE_BYTES_MAX: usize = 1024;
/// Bytes before a handshake message's body.
pub const HANDSHAKE_HEADER_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"RFHS";
const CRC_AT: usize = 8;
/// Fixed bytes of an identity's body, before the address.
const IDENTITY_BYTES: usize = 110;
/// Longest address or refusal that is sent; longer ones are cut.
const TEXT_BYTES_MAX: usize = 512;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member or a newcomer: consensus.
    Peer,
    /// Reads and writes from outside.
    Client,
    /// Administration from outside.
    Admin,
    /// A member's or newcomer's bulk frames, beside a link of the same life. Only said to nodes with
    /// [`Identity::BULK_CONNECTIONS`]: older ones do not know the role.
    Bulk,
}

impl Role {
    const fn to_u8(self) -> u8 {
        match self {
            Self::Peer => 0,
            Self::Client => 1,
            Self::Admin => 2,
            Self::Bulk => 3,
        }
    }

    const fn from_u8(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Peer),
            1 => Some(Self::Client),
            2 => Some(Self::Admin),
            3 => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Lowest frame version that it speaks.
    pub version_min: u16,
    /// Highest frame version that it speaks.
    pub version_max: u16,
    /// Optional abilities, one bit each; see [`Identity::BULK_CONNECTIONS`].
    pub features: u64,
    /// Lowest feature level of a log that it can follow.
    pub level_min: u32,
    /// Highest feature level of a log that it can follow.
    pub level_max: u32,
    /// What the connection is for.
    pub role: Role,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its cluster's epoch.
    pub epoch: u64,
    /// Its id; a client has none.
    pub from: Option<NodeId>,
    /// Whom it means to talk to; a client need not know.
    pub to: Option<NodeId>,
    /// Its data directory.
    pub disk: DiskId,
    /// Its life.
    pub boot: Boot,
    /// Drawn at random when the transport was made; tells two processes apart that run on copies
    /// of one directory.
    pub instance: u64,
    /// Hash of the founding membership, 0 if it joined later.
    pub founders_hash: u64,
    /// Largest frame that it accepts.
    pub frame_bytes_max: u32,
    /// Where it listens, `host:port`, or empty.
    pub address: String,
}

impl Identity {
    /// The feature of taking bulk frames on connections of their own.
    pub const BULK_CONNECTIONS: u64 = 1;

    /// A peer of this version, not yet talking to anybody in particular.
    pub const fn peer(
        cluster: ClusterId,
        epoch: u64,
        node: NodeId,
        disk: DiskId,
        boot: Boot,
        founders_hash: u64,
    ) -> Self {
        Self {
            version_min: super::frame::FRAME_VERSION,
            version_max: super::frame::FRAME_VERSION,
            features: 0,
            level_min: 1,
            level_max: FEATURE_LEVEL,
            role: Role::Peer,
            cluster,
            epoch,
            from: Some(node),
            to: None,
            disk,
            boot,
            instance: 0,
            founders_hash,
            frame_bytes_max: 0,
            address: String::new(),
        }
    }

    /// The same identity, addressed to `to`.
    #[must_use]
    pub fn addressed_to(&self, to: Option<NodeId>) -> Self {
        Self { to, ..self.clone() }
    }
}

/// The first messages of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeMessage {
    /// From the side that dialled.
    Hello(Identity),
    /// Accepted.
    Welcome {
        /// The frame version to speak from here on.
        version: u16,
        /// Who accepted.
        identity: Identity,
    },
    /// Refused; the link is closed after it.
    Reject(Reject),
    /// The dialling side accepts the welcome.
    Confirm,
}

/// A refusal: a stable code and words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words} (code {code})")]
pub struct Reject {
    /// One of the constants here; a later version may send others.
    pub code: u16,
    /// What is wrong and what to do, in printable text; see [`Refused`] for what it leaves out.
    pub words: String,
    /// With [`Reject::WRONG_DISK`]: the data directory by which the refusing node knows the other.
    pub known_disk: Option<DiskId>,
}

impl Reject {
    /// The two are of different clusters.
    pub const WRONG_CLUSTER: u16 = 1;
    /// The two are of different epochs of one cluster.
    pub const WRONG_EPOCH: u16 = 2;
    /// Somebody else was meant.
    pub const NOT_ME: u16 = 3;
    /// The membership knows this node by another data directory: the dialling node was wiped, or
    /// runs on the wrong directory.
    pub const WRONG_DISK: u16 = 4;
    /// The founders were started with different lists of members.
    pub const FOUNDERS_DIFFER: u16 = 5;
    /// No common frame version.
    pub const NO_COMMON_VERSION: u16 = 6;
    /// A node reached itself.
    pub const SELF_CONNECTION: u16 = 7;
    /// Another live process uses this id.
    pub const ID_IN_USE: u16 = 8;
    /// A later life of this node is connected.
    pub const STALE_BOOT: u16 = 9;
    /// Connections for this role are not served.
    pub const ROLE_NOT_SERVED: u16 = 10;
    /// The hello itself is wrong.
    pub const MALFORMED: u16 = 11;
    /// No place is left for another node outside the membership; it may try again later.
    pub const NO_PLACE: u16 = 12;
    /// A bulk connection comes from a node that has no link here in the same life; it may try again
    /// later.
    pub const NO_LINK: u16 = 13;
}

/// Why bytes are not a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Another magic.
    #[error("not a raftz node: the connection starts with {found:02x?}, not with \"RFHS\"")]
    BadMagic {
        /// What came instead.
        found: [u8; 4],
    },
    /// Longer than any handshake message.
    #[error("handshake message of {bytes} bytes exceeds {HANDSHAKE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Garbled.
    #[error("handshake message does not match its checksum")]
    BadCrc,
    /// A kind that does not exist.
    #[error("handshake message of unknown kind {found}")]
    BadKind {
        /// The kind.
        found: u8,
    },
    /// The body is too short for its kind.
    #[error("handshake message is cut short")]
    Short,
    /// A field holds a value without meaning.
    #[error("handshake field {field} holds a value without meaning")]
    BadField {
        /// Which one.
        field: &'static str,
    },
}

impl HandshakeMessage {
    /// The message as bytes, at most [`HANDSHAKE_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.put_slice(&MAGIC);
        out.put_u8(match self {
            Self::Hello(_) => 1,
            Self::Welcome { .. } => 2,
            Self::Reject(_) => 3,
            Self::Confirm => 4,
        });
        out.put_u8(0);
        out.put_u16_le(0);
        out.put_u32_le(0);
        match self {
            Self::Hello(identity) => put_identity(identity, 0, &mut out),
            Self::Welcome { version, identity } => put_identity(identity, *version, &mut out),
            Self::Reject(reject) => {
                out.put_u16_le(reject.code);
                put_text(&reject.words, &mut out);
                // Appended after the first version: left out where there is nothing to say.
                if let Some(disk) = reject.known_disk {
                    out.put_u128_le(disk.0);
                }
            }
            Self::Confirm => {}
        }
        let length = (out.len() - HANDSHAKE_HEADER_BYTES) as u16;
        out[6..8].copy_from_slice(&length.to_le_bytes());
        let crc = message_crc(&out);
        out[CRC_AT..HANDSHAKE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the message at the front of `bytes`: it and the bytes that it took, or `None` if it
    /// has not arrived whole.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HandshakeError> {
        // Judged as early as possible, so that a stranger is told from the first bytes.
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            let mut found = [0; 4];
            found[..seen].copy_from_slice(&bytes[..seen]);
            return Err(HandshakeError::BadMagic { found });
        }
        if bytes.len() < HANDSHAKE_HEADER_BYTES {
            return Ok(None);
        }
        let mut at = &bytes[MAGIC.len()..];
        let kind = at.get_u8();
        if at.get_u8() != 0 {
            return Err(HandshakeError::BadField { field: "reserved" });
        }
        let whole = HANDSHAKE_HEADER_BYTES + usize::from(at.get_u16_le());
        if whole > HANDSHAKE_BYTES_MAX {
            return Err(HandshakeError::TooLarge { bytes: whole });
        }
        let Some(message) = bytes.get(..whole) else { return Ok(None) };
        if at.get_u32_le() != message_crc(message) {
            return Err(HandshakeError::BadCrc);
        }
        let body = &message[HANDSHAKE_HEADER_BYTES..];
        let message = match kind {
            1 => Self::Hello(get_identity(body)?.1),
            2 => {
                let (version, identity) = get_identity(body)?;
                Self::Welcome { version, identity }
            }
            3 => {
                let mut at = body;
                let code = at.try_get_u16_le().map_err(|_| HandshakeError::Short)?;
                let words = printable(&get_text(&mut at, "words")?);
                let known_disk = at.try_get_u128_le().ok().map(DiskId);
                Self::Reject(Reject { code, words, known_disk })
            }
            4 => Self::Confirm,
            found => return Err(HandshakeError::BadKind { found }),
        };
        Ok(Some((message, whole)))
    }
}

fn message_crc(message: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&message[..CRC_AT]);
    crc32c::crc32c_append(crc, &message[HANDSHAKE_HEADER_BYTES..])
}

fn put_identity(identity: &Identity, chosen: u16, out: &mut Vec<u8>) {
    out.put_u16_le(identity.version_min);
    out.put_u16_le(identity.version_max);
    out.put_u16_le(chosen);
    out.put_u8(identity.role.to_u8());
    out.put_u8(0);
    out.put_u64_le(identity.features);
    out.put_u32_le(identity.level_min);
    out.put_u32_le(identity.level_max);
    out.put_u128_le(identity.cluster.0);
    out.put_u64_le(identity.epoch);
    out.put_u64_le(identity.from.map_or(0, NodeId::get));
    out.put_u64_le(identity.to.map_or(0, NodeId::get));
    out.put_u128_le(identity.disk.0);
    out.put_u64_le(identity.boot.0);
    out.put_u64_le(identity.instance);
    out.put_u64_le(identity.founders_hash);
    out.put_u32_le(identity.frame_bytes_max);
    put_text(&identity.address, out);
}

fn get_identity(body: &[u8]) -> Result<(u16, Identity), HandshakeError> {
    if body.len() < IDENTITY_BYTES {
        return Err(HandshakeError::Short);
    }
    let mut at = body;
    let version_min = at.get_u16_le();
    let version_max = at.get_u16_le();
    let chosen = at.get_u16_le();
    let role = Role::from_u8(at.get_u8()).ok_or(HandshakeError::BadField { field: "role" })?;
    at.advance(1);
    let identity = Identity {
        version_min,
        version_max,
        role,
        features: at.get_u64_le(),
        level_min: at.get_u32_le(),
        level_max: at.get_u32_le(),
        cluster: ClusterId(at.get_u128_le()),
        epoch: at.get_u64_le(),
        from: NodeId::new(at.get_u64_le()),
        to: NodeId::new(at.get_u64_le()),
        disk: DiskId(at.get_u128_le()),
        boot: Boot(at.get_u64_le()),
        instance: at.get_u64_le(),
        founders_hash: at.get_u64_le(),
        frame_bytes_max: at.get_u32_le(),
        address: get_text(&mut at, "address")?,
    };
    Ok((chosen, identity))
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16_le(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn get_text(at: &mut &[u8], field: &'static str) -> Result<String, HandshakeError> {
    let length = at.try_get_u16_le().map_err(|_| HandshakeError::Short)?;
    let (text, rest) = at.split_at_checked(usize::from(length)).ok_or(HandshakeError::Short)?;
    *at = rest;
    String::from_utf8(text.to_vec()).map_err(|_| HandshakeError::BadField { field })
}

/// What a stranger may put into a log: at most what would have been sent to it, and nothing that
/// could begin a new line, move a terminal's cursor or change the direction of writing.
fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    let mut clean = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for c in text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }) {
        if clean.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn words_from_outside_stay_on_their_line_and_within_their_bound() {
        let words = format!("no\n\r\t\u{1b}[2J\u{202e}\u{2028}\0yes é{}", "ß".repeat(200));
        let reject = Reject { code: 1, words, known_disk: Some(DiskId(7)) };
        let mut bytes = HandshakeMessage::Reject(reject).encode();
        // Longer words than this version sends, as a stranger may: 900 bytes of line ends.
        for long in [false, true] {
            if long {
                bytes.truncate(HANDSHAKE_HEADER_BYTES);
                bytes.put_u16_le(1);
                bytes.put_u16_le(900);
                bytes.resize(HANDSHAKE_HEADER_BYTES + 4 + 900, b'\n');
                bytes[6..8].copy_from_slice(&904u16.to_le_bytes());
                let crc = message_crc(&bytes);
                bytes[CRC_AT..HANDSHAKE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            let decoded = HandshakeMessage::decode(&bytes).unwrap();
            let Some((HandshakeMessage::Reject(reject), _)) = decoded else {
                panic!("{decoded:?}")
            };
            assert!(!reject.words.chars().any(char::is_control), "{:?}", reject.words);
            assert!(reject.words.len() <= TEXT_BYTES_MAX);
            if !long {
                assert!(reject.words.contains("yes éß") && !reject.words.contains('\u{202e}'));
                assert_eq!(reject.known_disk, Some(DiskId(7)));
            }
        }
    }
}
