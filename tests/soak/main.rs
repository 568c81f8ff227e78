//! The soak: 64 clients on three real processes, random faults for as long as is asked, and at the
//! end one line. `make soak` runs it for ten minutes, the tests for some seconds
//! (`RAFTZ_SOAK_SECONDS`).
//!
//! It passes if every call ended exactly once and none long after its deadline, if what the clients
//! saw is linearizable, if every planned fault happened, and if nothing grew: node 1 is never killed,
//! so whatever a node holds on to shows in its memory, descriptors and threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test of real processes lives in real time")]

#[allow(dead_code, reason = "the soak needs a part of it")]
#[path = "../cluster/faults.rs"]
mod faults;
mod health;
#[allow(dead_code, reason = "the soak needs a part of it")]
#[path = "../cluster/process.rs"]
mod process;
#[allow(dead_code, reason = "the soak needs a part of it")]
#[path = "../cluster/proxy.rs"]
mod proxy;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use faults::{Load, Rig};
use health::Watch;

/// How long it runs when nobody says.
const SECONDS: u64 = 10;
const SEED_DEFAULT: u64 = 1;
const LOAD: Load = Load { clients: 64, keys: 8, pace_ms: 150, timeout_ms: 2000, stale: false };
/// The cache of applied entries and the segments are small, so that they are full, or turned over
/// often, long before the end.
const OPTIONS: [&str; 2] = ["cache_bytes_max=1m", "segment_bytes=8m"];
/// The place of the node that is never killed.
const SPARED: usize = 0;
/// How much later than its deadline a call may end: a process may stand still, a busy machine too.
const LATE: Duration = Duration::from_secs(20);
/// Pause between two faults.
const PAUSE: Duration = Duration::from_millis(300);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a run that passes says.
fn soak(lasting: Duration, seed: u64) -> Result<String, String> {
    let begun = Instant::now();
    let mut rig = Rig::start(3, &OPTIONS, LOAD, Some(SPARED), seed);
    let process = rig.cluster.process_id(SPARED);
    let mut watch = Watch::new(process);
    let (mut planned, mut told) = (0, Instant::now());
    while begun.elapsed() < lasting {
        planned += 1;
        let fault = rig.draw();
        rig.strike(fault);
        let commit = rig.cluster.status(SPARED).commit;
        if begun.elapsed() < lasting / 3 || planned == 1 {
            watch.look_early(commit);
        } else if begun.elapsed() > lasting * 2 / 3 {
            watch.look_late(commit);
        }
        std::thread::sleep(PAUSE);
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let seconds = begun.elapsed().as_secs();
            println!("{seconds} s: {}; {planned} faults", rig.cluster.account());
        }
    }
    watch.look_late(rig.cluster.status(SPARED).commit);
    rig.calm();
    let account = rig.cluster.account();
    let longest = Duration::from_micros(account.longest_us);
    if longest > Duration::from_millis(LOAD.timeout_ms) + LATE {
        return Err(format!("a call took {longest:?} with a deadline of {} ms", LOAD.timeout_ms));
    }
    let commit = rig.cluster.status(SPARED).commit;
    let (early, late) = watch.verdict()?;
    let keys = rig.judge()?;
    let happened = rig.happened();
    let never: Vec<_> = happened.iter().filter(|(_, times)| **times == 0).collect();
    if !never.is_empty() {
        return Err(format!("planned faults that never happened: {never:?}"));
    }
    let happened: u64 = happened.values().sum();
    let Load { clients, .. } = LOAD;
    let seconds = lasting.as_secs();
    Ok(format!(
        "{clients} clients, {seconds} s, {account}, {keys} keys linearizable; {happened} of \
         {planned} faults happened; node {}: {early} -> {late}, {commit} entries",
        SPARED + 1
    ))
}

/// A program without the test harness's arguments: it runs unless another test was asked for.
fn is_asked_for() -> bool {
    let mut names = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let lists = std::env::args().any(|argument| argument == "--list");
    !lists && names.next().is_none_or(|name| "soak".contains(&name))
}

fn main() -> ExitCode {
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let lasting = Duration::from_secs(number("RAFTZ_SOAK_SECONDS", SECONDS));
    let seed = number("RAFTZ_SOAK_SEED", SEED_DEFAULT);
    println!(
        "soak: {} s; other choices with RAFTZ_SOAK_SEED, this one is {seed}",
        lasting.as_secs()
    );
    // A wait in vain is a panic, which has said on standard error what it waited for.
    let verdict = catch_unwind(AssertUnwindSafe(|| soak(lasting, seed)));
    match verdict.unwrap_or_else(|_| Err("the run broke off, see above".into())) {
        Ok(counts) => {
            println!("PASS: {counts}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("FAIL: {reason} (seed {seed})");
            ExitCode::FAILURE
        }
    }
}
