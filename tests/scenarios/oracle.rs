//! What must be true after every step, whatever happened: Raft's own properties, and the rule that a
//! promise follows the write behind it.

use std::collections::{BTreeMap, BTreeSet};

use raftz_core::types::{
    AppendOutcome, Entry, Index, LogId, Message, NodeId, RaftBody, Role, Term, WriteOp,
};

use super::cluster::Node;
use super::machine::next_state;

/// Everything that has ever been promised or decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every entry ever appended anywhere, and the identity of the one before it: with both unique per
    /// identity, equal identities imply equal prefixes (Log Matching).
    entries: BTreeMap<LogId, (LogId, Entry)>,
    /// The committed prefix; index 1 stands at 0.
    pub(crate) committed: Vec<Entry>,
    /// The term in which each of them was committed: what holds from then on holds for nodes and
    /// leaders of later terms alone.
    committed_in: Vec<Term>,
    /// The machine's state after each committed entry.
    states: Vec<u64>,
    pub(crate) voters: BTreeSet<NodeId>,
    /// Messages of hand, damage and the like may break what only honest nodes guarantee.
    pub(crate) lenient: bool,
}

impl Oracle {
    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// A log entry came into being on some node, after `prev`.
    pub(crate) fn on_entry(&mut self, prev: LogId, entry: &Entry) {
        if self.lenient {
            return;
        }
        let (known_prev, known) =
            self.entries.entry(entry.id()).or_insert_with(|| (prev, entry.clone()));
        assert_eq!(*known_prev, prev, "log matching: two predecessors of {}", entry.id());
        assert_eq!(known, entry, "log matching: two contents of {}", entry.id());
    }

    /// A node of this term issues a write. `log` is its log before.
    pub(crate) fn on_write(&mut self, id: NodeId, term: Term, log: &[Entry], op: &WriteOp) {
        let keep = op.truncate_from.map_or(log.len(), |from| from.prev().0 as usize);
        for entry in log.get(keep..).unwrap_or(&[]) {
            let at = entry.index.0 as usize - 1;
            let lost = self.committed_in.get(at).is_some_and(|committed_in| *committed_in <= term)
                && self.committed[at].id() == entry.id();
            assert!(self.lenient || !lost, "{id} truncates the committed entry {}", entry.id());
        }
        let mut prev = keep.checked_sub(1).map_or(LogId::ZERO, |at| log[at].id());
        for entry in &op.entries {
            self.on_entry(prev, entry);
            prev = entry.id();
        }
    }

