//! Lies about who leads, and about what is committed.

use raftz_core::types::{
    AppendOutcome, AppendReply, HeartbeatReply, Index, LogId, PreVote, RaftBody, SANE_MAX,
    SnapshotId, SnapshotOffer, Term, Vote, VoteReply,
};

use super::honest::Honest;
use super::mouth::{Mouth, append, forged, heartbeat};

#[test]
fn a_second_leader_of_the_same_term_is_believed_by_nobody() {
    let (honest, leader, follower) = Honest::two_of_three();
    let before = honest.go_on("before");
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[1, 2]);
    let term = honest.node(leader).status().term;
    assert_eq!(before.term, term);
    let last = LogId::new(term, before.index);
    for to in [leader, follower] {
        for commit in [before.index.next(), Index(SANE_MAX)] {
            liar.say(to, term, heartbeat(LogId::new(term, commit)));
            let next = before.index.next();
            liar.say(to, term, append(last, commit, vec![forged(term, next)]));
        }
        // The same term and index with other bytes.
        let prev = LogId::new(term, before.index.prev());
        liar.say(to, term, append(prev, before.index, vec![forged(term, before.index)]));
        liar.be_heard(to, &honest);
    }
    assert!(honest.count_nonsense(leader, "a second leader in this node's own term") >= 1);
    assert!(honest.count_nonsense(follower, "a second leader in one term") >= 1);
    let after = honest.go_on("after");
    assert_eq!(after.term, term, "no election");
}

#[test]
fn a_usurper_of_a_higher_term_changes_nothing_that_is_known_to_be_committed() {
    let (honest, _, _) = Honest::two_of_three();
    let before = honest.go_on("before");
    for n in [1, 2] {
        honest.node(n).wait_for_applied(before.index, super::support::LONG).unwrap();
    }
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[1, 2]);
    liar.polite = false;
    let term = honest.node(1).status().term.max(honest.node(2).status().term).next();
    let prev = LogId::new(before.term, before.index.prev());
    for to in [1, 2] {
        liar.say(to, term, heartbeat(LogId::new(before.term, before.index.plus(1000))));
        liar.say(to, term, heartbeat(LogId::new(term, Index(u64::MAX))));
        liar.say(to, term, append(LogId::ZERO, Index(u64::MAX), vec![]));
        // An entry that they hold, with other bytes: identities decide, so theirs stay.
        liar.say(to, term, append(prev, before.index, vec![forged(before.term, before.index)]));
        // Another entry in the place of a committed one.
        liar.say(to, term, append(prev, before.index, vec![forged(term, before.index)]));
        liar.be_heard(to, &honest);
        let status = honest.node(to).status();
        assert!(status.commit <= status.last.index && status.last.index.0 < SANE_MAX);
        let words = "an entry that contradicts a committed one";
        assert_eq!(honest.count_nonsense(to, words), 1, "{:?}", honest.nonsense(to));
        assert!(honest.count_nonsense(to, "an absurd") >= 1);
    }
    drop(liar);
    let after = honest.go_on("after");
    assert!(after.index > before.index);
    let commands = honest.machines[&1].commands();
    assert_eq!(commands.iter().filter(|command| *command == "before").count(), 1);
}

#[test]
fn absurd_terms_are_told_and_believed_by_nobody() {
    let (honest, leader, follower) = Honest::two_of_three();
    let before = honest.go_on("before");
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[1, 2]);
    let status = honest.node(leader).status();
    let reply = VoteReply { round: 1, granted: false, last: LogId::ZERO };
    let outcome = AppendOutcome::Matched { matched: Index(1), storage_full: false };
    let snapshot = SnapshotId { last: LogId::new(Term(9), Index(9)), bytes: 9, hash: [9; 32] };
    let bodies = [
        RaftBody::PreVote(PreVote { round: 1, last: LogId::ZERO }),
        RaftBody::PreVoteReply(reply),
        RaftBody::Vote(Vote { round: 1, last: LogId::new(Term(9), Index(9)), transfer: true }),
        RaftBody::VoteReply(reply),
        append(LogId::ZERO, before.index, vec![forged(Term(u64::MAX), Index(1))]),
        RaftBody::AppendReply(AppendReply { session: 1, outcome }),
        heartbeat(LogId::ZERO),
        RaftBody::HeartbeatReply(HeartbeatReply {
            session: 1,
            round: 1,
            sent_us: 0,
            clock_us: 0,
            faith_us: 0,
            fitness: 0,
            storage_full: false,
        }),
        RaftBody::TimeoutNow,
        RaftBody::SnapshotOffer(SnapshotOffer { session: 1, id: snapshot, commit: Index(1) }),
    ];
    let absurd = [u64::MAX, u64::MAX - 1, SANE_MAX + 1, SANE_MAX, status.term.0 + (1 << 40) + 1];
    for to in [leader, follower] {
        for term in absurd {
            for body in &bodies {
                liar.say(to, Term(term), body.clone());
            }
        }
        liar.be_heard(to, &honest);
        assert!(honest.count_nonsense(to, "an absurd term") >= 1);
        let now = honest.node(to).status();
        assert_eq!((now.term, now.leader), (status.term, status.leader));
    }
    assert_eq!(honest.go_on("after").term, before.term, "no election");
}
