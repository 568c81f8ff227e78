//! The bytes of a snapshot, as the module's page draws them. No IO.
//!
//! How long each chunk is follows from the length of the head and that of the file, so a length that
//! was garbled is found out before anything is read or allocated by it, and the place of any chunk
//! is known without reading those before it.

use std::path::Path;

use bytes::{Buf, BufMut};

use crate::storage::StorageError;
use crate::storage::wal::{corrupt, crc_holds, seal_crc};
use crate::types::encode::{METADATA_BYTES_MAX, decode, encode};
use crate::types::{Base, ClusterId, GroupId, Identity};

/// The newest format that this version reads, and the one that it writes.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Bytes of the machine in each data chunk but the last.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

const MAGIC: [u8; 8] = *b"rzsnap01";
const CRC_AT: usize = 8;
pub(super) const HEADER_BYTES: usize = 32;
const HEAD_FIXED_BYTES: usize = 40;
const HEAD_BYTES_MAX: u64 = (HEADER_BYTES + HEAD_FIXED_BYTES + METADATA_BYTES_MAX) as u64;
const FULL_BYTES: u64 = (HEADER_BYTES + CHUNK_BYTES) as u64;
pub(super) const END_BYTES: u64 = HEADER_BYTES as u64 + 16;
const BYTES_MIN: u64 = (HEADER_BYTES + HEAD_FIXED_BYTES) as u64 + END_BYTES;

/// Whose snapshots they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) epoch: u64,
}

impl From<&Identity> for Owner {
    fn from(identity: &Identity) -> Self {
        Self { cluster: identity.cluster, epoch: identity.epoch }
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whose snapshot it is, and its base. The first chunk.
    Head = 1,
    /// A part of the machine's bytes.
    Data = 2,
    /// How much there was. The last chunk.
    End = 3,
}

/// A chunk's place in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) at: u64,
    /// Its length, header included.
    pub(super) bytes: u64,
}

/// The places of all chunks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    head_bytes: u64,
    bytes: u64,
    data_chunks: u64,
    machine_bytes: u64,
}

impl Layout {
    /// The layout of a file of `bytes` whose head is so long; `None` if no such file exists.
    pub(super) fn new(head_bytes: u64, bytes: u64) -> Option<Self> {
        let data = bytes.checked_sub(head_bytes)?.checked_sub(END_BYTES)?;
        let data_chunks = data.div_ceil(FULL_BYTES);
        let last = data % FULL_BYTES;
        if last != 0 && last <= HEADER_BYTES as u64 {
            return None;
        }
        let machine_bytes = data - data_chunks * HEADER_BYTES as u64;
        Some(Self { head_bytes, bytes, data_chunks, machine_bytes })
    }

    /// The place of the chunk with this number; `None` behind the end.
    pub(super) fn place(&self, number: u64) -> Option<Place> {
        let end_at = self.bytes - END_BYTES;
        let (kind, at, bytes) = if number == 0 {
            (Kind::Head, 0, self.head_bytes)
        } else if number <= self.data_chunks {
            let at = self.head_bytes + (number - 1) * FULL_BYTES;
            (Kind::Data, at, FULL_BYTES.min(end_at - at))
        } else if number == self.data_chunks + 1 {
            (Kind::End, end_at, END_BYTES)
        } else {
            return None;
        };
        Some(Place { kind, number, at, bytes })
    }

    /// The number of the chunk that holds this byte.
    pub(super) const fn number_at(&self, offset: u64) -> u64 {
        if offset < self.head_bytes {
            0
        } else if offset < self.bytes - END_BYTES {
            1 + (offset - self.head_bytes) / FULL_BYTES
        } else {
            self.data_chunks + 1
        }
    }

    /// The number of the end.
    pub(super) const fn end(&self) -> u64 {
        self.data_chunks + 1
    }
}

