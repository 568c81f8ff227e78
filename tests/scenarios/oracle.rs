//! What must be true after every step, whatever happened: Raft's own properties, and the rule that a
//! promise follows the write behind it.

use std::collections::{BTreeMap, BTreeSet};

use raftz_core::types::{
    AppendOutcome, Entries, Entry, Index, LogId, Message, NodeId, RaftBody, Role, Snapshot, Term,
    WriteOp,
};

use super::cluster::Node;
use super::disk::Log;
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
    /// Every snapshot that was ever complete: those of one entry are the same everywhere.
    snapshots: BTreeMap<LogId, Snapshot>,
    /// How often a machine was restored while its node ran.
    pub(crate) restored: u64,
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

    /// A node issues a write in this term. What is committed leaves its log only for a snapshot that covers
    /// it and that its machine has been restored from, or has gone through by itself.
    pub(crate) fn on_write(&mut self, node: &Node, term: Term, op: &WriteOp) {
        let (id, log) = (node.id, &node.log);
        if let Some(base) = &op.base {
            let last = base.id;
            assert!(self.is_committed(last), "{id}: a log begins behind {last}, not committed");
            assert!(last.index <= node.machine.applied, "{id}: its machine is not at {last}");
            let covers = |kept: &Snapshot| kept.id.last.index >= last.index;
            let covered = node.snapshots().iter().any(covers);
            assert!(covered, "{id}: no snapshot covers a log that begins behind {last}");
        }
        let kept =
            op.base.as_ref().filter(|base| !log.holds(base.id)).map(|base| base.id.index.next());
        let gone = [op.truncate_from, kept].into_iter().flatten().min();
        for entry in gone.map_or(&[][..], |from| log.from(from)) {
            let at = entry.index.0 as usize - 1;
            let lost = self.committed_in.get(at).is_some_and(|committed_in| *committed_in <= term)
                && self.committed[at].id() == entry.id();
            assert!(self.lenient || !lost, "{id} truncates the committed entry {}", entry.id());
        }
        let mut before = log.clone();
        before.edit(&WriteOp { entries: Entries::new(), ..op.clone() });
        let mut prev = before.last();
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
                if let AppendOutcome::Matched { matched, .. } = reply.outcome {
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
        let lacks_snapshot = replica.raft().lacks_snapshot();
        assert!(
            status.base.index <= status.applied || lacks_snapshot,
            "{id}: its log begins above what is applied"
        );
        if status.role == Role::Leader {
            self.on_leader(id, node, status.term);
            let news = status.commit > node.commit_seen;
            assert!(
                !news || node.log.entry(status.commit).is_some_and(|it| it.term == status.term),
                "{id} commits an entry of an old term by itself"
            );
            if !self.lenient {
                for peer in &status.peers {
                    check_match(node, &nodes[&peer.id], peer.matched, status.term);
                }
            }
        }
        // What lies below the base was committed by somebody else before.
        assert!(self.is_committed(node.log.base.id), "{id}: its base is not committed");
        let known = node.commit_seen.max(node.log.base.id.index);
        for at in known.0 + 1..=status.commit.0 {
            let entry = node.log.entry(Index(at)).expect("a commit without its entry");
            self.on_commit(id, status.term, entry, nodes);
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
                *committed_in >= term
                    || (at as u64) < node.log.base.id.index.0
                    || node.log.holds(decided.id()),
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
            lost || disk.log.base.id.index >= entry.index || disk.log.holds(entry.id())
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

    fn is_committed(&self, id: LogId) -> bool {
        let at = (id.index.0 as usize).checked_sub(1);
        at.map_or(id == LogId::ZERO, |at| self.committed.get(at).map(Entry::id) == Some(id))
    }

    /// A snapshot is complete on a node.
    pub(crate) fn on_snapshot(&mut self, id: NodeId, snapshot: &Snapshot) {
        let last = snapshot.id.last;
        assert!(self.is_committed(last), "{id}: a snapshot of {last}, which is not committed");
        let first = self.snapshots.entry(last).or_insert_with(|| snapshot.clone());
        assert_eq!(first, snapshot, "{id}: two snapshots of {last}");
    }

    /// A node's machine stands at `index`.
    pub(crate) fn on_applied(&self, id: NodeId, index: Index, state: u64) {
        let at = index.0 as usize - 1;
        assert!(at < self.states.len(), "{id} applies {index}, which is not committed");
        assert_eq!(self.states[at], state, "{id}: another state after {index}");
    }

    /// A node's machine was restored, and stands at `index`.
    pub(crate) fn on_restored(&mut self, id: NodeId, index: Index, state: u64) {
        self.on_applied(id, index, state);
        self.restored += 1;
    }

    /// The state after `index`, if that is committed.
    pub(crate) fn state_after(&self, index: Index) -> Option<u64> {
        self.states.get((index.0 as usize).checked_sub(1)?).copied()
    }
}

fn last_of(node: &Node) -> LogId {
    node.log.last()
}

/// What a leader believes matched is on that peer's disk.
fn check_match(leader: &Node, peer: &Node, matched: Index, term: Term) {
    if matched == Index::ZERO || peer.disk.hard_state.term > term || peer.disk.damage.is_some() {
        return;
    }
    let id_at = |log: &Log| log.entry(matched).map(Entry::id);
    let (ours, theirs) = (id_at(&leader.log), id_at(&peer.disk.log));
    if matched <= leader.log.base.id.index.max(peer.disk.log.base.id.index) {
        // Committed on both, so equal; the bases are checked against what was decided.
        let ends = peer.disk.last().index;
        return assert!(matched <= ends, "{} credits {} with {matched}", leader.id, peer.id);
    }
    assert_eq!(ours, theirs, "{} credits {} with {matched}", leader.id, peer.id);
}
