//! Quorum arithmetic: two questions about sets of voters.
//!
//! *What has a majority?* (a committed index, the last moment of contact) and *who won?* (a vote).
//! A joint configuration is two sets that must both agree, so its answer is the lesser of two
//! answers; an empty half is as good as no half. Values are gathered and sorted each time: with at
//! most a few voters nothing cleverer is faster, and nothing simpler is easier to check.

use std::collections::BTreeSet;

use crate::types::{Membership, NodeId};

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority of every half has granted.
    Won,
    /// Some half cannot reach a majority any more.
    Lost,
    /// Neither yet.
    Pending,
}

/// So many voters are asked without an allocation: this is done in every step of a leader.
const FEW: usize = 9;

/// Votes needed among `voters`.
const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority of `voters` has reached; `None` for an empty set, which
/// holds nothing back.
fn reached_by_majority(
    voters: &BTreeSet<NodeId>,
    value_of: &impl Fn(NodeId) -> u64,
) -> Option<u64> {
    let (mut few, mut many) = ([0; FEW], Vec::new());
    let values = match few.get_mut(..voters.len()) {
        Some(few) => few,
        None => {
            many.resize(voters.len(), 0);
            &mut many[..]
        }
    };
    for (count, id) in (1..).zip(voters) {
        insert(values.get_mut(..count)?, value_of(*id));
    }
    let short = usize::from(bug!(QuorumOneShort));
    values.get((majority(values.len()) - 1).saturating_sub(short)).copied()
}

/// Puts a value in its place among those before the last one, which is free. They descend.
fn insert(values: &mut [u64], mut value: u64) {
    for place in values {
        if value > *place {
            std::mem::swap(place, &mut value);
        }
    }
}

/// The greatest value that every half of the membership has reached by majority; 0 when nobody
/// votes.
pub fn reached(membership: &Membership, value_of: impl Fn(NodeId) -> u64) -> u64 {
    let incoming = reached_by_majority(&membership.voters, &value_of);
    let outgoing = reached_by_majority(&membership.outgoing, &value_of);
    match (incoming, outgoing) {
        (Some(a), Some(b)) => a.min(b),
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => 0,
    }
}

