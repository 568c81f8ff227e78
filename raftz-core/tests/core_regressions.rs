//! Defects that the core once had, each held shut by a test.
//!
//! Every test states what must hold, in a situation in which it once did not: answers that belong to
//! an earlier life, disks that are slow or hang, messages that come twice, values that no honest member
//! sends. Most drive one replica by hand and look at what it asks for; those about elections run a few
//! replicas in virtual time. Nothing here has a thread, a clock or a file. The rules of snapshots stand in
//! `core_snapshots`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::wildcard_enum_match_arm)]

mod core_rig;
mod core_snapshots;

use core_rig::*;
use raftz_core::raft;
use raftz_core::replica::{Action, Config, Input};
use raftz_core::types::*;

// ---- elections ----

#[test]
fn a_pre_vote_granted_from_a_lower_term_counts() {
    // Node 1 made term 4 durable and restarted before anybody heard of it. Node 2 votes but cannot
    // stand, as its log is damaged, so it will never raise its own term. Node 3 is dead.
    let damage = Some(Damage {
        first_faulty: Index(1),
        lost: Lost { last_known: Some(LogId::ZERO), term_max: Term(1) },
    });
    let voter = Recovered { damage, ..recovered(2, 3, 3) };
    let mut net = Net::new(100, vec![Some(recovered(1, 3, 4)), Some(voter), None]);
    assert!(net.elects_within(60 * SECOND));
}

#[test]
fn a_lone_voter_leads_although_its_disk_is_slower_than_its_election_timeout() {
    let mut net = Net::new(400 * MS, vec![Some(recovered(1, 1, 0))]);
    assert!(net.elects_within(60 * SECOND));
}

#[test]
fn a_candidate_waits_for_its_own_vote_before_it_tries_the_next_term() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 0));
    solo.disk_works = false;
    let mut writes = 0;
    while let Some(due_us) = solo.replica.next_deadline().filter(|due_us| *due_us < 60 * SECOND) {
        solo.now_us = due_us;
        let actions = solo.run(Input::Tick, healthy);
        writes += actions.iter().filter(|action| matches!(action, Action::Persist(_))).count();
    }
    assert_eq!((solo.status().term, writes), (Term(1), 1), "a minute behind a disk that hangs");
}

#[test]
fn a_candidate_gives_its_voters_a_whole_timeout_from_when_its_requests_leave() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 0));
    solo.disk_works = false;
    let actions = solo.run(Input::Campaign, healthy);
    let vote = actions.iter().find_map(|action| match action {
        Action::Persist(op) => Some(op.id),
        _ => None,
    });
    solo.now_us = solo.replica.next_deadline().unwrap() - 1;
    let actions = solo.step(Input::Persisted(vote.unwrap()));
    assert_eq!(sent(&actions).count(), 2, "the requests leave now");
    assert!(solo.replica.next_deadline().unwrap() >= solo.now_us + 150 * MS);
}

#[test]
fn candidates_stay_apart_when_the_group_wants_longer_timeouts_than_theirs() {
    // The group's shortest timeout lies above the longest that each node would draw for itself.
    let voter = |node| {
        let mut recovered = recovered(node, 3, 0);
        recovered.base.settings.election_timeout_min_ms = 1000;
        Some(recovered)
    };
    let mut net = Net::new(100, (1..=3).map(voter).collect());
    assert!(net.elects_within(60 * SECOND));
}

#[test]
fn a_voter_keeps_faith_with_its_leader_in_the_candidates_own_term_too() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    solo.now_us = SECOND;
    solo.receive(2, 1, heartbeat());
    solo.receive(3, 2, vote(false));
    assert_eq!((solo.status().term, solo.status().vote), (Term(1), None));
    // Term 2 arrives by another way; then the same candidate asks again.
    let refusal = VoteReply { round: 9, granted: false, last: LogId::ZERO };
    solo.receive(3, 2, RaftBody::VoteReply(refusal));
    assert_eq!(solo.status().term, Term(2));
    solo.receive(3, 2, vote(false));
    assert_eq!(solo.status().vote, None, "it heard a leader this very moment");

    let mut handed_over = Solo { replica: solo.replica.clone(), ..solo };
    handed_over.receive(3, 2, vote(true));
    assert_eq!(handed_over.status().vote, Some(id(3)), "the leader itself asked for it");

    solo.now_us += 150 * MS;
    solo.receive(3, 2, vote(false));
    assert_eq!(solo.status().vote, Some(id(3)), "silence has set the voter free");
}

