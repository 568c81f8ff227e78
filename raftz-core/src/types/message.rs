//! What nodes say to each other. The sender, the receiver and the group stand in the frame around
//! a message, never in it.

use bytes::Bytes;

use super::{Entries, Index, LogId, Outcome, Payload, SessionTag, SnapshotId, Term};

/// Everything that travels between two members of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Consensus.
    Raft(RaftMessage),
    /// A follower hands callers' proposals to the leader.
    Forward(Forward),
    /// The leader's answer to a [`Message::Forward`].
    ForwardReply(ForwardReply),
    /// A snapshot is fetched, piece by piece.
    Snapshot(SnapshotMessage),
    /// A follower asks the leader what its callers may read.
    Read(ReadMessage),
}

/// A consensus message: the sender's term and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// The sender's term; in a [`RaftBody::PreVote`], the term that it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: RaftBody,
}

/// The kinds of consensus message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftBody {
    /// "Would you vote for me?" Changes nothing on its receiver.
    PreVote(PreVote),
    /// The answer to a pre-vote, from a voter at `term`.
    PreVoteReply(VoteReply),
    /// "Vote for me." Sent only once the candidate's own vote is durable.
    Vote(Vote),
    /// The answer to a vote. A grant is sent only once it is durable.
    VoteReply(VoteReply),
    /// Entries after `prev`; without entries it probes whether `prev` matches.
    Append(Append),
    /// The answer to an append. A match is sent only once it is durable.
    AppendReply(AppendReply),
    /// "I lead, and this much is committed." Never truncates, never proves a match.
    Heartbeat(Heartbeat),
    /// The answer to a heartbeat: contact, nothing about the log.
    HeartbeatReply(HeartbeatReply),
    /// "Campaign now, without pre-vote": leadership is handed over.
    TimeoutNow,
    /// "The entries that you need are gone; fetch this snapshot, then answer as to an append that
    /// ended at its `id.last`."
    SnapshotOffer(SnapshotOffer),
}

/// A pre-vote request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreVote {
    /// Names this attempt; the reply repeats it.
    pub round: u64,
    /// Last entry of the asker's log.
    pub last: LogId,
}

/// A vote request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Names this attempt; the reply repeats it.
    pub round: u64,
    /// Last entry of the candidate's log.
    pub last: LogId,
    /// The old leader asked for this election, so voters need not keep faith with it.
    pub transfer: bool,
}

/// A voter's answer, to either kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The attempt that it answers.
    pub round: u64,
    /// Whether the voter grants.
    pub granted: bool,
    /// Last entry of the voter's log, so that a refused asker can see why.
    pub last: LogId,
}

/// Entries to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's replication session with this peer; the reply repeats it.
    pub session: u64,
    /// The entry right before the first one here.
    pub prev: LogId,
    /// The leader's commit index.
    pub commit: Index,
    /// The entries, in order, without gaps.
    pub entries: Entries,
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// The replication session of the append that it answers.
    pub session: u64,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to `matched`, durably.
    Matched {
        /// Last index of the durable match.
        matched: Index,
        /// The follower's disk is almost full: it took no entries but those that a leader needs to begin.
        storage_full: bool,
    },
    /// The follower does not hold `prev`.
    Rejected {
        /// Index of the `prev` that was refused: tells which probe this answers.
        prev: Index,
        /// The follower's last entry at or below `prev` whose term is not above `prev`'s.
        hint: LogId,
    },
}

/// A leader's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The replication session; the reply repeats it.
    pub session: u64,
    /// Counts the leader's heartbeat rounds in its term; a read is confirmed by replies to a
    /// round that began after it.
    pub round: u64,
    /// The last committed entry. The term proves the prefix: a follower that holds this very
    /// entry holds everything before it, too.
    pub commit: LogId,
    /// The leader's clock when it sent this; the reply repeats it.
    pub sent_us: u64,
    /// The receiver's own clock out of its last reply, once a quorum had confirmed that round;
    /// 0 before. Bounds the age of what the receiver knows.
    pub confirmed_clock_us: u64,
    /// For so long the leader would like nobody else to be helped into office: it wants a lease. 0: it does not.
    pub faith_us: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The replication session of the heartbeat.
    pub session: u64,
    /// The round of the heartbeat.
    pub round: u64,
    /// The leader's clock out of the heartbeat.
    pub sent_us: u64,
    /// The replier's own clock.
    pub clock_us: u64,
    /// For so long from here on the replier helps nobody else into office. 0: it promises nothing.
    pub faith_us: u64,
    /// How well the replier would lead, compared with others; 0: better not.
    pub fitness: u8,
    /// The replier's disk is almost full: it takes no entries but those that a leader needs to begin.
    pub storage_full: bool,
}

/// A snapshot in place of entries that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The leader's replication session with this peer; the reply repeats it.
    pub session: u64,
    /// The snapshot to fetch.
    pub id: SnapshotId,
    /// The leader's commit index.
    pub commit: Index,
}

/// Proposals handed to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Names this batch for its sender; the reply repeats it.
    pub id: u64,
    /// Microseconds that its callers still wait.
    pub patience_us: u64,
    /// The proposals, in order.
    pub proposals: Vec<ForwardedProposal>,
}

/// One forwarded proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedProposal {
    /// The command.
    pub payload: Payload,
    /// Its session mark, if any.
    pub session: Option<SessionTag>,
}

/// Outcomes of forwarded proposals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardReply {
    /// The batch that it answers.
    pub id: u64,
    /// (position in the batch, outcome). A batch may be answered in several replies.
    pub outcomes: Vec<(u32, Outcome)>,
}

/// What two nodes say while one fetches a snapshot from the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotMessage {
    /// Asks for bytes of a snapshot from `offset` on.
    Fetch {
        /// Which snapshot.
        id: SnapshotId,
        /// Where the wanted bytes begin.
        offset: u64,
        /// How many bytes are wanted at most.
        bytes_max: u32,
    },
    /// Bytes of it.
    Piece {
        /// Which snapshot.
        id: SnapshotId,
        /// Where they begin.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// It is not here (any more).
    Gone {
        /// Which snapshot.
        id: SnapshotId,
    },
    /// Any snapshot is wanted that covers this entry: the one that did cannot be read, and the log has it no more.
    Want {
        /// The entry.
        least: Index,
    },
    /// Such a one is here.
    Have {
        /// Which snapshot.
        id: SnapshotId,
    },
}

/// What a follower and its leader say to each other about reads (dissertation 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMessage {
    /// How much must be applied before an answer holds all that was acknowledged when this was asked?
    Ask {
        /// Names the question for its sender; the answer repeats it.
        id: u64,
        /// Whether the leader may answer by its lease.
        by_lease: bool,
    },
    /// The answer.
    Answer {
        /// The question.
        id: u64,
        /// Everything up to here; `None` from a node that does not lead.
        index: Option<Index>,
    },
}

impl RaftMessage {
    /// The message kind's name in transcripts and logs.
    pub const fn name(&self) -> &'static str {
        match self.body {
            RaftBody::PreVote(_) => "PreVote",
            RaftBody::PreVoteReply(_) => "PreVoteReply",
            RaftBody::Vote(_) => "Vote",
            RaftBody::VoteReply(_) => "VoteReply",
            RaftBody::Append(_) => "Append",
            RaftBody::AppendReply(_) => "AppendReply",
            RaftBody::Heartbeat(_) => "Heartbeat",
            RaftBody::HeartbeatReply(_) => "HeartbeatReply",
            RaftBody::TimeoutNow => "TimeoutNow",
            RaftBody::SnapshotOffer(_) => "SnapshotOffer",
        }
    }
}