fn vote_of_half(
    voters: &BTreeSet<NodeId>,
    granted: &BTreeSet<NodeId>,
    refused: &BTreeSet<NodeId>,
) -> VoteResult {
    let twice = usize::from(bug!(CandidateCountsItselfTwice));
    let yes = voters.intersection(granted).count() + twice;
    let no = voters.intersection(refused).count();
    let needed = majority(voters.len());
    if voters.is_empty() || yes >= needed {
        VoteResult::Won
    } else if voters.len() - no < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

/// How a vote stands. Answers of nodes that do not vote count for nothing.
pub fn vote(
    membership: &Membership,
    granted: &BTreeSet<NodeId>,
    refused: &BTreeSet<NodeId>,
) -> VoteResult {
    if membership.voters.is_empty() && membership.outgoing.is_empty() {
        return VoteResult::Lost;
    }
    let incoming = vote_of_half(&membership.voters, granted, refused);
    let outgoing = vote_of_half(&membership.outgoing, granted, refused);
    match (incoming, outgoing) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        (VoteResult::Pending, VoteResult::Pending | VoteResult::Won)
        | (VoteResult::Won, VoteResult::Pending) => VoteResult::Pending,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ids(raw: &[u64]) -> BTreeSet<NodeId> {
        raw.iter().map(|id| NodeId::new(*id).unwrap()).collect()
    }

    fn members(voters: &[u64], outgoing: &[u64]) -> Membership {
        Membership { members: BTreeMap::new(), voters: ids(voters), outgoing: ids(outgoing) }
    }

    #[test]
    fn committed_index_of_simple_and_joint_quorums() {
        // voters, outgoing, (id, match) ..., expected
        type Row = (&'static [u64], &'static [u64], &'static [(u64, u64)], u64);
        let table: &[Row] = &[
            (&[], &[], &[], 0),
            (&[1], &[], &[(1, 7)], 7),
            (&[1, 2], &[], &[(1, 7), (2, 3)], 3),
            (&[1, 2, 3], &[], &[(1, 7), (2, 3)], 3),
            (&[1, 2, 3], &[], &[(1, 7)], 0),
            (&[1, 2, 3, 4], &[], &[(1, 9), (2, 8), (3, 7), (4, 6)], 7),
            (&[1, 2, 3, 4, 5], &[], &[(1, 9), (2, 8), (3, 7)], 7),
            (&[1, 2, 3], &[3, 4, 5], &[(1, 9), (2, 9), (3, 9), (4, 4)], 4),
            (&[1, 2, 3], &[3, 4, 5], &[(1, 9), (2, 9), (3, 9)], 0),
            (&[], &[1, 2, 3], &[(1, 5), (2, 5)], 5),
            (&[1], &[2], &[(1, 5), (2, 2)], 2),
        ];
        for (voters, outgoing, matches, expected) in table {
            let matches: BTreeMap<u64, u64> = matches.iter().copied().collect();
            let got = reached(&members(voters, outgoing), |id| {
                matches.get(&id.get()).copied().unwrap_or(0)
            });
            assert_eq!(got, *expected, "{voters:?} {outgoing:?} {matches:?}");
        }
    }

    #[test]
    fn votes_of_simple_and_joint_quorums() {
        use VoteResult::{Lost, Pending, Won};
        type Row = (&'static [u64], &'static [u64], &'static [u64], &'static [u64], VoteResult);
        let table: &[Row] = &[
            (&[], &[], &[], &[], Lost),
            (&[1], &[], &[1], &[], Won),
            (&[1], &[], &[], &[1], Lost),
            (&[1, 2], &[], &[1], &[], Pending),
            (&[1, 2], &[], &[1], &[2], Lost),
            (&[1, 2, 3], &[], &[1], &[], Pending),
            (&[1, 2, 3], &[], &[1, 2], &[], Won),
            (&[1, 2, 3], &[], &[1], &[2, 3], Lost),
            (&[1, 2, 3], &[], &[1, 7, 8, 9], &[], Pending),
            (&[1, 2, 3], &[3, 4, 5], &[1, 2], &[], Pending),
            (&[1, 2, 3], &[3, 4, 5], &[1, 2, 4, 5], &[], Won),
            (&[1, 2, 3], &[3, 4, 5], &[1, 2, 3], &[4, 5], Lost),
            (&[], &[1, 2, 3], &[1, 2], &[], Won),
        ];
        for (voters, outgoing, granted, refused, expected) in table {
            let got = vote(&members(voters, outgoing), &ids(granted), &ids(refused));
            assert_eq!(got, *expected, "{voters:?} {outgoing:?} +{granted:?} -{refused:?}");
        }
    }

    proptest! {
        /// The answer equals the definition: the greatest value v such that the voters at v or
        /// above are a majority of each half that is not empty.
        #[test]
        fn reached_equals_its_definition(
            voters in proptest::collection::btree_set(1u64..10, 0..7),
            outgoing in proptest::collection::btree_set(1u64..10, 0..7),
            values in proptest::collection::vec(0u64..6, 10),
        ) {
            let voters: Vec<u64> = voters.into_iter().collect();
            let outgoing: Vec<u64> = outgoing.into_iter().collect();
            let membership = members(&voters, &outgoing);
            let got = reached(&membership, |id| values[id.get() as usize]);
            let ok = |half: &[u64], v: u64| half.is_empty()
                || half.iter().filter(|id| values[**id as usize] >= v).count() * 2 > half.len();
            let expected = if voters.is_empty() && outgoing.is_empty() { 0 } else {
                (0..6).rev().find(|v| ok(&voters, *v) && ok(&outgoing, *v)).unwrap()
            };
            prop_assert_eq!(got, expected);
        }

        /// A vote is won exactly when the yes-sayers alone reach the quorum, and lost exactly when
        /// everybody who has not refused would not.
        #[test]
        fn vote_equals_its_definition(
            voters in proptest::collection::btree_set(1u64..8, 1..6),
            outgoing in proptest::collection::btree_set(1u64..8, 0..6),
            granted in proptest::collection::btree_set(1u64..8, 0..8),
            refused in proptest::collection::btree_set(1u64..8, 0..8),
        ) {
            let refused: BTreeSet<u64> = refused.difference(&granted).copied().collect();
            let voters: Vec<u64> = voters.into_iter().collect();
            let outgoing: Vec<u64> = outgoing.into_iter().collect();
            let membership = members(&voters, &outgoing);
            let list = |set: &BTreeSet<u64>| ids(&set.iter().copied().collect::<Vec<_>>());
            let got = vote(&membership, &list(&granted), &list(&refused));
            let wins = |yes: &dyn Fn(u64) -> bool| reached(&membership, |id| u64::from(yes(id.get()))) == 1;
            let expected = if wins(&|id| granted.contains(&id)) { VoteResult::Won }
                else if !wins(&|id| !refused.contains(&id)) { VoteResult::Lost }
                else { VoteResult::Pending };
            prop_assert_eq!(got, expected);
        }
    }
}
