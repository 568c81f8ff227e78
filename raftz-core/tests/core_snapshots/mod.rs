//! Snapshots of one replica, fed by hand: who is offered one, how it is fetched, in which order it is installed.

use bytes::Bytes;
use raftz_core::replica::{Action, Input, SnapshotPolicy};
use raftz_core::types::*;

use crate::core_rig::*;

const POLICY: SnapshotPolicy = SnapshotPolicy {
    log_entries: 3,
    retain_bytes: 0,
    piece_bytes: 100,
    stall_us: 10 * SECOND,
    ..SnapshotPolicy::NEVER
};

fn snapshot(term: u64, index: u64) -> Snapshot {
    let last = LogId::new(Term(term), Index(index));
    let base = Base { id: last, log_time_us: index, ..recovered(2, 3, 0).base };
    Snapshot { id: SnapshotId { last, bytes: 250, hash: [7; 32] }, base }
}

fn follower() -> Solo {
    let mut config = config(2);
    config.snapshots = POLICY;
    let mut solo = Solo::new(config, &recovered(2, 3, 1));
    solo.step(link_up(1, 1));
    solo.step(link_up(3, 1));
    solo
}

fn offer(solo: &mut Solo, from: u64, id: SnapshotId) -> Vec<Action> {
    let offer = SnapshotOffer { session: 1, id, commit: id.last.index };
    solo.receive(from, 1, RaftBody::SnapshotOffer(offer))
}

fn piece(solo: &mut Solo, from: u64, id: SnapshotId, offset: u64, bytes: usize) -> Vec<Action> {
    let bytes = Bytes::from(vec![1; bytes]);
    let message = Message::Snapshot(SnapshotMessage::Piece { id, offset, bytes });
    solo.step(Input::Receive { from: node_id(from), message })
}

