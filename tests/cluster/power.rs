//! Power cuts under load. What was acknowledged is there afterwards, on every node; and where syncs
//! lie, the same run finds out.

use std::collections::BTreeMap;
use std::fmt;

use raftz_tests::value_of;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::language::{Language, has_sqlite};
use super::process::{Cluster, Seen};
use super::shim::{Faulty, Loss};

const ALL: [usize; 3] = [0, 1, 2];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    /// All at once, under load.
    Whole,
    /// Each at an operation of its own: between a write and its sync, a rename and its, …
    MidOperation,
    /// The leader and another one.
    Majority,
    /// The leader.
    Leader,
    /// All processes are killed first, and the power goes while they read what the dead had
    /// written and not synced.
    AfterKill,
    /// All, after a time in which the leader's disk completed nothing.
    StalledLeader,
}

/// Each kind comes in each run of six or more.
const KINDS: [Cut; 6] =
    [Cut::Whole, Cut::MidOperation, Cut::AfterKill, Cut::StalledLeader, Cut::Majority, Cut::Leader];

/// A promise that was broken.
#[derive(Debug)]
enum Finding {
    Refused { node: usize, why: String },
    Damaged { node: usize },
    Faulted { node: usize, why: String },
    Lost { node: usize, keys: usize, of: usize, first: String },
    Invented { node: usize, key: String, value: String },
    Apart { nodes: Vec<Seen> },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { node, why } => write!(f, "node {node} refuses to start: {why}"),
            Self::Damaged { node } => write!(f, "node {node} has lost what had been durable"),
            Self::Faulted { node, why } => write!(f, "node {node} has stopped: {why}"),
            Self::Lost { node, keys, of, first } => {
                write!(f, "node {node} lost {keys} of {of} acknowledged writes, {first} among them")
            }
            Self::Invented { node, key, value } => {
                write!(f, "node {node} holds {key} = {value}, which nobody wrote")
            }
            Self::Apart { nodes } => {
                write!(f, "the nodes, which all run, do not come to agree: {nodes:#?}")
            }
        }
    }
}

#[derive(Default)]
struct Report {
    acknowledged: usize,
    unknown: u64,
    kinds: BTreeMap<Cut, u64>,
    loss: Loss,
    /// Sectors that killed processes left unsynced.
    inherited: u64,
}

/// Runs a cluster through so many cuts.
fn run(language: Language, cuts: u64, seed: u64, lie: &str) -> Result<Report, Finding> {
    let mut faulty = Faulty::new(3);
    for place in ALL {
        faulty.cluster.speak(place, language);
    }
    let mut rig = Rig::found(faulty, seed);
    rig.lie = format!("lie {lie}");
    // Only now: that a node loses its identity to a liar proves little.
    for place in ALL {
        let order = rig.lie.clone();
        rig.faulty.order(place, &order);
    }
    rig.load(&ALL);
    if lie != "nothing" {
        for place in ALL {
            rig.faulty.wait_met(place, "a lie", |met| met.lied > 0);
        }
    }
    let mut report = Report::default();
    for round in 0..cuts {
        let kind = KINDS[(round % KINDS.len() as u64) as usize];
        let (victims, loss) = rig.cut(kind);
        *report.kinds.entry(kind).or_default() += 1;
        report.loss += loss;
        for place in &victims {
            rig.launch(*place, &[]);
        }
        rig.faulty.cluster.quiet(&ALL.map(|place| !victims.contains(&place)));
        rig.verify(&victims)?;
        rig.load(&ALL);
    }
    report.acknowledged = rig.faulty.cluster.acknowledged_keys().len();
    report.inherited = rig.inherited;
    report.unknown = rig.faulty.cluster.unknown();
    Ok(report)
}

struct Rig {
    faulty: Faulty,
    rng: ChaCha8Rng,
    lie: String,
    loads: u64,
    inherited: u64,
}

impl Rig {
    /// A cluster that has a leader.
    fn found(mut faulty: Faulty, seed: u64) -> Self {
        for place in ALL {
            faulty.start(place, &[]);
        }
        faulty.cluster.leader();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { faulty, rng, lie: "lie nothing".into(), loads: 0, inherited: 0 }
    }

