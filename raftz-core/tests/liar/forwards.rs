//! Lies about calls that were handed to somebody else.

use raftz_core::node::ProposeOptions;
use raftz_core::types::{Done, ForwardReply, Index, Message, Outcome, Reply, Role, Term};

use super::honest::Honest;
use super::mouth::Mouth;
use super::support::{Gate, LONG, done};

#[test]
fn an_answer_by_who_was_not_asked_ends_no_call() {
    let gate = Gate::default();
    let (honest, leader, follower) = Honest::two_of_three_behind(Some(&gate));
    let mut liar = Mouth::of(3, &honest);
    liar.link(&[follower]);
    let options = ProposeOptions { timeout: Some(LONG), ..ProposeOptions::default() };
    let mut call = honest.node(follower).propose_opt("handed over", options);
    // The machines wait at the gate, so the leader's answer does, too.
    liar.until("the call to be at the leader", |_| {
        let status = honest.node(leader).status();
        status.waiting == 1 && status.role == Role::Leader
    });
    let forged =
        Outcome::Done(Done { index: Index(1), term: Term(1), reply: Reply::Ok("forged".into()) });
    // Batches are numbered within a life of the node; this is its first.
    for batch in 0..100 {
        let outcomes = vec![(0, forged.clone()), (u32::MAX, forged.clone())];
        let reply = ForwardReply { id: (1 << 40) + batch, outcomes };
        liar.tell(follower, &Message::ForwardReply(reply));
    }
    liar.be_heard(follower, &honest);
    assert!(call.try_take().is_none(), "ended by a stranger's word");
    gate.open();
    let mut outcome = None;
    liar.until("the leader's own answer", |_| {
        outcome = call.try_take();
        outcome.is_some()
    });
    assert_eq!(done(outcome.unwrap()).reply, Reply::Ok("handed over".into()));
    honest.go_on("after");
}
