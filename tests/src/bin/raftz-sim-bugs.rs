//! Does the simulator find what is wrong? Each planted bug (`raftz_core::bugs`) runs in the standard swarm, with
//! fresh seeds and no setting of its own, until a run is judged wrong; the same seeds run without it, and
//! must be clean. Built with `--cfg raftz_bugs` (`make sim-bugs`).
//!
//! `RAFTZ_SIM_FROM=n` repeats the seeds, `RAFTZ_SIM_BUG=name` tries one bug, `RAFTZ_SIM_SECONDS=n` gives up after
//! so long for each.

/// What the program says when it was built without bugs.
#[cfg(not(raftz_bugs))]
fn main() {
    eprintln!("this build holds no planted bugs; use: make sim-bugs");
    std::process::exit(2);
}

#[cfg(raftz_bugs)]
fn main() {
    std::process::exit(planted::main());
}

#[cfg(raftz_bugs)]
mod planted {
    use std::collections::BTreeMap;
    use std::panic;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use raftz_core::bugs::{Bug, plant};
    use raftz_core::sim::{Plan, Simulation};

    /// What caught a bug, or why nothing did.
    struct Verdict {
        caught: Option<String>,
        seeds: u64,
        seconds: f64,
        panics: u64,
    }

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok().and_then(|text| text.parse().ok())
    }

    fn hunt(bug: Bug, from: u64, limit: Duration) -> Verdict {
        let simulation = Simulation::key_value();
        let start = Instant::now();
        let (mut seeds, mut panics) = (0, 0);
        while start.elapsed() < limit {
            plant(Some(bug));
            let report = simulation.run(&Plan::drawn(from + seeds));
            plant(None);
            seeds += 1;
            match report.violation {
                // What the core itself noticed proves nothing about the oracle.
                Some(violation) if violation.property == "no panic" => panics += 1,
                Some(violation) => {
                    let seconds = start.elapsed().as_secs_f64();
                    return Verdict { caught: Some(violation.to_string()), seeds, seconds, panics };
                }
                None => {}
            }
        }
        Verdict { caught: None, seeds, seconds: start.elapsed().as_secs_f64(), panics }
    }

    fn cut(text: &str, most: usize) -> String {
        text.chars().take(most).collect()
    }

    pub(super) fn main() -> i32 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let from = number("RAFTZ_SIM_FROM").unwrap_or(now * 100_000);
        let limit = Duration::from_secs(number("RAFTZ_SIM_SECONDS").unwrap_or(600));
        let wanted = std::env::var("RAFTZ_SIM_BUG").ok();
        let bugs: Vec<Bug> = Bug::ALL
            .iter()
            .copied()
            .filter(|bug| wanted.as_ref().is_none_or(|name| name == bug.name()))
            .collect();
        if bugs.is_empty() {
            eprintln!("no planted bug is called {}", wanted.unwrap_or_default());
            return 2;
        }
        println!(
            "{} planted bugs, seeds from {from}, {} s each at most",
            bugs.len(),
            limit.as_secs()
        );
        // A run that panics is reported; its stack trace is in nobody's interest here.
        panic::set_hook(Box::new(|_| {}));
        let next = AtomicUsize::new(0);
        let verdicts: Mutex<BTreeMap<Bug, Verdict>> = Mutex::default();
        let clean = AtomicU64::new(0);
        let dirty: Mutex<Option<String>> = Mutex::default();
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let offset = from + 10_000 * (*bug as u64);
                        let verdict = hunt(*bug, offset, limit);
                        let words = verdict.caught.as_deref().unwrap_or("NOT CAUGHT");
                        println!(
                            "{:<36} {:>5} seeds {:>7.1} s {:>3} panics  {}",
                            bug.name(),
                            verdict.seeds,
                            verdict.seconds,
                            verdict.panics,
                            cut(words, 110)
                        );
                        let simulation = Simulation::key_value();
                        for seed in offset..offset + verdict.seeds {
                            let report = simulation.run(&Plan::drawn(seed));
                            clean.fetch_add(1, Ordering::Relaxed);
                            if let Some(violation) = report.violation {
                                let words = format!("seed {seed}: {violation}");
                                println!("without any bug: {words}");
                                *dirty.lock().unwrap_or_else(|e| e.into_inner()) = Some(words);
                            }
                        }
                        verdicts.lock().unwrap_or_else(|e| e.into_inner()).insert(*bug, verdict);
                    }
                });
            }
        });
        let verdicts = verdicts.into_inner().unwrap_or_else(|e| e.into_inner());
        summarize(
            &verdicts,
            clean.into_inner(),
            dirty.into_inner().unwrap_or_else(|e| e.into_inner()),
        )
    }

    fn summarize(verdicts: &BTreeMap<Bug, Verdict>, clean: u64, dirty: Option<String>) -> i32 {
        let mut seconds: Vec<f64> = verdicts.values().map(|verdict| verdict.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
        let worst = seconds.last().copied().unwrap_or_default();
        let caught = verdicts.values().filter(|verdict| verdict.caught.is_some()).count();
        let of = verdicts.len();
        let mut areas: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (bug, verdict) in verdicts {
            let area = areas.entry(format!("{:?}", bug.area())).or_default();
            area.1 += 1;
            area.0 += usize::from(verdict.caught.is_some());
        }
        for (area, (caught, of)) in areas {
            println!("{area:<12} {caught} of {of}");
        }
        println!("without any bug: {clean} seeds, {}", dirty.as_deref().unwrap_or("0 violations"));
        for (bug, _) in verdicts.iter().filter(|(_, verdict)| verdict.caught.is_none()) {
            println!("not caught: {}: {}", bug.name(), bug.describes());
        }
        let ok = caught == of && dirty.is_none();
        let word = if ok { "PASS" } else { "FAIL" };
        println!(
            "{word}: {caught} of {of} planted bugs caught, median {median:.1} s, worst {worst:.1} s"
        );
        i32::from(!ok)
    }
}
