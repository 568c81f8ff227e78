//! The frame: a fixed header, metadata, payloads. This module finds frames in arriving bytes and
//! knows nothing of sockets or of what a frame says.
//!
//! ```text
//! byte 0        4         6      8       10     11        12
//!      +--------+---------+------+-------+------+---------+
//!      | "RFTZ" | version | kind | flags | class| 0       |
//!      +--------+---------+------+-------+------+---------+
//!      | group (12..16) | length (16..20) | metadata (20..24)
//!      +--------------------------------------------------+
//!      | header crc32c (24..28) | crc32c (28..32)         |
//!      +--------------------------------------------------+
//!      | metadata ... | payloads ...                      |
//! ```
//! All numbers are little-endian. `length` counts what follows the header; the first `metadata`
//! bytes of it are metadata. The header's own checksum covers bytes 0..24, so that no length is
//! believed before it is known to be right: a reader that waits for the rest of a frame which nobody
//! sends takes everything that follows for it, and its link looks alive and is deaf. The frame's
//! checksum covers bytes 0..28 and the metadata; payloads carry checksums of their own, so that a
//! large one is summed only once.
//!
//! Invariants: a length is compared with its limit before anything is allocated for it, and a
//! buffer grows only as bytes arrive, so a lying header costs its sender as many bytes as it costs
//! the receiver.

use bytes::{Buf, BufMut, Bytes};

use super::{Class, InFrame};
use crate::types::GroupId;

/// Bytes of the fixed header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// The version of the frame and message format that this code speaks.
pub const FRAME_VERSION: u16 = 1;
/// The first four bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"RFTZ";

/// Bytes up to which a buffer for one large frame is reserved ahead of their arrival.
const GROWTH_BYTES: usize = 64 << 10;
const HEADER_CRC_AT: usize = 24;
const CRC_AT: usize = 28;

/// Largest frame of each class that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Control frames, header included.
    pub control_bytes_max: usize,
    /// Data frames, header included.
    pub data_bytes_max: usize,
    /// Bulk frames, header included.
    pub bulk_bytes_max: usize,
}

impl Default for FrameLimits {
    /// 1 MiB of control, 32 MiB of data (the largest entry of a cluster is 4 MiB by default, and a
    /// batch may hold several), 4 MiB of bulk, which comes in bounded chunks.
    fn default() -> Self {
        Self { control_bytes_max: 1 << 20, data_bytes_max: 32 << 20, bulk_bytes_max: 4 << 20 }
    }
}

impl FrameLimits {
    /// The limit of a class.
    pub const fn of(&self, class: Class) -> usize {
        match class {
            Class::Control => self.control_bytes_max,
            Class::Data => self.data_bytes_max,
            Class::Bulk => self.bulk_bytes_max,
        }
    }

    /// The largest frame of any class.
    pub fn largest(&self) -> usize {
        self.control_bytes_max.max(self.data_bytes_max).max(self.bulk_bytes_max)
    }
}

/// Why arriving bytes are not a frame. The stream has no next frame after any of these: the link
/// must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are others.
    #[error("not a raftz frame: it starts with {found:02x?}, not with \"RFTZ\"")]
    BadMagic {
        /// What came instead.
        found: [u8; 4],
    },
    /// A frame of another version.
    #[error("frame of version {found}, but this node speaks version {FRAME_VERSION}")]
    BadVersion {
        /// The frame's version.
        found: u16,
    },
    /// A class that does not exist.
    #[error("frame of unknown class {found}")]
    BadClass {
        /// The class.
        found: u8,
    },
    /// A flag or reserved field of a later version, which could change what the frame means.
    #[error("frame carries flags or reserved fields that version {FRAME_VERSION} does not know")]
    UnknownFlags,
    /// More bytes than its class allows.
    #[error("a {class:?} frame of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Its class.
        class: Class,
        /// Its size, header included.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More metadata than frame.
    #[error("frame claims {metadata} bytes of metadata in a body of {length}")]
    BadMetadataLength {
        /// Bytes of metadata.
        metadata: u32,
        /// Bytes after the header.
        length: u32,
    },
    /// The header was garbled on its way, or is not one.
    #[error("frame header checksum {found:08x} does not match the header ({computed:08x})")]
    BadHeaderCrc {
        /// What the header says.
        found: u32,
        /// What it should say.
        computed: u32,
    },
    /// The header or the metadata was garbled on its way.
    #[error("frame checksum {found:08x} does not match its header and metadata ({computed:08x})")]
    BadCrc {
        /// What the header says.
        found: u32,
        /// What it should say.
        computed: u32,
    },
}