#[test]
fn a_lone_voter_campaigns_at_once_at_boot() {
    let mut lone = Solo::new(config(1), &recovered(1, 1, 7));
    assert_eq!(lone.replica.next_deadline(), Some(0));
    lone.run(Input::Tick, healthy);
    assert!(lone.replica.raft().is_ready(), "no time has passed");

    let mut one_of_three = Solo::new(config(1), &recovered(1, 3, 7));
    assert!(
        one_of_three.replica.next_deadline().unwrap() >= 150 * MS,
        "it may have heard a leader"
    );
}

// ---- forgetting a leader ----

/// Node 1, which voted for node 2 in term 2 and follows it since.
fn follower_of_2() -> Solo {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    solo.now_us = SECOND;
    solo.receive(2, 2, vote(false));
    solo.receive(2, 2, heartbeat());
    assert_eq!((solo.status().vote, solo.status().leader), (Some(id(2)), Some(id(2))));
    solo
}

/// Whether `solo` would help node 3 into office now.
fn grants_a_pre_vote(solo: &mut Solo) -> bool {
    let request = RaftBody::PreVote(PreVote { round: 5, last: LogId::ZERO });
    let actions = solo.receive(3, solo.status().term.0 + 1, request);
    let granted = sent(&actions).find_map(|(to, message)| match &message.body {
        RaftBody::PreVoteReply(reply) if to == id(3) => Some(reply.granted),
        _ => None,
    });
    granted.expect("a pre-vote is always answered")
}

#[test]
fn forgetting_the_leader_keeps_term_vote_and_timer() {
    let mut solo = follower_of_2();
    let (before, due_us) = (solo.status(), solo.replica.next_deadline());
    let actions = solo.step(Input::ForgetLeader);
    let told = Event::Leader { leader: None, term: Term(2) };
    assert_eq!(actions, [Action::Event(told)]);
    assert_eq!(solo.status(), raft::Status { leader: None, ..before });
    assert_eq!(solo.replica.next_deadline(), due_us);
}

#[test]
fn forgetting_the_leader_lets_a_pre_vote_be_granted() {
    let mut solo = follower_of_2();
    assert!(!grants_a_pre_vote(&mut solo), "its leader lives");
    solo.step(Input::ForgetLeader);
    assert!(grants_a_pre_vote(&mut solo));
}

#[test]
fn a_heartbeat_restores_following_a_forgotten_leader() {
    let mut solo = follower_of_2();
    solo.step(Input::ForgetLeader);
    solo.receive(2, 2, heartbeat());
    assert_eq!(solo.status().leader, Some(id(2)));
    assert!(!grants_a_pre_vote(&mut solo), "the leader lives after all");
}

#[test]
fn a_leader_does_not_forget_itself() {
    let mut solo = Solo::leader(config(1));
    let (before, due_us) = (solo.status(), solo.replica.next_deadline());
    assert_eq!(solo.step(Input::ForgetLeader), []);
    assert_eq!((solo.status(), solo.replica.next_deadline()), (before, due_us));
    assert!(!grants_a_pre_vote(&mut solo));
}

// ---- disks that hang ----

