//! Every cell of (role, message, term below / equal / above): the answer, the role and the term
//! that the module documentation of `raft::receive` promises. And the same with absurd numbers, and
//! with random messages from members and strangers.

use proptest::prelude::*;
use raftz_core::raft::Input;
use raftz_core::types::{
    Append, AppendOutcome, AppendReply, Event, Heartbeat, HeartbeatReply, Index, LogId, PreVote,
    RaftBody, RaftMessage, Role, SANE_MAX, SnapshotId, SnapshotOffer, Term, Vote, VoteReply,
};

use super::by_hand::{FIRST_LIFE, command};
use super::cluster::node;
use super::solo::{Said, Solo};

const TERM: u64 = 5;
const STANDS: [Stand; 6] = [
    Stand::Leaderless,
    Stand::Following,
    Stand::Learning,
    Stand::PreCandidate,
    Stand::Candidate,
    Stand::Leader,
];

/// Where a core of term 5, with entries 1@t1 and 2@t3, can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Leaderless,
    /// Node 2 leads; it was heard a moment ago.
    Following,
    /// The same, as a learner.
    Learning,
    PreCandidate,
    Candidate,
    Leader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Than {
    Below,
    Equal,
    Above,
}

fn core_at(stand: Stand) -> Solo {
    let start = |term| Solo::among(3, &[1, 3], term);
    let candidate = || {
        let mut solo = start(TERM - 1);
        solo.step(Input::Campaign);
        solo.receive(2, TERM - 1, RaftBody::PreVoteReply(yes(1)));
        solo.persist();
        solo
    };
    match stand {
        Stand::Leaderless => start(TERM),
        Stand::Following => {
            let mut solo = start(TERM);
            solo.receive(2, TERM, heartbeat());
            solo
        }
        Stand::Learning => {
            let mut membership = start(TERM).raft.membership().clone();
            membership.voters.remove(&node(1));
            let mut solo = Solo::new(membership, &[1, 3], TERM);
            solo.receive(2, TERM, heartbeat());
            solo
        }
        Stand::PreCandidate => {
            let mut solo = start(TERM);
            solo.step(Input::Campaign);
            solo
        }
        Stand::Candidate => candidate(),
        Stand::Leader => {
            let mut solo = candidate();
            solo.receive(2, TERM, RaftBody::VoteReply(yes(2)));
            solo.persist();
            assert_eq!(solo.raft.role(), Role::Leader);
            solo
        }
    }
}

const fn last() -> LogId {
    LogId::new(Term(3), Index(2))
}

/// An answer to this round of a node's first life.
const fn yes(round: u64) -> VoteReply {
    VoteReply { round: FIRST_LIFE + round, granted: true, last: LogId::ZERO }
}

const fn no() -> VoteReply {
    VoteReply { round: 99, granted: false, last: LogId::ZERO }
}

fn heartbeat() -> RaftBody {
    RaftBody::Heartbeat(Heartbeat {
        session: 1,
        round: 1,
        commit: LogId::ZERO,
        sent_us: 0,
        confirmed_clock_us: 0,
        faith_us: 0,
    })
}

/// One message of each kind, each of them plausible.
fn kinds() -> Vec<RaftBody> {
    vec![
        RaftBody::PreVote(PreVote { round: 1, last: last() }),
        RaftBody::PreVoteReply(no()),
        RaftBody::PreVoteReply(yes(99)),
        RaftBody::Vote(Vote { round: 1, last: last(), transfer: false }),
        RaftBody::Vote(Vote { round: 1, last: last(), transfer: true }),
        RaftBody::VoteReply(no()),
        RaftBody::VoteReply(yes(99)),
        RaftBody::Append(Append {
            session: 1,
            prev: last(),
            commit: Index(0),
            entries: vec![].into(),
        }),
        RaftBody::AppendReply(AppendReply {
            session: 99,
            outcome: AppendOutcome::Matched { matched: Index(2), storage_full: false },
        }),
        heartbeat(),
        RaftBody::HeartbeatReply(HeartbeatReply {
            session: 99,
            round: 1,
            sent_us: 0,
            clock_us: 0,
            faith_us: 0,
            fitness: 0,
            storage_full: false,
        }),
        RaftBody::TimeoutNow,
        offer(snapshot(last())),
    ]
}

