//! What a snapshot costs the thread that applies: to freeze the built-in store, and to write to it while what was
//! frozen is still there. The first writes then copy the parts of the map that they touch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{Command, KvStore, StateMachine};
use raftz_core::types::{Index, Term};

use super::figures::{Figures, median, rounds};
use super::member::set;

const KEYS: u64 = 1_000_000;
const BYTES: usize = 64;
const FREEZES: usize = 100;
/// Writes of a round, and how many are applied at once.
const WRITES: u64 = 100_000;
const BATCH: usize = 64;

fn apply(store: &mut KvStore, keys: impl Iterator<Item = u64>) -> Times {
    let payloads: Vec<Bytes> = keys.map(|key| set(key, BYTES)).collect();
    let command = |payload| Command { index: Index(1), term: Term(1), log_time_us: 0, payload };
    let commands: Vec<Command> = payloads.iter().map(command).collect();
    let mut replies = Vec::with_capacity(BATCH);
    let mut times = Times::default();
    for batch in commands.chunks(BATCH) {
        let begun = Instant::now();
        store.apply(batch, &mut replies).expect("applies");
        let time = begun.elapsed();
        times.sum += time;
        times.most = times.most.max(time);
        replies.clear();
    }
    times
}

/// What batches took.
#[derive(Clone, Copy, Default)]
struct Times {
    sum: Duration,
    most: Duration,
}

/// Keys from all over the store, others each time.
fn scattered(seed: u64, count: u64) -> impl Iterator<Item = u64> {
    (seed * count..(seed + 1) * count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub(crate) fn bench(figures: &mut Figures) {
    let mut store = KvStore::new();
    apply(&mut store, 0..KEYS);
    let mut pauses = Vec::with_capacity(FREEZES);
    for seed in 0..FREEZES as u64 {
        apply(&mut store, scattered(seed, 1000));
        let begun = Instant::now();
        let view = store.snapshot().expect("freezes");
        pauses.push(ms(begun.elapsed()));
        // Elsewhere in a node: on the thread that wrote it.
        drop(view);
    }
    let most = pauses.iter().copied().fold(0.0, f64::max);
    println!("\nthe built-in store with {KEYS} keys of {BYTES} bytes");
    println!(
        "freezing it: {:.4} ms, at most {most:.4} ms of {FREEZES} times",
        median(pauses.clone())
    );
    let (mut alone, mut frozen, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
    let mut slowest_alone = Duration::ZERO;
    for round in 0..rounds() as u64 {
        let times = apply(&mut store, scattered(1000 + 2 * round, WRITES));
        alone.push(times.sum.as_secs_f64());
        slowest_alone = slowest_alone.max(times.most);
        let view = store.snapshot().expect("freezes");
        let times = apply(&mut store, scattered(1001 + 2 * round, WRITES));
        frozen.push(times.sum.as_secs_f64());
        slowest = slowest.max(times.most);
        drop(view);
    }
    let (alone, frozen) = (median(alone), median(frozen));
    println!(
        "{WRITES} scattered writes after it: {:.2} µs each, {:.2} µs while nothing is frozen; slowest {BATCH} of them {:.2} and {:.2} ms",
        frozen * 1e6 / WRITES as f64,
        alone * 1e6 / WRITES as f64,
        ms(slowest),
        ms(slowest_alone)
    );
    figures.set("snapshot_freeze_ms", Some(most));
    figures.set("snapshot_write_ratio_while_frozen", Some(frozen / alone));
}