#[test]
fn a_leader_counts_what_its_hung_disk_owes_although_others_have_committed_it() {
    const BOUND: u64 = 1 << 20;
    let mut small = config(1);
    small.raft.uncommitted_bytes_max = BOUND;
    small.raft.cache_bytes_max = BOUND;
    let mut solo = Solo::leader(small);
    solo.disk_works = false;
    let (mut owed, mut done, mut busy) = (0, 0, 0);
    for token in 0..200 {
        let actions = solo.run(Input::Propose(vec![call(token, vec![0; 100_000])]), healthy);
        for action in &actions {
            match action {
                Action::Persist(op) => {
                    owed += op.entries.iter().map(Entry::cost_bytes).sum::<u64>()
                }
                Action::Reply { outcome: Outcome::Done(_), .. } => done += 1,
                Action::Reply { outcome: Outcome::Refused(Refusal::Busy { .. }), .. } => busy += 1,
                Action::Reply { outcome, .. } => panic!("{outcome:?}"),
                _ => {}
            }
        }
    }
    assert!(done > 0, "the others commit without this disk");
    assert_eq!(done + busy, 200);
    assert!(owed <= BOUND + 200_000, "{owed} bytes wait for a disk that hangs");
}

#[test]
fn a_peer_whose_disk_hangs_is_not_sent_the_same_entries_at_every_heartbeat() {
    let mut solo = Solo::leader(config(1));
    let calls = (0..20).map(|token| call(token, vec![0; 100_000])).collect();
    solo.run(Input::Propose(calls), disk_hangs);
    solo.run(link_up(2, 1), disk_hangs);
    let (mut probes, mut again) = (0, 0);
    for _ in 0..100 {
        solo.now_us += 50 * MS;
        let actions = solo.run(Input::Tick, disk_hangs);
        for (to, message) in sent(&actions) {
            if let RaftBody::Append(append) = &message.body
                && to == id(2)
            {
                probes += 1;
                again += append.entries.len();
            }
        }
    }
    assert_eq!(again, 0, "entries sent again within 5 s to a peer that may well have them");
    assert!(probes >= 99, "{probes} probes: a lost one must not stall the peer");

    solo.now_us += 50 * MS;
    solo.run(Input::Tick, healthy);
    let (last, peers) = (solo.status().last.index, solo.status().peers);
    assert_eq!(peers[0].matched, last, "the disk works again: the peer gets all the rest");
}

#[test]
fn promises_do_not_pile_up_while_a_followers_disk_hangs() {
    // Promises that wait are private to the core, so they are counted in its debug form.
    let waiting = |solo: &Solo| format!("{:?}", solo.replica.raft()).matches("Promise {").count();
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    let entries = (1..=3).map(|index| entry(1, index, EntryKind::Noop, Payload::empty())).collect();
    let actions = solo.receive(2, 1, append(LogId::ZERO, 0, entries));
    let [Action::Persist(op)] = &actions[..1] else { panic!("{actions:?}") };
    assert_eq!((waiting(&solo), sent(&actions).count()), (1, 0));
    for _ in 0..1000 {
        // What a leader asks at each heartbeat while an append is not acknowledged.
        let actions = solo.receive(2, 1, append(LogId::new(Term(1), Index(3)), 0, vec![]));
        assert_eq!(sent(&actions).count(), 0, "nothing is durable yet");
    }
    assert_eq!(waiting(&solo), 1);

    let actions = solo.step(Input::Persisted(op.id));
    let outcome = AppendOutcome::Matched { matched: Index(3), storage_full: false };
    let body = RaftBody::AppendReply(AppendReply { session: 1, outcome });
    let reply = RaftMessage { term: Term(1), body };
    assert_eq!(sent(&actions).collect::<Vec<_>>(), [(id(2), &reply)]);
    assert_eq!(waiting(&solo), 0);
}

#[test]
fn a_vote_asked_for_again_and_again_is_promised_once_while_the_disk_hangs() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    solo.now_us = SECOND;
    let mut asked = Vec::new();
    for round in [1, 1, 1, 2, 3] {
        let request = Vote { round, last: LogId::ZERO, transfer: false };
        asked.extend(solo.receive(2, 2, RaftBody::Vote(request)));
    }
    let write = asked.iter().find_map(|action| match action {
        Action::Persist(op) => Some(op.id),
        _ => None,
    });
    let actions = solo.step(Input::Persisted(write.unwrap()));
    let answers: Vec<_> = sent(&actions).map(|(to, message)| (to, message.body.clone())).collect();
    let yes = VoteReply { round: 3, granted: true, last: LogId::ZERO };
    assert_eq!(answers, [(id(2), RaftBody::VoteReply(yes))], "one answer waited, the latest");
}

