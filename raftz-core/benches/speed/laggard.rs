//! A node that was away for so long that the others have dropped what it needs: it comes back by snapshot, while
//! writes go on.
//!
//! Three processes with the key-value store, on one disk. One is killed, the others take in a state of a gibibyte,
//! take a snapshot of it and drop the log behind it; then the third is started again. What is measured: how much
//! longer the writes of a steady load take meanwhile, and what memory both ends take for the transfer. That a
//! restored state is in memory, for a moment beside the one before, is no cost of the transfer: it is printed
//! beside. A disk has its moods, so all of it is done several times, and the middle ratio counts.

use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Machine, Member, Place};
use super::figures::{self, Figures, Run, median};
use super::floor;

/// Snapshots on demand alone: what is measured is a transfer and not a snapshot that happens to be taken.
const SETTINGS: &[&str] = &["snapshot_log_bytes=0", "snapshot_log_entries=0"];
const VALUE_BYTES: usize = 16 << 10;
const WRITES_PER_S: u64 = 500;
const WARM_UP: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(8);
const ROUNDS_MAX: usize = 3;
const POLL: Duration = Duration::from_millis(10);
/// Nothing here takes so long.
const DEADLINE: Duration = Duration::from_secs(90);

/// The size of the state.
fn state_mib() -> u64 {
    std::env::var("RAFTZ_BENCH_SNAPSHOT_MIB").map_or(1024, |mib| mib.parse().expect("a number"))
}

fn rss_mib(member: &Member) -> f64 {
    member.mib("VmRSS:")
}

/// What a member says of itself.
struct Status {
    term: u64,
    base: u64,
    applied: u64,
    last: u64,
}

fn status(member: &mut Member) -> Status {
    let line = member.ask("status");
    let numbers: Vec<u64> = line.split(' ').map(|it| it.parse().expect("a number")).collect();
    let [term, base, applied, last] = numbers[..] else { panic!("no status: {line:?}") };
    Status { term, base, applied, last }
}

