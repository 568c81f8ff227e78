//! The simulator: how much of a cluster's life passes in a second of one core.
//!
//! Prints events a second of a run without faults, with messages handed on as values (the fast mode) and
//! as bytes, and of the standard swarm, and how many times faster than real time each is.
#![allow(clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use raftz_core::sim::{Plan, Report, Simulation, Wire};

/// How long each kind is measured.
const ENOUGH: Duration = Duration::from_secs(10);

fn measure(name: &str, plan: impl Fn(u64) -> Plan) {
    let simulation = Simulation::key_value();
    let start = Instant::now();
    let (mut seeds, mut events, mut virtual_us, mut faults) = (0, 0, 0, 0);
    while start.elapsed() < ENOUGH {
        seeds += 1;
        let report: Report = simulation.run(&plan(seeds));
        assert!(report.violation.is_none(), "seed {seeds}: {report}");
        events += report.events;
        virtual_us += report.virtual_us;
        faults += report.fault_count();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name:<24} {:>9.0} events/s {:>7.0} x real time   ({seeds} seeds, {faults} faults)",
        events as f64 / seconds,
        virtual_us as f64 / 1e6 / seconds,
    );
}

/// Three nodes, five busy clients, and nothing that goes wrong.
fn calm(seed: u64, wire: Wire) -> Plan {
    let faults = BTreeSet::new();
    Plan {
        voters: 3,
        learners: 0,
        clients: 5,
        think_us: 20_000,
        duration_us: 20_000_000,
        wire,
        faults,
        ..Plan::drawn(seed)
    }
}

fn main() {
    println!("simulator, one core");
    measure("calm, messages", |seed| calm(seed, Wire::Messages));
    measure("calm, bytes", |seed| calm(seed, Wire::Bytes));
    measure("standard swarm", Plan::drawn);
}
