//! Reads: how much must be applied before an answer holds everything that was acknowledged (dissertation 6.4).
//!
//! A leader that a quorum answers a heartbeat was in office when it sent that: nobody else can have acknowledged
//! anything by then. So a question waits for a round that begins after it, and one confirmed round answers all
//! that came before it. Rounds for questions are begun one at a time: what comes meanwhile shares the next one.
//!
//! With a *lease* the clock answers instead. Voters promise, with each answer, to help nobody else into office for
//! a while; until that has passed since a round that a quorum answered was *sent*, less what clocks may differ in
//! speed, there is no other leader.
//!
//! What a follower has applied has an age: a confirmed round tells it of a moment on its own clock at which
//! nothing newer had been acknowledged than what it was told is committed.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::types::{Heartbeat, Index};

use super::Action;
use super::core::{Raft, RoleState};
use super::progress::Progress;
use super::quorum;

/// Rounds without an answer that a leader remembers; a later one confirms as much as all before it.
const BEATS_MAX: usize = 16;

/// A leader's questions and the rounds that answer them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    open: VecDeque<Question>,
    beats: VecDeque<Beat>,
    /// The last round that was begun for the sake of a question.
    begun: u64,
    confirmed: u64,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Question {
    request: u64,
    /// The first round that answers it.
    round: u64,
    index: Index,
}

/// A round, and what was committed when it was sent.
#[derive(Clone, Copy, Debug)]
struct Beat {
    round: u64,
    sent_us: u64,
    commit: Index,
}

impl Reads {
    /// A round is sent by a leader that knows everything committed before its term.
    pub(super) fn sent(&mut self, round: u64, sent_us: u64, commit: Index) {
        if self.beats.len() == BEATS_MAX {
            self.beats.pop_front();
        }
        self.beats.push_back(Beat { round, sent_us, commit });
    }

    /// The last round that a quorum has answered.
    pub(super) const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn fingerprint(&self, now_us: u64, state: &mut impl Hasher) {
        (&self.open, self.begun, self.confirmed).hash(state);
        for Beat { round, sent_us, commit } in &self.beats {
            (round, now_us.saturating_sub(*sent_us), commit).hash(state);
        }
    }
}

/// Since when, by the own clock, nothing was acknowledged that is not applied here.
#[derive(Clone, Debug, Default)]
pub(super) struct Freshness {
    reached_us: u64,
    /// Told of, and not applied so far: the first such moment and the last.
    next: Option<(u64, Index)>,
    last: Option<(u64, Index)>,
}

impl Freshness {
    /// At `clock_us` everything acknowledged stood at or below `index`.
    fn know(&mut self, clock_us: u64, index: Index, applied: Index) {
        if self.next.is_none() {
            self.next = Some((clock_us, index));
        } else {
            self.last = Some((clock_us, index));
        }
        self.applied(applied);
    }

    /// So much is applied.
    pub(super) fn applied(&mut self, applied: Index) {
        while let Some((clock_us, _)) = self.next.take_if(|(_, index)| *index <= applied) {
            self.reached_us = self.reached_us.max(clock_us);
            self.next = self.last.take();
        }
    }

    pub(super) fn fingerprint(&self, now_us: u64, state: &mut impl Hasher) {
        let age = |at: &(u64, Index)| (now_us.saturating_sub(at.0), at.1);
        now_us.saturating_sub(self.reached_us).hash(state);
        (self.next.as_ref().map(age), self.last.as_ref().map(age)).hash(state);
    }
}

impl Raft {
    /// What must be applied before an answer holds everything acknowledged by now?
    pub(super) fn on_read(&mut self, request: u64, by_lease: bool, actions: &mut Vec<Action>) {
        let (now_us, commit) = (self.now.boot_us, self.commit);
        if by_lease && self.is_ready() && now_us < self.lease_until_us() {
            return actions.push(Action::MayRead { request, index: commit });
        }
        let RoleState::Leader(leader) = &mut self.role else {
            return actions.push(Action::MayNotRead { request });
        };
        // What older leaders acknowledged lies below the entry that opened the term.
        let index = if bug!(ReadsBeforeTheTermIsOpen) { commit } else { commit.max(leader.first) };
        if bug!(ReadsAreNotConfirmed) {
            return actions.push(Action::MayRead { request, index });
        }
        let present = u64::from(!bug!(ReadsAreConfirmedByOlderRounds));
        let round = leader.round + present;
        leader.reads.open.push_back(Question { request, round, index });
    }

