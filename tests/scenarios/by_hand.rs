//! Messages made by hand: `send 2->1 t5 <kind> …`.
//!
//! * `vote|prevote last=3@t2 [round=1] [transfer]`
//! * `votereply|prevotereply granted|refused [round=1]`
//! * `append prev=3@t2 [commit=3] [entries=4@t2,5@t3] [session=1]` (commands named after their identity)
//! * `appendreply matched=4 | rejected=3 hint=2@t1 [session=1]`
//! * `heartbeat commit=3@t2 [session=1]`, `heartbeatreply [session=1]`
//! * `offer last=3@t2 [commit=3] [session=1]`: an offer of a snapshot
//! * `timeoutnow`

use raftz_core::types::{
    Append, AppendOutcome, AppendReply, Entry, EntryKind, Heartbeat, HeartbeatReply, Index, LogId,
    Message, Payload, PreVote, RaftBody, RaftMessage, SnapshotId, SnapshotOffer, Term, Vote,
    VoteReply,
};

use super::verbs::{Words, log_id};

/// Rounds of elections are numbered apart in each life of a node; transcripts count those of the first.
pub(crate) const FIRST_LIFE: u64 = 1 << 32;

/// A command with this identity.
pub(crate) fn command(id: LogId) -> Entry {
    Entry {
        term: id.term,
        index: id.index,
        log_time_us: id.index.0.saturating_add(1_000_000),
        kind: EntryKind::Command,
        session: None,
        payload: Payload::new(format!("{}@{}", id.index, id.term).into_bytes()),
    }
}

/// The message that `line` describes.
pub(crate) fn message(line: &str, words: &Words<'_>) -> Message {
    let term = words.plain[2].strip_prefix('t').and_then(|raw| raw.parse().ok());
    let term = Term(term.unwrap_or_else(|| panic!("{line}: no term")));
    let has = |word: &str| words.plain.contains(&word);
    let id = |name: &str| words.named.get(name).map_or(LogId::ZERO, |word| log_id(word));
    let session = words.number("session").unwrap_or(1);
    let round = FIRST_LIFE + words.number("round").unwrap_or(1);
    let last = id("last");
    let body = match words.plain[3] {
        "vote" => RaftBody::Vote(Vote { round, last, transfer: has("transfer") }),
        "prevote" => RaftBody::PreVote(PreVote { round, last }),
        "votereply" => RaftBody::VoteReply(VoteReply { round, granted: has("granted"), last }),
        "prevotereply" => {
            RaftBody::PreVoteReply(VoteReply { round, granted: has("granted"), last })
        }
        "append" => {
            let entries = words.named.get("entries").map_or(Vec::new(), |list| {
                list.split(',').map(|word| command(log_id(word))).collect()
            });
            let commit = Index(words.number("commit").unwrap_or(0));
            RaftBody::Append(Append { session, prev: id("prev"), commit, entries: entries.into() })
        }
        "appendreply" => {
            let outcome = match words.number("matched") {
                Some(matched) => {
                    AppendOutcome::Matched { matched: Index(matched), storage_full: false }
                }
                None => AppendOutcome::Rejected {
                    prev: Index(words.number("rejected").expect("matched= or rejected=")),
                    hint: id("hint"),
                },
            };
            RaftBody::AppendReply(AppendReply { session, outcome })
        }
        "heartbeat" => RaftBody::Heartbeat(Heartbeat {
            session,
            round,
            commit: id("commit"),
            sent_us: 0,
            confirmed_clock_us: 0,
            faith_us: 0,
        }),
        "heartbeatreply" => RaftBody::HeartbeatReply(HeartbeatReply {
            session,
            round,
            sent_us: 0,
            clock_us: 0,
            faith_us: 0,
            fitness: 0,
            storage_full: false,
        }),
        "offer" => {
            let id = SnapshotId { last, bytes: 1000, hash: [7; 32] };
            let commit = Index(words.number("commit").unwrap_or(0));
            RaftBody::SnapshotOffer(SnapshotOffer { session, id, commit })
        }
        "timeoutnow" => RaftBody::TimeoutNow,
        other => panic!("{line}: no message {other:?}"),
    };
    Message::Raft(RaftMessage { term, body })
}
