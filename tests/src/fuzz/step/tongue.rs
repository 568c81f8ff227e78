//! What the others say: any message, aimed so that it often hits something.
//!
//! A message is read as: how its term relates to the member's, its kind, then the fields. Fields are taken
//! from what the member itself has said or holds as often as they are made up.

use std::collections::BTreeMap;

use raftz_core::replica::Replica;
use raftz_core::types::encode::encode;
use raftz_core::types::{
    Append, AppendOutcome, AppendReply, Done, Entry, EntryKind, Forward, ForwardReply,
    ForwardedProposal, Heartbeat, HeartbeatReply, Index, LogId, Member, Membership, Message,
    NodeId, Outcome, Payload, PreVote, RaftBody, RaftMessage, Refusal, Reply, SessionTag, Settings,
    SnapshotId, SnapshotMessage, SnapshotOffer, Term, Unknown, Vote, VoteReply,
};

use super::node;
use crate::fuzz::tape::Tape;

/// What the member has told the others, for them to refer to.
#[derive(Default)]
pub(super) struct Heard {
    round: u64,
    sessions: BTreeMap<NodeId, u64>,
    pub(super) forwarded: u64,
}

impl Heard {
    pub(super) fn note(&mut self, to: NodeId, message: &Message) {
        match message {
            Message::Raft(RaftMessage { body, .. }) => match body {
                RaftBody::PreVote(PreVote { round, .. }) | RaftBody::Vote(Vote { round, .. }) => {
                    self.round = *round;
                }
                RaftBody::Append(Append { session, .. })
                | RaftBody::Heartbeat(Heartbeat { session, .. }) => {
                    self.sessions.insert(to, *session);
                }
                RaftBody::PreVoteReply(_)
                | RaftBody::VoteReply(_)
                | RaftBody::AppendReply(_)
                | RaftBody::HeartbeatReply(_)
                | RaftBody::TimeoutNow
                | RaftBody::SnapshotOffer(_) => {}
            },
            Message::Forward(forward) => self.forwarded = forward.id,
            Message::ForwardReply(_) | Message::Snapshot(_) | Message::Read(_) => {}
        }
    }
}

struct Speaker<'a, 'b> {
    tape: &'a mut Tape<'b>,
    from: NodeId,
    replica: &'a Replica,
    heard: &'a Heard,
}

/// The next message on the tape.
pub(super) fn message(
    tape: &mut Tape<'_>,
    from: NodeId,
    replica: &Replica,
    heard: &Heard,
) -> Message {
    let mut speaker = Speaker { tape, from, replica, heard };
    let own = replica.raft().term();
    let term = match speaker.tape.below(8) {
        0 | 2..=4 => own,
        1 | 5 => own.next(),
        6 => Term(own.0.saturating_sub(1)),
        _ => Term(speaker.tape.number()),
    };
    match speaker.body(term) {
        Ok(body) => Message::Raft(RaftMessage { term, body }),
        Err(message) => message,
    }
}

impl Speaker<'_, '_> {
    fn body(&mut self, term: Term) -> Result<RaftBody, Message> {
        // The highest bytes stand for the kinds of snapshots, so that older inputs keep their meaning.
        let kind = match self.tape.byte() {
            240..=247 => 12,
            248.. => 13,
            byte => byte % 12,
        };
        Ok(match kind {
            0 => RaftBody::PreVote(PreVote { round: self.tape.number(), last: self.log_id() }),
            1 => RaftBody::PreVoteReply(self.vote_reply()),
            2 => {
                let (round, last) = (self.tape.number(), self.log_id());
                RaftBody::Vote(Vote { round, last, transfer: self.tape.flag() })
            }
            3 => RaftBody::VoteReply(self.vote_reply()),
            4 | 9 => {
                let (session, prev) = (self.tape.number(), self.log_id());
                let (commit, entries) = (self.index(), self.entries(prev, term).into());
                RaftBody::Append(Append { session, prev, commit, entries })
            }
            5 | 10 => {
                let session = self.session();
                let outcome = if self.tape.below(4) < 3 {
                    {
                        let matched = self.index();
                        AppendOutcome::Matched { matched, storage_full: matched.0 & 1 > 0 }
                    }
                } else {
                    AppendOutcome::Rejected { prev: self.index(), hint: self.log_id() }
                };
                RaftBody::AppendReply(AppendReply { session, outcome })
            }
            6 => {
                let (session, round) = (self.tape.number(), self.tape.number());
                let (commit, clock) = (self.log_id(), self.tape.number());
                let (sent_us, confirmed_clock_us) = (clock, clock);
                RaftBody::Heartbeat(Heartbeat {
                    session,
                    round,
                    commit,
                    sent_us,
                    confirmed_clock_us,
                    faith_us: clock >> 1,
                })
            }
            7 => {
                let (session, round) = (self.session(), self.tape.number());
                let (sent_us, clock_us) = (self.tape.number(), self.tape.number());
                let (faith_us, fitness) = (clock_us, round as u8);
                let storage_full = round & 1 > 0;
                let reply = HeartbeatReply {
                    session,
                    round,
                    sent_us,
                    clock_us,
                    faith_us,
                    fitness,
                    storage_full,
                };
                RaftBody::HeartbeatReply(reply)
            }
            8 => RaftBody::TimeoutNow,
            12 => {
                let (session, id) = (self.tape.number(), self.snapshot_id());
                RaftBody::SnapshotOffer(SnapshotOffer { session, id, commit: self.index() })
            }
            13 => return Err(Message::Snapshot(self.snapshot())),
            _ => return Err(self.forward()),
        })
    }

