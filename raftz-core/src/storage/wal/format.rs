//! The log's bytes: batches and the records in them. No IO.
//!
//! A batch is what one write and one sync make durable. It starts on a block, is padded with zeros
//! to the next one, and is covered by one checksum, header and padding included. Its header says
//! up to which batch everything was durable when it was written (the *watermark*): that is how
//! recovery tells a torn write, which nobody was promised, from damage to something promised.
//!
//! ```text
//! batch header, 64 bytes                        record header, 16 bytes
//!  0  magic "rzbatch1"                           0  kind (1)
//!  8  crc32c of the whole batch, this field 0    1  zero (3)
//! 12  number of records                          4  group (4)
//! 16  salt of the segment                        8  length of the body (8)
//! 24  batch number, consecutive over segments
//! 32  length in bytes, a multiple of 4096       entry body: the header of `types/entry.rs`, then
//! 40  watermark: highest batch known durable    the payload
//! 48  hard-state sequence after this batch
//! 56  zero (8)
//! ```
//! All numbers are little-endian.

use bytes::{Buf, BufMut, Bytes};

use crate::types::{
    Base, EntryHeader, GroupId, HardState, Index, LogId, Lost, NodeId, SANE_MAX, Term,
    encode::{decode, encode_into},
};

/// What a write to the log is aligned to: a device block.
pub(super) const BLOCK: usize = 4096;
/// The newest format that this version reads, and the one that it writes.
pub(super) const FORMAT_VERSION: u32 = 1;

pub(super) const BATCH_MAGIC: [u8; 8] = *b"rzbatch1";
pub(super) const BATCH_HEADER: usize = 64;
pub(super) const RECORD_HEADER: usize = 16;
const CRC_AT: usize = 8;

/// The least multiple of a block that holds `bytes`.
pub(super) const fn padded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

/// Writes the checksum of `bytes` into its four bytes at `at`, which count as zero.
pub(in crate::storage) fn seal_crc(bytes: &mut [u8], at: usize) {
    let crc = crc_without(bytes, at);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the checksum at `at` is that of `bytes`.
pub(in crate::storage) fn crc_holds(bytes: &[u8], at: usize) -> bool {
    let holds = || crc_without(bytes, at).to_le_bytes() == bytes[at..at + 4];
    bytes.len() >= at + 4 && (holds() || bug!(ChecksumsOnDiskAreNotChecked))
}

fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let crc = crc32c::crc32c(&bytes[..at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[at + 4..])
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) records: u32,
    pub(super) salt: u64,
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) watermark: u64,
    pub(super) hard_state_seq: u64,
}

impl BatchHeader {
    /// The header's bytes with the checksum still zero.
    pub(super) fn encode(&self) -> [u8; BATCH_HEADER] {
        let mut out = [0; BATCH_HEADER];
        let mut at = &mut out[..];
        at.put_slice(&BATCH_MAGIC);
        at.put_u32_le(0);
        at.put_u32_le(self.records);
        at.put_u64_le(self.salt);
        at.put_u64_le(self.number);
        at.put_u64_le(self.bytes);
        at.put_u64_le(self.watermark);
        at.put_u64_le(self.hard_state_seq);
        out
    }

    /// Reads a header, without any judgement but on magic and length.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BATCH_HEADER || bytes[..8] != BATCH_MAGIC {
            return None;
        }
        let mut at = &bytes[12..];
        Some(Self {
            records: at.get_u32_le(),
            salt: at.get_u64_le(),
            number: at.get_u64_le(),
            bytes: at.get_u64_le(),
            watermark: at.get_u64_le(),
            hard_state_seq: at.get_u64_le(),
        })
    }

    /// Whether its length is one that a batch can have in `room` bytes, and its numbers are such that
    /// counting on from them cannot overflow.
    pub(super) fn fits(&self, room: u64) -> bool {
        self.watermark < self.number
            && self.number <= SANE_MAX
            && self.hard_state_seq <= SANE_MAX
            && self.bytes >= BLOCK as u64
            && self.bytes.is_multiple_of(BLOCK as u64)
            && self.bytes <= room
    }
}

/// Whether the checksum of a whole batch holds.
pub(super) fn batch_holds(bytes: &[u8]) -> bool {
    crc_holds(bytes, CRC_AT)
}

