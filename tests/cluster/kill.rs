//! Random SIGKILL and restart under load: whatever was acknowledged is there in the end, on every
//! node. (SIGKILL keeps the page cache; that fsync is real is for the power-cut tests to show.)

use std::collections::BTreeMap;

use raftz_tests::value_of;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::language::Language::{self, C, COnSqlite, Python, Rust};
use super::language::has_sqlite;
use super::package;
use super::process::Cluster;

const ALL: [usize; 3] = [0, 1, 2];

fn rounds(default: u64) -> u64 {
    std::env::var("RAFTZ_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    let drawn = std::process::id().into();
    std::env::var("RAFTZ_KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(drawn)
}

/// Who speaks which language, and whether a node that was killed comes back in the other one.
struct Crew {
    languages: [Language; 3],
    is_changing: bool,
    /// How often there were so many nodes in C.
    in_c: [u64; 4],
    changes: usize,
}

impl Crew {
    fn of(languages: [Language; 3], is_changing: bool) -> Self {
        let mut crew = Self { languages, is_changing, in_c: [0; 4], changes: 0 };
        crew.in_c[crew.now_in_c()] += 1;
        crew
    }

    fn now_in_c(&self) -> usize {
        self.languages.iter().filter(|language| **language == C).count()
    }

    fn start(&self, cluster: &mut Cluster, place: usize) {
        cluster.speak(place, self.languages[place]);
        cluster.start(place);
    }

    /// Has those that were killed come back in the other language, unless that left only one.
    fn change(&mut self, killed: &[usize]) {
        let before = self.languages;
        if self.is_changing {
            for place in killed {
                self.languages[*place] = self.languages[*place].other();
            }
            if matches!(self.now_in_c(), 1 | 2) {
                self.changes += killed.len();
            } else {
                self.languages = before;
            }
        }
        self.in_c[self.now_in_c()] += 1;
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_random_kills_under_load() {
    run(rounds(20), Crew::of([Rust; 3], false), &[]);
}

#[test]
fn nothing_acknowledged_is_lost_by_random_kills_of_nodes_in_c() {
    run(rounds(20), Crew::of([C; 3], false), &[]);
}

#[test]
fn nothing_acknowledged_is_lost_by_random_kills_of_nodes_on_a_store_of_their_own() {
    if has_sqlite() {
        run(rounds(10), Crew::of([COnSqlite; 3], false), &[]);
    }
}

/// A node's directory is the same in both languages, and so is what nodes say to each other.
#[test]
fn nothing_acknowledged_is_lost_by_random_kills_of_nodes_that_change_their_language() {
    let crew = run(rounds(20), Crew::of([Rust, Rust, C], true), &[]);
    let Crew { in_c: [none, one, two, three], changes, .. } = crew;
    println!("{changes} changes; one node in C {one} times, two nodes {two} times");
    assert!(one > 0 && two > 0 && none + three == 0);
}

/// The state machine is Python's, too.
#[test]
fn nothing_acknowledged_is_lost_by_random_kills_of_nodes_in_python() {
    if package::python().is_some() {
        run(rounds(10), Crew::of([Python; 3], false), &["machine=python"]);
    }
}

/// One copy of the store in each language, and in the end all hold the same.
#[test]
fn nothing_acknowledged_is_lost_by_random_kills_of_nodes_in_three_languages() {
    if package::python().is_some() {
        run(rounds(10), Crew::of([Rust, C, Python], false), &[]);
    }
}

/// Kills under load, so many times, the last time everybody; judges what every node holds.
fn run(rounds: u64, mut crew: Crew, options: &[&str]) -> Crew {
    let seed = seed();
    println!("{rounds} rounds; replay the choices with RAFTZ_KILL_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::with_options(3, options);
    for place in ALL {
        crew.start(&mut cluster, place);
        cluster.tell(place, &format!("load first{place} 4"));
    }
    let (mut leaders, mut followers, mut pairs, mut wholes) = (0, 0, 0, 0);
    for round in 0..rounds {
        cluster.wait_acknowledged(100 + (rng.next_u32() % 400) as usize);
        let leader = cluster.leader();
        let drawn = rng.next_u32() % 10;
        let victims: Vec<usize> = match drawn {
            // However the dice fall: it turns a mixed crew's majority around.
            _ if round + 1 == rounds => {
                wholes += 1;
                ALL.to_vec()
            }
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
                ALL.to_vec()
            }
        };
        for place in &victims {
            cluster.kill(*place);
        }
        if victims.len() == 1 {
            // A majority lives: it goes on without the dead one.
            cluster.wait_acknowledged(50);
        }
        crew.change(&victims);
        for place in victims {
            crew.start(&mut cluster, place);
            cluster.tell(place, &format!("load r{round}n{place} 4"));
        }
    }
    cluster.wait_acknowledged(100);
    cluster.quiet(&[true; 3]);
    cluster.settle();
    for place in ALL {
        assert!(cluster.has_snapshot(place), "node {} took no snapshot", place + 1);
    }
    let acknowledged = cluster.acknowledged_keys();
    let first = cluster.dump(0);
    for place in 1..3 {
        let same = cluster.dump(place) == first;
        assert!(same, "nodes 1 and {} hold different things (seed {seed})", place + 1);
    }
    let held: BTreeMap<String, String> = first.into_iter().collect();
    for key in &acknowledged {
        let there = held.get(key);
        assert_eq!(there, Some(&value_of(key)), "an acknowledged write is lost (seed {seed})");
    }
    for (key, value) in &held {
        assert_eq!(value, &value_of(key), "a value that nobody wrote (seed {seed})");
    }
    println!(
        "{} acknowledged writes, 0 lost, {} unknown; killed: {leaders} leaders, {followers} \
         followers, {pairs} pairs, {wholes} whole clusters",
        acknowledged.len(),
        cluster.unknown()
    );
    assert!(acknowledged.len() as u64 >= rounds * 100, "the load never stood still");
    crew
}
