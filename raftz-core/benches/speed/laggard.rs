//! A node that was away for so long that the others have dropped what it needs: it comes back by snapshot, while
//! writes go on.
//!
//! Three processes with the key-value store, on disk. One is killed, the others take in a state of a gibibyte, take
//! a snapshot of it and drop the log behind it. Then a steady load begins; after a while the third is started
//! again. What is measured: how much longer writes take meanwhile, and what memory both ends take for the
//! transfer. That a restored state is in memory is no cost of the transfer: it is printed beside.

use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Machine, Member, Place};
use super::figures::{Figures, Run};
use super::floor;

/// Snapshots on demand alone: what is measured is a transfer and not a snapshot that happens to be taken.
const SETTINGS: &[&str] = &["snapshot_log_bytes=0", "snapshot_log_entries=0"];
const VALUE_BYTES: usize = 16 << 10;
const WRITES_PER_S: u64 = 500;
const WARM_UP: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(10);
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

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let syncs = floor::fdatasync_per_s(dir);
    let dir = dir.join("laggard");
    let mib = state_mib();
    println!(
        "\na node that was away comes back by a snapshot of {mib} MiB, {WRITES_PER_S} writes of 64 bytes a second beside it"
    );
    println!("raw fdatasync: {syncs:.0}/s");
    let mut cluster = Cluster::start_with(Place::Disk, Machine::KeyValue, &dir, SETTINGS);
    let leader = cluster.leader();
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members[leader].ask("fill 0 10 64");
    cluster.members[away].kill();
    let last_seen = status(&mut cluster.members[leader]).last;

    let begun = Instant::now();
    let keys = mib * (1 << 20) / VALUE_BYTES as u64;
    cluster.members[leader].ask(&format!("fill 0 {keys} {VALUE_BYTES}"));
    let filled = begun.elapsed();
    // Both at once.
    cluster.members[leader].say("snapshot");
    cluster.members[other].say("snapshot");
    cluster.members[leader].hear();
    cluster.members[other].hear();
    println!(
        "the others took it in within {:.1} s, and a snapshot of it within {:.1} s",
        filled.as_secs_f64(),
        (begun.elapsed() - filled).as_secs_f64()
    );
    for member in [leader, other] {
        until("the others drop what is needed", || {
            status(&mut cluster.members[member]).base > last_seen
        });
    }

    cluster.members[leader].ask(&format!("steady {WRITES_PER_S}"));
    std::thread::sleep(WARM_UP);
    cluster.members[leader].ask("lap");
    let mut sender = Peak::of(&cluster.members[leader]);
    std::thread::sleep(BEFORE);
    sender.see(rss_mib(&cluster.members[leader]));
    let growth_before = sender.growth();
    let before = Run::parse(&cluster.members[leader].ask("lap"));
    let term = status(&mut cluster.members[leader]).term;
    let mut sender = Peak::of(&cluster.members[leader]);
    let begun = Instant::now();
    cluster.restart(away);
    // It answers once it has started: what it takes then, it takes without a snapshot, too.
    fetch(&mut cluster.members[away]);
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
    let during = Run::parse(&cluster.members[leader].ask("lap"));
    until("the snapshot is installed", || fetch(&mut cluster.members[away]).0 == "installed");
    let wanted = status(&mut cluster.members[leader]).applied;
    until("the rest is applied", || status(&mut cluster.members[away]).applied >= wanted);
    let catch_up = begun.elapsed().as_secs_f64();
    let after = Run::parse(&cluster.members[leader].ask("lap"));
    let restored = rss_mib(&cluster.members[away]) - receiver.start;
    let elections = status(&mut cluster.members[leader]).term - term;
    let (_, bytes, fetching, installing) = fetch(&mut cluster.members[away]);

    println!("{:>22} {:>9} {:>9} {:>9}", "", "writes/s", "p50 µs", "p99 µs");
    for (name, run) in
        [("before", before), ("while it is sent", during), ("while it is restored", after)]
    {
        let Run { writes_per_s, p50_us, p99_us } = run;
        println!("{name:>22} {writes_per_s:>9.0} {p50_us:>9.0} {p99_us:>9.0}");
    }
    println!(
        "sent in {fetching:.1} s, restored in {installing:.1} s, caught up {catch_up:.1} s after its start"
    );
    println!(
        "the sender grew by {:.0} MiB from {:.0} (by {growth_before:.0} before, without a transfer); the receiver by {:.0} MiB from {:.0} until all was there, by {restored:.0} with the restored state",
        sender.growth(),
        sender.start,
        receiver.growth(),
        receiver.start
    );
    figures.set("snapshot_commit_p99_ratio", Some(during.p99_us / before.p99_us));
    figures.set("snapshot_sender_growth_mib", Some(sender.growth()));
    figures.set("snapshot_receiver_growth_mib", Some(receiver.growth()));
    figures.set("snapshot_elections", Some(elections as f64));
    figures.set("snapshot_transfer_mb_per_s", Some(bytes / 1e6 / fetching));
    figures.set("snapshot_catch_up_s", Some(catch_up));
    drop(cluster);
    drop(std::fs::remove_dir_all(&dir));
}