/// Writes the checksum into a batch header, given the pieces that follow it.
pub(super) fn seal_batch<'a>(
    header: &mut [u8; BATCH_HEADER],
    rest: impl Iterator<Item = &'a [u8]>,
) {
    let crc = rest.fold(crc32c::crc32c(header), crc32c::crc32c_append);
    header[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const TRUNCATE: u8 = 3;
const COMMIT: u8 = 4;
const PREVIOUS: u8 = 5;
const CHECKPOINT: u8 = 6;
const SEAL: u8 = 7;
const BASE: u8 = 8;

/// The whole state of a group, as the head of a segment states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) hard_state: HardState,
    pub(super) hard_state_seq: u64,
    pub(super) last: LogId,
    pub(super) commit: Index,
    /// The log before it was damaged and has been cut to `last` on purpose.
    pub(super) recovered: bool,
    pub(super) damage: Option<Lost>,
    pub(super) base: Base,
}

/// A record, without payload bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// An entry; its payload lies at `payload` in the batch.
    Entry { header: EntryHeader, payload: std::ops::Range<usize> },
    /// A new hard state and its place in the store's order of hard states.
    HardState { hard_state: HardState, seq: u64 },
    /// All entries from here on are gone.
    Truncate { from: Index },
    /// Entries up to here are committed.
    Commit { commit: Index },
    /// What the batch before this one did to the group: the lowest index that it touched, or
    /// `u64::MAX`, and the last entry after it.
    Previous { lowest: Index, last: LogId },
    /// Everything.
    Checkpoint(Box<Checkpoint>),
    /// Nothing: written for the watermark's sake.
    Seal,
    /// The log now begins here.
    Base(Box<Base>),
}

/// A record's place in its batch, its group, and the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) at: usize,
    pub(super) group: GroupId,
    pub(super) record: Record,
}

/// Appends a record header.
fn put_record_header(out: &mut Vec<u8>, kind: u8, group: GroupId, body_bytes: u64) {
    out.put_u8(kind);
    out.put_slice(&[0; 3]);
    out.put_u32_le(group.0);
    out.put_u64_le(body_bytes);
}

/// Appends the record header of an entry whose own header and payload follow.
pub(super) fn put_entry_record(out: &mut Vec<u8>, group: GroupId, body_bytes: u64) {
    put_record_header(out, ENTRY, group, body_bytes);
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    out.put_u64_le(id.term.0);
    out.put_u64_le(id.index.0);
}

fn put_hard_state(out: &mut Vec<u8>, hard_state: HardState) {
    out.put_u64_le(hard_state.term.0);
    out.put_u64_le(hard_state.vote.map_or(0, NodeId::get));
}

/// Appends a record that is not an entry. Fails only for a base that does not encode.
pub(super) fn put_record(out: &mut Vec<u8>, group: GroupId, record: &Record) -> Result<(), String> {
    let start = out.len();
    let kind = match record {
        Record::Entry { .. } => return Err("an entry is written piece by piece".into()),
        Record::HardState { .. } => HARD_STATE,
        Record::Truncate { .. } => TRUNCATE,
        Record::Commit { .. } => COMMIT,
        Record::Previous { .. } => PREVIOUS,
        Record::Checkpoint(_) => CHECKPOINT,
        Record::Seal => SEAL,
        Record::Base(_) => BASE,
    };
    put_record_header(out, kind, group, 0);
    match record {
        Record::Entry { .. } | Record::Seal => {}
        Record::HardState { hard_state, seq } => {
            put_hard_state(out, *hard_state);
            out.put_u64_le(*seq);
        }
        Record::Truncate { from: index } | Record::Commit { commit: index } => {
            out.put_u64_le(index.0);
        }
        Record::Previous { lowest, last } => {
            out.put_u64_le(lowest.0);
            put_log_id(out, *last);
        }
        Record::Checkpoint(state) => {
            put_hard_state(out, state.hard_state);
            out.put_u64_le(state.hard_state_seq);
            put_log_id(out, state.last);
            out.put_u64_le(state.commit.0);
            out.put_u64_le(u64::from(state.recovered));
            let damage = state.damage;
            let known = damage.and_then(|damage| damage.last_known);
            out.put_u64_le(u64::from(damage.is_some()) | u64::from(known.is_some()) << 1);
            put_log_id(out, known.unwrap_or_default());
            out.put_u64_le(damage.map_or(0, |damage| damage.term_max.0));
            encode_into(&state.base, out).map_err(|error| error.to_string())?;
        }
        Record::Base(base) => {
            encode_into(base.as_ref(), out).map_err(|error| error.to_string())?;
        }
    }
    let body = (out.len() - start - RECORD_HEADER) as u64;
    out[start + 8..start + 16].copy_from_slice(&body.to_le_bytes());
    Ok(())
}

