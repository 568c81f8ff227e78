//! Messages as frames. The one module that decides what a message looks like on the wire; what it
//! writes is held by the golden files in `tests/golden/frames-v1`.
//!
//! Metadata opens with the length of one small struct and the struct itself, whose fields are only
//! ever appended to: a reader takes the fields that it knows and skips the rest. Lists follow it,
//! their count standing in the struct and every element saying its own length: entry headers
//! (`types::EntryHeader`) for appends and forwards, outcome records for replies. Payloads come
//! last, raw, in the order of the list; a piece of a snapshot has one and no list.
//!
//! ```text
//! +-----------------+--------+-------------------------+-----------------------+
//! | struct length 4 | struct | entry headers / records | payload payload ...   |
//! +-----------------+--------+-------------------------+-----------------------+
//! |<------------------- metadata --------------------->|
//! ```
//! A kind that this version does not know is a value, [`Decoded::Unknown`]. Anything that does not
//! add up to the last byte is a [`CodecError`]; nothing panics, and nothing is allocated by a count
//! that the bytes present could not hold.

mod wire;

use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, FRAME_HEADER_BYTES, FrameError, FrameHeader};
use super::{Class, InFrame, OutFrame};
use crate::types::encode::{MetadataError, decode as decode_struct, encode_into};
use crate::types::{
    Append, AppendOutcome, AppendReply, ENTRY_HEADER_BYTES, ENTRY_HEADER_SESSION_BYTES, Entry,
    EntryHeader, EntryHeaderError, EntryKind, Forward, ForwardReply, ForwardedProposal, GroupId,
    Heartbeat, HeartbeatReply, Index, LogId, Message, Outcome, Payload, PreVote, RaftBody,
    RaftMessage, ReadMessage, SnapshotMessage, SnapshotOffer, Term, Vote, VoteReply,
};
use wire::{
    AppendMeta, AppendReplyMeta, ForwardMeta, ForwardReplyMeta, HeartbeatMeta, HeartbeatReplyMeta,
    OutcomeRecord, PreVoteMeta, ReadAnswerMeta, ReadAskMeta, SnapshotFetchMeta, SnapshotMeta,
    SnapshotOfferMeta, SnapshotPieceMeta, SnapshotWantMeta, TimeoutNowMeta, VoteMeta,
    VoteReplyMeta, outcome_of, record_of,
};

/// Payloads below this size are copied beside the metadata, so that many small ones cost one
/// buffer; larger ones are passed on as they are.
pub const GATHER_BYTES: usize = 4096;

/// The frame kinds of this version. Numbers are never reused.
pub mod kind {
    /// [`RaftBody::PreVote`](crate::types::RaftBody::PreVote).
    pub const PRE_VOTE: u16 = 1;
    /// [`RaftBody::PreVoteReply`](crate::types::RaftBody::PreVoteReply).
    pub const PRE_VOTE_REPLY: u16 = 2;
    /// [`RaftBody::Vote`](crate::types::RaftBody::Vote).
    pub const VOTE: u16 = 3;
    /// [`RaftBody::VoteReply`](crate::types::RaftBody::VoteReply).
    pub const VOTE_REPLY: u16 = 4;
    /// [`RaftBody::Append`](crate::types::RaftBody::Append).
    pub const APPEND: u16 = 5;
    /// [`RaftBody::AppendReply`](crate::types::RaftBody::AppendReply).
    pub const APPEND_REPLY: u16 = 6;
    /// [`RaftBody::Heartbeat`](crate::types::RaftBody::Heartbeat).
    pub const HEARTBEAT: u16 = 7;
    /// [`RaftBody::HeartbeatReply`](crate::types::RaftBody::HeartbeatReply).
    pub const HEARTBEAT_REPLY: u16 = 8;
    /// [`RaftBody::TimeoutNow`](crate::types::RaftBody::TimeoutNow).
    pub const TIMEOUT_NOW: u16 = 9;
    /// [`RaftBody::SnapshotOffer`](crate::types::RaftBody::SnapshotOffer).
    pub const SNAPSHOT_OFFER: u16 = 10;
    /// [`Message::Forward`](crate::types::Message::Forward).
    pub const FORWARD: u16 = 16;
    /// [`Message::ForwardReply`](crate::types::Message::ForwardReply).
    pub const FORWARD_REPLY: u16 = 17;
    /// [`SnapshotMessage::Fetch`](crate::types::SnapshotMessage::Fetch).
    pub const SNAPSHOT_FETCH: u16 = 18;
    /// [`SnapshotMessage::Piece`](crate::types::SnapshotMessage::Piece).
    pub const SNAPSHOT_PIECE: u16 = 19;
    /// [`SnapshotMessage::Gone`](crate::types::SnapshotMessage::Gone).
    pub const SNAPSHOT_GONE: u16 = 20;
    /// [`SnapshotMessage::Want`](crate::types::SnapshotMessage::Want).
    pub const SNAPSHOT_WANT: u16 = 21;
    /// [`SnapshotMessage::Have`](crate::types::SnapshotMessage::Have).
    pub const SNAPSHOT_HAVE: u16 = 22;
    /// [`ReadMessage::Ask`](crate::types::ReadMessage::Ask).
    pub const READ_ASK: u16 = 23;
    /// [`ReadMessage::Answer`](crate::types::ReadMessage::Answer).
    pub const READ_ANSWER: u16 = 24;
    /// A link's question whether the other end is alive; the transport's own, never handed up.
    pub const PING: u16 = 240;
    /// The answer to [`PING`].
    pub const PONG: u16 = 241;
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message of this version.
    Message(Message),
    /// A kind that this version does not know.
    Unknown(u16),
}

