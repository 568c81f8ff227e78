//! Lies about what was stored.

use raftz_core::types::{AppendOutcome, AppendReply, Index, LogId, RaftBody, SANE_MAX, Term};

use super::honest::Honest;
use super::mouth::Mouth;
use super::support::done;

#[test]
fn acks_beyond_the_log_of_other_sessions_or_of_other_terms_commit_nothing() {
    let (mut honest, leader, follower) = Honest::two_of_three();
    honest.go_on("before");
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[leader]);
    honest.stop(follower);
    let (mut pending, index) = honest.propose(leader, "unheard of");
    let (term, session) = liar.hear_session(leader);
    for beyond in [index.next(), index.plus(1000), Index(SANE_MAX), Index(u64::MAX)] {
        liar.acknowledge(leader, term, session, beyond);
    }
    for other in [0, session + 1, session.wrapping_sub(1), u64::MAX] {
        liar.acknowledge(leader, term, other, index);
    }
    liar.acknowledge(leader, Term(term.0 - 1), session, index);
    liar.be_heard(leader, &honest);
    let status = honest.node(leader).status();
    assert!(status.commit < index, "{} committed with one log of three", status.commit);
    assert_eq!(status.term, term);
    assert!(honest.count_nonsense(leader, "a match beyond the leader's log") >= 1);
    honest.start(follower);
    let mut outcome = None;
    liar.until("the commit of two honest logs", |_| {
        outcome = pending.try_take();
        outcome.is_some()
    });
    assert!(done(outcome.unwrap()).index >= index);
    honest.go_on("after");
}

#[test]
fn who_takes_back_an_ack_is_told_of_and_its_session_counts_no_more() {
    let (mut honest, leader, follower) = Honest::two_of_three();
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[leader]);
    let (pending, index) = honest.propose(leader, "first");
    let (term, session) = liar.hear_session(leader);
    done(pending.wait());
    // It has stored nothing, and says now this, now that.
    liar.acknowledge(leader, term, session, index);
    // Two more, so that a refusal of the second sends the leader back to what was acknowledged.
    for more in ["second", "third"] {
        liar.be_heard(leader, &honest);
        done(honest.propose(leader, more).0.wait());
    }
    liar.until("what it takes back to be told", |liar| {
        if let Some((term, append)) = liar.newest_append(leader) {
            let (session, prev) = (append.session, append.prev.index);
            let outcome = AppendOutcome::Rejected { prev, hint: LogId::ZERO };
            liar.say(leader, term, RaftBody::AppendReply(AppendReply { session, outcome }));
        }
        honest.count_nonsense(leader, "it refuses what it has acknowledged") > 0
    });
    honest.stop(follower);
    let (unheard, last) = honest.propose(leader, "unheard of");
    liar.until("a new session", |liar| {
        liar.newest_append(leader).is_some_and(|(_, append)| append.session != session)
    });
    liar.acknowledge(leader, term, session, last);
    liar.be_heard(leader, &honest);
    assert!(honest.node(leader).status().commit < last, "committed with one log of three");
    drop(unheard);
    honest.start(follower);
    honest.go_on("after");
}