#[test]
fn only_the_latest_session_is_promised_anything_while_a_followers_disk_hangs() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    let noop = entry(1, 1, EntryKind::Noop, Payload::empty());
    let actions = solo.receive(2, 1, append(LogId::ZERO, 0, vec![noop]));
    let [Action::Persist(op)] = &actions[..1] else { panic!("{actions:?}") };
    for session in 2..=1000 {
        // The link came and went, so the leader probes anew.
        let prev = LogId::new(Term(1), Index(1));
        let probe = Append { session, prev, commit: Index::ZERO, entries: Entries::new() };
        solo.receive(2, 1, RaftBody::Append(probe));
    }
    let actions = solo.step(Input::Persisted(op.id));
    let outcome = AppendOutcome::Matched { matched: Index(1), storage_full: false };
    let body = RaftBody::AppendReply(AppendReply { session: 1000, outcome });
    let reply = RaftMessage { term: Term(1), body };
    assert_eq!(sent(&actions).collect::<Vec<_>>(), [(id(2), &reply)]);
}

// ---- values that no honest member sends ----

#[test]
fn settings_that_no_group_can_run_with_halt_the_member_before_they_take_effect() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 0));
    let endless = Settings { election_timeout_min_ms: u64::MAX, ..Settings::default() };
    let payload = Payload::new(encode::encode(&endless).unwrap());
    let actions =
        solo.receive(2, 1, append(LogId::ZERO, 1, vec![entry(1, 1, EntryKind::Settings, payload)]));
    match halted(&actions) {
        Some(FaultReason::TooNew { index: Index(1), what }) => {
            assert!(what.contains("election timeout"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(solo.status().settings, Settings::default());
}

#[test]
fn founding_settings_with_an_endless_timeout_overflow_nothing() {
    let mut recovered = recovered(1, 3, 0);
    recovered.base.settings.election_timeout_min_ms = u64::MAX;
    let mut solo = Solo::new(config(1), &recovered);
    solo.now_us = SECOND;
    solo.receive(2, 1, heartbeat());
    assert_eq!((solo.status().leader, solo.replica.next_deadline()), (Some(id(2)), Some(u64::MAX)));
}

#[test]
fn log_times_that_are_absurd_or_go_back_are_dropped_as_nonsense() {
    let stamped = |times: &[u64]| -> Vec<Entry> {
        let noop = |index| entry(1, index, EntryKind::Noop, Payload::empty());
        (1..).zip(times).map(|(index, us)| Entry { log_time_us: *us, ..noop(index) }).collect()
    };
    let mut solo = Solo::new(config(1), &recovered(1, 3, 0));
    for times in [&[u64::MAX][..], &[SANE_MAX + 1], &[5, 4]] {
        let actions = solo.receive(2, 1, append(LogId::ZERO, 0, stamped(times)));
        assert!(nonsense(&actions).is_some_and(|what| what.contains("log times")), "{times:?}");
        assert_eq!(solo.status().last, LogId::ZERO, "{times:?}");
    }
    let actions = solo.receive(2, 1, append(LogId::ZERO, 0, stamped(&[5, 5, SANE_MAX])));
    assert_eq!((nonsense(&actions), solo.status().last.index), (None, Index(3)));
}

#[test]
fn a_term_jump_beyond_2_to_the_40_is_dropped_as_nonsense() {
    const JUMP_MAX: u64 = 1 << 40;
    let mut solo = Solo::new(config(1), &recovered(1, 3, 5));
    let before = solo.status();
    for body in [heartbeat(), vote(true), append(LogId::ZERO, 0, vec![])] {
        let actions = solo.receive(2, 5 + JUMP_MAX + 1, body);
        assert_eq!(nonsense(&actions), Some("an absurd term"));
        assert_eq!((actions.len(), solo.status()), (1, before.clone()));
    }
    let actions = solo.receive(2, 5 + JUMP_MAX, heartbeat());
    assert_eq!((nonsense(&actions), solo.status().term), (None, Term(5 + JUMP_MAX)));
}

#[test]
fn a_member_that_its_group_knows_by_another_disk_halts_at_its_first_step() {
    let (ours, theirs) = (DiskId(1), DiskId(99));
    let named_by_base = |disk| {
        let mut recovered = recovered(1, 3, 1);
        recovered.base.membership.members.get_mut(&id(1)).unwrap().disk_id = Some(disk);
        recovered
    };
    let named_by_log = |disk| {
        let payload = named_by_base(disk).base.membership.to_payload().unwrap();
        Recovered {
            last: LogId::new(Term(1), Index(1)),
            runs: vec![TermRun { first: Index(1), term: Term(1) }],
            config_entries: vec![entry(1, 1, EntryKind::Membership, payload)],
            ..recovered(1, 3, 1)
        }
    };
    let fault = FaultReason::WrongDisk { node: id(1), known: theirs, ours };
    for recovered in [named_by_base(theirs), named_by_log(theirs)] {
        let mut solo = Solo::new(config(1), &recovered);
        assert_eq!(halted(&solo.step(Input::Tick)), Some(&fault));
        assert_eq!(solo.replica.next_deadline(), None);

        let mut solo = Solo::new(config(1), &recovered);
        let actions = solo.receive(3, 2, vote(true));
        assert_eq!((halted(&actions), sent(&actions).count()), (Some(&fault), 0), "it promised");
        assert_eq!(solo.status().term, Term(1));

        let mut solo = Solo::new(config(1), &recovered);
        let mut actions = solo.step(Input::Propose(vec![call(7, "x")]));
        actions.extend(solo.step(Input::Tick));
        assert_eq!(halted(&actions), Some(&fault));
        let refused =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refusal::Faulted { .. }));
        assert!(
            matches!(replies(&actions)[..], [(7, outcome)] if refused(outcome)),
            "its caller was told {actions:?}"
        );
    }
    for recovered in [named_by_base(ours), named_by_log(ours)] {
        assert_eq!(halted(&Solo::new(config(1), &recovered).step(Input::Tick)), None);
    }
}

// ---- callers ----

/// Node 1 in its life `boot`, following node 2, after it handed a call with token 7 to it.
fn handed_to_2(boot: u64, payload: &'static str) -> (Solo, Forward) {
    let mut solo = Solo::new(config(1), &Recovered { boot: Boot(boot), ..recovered(1, 3, 1) });
    solo.step(link_up(2, 1));
    solo.receive(2, 1, heartbeat());
    let actions = solo.step(Input::Propose(vec![call(7, payload)]));
    let forward = forward(&actions).expect("the leader is known and linked").clone();
    (solo, forward)
}

fn done_reply(id: u64) -> Message {
    let reply = Reply::Ok(bytes::Bytes::from_static(b"what it did"));
    let done = Done { index: Index(5), term: Term(1), reply };
    Message::ForwardReply(ForwardReply { id, outcomes: vec![(0, Outcome::Done(done))] })
}

#[test]
fn an_answer_to_an_earlier_life_ends_no_call_of_this_one() {
    let (_dead, old) = handed_to_2(1, "old");
    let (mut solo, new) = handed_to_2(2, "new");
    let actions = solo.step(Input::Receive { from: id(2), message: done_reply(old.id) });
    assert_eq!(replies(&actions), [], "the caller of \"new\" was told what \"old\" did");
    let actions = solo.step(Input::Receive { from: id(2), message: done_reply(new.id) });
    assert!(matches!(replies(&actions)[..], [(7, Outcome::Done(_))]));
}

#[test]
fn a_link_from_another_life_of_the_leader_ends_forwarded_calls_as_unknown() {
    let (mut solo, forward) = handed_to_2(1, "x");
    assert_eq!(replies(&solo.step(link_up(2, 1))), [], "a second link of the same life");
    let actions = solo.step(link_up(2, 2));
    assert_eq!(replies(&actions), [(7, &Outcome::Unknown(Unknown::LeadershipLost))]);
    let actions = solo.step(Input::Receive { from: id(2), message: done_reply(forward.id) });
    assert_eq!(replies(&actions), [], "a call ends once");
    assert_eq!(solo.replica.status().waiting, 0);
}

#[test]
fn a_doubled_forward_runs_once_and_is_not_refused_later() {
    let mut solo = Solo::leader(config(1));
    let proposal = || ForwardedProposal { payload: Payload::new("x"), session: None };
    let forward = || {
        let forward = Forward { id: 1, patience_us: SECOND, proposals: vec![proposal()] };
        Input::Receive { from: id(2), message: Message::Forward(forward) }
    };
    let before = solo.status().last.index;
    solo.step(forward());
    solo.step(forward());
    assert_eq!(solo.status().last.index, before.next());

    solo.receive(3, 9, heartbeat());
    assert_eq!(solo.status().role, Role::Follower);
    let actions = solo.step(forward());
    assert_eq!(actions, [], "the first copy is in the log and may commit");
}

#[test]
fn strangers_that_left_leave_nothing_behind_and_a_doubled_call_of_one_runs_once() {
    let mut solo = Solo::leader(config(1));
    let forward = |from, number| {
        let proposals = vec![ForwardedProposal { payload: Payload::new("x"), session: None }];
        let forward = Forward { id: number, patience_us: SECOND, proposals };
        Input::Receive { from: id(from), message: Message::Forward(forward) }
    };
    let down = |peer| Input::LinkDown { peer: id(peer), reason: "reset".into() };
    solo.step(link_up(99, 1));
    let before = solo.status().last.index;
    solo.step(forward(99, 7));
    // Others come and go meanwhile.
    for stranger in 1000..1010 {
        solo.step(link_up(stranger, 1));
        solo.step(down(stranger));
    }
    solo.step(forward(99, 7));
    assert_eq!(solo.status().last.index, before.next());

    // A follower, so that nothing that they ask for stays in the log.
    solo.receive(3, 9, heartbeat());
    let size = |solo: &Solo| format!("{:?}", solo.replica).len();
    let mut sizes = Vec::new();
    for round in 1..=3 {
        for stranger in (1000..1500).map(|n| n + round * 1000) {
            solo.step(link_up(stranger, 1));
            solo.step(forward(stranger, 1));
            solo.step(down(stranger));
        }
        sizes.push(size(&solo));
    }
    assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) < 200), "{sizes:?}");
    // Nor is it passed on where a leader is at hand.
    solo.step(link_up(3, 1));
    solo.step(link_up(99, 2));
    let to = |actions: &[Action]| -> Vec<NodeId> {
        let sent = actions.iter().filter_map(|action| match action {
            Action::Send { to, message: Message::Forward(_) | Message::ForwardReply(_) } => {
                Some(*to)
            }
            _ => None,
        });
        sent.collect()
    };
    assert_eq!(to(&solo.step(forward(99, 8))), [id(99)], "refused");
    assert_eq!(to(&solo.step(forward(2, 8))), [id(3)], "handed on");
    // Why a member is out of reach is kept.
    solo.step(down(2));
    assert_eq!(solo.replica.status().unreachable, [(id(2), "reset".to_owned())]);
}

