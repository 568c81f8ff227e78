//! Proposals, reads and transfers, in each of their forms.

use std::ptr::{null, null_mut};

use raftz::bytes::*;
use raftz::propose::*;
use raftz::read::*;
use raftz::transfer::*;

use super::LONGEST_MS;
use crate::fuzz::capi::judge::{
    Given, NUMBER, Versioned, any_slice, bytes, call, judged, number_after, slice,
};
use crate::fuzz::capi::machine::question;
use crate::fuzz::capi::pending::{Kind, Write, on_batch, on_done};
use crate::fuzz::capi::world::{Keeps, World, keep, pick};
use crate::fuzz::tape::Tape;

fn propose_opts(tape: &mut Tape<'_>) -> Versioned<raftz_propose_opts> {
    let timeout_ms = [0, 1, 30, 300][tape.below(4)];
    let bits = tape.byte();
    let forward = if bits >= 250 { 3 } else { u32::from(bits) % 3 };
    let expected_term = [0, 0, 0, 1][usize::from(bits >> 3) % 4];
    let opts = raftz_propose_opts { size: 0, timeout_ms, forward, expected_term };
    Versioned::given(tape, opts)
}

/// As it is given to the library, and whether it is what was to be written.
fn command(tape: &mut Tape<'_>, write: &Write) -> (raftz_slice, bool) {
    let command = any_slice(tape, &write.command);
    (command, command.data == write.command.as_ptr() && command.len == write.command.len())
}

pub(super) fn propose(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let (command, is_good) = command(tape, &write);
    let tracked = node.filter(|_| is_good).map(|node| (node, vec![write.clone()]));
    let pending = world.pending(Kind::Write, 1, false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_propose", 0, |error| {
        call!(raftz_propose(pointer, command, opts.pointer(), Some(on_done), data, error))
    });
    world.made(pending, node, null_mut(), status);
}

pub(super) fn propose_bytes(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let mut given = Given::new();
    let content = slice(&write.command);
    let copied = judged(&mut Tape::new(&[]), "raftz_bytes_copy", 0, |error| {
        call!(raftz_bytes_copy(content, given.place(), error))
    });
    // Taken over, whatever comes of it.
    let command = given.after(copied).expect("a copy");
    let tracked = node.map(|node| (node, vec![write.clone()]));
    let pending = world.pending(Kind::Write, 1, false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let function: raftz_done_fn = if tape.byte() >= 250 { None } else { Some(on_done) };
    let status = judged(tape, "raftz_propose_bytes", 0, |error| {
        call!(raftz_propose_bytes(pointer, command, opts.pointer(), function, data, error))
    });
    world.made(pending, node, null_mut(), status);
}

/// Up to three writes, now and then with one that is none.
fn several(
    world: &mut World,
    node: Option<usize>,
    tape: &mut Tape<'_>,
) -> (Vec<Write>, Vec<raftz_slice>, bool) {
    let count = [1, 3, 2, 0][tape.below(4)];
    let writes: Vec<Write> = (0..count).map(|_| world.write(node, tape)).collect();
    let mut slices: Vec<raftz_slice> = writes.iter().map(|write| slice(&write.command)).collect();
    let is_good = match slices.last_mut().filter(|_| tape.byte() >= 250) {
        Some(last) => {
            *last = raftz_slice { data: null(), len: 1 };
            false
        }
        None => true,
    };
    (writes, slices, is_good)
}

pub(super) fn propose_batch(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let (writes, slices, _) = several(world, node, tape);
    let count = if tape.byte() >= 250 { usize::MAX } else { slices.len() };
    let tracked = node.map(|node| (node, writes.clone()));
    let pending = world.pending(Kind::Write, slices.len(), false, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let commands = slices.as_ptr();
    let status = judged(tape, "raftz_propose_batch", 0, |error| {
        call!(raftz_propose_batch(
            pointer,
            commands,
            count,
            opts.pointer(),
            Some(on_batch),
            data,
            error
        ))
    });
    world.made(pending, node, null_mut(), status);
}

pub(super) fn propose_queued(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let mut opts = propose_opts(tape);
    let (writes, slices, _) = several(world, node, tape);
    let tracked = node.map(|node| (node, writes.clone()));
    let pending = world.pending(Kind::Write, slices.len(), true, tracked);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let (commands, count) = (slices.as_ptr(), slices.len());
    let status = judged(tape, "raftz_propose_queued", 0, |error| {
        call!(raftz_propose_queued(pointer, commands, count, opts.pointer(), queue, data, error))
    });
    world.made(pending, node, queue, status);
}

pub(super) fn propose_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = propose_opts(tape);
    let write = world.write(node, tape);
    let (command, is_good) = command(tape, &write);
    let mut place = Versioned::<raftz_reply>::place(tape);
    let (pointer, into) = (world.pointer(node), place.pointer());
    let status = judged(tape, "raftz_propose_wait", LONGEST_MS, |error| {
        call!(raftz_propose_wait(pointer, command, opts.pointer(), into, error))
    });
    let Some(reply) = place.after(status) else { return };
    assert!(reply.index > 0 && reply.term > 0 && reply.reserved == 0);
    let member = node.filter(|_| is_good).and_then(|node| world.nodes[node].member);
    if let Some((cluster, _)) = member.filter(|(of, _)| world.clusters[*of].keeps != Keeps::Counter)
    {
        crate::fuzz::capi::judge::lock(&world.clusters[cluster].acknowledged)
            .push((reply.index, write));
    }
    call!(raftz_bytes_free(keep(&mut world.bytes, Some(reply.bytes))));
}

fn read_opts(tape: &mut Tape<'_>) -> Versioned<raftz_read_opts> {
    let bits = tape.byte();
    let level = if bits >= 250 { 5 } else { u32::from(bits) % 5 };
    let timeout_ms = [0, 1, 30, 300][tape.below(4)];
    let (index, max_age_ms) = (u64::from(bits) * u64::from(bits >> 7), u64::from(bits >> 4));
    Versioned::given(tape, raftz_read_opts { size: 0, level, timeout_ms, index, max_age_ms })
}

/// A question for a node, or one that its machine does not understand.
fn request(world: &World, tape: &mut Tape<'_>) -> Vec<u8> {
    match tape.below(5) {
        0 => question(1),
        1 => b"fail".to_vec(),
        2 => b"reject".to_vec(),
        3 => Vec::new(),
        // SAFETY: it lives; NULL has none.
        _ => unsafe { bytes(call!(raftz_bytes_slice(pick(tape, &world.bytes)))) },
    }
}

pub(super) fn read(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = any_slice(tape, &request);
    let pending = world.pending(Kind::Read, 1, false, None);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_read", 0, |error| {
        call!(raftz_read(pointer, request, opts.pointer(), Some(on_done), data, error))
    });
    world.made(pending, node, null_mut(), status);
}