/// Little-endian numbers off the front of a slice, each only if it is there.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> Result<u64, String> {
        self.0.try_get_u64_le().map_err(|_| "a record is too short for its kind".into())
    }

    fn log_id(&mut self) -> Result<LogId, String> {
        Ok(LogId::new(Term(self.u64()?), Index(self.u64()?)))
    }

    fn hard_state(&mut self) -> Result<HardState, String> {
        Ok(HardState { term: Term(self.u64()?), vote: NodeId::new(self.u64()?) })
    }

    fn base(&self) -> Result<Base, String> {
        decode(self.0).map(|(base, _)| base).map_err(|error| error.to_string())
    }
}

/// One record's place in a batch: kind, group and the range of its body.
pub(super) struct RawRecord {
    kind: u8,
    pub(super) group: GroupId,
    pub(super) body: std::ops::Range<usize>,
}

impl RawRecord {
    /// Whether it is an entry.
    pub(super) const fn is_entry(&self) -> bool {
        self.kind == ENTRY
    }
}

/// Reads the record header at `at` in a batch.
pub(super) fn raw_record(batch: &[u8], at: usize) -> Result<RawRecord, String> {
    let mut header = batch.get(at..at + RECORD_HEADER).ok_or("a record header is cut short")?;
    let kind = header.get_u8();
    header.advance(3);
    let group = GroupId(header.get_u32_le());
    let length = header.get_u64_le();
    let start = at + RECORD_HEADER;
    let room = (batch.len() - start) as u64;
    if length > room {
        return Err(format!("a record claims {length} bytes where {room} are left"));
    }
    Ok(RawRecord { kind, group, body: start..start + length as usize })
}

/// Reads an entry record: its header, and where in the batch its payload lies.
pub(super) fn entry_record(
    batch: &[u8],
    raw: &RawRecord,
) -> Result<(EntryHeader, std::ops::Range<usize>), String> {
    let body = &batch[raw.body.clone()];
    let header = EntryHeader::decode(body).map_err(|error| error.to_string())?;
    let payload = raw.body.start + header.header_bytes..raw.body.end;
    if payload.len() != header.payload_bytes as usize || header.group != raw.group {
        return Err(format!("entry {} contradicts its record", header.index));
    }
    Ok((header, payload))
}

/// All records of a batch whose checksum holds.
pub(super) fn records(batch: &[u8], header: &BatchHeader) -> Result<Vec<Placed>, String> {
    // A record takes at least its header, so the count cannot make this large.
    let most = batch.len() / RECORD_HEADER;
    let mut out = Vec::with_capacity((header.records as usize).min(most));
    let mut at = BATCH_HEADER;
    for _ in 0..header.records {
        let raw = raw_record(batch, at)?;
        let mut fields = Fields(&batch[raw.body.clone()]);
        let record = match raw.kind {
            ENTRY => {
                let (header, payload) = entry_record(batch, &raw)?;
                Record::Entry { header, payload }
            }
            HARD_STATE => {
                Record::HardState { hard_state: fields.hard_state()?, seq: fields.u64()? }
            }
            TRUNCATE => Record::Truncate { from: Index(fields.u64()?) },
            COMMIT => Record::Commit { commit: Index(fields.u64()?) },
            PREVIOUS => Record::Previous { lowest: Index(fields.u64()?), last: fields.log_id()? },
            CHECKPOINT => Record::Checkpoint(Box::new(checkpoint(&mut fields)?)),
            SEAL => Record::Seal,
            BASE => Record::Base(Box::new(fields.base()?)),
            other => return Err(format!("record kind {other} is of a later version")),
        };
        out.push(Placed { at, group: raw.group, record });
        at = raw.body.end;
    }
    Ok(out)
}

fn checkpoint(fields: &mut Fields<'_>) -> Result<Checkpoint, String> {
    let hard_state = fields.hard_state()?;
    let hard_state_seq = fields.u64()?;
    let last = fields.log_id()?;
    let commit = Index(fields.u64()?);
    let recovered = fields.u64()? != 0;
    let flags = fields.u64()?;
    let known = fields.log_id()?;
    let term_max = Term(fields.u64()?);
    let damage = (flags & 1 != 0)
        .then_some(Lost { last_known: (flags & 2 != 0).then_some(known), term_max });
    let base = fields.base()?;
    // A log that ends before it begins would be served as an empty one, and what is appended not at all.
    if base.id != last && base.id.index >= last.index {
        return Err(format!(
            "a checkpoint of a log that begins with {} and ends with {last}",
            base.id
        ));
    }
    Ok(Checkpoint { hard_state, hard_state_seq, last, commit, recovered, damage, base })
}

/// The payload of an entry as a slice of the batch it lies in.
pub(super) fn payload_of(batch: &Bytes, payload: std::ops::Range<usize>) -> Bytes {
    batch.slice(payload)
}
