//! Queues, bytes, and the store's commands and answers.

use std::ptr::null;

use raftz::bytes::*;
use raftz::events::*;
use raftz::kv::*;
use raftz::propose::*;
use raftz::queue::*;
use raftz::status::*;

use super::short_ms;
use crate::fuzz::capi::judge::{Given, Versioned, any_slice, bytes, call, judged, slice};
use crate::fuzz::capi::world::{World, keep, on_end, pick, pull};
use crate::fuzz::tape::Tape;

pub(super) fn queue_new(world: &mut World, tape: &mut Tape<'_>) {
    let calls_max = [0, 1, 4, u64::MAX][tape.below(4)];
    let events_max = [0, 1, 4, u64::MAX][tape.below(4)];
    let mut opts = Versioned::given(tape, raftz_queue_opts { size: 0, calls_max, events_max });
    let mut given = Given::new();
    let status = judged(tape, "raftz_queue_new", 0, |error| {
        call!(raftz_queue_new(opts.pointer(), given.place(), error))
    });
    call!(raftz_queue_free(keep(&mut world.queues, given.after(status))));
}

pub(super) fn queue_next(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    let timeout_ms = short_ms(tape);
    let (_, event) = world.take(queue, timeout_ms, tape);
    call!(raftz_event_free(keep(&mut world.events, event)));
}

pub(super) fn queue_look(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    assert_eq!(call!(raftz_queue_fd(queue)) < 0, queue.is_null());
    let dropped = call!(raftz_queue_dropped(queue));
    assert!(!queue.is_null() || dropped == 0);
}

pub(super) fn queue_close(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pick(tape, &world.queues);
    judged(tape, "raftz_queue_close", 0, |error| call!(raftz_queue_close(queue, error)));
}

pub(super) fn queue_free(world: &mut World, tape: &mut Tape<'_>) {
    let queue = pull(tape, &mut world.queues);
    world.free_queue(queue);
}

pub(super) fn event(world: &mut World, tape: &mut Tape<'_>) {
    let event = pick(tape, &world.events);
    let mut place = Versioned::<raftz_event_info>::place(tape);
    let into = place.pointer();
    let status =
        judged(tape, "raftz_event_get", 0, |error| call!(raftz_event_get(event, into, error)));
    if let Some(info) = place.after(status) {
        // SAFETY: it lives as long as the event.
        assert!(String::from_utf8(unsafe { bytes(info.text) }).is_ok());
        assert!(info.kind == RAFTZ_EVENT_COMPLETION || info.outcome_count == 0);
    }
    if tape.flag() {
        call!(raftz_event_free(pull(tape, &mut world.events)));
    }
}

pub(super) fn bytes_new(world: &mut World, tape: &mut Tape<'_>) {
    let content = any_slice(tape, b"not of any store");
    let mut given = Given::new();
    let status = if tape.flag() {
        judged(tape, "raftz_bytes_copy", 0, |error| {
            call!(raftz_bytes_copy(content, given.place(), error))
        })
    } else {
        world.own(|data| {
            judged(tape, "raftz_bytes_wrap", 0, |error| {
                call!(raftz_bytes_wrap(content, Some(on_end), data, given.place(), error))
            })
        })
    };
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

pub(super) fn bytes_free(world: &mut World, tape: &mut Tape<'_>) {
    let all = pick(tape, &world.bytes);
    let slice = call!(raftz_bytes_slice(all));
    assert!(!all.is_null() || slice.len == 0);
    call!(raftz_bytes_free(pull(tape, &mut world.bytes)));
}

pub(super) fn kv_command(world: &mut World, tape: &mut Tape<'_>) {
    let which = tape.below(7);
    let (key, value) = (any_slice(tape, b"key"), any_slice(tape, b"value"));
    let optional = [null(), &raw const value][tape.below(2)];
    let number = tape.number();
    let mut given = Given::new();
    let place = given.place();
    let status = match which {
        0 => judged(tape, "raftz_kv_set", 0, |error| call!(raftz_kv_set(key, value, place, error))),
        1 => judged(tape, "raftz_kv_delete", 0, |error| call!(raftz_kv_delete(key, place, error))),
        2 => judged(tape, "raftz_kv_compare_and_set", 0, |error| {
            call!(raftz_kv_compare_and_set(key, optional, &raw const value, place, error))
        }),
        3 => judged(tape, "raftz_kv_increment", 0, |error| {
            call!(raftz_kv_increment(key, number.cast_signed(), place, error))
        }),
        4 => judged(tape, "raftz_kv_get", 0, |error| call!(raftz_kv_get(key, place, error))),
        5 => judged(tape, "raftz_kv_scan", 0, |error| {
            call!(raftz_kv_scan(key, optional, number as u32, place, error))
        }),
        _ => judged(tape, "raftz_kv_digest", 0, |error| call!(raftz_kv_digest(place, error))),
    };
    call!(raftz_bytes_free(keep(&mut world.bytes, given.after(status))));
}

pub(super) fn kv_answer(world: &mut World, tape: &mut Tape<'_>) {
    let from = pick(tape, &world.bytes);
    let flags = [0, RAFTZ_OUTCOME_REJECTED, u32::MAX][tape.below(3)];
    let mut given = Given::new();
    let content = call!(raftz_bytes_slice(from));
    let status = judged(tape, "raftz_kv_reply_read", 0, |error| {
        call!(raftz_kv_reply_read(content, flags, given.place(), error))
    });
    call!(raftz_kv_reply_free(keep(&mut world.answers, given.after(status))));
    let answer = pick(tape, &world.answers);
    let mut place = Versioned::<raftz_kv_reply_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_kv_reply_get", 0, |error| {
        call!(raftz_kv_reply_get(answer, into, error))
    });
    let count = place.after(status).map_or(0, |info| info.count as usize);
    let mut none = [slice(&[]), slice(&[])];
    let [key, value] = &mut none;
    let status = judged(tape, "raftz_kv_reply_entry", 0, |error| {
        call!(raftz_kv_reply_entry(answer, count.wrapping_sub(1), key, value, error))
    });
    // SAFETY: they live as long as the answer.
    assert!(status != RAFTZ_OK || !unsafe { bytes(none[0]) }.is_empty());
    if tape.flag() {
        call!(raftz_kv_reply_free(pull(tape, &mut world.answers)));
    }
}