/// Why a frame is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Its header is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Fewer or more bytes than its header says.
    #[error("a frame of {found} bytes whose header says {claimed}")]
    WrongLength {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        claimed: u64,
    },
    /// Its struct does not decode.
    #[error("kind {kind}: {error}")]
    Metadata {
        /// The frame's kind.
        kind: u16,
        /// Why not.
        error: MetadataError,
    },
    /// An entry header is wrong.
    #[error("kind {kind}, entry {position}: {error}")]
    Entry {
        /// The frame's kind.
        kind: u16,
        /// Position in the list.
        position: u32,
        /// Why not.
        error: EntryHeaderError,
    },
    /// An entry of another group than the frame's.
    #[error("entry {position} belongs to group {found}, its frame to group {group}")]
    WrongGroup {
        /// Position in the list.
        position: u32,
        /// The entry's group.
        found: u32,
        /// The frame's group.
        group: u32,
    },
    /// A payload does not match its checksum.
    #[error("kind {kind}: payload {position} does not match its checksum")]
    BadPayload {
        /// The frame's kind.
        kind: u16,
        /// Position in the list.
        position: u32,
    },
    /// A count or length goes beyond the bytes that are there.
    #[error("kind {kind}: {what} goes beyond the end of the frame")]
    Short {
        /// The frame's kind.
        kind: u16,
        /// Which part.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("kind {kind}: {bytes} bytes of {what} are left over")]
    Surplus {
        /// The frame's kind.
        kind: u16,
        /// Which part.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
    /// A field holds a value without meaning.
    #[error("kind {kind}: field {field} holds {value}, which means nothing")]
    BadValue {
        /// The frame's kind.
        kind: u16,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// `message` of `group` as a frame.
pub fn encode(group: GroupId, message: &Message) -> OutFrame {
    match message {
        Message::Raft(raft) => encode_raft(group, raft),
        Message::Forward(forward) => {
            let meta = ForwardMeta {
                id: forward.id,
                patience_us: forward.patience_us,
                proposals: count(forward.proposals.len()),
            };
            let payloads = forward.proposals.iter().map(|proposal| &proposal.payload);
            let mut out = Writer::new(&meta, payloads, ENTRY_HEADER_SESSION_BYTES);
            for proposal in &forward.proposals {
                // A proposal has no place in the log yet: term, index and time are zero.
                let entry = Entry {
                    term: Term::ZERO,
                    index: Index::ZERO,
                    log_time_us: 0,
                    kind: EntryKind::Command,
                    session: proposal.session,
                    payload: proposal.payload.clone(),
                };
                entry.encode_header(group, &mut out.front);
            }
            out.finish(kind::FORWARD, Class::Data, group)
        }
        Message::ForwardReply(reply) => {
            let meta = ForwardReplyMeta { id: reply.id, outcomes: count(reply.outcomes.len()) };
            let records: Vec<(OutcomeRecord, Payload)> = reply
                .outcomes
                .iter()
                .map(|(position, outcome)| record_of(*position, outcome))
                .collect();
            let mut out = Writer::new(
                &meta,
                records.iter().map(|(_, payload)| payload),
                ENTRY_HEADER_SESSION_BYTES,
            );
            for (record, _) in &records {
                put_sized(record, &mut out.front);
            }
            out.finish(kind::FORWARD_REPLY, Class::Data, group)
        }
        Message::Snapshot(snapshot) => encode_snapshot(group, snapshot),
        Message::Read(ReadMessage::Ask { id, by_lease }) => {
            control(kind::READ_ASK, group, &ReadAskMeta { id: *id, by_lease: *by_lease })
        }
        Message::Read(ReadMessage::Answer { id, index }) => {
            let meta = ReadAnswerMeta {
                id: *id,
                leads: index.is_some(),
                index: index.map_or(0, |index| index.0),
            };
            control(kind::READ_ANSWER, group, &meta)
        }
    }
}

fn encode_snapshot(group: GroupId, message: &SnapshotMessage) -> OutFrame {
    match message {
        SnapshotMessage::Fetch { id, offset, bytes_max } => {
            let (offset, bytes_max) = (*offset, *bytes_max);
            let meta = SnapshotFetchMeta { id: (*id).into(), offset, bytes_max };
            control(kind::SNAPSHOT_FETCH, group, &meta)
        }
        SnapshotMessage::Piece { id, offset, bytes } => {
            let payload = Payload::new(bytes.clone());
            let meta = SnapshotPieceMeta {
                id: (*id).into(),
                offset: *offset,
                payload_bytes: count(payload.len()),
                payload_crc: payload.crc(),
            };
            let out = Writer::new(&meta, std::iter::once(&payload), 0);
            out.finish(kind::SNAPSHOT_PIECE, Class::Bulk, group)
        }
        SnapshotMessage::Gone { id } => {
            control(kind::SNAPSHOT_GONE, group, &SnapshotMeta { id: (*id).into() })
        }
        SnapshotMessage::Want { least } => {
            control(kind::SNAPSHOT_WANT, group, &SnapshotWantMeta { least: least.0 })
        }
        SnapshotMessage::Have { id } => {
            control(kind::SNAPSHOT_HAVE, group, &SnapshotMeta { id: (*id).into() })
        }
    }
}

fn encode_raft(group: GroupId, raft: &RaftMessage) -> OutFrame {
    let term = raft.term.0;
    match &raft.body {
        RaftBody::PreVote(ask) => control(
            kind::PRE_VOTE,
            group,
            &PreVoteMeta {
                term,
                round: ask.round,
                last_term: ask.last.term.0,
                last_index: ask.last.index.0,
            },
        ),
        RaftBody::PreVoteReply(reply) => {
            control(kind::PRE_VOTE_REPLY, group, &vote_reply(term, reply))
        }
        RaftBody::Vote(ask) => control(
            kind::VOTE,
            group,
            &VoteMeta {
                term,
                round: ask.round,
                last_term: ask.last.term.0,
                last_index: ask.last.index.0,
                transfer: ask.transfer,
            },
        ),
        RaftBody::VoteReply(reply) => control(kind::VOTE_REPLY, group, &vote_reply(term, reply)),
        RaftBody::Append(append) => {
            let end = append.prev.index.plus(append.entries.len() as u64);
            let meta = AppendMeta {
                term,
                session: append.session,
                prev_term: append.prev.term.0,
                prev_index: append.prev.index.0,
                commit: if bug!(AppendCommitsItself) { end.0 } else { append.commit.0 },
                entries: count(append.entries.len()),
            };
            // Followers keep payloads, and with them the whole frame: it is to have no room to spare.
            let header_bytes = append.entries.iter().map(Entry::header_bytes).max().unwrap_or(0);
            let payloads = append.entries.iter().map(|entry| &entry.payload);
            let mut out = Writer::new(&meta, payloads, header_bytes);
            for entry in &append.entries {
                if bug!(EntriesTakeTheMessagesTerm) {
                    Entry { term: raft.term, ..entry.clone() }.encode_header(group, &mut out.front);
                    continue;
                }
                entry.encode_header(group, &mut out.front);
            }
            let class = if append.entries.is_empty() { Class::Control } else { Class::Data };
            out.finish(kind::APPEND, class, group)
        }
        RaftBody::AppendReply(reply) => {
            let (outcome, index, hint) = match reply.outcome {
                AppendOutcome::Matched { matched, storage_full: false } => {
                    (0, matched, LogId::ZERO)
                }
                AppendOutcome::Matched { matched, storage_full: true } => (2, matched, LogId::ZERO),
                AppendOutcome::Rejected { prev, hint } => (1, prev, hint),
            };
            let meta = AppendReplyMeta {
                term,
                session: reply.session,
                outcome,
                index: index.0,
                hint_term: hint.term.0,
                hint_index: hint.index.0,
            };
            control(kind::APPEND_REPLY, group, &meta)
        }
        RaftBody::Heartbeat(beat) => {
            let meta = HeartbeatMeta {
                term,
                session: beat.session,
                round: beat.round,
                commit_term: beat.commit.term.0,
                commit_index: beat.commit.index.0,
                sent_us: beat.sent_us,
                confirmed_clock_us: beat.confirmed_clock_us,
                faith_us: beat.faith_us,
            };
            control(kind::HEARTBEAT, group, &meta)
        }
        RaftBody::HeartbeatReply(reply) => {
            let meta = HeartbeatReplyMeta {
                term,
                session: reply.session,
                round: reply.round,
                sent_us: reply.sent_us,
                clock_us: reply.clock_us,
                faith_us: reply.faith_us,
                fitness: reply.fitness,
                storage_full: reply.storage_full,
            };
            control(kind::HEARTBEAT_REPLY, group, &meta)
        }
        RaftBody::TimeoutNow => control(kind::TIMEOUT_NOW, group, &TimeoutNowMeta { term }),
        RaftBody::SnapshotOffer(offer) => {
            let (id, commit) = (offer.id.into(), offer.commit.0);
            let meta = SnapshotOfferMeta { term, session: offer.session, id, commit };
            control(kind::SNAPSHOT_OFFER, group, &meta)
        }
    }
}

/// A frame of the transport's own, without content.
pub(super) fn encode_bare(kind: u16) -> OutFrame {
    let mut front = frame::begin(0);
    frame::seal(&mut front, kind, Class::Control, GroupId(0), 0);
    OutFrame { class: Class::Control, head: front.into(), payloads: Vec::new() }
}

const fn vote_reply(term: u64, reply: &VoteReply) -> VoteReplyMeta {
    VoteReplyMeta {
        term,
        round: reply.round,
        granted: reply.granted,
        last_term: reply.last.term.0,
        last_index: reply.last.index.0,
    }
}

/// A list's length on the wire. Intake limits keep lists far below 2^32; a longer one would
/// saturate and be refused by its receiver.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The frame of a message without payloads.
fn control<T: Serialize>(kind: u16, group: GroupId, meta: &T) -> OutFrame {
    Writer::new(meta, std::iter::empty(), 0).finish(kind, Class::Control, group)
}

/// Builds one frame: metadata first, while the payloads wait beside it.
struct Writer<'a, P: Iterator<Item = &'a Payload> + Clone> {
    front: Vec<u8>,
    payloads: P,
}

impl<'a, P: Iterator<Item = &'a Payload> + Clone> Writer<'a, P> {
    /// With room for everything, so that nothing has to move as it grows; for each payload so many bytes of metadata.
    fn new<T: Serialize>(meta: &T, payloads: P, header_bytes: usize) -> Self {
        let small = |payload: &Payload| Some(payload.len()).filter(|bytes| *bytes < GATHER_BYTES);
        let room = |payload| header_bytes + small(payload).unwrap_or_default();
        let mut front = frame::begin(64 + payloads.clone().map(room).sum::<usize>());
        put_sized(meta, &mut front);
        Self { front, payloads }
    }

    /// Seals the frame. Runs of small payloads are copied together, the first run behind the
    /// metadata; a large payload stays the buffer that it is.
    fn finish(self, kind: u16, class: Class, group: GroupId) -> OutFrame {
        let Self { mut front, payloads } = self;
        let payload_bytes = payloads.clone().map(Payload::len).sum();
        frame::seal(&mut front, kind, class, group, payload_bytes);
        let mut large = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        for payload in payloads {
            let bytes = payload.bytes();
            if bytes.len() >= GATHER_BYTES {
                if !run.is_empty() {
                    large.push(Bytes::from(std::mem::take(&mut run)));
                }
                large.push(bytes.clone());
            } else if large.is_empty() {
                front.extend_from_slice(bytes);
            } else {
                run.extend_from_slice(bytes);
            }
        }
        if !run.is_empty() {
            large.push(Bytes::from(run));
        }
        OutFrame { class, head: front.into(), payloads: large }
    }
}

/// Appends `value` behind its length. Encoding plain numbers and strings into memory cannot fail.
fn put_sized<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let at = out.len();
    out.put_u32_le(0);
    if encode_into(value, out).is_err() {
        out.truncate(at + 4);
    }
    let length = count(out.len() - at - 4);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads a frame that the transport has verified: its group and what it says. Payloads share the
/// frame's buffer.
pub fn decode(frame: &InFrame) -> Result<(GroupId, Decoded), CodecError> {
    let (header, body) = split(frame)?;
    let mut reader = Reader::new(header, body)?;
    let body = match header.kind {
        kind::PRE_VOTE => {
            let meta: PreVoteMeta = reader.meta()?;
            let last = log_id(meta.last_term, meta.last_index);
            raft(meta.term, RaftBody::PreVote(PreVote { round: meta.round, last }))
        }
        kind::PRE_VOTE_REPLY => {
            let (term, reply) = reader.vote_reply()?;
            raft(term, RaftBody::PreVoteReply(reply))
        }
        kind::VOTE => {
            let meta: VoteMeta = reader.meta()?;
            let last = log_id(meta.last_term, meta.last_index);
            let vote = Vote { round: meta.round, last, transfer: meta.transfer };
            raft(meta.term, RaftBody::Vote(vote))
        }
        kind::VOTE_REPLY => {
            let (term, reply) = reader.vote_reply()?;
            raft(term, RaftBody::VoteReply(reply))
        }
        kind::APPEND => {
            let meta: AppendMeta = reader.meta()?;
            let append = Append {
                session: meta.session,
                prev: log_id(meta.prev_term, meta.prev_index),
                commit: Index(meta.commit),
                entries: reader.entries(meta.entries)?.into(),
            };
            raft(meta.term, RaftBody::Append(append))
        }
        kind::APPEND_REPLY => {
            let meta: AppendReplyMeta = reader.meta()?;
            let outcome = match meta.outcome {
                0 | 2 => AppendOutcome::Matched {
                    matched: Index(meta.index),
                    storage_full: meta.outcome == 2,
                },
                1 => AppendOutcome::Rejected {
                    prev: Index(meta.index),
                    hint: log_id(meta.hint_term, meta.hint_index),
                },
                other => return Err(reader.bad_value("outcome", u64::from(other))),
            };
            raft(meta.term, RaftBody::AppendReply(AppendReply { session: meta.session, outcome }))
        }
        kind::HEARTBEAT => {
            let meta: HeartbeatMeta = reader.meta()?;
            let beat = Heartbeat {
                session: meta.session,
                round: meta.round,
                commit: log_id(meta.commit_term, meta.commit_index),
                sent_us: meta.sent_us,
                confirmed_clock_us: meta.confirmed_clock_us,
                faith_us: meta.faith_us,
            };
            raft(meta.term, RaftBody::Heartbeat(beat))
        }
        kind::HEARTBEAT_REPLY => {
            let meta: HeartbeatReplyMeta = reader.meta()?;
            let reply = HeartbeatReply {
                session: meta.session,
                round: meta.round,
                sent_us: meta.sent_us,
                clock_us: meta.clock_us,
                faith_us: meta.faith_us,
                fitness: meta.fitness,
                storage_full: meta.storage_full,
            };
            raft(meta.term, RaftBody::HeartbeatReply(reply))
        }
        kind::TIMEOUT_NOW => {
            let meta: TimeoutNowMeta = reader.meta()?;
            raft(meta.term, RaftBody::TimeoutNow)
        }
        kind::SNAPSHOT_OFFER => {
            let SnapshotOfferMeta { term, session, id, commit } = reader.meta()?;
            let offer = SnapshotOffer { session, id: id.into(), commit: Index(commit) };
            raft(term, RaftBody::SnapshotOffer(offer))
        }
        kind::FORWARD => {
            let meta: ForwardMeta = reader.meta()?;
            let proposals = reader
                .entries(meta.proposals)?
                .into_iter()
                .map(|entry| ForwardedProposal { payload: entry.payload, session: entry.session })
                .collect();
            Message::Forward(Forward { id: meta.id, patience_us: meta.patience_us, proposals })
        }
        kind::FORWARD_REPLY => {
            let meta: ForwardReplyMeta = reader.meta()?;
            let outcomes = reader.outcomes(meta.outcomes)?;
            Message::ForwardReply(ForwardReply { id: meta.id, outcomes })
        }
        kind::SNAPSHOT_FETCH => {
            let SnapshotFetchMeta { id, offset, bytes_max } = reader.meta()?;
            Message::Snapshot(SnapshotMessage::Fetch { id: id.into(), offset, bytes_max })
        }
        kind::SNAPSHOT_PIECE => {
            let meta: SnapshotPieceMeta = reader.meta()?;
            let bytes = reader.verified_payload(meta.payload_bytes, meta.payload_crc, 0)?;
            let (id, offset) = (meta.id.into(), meta.offset);
            Message::Snapshot(SnapshotMessage::Piece { id, offset, bytes })
        }
        kind::SNAPSHOT_GONE => {
            let SnapshotMeta { id } = reader.meta()?;
            Message::Snapshot(SnapshotMessage::Gone { id: id.into() })
        }
        kind::READ_ASK => {
            let ReadAskMeta { id, by_lease } = reader.meta()?;
            Message::Read(ReadMessage::Ask { id, by_lease })
        }
        kind::READ_ANSWER => {
            let ReadAnswerMeta { id, leads, index } = reader.meta()?;
            Message::Read(ReadMessage::Answer { id, index: leads.then_some(Index(index)) })
        }
        kind::SNAPSHOT_WANT => {
            let SnapshotWantMeta { least } = reader.meta()?;
            Message::Snapshot(SnapshotMessage::Want { least: Index(least) })
        }
        kind::SNAPSHOT_HAVE => {
            let SnapshotMeta { id } = reader.meta()?;
            Message::Snapshot(SnapshotMessage::Have { id: id.into() })
        }
        unknown => return Ok((header.group, Decoded::Unknown(unknown))),
    };
    reader.finish()?;
    Ok((header.group, Decoded::Message(body)))
}

/// The kind in a frame's header, for the transport's own frames.
pub(super) fn kind_of(frame: &InFrame) -> Option<u16> {
    let header = frame.bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    FrameHeader::parse(header).ok().map(|header| header.kind)
}

fn split(frame: &InFrame) -> Result<(FrameHeader, Bytes), CodecError> {
    let found = frame.bytes.len() as u64;
    let Some(bytes) = frame.bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(CodecError::WrongLength { found, claimed: FRAME_HEADER_BYTES as u64 });
    };
    let header = FrameHeader::parse(bytes)?;
    if header.frame_bytes() != found {
        return Err(CodecError::WrongLength { found, claimed: header.frame_bytes() });
    }
    Ok((header, frame.bytes.slice(FRAME_HEADER_BYTES..)))
}

const fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

const fn raft(term: u64, body: RaftBody) -> Message {
    Message::Raft(RaftMessage { term: Term(term), body })
}

/// Takes one frame's body apart from the front, so that nothing is read twice or left out.
struct Reader {
    header: FrameHeader,
    /// Metadata not yet read.
    metadata: Bytes,
    /// Payload bytes not yet read.
    payloads: Bytes,
}

impl Reader {
    fn new(header: FrameHeader, body: Bytes) -> Result<Self, CodecError> {
        let mut metadata = body;
        let length = header.metadata_length as usize;
        if length > metadata.len() {
            return Err(CodecError::Short { kind: header.kind, what: "metadata" });
        }
        let payloads = metadata.split_off(length);
        Ok(Self { header, metadata, payloads })
    }

    const fn short(&self, what: &'static str) -> CodecError {
        CodecError::Short { kind: self.header.kind, what }
    }

    const fn bad_value(&self, field: &'static str, value: u64) -> CodecError {
        CodecError::BadValue { kind: self.header.kind, field, value }
    }

    /// The next struct behind its length; fields that this version does not know are skipped.
    fn meta<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        let Ok(length) = self.metadata.try_get_u32_le() else {
            return Err(self.short("a struct's length"));
        };
        let length = length as usize;
        if length > self.metadata.len() {
            return Err(self.short("a struct"));
        }
        let bytes = self.metadata.split_to(length);
        decode_struct(&bytes)
            .map(|(value, _)| value)
            .map_err(|error| CodecError::Metadata { kind: self.header.kind, error })
    }

    fn vote_reply(&mut self) -> Result<(u64, VoteReply), CodecError> {
        let meta: VoteReplyMeta = self.meta()?;
        let last = log_id(meta.last_term, meta.last_index);
        Ok((meta.term, VoteReply { round: meta.round, granted: meta.granted, last }))
    }

    fn payload(&mut self, length: u32) -> Result<Bytes, CodecError> {
        let length = length as usize;
        if length > self.payloads.len() {
            return Err(self.short("a payload"));
        }
        if length == 0 {
            // Keeps no hold on the frame's buffer.
            return Ok(Bytes::new());
        }
        Ok(self.payloads.split_to(length))
    }

    /// The next payload, which must match its checksum.
    fn verified_payload(
        &mut self,
        length: u32,
        crc: u32,
        position: u32,
    ) -> Result<Bytes, CodecError> {
        let payload = Payload::verified(self.payload(length)?, crc)
            .ok_or(CodecError::BadPayload { kind: self.header.kind, position })?;
        Ok(payload.bytes().clone())
    }

    fn entries(&mut self, count: u32) -> Result<Vec<Entry>, CodecError> {
        if count as usize > self.metadata.len() / ENTRY_HEADER_BYTES {
            return Err(self.short("the list of entries"));
        }
        let kind = self.header.kind;
        let mut entries = Vec::with_capacity(count as usize);
        for position in 0..count {
            let header = EntryHeader::decode(&self.metadata)
                .map_err(|error| CodecError::Entry { kind, position, error })?;
            if header.group != self.header.group {
                let (found, group) = (header.group.0, self.header.group.0);
                return Err(CodecError::WrongGroup { position, found, group });
            }
            self.metadata.advance(header.header_bytes);
            let payload = self.payload(header.payload_bytes)?;
            let mut entry =
                header.with_payload(payload).ok_or(CodecError::BadPayload { kind, position })?;
            if bug!(LogTimeIsNotRead) {
                entry.log_time_us = 0;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn outcomes(&mut self, count: u32) -> Result<Vec<(u32, Outcome)>, CodecError> {
        // A record takes its length and at least one byte for each of its seven fields.
        if count as usize > self.metadata.len() / 11 {
            return Err(self.short("the list of outcomes"));
        }
        let mut outcomes = Vec::with_capacity(count as usize);
        for position in 0..count {
            let record: OutcomeRecord = self.meta()?;
            let bytes =
                self.verified_payload(record.payload_bytes, record.payload_crc, position)?;
            outcomes.push((record.position, outcome_of(record, bytes)));
        }
        Ok(outcomes)
    }

    fn finish(self) -> Result<(), CodecError> {
        for (what, rest) in [("metadata", &self.metadata), ("payload", &self.payloads)] {
            if !rest.is_empty() {
                let (kind, bytes) = (self.header.kind, rest.len());
                return Err(CodecError::Surplus { kind, what, bytes });
            }
        }
        Ok(())
    }
}
