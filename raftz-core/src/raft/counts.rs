//! What happens to a member, counted for people. Nothing is decided by it.

use std::collections::VecDeque;

use crate::types::{Histogram, Index, Measure, Role, Term};

/// Batches whose commit is timed at once; more than that are not timed.
const TIMED_MAX: usize = 1024;

/// What has happened since this member was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Rounds of pre-votes that led to no election.
    pub elections_not_begun: u64,
    /// Elections in which this member stood and won.
    pub elections_won: u64,
    /// Elections that it left because another leader or a later term appeared.
    pub elections_lost: u64,
    /// Elections that nobody had won for it when its timeout had passed.
    pub elections_timed_out: u64,
    /// How often a leader became known that was not known before, itself included.
    pub leader_changes: u64,
    /// From the append to the commit of a leader's own batches.
    pub commit_us: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            elections_not_begun: 0,
            elections_won: 0,
            elections_lost: 0,
            elections_timed_out: 0,
            leader_changes: 0,
            commit_us: Histogram::new(Measure::TimesUs),
        }
    }
}

impl Counts {
    /// The role changed, or another round of votes was opened. A lone voter's round of pre-votes is won in the
    /// step that opens it, so it is never seen here.
    pub(super) const fn role(&mut self, old: (Role, Term), new: (Role, Term)) {
        match (old.0, new.0) {
            (Role::PreCandidate, Role::Candidate | Role::Leader) => {}
            (Role::PreCandidate, Role::PreCandidate | Role::Follower) => {
                self.elections_not_begun += 1;
            }
            (Role::Candidate, Role::Leader) if old.1.0 == new.1.0 => self.elections_won += 1,
            (Role::Candidate, Role::Candidate | Role::PreCandidate) => {
                self.elections_timed_out += 1;
            }
            (Role::Candidate, Role::Follower | Role::Leader) => self.elections_lost += 1,
            (Role::Follower | Role::Leader, _) => {}
        }
    }
}

/// Batches that a leader has appended and not committed, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Timed(VecDeque<(Index, u64)>);

impl Timed {
    /// A batch that ends with this entry was appended.
    pub(super) fn appended(&mut self, last: Index, now_us: u64) {
        if self.0.len() < TIMED_MAX {
            self.0.push_back((last, now_us));
        }
    }

    /// Everything up to this entry is committed.
    pub(super) fn committed(&mut self, upto: Index, now_us: u64, times: &mut Histogram) {
        while self.0.front().is_some_and(|(last, _)| *last <= upto) {
            if let Some((_, begun_us)) = self.0.pop_front() {
                times.add(now_us.saturating_sub(begun_us), 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_election_has_one_result() {
        let mut counts = Counts::default();
        let roles = [
            (Role::Follower, 1),
            (Role::PreCandidate, 1),
            (Role::PreCandidate, 1),
            (Role::Candidate, 2),
            (Role::PreCandidate, 2),
            (Role::Candidate, 3),
            (Role::Follower, 4),
            (Role::PreCandidate, 4),
            (Role::Candidate, 5),
            (Role::Leader, 5),
            (Role::Follower, 6),
        ];
        for pair in roles.windows(2) {
            let [old, new] = [pair[0], pair[1]].map(|(role, term)| (role, Term(term)));
            counts.role(old, new);
        }
        let Counts { elections_not_begun, elections_won, elections_lost, .. } = counts;
        assert_eq!((elections_not_begun, elections_won, elections_lost), (1, 1, 1));
        assert_eq!(counts.elections_timed_out, 1);
    }

    #[test]
    fn commits_are_timed_by_the_batch_and_a_backlog_is_bounded() {
        let (mut timed, mut times) = (Timed::default(), Histogram::new(Measure::TimesUs));
        timed.appended(Index(3), 10);
        timed.appended(Index(5), 20);
        timed.committed(Index(4), 110, &mut times);
        assert_eq!((times.count(), times.sum()), (1, 100));
        timed.committed(Index(9), 15, &mut times);
        assert_eq!((times.count(), times.sum()), (2, 100), "a clock that goes back counts as 0");
        for index in 0..5000 {
            timed.appended(Index(index), 0);
        }
        assert_eq!(timed.0.len(), TIMED_MAX);
    }
}