fn node_id(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

fn asked(actions: &[Action]) -> Vec<(u64, u64, u32)> {
    let fetch = |action: &Action| match action {
        Action::Send {
            to,
            message: Message::Snapshot(SnapshotMessage::Fetch { offset, bytes_max, .. }),
        } => Some((to.get(), *offset, *bytes_max)),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

fn matched(actions: &[Action]) -> Option<Index> {
    sent(actions).find_map(|(_, message)| match &message.body {
        RaftBody::AppendReply(AppendReply {
            outcome: AppendOutcome::Matched { matched, .. },
            ..
        }) => Some(*matched),
        _ => None,
    })
}

/// Fetches all of a snapshot; what follows from its arrival.
fn fetch(solo: &mut Solo, snapshot: &Snapshot) -> Vec<Action> {
    let id = snapshot.id;
    assert!(offer(solo, 1, id).contains(&Action::BeginFetch { id }));
    let actions = solo.step(Input::FetchBegan { id, result: Ok(0) });
    assert_eq!(asked(&actions), [(1, 0, 100), (1, 100, 100), (1, 200, 50)]);
    for (offset, bytes) in [(0, 100), (100, 100), (200, 50)] {
        let actions = piece(solo, 1, id, offset, bytes);
        assert!(matches!(&actions[..], [Action::WritePiece { .. }]), "{actions:?}");
    }
    let actions = solo.step(Input::PieceWritten { id, held_bytes: 250, damage: None });
    assert!(actions.contains(&Action::FinishFetch { id }));
    solo.step(Input::FetchFinished { id, result: Ok(snapshot.clone()) })
}

#[test]
fn a_snapshot_is_restored_then_written_into_the_log_then_acknowledged() {
    let mut solo = follower();
    let (wanted, id) = (snapshot(1, 9), snapshot(1, 9).id);
    let actions = fetch(&mut solo, &wanted);
    assert!(actions.contains(&Action::Restore { id }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Persist(_))), "too early");
    assert_eq!(matched(&offer(&mut solo, 1, id)), None);

    let actions = solo.step(Input::Restored(id));
    let op = actions.iter().find_map(|action| match action {
        Action::Persist(op) => Some(op),
        _ => None,
    });
    let op = op.unwrap();
    assert_eq!(op.base.as_deref(), Some(&wanted.base));
    let status = solo.status();
    assert_eq!((status.base, status.last, status.applied), (id.last, id.last, Index(9)));
    assert_eq!(matched(&offer(&mut solo, 1, id)), None, "it is not durable yet");
    assert_eq!(matched(&solo.step(Input::Persisted(op.id))), Some(Index(9)));
    assert_eq!(matched(&offer(&mut solo, 1, id)), Some(Index(9)));
}

#[test]
fn what_the_log_has_overtaken_is_not_installed() {
    let mut solo = follower();
    let wanted = snapshot(1, 2);
    let id = wanted.id;
    offer(&mut solo, 1, id);
    solo.step(Input::FetchBegan { id, result: Ok(0) });
    for offset in [0, 100, 200] {
        piece(&mut solo, 1, id, offset, if offset == 200 { 50 } else { 100 });
    }
    solo.step(Input::PieceWritten { id, held_bytes: 250, damage: None });
    // Another leader's log reaches that far, and further.
    let command = |index| entry(1, index, EntryKind::Command, Payload::new("x"));
    let entries = (1..=4).map(command).collect();
    let message = RaftMessage { term: Term(1), body: append(LogId::ZERO, 4, entries) };
    solo.run(Input::Receive { from: node_id(1), message: Message::Raft(message) }, |_| None);
    assert_eq!(solo.status().applied, Index(4));
    let actions = solo.step(Input::FetchFinished { id, result: Ok(wanted) });
    assert!(!actions.iter().any(|action| matches!(action, Action::Restore { .. })), "{actions:?}");
    assert_eq!(solo.status().applied, Index(4));
}

#[test]
fn an_install_that_a_crash_interrupted_is_finished_at_the_start() {
    let mut config = config(2);
    config.raft.snapshot = Some(snapshot(1, 9));
    let mut solo = Solo::new(config, &recovered(2, 3, 1));
    let actions = solo.step(Input::Tick);
    let bases = actions.iter().filter_map(|action| match action {
        Action::Persist(op) => op.base.as_deref(),
        _ => None,
    });
    assert_eq!(bases.collect::<Vec<_>>(), [&snapshot(1, 9).base]);
    let status = solo.status();
    assert_eq!(
        (status.last, status.commit, status.applied),
        (snapshot(1, 9).id.last, Index(9), Index(9))
    );
}

#[test]
fn lost_pieces_are_asked_for_again_and_another_offer_is_taken_when_nothing_moves() {
    let mut solo = follower();
    let id = snapshot(1, 9).id;
    offer(&mut solo, 1, id);
    solo.step(Input::FetchBegan { id, result: Ok(0) });
    assert!(piece(&mut solo, 1, id, 100, 100).is_empty(), "not the next one");
    assert!(piece(&mut solo, 3, id, 0, 100).is_empty(), "not asked for there");
    let transfer = solo.replica.status().transfers[0];
    assert_eq!((transfer.peer.get(), transfer.phase), (1, SnapshotPhase::Fetching));
    assert_eq!((transfer.index, transfer.bytes, transfer.total_bytes), (Index(9), 0, 250));
    let newer = snapshot(1, 12).id;
    let begins = |action: &Action| matches!(action, Action::BeginFetch { .. });
    assert!(!offer(&mut solo, 1, newer).iter().any(begins), "the first one moves");
    solo.now_us += 2 * SECOND;
    let actions = solo.step(Input::Tick);
    assert_eq!(asked(&actions), [(1, 0, 100), (1, 100, 100), (1, 200, 50)]);
    let actions = offer(&mut solo, 1, newer);
    assert!(actions.contains(&Action::AbandonFetch { id }), "{actions:?}");
    assert!(actions.contains(&Action::BeginFetch { id: newer }));
    // Late answers to what was asked before change nothing.
    assert!(piece(&mut solo, 1, id, 0, 100).is_empty());
    assert!(solo.step(Input::FetchFinished { id, result: Ok(snapshot(1, 9)) }).is_empty());
}

#[test]
fn a_damaged_piece_is_asked_for_again_and_not_for_ever() {
    let mut solo = follower();
    let id = snapshot(1, 9).id;
    offer(&mut solo, 1, id);
    solo.step(Input::FetchBegan { id, result: Ok(0) });
    let mut damaged = || {
        piece(&mut solo, 1, id, 0, 100);
        solo.step(Input::PieceWritten { id, held_bytes: 0, damage: Some("rot".into()) })
    };
    for _ in 0..3 {
        assert_eq!(asked(&damaged()).len(), 3);
    }
    assert!(damaged().contains(&Action::AbandonFetch { id }));
}

/// A node that has a snapshot, and is asked for its pieces.
fn giver(send_bytes_per_s: u64) -> Solo {
    let mut config = config(1);
    config.snapshots = SnapshotPolicy { send_bytes_per_s, ..POLICY };
    let mut solo = Solo::leader(config);
    solo.now_us += 10 * SECOND;
    solo
}

/// What a node reads when it is asked for a piece.
fn ask(solo: &mut Solo, from: u64, offset: u64) -> Vec<(u64, u64)> {
    let id = snapshot(1, 9).id;
    let message = Message::Snapshot(SnapshotMessage::Fetch { id, offset, bytes_max: 100 });
    reads(&solo.step(Input::Receive { from: node_id(from), message }))
}

/// What it reads next when a piece was read.
fn was_read(solo: &mut Solo, to: u64, offset: u64) -> Vec<(u64, u64)> {
    let (id, result) = (snapshot(1, 9).id, Ok(Bytes::from(vec![0; 100])));
    reads(&solo.step(Input::PieceRead { to: node_id(to), id, offset, result }))
}

fn reads(actions: &[Action]) -> Vec<(u64, u64)> {
    let read = |action: &Action| match action {
        Action::ReadPiece { to, offset, .. } => Some((to.get(), *offset)),
        _ => None,
    };
    actions.iter().filter_map(read).collect()
}

#[test]
fn pieces_are_given_to_members_once_and_within_the_rate() {
    let mut solo = giver(1000);
    assert_eq!(ask(&mut solo, 9, 0), [], "a stranger");
    assert_eq!(ask(&mut solo, 2, 0), [(2, 0)]);
    assert_eq!(ask(&mut solo, 2, 100), [], "one after the other");
    assert_eq!(ask(&mut solo, 2, 100), [], "the same again");
    assert_eq!(was_read(&mut solo, 2, 0), [], "the rate of this tenth of a second is used up");
    solo.now_us += SECOND / 10;
    assert_eq!(reads(&solo.step(Input::Tick)), [(2, 100)]);
    let transfer = solo.replica.status().transfers[0];
    assert_eq!((transfer.peer.get(), transfer.phase), (2, SnapshotPhase::Sending));
    assert_eq!((transfer.bytes, transfer.total_bytes), (100, 250));
    assert_eq!(was_read(&mut solo, 2, 100), []);
    solo.now_us += SECOND;
    assert_eq!(reads(&solo.step(Input::Tick)), [], "nothing else was asked for");
}

#[test]
fn a_rate_holds_also_for_pieces_that_are_larger_than_what_it_allows_at_once() {
    let mut solo = giver(1000);
    let begun_us = solo.now_us;
    let mut given = 0;
    ask(&mut solo, 2, 0);
    while given < 20 {
        was_read(&mut solo, 2, 0);
        given += 1;
        ask(&mut solo, 2, 0);
        while reads(&solo.step(Input::Tick)).is_empty() {
            let due = solo.replica.next_deadline().unwrap();
            assert!(due > solo.now_us, "a deadline that a tick does not move");
            solo.now_us = due;
        }
    }
    let took_us = solo.now_us - begun_us;
    assert!((19 * SECOND / 10..=21 * SECOND / 10).contains(&took_us), "{took_us}");
    // Without a bound nothing waits for the old one.
    let policy = SnapshotPolicy { send_bytes_per_s: 0, ..POLICY };
    ask(&mut solo, 3, 0);
    assert_eq!(reads(&solo.step(Input::SetSnapshotPolicy(policy))), [(3, 0)]);
}

#[test]
fn what_was_asked_before_a_transfer_began_anew_is_not_given() {
    let mut solo = giver(0);
    assert_eq!(ask(&mut solo, 2, 0), [(2, 0)]);
    assert_eq!(ask(&mut solo, 2, 100), []);
    assert_eq!(ask(&mut solo, 2, 200), []);
    // It has waited long enough: this piece is under way, the ones behind it are asked for once more.
    assert_eq!(ask(&mut solo, 2, 0), []);
    assert_eq!(ask(&mut solo, 2, 100), []);
    assert_eq!(ask(&mut solo, 2, 200), []);
    assert_eq!(was_read(&mut solo, 2, 0), [(2, 100)], "not the first one twice");
    // It lost what it had, and begins at the front: it has no use for the last piece now.
    assert_eq!(ask(&mut solo, 2, 0), []);
    assert_eq!(was_read(&mut solo, 2, 100), [(2, 0)]);
    assert_eq!(was_read(&mut solo, 2, 0), []);
}

#[test]
fn a_rate_is_shared_by_those_who_are_given_snapshots() {
    let mut solo = giver(1000);
    solo.step(link_up(2, 1));
    solo.step(link_up(3, 1));
    let mut given = Vec::new();
    for _ in 0..6 {
        let mut begun = ask(&mut solo, 2, 0);
        begun.extend(ask(&mut solo, 3, 0));
        solo.now_us += SECOND / 10;
        begun.extend(reads(&solo.step(Input::Tick)));
        for (to, offset) in &begun {
            was_read(&mut solo, *to, *offset);
        }
        given.extend(begun);
    }
    let to = |peer| given.iter().filter(|(to, _)| *to == peer).count();
    assert!(to(2) >= 2 && to(3) >= 2, "{given:?}");
}

/// A node whose log begins after entry 5, and whose snapshots are gone.
fn lacking() -> Solo {
    let mut config = config(2);
    config.snapshots = POLICY;
    let base = Base { id: LogId::new(Term(1), Index(5)), ..recovered(2, 3, 0).base };
    let last = base.id;
    let mut solo = Solo::new(config, &Recovered { base, last, ..recovered(2, 3, 1) });
    solo.step(link_up(1, 1));
    solo.step(link_up(3, 1));
    solo
}

fn said(actions: &[Action]) -> Vec<(u64, SnapshotMessage)> {
    let said = |action: &Action| match action {
        Action::Send { to, message: Message::Snapshot(message) } => {
            Some((to.get(), message.clone()))
        }
        _ => None,
    };
    actions.iter().filter_map(said).collect()
}

fn hear(solo: &mut Solo, from: u64, message: SnapshotMessage) -> Vec<Action> {
    solo.step(Input::Receive { from: node_id(from), message: Message::Snapshot(message) })
}

#[test]
fn a_node_without_what_its_log_begins_after_asks_the_others_and_applies_nothing_before() {
    let mut solo = lacking();
    assert_eq!(solo.status().applied, Index::ZERO, "the machine is empty");
    let least = Index(5);
    let mut asked = Vec::new();
    for _ in 0..4 {
        solo.now_us += 2 * SECOND;
        let actions = solo.step(Input::Tick);
        asked.extend(said(&actions).into_iter().map(|(to, message)| (to, Some(message))));
        asked.extend(actions.contains(&Action::FindSnapshot { least }).then_some((2, None)));
    }
    // One after the other, itself among them; the first was asked as soon as it was there.
    let want = Some(SnapshotMessage::Want { least });
    assert_eq!(asked, [(2, None), (3, want.clone()), (1, want), (2, None)]);
    // The log goes on growing.
    let command = |index| entry(1, index, EntryKind::Command, Payload::new("x"));
    let body = append(LogId::new(Term(1), Index(5)), 7, vec![command(6), command(7)]);
    let message = Message::Raft(RaftMessage { term: Term(1), body });
    solo.run(Input::Receive { from: node_id(1), message }, |_| None);
    let status = solo.status();
    assert_eq!((status.last.index, status.commit), (Index(7), Index(7)));
    assert_eq!(status.applied, Index::ZERO);

    // Too old, from a stranger, absurd: of no use. Between base and commit: what is wanted.
    let had = |solo: &mut Solo, from, id| {
        hear(solo, from, SnapshotMessage::Have { id })
            .iter()
            .any(|action| matches!(action, Action::BeginFetch { .. }))
    };
    assert!(!had(&mut solo, 3, snapshot(1, 4).id), "before the base");
    assert!(!had(&mut solo, 9, snapshot(1, 6).id), "a stranger");
    assert!(!had(&mut solo, 3, SnapshotId { bytes: 0, ..snapshot(1, 6).id }), "nothing in it");
    let wanted = snapshot(1, 6);
    assert!(had(&mut solo, 3, wanted.id));
    assert!(!had(&mut solo, 1, snapshot(1, 7).id), "one is under way");
    solo.step(Input::FetchBegan { id: wanted.id, result: Ok(250) });
    let actions = solo.step(Input::FetchFinished { id: wanted.id, result: Ok(wanted.clone()) });
    assert!(actions.contains(&Action::Restore { id: wanted.id }), "{actions:?}");
    let actions = solo.step(Input::Restored(wanted.id));
    assert!(
        !actions.iter().any(|action| matches!(action, Action::Persist(op) if op.base.is_some()))
    );
    assert!(actions.iter().any(|action| matches!(action, Action::Apply { first: Index(7), .. })));
    assert_eq!(solo.status().base.index, Index(5), "the log is as it was");
    solo.now_us += 10 * SECOND;
    assert_eq!(said(&solo.step(Input::Tick)), [], "nothing is asked for any more");
}

#[test]
fn a_leader_without_it_takes_no_calls_and_is_cured_while_it_leads() {
    let mut solo = lacking();
    solo.run(Input::Campaign, healthy);
    assert_eq!(solo.status().role, Role::Leader, "nobody else could");
    let propose = |solo: &mut Solo| {
        let actions = solo.run(Input::Propose(vec![call(1, "x")]), healthy);
        replies(&actions).first().map(|(_, outcome)| (*outcome).clone())
    };
    let refused = propose(&mut solo);
    assert!(matches!(refused, Some(Outcome::Refused(Refusal::Busy { .. }))), "{refused:?}");
    let wanted = snapshot(1, 5);
    hear(&mut solo, 3, SnapshotMessage::Have { id: wanted.id });
    solo.step(Input::FetchBegan { id: wanted.id, result: Ok(250) });
    solo.step(Input::FetchFinished { id: wanted.id, result: Ok(wanted.clone()) });
    solo.run(Input::Restored(wanted.id), healthy);
    assert_eq!(solo.status().role, Role::Leader);
    assert!(solo.status().applied > Index(5), "what came after it");
    let outcome = propose(&mut solo);
    assert!(matches!(outcome, Some(Outcome::Done(_))), "{outcome:?}");
}

#[test]
fn whoever_is_asked_for_a_snapshot_offers_it_or_takes_one() {
    let mut config = config(1);
    config.snapshots = POLICY;
    let mut solo = Solo::leader(config);
    let want = |solo: &mut Solo, from, least| {
        let actions = hear(solo, from, SnapshotMessage::Want { least: Index(least) });
        let taken = actions.iter().find_map(|action| match action {
            Action::TakeSnapshot { base } => Some((**base).clone()),
            _ => None,
        });
        (said(&actions), taken)
    };
    let applied = solo.status().applied;
    assert!(applied > Index::ZERO);
    assert_eq!(want(&mut solo, 9, 1), (vec![], None), "a stranger");
    assert_eq!(want(&mut solo, 2, applied.0 + 1), (vec![], None), "it is not so far itself");
    let (words, base) = want(&mut solo, 2, applied.0);
    assert_eq!(words, [], "it has none yet");
    let base = base.unwrap();
    let id = SnapshotId { last: base.id, bytes: 250, hash: [7; 32] };
    solo.step(Input::SnapshotBuilt(Ok(Snapshot { id, base })));
    let have = (2, SnapshotMessage::Have { id });
    assert_eq!(want(&mut solo, 2, applied.0), (vec![have], None));
}

#[test]
fn damage_of_the_newest_snapshot_is_cured_by_another_before_the_damaged_one_goes() {
    let mut config = config(1);
    config.snapshots = SnapshotPolicy { scrub_interval_us: 60 * SECOND, keep: 2, ..POLICY };
    let mut solo = Solo::leader(config);
    let base_of = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::TakeSnapshot { base } => Some((**base).clone()),
            _ => None,
        })
    };
    let pruned = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::PruneSnapshots { damaged, .. } => Some(damaged.clone()),
            _ => None,
        })
    };
    let base = base_of(&solo.step(Input::TakeSnapshot)).unwrap();
    let id = SnapshotId { last: base.id, bytes: 250, hash: [7; 32] };
    let first = Snapshot { id, base: base.clone() };
    solo.step(Input::SnapshotBuilt(Ok(first.clone())));
    // Not before its time, and one at a time.
    let scrubs = |actions: &[Action]| {
        actions.iter().filter(|it| matches!(it, Action::ScrubSnapshots { .. })).count()
    };
    assert_eq!(scrubs(&solo.step(Input::Tick)), 0);
    solo.now_us += 60 * SECOND;
    assert!(solo.step(Input::Tick).contains(&Action::ScrubSnapshots { newest: Some(id) }));
    solo.now_us += 60 * SECOND;
    assert_eq!(scrubs(&solo.step(Input::Tick)), 0);

    let older = SnapshotId { last: LogId::new(Term(0), Index(0)), ..id };
    let found = vec![(older, "rot".into()), (id, "rot".into())];
    let actions = solo.step(Input::SnapshotsScrubbed(found));
    assert_eq!(pruned(&actions), Some(vec![older]), "a newer one is there");
    assert_eq!(base_of(&actions), Some(base), "nothing new was applied, and yet another is taken");
    let told = |action: &Action| matches!(action, Action::Event(Event::StorageTrouble { .. }));
    assert!(actions.iter().any(told));
    // It is the same one again, and has taken the place of the first.
    assert_eq!(pruned(&solo.step(Input::SnapshotBuilt(Ok(first.clone())))), Some(vec![]));
    // Who cannot read a piece for a peer has found damage, too.
    ask_for(&mut solo, 2, id);
    let result = Err("rot".into());
    let actions = solo.step(Input::PieceRead { to: node_id(2), id, offset: 0, result });
    assert_eq!(said(&actions), [(2, SnapshotMessage::Gone { id })]);
    assert!(base_of(&actions).is_some());
    let other = SnapshotId { hash: [8; 32], ..id };
    let actions = solo.step(Input::SnapshotBuilt(Ok(Snapshot { id: other, ..first })));
    assert_eq!(pruned(&actions), Some(vec![id]), "now the damaged one may go");
}

fn ask_for(solo: &mut Solo, from: u64, id: SnapshotId) {
    hear(solo, from, SnapshotMessage::Fetch { id, offset: 0, bytes_max: 100 });
}

#[test]
fn of_a_machine_that_is_ahead_of_its_damaged_log_no_snapshot_is_taken() {
    let mut config = config(2);
    config.snapshots = POLICY;
    let kept = snapshot(1, 6);
    config.raft.snapshot = Some(kept.clone());
    config.raft.machine_applied = Some(Index(7));
    let (base, last) = (kept.base.clone(), kept.id.last);
    let mut solo = Solo::new(config, &Recovered { base, last, ..recovered(2, 3, 1) });
    assert_eq!(solo.status().applied, Index(6));
    let actions = solo.step(Input::SnapshotsScrubbed(vec![(kept.id, "rot".into())]));
    assert!(!actions.iter().any(|action| matches!(action, Action::TakeSnapshot { .. })));
}
