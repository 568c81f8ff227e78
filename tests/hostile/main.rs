//! A hostile port: whatever connects to a cluster of three processes and whatever it says, nobody panics,
//! nobody is elected, commits stay fast and memory stays bounded.
//!
//! Quiet windows and windows under attack alternate in one run, and medians over the windows are compared,
//! so that a busy moment of the machine does not decide. The attack is bounded in its rate and its threads
//! have the lowest priority: a real one comes from other machines, and the figures are to tell what the
//! nodes do, not who gets the processor of this one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test of real processes lives in real time")]

mod attack;
#[path = "../cluster/process.rs"]
#[allow(dead_code, reason = "the other tests of processes also kill them")]
mod process;
#[path = "../cluster/proxy.rs"]
#[allow(dead_code, reason = "the rig knows of it")]
mod proxy;
mod wire;

use std::time::Duration;

use attack::{Attack, IDLE_CONNECTIONS};
use process::Cluster;

const WINDOW: Duration = Duration::from_secs(3);
/// A window goes on until it has so many writes, however slow the disk.
const WINDOW_WRITES: usize = 150;
const WINDOWS: usize = 5;
/// Windows at most, if the machine is so busy that the attack takes longer to unfold.
const WINDOWS_MAX: usize = 15;
/// Rounds of windows, if others on this machine disturb them.
const ROUNDS_MAX: usize = 3;
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// Resident memory of a process in KiB; nothing once it is gone.
fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lets one client of the leader write for a window; gives the latencies' 99th percentile, unless
/// some writes were not done.
fn p99_us(cluster: &mut Cluster, leader: usize) -> Option<u64> {
    cluster.tell(leader, &format!("pace {} {WINDOW_WRITES}", WINDOW.as_millis()));
    let (not_done, mut took_us) = cluster.wait_line(leader, "the end of a window", |line| {
        let mut words = line.strip_prefix("paced ")?.split_whitespace();
        let mut numbers = words.by_ref().map(|word| word.parse::<u64>().expect("a number"));
        Some((numbers.next()?, numbers.collect::<Vec<u64>>()))
    });
    took_us.sort_unstable();
    (not_done == 0).then(|| took_us[took_us.len() * 99 / 100])
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Leader and term as every node sees them.
fn office(cluster: &mut Cluster) -> Vec<(u64, u64)> {
    (0..3)
        .map(|place| {
            let seen = cluster.status(place);
            (seen.leader, seen.term)
        })
        .collect()
}

/// One round of windows: whether commits were as fast under attack as promised, and nobody was elected.
fn round(cluster: &mut Cluster) -> bool {
    let leader = cluster.leader();
    // The first window warms up: allocations and the log's first segment.
    p99_us(cluster, leader);
    let before = office(cluster);
    let pids: Vec<u32> = (0..3).map(|place| cluster.process_id(place)).collect();
    let start_kib: Vec<u64> = pids.iter().map(|pid| resident_kib(*pid).expect("it runs")).collect();
    let addresses = (0..3).map(|at| cluster.address(at).to_owned()).collect();
    let attack = Attack::prepare(addresses, leader, pids);
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    while attacked.len() < WINDOWS
        || (attack.idle() < IDLE_CONNECTIONS && attacked.len() < WINDOWS_MAX)
    {
        quiet.extend(p99_us(cluster, leader));
        attack.begin();
        attacked.extend(p99_us(cluster, leader));
        attack.pause();
        if attacked.len() != quiet.len() || office(cluster) != before {
            break;
        }
    }
    let (idle, counts, peak_kib) = attack.end();
    let growth: Vec<u64> =
        peak_kib.iter().zip(&start_kib).map(|(peak, start)| peak.saturating_sub(*start)).collect();
    println!("{counts}; {idle} idle connections");
    println!("resident KiB: {start_kib:?} before, at most {peak_kib:?}, growth {growth:?}");
    assert!(growth.iter().all(|kib| *kib <= GROWTH_KIB_MAX), "memory grew by {growth:?} KiB");
    let after = office(cluster);
    println!("(leader, term) of each: {before:?} before, {after:?} after");
    if after != before || attacked.len() < WINDOWS || attacked.len() != quiet.len() {
        return false;
    }
    let (quiet, attacked) = (median(quiet), median(attacked));
    println!("commit p99: {quiet} us quiet, {attacked} us under attack");
    assert!(idle >= IDLE_CONNECTIONS, "only {idle} idle connections");
    attacked <= 2 * quiet
}

#[test]
fn a_hostile_port_costs_no_panic_no_election_no_latency_and_no_memory() {
    attack::raise_descriptors();
    let mut cluster = Cluster::new(3);
    (0..3).for_each(|place| cluster.start(place));
    for place in 0..3 {
        cluster.wait_status(place, "every disk to be recorded", |seen| seen.disks == 3);
    }
    // What the attack costs shows in every round; what others on this machine cost does not.
    let held = (0..ROUNDS_MAX).any(|_| round(&mut cluster));
    assert!(
        held,
        "an election, or commits that took twice as long, in each of {ROUNDS_MAX} rounds"
    );
    // Nobody has died, nobody has stopped, and all hold the same.
    cluster.settle();
    for place in 0..3 {
        assert_eq!(cluster.status(place).fault, "");
    }
}
