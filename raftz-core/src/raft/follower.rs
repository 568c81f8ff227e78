//! Following: entries in, commits learned (dissertation 3.5, 3.6.2).
//!
//! Invariants kept here: a match is never more than `prev` and the entries that came with it; the
//! commit index moves only over a prefix that is proved to be the leader's; truncation happens only
//! at a conflict of terms, and never at or below the commit index.

use crate::types::{
    Append, AppendOutcome, AppendReply, Damage, Entries, Entry, Event, Heartbeat, HeartbeatReply,
    Index, NodeId, RaftBody, SANE_MAX, Term,
};

use super::Action;
use super::core::{Raft, RoleState};

impl Raft {
    pub(super) fn on_append(&mut self, from: NodeId, append: Append, actions: &mut Vec<Action>) {
        if let Err(what) = check_append(&append, self.hard.term) {
            return self.nonsense(from, what, actions);
        }
        self.keep_faith();
        let Append { session, prev, commit, entries } = append;
        // What lies at or below our base is committed, so it is the leader's, too.
        let below_base = prev.index < self.log.base().index;
        let unchecked = bug!(PrevTermIsNotCompared) && prev.index <= self.log.last().index;
        if !below_base && !self.log.holds(prev) && !unchecked {
            let hint = self.log.last_not_above(prev.index, prev.term);
            let outcome = AppendOutcome::Rejected { prev: prev.index, hint };
            let reply = AppendReply { session, outcome };
            return self.send(from, RaftBody::AppendReply(reply), actions);
        }
        let entries = self.without_those_that_lack_room(prev.index, entries);
        let matched = prev.index.plus(entries.len() as u64);
        if !self.take_entries(from, entries, actions) {
            return;
        }
        if self.halted {
            return;
        }
        if bug!(AppendCutsWhatFollowsIt) && (self.commit..self.log.last().index).contains(&matched)
        {
            self.drop_from(matched.next());
        }
        let matched = if bug!(AcksItsWholeLog) { self.log.last().index } else { matched };
        self.advance_verified(matched);
        self.commit_to(if bug!(CommitsBeyondTheAppend) { commit } else { commit.min(matched) });
        self.heal(actions);
        let covering = if bug!(AcksBeforeDurable) { 0 } else { self.covering(matched) };
        let outcome = AppendOutcome::Matched { matched, storage_full: self.storage_full };
        let reply = AppendReply { session, outcome };
        self.send_promise(from, RaftBody::AppendReply(reply), covering, actions);
    }

    /// The write that makes everything up to `matched` durable: one on its way, or the one that this
    /// very step builds.
    pub(super) fn covering(&self, matched: Index) -> u64 {
        if matched <= self.log.durable() {
            return 0;
        }
        match self.log.write_covering(matched) {
            0 => self.writes.present(),
            seq => seq,
        }
    }

    /// What is left of a full disk is for votes: a follower takes what its leader needs to begin, which ends with
    /// the first entry of the leader's term, and nothing behind that. It is as if the others had been lost.
    fn without_those_that_lack_room(&self, prev: Index, mut entries: Entries) -> Entries {
        if self.storage_full {
            let (held, term) = (self.log.last(), self.hard.term);
            let begins = entries.iter().find(|entry| entry.term == term).map(|entry| entry.index);
            let upto = if held.term == term { Some(held.index) } else { begins };
            if let Some(upto) = upto {
                entries.truncate(usize::try_from(prev.distance_to(upto)).unwrap_or(usize::MAX));
            }
        }
        entries
    }

    /// Appends what is new, after dropping what contradicts it. False: the message contradicts
    /// what is committed and was dropped.
    fn take_entries(
        &mut self,
        from: NodeId,
        mut entries: Entries,
        actions: &mut Vec<Action>,
    ) -> bool {
        let base = self.log.base().index;
        let last = self.log.last().index;
        let is_held = |entry: &&Entry| {
            entry.index <= base
                || self.log.holds(entry.id())
                || (bug!(ConflictsAreKept) && entry.index <= last)
        };
        let held = entries.iter().take_while(is_held).count();
        let Some(first) = entries.get(held).map(|entry| entry.index) else {
            return true;
        };
        let mut membership_changed = false;
        if first <= last {
            if first <= self.commit {
                self.nonsense(from, "an entry that contradicts a committed one", actions);
                return false;
            }
            membership_changed = self.drop_from(first);
        }
        entries.skip(held);
        membership_changed |= self.append(entries);
        if membership_changed {
            self.membership_changed(actions);
        }
        true
    }

    /// Drops every entry at and above `from`. True if that changed the membership in force.
    fn drop_from(&mut self, from: Index) -> bool {
        self.log.truncate(from);
        self.writes.truncate(from);
        self.configs.truncate(from)
    }

    pub(super) fn advance_verified(&mut self, matched: Index) {
        if let RoleState::Follower { verified } = &mut self.role {
            *verified = (*verified).max(matched);
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        heartbeat: &Heartbeat,
        actions: &mut Vec<Action>,
    ) {
        if !heartbeat.commit.index.is_sane() {
            return self.nonsense(from, "an absurd commit index", actions);
        }
        if !bug!(HeartbeatIsNoSignOfLife) {
            self.keep_faith();
        }
        let RoleState::Follower { verified } = self.role else { return };
        // Holding the very entry that is committed proves the whole prefix; else only what this
        // leader's appends have verified may be taken as committed.
        let proved = if self.log.holds(heartbeat.commit) || bug!(HeartbeatCommitsWhateverIsThere) {
            heartbeat.commit.index
        } else {
            heartbeat.commit.index.min(verified)
        };
        self.commit_to(proved);
        self.learn_age(heartbeat);
        self.heal(actions);
        let reply = HeartbeatReply {
            session: heartbeat.session,
            round: heartbeat.round,
            sent_us: heartbeat.sent_us,
            clock_us: self.now.boot_us,
            faith_us: self.pledge(heartbeat.faith_us),
            fitness: self.fitness(),
            storage_full: self.storage_full,
        };
        self.send(from, RaftBody::HeartbeatReply(reply), actions);
    }

    /// A damaged node is whole again once the leader has replaced what it lost. Its storage judges by
    /// the same rule when this is durable, so that a restart does not make it damaged again.
    pub(super) fn heal(&mut self, actions: &mut Vec<Action>) {
        let Some(Damage { lost, .. }) = self.damage else { return };
        let RoleState::Follower { verified } = self.role else { return };
        let last = self.log.last();
        if verified >= last.index && lost.is_overwritten_by(last) {
            self.damage = None;
            actions.push(Action::Event(Event::Healed { upto: last.index }));
            self.await_election();
        }
    }
}

/// What no honest leader of `term` sends.
fn check_append(append: &Append, term: Term) -> Result<(), &'static str> {
    if !append.prev.index.is_sane() || !append.commit.is_sane() {
        return Err("an absurd index");
    }
    if append.prev.term > term {
        return Err("a previous entry from the future");
    }
    let (mut before, mut log_time_us) = (append.prev, 0);
    for entry in &append.entries {
        if entry.index != before.index.next() {
            return Err("entries that are not consecutive");
        }
        if entry.term < before.term || entry.term > term || entry.term == Term::ZERO {
            return Err("entries whose terms are out of order");
        }
        if entry.log_time_us < log_time_us || entry.log_time_us > SANE_MAX {
            return Err("entries whose log times are out of order");
        }
        log_time_us = entry.log_time_us;
        before = entry.id();
    }
    Ok(())
}
