//! A steady load beside other things: so many writes a second, whether or not earlier ones are done.
//!
//! A write's time counts from when it was due, so that a pause counts for every write that fell into it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftz_core::node::{Node, ProposeOptions};
use raftz_core::types::Outcome;

use super::figures::Run;
use super::member::set;

/// The keys that it writes in turn, beyond those of any other load.
const KEYS: std::ops::Range<u64> = 900_000_000..900_001_000;
const BYTES: usize = 64;

/// The load. It ends when this is dropped.
pub(crate) struct Steady {
    lap: Arc<Mutex<Lap>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Lap {
    begun: Instant,
    nanos: Vec<u64>,
    failed: usize,
}

impl Lap {
    fn new() -> Self {
        Self { begun: Instant::now(), nanos: Vec::with_capacity(1 << 17), failed: 0 }
    }
}

impl Steady {
    pub(crate) fn start(node: Arc<Node>, writes_per_s: u64) -> Self {
        let lap = Arc::new(Mutex::new(Lap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (laps, stopped) = (Arc::clone(&lap), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            for (n, key) in (0..).zip(KEYS.cycle()) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let due = begun + Duration::from_nanos(n * 1_000_000_000 / writes_per_s);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                write(&node, key, due, &laps);
            }
        });
        Self { lap, stop, thread: Some(thread) }
    }

    /// What was done since the last lap, as [`Run::line`] says it.
    pub(crate) fn lap(&self) -> String {
        let Lap { begun, nanos, failed } =
            std::mem::replace(&mut *self.lap.lock().unwrap(), Lap::new());
        Run::line(nanos, begun.elapsed().as_secs_f64(), failed)
    }
}

fn write(node: &Node, key: u64, due: Instant, laps: &Arc<Mutex<Lap>>) {
    let lap = Arc::clone(laps);
    let accepted = node.propose_with(set(key, BYTES), ProposeOptions::default(), move |outcome| {
        let nanos = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut lap = lap.lock().unwrap();
        match outcome {
            Outcome::Done(_) => lap.nanos.push(nanos),
            Outcome::Refused(_) | Outcome::Unknown(_) => lap.failed += 1,
        }
    });
    if accepted.is_err() {
        laps.lock().unwrap().failed += 1;
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
