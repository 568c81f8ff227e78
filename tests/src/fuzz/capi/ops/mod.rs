//! What an input may have done: one function each, with seven bytes for its arguments. Only added to, at the end, so that
//! inputs keep their meaning.

mod calls;
mod clusters;
mod looks;
mod nodes;
mod values;

use std::time::Duration;

use raftz::error::*;
use raftz::status::*;

use self::calls::{
    propose, propose_batch, propose_bytes, propose_queued, propose_wait, read, read_queued,
    read_wait, transfer, transfer_wait,
};
pub(super) use self::clusters::new_config;
use self::clusters::{found, free, read_back, restart, stop, wires_cut, wires_happen, wires_told};
use self::looks::{conformance, metrics, names, snapshot, state, wait, watch};
use self::nodes::{
    bootstrap, config_bool, config_free, config_look, config_new, config_number, config_place,
    config_storage, config_tell, config_text, network, start,
};
use self::values::{
    bytes_free, bytes_new, event, kv_answer, kv_command, queue_close, queue_free, queue_look,
    queue_new, queue_next,
};
use super::bare::{core_free, core_look, core_new, core_step};
use super::judge::judged;
use super::simulated::simulate;
use super::world::World;
use crate::fuzz::tape::Tape;

type Op = fn(&mut World, &mut Tape<'_>);

/// Most nodes at a time.
const NODES_MAX: usize = 6;
/// What no timeout of a node here is beyond.
const LONGEST_MS: u32 = 5000;

pub(super) const OPS: [(&str, Op); 53] = [
    ("found", found),
    ("restart", restart),
    ("stop", stop),
    ("free", free),
    ("config new", config_new),
    ("config text", config_text),
    ("config number", config_number),
    ("config bool", config_bool),
    ("config place", config_place),
    ("config look", config_look),
    ("config tell", config_tell),
    ("config storage", config_storage),
    ("config free", config_free),
    ("start", start),
    ("bootstrap", bootstrap),
    ("network", network),
    ("queue new", queue_new),
    ("queue next", queue_next),
    ("queue look", queue_look),
    ("queue close", queue_close),
    ("queue free", queue_free),
    ("event", event),
    ("bytes new", bytes_new),
    ("bytes free", bytes_free),
    ("kv command", kv_command),
    ("kv answer", kv_answer),
    ("propose", propose),
    ("propose bytes", propose_bytes),
    ("propose batch", propose_batch),
    ("propose queued", propose_queued),
    ("propose wait", propose_wait),
    ("read", read),
    ("read queued", read_queued),
    ("read wait", read_wait),
    ("read back", read_back),
    ("transfer", transfer),
    ("transfer wait", transfer_wait),
    ("state", state),
    ("metrics", metrics),
    ("watch", watch),
    ("wait", wait),
    ("snapshot", snapshot),
    ("names", names),
    ("conformance", conformance),
    ("settle", settle),
    ("simulate", simulate),
    ("core new", core_new),
    ("core step", core_step),
    ("core look", core_look),
    ("core free", core_free),
    ("wires happen", wires_happen),
    ("wires cut", wires_cut),
    ("wires told", wires_told),
];

fn short_ms(tape: &mut Tape<'_>) -> u32 {
    [0, 1, 20, 100][tape.below(4)]
}

/// Waits until the calls of callbacks and queues have had a moment to end.
fn settle(_world: &mut World, tape: &mut Tape<'_>) {
    std::thread::sleep(Duration::from_millis(short_ms(tape).into()));
}

pub(super) fn good(
    tape: &mut Tape<'_>,
    name: &'static str,
    make: impl FnOnce(*mut *mut raftz_error) -> raftz_status,
) {
    assert_eq!(judged(tape, name, 0, make), RAFTZ_OK, "{name}");
}
