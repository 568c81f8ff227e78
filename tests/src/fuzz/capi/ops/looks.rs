//! What is asked of a node and of the library.

use std::ptr::{null, null_mut};
use std::time::Instant;

use raftz::bytes::*;
use raftz::error::*;
use raftz::machine::*;
use raftz::metrics::*;
use raftz::node::*;
use raftz::state::*;
use raftz::status::*;
use raftz::storage::*;
use raftz::version::*;
use raftz::watch::*;

use super::short_ms;
use crate::fuzz::capi::judge::{
    Given, NUMBER, Versioned, bytes, call, documented, judged, number_after, slice, text,
};
use crate::fuzz::capi::simulated::of_nothing;
use crate::fuzz::capi::store::{Disk, Way};
use crate::fuzz::capi::world::{World, keep};
use crate::fuzz::tape::Tape;

pub(super) fn state(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let mut given = Given::new();
    let status = judged(tape, "raftz_node_state", 1000, |error| {
        call!(raftz_node_state(node, given.place(), error))
    });
    let state = given.after(status).unwrap_or(null_mut());
    let mut place = Versioned::<raftz_state_info>::place(tape);
    let into = place.pointer();
    let status =
        judged(tape, "raftz_state_get", 0, |error| call!(raftz_state_get(state, into, error)));
    let mut peers = 0;
    if let Some(info) = place.after(status) {
        assert_eq!(info.node_id, call!(raftz_node_id(node)));
        assert!(info.applied_index <= info.commit_index && info.role <= 3);
        peers = info.peer_count;
    }
    let at = [0, peers, usize::MAX][tape.below(3)];
    let mut place = Versioned::<raftz_peer_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_state_peer", 0, |error| {
        call!(raftz_state_peer(state, at, into, error))
    });
    assert!(status != RAFTZ_OK || at < peers || peers == 0);
    if let Some(info) = place.after(status) {
        // SAFETY: they live as long as the state.
        let (address, mode) = unsafe { (bytes(info.address), text(info.mode)) };
        assert!(info.node_id > 0 && !address.is_empty() && mode.len() < 20);
    }
    call!(raftz_state_free(state));
}

pub(super) fn metrics(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let mut place = Versioned::<raftz_metrics_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_metrics", 0, |error| call!(raftz_metrics(node, into, error)));
    if let Some(info) = place.after(status) {
        assert_eq!(info.node_id, call!(raftz_node_id(node)));
    }
    let peer = [2, 1, 0, u64::MAX][tape.below(4)];
    let mut place = Versioned::<raftz_peer_metrics_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_metrics_peer", 0, |error| {
        call!(raftz_metrics_peer(node, peer, into, error))
    });
    assert!(place.after(status).is_none_or(|info| info.node_id == peer && peer > 0));
    let mut given = Given::new();
    let status = judged(tape, "raftz_metrics_text", 0, |error| {
        call!(raftz_metrics_text(node, given.place(), error))
    });
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

pub(super) fn watch(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let after = [0, 1, 2, u64::MAX][tape.below(4)];
    let timeout_ms = short_ms(tape);
    let mut place = Versioned::<raftz_standing_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_watch_wait", timeout_ms, |error| {
        call!(raftz_watch_wait(node, after, timeout_ms, into, error))
    });
    assert!(place.after(status).is_none_or(|info| info.version > 0 && info.role <= 3));
}

pub(super) fn wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let timeout_ms = [500, 0, 1, 50][tape.below(4)];
    let which = tape.below(4);
    let index = tape.number();
    match which {
        0 => {
            let mut leader = NUMBER;
            let status = judged(tape, "raftz_node_wait_for_leader", timeout_ms, |error| {
                call!(raftz_node_wait_for_leader(node, timeout_ms, &raw mut leader, error))
            });
            assert!(number_after(leader, status) != Some(0), "nobody leads");
        }
        1 => {
            judged(tape, "raftz_node_wait_for_applied", timeout_ms, |error| {
                call!(raftz_node_wait_for_applied(node, index, timeout_ms, error))
            });
        }
        2 => {
            judged(tape, "raftz_node_campaign", 0, |error| call!(raftz_node_campaign(node, error)));
        }
        _ => {
            let mut given = Given::new();
            let status = judged(tape, "raftz_node_listen_address", 0, |error| {
                call!(raftz_node_listen_address(node, given.place(), error))
            });
            call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
        }
    }
}

