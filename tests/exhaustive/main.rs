//! Everything that three nodes can do, within small bounds: the production core, not a model of it.
//!
//! Time stands still; a node stands for election when the search says so. Every message that was ever sent
//! may arrive at any later moment, any number of times or never, so that loss, overtaking and doubling need
//! no moves of their own. A write becomes durable at any later moment, alone or together with those behind
//! it. A crash, at any moment, keeps any prefix of the writes on their way (each is all or nothing, which
//! is the log's own promise), and the next life begins at once: a node that is down longer is one to
//! which nothing arrives.
//!
//! | file | holds |
//! |---|---|
//! | `node` | one core with its disk, one event, and what a node may promise |
//! | `search` | all states that can be reached, each once; what must hold among the nodes |
//!
//! # Where the choices come from
//! Each single step takes its choices (which kind of event, where, how much of it) from
//! [`Exhaustive`](raftz_core::sim::choice::Exhaustive), which names every combination once. Runs are not
//! replayed from the beginning: at a depth of forty steps that would do everything forty times. Instead a
//! state is a handful of numbers that name the states of its nodes, and what a node does in a state of its
//! own is found out once, by running the core, and remembered: a node knows nothing but itself and its
//! input.
//!
//! # What counts as the same state
//! A node's state is `Raft::fingerprint`, its disk and the writes on their way. Beyond that:
//! - **Election timeouts** are a constant and settings allow no faith, so that a vote depends on terms and
//!   logs alone: more elections succeed than in any real cluster, none fewer.
//! - **The first to stand is node 1.** Ids are compared and looked up and nothing else, and before the
//!   first campaign all nodes are alike: any run is one of these with two ids swapped.
//! - **Dead messages are forgotten**: answers that change nothing at their receiver, now or ever; see
//!   `search::is_dead`.
//! - **Machines and reads of old entries are immediate.** Neither decides anything in consensus.
//!
//! That `fingerprint` forgets nothing is checked by the way: wherever two different cores had the same
//! one, the second must do in all that follows what the first did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "the scenarios' disk: it can be damaged, which nobody does here")]
#[path = "../scenarios/disk.rs"]
mod disk;
mod node;
mod search;

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use node::Driver;
use search::{Bounds, Finding, Search, Tally};

const NOTHING: Bounds =
    Bounds { campaigns: 0, proposals: 0, crashes: 0, breaks: 0, answers: false, window: 64 };

/// What every run of the tests explores. A new leader's no-op is an entry like any other, so that logs
/// diverge and are mended without a proposal, too.
const SMALL: [Bounds; 5] = [
    Bounds { campaigns: 2, crashes: 1, window: 1, ..NOTHING },
    Bounds { campaigns: 1, proposals: 1, crashes: 1, ..NOTHING },
    Bounds { campaigns: 1, proposals: 1, breaks: 1, ..NOTHING },
    Bounds { campaigns: 1, proposals: 1, answers: true, ..NOTHING },
    Bounds { campaigns: 1, proposals: 2, window: 1, ..NOTHING },
];

/// What `RAFTZ_EXHAUSTIVE=large` explores beyond that.
const LARGE: [Bounds; 4] = [
    Bounds { campaigns: 2, crashes: 1, ..NOTHING },
    Bounds { campaigns: 2, proposals: 1, window: 1, ..NOTHING },
    Bounds { campaigns: 1, proposals: 2, ..NOTHING },
    Bounds { campaigns: 1, proposals: 2, crashes: 1, window: 1, ..NOTHING },
];

fn explore(bounds: Bounds, driver: Driver) -> Result<Tally, Finding> {
    Search::new(bounds, driver).run()
}

/// Explores each of them, on as many processors as there are.
fn explore_all(all: &[Bounds]) -> Vec<Tally> {
    let todo = Mutex::new(all.iter());
    let explored = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(bounds) = todo.lock().unwrap().next() else { return };
            let started = Instant::now();
            let tally =
                explore(*bounds, Driver::Honest).unwrap_or_else(|finding| panic!("{finding}"));
            println!("{bounds:?}: {tally:?}, {:.1} s", started.elapsed().as_secs_f64());
            explored.lock().unwrap().push(tally);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(all.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    explored.into_inner().unwrap()
}

#[test]
fn whatever_three_nodes_do_within_the_bounds_is_safe() {
    let is_large = std::env::var("RAFTZ_EXHAUSTIVE").is_ok_and(|size| size == "large");
    let more: &[Bounds] = if is_large { &LARGE } else { &[] };
    let explored = explore_all(&[&SMALL, more].concat());
    let states: usize = explored.iter().map(|tally| tally.states).sum();
    let transitions: usize = explored.iter().map(|tally| tally.transitions).sum();
    println!("exhaustive: {states} states, {transitions} transitions, 0 violations");
}

/// What the search objects to when the cores are driven in a broken way.
fn objection(bounds: Bounds, driver: Driver) -> &'static str {
    let finding = explore(bounds, driver).err();
    let finding = finding.unwrap_or_else(|| panic!("{driver:?} went unnoticed"));
    finding.property()
}

#[test]
fn votes_that_are_told_before_they_are_durable_are_found_at_once_and_by_what_comes_of_it() {
    let bounds = Bounds { campaigns: 2, crashes: 1, ..NOTHING };
    let found = [true, false].map(|watched| objection(bounds, Driver::EarlyVotes { watched }));
    assert_eq!(found, ["durable before told", "one vote a term"]);
}

#[test]
fn entries_that_are_acknowledged_before_they_are_durable_are_found() {
    let bounds = Bounds { campaigns: 1, crashes: 1, ..NOTHING };
    assert_eq!(objection(bounds, Driver::EarlyEntries), "commits are durable on a majority");
}

#[test]
fn a_disk_that_loses_what_was_durable_is_found() {
    let bounds = Bounds { campaigns: 1, crashes: 1, ..NOTHING };
    assert_eq!(objection(bounds, Driver::LostEntry), "commits are durable on a majority");
}
