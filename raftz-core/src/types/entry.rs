//! The log entry and the one byte layout of its header, shared by the wire and the log.
//!
//! The payload's CRC32C is computed once, where the payload enters the library, and carried
//! unchanged through every frame and every batch on disk.
//!
//! ```text
//! byte 0        2      3      4            8          16          24          32
//!      +--------+------+------+------------+-----------+-----------+-----------+
//!      | length | kind | flags| group      | term      | index     | log time  |
//!      +--------+------+------+------------+-----------+-----------+-----------+
//!      | payload length (32..36) | payload crc32c (36..40)                      |
//!      +------------------------------------------------------------------------+
//!      | session (8) | sequence (8) | acked below (8)      only with flag 1     |
//!      +------------------------------------------------------------------------+
//! ```
//! `length` counts the header alone; a reader takes the fields that it knows and skips the rest.
//! All numbers are little-endian.

use bytes::{Buf, BufMut, Bytes};

use super::{GroupId, Index, LogId, Term};

/// What an entry means to the nodes that apply it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Appended by a new leader; carries nothing.
    Noop,
    /// A command for the state machine.
    Command,
    /// A new [`Membership`](super::Membership), in force from the moment it is appended.
    Membership,
    /// New [`Settings`](super::Settings), in force from the moment it is applied.
    Settings,
    /// A kind of a later feature level. A node stops before it applies one.
    Unknown(u8),
}

impl EntryKind {
    /// The number in the entry header.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Noop => 0,
            Self::Command => 1,
            Self::Membership => 2,
            Self::Settings => 3,
            Self::Unknown(raw) => raw,
        }
    }

    /// The kind behind a number in an entry header.
    pub const fn from_u8(raw: u8) -> Self {
        match raw {
            0 => Self::Noop,
            1 => Self::Command,
            2 => Self::Membership,
            3 => Self::Settings,
            other => Self::Unknown(other),
        }
    }
}

/// Bytes with the checksum that was computed when they entered the library.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    crc: u32,
}

impl Payload {
    /// Takes bytes in and computes their checksum.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let crc = crc32c::crc32c(&bytes);
        Self { bytes, crc }
    }

    /// No bytes.
    pub const fn empty() -> Self {
        Self { bytes: Bytes::new(), crc: 0 }
    }

    /// Bytes that came with their checksum, or `None` if they do not match it.
    pub fn verified(bytes: Bytes, crc: u32) -> Option<Self> {
        let holds = crc32c::crc32c(&bytes) == crc || bug!(PayloadChecksumIsNotChecked);
        holds.then_some(Self { bytes, crc })
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their CRC32C.
    pub const fn crc(&self) -> u32 {
        self.crc
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}

/// The mark of a client session on a command, so that a retry is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTag {
    /// Index of the entry that opened the session.
    pub session: u64,
    /// The client's own number of this command, from 1.
    pub sequence: u64,
    /// The client has seen the replies of all commands below this number.
    pub acked_below: u64,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term in which a leader first appended it.
    pub term: Term,
    /// Its position.
    pub index: Index,
    /// The leader's log time when it was appended, in microseconds; never decreases along the log.
    pub log_time_us: u64,
    /// What it means.
    pub kind: EntryKind,
    /// The client session it belongs to, if any.
    pub session: Option<SessionTag>,
    /// Its content.
    pub payload: Payload,
}

/// Bytes of an entry header without session.
pub const ENTRY_HEADER_BYTES: usize = 40;
/// Bytes of an entry header with session.
pub const ENTRY_HEADER_SESSION_BYTES: usize = 64;
const FLAG_SESSION: u8 = 1;

/// A decoded entry header: everything but the payload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Bytes of this header as written, so that a reader can skip fields it does not know.
    pub header_bytes: usize,
    /// The group whose log it belongs to.
    pub group: GroupId,
    /// Term.
    pub term: Term,
    /// Index.
    pub index: Index,
    /// Log time in microseconds.
    pub log_time_us: u64,
    /// Kind.
    pub kind: EntryKind,
    /// Session mark.
    pub session: Option<SessionTag>,
    /// Length of the payload that belongs to it.
    pub payload_bytes: u32,
    /// CRC32C of that payload.
    pub payload_crc: u32,
}

/// Why bytes are not an entry header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryHeaderError {
    /// Fewer bytes than the header claims.
    #[error("entry header is cut short")]
    Short,
    /// A length below the fixed part, or too small for its flags.
    #[error("entry header claims an impossible length")]
    BadLength,
    /// A flag of a later version: its meaning could change the entry's.
    #[error("entry header carries an unknown flag")]
    UnknownFlag,
}

impl Entry {
    /// The entry's identity.
    pub const fn id(&self) -> LogId {
        LogId::new(self.term, self.index)
    }

    /// Bytes that the header will take.
    pub const fn header_bytes(&self) -> usize {
        if self.session.is_some() { ENTRY_HEADER_SESSION_BYTES } else { ENTRY_HEADER_BYTES }
    }

    /// Header and payload together: what the entry costs in a frame, a batch or a queue.
    pub fn cost_bytes(&self) -> u64 {
        (self.header_bytes() + self.payload.len()) as u64
    }