const fn snapshot(last: LogId) -> SnapshotId {
    SnapshotId { last, bytes: 1000, hash: [7; 32] }
}

const fn offer(id: SnapshotId) -> RaftBody {
    RaftBody::SnapshotOffer(SnapshotOffer { session: 1, id, commit: Index(0) })
}

/// What is promised: answer (with what it grants), role and term afterwards.
struct Promise {
    answer: Option<(&'static str, Option<bool>)>,
    role: Role,
    term: u64,
}

fn promise(stand: Stand, than: Than, body: &RaftBody, now: Role) -> Promise {
    let stays = |answer| Promise { answer, role: now, term: TERM };
    let follows = |answer, term| Promise { answer, role: Role::Follower, term };
    let faithful = matches!(stand, Stand::Following | Stand::Learning | Stand::Leader);
    let above = TERM + 1;
    match (body, than) {
        // A pre-vote changes nothing; it is granted for a higher term where nobody is heard to lead.
        (RaftBody::PreVote(_), Than::Below | Than::Equal) => {
            stays(Some(("PreVoteReply", Some(false))))
        }
        (RaftBody::PreVote(_), Than::Above) => stays(Some(("PreVoteReply", Some(!faithful)))),
        // A vote: one a term, not in a lower one, not against faith unless the leader asked.
        (RaftBody::Vote(_), Than::Below) => stays(Some(("VoteReply", Some(false)))),
        (RaftBody::Vote(_), Than::Equal) => match stand {
            Stand::Leaderless | Stand::PreCandidate => {
                follows(Some(("VoteReply", Some(true))), TERM)
            }
            Stand::Following | Stand::Learning | Stand::Candidate | Stand::Leader => {
                stays(Some(("VoteReply", Some(false))))
            }
        },
        (RaftBody::Vote(vote), Than::Above) if faithful && !vote.transfer => {
            stays(Some(("VoteReply", Some(false))))
        }
        // The leader's own log is longer by its no-op.
        (RaftBody::Vote(_), Than::Above) => {
            follows(Some(("VoteReply", Some(stand != Stand::Leader))), above)
        }
        // A leader of a lower term is told the term; of this or a higher one, followed.
        (RaftBody::Append(_), Than::Below) => stays(Some(("AppendReply", None))),
        (RaftBody::Heartbeat(_), Than::Below) => stays(Some(("HeartbeatReply", None))),
        (RaftBody::Append(_) | RaftBody::Heartbeat(_), Than::Equal) if stand == Stand::Leader => {
            stays(None)
        }
        (RaftBody::Append(_), Than::Equal) => follows(Some(("AppendReply", None)), TERM),
        (RaftBody::Heartbeat(_), Than::Equal) => follows(Some(("HeartbeatReply", None)), TERM),
        (RaftBody::Append(_), Than::Above) => follows(Some(("AppendReply", None)), above),
        (RaftBody::Heartbeat(_), Than::Above) => follows(Some(("HeartbeatReply", None)), above),
        // No voter grants a pre-vote from above the term that it was asked in.
        (RaftBody::PreVoteReply(reply), Than::Above) if reply.granted => stays(None),
        // Any other answer of a higher term makes a follower; of another session or round, nothing.
        (
            RaftBody::PreVoteReply(_)
            | RaftBody::VoteReply(_)
            | RaftBody::AppendReply(_)
            | RaftBody::HeartbeatReply(_),
            Than::Above,
        ) => follows(None, above),
        (
            RaftBody::PreVoteReply(_)
            | RaftBody::VoteReply(_)
            | RaftBody::AppendReply(_)
            | RaftBody::HeartbeatReply(_),
            Than::Below | Than::Equal,
        ) => stays(None),
        // Only the leader of the term hands over, to a voter.
        (RaftBody::TimeoutNow, Than::Equal) if stand == Stand::Following => {
            Promise { answer: None, role: Role::Candidate, term: above }
        }
        (RaftBody::TimeoutNow, Than::Below | Than::Equal | Than::Above) => stays(None),
        // An offer is an append that ends at an entry which this log holds.
        (RaftBody::SnapshotOffer(_), Than::Below) => stays(Some(("AppendReply", None))),
        (RaftBody::SnapshotOffer(_), Than::Equal) if stand == Stand::Leader => stays(None),
        (RaftBody::SnapshotOffer(_), Than::Equal) => follows(Some(("AppendReply", None)), TERM),
        (RaftBody::SnapshotOffer(_), Than::Above) => follows(Some(("AppendReply", None)), above),
    }
}

fn answer(said: &Said) -> Option<(&'static str, Option<bool>)> {
    let (_, message) = said.sent.iter().find(|(to, message)| {
        *to == node(2)
            && matches!(
                message.body,
                RaftBody::PreVoteReply(_)
                    | RaftBody::VoteReply(_)
                    | RaftBody::AppendReply(_)
                    | RaftBody::HeartbeatReply(_)
            )
    })?;
    let granted = match &message.body {
        RaftBody::PreVoteReply(reply) | RaftBody::VoteReply(reply) => Some(reply.granted),
        RaftBody::PreVote(_)
        | RaftBody::Vote(_)
        | RaftBody::Append(_)
        | RaftBody::AppendReply(_)
        | RaftBody::Heartbeat(_)
        | RaftBody::HeartbeatReply(_)
        | RaftBody::TimeoutNow
        | RaftBody::SnapshotOffer(_) => None,
    };
    Some((message.name(), granted))
}

#[test]
fn every_role_answers_every_message_of_every_term_as_documented() {
    let mut cells = 0;
    for stand in STANDS {
        for body in kinds() {
            for (than, term) in
                [(Than::Below, TERM - 1), (Than::Equal, TERM), (Than::Above, TERM + 1)]
            {
                let mut solo = core_at(stand);
                let promised = promise(stand, than, &body, solo.raft.role());
                let mut said = solo.receive(2, term, body.clone());
                // A grant and an acknowledgement wait for the disk.
                said.sent.extend(solo.persist().sent);
                let cell = format!("{stand:?}, {body:?}, {than:?}");
                assert_eq!(answer(&said), promised.answer, "{cell}: answer");
                assert_eq!(solo.raft.role(), promised.role, "{cell}: role");
                assert_eq!(solo.raft.term(), Term(promised.term), "{cell}: term");
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 6 * 13 * 3);
}

#[test]
fn a_pre_vote_changes_nothing_on_its_voter() {
    for stand in STANDS {
        for term in [TERM - 1, TERM, TERM + 1, TERM + 100] {
            let mut solo = core_at(stand);
            solo.step(Input::Tick);
            let before = (solo.raft.fingerprint(), solo.raft.next_deadline(), solo.raft.status());
            solo.receive(2, term, RaftBody::PreVote(PreVote { round: 7, last: last() }));
            let after = (solo.raft.fingerprint(), solo.raft.next_deadline(), solo.raft.status());
            assert_eq!(before, after, "{stand:?}, wish {term}");
            assert!(solo.disk.queue.is_empty(), "{stand:?}: something is written");
        }
    }
}

/// Every message with one number at a time replaced by an absurd one.
fn absurd_messages(absurd: u64) -> Vec<(u64, RaftBody)> {
    let (term, index) = (Term(absurd), Index(absurd));
    let mut all: Vec<(u64, RaftBody)> = kinds().into_iter().map(|body| (absurd, body)).collect();
    let ids = [LogId::new(term, Index(2)), LogId::new(Term(3), index), LogId::new(term, index)];
    for id in ids {
        all.push((TERM + 1, RaftBody::PreVote(PreVote { round: absurd, last: id })));
        all.push((TERM, RaftBody::PreVoteReply(VoteReply { round: 2, granted: false, last: id })));
        all.push((TERM + 1, RaftBody::Vote(Vote { round: absurd, last: id, transfer: true })));
        all.push((TERM, RaftBody::VoteReply(VoteReply { round: 2, granted: false, last: id })));
        let append = |prev, commit, entries: Vec<raftz_core::types::Entry>| {
            let entries = entries.into();
            RaftBody::Append(Append { session: absurd, prev, commit, entries })
        };
        all.push((TERM, append(id, Index(0), vec![])));
        all.push((TERM, append(last(), index, vec![])));
        all.push((TERM, append(last(), Index(0), vec![command(id)])));
        all.push((TERM, append(id, index, vec![command(id), command(id)])));
        all.push((TERM, offer(SnapshotId { bytes: absurd, ..snapshot(id) })));
        let mut stamped = command(LogId::new(Term(TERM), Index(3)));
        stamped.log_time_us = absurd;
        all.push((TERM, append(last(), Index(0), vec![stamped])));
        for session in [1, absurd] {
            let outcomes = [
                AppendOutcome::Matched { matched: index, storage_full: false },
                AppendOutcome::Rejected { prev: index, hint: id },
                AppendOutcome::Rejected { prev: Index(2), hint: id },
            ];
            for outcome in outcomes {
                all.push((TERM, RaftBody::AppendReply(AppendReply { session, outcome })));
            }
            all.push((
                TERM,
                RaftBody::Heartbeat(Heartbeat {
                    session,
                    round: absurd,
                    commit: id,
                    sent_us: absurd,
                    confirmed_clock_us: absurd,
                    faith_us: absurd,
                }),
            ));
            all.push((
                TERM,
                RaftBody::HeartbeatReply(HeartbeatReply {
                    session,
                    round: absurd,
                    sent_us: absurd,
                    clock_us: absurd,
                    faith_us: absurd,
                    fitness: u8::MAX,
                    storage_full: false,
                }),
            ));
        }
    }
    all
}

#[test]
fn absurd_numbers_in_any_field_commit_nothing_and_stop_nobody() {
    for absurd in [u64::MAX, u64::MAX - 1, SANE_MAX + 1, SANE_MAX, 1 << 32] {
        for stand in STANDS {
            for (term, body) in absurd_messages(absurd) {
                let mut solo = core_at(stand);
                let cell = format!("{stand:?}, {term}, {body:?}");
                let before = solo.raft.commit();
                solo.receive(2, term, body.clone());
                solo.persist();
                solo.receive(2, term, body);
                if absurd > SANE_MAX {
                    assert_eq!(solo.raft.commit(), before, "{cell}");
                    assert!(solo.raft.term() <= Term(TERM + 1), "{cell}: believed");
                }
                // It goes on: time passes, a call comes.
                solo.now = solo.now.plus_us(10_000_000);
                solo.step(Input::Tick);
                solo.step(Input::Propose { proposals: vec![] });
                solo.persist();
            }
        }
    }
}

#[test]
fn the_clock_at_its_end_stops_nobody() {
    for stand in STANDS {
        let mut solo = core_at(stand);
        solo.now.boot_us = u64::MAX;
        solo.now.wall_us = u64::MAX;
        solo.step(Input::Tick);
        solo.receive(2, TERM, heartbeat());
        solo.now.boot_us = 0;
        solo.step(Input::Tick);
        solo.persist();
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..8, 1 => Just(u64::MAX), 1 => Just(SANE_MAX)]
}

fn log_id() -> impl Strategy<Value = LogId> {
    (number(), number()).prop_map(|(term, index)| LogId::new(Term(term), Index(index)))
}

fn entries() -> impl Strategy<Value = Vec<raftz_core::types::Entry>> {
    let run = (0u64..6, proptest::collection::vec(0u64..2, 0..4), 0u64..6).prop_map(
        |(first, steps, mut term)| {
            let ids = steps.iter().zip(first..).map(|(step, index)| {
                term += step;
                command(LogId::new(Term(term), Index(index)))
            });
            ids.collect()
        },
    );
    prop_oneof![
        4 => run,
        1 => proptest::collection::vec(log_id().prop_map(command), 0..3),
    ]
}

fn body() -> impl Strategy<Value = RaftBody> {
    let vote_reply = || {
        let round = prop_oneof![3 => 0u64..5, 1 => number()];
        (round.prop_map(|round| FIRST_LIFE.saturating_add(round)), any::<bool>(), log_id())
            .prop_map(|(round, granted, last)| VoteReply { round, granted, last })
    };
    let outcome = prop_oneof![
        number().prop_map(|matched| AppendOutcome::Matched {
            matched: Index(matched),
            storage_full: matched & 1 > 0,
        }),
        (number(), log_id())
            .prop_map(|(prev, hint)| AppendOutcome::Rejected { prev: Index(prev), hint }),
    ];
    prop_oneof![
        (number(), log_id()).prop_map(|(round, last)| RaftBody::PreVote(PreVote { round, last })),
        vote_reply().prop_map(RaftBody::PreVoteReply),
        (number(), log_id(), any::<bool>())
            .prop_map(|(round, last, transfer)| RaftBody::Vote(Vote { round, last, transfer })),
        vote_reply().prop_map(RaftBody::VoteReply),
        (number(), log_id(), number(), entries()).prop_map(|(session, prev, commit, entries)| {
            RaftBody::Append(Append {
                session,
                prev,
                commit: Index(commit),
                entries: entries.into(),
            })
        }),
        (number(), outcome)
            .prop_map(|(session, outcome)| RaftBody::AppendReply(AppendReply { session, outcome })),
        (number(), number(), log_id()).prop_map(|(session, round, commit)| {
            let (sent_us, confirmed_clock_us, faith_us) = (round, session, session);
            RaftBody::Heartbeat(Heartbeat {
                session,
                round,
                commit,
                sent_us,
                confirmed_clock_us,
                faith_us,
            })
        }),
        (number(), number()).prop_map(|(session, round)| {
            RaftBody::HeartbeatReply(HeartbeatReply {
                session,
                round,
                sent_us: round,
                clock_us: round,
                faith_us: session,
                fitness: round as u8,
                storage_full: false,
            })
        }),
        Just(RaftBody::TimeoutNow),
        (number(), log_id(), number()).prop_map(|(session, last, commit)| {
            let (id, commit) = (snapshot(last), Index(commit));
            RaftBody::SnapshotOffer(SnapshotOffer { session, id, commit })
        }),
    ]
}

#[derive(Clone, Debug)]
enum Push {
    Message(u64, RaftMessage),
    Persist,
    Time(u64),
    Campaign,
}

fn push() -> impl Strategy<Value = Push> {
    prop_oneof![
        8 => (1u64..8, number(), body()).prop_map(|(from, term, body)| {
            Push::Message(from, RaftMessage { term: Term(term), body })
        }),
        2 => Just(Push::Persist),
        1 => (0u64..400_000).prop_map(Push::Time),
        1 => Just(Push::Campaign),
    ]
}

fn play(solo: &mut Solo, push: Push) {
    match push {
        Push::Message(from, message) => {
            solo.step(Input::Receive { from: node(from), message });
        }
        Push::Persist => {
            solo.persist();
        }
        Push::Time(us) => {
            solo.now = solo.now.plus_us(us);
            solo.step(Input::Tick);
        }
        Push::Campaign => {
            solo.step(Input::Campaign);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No message from anybody panics, moves term or commit back, or draws a promise that is not
    /// durable (`Solo::step` checks).
    #[test]
    fn random_messages_from_members_and_strangers_break_nothing(
        stand in 0usize..6, pushes in proptest::collection::vec(push(), 1..40),
    ) {
        let mut solo = core_at(STANDS[stand]);
        for push in pushes {
            play(&mut solo, push);
        }
    }

    /// With the answers of one other member of five and of any strangers, nobody wins and nothing is
    /// committed.
    #[test]
    fn answers_of_less_than_a_quorum_elect_nobody_and_commit_nothing(
        leads in any::<bool>(),
        answers in proptest::collection::vec((prop_oneof![Just(2u64), 6u64..9], body()), 1..60),
    ) {
        let mut solo = Solo::among(5, &[1, 3], TERM - 1);
        solo.step(Input::Campaign);
        for voter in [2, 3] {
            solo.receive(voter, TERM - 1, RaftBody::PreVoteReply(yes(1)));
        }
        solo.persist();
        if leads {
            for voter in [2, 3] {
                solo.receive(voter, TERM, RaftBody::VoteReply(yes(2)));
            }
            solo.persist();
        }
        let before = solo.raft.commit();
        for (from, body) in answers {
            let is_answer = matches!(
                body,
                RaftBody::PreVoteReply(_)
                    | RaftBody::VoteReply(_)
                    | RaftBody::AppendReply(_)
                    | RaftBody::HeartbeatReply(_)
            );
            if is_answer {
                solo.receive(from, TERM, body);
                solo.persist();
            }
        }
        prop_assert_eq!(solo.raft.commit(), before);
        prop_assert_eq!(solo.raft.role() == Role::Leader, leads);
    }
}

#[test]
fn nonsense_is_told_not_swallowed() {
    let mut solo = core_at(Stand::Leader);
    let said = solo.receive(2, u64::MAX, RaftBody::TimeoutNow);
    assert!(said.events.iter().any(|event| matches!(event, Event::Nonsense { .. })));
}
