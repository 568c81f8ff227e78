//! The whole C API. Input: calls, eight bytes each: which, and seven for its arguments, where zeros are what a program would
//! do. Nodes are real, with threads; state machines, stores and callbacks are C functions of the harness.
//!
//! * Of each call: a status that the header names for it, an error exactly if there is one, and consistent; outputs
//!   written on success only, and no further than their struct; bounded time.
//! * Each accepted call ends exactly once, also where a node is stopped or freed with it under way.
//! * Machines, stores, snapshots, user data and bytes that were handed over: as many ends as beginnings.
//! * Clusters that were founded as they should be: machines agree; what was acknowledged is read back.
//!
//! Handles are used as the header allows: NULL, wrong sizes and unknown numbers, but nothing after it was freed.
#![allow(clippy::wildcard_imports, reason = "so many functions")]

mod bare;
#[path = "../../../../raftz-ffi/tests/c_host/header.rs"]
#[allow(dead_code, reason = "the generated cases look at more of it")]
mod header;
mod judge;
mod machine;
mod ops;
mod pending;
mod seeds;
mod simulated;
mod store;
mod wires;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::ops::OPS;
pub(super) use self::seeds::seeds;
use self::world::World;
use super::tape::Tape;

/// Bytes of a call.
const STEP: usize = 8;
/// Most calls of one input, and how long they may go on; the first that is over that ends it.
const STEPS_MAX: usize = 200;
const TIME_MAX: Duration = Duration::from_secs(3);

/// Functions that nothing here calls yet.
pub const NOT_YET: &[&str] = &[];

fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The functions that were called so far in this process, and whether each has succeeded, where it can say so.
pub fn reached() -> BTreeMap<&'static str, bool> {
    judge::all_reached()
}

pub(super) fn check(input: &[u8]) {
    // Callbacks look at it until the end: where a check fails it stays.
    let world = Box::leak(Box::default());
    run(world, input);
    // SAFETY: leaked above, and nothing runs any more.
    drop(unsafe { Box::from_raw(world) });
}

fn run(world: &mut World, input: &[u8]) {
    let begun = Instant::now();
    for step in input.chunks(STEP).take(STEPS_MAX) {
        let mut tape = Tape::new(step);
        let (_, op) = OPS[tape.below(OPS.len())];
        op(world, &mut tape);
        judge::no_complaints();
        if begun.elapsed() > TIME_MAX {
            break;
        }
    }
    world.end();
    judge::no_complaints();
}
