//! Rules of the core that a transcript would tell at too great a length.

use std::collections::BTreeSet;

use raftz_core::raft::Input;
use raftz_core::replica::Input as ReplicaInput;
use raftz_core::types::{
    AppendOutcome, HardState, Member, Membership, Message, RaftBody, Role, Term, VoteReply,
};

use super::by_hand::FIRST_LIFE;
use super::cluster::{Cluster, Plan, Voice, node};
use super::solo::Solo;

fn quiet(voters: u64) -> Cluster {
    let mut cluster = Cluster::new(&Plan::of(voters));
    cluster.voice = Voice::Silent;
    cluster
}

/// SF7, and a leader in each term at most (the oracle).
#[test]
fn the_term_never_falls_over_ten_elections() {
    let mut cluster = quiet(3);
    let ids = cluster.ids();
    let mut terms = vec![0; 3];
    for round in 0..10 {
        let id = ids[round % 3];
        for other in ids.iter().filter(|other| **other != id) {
            cluster.cut.extend([(*other, id), (id, *other)]);
        }
        cluster.run(700_000, &ids);
        cluster.cut.clear();
        cluster.run(700_000, &ids);
        assert_eq!(cluster.leaders().len(), 1);
        for (id, known) in ids.iter().zip(&mut terms) {
            let term = cluster.raft(*id).term().0;
            assert!(term >= *known);
            *known = term;
        }
        if round % 3 == 2 {
            let leader = cluster.leaders()[0];
            cluster.crash(leader, 0);
            cluster.start(leader);
            assert!(cluster.raft(leader).term().0 >= terms[leader.get() as usize - 1]);
        }
    }
    assert!(terms[0] >= 3, "hardly an election took place: {terms:?}");
}

/// Pitfall 17; unit case "fast rejection across long divergent tails".
#[test]
fn a_divergent_tail_of_fifty_thousand_entries_costs_at_most_one_probe_a_term() {
    let mut cluster = quiet(3);
    // Common: 10 entries of term 1. Then 50,000 each: the leader's in terms 2, 4, …, 20, the
    // follower's in terms 3, 5, …, 21.
    let tail = |first: u64| (0..50_000u64).map(move |at| first + 2 * (at / 5_000));
    let log = |first| std::iter::repeat_n(1, 10).chain(tail(first)).collect::<Vec<u64>>();
    for (id, first, term) in [(1, 2, 30), (2, 2, 30), (3, 3, 30)] {
        cluster.crash(node(id), 0);
        let hard_state = HardState { term: Term(term), vote: None };
        cluster.preset(node(id), Some(&log(first)), hard_state);
        cluster.start(node(id));
    }
    cluster.now_us += 150_000;
    cluster.step(node(1), ReplicaInput::Campaign);
    let rejected = |message: &Message| {
        matches!(message, Message::Raft(message) if matches!(&message.body,
            RaftBody::AppendReply(reply) if matches!(reply.outcome, AppendOutcome::Rejected { .. })))
    };
    let mut rejections = 0;
    for _ in 0..200 {
        for id in cluster.ids() {
            cluster.persist(id, usize::MAX);
            while cluster.read(id) {}
        }
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
            let pair = (node(from), node(to));
            let waiting = cluster.net.get(&pair).map_or(0, |queue| queue.len());
            for _ in 0..waiting {
                rejections += usize::from(from == 3 && rejected(&cluster.net[&pair][0]));
                cluster.deliver(node(from), node(to));
            }
        }
    }
    assert_eq!(cluster.raft(node(1)).role(), Role::Leader);
    assert_eq!(cluster.nodes[&node(3)].disk.log, cluster.nodes[&node(1)].disk.log);
    assert!((1..=21).contains(&rejections), "{rejections} refused probes for 21 terms");
}

/// Pitfall 18: the stall is the disk's, not the network's.
#[test]
fn a_follower_whose_disk_stalls_streams_on_when_it_is_back() {
    let mut plan = Plan::of(3);
    plan.raft.window_messages = 2;
    plan.raft.append_bytes_max = 1;
    let mut cluster = Cluster::new(&plan);
    cluster.voice = Voice::Silent;
    let ids = cluster.ids();
    cluster.step(node(1), ReplicaInput::Campaign);
    cluster.run(10_000, &ids);
    cluster.nodes.get_mut(&node(2)).unwrap().disk_held = true;
    for call in 0..20 {
        cluster.propose(node(1), &[&format!("call {call}")], 5_000_000, true);
        cluster.run(40_000, &ids);
    }
    assert_eq!(cluster.raft(node(1)).commit().0, 21, "the others went on");
    let writes = cluster.nodes[&node(2)].disk.queue.len();
    assert!(writes <= 2, "{writes} writes wait: the window bounds them");
    cluster.nodes.get_mut(&node(2)).unwrap().disk_held = false;
    cluster.run(100_000, &ids);
    assert_eq!(cluster.raft(node(2)).commit().0, 21);
    assert_eq!(cluster.leaders(), vec![node(1)]);
}