/// The fixed header of a frame, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is; see `transport::codec` for the numbers.
    pub kind: u16,
    /// How urgent it is.
    pub class: Class,
    /// The group that it concerns.
    pub group: GroupId,
    /// Bytes after the header.
    pub length: u32,
    /// How many of them are metadata.
    pub metadata_length: u32,
    /// Checksum of header and metadata.
    pub crc: u32,
}

impl FrameHeader {
    /// Reads a header and checks it. The frame's checksum is only taken over, see
    /// [`FrameHeader::verify`].
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let mut at = &bytes[..];
        let mut magic = [0; 4];
        at.copy_to_slice(&mut magic);
        if magic != FRAME_MAGIC {
            return Err(FrameError::BadMagic { found: magic });
        }
        let version = at.get_u16_le();
        if version != FRAME_VERSION {
            return Err(FrameError::BadVersion { found: version });
        }
        // Everything beyond the version is laid out as this version has it.
        let computed = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        let found = (&bytes[HEADER_CRC_AT..CRC_AT]).get_u32_le();
        if found != computed {
            return Err(FrameError::BadHeaderCrc { found, computed });
        }
        let kind = at.get_u16_le();
        let flags = at.get_u16_le();
        let class = class_from_u8(at.get_u8())?;
        let reserved = at.get_u8();
        let group = GroupId(at.get_u32_le());
        let length = at.get_u32_le();
        let metadata_length = at.get_u32_le();
        at.advance(CRC_AT - HEADER_CRC_AT);
        let crc = at.get_u32_le();
        if flags != 0 || reserved != 0 {
            return Err(FrameError::UnknownFlags);
        }
        if metadata_length > length {
            return Err(FrameError::BadMetadataLength { metadata: metadata_length, length });
        }
        Ok(Self { kind, class, group, length, metadata_length, crc })
    }

    /// Header and body together.
    pub const fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.length as u64
    }

    /// Header and metadata together: what the checksum covers.
    const fn front_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.metadata_length as usize
    }

    /// Checks `front`, the frame's header and metadata, against the checksum.
    pub fn verify(&self, front: &[u8]) -> Result<(), FrameError> {
        let computed = front_crc(front);
        if computed == self.crc || bug!(FrameChecksumIsNotChecked) {
            Ok(())
        } else {
            Err(FrameError::BadCrc { found: self.crc, computed })
        }
    }

    fn checked(self, limits: &FrameLimits) -> Result<Self, FrameError> {
        let limit = limits.of(self.class) as u64;
        if self.frame_bytes() > limit {
            let bytes = self.frame_bytes();
            return Err(FrameError::TooLarge { class: self.class, bytes, limit });
        }
        Ok(self)
    }
}

/// CRC32C over a frame's front, leaving out the checksum field itself.
fn front_crc(front: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&front[..CRC_AT.min(front.len())]);
    crc32c::crc32c_append(crc, &front[FRAME_HEADER_BYTES.min(front.len())..])
}

const fn class_to_u8(class: Class) -> u8 {
    match class {
        Class::Control => 0,
        Class::Data => 1,
        Class::Bulk => 2,
    }
}

