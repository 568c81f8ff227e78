//! The simulator in every test run: seeds that once failed, a few fixed ones, what a replay rests on, and
//! the program around it. Campaigns are `make sim`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod program;

use raftz_core::sim::choice::Choices;
use raftz_core::sim::{Fault, Plan, Simulation};

/// Seeds that once failed, each with the sentence why.
const REGRESSIONS: [(u64, &str); 5] = [
    (
        240_089_866_314_558,
        "followers with hundreds of slow syncs before them were given ten timeouts",
    ),
    (209_025_934_107_936, "rot took the seal in the log and the one vote slot that stated it"),
    (
        107_704_302_064_697,
        "of a log damaged twice the oracle remembered the longer, not the later one",
    ),
    (179_607_011_482_342, "an election under way at the first look at the terms counted as growth"),
    (73_011_796_078_053, "a loss was forgotten with the checkpoint that remembered it"),
];
/// Seeds that always run: small ones, with the faults and settings that they happen to draw.
const FIXED: std::ops::Range<u64> = 1..11;
/// How long faults go on in a fixed run: as long as an unoptimized build can afford.
const SHORT_US: u64 = 8_000_000;

fn short(seed: u64) -> Plan {
    Plan { duration_us: SHORT_US, ..Plan::drawn(seed) }
}

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, why) in REGRESSIONS {
        let report = Simulation::key_value().run(&Plan::drawn(seed));
        assert!(report.violation.is_none(), "seed {seed} ({why}): {report}");
    }
}

#[test]
fn fixed_seeds_pass() {
    for seed in FIXED {
        let report = Simulation::key_value().run(&short(seed));
        assert!(report.violation.is_none(), "seed {seed}: {report}");
        assert!(report.committed > 0, "seed {seed} does something: {report}");
    }
}

/// Runs in which clocks drift while the network falls apart, and readers ask for leases.
fn leased(seed: u64, wild_clocks: bool) -> Plan {
    let faults = [Fault::Drift, Fault::Isolate];
    Plan {
        voters: 3,
        learners: 0,
        faults: faults.into(),
        fault_every_us: 200_000,
        fault_lasts_us: 1_000_000,
        election_us: (150_000, 300_000),
        heartbeat_us: 50_000,
        think_us: 10_000,
        clients: 5,
        readers: 3,
        lease_reads: true,
        wild_clocks,
        ..short(seed)
    }
}

#[test]
fn leases_hold_within_their_bound_of_drift_and_fail_the_check_beyond_it() {
    let simulation = Simulation::key_value();
    let violation = |seed, wild| simulation.run(&leased(seed, wild)).violation;
    assert_eq!((1..=5).find_map(|seed| violation(seed, false)).map(|it| it.to_string()), None);
    let found = (1..=200).find_map(|seed| violation(seed, true)).expect("stale reads are found");
    assert!(found.to_string().contains("reads see what was acknowledged"), "{found}");
}

#[test]
fn the_same_plan_is_the_same_run_and_another_seed_is_another() {
    let simulation = Simulation::key_value();
    let (first, second) = (simulation.run(&short(1)), simulation.run(&short(1)));
    assert_eq!((first.trace, first.events), (second.trace, second.events));
    assert_eq!(first.history, second.history);
    assert_ne!(first.trace, simulation.run(&short(2)).trace);
}

#[test]
fn a_run_that_is_told_aloud_is_the_same_run() {
    let simulation = Simulation::key_value();
    let (tell, told) = std::sync::mpsc::channel();
    let aloud = simulation.run_aloud(&short(3), move |line| tell.send(line).unwrap());
    assert_eq!(aloud.trace, simulation.run(&short(3)).trace);
    assert!(told.iter().count() > 100, "it says what happens");
}

#[test]
fn a_recorded_tape_replays_to_the_same_trace() {
    let simulation = Simulation::key_value();
    for seed in [4, 5] {
        let run = |choices: &Choices| {
            let plan = Plan { duration_us: SHORT_US, ..Plan::draw(seed, choices) };
            simulation.run_choices(&plan, choices)
        };
        let recording = Choices::recording(seed);
        let first = run(&recording);
        assert_eq!(first.trace, simulation.run(&short(seed)).trace, "recording changes nothing");
        let tape = recording.tape().unwrap();
        assert!(tape.len() > 1000, "{} bytes", tape.len());
        let again = run(&Choices::recorded(tape));
        assert_eq!((again.trace, again.events), (first.trace, first.events), "seed {seed}");
    }
}