pub(super) fn snapshot(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let timeout_ms = [200, 0, 1, 50, 5000][tape.below(5)];
    let mut index = NUMBER;
    let place = if tape.byte() >= 250 { null_mut() } else { &raw mut index };
    let status = judged(tape, "raftz_node_snapshot", timeout_ms, |error| {
        call!(raftz_node_snapshot(node, timeout_ms, place, error))
    });
    number_after(index, status);
}

pub(super) fn names(_world: &mut World, tape: &mut Tape<'_>) {
    let status = tape.number() as i32;
    // SAFETY: static text.
    let (name, version) =
        unsafe { (text(call!(raftz_status_name(status))), text(call!(raftz_version_text()))) };
    assert!(name.starts_with("RAFTZ_") && version.contains('.'));
    let is_unknown = call!(raftz_status_is_outcome_unknown(status));
    assert_eq!(is_unknown, (-63..=-32).contains(&status) || status == RAFTZ_PANIC);
    let is_retriable = call!(raftz_status_is_retriable(status));
    assert!(!is_retriable || !is_unknown && !call!(raftz_status_is_fatal(status)), "{name}");
    of_nothing();
    assert_eq!(call!(raftz_version()), RAFTZ_VERSION);
    assert_eq!(call!(raftz_abi_version()), RAFTZ_ABI_VERSION);
    // What callbacks are given is nothing outside of them.
    let (word, error) = (slice(b"x"), null_mut());
    let (mut wants_more, mut count, mut byte) = (false, 0, 0);
    for (name, status) in [
        ("raftz_replies_push", call!(raftz_replies_push(null_mut(), word))),
        ("raftz_replies_reject", call!(raftz_replies_reject(null_mut(), word))),
        ("raftz_replies_fail", call!(raftz_replies_fail(null_mut(), word))),
        ("raftz_sink_write", call!(raftz_sink_write(null_mut(), word))),
        ("raftz_sink_reject", call!(raftz_sink_reject(null_mut()))),
        ("raftz_sink_fail", call!(raftz_sink_fail(null_mut(), word))),
        ("raftz_entries_push", call!(raftz_entries_push(null_mut(), word, &raw mut wants_more))),
        ("raftz_entries_fail", call!(raftz_entries_fail(null_mut(), word))),
        (
            "raftz_source_read",
            call!(raftz_source_read(null_mut(), &raw mut byte, 1, &raw mut count)),
        ),
        (
            "raftz_storage_complete",
            call!(raftz_storage_complete(null_mut(), 1, RAFTZ_OK, word, error)),
        ),
    ] {
        documented(name, status);
        assert_eq!(status, RAFTZ_NULL_ARG, "{name}");
    }
    for nothing in [call!(raftz_error_status(null())), call!(raftz_error_os_errno(null()))] {
        assert_eq!(nothing, 0);
    }
}

pub(super) fn conformance(world: &mut World, tape: &mut Tape<'_>) {
    // A whole run takes a while: one that is refused, or a store that fails soon.
    let way = [Way::CannotOpen, Way::Fails, Way::CannotRead][tape.below(3)];
    let is_whole = tape.byte() == 77 && world.disks.is_empty();
    let disk = Disk::new(if is_whole { Way::AtOnce } else { way }, 0);
    let table = disk.table(0);
    world.disks.push(disk);
    let mut opts = raftz_conformance_opts { size: 0, flags: 0, patience_ms: 1000 };
    opts.flags = u32::from(tape.byte() >= 250) * 2;
    let mut table = Versioned::given(tape, table);
    let mut opts = Versioned::given(tape, opts);
    let begun = Instant::now();
    let status = judged(tape, "raftz_storage_conformance", 60_000, |error| {
        call!(raftz_storage_conformance(table.pointer(), opts.pointer(), error))
    });
    assert!(
        status != RAFTZ_OK || is_whole,
        "a store that cannot work passed in {:?}",
        begun.elapsed()
    );
}
