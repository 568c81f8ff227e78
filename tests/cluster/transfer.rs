//! Leadership that moves between processes: away from a disk that stands still, and under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::process::Cluster;
use super::shim::{ELECTION, Faulty};

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_leader_whose_disk_stands_still_is_replaced_within_three_election_timeouts() {
    let mut faulty = Faulty::steady(3);
    for place in ALL {
        faulty.start(place, &[]);
    }
    let old = faulty.cluster.leader();
    for place in ALL {
        faulty.cluster.tell(place, &format!("load n{place} 2"));
    }
    faulty.cluster.wait_acknowledged(200);
    faulty.order(old, "stall on");
    faulty.wait_met(old, "a sync that stalls", |met| met.stalled > 0);
    let begun = Instant::now();
    let other = (old + 1) % 3;
    let seen = faulty.cluster.wait_status(other, "another leader", |seen| {
        seen.leader > 0 && seen.leader != old as u64 + 1
    });
    let took = begun.elapsed();
    println!("replaced {took:?} after its disk had stood still");
    assert!(took < 3 * ELECTION, "{took:?}, and elections take up to {ELECTION:?}");
    // It stays so, and writes go on.
    faulty.cluster.wait_acknowledged(300);
    assert_eq!(faulty.cluster.status(other).leader, seen.leader);
    faulty.order(old, "stall off");
    faulty.cluster.quiet(&[true; 3]);
    faulty.cluster.settle();
    let acknowledged = faulty.cluster.acknowledged_keys();
    for place in ALL {
        let held: BTreeSet<String> =
            faulty.cluster.dump(place).into_iter().map(|(key, _)| key).collect();
        assert!(acknowledged.is_subset(&held), "node {} lost writes", place + 1);
    }
}

#[test]
fn transfers_under_load_lose_nothing_and_pause_writes_for_less_than_an_election_timeout() {
    // An election that nobody asked for means that the machine stood still: such a run proves nothing.
    assert!(
        (0..3).any(|_| transfers_under_load()),
        "three times an election that nobody asked for"
    );
}

/// False if there was an election besides the transfers.
fn transfers_under_load() -> bool {
    const TRANSFERS: usize = 8;
    let options = ["election_timeout_min_ms=400", "election_timeout_max_ms=500"];
    let mut cluster = Cluster::with_options(3, &options);
    for place in ALL {
        cluster.start(place);
    }
    let mut leader = cluster.leader();
    let term = cluster.status(leader).term;
    for place in ALL {
        cluster.tell(place, &format!("load n{place} 4"));
    }
    cluster.wait_acknowledged(200);
    // Whoever looks on from outside: one write after the other, each timed.
    let watcher = (leader + 2) % 3;
    cluster.tell(watcher, "stop");
    cluster.wait_line(watcher, "its clients to stop", |line| (line == "stopped").then_some(()));
    cluster.tell(watcher, "pace 6000 500");
    let mut took = Vec::new();
    for _ in 0..TRANSFERS {
        let to = ALL.into_iter().find(|place| *place != leader && *place != watcher).unwrap();
        cluster.tell(leader, &format!("transfer {} 5000", to + 1));
        let ended = cluster.wait_line(leader, "the end of a transfer", |line| {
            let is_over = line.starts_with("transferred ") || line.starts_with("not transferred");
            is_over.then(|| line.to_owned())
        });
        let done = ended.strip_prefix("transferred ").and_then(|done| done.split_once(' '));
        let Some((id, us)) = done else {
            assert!(cluster.status(leader).term > term + took.len() as u64, "{ended}");
            return false;
        };
        assert_eq!(id, (to + 1).to_string());
        took.push(Duration::from_micros(us.parse().unwrap()));
        leader = to;
        cluster.wait_acknowledged(200);
    }
    let paced = cluster.wait_line(watcher, "the timed writes", |line| {
        line.strip_prefix("paced ").map(str::to_owned)
    });
    if cluster.status(leader).term > term + TRANSFERS as u64 {
        return false;
    }
    let mut words = paced.split(' ');
    assert_eq!(words.next(), Some("0"), "writes that were not done");
    let mut paced: Vec<Duration> =
        words.map(|us| Duration::from_micros(us.parse().unwrap())).collect();
    paced.sort_unstable();
    took.sort_unstable();
    let (count, longest) = (paced.len(), *paced.last().unwrap());
    let at = |share: usize| paced[(count - 1) * share / 100];
    println!(
        "{count} writes beside {TRANSFERS} transfers: p50 {:?}, p99 {:?}, longest {longest:?}; a transfer took {:?} to {:?}",
        at(50),
        at(99),
        took[0],
        took[took.len() - 1]
    );
    assert!(longest < ELECTION, "a pause of {longest:?}");
    cluster.quiet(&[watcher != 0, watcher != 1, watcher != 2]);
    cluster.settle();
    let acknowledged = cluster.acknowledged_keys();
    for place in ALL {
        let held: BTreeSet<String> = cluster.dump(place).into_iter().map(|(key, _)| key).collect();
        assert!(acknowledged.is_subset(&held), "node {} lost writes", place + 1);
    }
    true
}