const fn class_from_u8(raw: u8) -> Result<Class, FrameError> {
    match raw {
        0 => Ok(Class::Control),
        1 => Ok(Class::Data),
        2 => Ok(Class::Bulk),
        found => Err(FrameError::BadClass { found }),
    }
}

/// Starts a frame: room for the header, to be filled in by [`seal`] when the metadata is known.
pub(super) fn begin(capacity: usize) -> Vec<u8> {
    let mut front = Vec::with_capacity(FRAME_HEADER_BYTES + capacity);
    front.resize(FRAME_HEADER_BYTES, 0);
    front
}

/// Writes the header of a frame whose front (header space and metadata) is complete and will be
/// followed by `payload_bytes` of payload.
///
/// A frame beyond 32-bit lengths cannot be said; its length saturates, which every receiver
/// refuses as too large. Intake limits keep real frames far below.
pub(super) fn seal(
    front: &mut [u8],
    kind: u16,
    class: Class,
    group: GroupId,
    payload_bytes: usize,
) {
    let metadata = front.len() - FRAME_HEADER_BYTES;
    let saturated = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut at = &mut front[..HEADER_CRC_AT];
    at.put_slice(&FRAME_MAGIC);
    at.put_u16_le(FRAME_VERSION);
    at.put_u16_le(kind);
    at.put_u16_le(0);
    at.put_u8(class_to_u8(class));
    at.put_u8(0);
    at.put_u32_le(group.0);
    at.put_u32_le(saturated(metadata.saturating_add(payload_bytes)));
    at.put_u32_le(saturated(metadata));
    write_checksums(front);
}

