//! How messages, writes, events and outcomes look in a transcript.

use raftz_core::raft::{Counts, Status};
use raftz_core::types::{
    AppendOutcome, Damage, Entry, EntryKind, Event, LogId, Message, NodeId, Outcome, RaftBody,
    RaftMessage, ReadMessage, Snapshot, SnapshotMessage, WriteOp,
};

use super::disk::Log;

/// One entry: `3@t2 "x"`.
pub(crate) fn entry(entry: &Entry) -> String {
    let id = entry.id();
    match entry.kind {
        EntryKind::Noop => format!("{id} noop"),
        EntryKind::Command => {
            let bytes = entry.payload.bytes();
            if bytes.len() > 24 {
                format!("{id} {} bytes", bytes.len())
            } else {
                format!("{id} {}", String::from_utf8_lossy(bytes))
            }
        }
        EntryKind::Membership => format!("{id} membership"),
        EntryKind::Settings => format!("{id} settings"),
        EntryKind::Unknown(kind) => format!("{id} kind-{kind}"),
    }
}

/// Entries, the middle of long lists left out.
pub(crate) fn entries(list: &[Entry]) -> String {
    let mut shown: Vec<String> = list.iter().map(entry).collect();
    if shown.len() > 8 {
        let tail = shown.pop().unwrap();
        shown.truncate(2);
        shown.push(format!("… {} more …", list.len() - 3));
        shown.push(tail);
    }
    shown.join(", ")
}

/// A log by its terms: `1–3@t1 4@t2`.
pub(crate) fn runs(list: &[Entry]) -> String {
    let mut runs: Vec<(LogId, u64)> = Vec::new();
    for entry in list {
        match runs.last_mut() {
            Some((first, last)) if first.term == entry.term => *last = entry.index.0,
            Some(_) | None => runs.push((entry.id(), entry.index.0)),
        }
    }
    if runs.is_empty() {
        return "empty".into();
    }
    let show = |(first, last): &(LogId, u64)| {
        if first.index.0 == *last {
            first.to_string()
        } else {
            format!("{}–{last}@t{}", first.index, first.term)
        }
    };
    runs.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// A whole log: where it begins, if not at the beginning, and its terms.
pub(crate) fn log(log: &Log) -> String {
    let runs = runs(&log.entries);
    if log.base.id == LogId::ZERO { runs } else { format!("behind {}: {runs}", log.base.id) }
}

/// Complete snapshots, the newest first.
pub(crate) fn snapshots(kept: &[Snapshot]) -> String {
    let shown: Vec<String> = kept.iter().map(|kept| format!("snapshot {}", kept.id.last)).collect();
    if shown.is_empty() { "no snapshot".into() } else { shown.join(", ") }
}

/// What a message says.
pub(crate) fn message(message: &Message) -> String {
    match message {
        Message::Raft(message) => raft_message(message),
        Message::Forward(forward) => {
            let payloads: Vec<String> = forward
                .proposals
                .iter()
                .map(|p| String::from_utf8_lossy(p.payload.bytes()).into_owned())
                .collect();
            format!("Forward [{}]", payloads.join(", "))
        }
        Message::ForwardReply(reply) => {
            let outcomes: Vec<String> =
                reply.outcomes.iter().map(|(at, o)| format!("{at}: {}", outcome(o))).collect();
            format!("ForwardReply [{}]", outcomes.join(", "))
        }
        Message::Snapshot(SnapshotMessage::Fetch { id, offset, bytes_max }) => {
            format!("SnapshotFetch {} from={offset} bytes_max={bytes_max}", id.last)
        }
        Message::Snapshot(SnapshotMessage::Piece { id, offset, bytes }) => {
            format!("SnapshotPiece {} from={offset} bytes={}", id.last, bytes.len())
        }
        Message::Snapshot(SnapshotMessage::Gone { id }) => format!("SnapshotGone {}", id.last),
        Message::Read(ReadMessage::Ask { id, .. }) => format!("ReadAsk #{id}"),
        Message::Read(ReadMessage::Answer { id, index: Some(index) }) => {
            format!("ReadAnswer #{id} {index}")
        }
        Message::Read(ReadMessage::Answer { id, index: None }) => format!("ReadAnswer #{id} no"),
        Message::Snapshot(SnapshotMessage::Want { least }) => format!("SnapshotWant {least}"),
        Message::Snapshot(SnapshotMessage::Have { id }) => format!("SnapshotHave {}", id.last),
    }
}

fn raft_message(message: &RaftMessage) -> String {
    let term = message.term;
    let name = message.name();
    let rest = match &message.body {
        RaftBody::PreVote(request) => format!("last={}", request.last),
        RaftBody::Vote(request) => {
            format!("last={}{}", request.last, if request.transfer { " transfer" } else { "" })
        }
        RaftBody::PreVoteReply(reply) | RaftBody::VoteReply(reply) => {
            if reply.granted {
                "granted".into()
            } else {
                "refused".into()
            }
        }
        RaftBody::Append(append) => {
            let list = entries(&append.entries);
            format!("prev={} [{list}] commit={}", append.prev, append.commit)
        }
        RaftBody::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { matched, storage_full: false } => format!("matched={matched}"),
            AppendOutcome::Matched { matched, storage_full: true } => {
                format!("matched={matched} full")
            }
            AppendOutcome::Rejected { prev, hint } => format!("rejected prev={prev} hint={hint}"),
        },
        RaftBody::Heartbeat(heartbeat) => format!("commit={}", heartbeat.commit),
        RaftBody::SnapshotOffer(offer) => {
            format!("snapshot={} commit={}", offer.id.last, offer.commit)
        }
        RaftBody::HeartbeatReply(_) | RaftBody::TimeoutNow => String::new(),
    };
    format!("t{term} {name} {rest}").trim_end().to_owned()
}