    /// Appends the header to `out`.
    ///
    /// The payload's length must fit 32 bits; intake enforces a far lower limit.
    pub fn encode_header(&self, group: GroupId, out: &mut impl BufMut) {
        // Put together first, so that `out` grows once.
        let mut header = [0; ENTRY_HEADER_SESSION_BYTES];
        let mut at = &mut header[..];
        at.put_u16_le(self.header_bytes() as u16);
        at.put_u8(self.kind.to_u8());
        at.put_u8(if self.session.is_some() { FLAG_SESSION } else { 0 });
        at.put_u32_le(group.0);
        at.put_u64_le(self.term.0);
        at.put_u64_le(self.index.0);
        at.put_u64_le(self.log_time_us);
        at.put_u32_le(self.payload.len() as u32);
        at.put_u32_le(self.payload.crc());
        if let Some(tag) = self.session {
            at.put_u64_le(tag.session);
            at.put_u64_le(tag.sequence);
            at.put_u64_le(tag.acked_below);
        }
        out.put_slice(&header[..self.header_bytes()]);
    }
}

impl EntryHeader {
    /// Reads the header at the front of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryHeaderError> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(EntryHeaderError::Short);
        }
        let mut at = bytes;
        let header_bytes = usize::from(at.get_u16_le());
        let kind = EntryKind::from_u8(at.get_u8());
        let flags = at.get_u8();
        if flags & !FLAG_SESSION != 0 {
            return Err(EntryHeaderError::UnknownFlag);
        }
        let with_session = flags & FLAG_SESSION != 0;
        let least = if with_session { ENTRY_HEADER_SESSION_BYTES } else { ENTRY_HEADER_BYTES };
        if header_bytes < least {
            return Err(EntryHeaderError::BadLength);
        }
        if bytes.len() < header_bytes {
            return Err(EntryHeaderError::Short);
        }
        let group = GroupId(at.get_u32_le());
        let term = Term(at.get_u64_le());
        let index = Index(at.get_u64_le());
        let log_time_us = at.get_u64_le();
        let payload_bytes = at.get_u32_le();
        let payload_crc = at.get_u32_le();
        let session = with_session.then(|| SessionTag {
            session: at.get_u64_le(),
            sequence: at.get_u64_le(),
            acked_below: at.get_u64_le(),
        });
        Ok(Self {
            header_bytes,
            group,
            term,
            index,
            log_time_us,
            kind,
            session,
            payload_bytes,
            payload_crc,
        })
    }

    /// The entry, if `payload` is the one that the header describes.
    pub fn with_payload(self, payload: Bytes) -> Option<Entry> {
        if payload.len() != self.payload_bytes as usize {
            return None;
        }
        Some(Entry {
            term: self.term,
            index: self.index,
            log_time_us: self.log_time_us,
            kind: self.kind,
            session: self.session,
            payload: Payload::verified(payload, self.payload_crc)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    fn entry(session: Option<SessionTag>) -> Entry {
        Entry {
            term: Term(3),
            index: Index(9),
            log_time_us: 77,
            kind: EntryKind::Command,
            session,
            payload: Payload::new(&b"hello"[..]),
        }
    }

    #[test]
    fn header_round_trips_with_and_without_session() {
        let tag = SessionTag { session: 4, sequence: 5, acked_below: 6 };
        for session in [None, Some(tag)] {
            let entry = entry(session);
            let mut bytes = Vec::new();
            entry.encode_header(GroupId(1), &mut bytes);
            assert_eq!(bytes.len(), entry.header_bytes());
            let header = EntryHeader::decode(&bytes).expect("decodes");
            assert_eq!(header.with_payload(entry.payload.bytes().clone()), Some(entry));
        }
    }

    #[test]
    fn header_longer_than_known_is_read_and_its_surplus_counted() {
        let mut bytes = Vec::new();
        entry(None).encode_header(GroupId(1), &mut bytes);
        bytes.extend_from_slice(&[9; 8]);
        bytes[0] = 48;
        assert_eq!(EntryHeader::decode(&bytes).expect("decodes").header_bytes, 48);
    }

    #[test]
    fn bad_headers_are_errors() {
        let mut bytes = Vec::new();
        entry(None).encode_header(GroupId(1), &mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(EntryHeader::decode(&bytes[..len]), Err(EntryHeaderError::Short));
        }
        let mut short = bytes.clone();
        short[0] = 39;
        assert_eq!(EntryHeader::decode(&short), Err(EntryHeaderError::BadLength));
        let mut flagged = bytes.clone();
        flagged[3] = 2;
        assert_eq!(EntryHeader::decode(&flagged), Err(EntryHeaderError::UnknownFlag));
    }

    #[test]
    fn a_payload_that_does_not_match_its_checksum_is_no_entry() {
        let mut bytes = Vec::new();
        entry(None).encode_header(GroupId(1), &mut bytes);
        let header = EntryHeader::decode(&bytes).expect("decodes");
        assert_eq!(header.with_payload(Bytes::from_static(b"hellp")), None);
        assert_eq!(header.with_payload(Bytes::from_static(b"hell")), None);
    }
}
