//! Random SIGKILL and restart under load: whatever was acknowledged is there in the end, on every
//! node. (SIGKILL keeps the page cache; that fsync is real is for the power-cut tests to show.)

use std::collections::BTreeMap;

use raftz_tests::value_of;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::process::Cluster;

fn rounds() -> u64 {
    std::env::var("RAFTZ_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn seed() -> u64 {
    let drawn = std::process::id().into();
    std::env::var("RAFTZ_KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(drawn)
}

#[test]
fn nothing_acknowledged_is_lost_by_random_kills_under_load() {
    let (rounds, seed) = (rounds(), seed());
    println!("{rounds} rounds; replay the choices with RAFTZ_KILL_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3);
    for place in 0..3 {
        cluster.start(place);
        cluster.tell(place, &format!("load first{place} 4"));
    }
    let (mut leaders, mut followers, mut pairs, mut wholes) = (0, 0, 0, 0);
    for round in 0..rounds {
        cluster.wait_acknowledged(100 + (rng.next_u32() % 400) as usize);
        let leader = cluster.leader();
        let victims: Vec<usize> = match rng.next_u32() % 10 {
            0..5 => {
                leaders += 1;
                vec![leader]
            }
            5..7 => {
                followers += 1;
                vec![(leader + 1 + (rng.next_u32() % 2) as usize) % 3]
            }
            7..9 => {
                pairs += 1;
                vec![leader, (leader + 1 + (rng.next_u32() % 2) as usize) % 3]
            }
            _ => {
                wholes += 1;
                vec![0, 1, 2]
            }
        };
        for place in &victims {
            cluster.kill(*place);
        }
        if victims.len() == 1 {
            // A majority lives: it goes on without the dead one.
            cluster.wait_acknowledged(50);
        }
        for place in victims {
            cluster.start(place);
            cluster.tell(place, &format!("load r{round}n{place} 4"));
        }
    }
    for place in 0..3 {
        cluster.tell(place, "stop");
    }
    for place in 0..3 {
        cluster.wait_line(place, "its clients to stop", |line| (line == "stopped").then_some(()));
    }
    cluster.settle();
    let acknowledged = cluster.acknowledged_keys();
    for place in 0..3 {
        let held: BTreeMap<String, String> = cluster.dump(place).into_iter().collect();
        for key in &acknowledged {
            assert_eq!(
                held.get(key),
                Some(&value_of(key)),
                "node {} lost an acknowledged write (seed {seed})",
                place + 1
            );
        }
        for (key, value) in &held {
            assert_eq!(value, &value_of(key), "a value that nobody wrote (seed {seed})");
        }
    }
    println!(
        "{} acknowledged writes, 0 lost, {} unknown; killed: {leaders} leaders, {followers} \
         followers, {pairs} pairs, {wholes} whole clusters",
        acknowledged.len(),
        cluster.unknown()
    );
    assert!(acknowledged.len() as u64 >= rounds * 100, "the load never stood still");
}
