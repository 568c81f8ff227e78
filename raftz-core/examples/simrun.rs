//! Throwaway.
#![allow(clippy::all, missing_docs)]
use raftz_core::sim::{Plan, Simulation};
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let sim = Simulation::key_value();
    if args.len() == 1 {
        let plan = Plan::drawn(args[0]);
        println!("{plan:?}");
        let r = sim.run_aloud(&plan, |l| println!("{}", l.chars().take(400).collect::<String>()));
        println!("{r} {:?}", r.calls);
        return;
    }
    let (from, n) = (args[0], args[1]);
    let start = std::time::Instant::now();
    let (mut ev, mut vt, mut bad) = (0, 0, 0);
    let mut markers = std::collections::BTreeMap::new();
    let mut faults = std::collections::BTreeMap::new();
    for seed in from..from + n {
        let t = std::time::Instant::now();
        let r = sim.run(&Plan::drawn(seed));
        ev += r.events; vt += r.virtual_us;
        for (m, c) in &r.markers { if *c > 0 { *markers.entry(*m).or_insert(0u64) += 1; } }
        for (m, c) in &r.faults { *faults.entry(*m).or_insert(0u64) += c; }
        if let Some(v) = &r.violation { bad += 1; println!("FAIL {seed} at {} {v}", v.at_us); }
        if t.elapsed().as_secs_f64() > 2.0 { println!("slow seed {seed}: {:?} {} events", t.elapsed(), r.events); }
    }
    let s = start.elapsed().as_secs_f64();
    println!("{n} seeds {bad} bad; {ev} events {:.0}/s; {:.0}x real time; {:.2} s", ev as f64 / s, vt as f64 / 1e6 / s, s);
    println!("{markers:?}"); println!("{faults:?}");
}