/// What a write changes.
pub(crate) fn write(op: &WriteOp) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = op.hard_state {
        let vote = hard_state.vote.map_or("nobody".into(), |id| id.to_string());
        parts.push(format!("term={} vote={vote}", hard_state.term));
    }
    if let Some(from) = op.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    if let Some(base) = &op.base {
        parts.push(format!("begin behind {}", base.id));
    }
    if !op.entries.is_empty() {
        parts.push(format!("append [{}]", entries(&op.entries)));
    }
    format!("#{} {}", op.id.seq, parts.join("; "))
}

/// An event, in words.
pub(crate) fn event(event: &Event) -> String {
    match event {
        Event::Role { role, term } => format!("{role} in t{term}"),
        Event::Leader { leader, term: _ } => match leader {
            Some(id) => format!("knows leader {id}"),
            None => "knows no leader".into(),
        },
        Event::Ready { term } => format!("ready in t{term}"),
        Event::Membership { index, membership: _ } => format!("membership of entry {index}"),
        Event::PeerUp { peer } => format!("link to {peer} up"),
        Event::PeerDown { peer, reason } => format!("link to {peer} down: {reason}"),
        Event::PeerRefused { peer, disk: _, reason } => format!("refuses {peer}: {reason}"),
        Event::Nonsense { from, what } => format!("drops nonsense from {from}: {what}"),
        Event::Healed { upto } => format!("healed up to {upto}"),
        Event::PeerStalled { peer, matched, last } => {
            format!("peer {peer} stands still at {matched} of {last}")
        }
        Event::NetworkTrouble { detail } => format!("network trouble: {detail}"),
        Event::StorageTrouble { detail } => format!("storage trouble: {detail}"),
        Event::StorageFull { full } => format!("storage full: {full}"),
        Event::Snapshot { phase, peer, index, bytes, total_bytes } => {
            let peer = peer.map_or(String::new(), |peer| format!(" with {peer}"));
            format!("snapshot of {index} {phase}{peer}: {bytes} of {total_bytes} bytes")
        }
        Event::Transfer { to, phase, detail } => {
            let colon = if detail.is_empty() { "" } else { ": " };
            format!("transfer to {to} {phase}{colon}{detail}")
        }
        Event::Faulted(reason) => format!("FAULT: {reason}"),
        Event::Dropped { total } => format!("{total} events dropped"),
    }
}

/// How a call ended.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(done) => format!("done {}", LogId::new(done.term, done.index)),
        Outcome::Refused(why) => format!("refused: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

/// What has happened to a member, in numbers.
pub(crate) fn counts(id: NodeId, counts: &Counts) -> String {
    let commits = &counts.commit_us;
    format!(
        "{id}: won={} lost={} timed-out={} not-begun={} leaders={} commits={} in {}ms",
        counts.elections_won,
        counts.elections_lost,
        counts.elections_timed_out,
        counts.elections_not_begun,
        counts.leader_changes,
        commits.count(),
        commits.sum() / 1000,
    )
}

/// One line of state, and one for each peer that a leader follows.
pub(crate) fn status(id: NodeId, status: &Status, newest: Option<&Snapshot>) -> Vec<String> {
    let vote = status.vote.map_or("nobody".into(), |id| id.to_string());
    let leader = status.leader.map_or("none".into(), |id| id.to_string());
    let mut line = format!(
        "{id}: {} t{} vote={vote} leader={leader} last={} durable={} commit={} applied={}",
        status.role, status.term, status.last, status.durable, status.commit, status.applied,
    );
    if status.base != LogId::ZERO {
        line += &format!(" base={}", status.base);
    }
    if let Some(newest) = newest {
        line += &format!(" snapshot={}", newest.id.last);
    }
    if let Some(damage) = &status.damage {
        line += &format!(" {}", self::damage(damage));
    }
    let mut lines = vec![line];
    for peer in &status.peers {
        lines.push(format!(
            "   peer {}: {} matched={} next={} in-flight={}",
            peer.id, peer.mode, peer.matched, peer.next, peer.in_flight
        ));
    }
    lines
}

/// What a disk has lost.
pub(crate) fn damage(damage: &Damage) -> String {
    let known = damage.lost.last_known.map_or("unknown".into(), |id| id.to_string());
    format!("damaged from {} (last was {known})", damage.first_faulty)
}
