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
            outcome: AppendOutcome::Matched { matched }, ..
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
    let newer = snapshot(1, 12).id;
    assert!(offer(&mut solo, 1, newer).is_empty(), "the first one moves");
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

#[test]
fn pieces_are_given_to_members_once_and_within_the_rate() {
    let mut config = config(1);
    config.snapshots = SnapshotPolicy { send_bytes_per_s: 1000, ..POLICY };
    let mut solo = Solo::leader(config);
    solo.now_us += 10 * SECOND;
    let id = snapshot(1, 9).id;
    let ask = |solo: &mut Solo, from: u64, offset: u64| {
        let message = Message::Snapshot(SnapshotMessage::Fetch { id, offset, bytes_max: 100 });
        solo.step(Input::Receive { from: node_id(from), message })
    };
    let reads = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::ReadPiece { .. })).count()
    };
    assert_eq!(reads(&ask(&mut solo, 9, 0)), 0, "a stranger");
    assert_eq!(reads(&ask(&mut solo, 2, 0)), 1);
    assert_eq!(reads(&ask(&mut solo, 2, 100)), 0, "one after the other");
    assert_eq!(reads(&ask(&mut solo, 2, 100)), 0, "the same again");
    let read = |offset| Input::PieceRead {
        to: node_id(2),
        id,
        offset,
        result: Ok(Bytes::from(vec![0; 100])),
    };
    assert_eq!(reads(&solo.step(read(0))), 0, "the rate of this tenth of a second is used up");
    solo.now_us += SECOND / 10;
    assert_eq!(reads(&solo.step(Input::Tick)), 1);
    solo.step(read(100));
    solo.now_us += SECOND;
    assert_eq!(reads(&solo.step(Input::Tick)), 0, "nothing else was asked for");
}
