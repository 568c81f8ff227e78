//! What is on its way to disk, and the promises that wait for it.
//!
//! A promise (an append acknowledgement, a vote grant, a candidate's own request) leaves only when
//! the write behind it is durable. All changes of one step become one write; writes are numbered
//! without gaps and complete in order, so one number answers every question.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::types::{
    AppendOutcome, Base, Boot, Entries, HardState, Index, NodeId, OpId, RaftBody, RaftMessage,
    Term, WriteOp,
};

#[derive(Clone, Debug)]
struct Promise {
    after: u64,
    to: NodeId,
    message: RaftMessage,
}

#[derive(Clone, Debug)]
pub(crate) struct Writes {
    boot: Boot,
    issued: u64,
    durable: u64,
    /// The write that last changed the hard state.
    hard_state: u64,
    building: Option<WriteOp>,
    promises: VecDeque<Promise>,
}

impl Writes {
    pub(crate) const fn new(boot: Boot) -> Self {
        Self {
            boot,
            issued: 0,
            durable: 0,
            hard_state: 0,
            building: None,
            promises: VecDeque::new(),
        }
    }

    /// The number of the write that the present step builds, or would build.
    pub(crate) const fn present(&self) -> u64 {
        self.issued + 1
    }

    fn build(&mut self) -> &mut WriteOp {
        let id = OpId { boot: self.boot, seq: self.present() };
        self.building.get_or_insert_with(|| WriteOp { id, ..WriteOp::default() })
    }

    pub(crate) fn hard_state(&mut self, hard_state: HardState) {
        self.build().hard_state = Some(hard_state);
        self.hard_state = self.present();
    }

    /// Drops entries, and the acknowledgements of them that have not left yet: none but a lying leader takes
    /// back in one term what it has sent, and then they would be false.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.build().truncate_from = Some(from);
        self.promises.retain(|promise| matched(&promise.message).is_none_or(|index| index < from));
    }

    /// Moves the log's base. `replaces`: nothing of the log stays, so no acknowledgement of what reaches beyond
    /// the base may leave any more.
    pub(crate) fn rebase(&mut self, base: Base, replaces: bool) {
        if replaces {
            let index = base.id.index;
            let stands = |promise: &Promise| matched(&promise.message).is_none_or(|to| to < index);
            self.promises.retain(stands);
        }
        self.build().base = Some(Box::new(base));
    }

    pub(crate) fn append(&mut self, entries: Entries) {
        self.build().entries.append(entries);
    }

    /// The present step's write, if it has one; from now on it is on its way.
    pub(crate) fn issue(&mut self, commit: Index) -> Option<WriteOp> {
        let mut op = self.building.take()?;
        op.commit = commit;
        self.issued = op.id.seq;
        Some(op)
    }

    /// Whether a write is on its way.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.issued > self.durable
    }

    /// Whether the latest hard state is durable.
    pub(crate) const fn hard_state_is_durable(&self) -> bool {
        self.hard_state <= self.durable
    }

    /// Notes that everything up to `op` is durable. False for a completion of another life, a
    /// doubled one, or one for a write that was never issued.
    pub(crate) fn persisted(&mut self, op: OpId) -> bool {
        let news = op.boot == self.boot && op.seq > self.durable && op.seq <= self.issued;
        if news {
            self.durable = op.seq;
        }
        news
    }

    /// Keeps `message` until the hard state and the write `covering` are durable; gives it back if
    /// they are.
    pub(crate) fn promise(
        &mut self,
        to: NodeId,
        message: RaftMessage,
        covering: u64,
    ) -> Option<RaftMessage> {
        let early = bug!(PromisesDoNotAwaitTheHardState);
        let after = if early { covering } else { covering.max(self.hard_state) };
        if after <= self.durable {
            return Some(message);
        }
        // A leader credits none but its latest session with a peer, and their numbers grow within a
        // term: a link that comes and goes while a disk hangs must not leave one answer for each.
        if let Some(session) = matched_session(&message) {
            self.promises.retain(|promise| {
                promise.to != to
                    || matched_session(&promise.message).is_none_or(|earlier| earlier >= session)
            });
        }
        // Acknowledgements are cumulative: while a disk hangs, the newest one is enough.
        if let Some(session) = matched_session(&message)
            && let Some(waiting) = self.promises.iter_mut().rev().find(|promise| {
                promise.to == to
                    && promise.after == after
                    && matched_session(&promise.message) == Some(session)
            })
        {
            if matched(&waiting.message) < matched(&message) {
                waiting.message = message;
            }
            return None;
        }
        // A vote is asked for in one round of a term; a request that comes again, or under another
        // round, must not leave one answer for each.
        if matches!(message.body, RaftBody::VoteReply(_))
            && let Some(waiting) = self.promises.iter_mut().find(|promise| {
                promise.to == to && matches!(promise.message.body, RaftBody::VoteReply(_))
            })
        {
            *waiting = Promise { after, to, message };
            return None;
        }
        self.promises.push_back(Promise { after, to, message });
        None
    }

    /// Forgets promises of other terms: nobody is to act on them any more.
    pub(crate) fn drop_promises_of_other_terms(&mut self, term: Term) {
        self.promises.retain(|p| p.message.term == term || bug!(PromisesOutliveTheirTerm));
    }

    /// Takes out every promise that is now covered. Of several acknowledgements in one session
    /// only the furthest is kept: they are cumulative.
    pub(crate) fn release(&mut self) -> Vec<(NodeId, RaftMessage)> {
        let durable = self.durable;
        let mut released: Vec<(NodeId, RaftMessage)> = Vec::new();
        self.promises.retain(|promise| {
            if promise.after > durable {
                return true;
            }
            match released.iter_mut().find(|(to, kept)| {
                *to == promise.to
                    && matched_session(kept) == matched_session(&promise.message)
                    && matched_session(kept).is_some()
            }) {
                Some((_, kept)) if matched(kept) < matched(&promise.message) => {
                    kept.clone_from(&promise.message);
                }
                Some(_) => {}
                None => released.push((promise.to, promise.message.clone())),
            }
            false
        });
        released
    }

    /// The number of the last durable write.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// What is on its way and what waits for which part of it, counted from the last durable write.
    pub(crate) fn fingerprint(&self, state: &mut impl Hasher) {
        let ahead = |seq: u64| seq.saturating_sub(self.durable);
        (ahead(self.issued), ahead(self.hard_state), self.promises.len()).hash(state);
        for Promise { after, to, message } in &self.promises {
            (ahead(*after), to, message.term, format!("{:?}", message.body)).hash(state);
        }
    }
}

fn matched(message: &RaftMessage) -> Option<Index> {
    if let RaftBody::AppendReply(reply) = &message.body
        && let AppendOutcome::Matched { matched, .. } = reply.outcome
    {
        return Some(matched);
    }
    None
}

fn matched_session(message: &RaftMessage) -> Option<u64> {
    if let RaftBody::AppendReply(reply) = &message.body {
        return matched(message).map(|_| reply.session);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    /// A write of a term and one that truncates, in this order or the other.
    fn two_writes(first_is_hard_state: bool) -> u64 {
        let mut writes = Writes::new(Boot(1));
        for is_hard_state in [first_is_hard_state, !first_is_hard_state] {
            if is_hard_state {
                writes.hard_state(HardState { term: Term(1), vote: None });
            } else {
                writes.truncate(Index(1));
            }
            writes.issue(Index::ZERO);
        }
        let mut hasher = DefaultHasher::new();
        writes.fingerprint(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_fingerprint_tells_which_write_holds_the_hard_state() {
        assert_ne!(two_writes(true), two_writes(false));
    }
}