/// How far the fetch is, and once it is over: its bytes, and the seconds until they were there and until they were
/// installed.
fn fetch(member: &mut Member) -> (String, f64, f64, f64) {
    let line = member.ask("fetch");
    let words: Vec<&str> = line.split(' ').collect();
    let [phase, bytes, fetching, installing] = words[..] else { panic!("no fetch: {line:?}") };
    let number = |word: &str| word.parse().expect("a number");
    (phase.to_owned(), number(bytes), number(fetching), number(installing))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within {} s", DEADLINE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// The most that was seen.
struct Peak {
    start: f64,
    most: f64,
}

impl Peak {
    fn of(member: &Member) -> Self {
        let start = rss_mib(member);
        Self { start, most: start }
    }

    fn see(&mut self, mib: f64) {
        self.most = self.most.max(mib);
    }

    fn growth(&self) -> f64 {
        self.most - self.start
    }
}

/// What one return of a node came to.
struct Round {
    before: Run,
    sending: Run,
    restoring: Run,
    sender_growth: f64,
    receiver_growth: f64,
    restored_growth: f64,
    elections: u64,
    mb_per_s: f64,
    installing_s: f64,
    catch_up_s: f64,
}

impl Round {
    fn p99_ratio(&self) -> f64 {
        self.sending.p99_us / self.before.p99_us
    }

    fn print(&self) {
        println!(
            "{:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>6.2} {:>9.0} {:>6.0} {:>8.1} {:>9.1} {:>9.1} {:>9.1} {:>9.0}",
            self.before.p50_us,
            self.before.p99_us,
            self.sending.p50_us,
            self.sending.p99_us,
            self.p99_ratio(),
            self.restoring.p99_us,
            self.mb_per_s,
            self.installing_s,
            self.catch_up_s,
            self.sender_growth,
            self.receiver_growth,
            self.restored_growth
        );
    }
}

/// A node goes, misses a state's worth of log, and comes back.
fn round(cluster: &mut Cluster, keys: u64) -> Round {
    let leader = cluster.leader();
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members[away].kill();
    let last_seen = status(&mut cluster.members[leader]).last;
    cluster.members[leader].ask(&format!("fill 0 {keys} {VALUE_BYTES}"));
    // Both at once.
    cluster.members[leader].say("snapshot");
    cluster.members[other].say("snapshot");
    cluster.members[leader].hear();
    cluster.members[other].hear();
    for member in [leader, other] {
        until("the others drop what it needs", || {
            status(&mut cluster.members[member]).base > last_seen
        });
    }

    cluster.members[leader].ask(&format!("steady {WRITES_PER_S}"));
    std::thread::sleep(WARM_UP);
    cluster.members[leader].ask("lap");
    std::thread::sleep(BEFORE);
    let before = Run::parse(&cluster.members[leader].ask("lap"));
    let term = status(&mut cluster.members[leader]).term;
    let mut sender = Peak::of(&cluster.members[leader]);
    cluster.restart(away);
    // It answers once it has started, with the state of its own snapshot if it has one.
    fetch(&mut cluster.members[away]);
    let begun = Instant::now();
    cluster.members[leader].ask("lap");
    let mut receiver = Peak::of(&cluster.members[away]);
    until("the snapshot is fetched", || {
        let mib = rss_mib(&cluster.members[away]);
        sender.see(rss_mib(&cluster.members[leader]));
        let phase = fetch(&mut cluster.members[away]).0;
        let is_there = phase == "fetched" || phase == "installed";
        // Seen before it was asked, so nothing of the restore is in it.
        if !is_there {
            receiver.see(mib);
        }
        is_there
    });
    let sending = Run::parse(&cluster.members[leader].ask("lap"));
    until("the snapshot is installed", || fetch(&mut cluster.members[away]).0 == "installed");
    let wanted = status(&mut cluster.members[leader]).applied;
    until("the rest is applied", || status(&mut cluster.members[away]).applied >= wanted);
    let catch_up_s = begun.elapsed().as_secs_f64();
    let restoring = Run::parse(&cluster.members[leader].ask("lap"));
    cluster.members[leader].ask("rest");
    let (_, bytes, fetching_s, installing_s) = fetch(&mut cluster.members[away]);
    Round {
        before,
        sending,
        restoring,
        sender_growth: sender.growth(),
        receiver_growth: receiver.growth(),
        restored_growth: rss_mib(&cluster.members[away]) - receiver.start,
        elections: status(&mut cluster.members[leader]).term - term,
        mb_per_s: bytes / 1e6 / fetching_s,
        installing_s,
        catch_up_s,
    }
}

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let mib = state_mib();
    println!(
        "\na node that was away comes back by a snapshot of {mib} MiB, beside {WRITES_PER_S} writes of 64 bytes a second"
    );
    println!("raw fdatasync: {:.0}/s", floor::fdatasync_per_s(dir));
    println!(
        "{:>19} {:>26} {:>9} {:>6} {:>18} {:>29}",
        "before, µs", "while it is sent, µs", "restoring", "", "seconds until", "growth in MiB"
    );
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>6} {:>9} {:>6} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "p50",
        "p99",
        "p50",
        "p99",
        "ratio",
        "p99",
        "MB/s",
        "restored",
        "caught up",
        "sender",
        "receiver",
        "restored"
    );
    let dir = dir.join("laggard");
    let mut cluster = Cluster::start_with(Place::Disk, Machine::KeyValue, &dir, SETTINGS);
    let keys = mib * (1 << 20) / VALUE_BYTES as u64;
    let mut rounds = Vec::new();
    for _ in 0..figures::rounds().min(ROUNDS_MAX) {
        let round = round(&mut cluster, keys);
        round.print();
        rounds.push(round);
    }
    drop(cluster);
    println!(
        "raw fdatasync afterwards: {:.0}/s",
        floor::fdatasync_per_s(dir.parent().expect("a folder"))
    );
    drop(std::fs::remove_dir_all(&dir));
    let middle = |what: fn(&Round) -> f64| Some(median(rounds.iter().map(what).collect()));
    let most = |what: fn(&Round) -> f64| Some(rounds.iter().map(what).fold(0.0, f64::max));
    figures.set("snapshot_commit_p99_ratio", middle(Round::p99_ratio));
    figures.set("snapshot_sender_growth_mib", most(|round| round.sender_growth));
    figures.set("snapshot_receiver_growth_mib", most(|round| round.receiver_growth));
    figures.set("snapshot_elections", most(|round| round.elections as f64));
    figures.set("snapshot_transfer_mb_per_s", middle(|round| round.mb_per_s));
    figures.set("snapshot_catch_up_s", middle(|round| round.catch_up_s));
}
