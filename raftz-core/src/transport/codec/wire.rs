//! The structs that stand on the wire. Plain numbers only, so that renaming or reordering the
//! vocabulary cannot change a byte. Fields are only ever appended.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::count;
use crate::types::{
    Done, Index, LogId, NodeId, Outcome, Payload, Refusal, Reply, SnapshotId, Term, Unknown,
};

#[derive(Serialize, Deserialize)]
pub(super) struct PreVoteMeta {
    pub(super) term: u64,
    pub(super) round: u64,
    pub(super) last_term: u64,
    pub(super) last_index: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct VoteMeta {
    pub(super) term: u64,
    pub(super) round: u64,
    pub(super) last_term: u64,
    pub(super) last_index: u64,
    pub(super) transfer: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct VoteReplyMeta {
    pub(super) term: u64,
    pub(super) round: u64,
    pub(super) granted: bool,
    pub(super) last_term: u64,
    pub(super) last_index: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AppendMeta {
    pub(super) term: u64,
    pub(super) session: u64,
    pub(super) prev_term: u64,
    pub(super) prev_index: u64,
    pub(super) commit: u64,
    pub(super) entries: u32,
}

/// `outcome` 0: matched up to `index`, hint zero. 1: rejected the `prev` at `index`.
#[derive(Serialize, Deserialize)]
pub(super) struct AppendReplyMeta {
    pub(super) term: u64,
    pub(super) session: u64,
    pub(super) outcome: u8,
    pub(super) index: u64,
    pub(super) hint_term: u64,
    pub(super) hint_index: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HeartbeatMeta {
    pub(super) term: u64,
    pub(super) session: u64,
    pub(super) round: u64,
    pub(super) commit_term: u64,
    pub(super) commit_index: u64,
    pub(super) sent_us: u64,
    pub(super) confirmed_clock_us: u64,
    pub(super) faith_us: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HeartbeatReplyMeta {
    pub(super) term: u64,
    pub(super) session: u64,
    pub(super) round: u64,
    pub(super) sent_us: u64,
    pub(super) clock_us: u64,
    pub(super) faith_us: u64,
    pub(super) fitness: u8,
    pub(super) storage_full: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TimeoutNowMeta {
    pub(super) term: u64,
}

/// Names a snapshot. Stands inside other structs, so no field can ever be appended to it.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotIdMeta {
    last_term: u64,
    last_index: u64,
    bytes: u64,
    hash: [u8; 32],
}

impl From<SnapshotId> for SnapshotIdMeta {
    fn from(id: SnapshotId) -> Self {
        let (last_term, last_index) = (id.last.term.0, id.last.index.0);
        Self { last_term, last_index, bytes: id.bytes, hash: id.hash }
    }
}

impl From<SnapshotIdMeta> for SnapshotId {
    fn from(meta: SnapshotIdMeta) -> Self {
        let last = LogId::new(Term(meta.last_term), Index(meta.last_index));
        Self { last, bytes: meta.bytes, hash: meta.hash }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotOfferMeta {
    pub(super) term: u64,
    pub(super) session: u64,
    pub(super) id: SnapshotIdMeta,
    pub(super) commit: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotFetchMeta {
    pub(super) id: SnapshotIdMeta,
    pub(super) offset: u64,
    pub(super) bytes_max: u32,
}

/// The bytes are the one payload.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotPieceMeta {
    pub(super) id: SnapshotIdMeta,
    pub(super) offset: u64,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotMeta {
    pub(super) id: SnapshotIdMeta,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotWantMeta {
    pub(super) least: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReadAskMeta {
    pub(super) id: u64,
    pub(super) by_lease: bool,
}

/// `index` is 0 from a node that does not lead.
#[derive(Serialize, Deserialize)]
pub(super) struct ReadAnswerMeta {
    pub(super) id: u64,
    pub(super) leads: bool,
    pub(super) index: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ForwardMeta {
    pub(super) id: u64,
    pub(super) patience_us: u64,
    pub(super) proposals: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ForwardReplyMeta {
    pub(super) id: u64,
    pub(super) outcomes: u32,
}

/// One outcome; its reply's bytes, if any, are the next payload. `code` is 0 for a reply, 1 for a
/// rejection by the state machine, else the stable code of the refusal or unknown.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct OutcomeRecord {
    pub(super) position: u32,
    pub(super) code: i32,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) detail: String,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

const CODE_OK: i32 = 0;
const CODE_REJECTED: i32 = 1;

/// An outcome as a record, and the payload that goes with it.
pub(super) fn record_of(position: u32, outcome: &Outcome) -> (OutcomeRecord, Payload) {
    let position = position + u32::from(bug!(PositionsCountFromOne));
    let mut record = OutcomeRecord { position, ..OutcomeRecord::default() };
    let mut payload = Payload::empty();
    match outcome {
        Outcome::Done(done) => {
            record.first = done.index.0;
            record.second = done.term.0;
            let (code, bytes) = match &done.reply {
                Reply::Ok(bytes) => (CODE_OK, bytes),
                Reply::Rejected(bytes) => (CODE_REJECTED, bytes),
            };
            record.code = code;
            payload = Payload::new(bytes.clone());
            record.payload_bytes = count(payload.len());
            record.payload_crc = payload.crc();
        }
        Outcome::Refused(refusal) => {
            record.code = refusal.code();
            match refusal {
                Refusal::NotLeader { hint } => record.first = hint.map_or(0, NodeId::get),
                Refusal::NoLeader { detail: text }
                | Refusal::Busy { what: text }
                | Refusal::Faulted { reason: text }
                | Refusal::InCallback { inside: text } => record.detail.clone_from(text),
                Refusal::TooLarge { bytes, limit } => {
                    record.first = *bytes;
                    record.second = *limit;
                }
                Refusal::TermMismatch { wanted, led } => {
                    record.first = wanted.0;
                    record.second = led.map_or(0, |term| term.0);
                }
                Refusal::StorageFull | Refusal::Overwritten | Refusal::ShuttingDown => {}
            }
        }
        Outcome::Unknown(unknown) => {
            record.code = unknown.code();
            match unknown {
                Unknown::Faulted { reason: text } | Unknown::InCallback { inside: text } => {
                    record.detail.clone_from(text);
                }
                Unknown::Timeout | Unknown::LeadershipLost | Unknown::ShuttingDown => {}
            }
        }
    }
    (record, payload)
}

/// The outcome behind a record. A code of a later version is told as "unknown": whatever it means,
/// to take it for certain in either direction could be wrong.
pub(super) fn outcome_of(record: OutcomeRecord, bytes: Bytes) -> Outcome {
    let detail = record.detail;
    let done = |reply| {
        let (index, term) = (Index(record.first), Term(record.second));
        Outcome::Done(Done { index, term, reply })
    };
    match record.code {
        CODE_OK => done(Reply::Ok(bytes)),
        CODE_REJECTED => done(Reply::Rejected(bytes)),
        -1 => Outcome::Refused(Refusal::NotLeader { hint: NodeId::new(record.first) }),
        -2 => Outcome::Refused(Refusal::NoLeader { detail }),
        -3 => Outcome::Refused(Refusal::Busy { what: detail }),
        -4 => Outcome::Refused(Refusal::StorageFull),
        -5 => Outcome::Refused(Refusal::TooLarge { bytes: record.first, limit: record.second }),
        -6 => Outcome::Refused(Refusal::Overwritten),
        -7 => Outcome::Refused(Refusal::ShuttingDown),
        -8 => Outcome::Refused(Refusal::Faulted { reason: detail }),
        -9 => Outcome::Refused(Refusal::InCallback { inside: detail }),
        -10 => Outcome::Refused(Refusal::TermMismatch {
            wanted: Term(record.first),
            led: Some(Term(record.second)).filter(|term| *term != Term::ZERO),
        }),
        ..=-32 if bug!(UnknownIsReadAsRefused) => Outcome::Refused(Refusal::Overwritten),
        -32 => Outcome::Unknown(Unknown::Timeout),
        -33 => Outcome::Unknown(Unknown::LeadershipLost),
        -34 => Outcome::Unknown(Unknown::ShuttingDown),
        -35 => Outcome::Unknown(Unknown::Faulted { reason: detail }),
        -36 => Outcome::Unknown(Unknown::InCallback { inside: detail }),
        code => Outcome::Unknown(Unknown::Faulted {
            reason: format!("the leader answered with code {code} of a later version: {detail}"),
        }),
    }
}