/// Writes both checksums of a front that is complete but for them.
fn write_checksums(front: &mut [u8]) {
    let header_crc = crc32c::crc32c(&front[..HEADER_CRC_AT]);
    front[HEADER_CRC_AT..CRC_AT].copy_from_slice(&header_crc.to_le_bytes());
    let crc = front_crc(front);
    front[CRC_AT..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Finds frames in a stream of bytes.
///
/// Bytes come in by [`FrameReader::push`], from whatever buffer the caller reads into; a frame
/// that lies whole in them is copied out once. Of a frame that does not, the rest may be read
/// straight into its own buffer, [`FrameReader::direct`], which later becomes the frame without
/// another copy.
#[derive(Debug)]
pub struct FrameReader {
    limits: FrameLimits,
    /// The front part of a frame that has not arrived whole.
    partial: Vec<u8>,
    /// Its header, once 32 bytes are there.
    header: Option<FrameHeader>,
    /// Whether its checksum was verified, which is done as soon as the metadata is there.
    verified: bool,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub const fn new(limits: FrameLimits) -> Self {
        Self { limits, partial: Vec::new(), header: None, verified: false }
    }

    /// Takes the next bytes of the stream and appends the frames that they complete to `out`.
    /// After an error the stream is lost.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<InFrame>) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>()
            {
                let header = FrameHeader::parse(header)?.checked(&self.limits)?;
                let frame_bytes = FRAME_HEADER_BYTES + header.length as usize;
                if let Some((frame, rest)) = bytes.split_at_checked(frame_bytes) {
                    header.verify(&frame[..header.front_bytes()])?;
                    out.push(InFrame { bytes: Bytes::copy_from_slice(frame) });
                    bytes = rest;
                    continue;
                }
            }
            let (take, rest) = bytes.split_at(self.missing().min(bytes.len()));
            self.grow(take.len());
            self.partial.extend_from_slice(take);
            bytes = rest;
            self.advance(out)?;
        }
        Ok(())
    }

    /// The buffer of a frame that is still to arrive in part, if it is worth reading into
    /// directly: append to it what arrives, at best no more than its spare capacity, then call
    /// [`FrameReader::direct_done`].
    pub fn direct(&mut self) -> Option<&mut Vec<u8>> {
        self.header?;
        let missing = self.missing();
        if missing < GROWTH_BYTES / 4 {
            return None;
        }
        self.grow(missing.min(GROWTH_BYTES));
        Some(&mut self.partial)
    }

    /// Takes notice of what was appended to [`FrameReader::direct`].
    pub fn direct_done(&mut self, out: &mut Vec<InFrame>) -> Result<(), FrameError> {
        let Some(header) = self.header else { return Ok(()) };
        let frame_bytes = FRAME_HEADER_BYTES + header.length as usize;
        // An allocator may give more room than asked for, and the room may have been filled.
        let surplus = if self.partial.len() > frame_bytes {
            self.partial.split_off(frame_bytes)
        } else {
            Vec::new()
        };
        self.advance(out)?;
        self.push(&surplus, out)
    }

    /// Bytes held for a frame that has not arrived whole.
    pub fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether the stream stands in the middle of a frame.
    pub fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes that the present part (header, then the rest) still needs.
    fn missing(&self) -> usize {
        let whole = match self.header {
            None => FRAME_HEADER_BYTES,
            Some(header) => FRAME_HEADER_BYTES + header.length as usize,
        };
        whole.saturating_sub(self.partial.len())
    }

    /// Makes room for `arriving` bytes, doubling, but never beyond the frame.
    fn grow(&mut self, arriving: usize) {
        let spare = self.partial.capacity() - self.partial.len();
        if spare < arriving {
            let room = arriving.max(self.partial.len()).min(self.missing().max(arriving));
            self.partial.reserve_exact(room);
        }
    }

    fn advance(&mut self, out: &mut Vec<InFrame>) -> Result<(), FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.partial.first_chunk::<FRAME_HEADER_BYTES>() else {
                    return Ok(());
                };
                let header = FrameHeader::parse(bytes)?.checked(&self.limits)?;
                self.header = Some(header);
                header
            }
        };
        if !self.verified
            && let Some(front) = self.partial.get(..header.front_bytes())
        {
            header.verify(front)?;
            self.verified = true;
        }
        if self.partial.len() == FRAME_HEADER_BYTES + header.length as usize {
            out.push(InFrame { bytes: Bytes::from(std::mem::take(&mut self.partial)) });
            self.header = None;
            self.verified = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn frame(class: Class, metadata: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut front = begin(metadata.len());
        front.extend_from_slice(metadata);
        seal(&mut front, 7, class, GroupId(1), payload.len());
        front.extend_from_slice(payload);
        front
    }

    /// The same frame with another length, and with checksums that say so.
    fn with_length(mut frame: Vec<u8>, length: u32) -> Vec<u8> {
        frame[16..20].copy_from_slice(&length.to_le_bytes());
        write_checksums(&mut frame);
        frame
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut reader = FrameReader::new(FrameLimits::default());
        let mut out = Vec::new();
        for part in bytes.chunks(piece) {
            reader.push(part, &mut out)?;
        }
        assert!(!reader.is_mid_frame());
        Ok(out.into_iter().map(|frame| frame.bytes.to_vec()).collect())
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let frames = [
            frame(Class::Control, b"", b""),
            frame(Class::Data, b"metadata", &vec![5; 3000]),
            frame(Class::Control, &[1; 100], b""),
            frame(Class::Data, b"m", &[6; 200]),
        ];
        let stream = frames.concat();
        for piece in (1..70).chain([1000, 3000, 10_000]) {
            assert_eq!(read_in_pieces(&stream, piece).unwrap(), frames);
        }
    }

    #[test]
    fn a_large_frame_is_read_straight_into_its_own_buffer() {
        let large = frame(Class::Data, b"m", &vec![9; 3 << 20]);
        let stream = [large.clone(), frame(Class::Control, b"next", b"")].concat();
        let mut reader = FrameReader::new(FrameLimits::default());
        let mut out = Vec::new();
        let (first, mut rest) = stream.split_at(1000);
        reader.push(first, &mut out).unwrap();
        while !rest.is_empty() {
            let taken = match reader.direct() {
                Some(buffer) => {
                    let take = (buffer.capacity() - buffer.len()).min(rest.len());
                    buffer.extend_from_slice(&rest[..take]);
                    reader.direct_done(&mut out).unwrap();
                    take
                }
                None => {
                    let take = rest.len().min(100);
                    reader.push(&rest[..take], &mut out).unwrap();
                    take
                }
            };
            rest = &rest[taken..];
        }
        assert_eq!(out.len(), 2);
        assert_eq!(out[0].bytes, large);
    }

    #[test]
    fn surplus_read_into_a_large_frames_buffer_is_not_lost() {
        let large = frame(Class::Data, b"m", &vec![9; 200_000]);
        let next = frame(Class::Control, b"next", b"");
        let mut reader = FrameReader::new(FrameLimits::default());
        let mut out = Vec::new();
        reader.push(&large[..50], &mut out).unwrap();
        let buffer = reader.direct().unwrap();
        buffer.extend_from_slice(&large[50..]);
        buffer.extend_from_slice(&next);
        reader.direct_done(&mut out).unwrap();
        let bytes: Vec<_> = out.iter().map(|frame| frame.bytes.to_vec()).collect();
        assert_eq!(bytes, [large, next]);
    }

    #[test]
    fn an_oversized_length_is_refused_before_anything_is_allocated() {
        let header = with_length(frame(Class::Control, b"", b""), u32::MAX);
        for piece in [1, 32] {
            let mut reader = FrameReader::new(FrameLimits::default());
            let mut result = Ok(());
            for part in header.chunks(piece) {
                result = result.and_then(|()| reader.push(part, &mut Vec::new()));
            }
            assert!(matches!(result, Err(FrameError::TooLarge { .. })), "{result:?}");
            assert!(reader.held_bytes() < 100);
        }
    }

    #[test]
    fn a_lying_length_within_the_limit_costs_only_what_arrives() {
        let length = (FrameLimits::default().data_bytes_max - FRAME_HEADER_BYTES) as u32;
        let header = with_length(frame(Class::Data, b"", b""), length);
        let mut reader = FrameReader::new(FrameLimits::default());
        reader.push(&header, &mut Vec::new()).unwrap();
        reader.push(&[0; 100], &mut Vec::new()).unwrap();
        assert!(reader.direct().is_some());
        assert!(reader.held_bytes() <= 2 * GROWTH_BYTES, "{}", reader.held_bytes());
    }

    #[test]
    fn a_newer_version_is_refused_naming_both_versions() {
        let mut bytes = frame(Class::Control, b"", b"");
        bytes[4] = 9;
        let error = read_in_pieces(&bytes, 1000).unwrap_err();
        assert_eq!(error, FrameError::BadVersion { found: 9 });
        let words = error.to_string();
        assert!(words.contains("version 9") && words.contains("version 1"), "{words}");
    }

    /// A garbled length must not make the reader wait for bytes that nobody sends, while all that
    /// come are taken for the rest of one frame: the link would look alive and be deaf.
    #[test]
    fn a_flipped_bit_of_a_header_is_found_out_before_anything_else_arrives() {
        let good = frame(Class::Data, b"some metadata", &[7; 100]);
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            // The last field is the checksum of what is still to come.
            if bit / 8 >= CRC_AT {
                continue;
            }
            let mut header = good[..FRAME_HEADER_BYTES].to_vec();
            header[bit / 8] ^= 1 << (bit % 8);
            let mut reader = FrameReader::new(FrameLimits::default());
            assert!(reader.push(&header, &mut Vec::new()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_header_and_metadata_is_an_error() {
        let good = frame(Class::Data, b"some metadata", b"");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut reader = FrameReader::new(FrameLimits::default());
            let mut out = Vec::new();
            assert!(reader.push(&bytes, &mut out).is_err(), "bit {bit}");
            assert!(out.is_empty(), "bit {bit}");
        }
    }
}