fn joint() -> Membership {
    let members = (1..=5).map(|id| (node(id), Member::at("10.0.0.1:1")));
    let mut membership = Membership::of_voters(members);
    membership.voters = [2, 3, 4].map(node).into();
    membership.outgoing = [1, 2, 5].map(node).into();
    membership
}

/// Pitfall 10: node 1 is a voter of the outgoing half alone.
#[test]
fn a_voter_of_either_half_stands_and_counts_itself_in_its_half() {
    let mut solo = Solo::new(joint(), &[1], 1);
    let said = solo.step(Input::Campaign);
    let asked: BTreeSet<u64> = said.sent.iter().map(|(to, _)| to.get()).collect();
    assert_eq!(asked, [2, 3, 4, 5].into(), "both halves are asked");
    let yes = |round| VoteReply {
        round: FIRST_LIFE + round,
        granted: true,
        last: raftz_core::types::LogId::ZERO,
    };
    // 2 and 3: a majority of the new half, and, with itself, of the old one.
    solo.receive(2, 1, RaftBody::PreVoteReply(yes(1)));
    assert_eq!(solo.raft.role(), Role::PreCandidate);
    solo.receive(3, 1, RaftBody::PreVoteReply(yes(1)));
    assert_eq!(solo.raft.role(), Role::Candidate);
    solo.persist();
    solo.receive(3, 2, RaftBody::VoteReply(yes(2)));
    solo.receive(4, 2, RaftBody::VoteReply(yes(2)));
    assert_eq!(solo.raft.role(), Role::Candidate, "its own vote does not count in the new half");
    solo.receive(5, 2, RaftBody::VoteReply(yes(2)));
    assert_eq!(solo.raft.role(), Role::Leader);
}

/// Pitfall 23: a leader cut off from everybody, callers that never stop.
#[test]
fn proposals_for_ever_without_a_quorum_stay_within_the_bound() {
    let mut plan = Plan::of(3);
    plan.raft.uncommitted_bytes_max = 4_000;
    plan.raft.election_timeout_min_us = 10_000_000;
    plan.raft.election_timeout_max_us = 20_000_000;
    let mut cluster = Cluster::new(&plan);
    cluster.voice = Voice::Silent;
    let ids = cluster.ids();
    cluster.step(node(1), ReplicaInput::Campaign);
    cluster.run(10_000, &ids);
    for other in [2, 3] {
        cluster.cut.extend([(node(1), node(other)), (node(other), node(1))]);
    }
    for call in 0..1_000 {
        cluster.propose(node(1), &[&format!("call {call}")], 1_000_000, true);
        cluster.run(1_000, &ids);
    }
    let bytes: u64 =
        cluster.nodes[&node(1)].log.entries.iter().map(|entry| entry.cost_bytes()).sum();
    assert!(bytes <= 4_000 + 200, "{bytes} bytes in the log");
    assert!(cluster.nodes[&node(1)].log.entries.len() > 50);
}

/// A cluster founded for elections after 150 ms, in which node 1 is configured for 1 s with a heartbeat every
/// 400 ms: each alone is sound, and what the others keep to was agreed on long before.
fn with_a_slow_heart() -> Cluster {
    let mut cluster = quiet(3);
    cluster.crash(node(1), 0);
    let raft = &mut cluster.nodes.get_mut(&node(1)).unwrap().config.raft;
    raft.heartbeat_interval_us = 400_000;
    raft.election_timeout_min_us = 1_000_000;
    raft.election_timeout_max_us = 2_000_000;
    cluster.start(node(1));
    cluster.now_us += 150_000;
    cluster
}

#[test]
fn heartbeats_come_as_often_as_the_groups_faith_needs_whatever_the_leader_is_configured_to() {
    let mut cluster = with_a_slow_heart();
    let ids = cluster.ids();
    cluster.step(node(1), ReplicaInput::Campaign);
    cluster.run(10_000, &ids);
    assert_eq!(cluster.leaders(), vec![node(1)]);
    // 3 does not hear it, and must not find 2 without faith between two heartbeats.
    cluster.cut.extend([(node(1), node(3)), (node(3), node(1))]);
    cluster.run(20_000_000, &ids);
    assert_eq!((cluster.leaders(), cluster.raft(node(1)).term()), (vec![node(1)], Term(1)));
}
