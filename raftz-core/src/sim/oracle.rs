//! What must be true after every event, whatever happened.
//!
//! The oracle watches from outside: what each node asks its disk to write, what its disk said is durable,
//! what it sends, commits and applies, and what its directory gives back after a crash. It knows nothing of
//! how the nodes decide. Every entry has a *chain*, a hash of it and of all before it, so that comparing two
//! logs up to an index is comparing two numbers.
//!
//! It judges: one leader a term; one vote a term and node, over restarts, and for no log that ends before
//! what the voter has or had; nothing promised before it is durable, and no leader that believes a peer to hold
//! what its disk does not; equal identities with equal predecessors; a leader that only appends; each commit
//! durable on a majority, never changed, and held by each later leader; commands applied in order, once, with the
//! replies of a machine of its own; everything that a disk acknowledged there after any legal crash.

use std::collections::{BTreeMap, VecDeque};

use crate::machine::{Command, StateMachine};
use crate::raft::Raft;
use crate::types::{
    AppendOutcome, Base, Entry, EntryKind, HardState, Index, LogId, Message, NodeId, OpId,
    RaftBody, Recovered, Reply, Role, Snapshot, SnapshotId, Term, WriteOp,
};

use super::mix::{self, Mix};

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property that does not hold.
    pub property: &'static str,
    /// What happened, in one sentence.
    pub sentence: String,
    /// When, in virtual time since the beginning.
    pub at_us: u64,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.property, self.sentence)
    }
}

/// One place of a log, as the oracle remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    term: Term,
    chain: u64,
}

/// A write that a node has issued and its disk has not confirmed.
struct Issued {
    id: OpId,
    hard_state: Option<HardState>,
    truncate_from: Option<Index>,
    /// What a base that the log did not hold stands for: the log is this then.
    replaced: Option<Vec<Slot>>,
    first: Index,
    slots: Vec<Slot>,
}

/// One node from outside.
#[derive(Default)]
struct Shadow {
    /// Its log with all writes that it has issued.
    log: Vec<Slot>,
    /// What its disk has confirmed.
    durable: Vec<Slot>,
    hard_state: HardState,
    issued: VecDeque<Issued>,
    /// What was durable each time its disk was damaged: it still answers for that.
    had: Vec<Vec<Slot>>,
    /// Whether it has found the damage and is not whole again.
    is_hurt: bool,
    /// Whether its disk is another than it had: it answers for nothing that it said before.
    is_new: bool,
    /// The last vote that it asked its disk to write.
    vote: Option<(Term, NodeId)>,
    commit: Index,
    applied: Index,
    /// The last entry of its newest snapshot.
    snapshot: Index,
    term: Term,
    leads: Option<Term>,
}

impl Shadow {
    fn last(&self) -> LogId {
        id_of(&self.log, self.log.len())
    }

    /// The end of the best log that damage has taken from it.
    fn had_last(&self) -> LogId {
        self.had.iter().map(|log| id_of(log, log.len())).max().unwrap_or_default()
    }

    /// The end of the best log that it answers for.
    fn answers_for(&self) -> LogId {
        let had = if self.is_new { LogId::ZERO } else { self.had_last() };
        self.last().max(had)
    }

    fn holds(&self, index: Index, slot: Slot) -> bool {
        let at = position(index);
        self.had.iter().chain([&self.durable]).any(|log| log.get(at) == Some(&slot))
    }

    /// What is durable now is to be damaged, or was.
    fn remember(&mut self) {
        if !self.had.iter().any(|had| had.starts_with(&self.durable)) {
            self.had.push(self.durable.clone());
        }
    }
}

fn id_of(log: &[Slot], length: usize) -> LogId {
    let Some(at) = length.checked_sub(1) else { return LogId::ZERO };
    log.get(at).map_or(LogId::ZERO, |slot| LogId::new(slot.term, Index(length as u64)))
}

