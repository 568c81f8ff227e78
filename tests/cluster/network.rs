//! Real processes behind a network that misbehaves: clients on all nodes see one copy of each key,
//! whatever is killed, stopped, cut, garbled or said twice.
//!
//! The choices follow from a seed; what the system makes of them in real time does not, so a replay
//! repeats the faults and not their outcome.

use std::time::{Duration, Instant};

use super::faults::{Fault, Load, Rig};
use super::language::Language::{self, C, Rust};
use super::process::Cluster;

/// `name` from the environment, or else `default`.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Every fault at least once, and on until the time is over.
fn storm(languages: &[Language]) {
    let lasting = Duration::from_secs(number("RAFTZ_NETWORK_SECONDS", 0));
    let seed = number("RAFTZ_NETWORK_SEED", std::process::id().into());
    println!("{languages:?}; replay the choices with RAFTZ_NETWORK_SEED={seed}");
    let begun = Instant::now();
    let load = Load { clients: 9, keys: 3, pace_ms: 10, timeout_ms: 1000, stale: false };
    let options = ["segment_bytes=4m", "entry_bytes_max=1m", "lease_reads=true"];
    let (mut cluster, proxies) = Cluster::behind_proxies(languages.len(), &options, seed);
    for (place, language) in languages.iter().enumerate() {
        cluster.speak(place, *language);
    }
    let mut rig = Rig::on((cluster, proxies), load, None, seed);
    let mut planned = 0;
    while planned < Fault::ALL.len() || begun.elapsed() < lasting {
        planned += 1;
        let fault = rig.draw();
        let at = begun.elapsed();
        rig.strike(fault);
        println!("{:6} ms {fault:?}, over after {:?}", at.as_millis(), begun.elapsed() - at);
    }
    rig.calm();
    let account = rig.cluster.account();
    let judged = rig.judge();
    let happened = rig.happened();
    let network = rig.proxies.happened();
    println!("{account}; the longest took {} ms", account.longest_us / 1000);
    println!("{planned} faults planned, happened: {happened:?}\n{network:?}");
    match judged {
        Ok(keys) => println!("{keys} keys linearizable"),
        Err(objection) => panic!("{objection}\n(seed {seed})"),
    }
    for fault in Fault::ALL {
        assert!(happened.get(&fault).is_some_and(|times| *times > 0), "{fault:?} never happened");
    }
}

#[test]
fn three_nodes_stay_linearizable_whatever_happens_to_processes_and_network() {
    storm(&[Rust; 3]);
}

#[test]
fn nodes_of_two_languages_stay_linearizable_whatever_happens_to_processes_and_network() {
    storm(&[C, Rust, C]);
}

#[test]
fn five_nodes_stay_linearizable_whatever_happens_to_processes_and_network() {
    storm(&[Rust; 5]);
}

#[test]
fn leaders_that_stood_still_beyond_their_lease_answer_no_read_from_the_past() {
    const PAUSES: u64 = 8;
    let load = Load { clients: 24, keys: 2, pace_ms: 2, timeout_ms: 2000, stale: false };
    let mut rig = Rig::start(3, &["lease_reads=true"], load, None, 7);
    for _ in 0..PAUSES {
        rig.strike(Fault::PauseLeader);
    }
    rig.calm();
    let account = rig.cluster.account();
    println!("{account}");
    assert!(account.read > account.done / 5, "{account}");
    assert_eq!(rig.happened()[&Fault::PauseLeader], PAUSES);
    rig.judge().expect("linearizable");
}

#[test]
fn stale_reads_are_found_out() {
    let load = Load { clients: 24, keys: 2, pace_ms: 2, timeout_ms: 2000, stale: true };
    let mut rig = Rig::start(3, &[], load, None, 1);
    rig.cluster.wait_account("a load", |account| account.read >= 1000);
    rig.strike(Fault::PauseLeader);
    rig.calm();
    let objection = rig.judge().expect_err("reads from the past");
    assert!(objection.contains("not linearizable"), "{objection}");
}

#[test]
fn a_store_that_forgets_acknowledged_writes_is_found_out() {
    let load = Load { clients: 9, keys: 3, pace_ms: 10, timeout_ms: 1000, stale: false };
    let mut rig = Rig::start(3, &["machine=forgetful"], load, None, 1);
    rig.cluster.wait_account("a load", |account| account.done >= 1000);
    rig.calm();
    let objection = rig.judge().expect_err("writes were forgotten");
    assert!(objection.contains("not linearizable"), "{objection}");
}