    fn draw(&mut self, from: u64, to: u64) -> u64 {
        from + self.rng.next_u64() % (to - from)
    }

    fn launch(&mut self, place: usize, orders: &[&str]) {
        let lie = self.lie.clone();
        let met = self.faulty.launch(place, &[&[lie.as_str()], orders].concat());
        self.inherited += met.inherited;
    }

    fn load(&mut self, places: &[usize]) {
        for place in places {
            self.loads += 1;
            let loads = self.loads;
            self.faulty.cluster.tell(*place, &format!("load c{loads} 4"));
        }
    }

    /// Cuts the power under load; who was hit, and what was lost.
    fn cut(&mut self, kind: Cut) -> (Vec<usize>, Loss) {
        let more = self.draw(50, 250) as usize;
        self.faulty.cluster.wait_acknowledged(more);
        let seed = self.rng.next_u64();
        match kind {
            Cut::Whole => {}
            Cut::MidOperation => {
                for place in ALL {
                    let order = format!("cut-at {} {}", self.draw(1, 60), self.rng.next_u64());
                    self.faulty.order(place, &order);
                }
                self.wait_any_end();
            }
            Cut::Majority | Cut::Leader => {
                let leader = self.faulty.cluster.leader();
                let mut victims = vec![leader];
                if kind == Cut::Majority {
                    victims.push((leader + self.draw(1, 3) as usize) % 3);
                }
                let loss = self.faulty.cut(&victims, seed);
                if kind == Cut::Leader {
                    // The others go on without it.
                    self.faulty.cluster.wait_acknowledged(50);
                }
                return (victims, loss);
            }
            Cut::AfterKill => {
                // In the middle of a sync, so that there is something to inherit.
                for place in ALL {
                    self.faulty.order(place, "stall on");
                }
                for place in ALL {
                    self.faulty.wait_met(place, "a sync that stalls", |met| met.stalled > 0);
                }
                for place in ALL {
                    self.faulty.kill(place);
                }
                for place in ALL {
                    // An open makes some twenty operations.
                    let order = format!("cut-at {} {}", self.draw(1, 30), self.rng.next_u64());
                    self.launch(place, &[&order]);
                }
                for place in ALL {
                    self.faulty.cluster.wait_ready_or_ended(place);
                }
            }
            Cut::StalledLeader => {
                let leader = self.faulty.cluster.leader();
                self.faulty.order(leader, "stall on");
                self.faulty.wait_met(leader, "a sync that stalls", |met| met.stalled > 0);
                self.faulty.cluster.wait_acknowledged(50);
            }
        }
        (ALL.to_vec(), self.faulty.cut(&ALL, seed))
    }

    fn wait_any_end(&mut self) {
        let cluster = &mut self.faulty.cluster;
        cluster.wait_until("a cut in mid-operation", |cluster| {
            ALL.iter().any(|place| cluster.has_ended(*place))
        });
    }

    /// Every node holds every acknowledged write, and nothing that nobody wrote.
    fn verify(&mut self, started: &[usize]) -> Result<(), Finding> {
        let cluster = &mut self.faulty.cluster;
        for place in started {
            let node = place + 1;
            cluster.ready(*place).map_err(|why| Finding::Refused { node, why })?;
        }
        for place in ALL {
            sound(cluster, place)?;
        }
        // One more write: only then is everything before it known to be committed. A disk may show
        // only now what has become of it.
        let before = cluster.acknowledged_keys().len();
        cluster.tell(0, &format!("load v{} 1", self.loads));
        cluster.wait_until("a write or a finding", |cluster| {
            let is_written = cluster.acknowledged_keys().len() > before;
            is_written || ALL.iter().any(|place| sound(cluster, *place).is_err())
        });
        cluster.quiet(&[true, false, false]);
        if let Err(nodes) = cluster.try_settle() {
            for place in ALL {
                sound(cluster, place)?;
            }
            return Err(Finding::Apart { nodes });
        }
        let acknowledged = cluster.acknowledged_keys();
        for place in ALL {
            sound(cluster, place)?;
            let node = place + 1;
            let held: BTreeMap<String, String> = cluster.dump(place).into_iter().collect();
            let wrong = held.iter().find(|(key, value)| **value != value_of(key));
            if let Some((key, value)) = wrong {
                return Err(Finding::Invented { node, key: key.clone(), value: value.clone() });
            }
            let mut lost = acknowledged.iter().filter(|key| !held.contains_key(*key)).peekable();
            if let Some(first) = lost.peek().map(|key| (*key).clone()) {
                let (keys, of) = (lost.count(), acknowledged.len());
                return Err(Finding::Lost { node, keys, of, first });
            }
        }
        Ok(())
    }
}