pub(super) fn read_queued(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = slice(&request);
    let pending = world.pending(Kind::Read, 1, true, None);
    let (pointer, data) = (world.pointer(node), pending.user_data());
    let status = judged(tape, "raftz_read_queued", 0, |error| {
        call!(raftz_read_queued(pointer, request, opts.pointer(), queue, data, error))
    });
    world.made(pending, node, queue, status);
}

pub(super) fn read_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let mut opts = read_opts(tape);
    let request = request(world, tape);
    let request = any_slice(tape, &request);
    let mut place = Versioned::<raftz_reply>::place(tape);
    let (pointer, into) = (world.pointer(node), place.pointer());
    let status = judged(tape, "raftz_read_wait", LONGEST_MS, |error| {
        call!(raftz_read_wait(pointer, request, opts.pointer(), into, error))
    });
    if let Some(reply) = place.after(status) {
        assert_eq!((reply.index, reply.term, reply.reserved), (0, 0, 0));
        call!(raftz_bytes_free(keep(&mut world.bytes, Some(reply.bytes))));
    }
}

pub(super) fn transfer(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.node(tape);
    let queue = pick(tape, &world.queues);
    let target = [0, 2, 1, 3, u64::MAX][tape.below(5)];
    let timeout_ms = [100, 0, 1, 2000][tape.below(4)];
    let way = tape.below(4);
    let is_queued = way >= 2;
    let pending = world.pending(Kind::Transfer, 1, is_queued, None);
    let (node_is, data) = (world.pointer(node), pending.user_data());
    let done: raftz_done_fn = Some(on_done);
    let status = match way {
        0 => judged(tape, "raftz_transfer_leadership", 0, |error| {
            call!(raftz_transfer_leadership(node_is, target, timeout_ms, done, data, error))
        }),
        1 => judged(tape, "raftz_step_down", 0, |error| {
            call!(raftz_step_down(node_is, timeout_ms, done, data, error))
        }),
        2 => judged(tape, "raftz_transfer_leadership_queued", 0, |error| {
            call!(raftz_transfer_leadership_queued(node_is, target, timeout_ms, queue, data, error))
        }),
        _ => judged(tape, "raftz_step_down_queued", 0, |error| {
            call!(raftz_step_down_queued(node_is, timeout_ms, queue, data, error))
        }),
    };
    world.made(pending, node, queue, status);
}

pub(super) fn transfer_wait(world: &mut World, tape: &mut Tape<'_>) {
    let node = world.pointer(world.node(tape));
    let target = [0, 2, 1, 3, u64::MAX][tape.below(5)];
    let timeout_ms = [100, 0, 1, 2000][tape.below(4)];
    let mut leader = NUMBER;
    let place = if tape.byte() >= 250 { null_mut() } else { &raw mut leader };
    let status = if tape.flag() {
        judged(tape, "raftz_step_down_wait", timeout_ms, |error| {
            call!(raftz_step_down_wait(node, timeout_ms, place, error))
        })
    } else {
        judged(tape, "raftz_transfer_leadership_wait", timeout_ms, |error| {
            call!(raftz_transfer_leadership_wait(node, target, timeout_ms, place, error))
        })
    };
    assert!(number_after(leader, status) != Some(0), "nobody leads");
}