#[test]
fn calls_without_payload_count_against_the_bound_on_held_calls() {
    let mut solo = Solo::new(Config { held_bytes_max: 1000, ..config(1) }, &recovered(1, 3, 1));
    let mut refused = 0;
    for token in 0..10_000 {
        for (_, outcome) in replies(&solo.step(Input::Propose(vec![call(token, "")]))) {
            assert!(matches!(outcome, Outcome::Refused(Refusal::Busy { .. })), "{outcome:?}");
            refused += 1;
        }
    }
    let status = solo.replica.status();
    assert!(status.waiting > 0 && status.held_bytes <= 1000, "{} bytes", status.held_bytes);
    assert!(status.waiting < 1000, "{} calls held under a bound of 1000 bytes", status.waiting);
    assert_eq!(status.waiting + refused, 10_000);
}

#[test]
fn a_replica_whose_machine_failed_asks_for_no_more_wakeups() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    let failed = Input::ApplyFailed { index: Index(1), kind: "apply", detail: "x".into() };
    assert!(matches!(halted(&solo.step(failed)), Some(FaultReason::Machine { .. })));
    solo.now_us = 10 * SECOND;
    assert_eq!(solo.step(Input::Tick), []);
    assert_eq!(solo.replica.next_deadline(), None, "a deadline in the past would spin its driver");
}