fn position(index: Index) -> usize {
    usize::try_from(index.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

fn extend(log: &mut Vec<Slot>, issued: &Issued) {
    if let Some(from) = issued.truncate_from {
        log.truncate(position(from));
    }
    if let Some(replaced) = &issued.replaced {
        log.clone_from(replaced);
    }
    if !issued.slots.is_empty() {
        log.truncate(position(issued.first));
        log.extend_from_slice(&issued.slots);
    }
}

/// An entry that some node has written at some time.
struct Known {
    slot: Slot,
    entry: Entry,
}

/// A committed entry.
struct Decided {
    slot: Slot,
    /// The highest term of a node that had committed up to here when it was first seen committed.
    seen_in: Term,
    at_us: u64,
    /// The hash of its reply, if it is a command.
    reply: Option<u64>,
    /// The hash of its payload.
    payload: u64,
}

/// All that is known from outside.
pub(super) struct Oracle {
    voters: Vec<NodeId>,
    shadows: BTreeMap<NodeId, Shadow>,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Where the logs of candidates ended when they stood.
    stood: BTreeMap<(NodeId, Term), LogId>,
    /// Every entry ever written, by index (1 stands at 0).
    known: Vec<Vec<Known>>,
    committed: Vec<Decided>,
    /// The first snapshot of each last entry: all others must be the same.
    snapshots: BTreeMap<LogId, Snapshot>,
    /// The machine that says what replies must be.
    reference: Box<dyn StateMachine>,
    pub(super) violation: Option<Violation>,
    pub(super) now_us: u64,
}

impl Oracle {
    pub(super) fn new(
        voters: Vec<NodeId>,
        members: impl Iterator<Item = NodeId>,
        reference: Box<dyn StateMachine>,
    ) -> Self {
        Self {
            voters,
            shadows: members.map(|id| (id, Shadow::default())).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            stood: BTreeMap::new(),
            known: Vec::new(),
            committed: Vec::new(),
            snapshots: BTreeMap::new(),
            reference,
            violation: None,
            now_us: 0,
        }
    }

    /// Notes the first violation; those that follow are its consequences.
    pub(super) fn object(&mut self, property: &'static str, sentence: String) {
        if self.violation.is_none() {
            let at_us = self.now_us;
            self.violation = Some(Violation { property, sentence, at_us });
        }
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    fn shadow(&mut self, id: NodeId) -> &mut Shadow {
        self.shadows.entry(id).or_default()
    }

    /// The slot of `entry` behind `chain`, which must be the only one of its identity.
    fn slot(&mut self, id: NodeId, chain: u64, entry: &Entry) -> Slot {
        let slot = Slot { term: entry.term, chain: Mix(chain).and(mix::of_entry(entry)).0 };
        let at = position(entry.index);
        if at >= self.known.len() {
            self.known.resize_with(at + 1, Vec::new);
        }
        match self.known[at].iter().find(|known| known.slot.term == entry.term) {
            None => self.known[at].push(Known { slot, entry: entry.clone() }),
            Some(known) if known.slot == slot => {}
            Some(_) => {
                let sentence = format!(
                    "node {id} holds another entry {}, or another log before it, than was seen before",
                    entry.id()
                );
                self.object("log matching", sentence);
            }
        }
        slot
    }

    // ---- disks ----

    /// A node of this role asks its disk to write.
    pub(super) fn on_write(&mut self, id: NodeId, raft: &Raft, op: &WriteOp) {
        let (role, term) = (raft.role(), raft.term());
        if let Some(HardState { term, vote: Some(candidate), .. }) = op.hard_state {
            self.on_vote_given(id, term, candidate);
        }
        if let Some(from) = op.truncate_from {
            if role == Role::Leader {
                let sentence = format!("leader {id} of term {term} truncates its log from {from}");
                self.object("leader append-only", sentence);
            }
            let lost = self.shadows.get(&id).and_then(|shadow| {
                let range = position(from)..shadow.log.len().min(self.committed.len());
                range.into_iter().find(|at| {
                    let decided = &self.committed[*at];
                    decided.seen_in <= term && decided.slot == shadow.log[*at]
                })
            });
            if let Some(at) = lost {
                let index = at + 1;
                let sentence =
                    format!("node {id} of term {term} truncates the committed entry {index}");
                self.object("leader completeness", sentence);
            }
        }
        let shadow = self.shadow(id);
        if let Some(from) = op.truncate_from {
            shadow.log.truncate(position(from));
        }
        let replaced = op.base.as_ref().and_then(|base| self.on_base(id, base));
        let shadow = self.shadow(id);
        if let Some(replaced) = &replaced {
            shadow.log.clone_from(replaced);
        }
        let first = op.entries.first().map_or(Index::ZERO, |entry| entry.index);
        let length = shadow.log.len();
        if !op.entries.is_empty() && position(first) != length {
            let sentence =
                format!("node {id} writes entry {first} behind a log of {length} entries");
            self.object("log order", sentence);
            return;
        }
        let mut chain = self.shadow(id).log.last().map_or(0, |slot| slot.chain);
        let mut slots = Vec::with_capacity(op.entries.len());
        for entry in &op.entries {
            let slot = self.slot(id, chain, entry);
            chain = slot.chain;
            slots.push(slot);
        }
        let issued = Issued {
            id: op.id,
            hard_state: op.hard_state,
            truncate_from: op.truncate_from,
            replaced,
            first,
            slots,
        };
        let shadow = self.shadow(id);
        shadow.log.extend_from_slice(&issued.slots);
        shadow.issued.push_back(issued);
    }

    /// What all entries up to `id` are, if they are committed.
    fn prefix(&self, id: LogId) -> Option<Vec<Slot>> {
        let decided = self.committed.get(..position(id.index.next()))?;
        let is_it = decided.last().map_or(Term::ZERO, |decided| decided.slot.term) == id.term;
        is_it.then(|| decided.iter().map(|decided| decided.slot).collect())
    }

    /// A node's log begins at another base. Gives what it stands for, where the log did not hold that: a snapshot
    /// stands for all entries before it.
    fn on_base(&mut self, id: NodeId, base: &Base) -> Option<Vec<Slot>> {
        let index = base.id.index;
        let shadow = self.shadow(id);
        let (snapshot, applied) = (shadow.snapshot, shadow.applied);
        if index > snapshot || index > applied {
            let sentence = format!(
                "node {id} lets its log begin behind {index}; its snapshot ends at {snapshot}, its machine has \
                 applied {applied}"
            );
            self.object("purged, then snapshot, then applied", sentence);
        }
        let Some(prefix) = self.prefix(base.id) else {
            let sentence =
                format!("node {id} lets its log begin behind {}, which is not committed", base.id);
            self.object("bases are committed", sentence);
            return None;
        };
        let log = &self.shadow(id).log;
        let is_held = prefix.last().is_none_or(|slot| log.get(prefix.len() - 1) == Some(slot));
        (!is_held).then_some(prefix)
    }

    /// A snapshot is complete on a node's disk.
    pub(super) fn on_snapshot(&mut self, id: NodeId, snapshot: &Snapshot) {
        let last = snapshot.id.last;
        let shadow = self.shadow(id);
        shadow.snapshot = shadow.snapshot.max(last.index);
        if self.prefix(last).is_none() || snapshot.base.id != last {
            let sentence = format!("node {id} has a snapshot of {last}, which is not committed");
            self.object("snapshots are committed", sentence);
        }
        let first = self.snapshots.entry(last).or_insert_with(|| snapshot.clone());
        if first != snapshot {
            let differs = if first.base == snapshot.base {
                format!("{} and {}: what their machines wrote", snapshot.id, first.id)
            } else {
                format!("{snapshot:?} and {first:?}")
            };
            let sentence =
                format!("node {id}'s snapshot of {last} is another than another node's: {differs}");
            self.object("snapshots agree", sentence);
        }
    }

    /// A node's machine was restored from a snapshot.
    pub(super) fn on_restored(&mut self, id: NodeId, snapshot: SnapshotId) {
        let last = snapshot.last;
        let shadow = self.shadow(id);
        let (before, kept) = (shadow.applied, shadow.snapshot);
        shadow.applied = last.index;
        if last.index <= before || last.index > kept || self.prefix(last).is_none() {
            let sentence = format!(
                "node {id}'s machine is restored to {last}; it had applied {before}, its snapshot ends at {kept}"
            );
            self.object("applied never moves back", sentence);
        }
    }

    /// A node gives its vote: the candidate's log must not end before its own, or before what it had when its
    /// disk was damaged.
    fn on_vote_given(&mut self, id: NodeId, term: Term, candidate: NodeId) {
        let shadow = self.shadow(id);
        if shadow.vote.replace((term, candidate)) == Some((term, candidate)) {
            return;
        }
        let (last, answers_for) = (shadow.last(), shadow.answers_for());
        if candidate == id {
            self.stood.insert((id, term), last);
        }
        let stood = self.stood.get(&(candidate, term)).copied();
        if stood.is_none_or(|stood| stood < answers_for) {
            let ends = stood.map_or("nowhere".to_owned(), |stood| format!("at {stood}"));
            let sentence = format!(
                "node {id}, which answers for a log up to {answers_for}, votes in term {term} for node \
                 {candidate}, whose log ends {ends}"
            );
            self.object("votes for complete logs", sentence);
        }
    }

    /// A disk says that everything up to this write is durable.
    pub(super) fn on_durable(&mut self, id: NodeId, op: OpId) {
        let shadow = self.shadow(id);
        while let Some(issued) = shadow.issued.front().filter(|issued| issued.id.seq <= op.seq) {
            if let Some(hard_state) = issued.hard_state {
                shadow.hard_state = hard_state;
            }
            extend(&mut shadow.durable, issued);
            shadow.issued.pop_front();
        }
    }

    /// Stored content was damaged by a fault: the node answers for what it had until it is whole again.
    pub(super) fn on_damaged(&mut self, id: NodeId) {
        self.shadow(id).remember();
    }

    /// A node's disk was replaced by a new one: what the old one held is lost, and answered for no more.
    pub(super) fn on_replaced(&mut self, id: NodeId) {
        self.on_damaged(id);
        let had = std::mem::take(&mut self.shadow(id).had);
        *self.shadow(id) = Shadow { had, is_new: true, ..Shadow::default() };
    }

    /// A node has opened its directory: `entries` is its whole log.
    pub(super) fn on_recovered(
        &mut self,
        id: NodeId,
        recovered: &Recovered,
        entries: &[Entry],
        was_damaged: bool,
    ) {
        let base = recovered.base.id;
        let mut log = self.prefix(base).unwrap_or_default();
        if log.len() as u64 != base.index.0 {
            let sentence =
                format!("node {id} comes back with a log behind {base}, which is not committed");
            return self.object("bases are committed", sentence);
        }
        let mut chain = log.last().map_or(0, |slot| slot.chain);
        for entry in entries {
            let slot = self.slot(id, chain, entry);
            chain = slot.chain;
            log.push(slot);
        }
        let shadow = self.shadow(id);
        let (known, found) = (shadow.hard_state, recovered.hard_state);
        let forgot_vote =
            found.term == known.term && known.vote.is_some() && found.vote != known.vote;
        let forgot = found.term < known.term || forgot_vote;
        // A truncation that was not confirmed may have happened all the same.
        let differs = |replaced: &Vec<Slot>| {
            let pairs = replaced.iter().zip(&shadow.durable);
            pairs.take_while(|(a, b)| a == b).count()
        };
        let cuts = |issued: &Issued| {
            let replaced = issued.replaced.as_ref().map(differs);
            [issued.truncate_from.map(position), replaced].into_iter().flatten().min()
        };
        let cut = shadow.issued.iter().filter_map(cuts).min();
        let sure = shadow.durable.len().min(cut.unwrap_or(usize::MAX));
        let lost = (0..sure).find(|at| log.get(*at) != shadow.durable.get(*at));
        let excused = |at: usize| {
            was_damaged
                && recovered.damage.is_some_and(|damage| at >= position(damage.first_faulty))
        };
        let lost = lost.filter(|at| !excused(*at));
        let durable = shadow.durable.len();
        shadow.is_hurt = recovered.damage.is_some();
        if !shadow.is_hurt && !shadow.is_new {
            shadow.had.clear();
        } else {
            shadow.remember();
        }
        shadow.log.clone_from(&log);
        shadow.durable = log;
        shadow.hard_state = found;
        shadow.issued.clear();
        shadow.vote = found.vote.map(|vote| (found.term, vote));
        shadow.commit = Index::ZERO;
        shadow.applied = Index::ZERO;
        shadow.term = found.term;
        shadow.leads = None;
        if forgot {
            let sentence = format!(
                "node {id} promised term {} and vote {:?} and came back with term {} and vote {:?}",
                known.term, known.vote, found.term, found.vote
            );
            self.object("durable votes", sentence);
        }
        if let Some(at) = lost {
            let sentence = format!(
                "node {id} had {durable} durable entries and came back without entry {}",
                at + 1
            );
            self.object("durability", sentence);
        }
        let hint = recovered.commit;
        if position(hint.next()) > self.committed.len() {
            let sentence = format!(
                "node {id} comes back with commit index {hint}, but only {} entries are committed",
                self.committed.len()
            );
            self.object("commit on a durable quorum", sentence);
        }
    }

    /// A node's machine has kept everything up to here in its own storage; the log must reach so far.
    pub(super) fn on_kept(
        &mut self,
        id: NodeId,
        applied: Index,
        recovered: &Recovered,
        was_damaged: bool,
    ) {
        let shadow = self.shadow(id);
        shadow.applied = applied;
        let last = recovered.last.index.max(shadow.snapshot);
        if applied > last && !was_damaged {
            let sentence =
                format!("node {id}'s machine has applied {applied}, and its log ends at {last}");
            self.object("the log reaches its machine", sentence);
        }
    }

    // ---- words ----

    /// A node speaks: nothing is promised that its disk does not hold.
    pub(super) fn on_send(&mut self, id: NodeId, to: NodeId, message: &Message) {
        let Message::Raft(message) = message else { return };
        let term = message.term;
        let Some(shadow) = self.shadows.get(&id) else { return };
        let (durable, held) = (shadow.hard_state, shadow.durable.len());
        let (mut early, mut voted) = (None, None);
        match &message.body {
            RaftBody::Vote(_) => voted = Some(id),
            RaftBody::VoteReply(reply) if reply.granted => voted = Some(to),
            RaftBody::AppendReply(reply) => {
                if let AppendOutcome::Matched { matched, .. } = reply.outcome
                    && (durable.term < term || position(matched.next()) > held)
                {
                    early = Some(format!("acknowledges entry {matched}"));
                }
            }
            RaftBody::Append(_)
            | RaftBody::Heartbeat(_)
            | RaftBody::TimeoutNow
            | RaftBody::SnapshotOffer(_) => {
                early = (durable.term < term).then(|| "leads".to_owned());
            }
            RaftBody::VoteReply(_)
            | RaftBody::PreVote(_)
            | RaftBody::PreVoteReply(_)
            | RaftBody::HeartbeatReply(_) => {}
        }
        if let Some(voted) = voted {
            if (durable.term, durable.vote) != (term, Some(voted)) {
                early = Some(format!("tells its vote for node {voted}"));
            }
            self.on_vote(id, term, voted);
        }
        if let Some(what) = early {
            let sentence = format!(
                "node {id} {what} in term {term}; its disk holds term {}, vote {:?} and {held} entries",
                durable.term, durable.vote
            );
            self.object("promises wait for the disk", sentence);
        }
    }

    fn on_vote(&mut self, id: NodeId, term: Term, voted: NodeId) {
        let first = *self.votes.entry((id, term)).or_insert(voted);
        if first != voted {
            let sentence = format!("node {id} votes for {first} and for {voted} in term {term}");
            self.object("one vote a term", sentence);
        }
    }

    // ---- steps ----

    /// A node has finished a step.
    pub(super) fn on_step(&mut self, id: NodeId, raft: &Raft) {
        let (role, term, commit, last) = (raft.role(), raft.term(), raft.commit(), raft.last());
        let Some(shadow) = self.shadows.get_mut(&id) else { return };
        let (went_back, before) = (term < shadow.term || commit < shadow.commit, shadow.commit);
        shadow.term = term;
        shadow.commit = commit;
        let news = role == Role::Leader && shadow.leads != Some(term);
        if role == Role::Leader {
            shadow.leads = Some(term);
        }
        let (written, durable) = (shadow.last(), shadow.durable.len());
        let is_whole =
            raft.damage().is_none() && id_of(&shadow.durable, durable) >= shadow.had_last();
        if shadow.is_hurt && is_whole {
            shadow.had.clear();
            shadow.is_hurt = false;
        }
        if last != written {
            let sentence = format!("node {id} believes its log ends at {last}, it wrote {written}");
            self.object("log order", sentence);
        } else if position(raft.durable().next()) > durable {
            let sentence = format!(
                "node {id} believes entry {} durable, its disk holds {durable}",
                raft.durable()
            );
            self.object("promises wait for the disk", sentence);
        } else if went_back || commit > last.index || raft.applied() > commit {
            let applied = raft.applied();
            let sentence = format!(
                "node {id}: applied {applied}, committed {commit} (before: {before}), last {last}, term {term}"
            );
            self.object("index order", sentence);
        }
        if news {
            self.on_leader(id, term);
        }
        for (peer, matched) in raft.matches() {
            self.on_match(id, term, peer, matched);
        }
        let of_term = self.shadows[&id].log.get(position(commit)).map(|slot| slot.term);
        // A leader whose machine is restored learns from the snapshot how far others have committed.
        let is_told = self.shadows[&id].snapshot >= commit;
        if role == Role::Leader && commit > before && of_term != Some(term) && !is_told {
            let sentence = format!(
                "leader {id} of term {term} commits entry {commit} of an older term by itself"
            );
            self.object("commit in the own term", sentence);
        }
        for at in position(before.next())..position(commit.next()) {
            self.on_commit(id, role, term, at);
        }
    }

    /// A node has died in the middle of a step: what it knew to be committed, it may have told. Of that, what
    /// the step itself appended was perhaps never written, nor the base of a snapshot in the place of its log.
    pub(super) fn on_cut_step(&mut self, id: NodeId, raft: &Raft) {
        let (role, term) = (raft.role(), raft.term());
        let Some(shadow) = self.shadows.get(&id) else { return };
        let before = position(shadow.commit.next());
        let upto = position(raft.commit().next()).min(shadow.log.len());
        let base = raft.base();
        let is_of_this_log = base.index == Index::ZERO
            || shadow.log.get(position(base.index)).is_some_and(|slot| slot.term == base.term);
        let written = |at: &usize| {
            if Index(*at as u64 + 1) <= base.index {
                return is_of_this_log;
            }
            let slot = self.shadows.get(&id).and_then(|shadow| shadow.log.get(*at));
            raft.term_at(Index(*at as u64 + 1)) == slot.map(|slot| slot.term)
        };
        let upto = (before..upto).find(|at| !written(at)).unwrap_or(upto);
        for at in before..upto {
            self.on_commit(id, role, term, at);
        }
    }

    /// A leader believes that a peer's disk holds its log up to here: so it does, unless a later leader has made
    /// it another since.
    fn on_match(&mut self, id: NodeId, term: Term, peer: NodeId, matched: Index) {
        let (Some(own), Some(other)) = (self.shadows.get(&id), self.shadows.get(&peer)) else {
            return;
        };
        let at = position(matched);
        let Some(slot) = own.log.get(at).filter(|_| matched != Index::ZERO) else { return };
        if other.hard_state.term <= term && !other.holds(matched, *slot) {
            let sentence = format!(
                "leader {id} of term {term} believes that node {peer} holds entry {matched} of term {}; its \
                 disk does not",
                slot.term
            );
            self.object("matches are true", sentence);
        }
    }

    fn on_leader(&mut self, id: NodeId, term: Term) {
        let first = *self.leaders.entry(term).or_insert(id);
        if first != id {
            let sentence = format!("nodes {first} and {id} both lead term {term}");
            self.object("election safety", sentence);
            return;
        }
        let Some(shadow) = self.shadows.get(&id) else { return };
        let own = shadow.hard_state;
        if (own.term, own.vote) == (term, Some(id)) {
            // Its own vote is told to nobody where nobody else votes.
            self.on_vote(id, term, id);
        }
        let votes =
            self.voters.iter().filter(|v| self.votes.get(&(**v, term)) == Some(&id)).count();
        if votes < self.majority() {
            let voters = self.voters.len();
            let sentence = format!(
                "node {id} leads term {term} with the durable votes of {votes} of {voters}"
            );
            self.object("election safety", sentence);
        }
        let Some(shadow) = self.shadows.get(&id) else { return };
        // What was decided before this term; `seen_in` never decreases.
        let decided = self.committed.partition_point(|decided| decided.seen_in < term);
        let lacks = (0..decided)
            .rev()
            .take(1)
            .any(|at| shadow.log.get(at).copied() != Some(self.committed[at].slot));
        if lacks {
            let sentence = format!(
                "leader {id} of term {term} lacks committed entries up to {decided}; its log ends at {}",
                shadow.last()
            );
            self.object("leader completeness", sentence);
        }
    }

    fn on_commit(&mut self, id: NodeId, role: Role, term: Term, at: usize) {
        let index = Index(at as u64 + 1);
        let Some(slot) = self.shadows.get(&id).and_then(|shadow| shadow.log.get(at)).copied()
        else {
            return;
        };
        if let Some(decided) = self.committed.get(at) {
            if decided.slot != slot {
                let sentence = format!(
                    "node {id} commits entry {index} of term {}, others committed one of term {}",
                    slot.term, decided.slot.term
                );
                self.object("state machine safety", sentence);
            }
            return;
        }
        let holders = self.voters.iter().filter(|v| self.shadows[v].holds(index, slot)).count();
        if holders < self.majority() {
            let voters = self.voters.len();
            let sentence = format!(
                "node {id} ({role}) commits entry {index} of term {}, which is durable on {holders} of {voters}",
                slot.term
            );
            self.object("commit on a durable quorum", sentence);
        }
        let known = self.known[at].iter().find(|known| known.slot == slot);
        let Some(entry) = known.map(|known| known.entry.clone()) else { return };
        let reply = self.reference_reply(&entry);
        let seen_in = self.committed.last().map_or(term, |decided| decided.seen_in.max(term));
        let payload = Mix::default().bytes(entry.payload.bytes()).0;
        self.committed.push(Decided { slot, seen_in, at_us: self.now_us, reply, payload });
    }

    fn reference_reply(&mut self, entry: &Entry) -> Option<u64> {
        if entry.kind != EntryKind::Command {
            return None;
        }
        let command = Command {
            index: entry.index,
            term: entry.term,
            log_time_us: entry.log_time_us,
            payload: entry.payload.bytes(),
        };
        let mut replies = Vec::with_capacity(1);
        match self.reference.apply(&[command], &mut replies) {
            Ok(()) => replies.first().map(mix::of_reply),
            Err(error) => {
                let sentence = format!("the machine fails at entry {}: {error}", entry.index);
                self.object("machine", sentence);
                None
            }
        }
    }

    /// A node's machine has answered; `last` is the last entry of what was applied.
    pub(super) fn on_applied(&mut self, id: NodeId, last: Index, replies: &[(Index, Reply)]) {
        let before = self.shadow(id).applied;
        self.shadow(id).applied = last;
        let upto = position(last.next());
        if upto > self.committed.len() || last <= before {
            let sentence = format!(
                "node {id} applies up to {last} after {before}, {} are committed",
                self.committed.len()
            );
            return self.object("state machine safety", sentence);
        }
        let mut replies = replies.iter();
        for at in position(before.next())..upto {
            let Some(expected) = self.committed[at].reply else { continue };
            let index = Index(at as u64 + 1);
            match replies.next() {
                Some((of, reply)) if *of == index && mix::of_reply(reply) == expected => {}
                Some((of, _)) if *of != index => {
                    let sentence = format!("node {id} applies entry {of} where {index} is next");
                    return self.object("state machine safety", sentence);
                }
                Some((_, reply)) => {
                    let sentence = format!(
                        "node {id} answers entry {index} with {reply:?}; the same commands gave another machine \
                         another answer"
                    );
                    return self.object("machines agree", sentence);
                }
                None => {
                    let sentence = format!("node {id} does not apply the command {index}");
                    return self.object("state machine safety", sentence);
                }
            }
        }
        if let Some((of, _)) = replies.next() {
            let sentence = format!("node {id} applies entry {of}, which is no committed command");
            self.object("state machine safety", sentence);
        }
    }

    // ---- for others ----

    /// How many terms have had a leader.
    pub(super) fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// How many entries are committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// What was committed at `index`: its term, the hashes of its payload and reply, and when.
    pub(super) fn decided(&self, index: Index) -> Option<(Term, u64, Option<u64>, u64)> {
        let decided = self.committed.get(position(index))?;
        Some((decided.slot.term, decided.payload, decided.reply, decided.at_us))
    }

    /// The hashes of the payloads of all committed commands.
    pub(super) fn commands(&self) -> impl Iterator<Item = u64> {
        self.committed.iter().filter(|decided| decided.reply.is_some()).map(|d| d.payload)
    }

    /// The machine that has applied everything committed.
    pub(super) fn reference(&mut self) -> &mut dyn StateMachine {
        self.reference.as_mut()
    }

    /// Whether this log holds an uncommitted entry of an old term that a majority of disks holds.
    pub(super) fn is_figure_8(&self, id: NodeId) -> bool {
        let Some(shadow) = self.shadows.get(&id) else { return false };
        let at = self.committed.len();
        let Some(slot) = shadow.log.get(at).filter(|slot| slot.term < shadow.term) else {
            return false;
        };
        let index = Index(at as u64 + 1);
        let holders = self.voters.iter().filter(|v| self.shadows[v].holds(index, *slot));
        holders.count() >= self.majority()
    }

    /// Whether a node was last seen as the leader of this term.
    pub(super) fn leads(&self, id: NodeId, term: Term) -> bool {
        self.shadows.get(&id).is_some_and(|shadow| shadow.leads == Some(term))
    }

    /// Whether several nodes stood in one term.
    pub(super) fn votes_split(&self) -> bool {
        let mut voted: BTreeMap<Term, NodeId> = BTreeMap::new();
        self.votes.iter().any(|((_, term), to)| *voted.entry(*term).or_insert(*to) != *to)
    }

    /// Whether the durable logs of these nodes are equal.
    pub(super) fn logs_agree(&self, nodes: &[NodeId]) -> bool {
        let end = |id: &NodeId| {
            let log = self.shadows.get(id).map(|shadow| &shadow.durable);
            log.map(|log| (log.len(), log.last().map(|slot| slot.chain)))
        };
        nodes.windows(2).all(|pair| end(&pair[0]) == end(&pair[1]))
    }
}