    /// A node speaks: nothing is promised that its disk does not hold.
    pub(crate) fn on_send(&mut self, node: &Node, to: NodeId, message: &Message) {
        let Message::Raft(message) = message else { return };
        let (id, disk, term) = (node.id, &node.disk, message.term);
        let voted = match &message.body {
            RaftBody::Vote(_) => Some(id),
            RaftBody::VoteReply(reply) if reply.granted => Some(to),
            RaftBody::AppendReply(reply) => {
                if let AppendOutcome::Matched { matched } = reply.outcome {
                    assert!(
                        matched <= disk.last().index,
                        "{id} acknowledges {matched} to {to}, its disk ends at {}",
                        disk.last()
                    );
                    assert!(
                        disk.hard_state.term >= term,
                        "{id} acknowledges in a term not durable"
                    );
                }
                None
            }
            RaftBody::Append(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => {
                assert!(disk.hard_state.term >= term, "{id} leads in a term that is not durable");
                None
            }
            RaftBody::VoteReply(_)
            | RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::HeartbeatReply(_) => None,
        };
        if let Some(voted) = voted {
            assert_eq!(
                (disk.hard_state.term, disk.hard_state.vote),
                (term, Some(voted)),
                "{id} tells a vote that is not durable"
            );
            let first = *self.votes.entry((id, term)).or_insert(voted);
            assert_eq!(first, voted, "{id} votes twice in t{term}");
        }
    }

    /// A node has finished a step. `nodes` is everybody, dead or alive.
    pub(crate) fn on_step(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, Node>) {
        let node = &nodes[&id];
        let Some(replica) = &node.replica else { return };
        if node.halted.is_some() {
            // Stopped in the middle of a step, which has therefore come to nothing.
            return;
        }
        let status = replica.raft().status();
        assert_eq!(status.last, last_of(node), "{id}: the log differs from what was written");
        assert_eq!(
            status.durable.0.min(node.disk.last().index.0),
            status.durable.0,
            "{id} believes more durable than its disk holds"
        );
        assert!(status.commit <= status.last.index, "{id} commits beyond its log");
        assert!(status.applied <= status.commit, "{id} applied beyond its commit index");
        assert!(status.commit >= node.commit_seen, "{id}: the commit index went back");
        if status.role == Role::Leader {
            self.on_leader(id, node, status.term);
            let news = status.commit > node.commit_seen;
            assert!(
                !news || node.log[status.commit.0 as usize - 1].term == status.term,
                "{id} commits an entry of an old term by itself"
            );
            if !self.lenient {
                for peer in &status.peers {
                    check_match(node, &nodes[&peer.id], peer.matched, status.term);
                }
            }
        }
        for at in node.commit_seen.0 as usize..status.commit.0 as usize {
            self.on_commit(id, status.term, &node.log[at], nodes);
        }
    }

    fn on_leader(&mut self, id: NodeId, node: &Node, term: Term) {
        if self.leaders.contains_key(&term) {
            assert_eq!(self.leaders[&term], id, "two leaders in t{term}");
            return;
        }
        self.leaders.insert(term, id);
        if self.lenient {
            return;
        }
        // Its own vote is told to nobody where nobody else votes.
        if (node.disk.hard_state.term, node.disk.hard_state.vote) == (term, Some(id)) {
            self.votes.insert((id, term), id);
        }
        let votes = self.voters.iter().filter(|v| self.votes.get(&(**v, term)) == Some(&id));
        assert!(votes.count() >= self.majority(), "{id} leads t{term} without a majority of votes");
        for (at, (decided, committed_in)) in
            self.committed.iter().zip(&self.committed_in).enumerate()
        {
            assert!(
                *committed_in >= term || node.log.get(at).map(Entry::id) == Some(decided.id()),
                "leader {id} of t{term} lacks the committed entry {}",
                decided.id()
            );
        }
    }

    fn on_commit(&mut self, id: NodeId, term: Term, entry: &Entry, nodes: &BTreeMap<NodeId, Node>) {
        let at = entry.index.0 as usize - 1;
        if let Some(decided) = self.committed.get(at) {
            assert_eq!(decided, entry, "{id} commits another entry at {}", entry.index);
            return;
        }
        assert_eq!(self.committed.len(), at, "a commit leaves a gap");
        // A damaged disk that had the entry still answers for it: its node votes by what it had.
        let holds = |voter: &&NodeId| {
            let Some(disk) = nodes.get(voter).map(|node| &node.disk) else { return false };
            let lost = disk.damage.is_some_and(|damage| {
                entry.index >= damage.first_faulty
                    && damage.lost.last_known.is_none_or(|known| entry.id() <= known)
            });
            lost || disk.entry(entry.index).is_some_and(|held| held.id() == entry.id())
        };
        let durable = self.voters.iter().filter(holds).count();
        assert!(
            self.lenient || durable >= self.majority(),
            "{id} commits {}, which is durable on {durable} of {} voters",
            entry.id(),
            self.voters.len()
        );
        let state = self.states.last().copied().unwrap_or_default();
        self.states.push(next_state(state, entry.index, entry.payload.bytes()));
        self.committed.push(entry.clone());
        self.committed_in.push(term);
    }

    /// A node's machine stands at `index`.
    pub(crate) fn on_applied(&self, id: NodeId, index: Index, state: u64) {
        let at = index.0 as usize - 1;
        assert!(at < self.states.len(), "{id} applies {index}, which is not committed");
        assert_eq!(self.states[at], state, "{id}: another state after {index}");
    }

    /// The state after `index`, if that is committed.
    pub(crate) fn state_after(&self, index: Index) -> Option<u64> {
        self.states.get((index.0 as usize).checked_sub(1)?).copied()
    }
}

fn last_of(node: &Node) -> LogId {
    node.log.last().map_or(LogId::ZERO, Entry::id)
}

/// What a leader believes matched is on that peer's disk.
fn check_match(leader: &Node, peer: &Node, matched: Index, term: Term) {
    if matched == Index::ZERO || peer.disk.hard_state.term > term || peer.disk.damage.is_some() {
        return;
    }
    let ours = leader.log.get(matched.0 as usize - 1).map(Entry::id);
    let theirs = peer.disk.entry(matched).map(Entry::id);
    assert_eq!(ours, theirs, "{} credits {} with {matched}", leader.id, peer.id);
}