// ---- a leader that cannot read its own log ----

/// What a healthy peer answers whose log is empty.
fn empty(message: &RaftMessage) -> Option<RaftMessage> {
    let RaftBody::Append(append) = &message.body else { return healthy(message) };
    if append.prev == LogId::ZERO {
        return healthy(message);
    }
    let outcome = AppendOutcome::Rejected { prev: append.prev.index, hint: LogId::ZERO };
    let reply = AppendReply { session: append.session, outcome };
    Some(RaftMessage { term: message.term, body: RaftBody::AppendReply(reply) })
}

/// Lets the leader read for node 3 in vain until it leads no more. Gives how many reads failed; `None` if it
/// leads on after many.
fn reads_until_it_resigns(solo: &mut Solo, mut actions: Vec<Action>) -> Option<u32> {
    for failed in 0..20 {
        if solo.status().role != Role::Leader {
            return Some(failed);
        }
        let request = loop {
            let read = actions.iter().find_map(|action| match action {
                Action::ReadEntries { request, .. } => Some(*request),
                _ => None,
            });
            if let Some(request) = read {
                break request;
            }
            solo.now_us = solo.replica.next_deadline().unwrap();
            actions = solo.run(Input::Tick, empty);
        };
        let result = Err("Input/output error".to_owned());
        actions = solo.run(Input::EntriesRead { request, result }, empty);
    }
    None
}