/// Opens a chunk: whoever appends its content calls [`seal`] then.
pub(super) fn begin(kind: Kind, number: u64, out: &mut Vec<u8>) {
    out.clear();
    out.put_slice(&MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(kind as u32);
    out.put_u64_le(number);
    out.put_u64_le(0);
}

/// Completes a chunk.
pub(super) fn seal(chunk: &mut [u8]) {
    let length = (chunk.len() - HEADER_BYTES) as u64;
    chunk[24..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    seal_crc(chunk, CRC_AT);
}

/// The head of a snapshot. The error says, in words, why it has none.
pub(super) fn head(owner: Owner, group: GroupId, base: &Base) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    begin(Kind::Head, 0, &mut out);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u128_le(owner.cluster.0);
    out.put_u64_le(owner.epoch);
    out.put_u32_le(group.0);
    out.put_u32_le(0);
    out.extend(encode(base).map_err(|error| error.to_string())?);
    seal(&mut out);
    if out.len() as u64 > HEAD_BYTES_MAX || !base.id.index.is_sane() || !base.id.term.is_sane() {
        return Err(format!("no snapshot can stand at {}", base.id));
    }
    Ok(out)
}

/// The end of a snapshot.
pub(super) fn end(data_chunks: u64, machine_bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    begin(Kind::End, data_chunks + 1, &mut out);
    out.put_u64_le(data_chunks);
    out.put_u64_le(machine_bytes);
    seal(&mut out);
    out
}

/// The length of the head that begins with `header`, in a file of `bytes`.
pub(super) fn head_bytes(path: &Path, header: &[u8], bytes: u64) -> Result<u64, StorageError> {
    let length = check_header(path, header, Kind::Head, 0, 0)?;
    let head_bytes = length.saturating_add(HEADER_BYTES as u64);
    let least = (HEADER_BYTES + HEAD_FIXED_BYTES) as u64;
    if !(least..=HEAD_BYTES_MAX.min(bytes)).contains(&head_bytes) {
        let detail = format!("a head of {length} bytes in a snapshot of {bytes}");
        return Err(corrupt(path, 24, detail));
    }
    Ok(head_bytes)
}

/// Judges the header of the chunk in this place.
pub(super) fn check_place(path: &Path, header: &[u8], place: &Place) -> Result<(), StorageError> {
    let length = check_header(path, header, place.kind, place.number, place.at)?;
    let expected = place.bytes - HEADER_BYTES as u64;
    if length != expected {
        let detail = format!("the chunk says that it has {length} bytes instead of {expected}");
        return Err(corrupt(path, place.at, detail));
    }
    Ok(())
}

/// Judges a header; answers the length of the content that it states.
fn check_header(
    path: &Path,
    header: &[u8],
    kind: Kind,
    number: u64,
    at: u64,
) -> Result<u64, StorageError> {
    if header.len() < HEADER_BYTES || header[..8] != MAGIC {
        return Err(corrupt(path, at, "no chunk of a snapshot begins here"));
    }
    let mut fields = &header[12..];
    let (found, found_number) = (fields.get_u32_le(), fields.get_u64_le());
    if (found, found_number) != (kind as u32, number) {
        let detail = format!(
            "chunk {found_number} of kind {found} in the place of chunk {number} of kind {}",
            kind as u32
        );
        return Err(corrupt(path, at, detail));
    }
    Ok(fields.get_u64_le())
}

/// Judges a whole chunk in its place.
pub(super) fn check_chunk(path: &Path, chunk: &[u8], place: &Place) -> Result<(), StorageError> {
    check_place(path, chunk, place)?;
    if chunk.len() as u64 != place.bytes || !crc_holds(chunk, CRC_AT) {
        return Err(corrupt(path, place.at, "the checksum of this chunk does not hold"));
    }
    Ok(())
}

/// Judges a head whose length was: that of the file is the caller's to judge, because a later format may
/// lay out the rest in another way.
pub(super) fn check_head(path: &Path, chunk: &[u8]) -> Result<(), StorageError> {
    let bytes = chunk.len() as u64;
    check_chunk(path, chunk, &Place { kind: Kind::Head, number: 0, at: 0, bytes })
}

/// Reads a head whose checksum holds, and judges whose it is.
pub(super) fn read_head(
    path: &Path,
    chunk: &[u8],
    owner: Owner,
    group: GroupId,
) -> Result<Base, StorageError> {
    let mut at = &chunk[HEADER_BYTES..];
    let (version, reader_min) = (at.get_u32_le(), at.get_u32_le());
    if reader_min > FORMAT_VERSION {
        let (found, known) = (version, FORMAT_VERSION);
        return Err(StorageError::TooNew { path: path.to_path_buf(), found, known });
    }
    let found = Owner { cluster: ClusterId(at.get_u128_le()), epoch: at.get_u64_le() };
    let found_group = GroupId(at.get_u32_le());
    if (found, found_group) != (owner, group) {
        let words = |owner: Owner, group: GroupId| {
            format!("group {} of cluster {} in epoch {}", group.0, owner.cluster, owner.epoch)
        };
        return Err(StorageError::WrongOwner {
            path: path.to_path_buf(),
            found: words(found, found_group),
            wanted: words(owner, group),
        });
    }
    at.advance(4);
    let (base, _) = decode::<Base>(at)
        .map_err(|error| corrupt(path, 0, format!("the base cannot be read: {error}")))?;
    Ok(base)
}

/// Judges an end whose checksum holds.
pub(super) fn check_end(path: &Path, chunk: &[u8], layout: &Layout) -> Result<(), StorageError> {
    let mut at = &chunk[HEADER_BYTES..];
    let found = (at.get_u64_le(), at.get_u64_le());
    let expected = (layout.data_chunks, layout.machine_bytes);
    if found != expected {
        let detail = format!("the end counts (chunks, bytes) {found:?}, there are {expected:?}");
        return Err(corrupt(path, layout.bytes - END_BYTES, detail));
    }
    Ok(())
}

/// Refuses a length that no snapshot has.
pub(super) fn check_bytes(path: &Path, bytes: u64) -> Result<(), StorageError> {
    if (BYTES_MIN..=crate::types::SANE_MAX).contains(&bytes) {
        return Ok(());
    }
    Err(corrupt(path, 0, format!("no snapshot has {bytes} bytes")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::types::{Index, LogId, Term};

    #[test]
    fn a_snapshot_lies_as_it_is_drawn() {
        let owner = Owner { cluster: ClusterId(2), epoch: 3 };
        let base = Base { id: LogId::new(Term(5), Index(6)), ..Base::default() };
        let head = head(owner, GroupId(4), &base).unwrap();
        assert_eq!(&head[..8], b"rzsnap01");
        let length = head.len() - 32;
        assert_eq!(head[24..32], (length as u64).to_le_bytes());
        for (at, value) in [(12, 1), (16, 0), (32, 1), (36, 1), (40, 2), (56, 3), (64, 4), (68, 0)]
        {
            assert_eq!(head[at], value, "byte {at}");
        }
        assert_eq!(decode::<Base>(&head[72..]).unwrap(), (base, head.len() - 72));
        let end = end(7, 8);
        assert_eq!(end.len() as u64, END_BYTES);
        for (at, value) in [(12, 3), (16, 8), (24, 16), (32, 7), (40, 8)] {
            assert_eq!(end[at], value, "byte {at} of the end");
        }
        for chunk in [&head, &end] {
            let mut blank = chunk.clone();
            blank[8..12].fill(0);
            assert_eq!(chunk[8..12], crc32c::crc32c(&blank).to_le_bytes());
        }
    }

    #[test]
    fn the_place_of_every_chunk_follows_from_two_lengths() {
        let head = 100;
        for machine_bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]
        {
            let chunks = machine_bytes.div_ceil(CHUNK_BYTES);
            let bytes = head + (machine_bytes + chunks * HEADER_BYTES) as u64 + END_BYTES;
            let layout = Layout::new(head, bytes).unwrap();
            assert_eq!(
                (layout.data_chunks, layout.machine_bytes),
                (chunks as u64, machine_bytes as u64)
            );
            let mut at = 0;
            for number in 0..=layout.end() {
                let place = layout.place(number).unwrap();
                assert_eq!(place.at, at);
                at += place.bytes;
                assert_eq!(
                    (layout.number_at(place.at), layout.number_at(at - 1)),
                    (number, number)
                );
            }
            assert_eq!((at, layout.place(layout.end() + 1)), (bytes, None));
        }
        for surplus in 1..=HEADER_BYTES as u64 {
            assert_eq!(Layout::new(head, head + surplus + END_BYTES), None);
            assert_eq!(Layout::new(head, head + FULL_BYTES + surplus + END_BYTES), None);
        }
        assert_eq!(Layout::new(head, head + END_BYTES - 1), None);
    }
}