fn sound(cluster: &mut Cluster, place: usize) -> Result<(), Finding> {
    let (node, seen) = (place + 1, cluster.status(place));
    if !seen.fault.is_empty() {
        return Err(Finding::Faulted { node, why: seen.fault });
    }
    if seen.damaged { Err(Finding::Damaged { node }) } else { Ok(()) }
}

fn seed() -> u64 {
    let seed = number("RAFTZ_POWER_SEED").unwrap_or_else(|| std::process::id().into());
    println!("replay the choices with RAFTZ_POWER_SEED={seed}");
    seed
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_under_load() {
    nothing_lost(Language::Rust, 20);
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_of_nodes_in_c() {
    nothing_lost(Language::C, 20);
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_of_nodes_on_a_store_of_their_own() {
    if has_sqlite() {
        nothing_lost(Language::COnSqlite, 12);
    }
}

fn nothing_lost(language: Language, cuts: u64) {
    let (cuts, seed) = (number("RAFTZ_POWER_CUTS").unwrap_or(cuts), seed());
    let report = run(language, cuts, seed, "nothing").unwrap_or_else(|finding| panic!("{finding}"));
    let Report { acknowledged, unknown, kinds, loss, inherited } = report;
    println!(
        "{acknowledged} acknowledged writes, 0 lost, {unknown} unknown; cuts: {kinds:?}; of what \
         was unsynced: {loss:?}; killed processes left {inherited} unsynced sectors"
    );
    assert!(acknowledged as u64 >= cuts * 50, "the load never stood still");
    // A fault that was planned and never happened proves nothing.
    if cuts >= 2 * KINDS.len() as u64 {
        let Loss { dropped_bytes, garbled_bytes, names_undone, .. } = loss;
        // A database keeps its names.
        let are_names_undone = names_undone > 0 || language == Language::COnSqlite;
        assert!(dropped_bytes > 0 && garbled_bytes > 0 && are_names_undone && inherited > 0);
    }
}

#[test]
fn the_same_run_fails_when_fdatasync_does_nothing() {
    must_fail(Language::Rust, "files");
}

#[test]
fn the_same_run_of_nodes_in_c_fails_when_fdatasync_does_nothing() {
    must_fail(Language::C, "files");
}

#[test]
fn the_same_run_of_nodes_on_a_store_of_their_own_fails_when_fdatasync_does_nothing() {
    if has_sqlite() {
        must_fail(Language::COnSqlite, "files");
    }
}

#[test]
fn the_same_run_fails_when_directories_are_not_synced() {
    must_fail(Language::Rust, "directories");
}

#[test]
fn writes_that_were_acknowledged_on_syncs_that_did_nothing_are_missed() {
    let mut faulty = Faulty::new(3);
    // One segment for all: only the end of the log is at stake.
    faulty.cluster.options.push("segment_bytes=2m".into());
    let mut rig = Rig::found(faulty, 0);
    rig.load(&ALL);
    rig.faulty.cluster.wait_acknowledged(100);
    for place in ALL {
        rig.faulty.order(place, "lie files");
    }
    rig.faulty.cluster.wait_acknowledged(50);
    rig.faulty.cut(&ALL, 0);
    for place in ALL {
        rig.launch(place, &[]);
    }
    match rig.verify(&ALL) {
        Err(finding @ Finding::Lost { .. }) => println!("found out: {finding}"),
        other => panic!("the lost writes were not missed: {other:?}"),
    }
}

fn must_fail(language: Language, lie: &str) {
    match run(language, 20, seed(), lie) {
        Ok(report) => panic!("nobody noticed in {} writes", report.acknowledged),
        Err(finding) => println!("found out: {finding}"),
    }
}