    /// Begins a round if a question needs one, and none is on its way for the sake of another.
    pub(super) fn begin_round(&mut self, actions: &mut Vec<Action>) {
        let has_questions =
            matches!(&self.role, RoleState::Leader(leader) if !leader.reads.open.is_empty());
        if !has_questions {
            return;
        }
        // Whoever had to answer may be a member no more.
        self.confirm_rounds(actions);
        let RoleState::Leader(leader) = &self.role else { return };
        let Reads { open, begun, confirmed, .. } = &leader.reads;
        if open.back().is_none_or(|last| last.round <= leader.round) || begun > confirmed {
            return;
        }
        self.send_heartbeats(actions);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.reads.begun = leader.round;
        }
    }

    /// Answers what the peers' answers to heartbeats allow.
    pub(super) fn confirm_rounds(&mut self, actions: &mut Vec<Action>) {
        let own = self.config.id;
        let RoleState::Leader(leader) = &mut self.role else { return };
        let reached = quorum::reached(self.configs.latest().1, |id| {
            if id == own { u64::MAX } else { leader.peers.get(&id).map_or(0, Progress::round) }
        });
        let reads = &mut leader.reads;
        while let Some(question) = reads.open.pop_front_if(|first| first.round <= reached) {
            let Question { request, index, .. } = question;
            actions.push(Action::MayRead { request, index });
        }
        let reached = reached.min(leader.round);
        if reached <= reads.confirmed {
            return;
        }
        reads.confirmed = reached;
        let mut last = None;
        while let Some(beat) = reads.beats.pop_front_if(|beat| beat.round <= reached) {
            last = Some(beat);
        }
        if let Some(Beat { sent_us, commit, .. }) = last {
            self.freshness.know(sent_us, commit, self.applied);
        }
        leader.peers.iter_mut().for_each(|(_, peer)| peer.round_confirmed(reached));
    }

    /// Until then no other node can lead; 0 without a lease.
    pub fn lease_until_us(&self) -> u64 {
        let RoleState::Leader(leader) = &self.role else { return 0 };
        let is_leaving = leader.asked_to_leave && !bug!(LeasesOutliveTransfers);
        if !self.config.lease_reads || is_leaving {
            return 0;
        }
        let own = self.config.id;
        quorum::reached(self.configs.latest().1, |id| {
            if id == own {
                u64::MAX
            } else {
                leader.peers.get(&id).map_or(0, Progress::faithful_until_us)
            }
        })
    }

    /// The last moment on the own clock, as far as is known, at which everything acknowledged was what is applied here
    /// now, or part of it.
    pub fn fresh_at_us(&self) -> Option<u64> {
        Some(self.freshness.reached_us).filter(|at| *at > 0)
    }

    /// A heartbeat of this node's leader says since when it has told of everything.
    pub(super) fn learn_age(&mut self, heartbeat: &Heartbeat) {
        let heard = bug!(AgeCountsFromHearing);
        let clock_us = if heard { self.now.boot_us } else { heartbeat.confirmed_clock_us };
        // A moment of an earlier life, or of a clock that began anew, is none of this one.
        if clock_us < self.born_us || clock_us > self.now.boot_us || clock_us == 0 {
            return;
        }
        self.freshness.know(clock_us, heartbeat.commit.index, self.applied);
    }

    /// What this node promises a leader that wants a lease: never more than it does anyway.
    pub(super) fn pledge(&mut self, wanted_us: u64) -> u64 {
        if !self.config.lease_reads {
            return 0;
        }
        let faith_us = wanted_us.min(self.faith_us());
        let until_us = self.now.boot_us.saturating_add(faith_us);
        self.pledged_until_us = self.pledged_until_us.max(until_us);
        faith_us
    }

    /// Whether a promise is still to be kept.
    pub(super) const fn is_pledged(&self) -> bool {
        self.now.boot_us < self.pledged_until_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_once_all_that_was_told_with_it_is_applied() {
        let mut fresh = Freshness::default();
        fresh.know(100, Index(5), Index(5));
        assert_eq!(fresh.reached_us, 100);
        fresh.know(200, Index(7), Index(5));
        fresh.know(300, Index(9), Index(5));
        fresh.know(400, Index(9), Index(5));
        assert_eq!(fresh.reached_us, 100);
        fresh.applied(Index(7));
        assert_eq!(fresh.reached_us, 200);
        fresh.know(500, Index(20), Index(8));
        fresh.applied(Index(9));
        assert_eq!(fresh.reached_us, 400, "the one in between gave way to the last");
        fresh.applied(Index(20));
        assert_eq!(fresh.reached_us, 500);
    }
}