#[test]
fn a_leader_that_cannot_read_what_a_peer_needs_makes_room_for_another_but_not_all_the_time() {
    let mut config = config(1);
    config.raft.cache_bytes_max = 0;
    let timeout_us = config.raft.election_timeout_max_us;
    let mut solo = Solo::leader(config);
    solo.run(Input::Propose(vec![call(1, "a"), call(2, "b")]), healthy);
    let actions = solo.run(link_up(3, 2), empty);
    assert_eq!(reads_until_it_resigns(&mut solo, actions), Some(3));
    let pause_us = solo.replica.next_deadline().unwrap() - solo.now_us;
    assert!(pause_us >= 3 * timeout_us, "it lets others stand first");

    // Nobody else stood: it leads again, and goes on leading although its disk is no better.
    solo.run(Input::Campaign, healthy);
    assert_eq!(solo.status().role, Role::Leader);
    let actions = solo.run(link_up(3, 3), empty);
    assert_eq!(reads_until_it_resigns(&mut solo, actions), None);
}

#[test]
fn what_answers_a_deposed_leader_repeats_nothing_of_it() {
    let mut solo = Solo::new(config(1), &recovered(1, 3, 1));
    solo.receive(2, 3, heartbeat());
    let said = solo.receive(3, 1, heartbeat());
    let answers: Vec<&HeartbeatReply> =
        said.iter()
            .filter_map(|action| match action {
                Action::Send {
                    message:
                        Message::Raft(RaftMessage {
                            body: RaftBody::HeartbeatReply(reply),
                            term: Term(3),
                        }),
                    ..
                } => Some(reply),
                _ => None,
            })
            .collect();
    let nothing = HeartbeatReply {
        session: 0,
        round: 0,
        sent_us: 0,
        clock_us: 0,
        faith_us: 0,
        fitness: 0,
        storage_full: false,
    };
    assert_eq!(answers, [&nothing]);
}