    fn snapshot(&mut self) -> SnapshotMessage {
        let (id, offset) = (self.snapshot_id(), self.tape.number());
        match self.tape.below(6) {
            0 => SnapshotMessage::Gone { id },
            4 => SnapshotMessage::Want { least: self.index() },
            5 => SnapshotMessage::Have { id },
            1 => SnapshotMessage::Fetch { id, offset, bytes_max: self.tape.number() as u32 },
            _ => SnapshotMessage::Piece { id, offset, bytes: self.payload().bytes().clone() },
        }
    }

    fn snapshot_id(&mut self) -> SnapshotId {
        let (last, bytes) = (self.log_id(), self.tape.number());
        SnapshotId { last, bytes, hash: [self.tape.byte(); 32] }
    }

    fn forward(&mut self) -> Message {
        if self.tape.flag() {
            let proposals = (0..self.tape.below(4)).map(|_| ForwardedProposal {
                payload: self.payload(),
                session: self.tape.flag().then(|| SessionTag {
                    session: self.tape.number(),
                    sequence: self.tape.number(),
                    acked_below: self.tape.number(),
                }),
            });
            let proposals = proposals.collect();
            let (id, patience_us) = (self.tape.number(), self.tape.number());
            return Message::Forward(Forward { id, patience_us, proposals });
        }
        let id = if self.tape.below(4) < 3 { self.heard.forwarded } else { self.tape.number() };
        let outcomes = (0..self.tape.below(4)).map(|_| {
            let position = self.tape.number() as u32;
            let outcome = match self.tape.below(3) {
                0 => {
                    let reply = Reply::Ok(self.payload().bytes().clone());
                    Outcome::Done(Done { index: self.index(), term: Term(1), reply })
                }
                1 => Outcome::Refused(Refusal::Overwritten),
                _ => Outcome::Unknown(Unknown::Timeout),
            };
            (position, outcome)
        });
        Message::ForwardReply(ForwardReply { id, outcomes: outcomes.collect() })
    }

    fn vote_reply(&mut self) -> VoteReply {
        let round = if self.tape.below(8) < 7 { self.heard.round } else { self.tape.number() };
        let granted = self.tape.below(4) < 3;
        VoteReply { round, granted, last: LogId::ZERO }
    }

    fn session(&mut self) -> u64 {
        match self.tape.below(8) {
            7 => self.tape.number(),
            _ => self.heard.sessions.get(&self.from).copied().unwrap_or(1),
        }
    }

    /// Around the end of the log, or anything.
    fn index(&mut self) -> Index {
        let last = self.replica.raft().status().last.index;
        match self.tape.below(8) {
            0..=3 => last,
            4 => last.plus(1 + self.tape.below(4) as u64),
            5 | 6 => Index(last.0.saturating_sub(self.tape.below(8) as u64)),
            _ => Index(self.tape.number()),
        }
    }

    /// The member's own entry there, or another one.
    fn log_id(&mut self) -> LogId {
        let index = self.index();
        match self.replica.raft().term_at(index) {
            Some(term) if self.tape.below(8) < 7 => LogId::new(term, index),
            Some(_) | None => LogId::new(Term(self.tape.number()), index),
        }
    }

    fn payload(&mut self) -> Payload {
        let length = self.tape.below(120);
        Payload::new(vec![self.tape.byte(); length])
    }

    /// A run of entries behind `prev`, most of them in order.
    fn entries(&mut self, prev: LogId, leader: Term) -> Vec<Entry> {
        let mut at = prev;
        let count = self.tape.below(5);
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let term = match self.tape.below(8) {
                0..=3 => leader.max(at.term),
                4 | 5 => at.term,
                6 => at.term.next(),
                _ => Term(self.tape.number()),
            };
            let index = if self.tape.below(32) < 31 { at.index.next() } else { self.index() };
            at = LogId::new(term, index);
            let (kind, payload) = self.content();
            let log_time_us = index.0.saturating_add(1000);
            let session = None;
            entries.push(Entry { term, index, log_time_us, kind, session, payload });
        }
        entries
    }

    fn content(&mut self) -> (EntryKind, Payload) {
        match self.tape.below(16) {
            0..=9 => (EntryKind::Command, self.payload()),
            10 | 11 => (EntryKind::Noop, Payload::empty()),
            12 | 13 => {
                let membership = self.membership();
                (
                    EntryKind::Membership,
                    membership.to_payload().unwrap_or_else(|_| Payload::empty()),
                )
            }
            14 => {
                let bytes = self.tape.take(12).to_vec();
                let kind =
                    if self.tape.flag() { EntryKind::Settings } else { EntryKind::Membership };
                (kind, Payload::new(bytes))
            }
            _ if self.tape.flag() => {
                let mut settings = Settings { entry_bytes_max: 150, ..Settings::default() };
                settings.feature_level = self.tape.number() as u32;
                settings.election_timeout_min_ms = self.tape.number();
                (EntryKind::Settings, Payload::new(encode(&settings).unwrap_or_default()))
            }
            _ => (EntryKind::Unknown(self.tape.byte()), self.payload()),
        }
    }

    /// Any membership, whole or joint, sensible or not.
    fn membership(&mut self) -> Membership {
        let (members, voters, outgoing) = (self.tape.byte(), self.tape.byte(), self.tape.byte());
        let of = |bits: u8| (1..8).filter(move |id| bits >> id & 1 == 1).map(node);
        let members = of(members).map(|id| (id, Member::at("10.0.0.9:1")));
        let mut membership = Membership::of_voters(members);
        membership.voters = of(voters).collect();
        membership.outgoing = of(outgoing).collect();
        membership
    }
}
