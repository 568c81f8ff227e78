//! How close raftz comes to the floor: what a replicated write costs at the very least on this machine.
//!
//! Prints tables for people and writes `target/bench/summary.json`. Durable figures stand beside the raw rate of
//! fdatasync and beside the floor (`floor`), which runs in turns with raftz, so that both meet the same noise.
//! `RAFTZ_BENCH_ONLY=durable,core` runs some sections alone and writes no summary, `RAFTZ_BENCH_LOADS=1,64` some
//! numbers of writes outstanding; `RAFTZ_BENCH_ROUNDS=9` takes more rounds than five, `RAFTZ_BENCH_SNAPSHOT_MIB=128`
//! a smaller state in the section `snapshot`.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
#![allow(missing_docs)]

mod allocations;
mod bare;
mod cluster;
mod failover;
mod figures;
mod floor;
mod freeze;
mod idle;
mod inprocess;
mod laggard;
mod measured;
mod member;
mod reads;
mod restart;
mod steady;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster::{Cluster, Machine, Place};
use figures::Figures;

#[global_allocator]
static COUNTED: allocations::Counted = allocations::Counted;

/// Loads that are compared with the floor: writes outstanding, and bytes of each.
const DURABLE: [(usize, usize); 6] =
    [(1, 64), (16, 64), (64, 64), (256, 64), (1024, 64), (64, 64 << 10)];
const MEMORY: [(usize, usize); 5] = [(1, 64), (16, 64), (64, 64), (256, 64), (1024, 64)];
/// Loads of the key-value store, which is printed beside.
const KEY_VALUE: [(usize, usize); 3] = [(1, 64), (64, 64), (1024, 64)];

/// A floor is one only if it comes so close to what the disk gives: syncs at one outstanding, and writes at 64.
const VALID_AT_1: f64 = 0.33;
const VALID_AT_64: f64 = 20.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let role = args.iter().position(|arg| arg.starts_with("--role="));
    if let Some(at) = role {
        match args[at].as_str() {
            "--role=member" => member::run(&args[at + 1..]),
            "--role=floor" => floor::run(&args[at + 1..]),
            "--role=replay" => restart::replay(&args[at + 1..]),
            "--role=core" => bare::rounds_alone(args[at + 1].parse().expect("a number of rounds")),
            other => panic!("no {other}"),
        }
        return ExitCode::SUCCESS;
    }
    let wants = |section: &str| is_chosen("RAFTZ_BENCH_ONLY", section);
    println!("{}", machine_facts());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(workspace_target, PathBuf::from);
    std::fs::create_dir_all(&target).expect("a target directory");
    let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&target).expect("a directory");
    let mut figures = Figures::default();
    let mut is_valid = true;
    // First what is about a disk, on a machine that has not been kept busy for minutes.
    if wants("durable") {
        settle();
        is_valid = durable(dir.path(), &mut figures);
    }
    if wants("core") {
        bare::bench(&mut figures);
    }
    if wants("allocations") {
        allocations::bench(&mut figures);
    }
    if wants("inprocess") {
        inprocess::bench(&mut figures);
    }
    if wants("metrics") {
        measured::bench(&mut figures);
    }
    if wants("memory") {
        compare("memory storage over TCP", Place::Memory, dir.path(), &MEMORY, &mut figures);
    }
    if wants("reads") {
        reads::bench(dir.path(), &mut figures);
    }
    if wants("idle") {
        settle();
        idle::bench(dir.path(), &mut figures);
    }
    if wants("failover") {
        failover::bench(dir.path(), &mut figures);
    }
    if wants("freeze") {
        freeze::bench(&mut figures);
    }
    if wants("restart") {
        settle();
        restart::bench(dir.path(), &mut figures);
    }
    if wants("snapshot") {
        settle();
        laggard::bench(dir.path(), &mut figures);
    }
    figures.print();
    if std::env::var_os("RAFTZ_BENCH_ONLY").is_none() {
        figures.write(&target.join("bench").join("summary.json"));
    }
    if is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets the disk finish what others, such as the build of this program, left it to write.
fn settle() {
    let _ = std::process::Command::new("sync").status();
}

/// Whether a list in the environment names it, or there is no such list.
fn is_chosen(list: &str, name: &str) -> bool {
    std::env::var(list).map_or(true, |list| list.split(',').any(|it| it == name))
}

fn durable(dir: &Path, figures: &mut Figures) -> bool {
    settle();
    let syncs = floor::fdatasync_per_s(dir);
    println!("\nraw fdatasync: {syncs:.0}/s (4 KiB into a zeroed file)");
    figures.set("fdatasync_per_s", Some(syncs));
    let floors = compare("durable, over TCP", Place::Disk, dir, &DURABLE, figures);
    let after = floor::fdatasync_per_s(dir);
    println!("raw fdatasync afterwards: {after:.0}/s");
    let syncs = syncs.min(after);
    let is_valid = floors[0] >= VALID_AT_1 * syncs && floors[2] >= VALID_AT_64 * syncs;
    if !is_valid {
        println!(
            "INVALID FLOOR: {:.0} batches/s at 1 (want {:.0}), {:.0} writes/s at 64 (want {:.0})",
            floors[0],
            VALID_AT_1 * syncs,
            floors[2],
            VALID_AT_64 * syncs
        );
    }
    is_valid
}

/// The floor and raftz in turns, round after round. Gives the floor's writes per second for each load.
fn compare(
    title: &str,
    place: Place,
    dir: &Path,
    loads: &[(usize, usize)],
    figures: &mut Figures,
) -> Vec<f64> {
    let mut floor = floor::Floor::start(place, &dir.join("floor"));
    println!(
        "\n{title}: three processes, counting machine, beside the floor and the key-value store"
    );
    println!(
        "{:>6} {:>6} {:>11} {:>8} {:>8} {:>6} {:>17} {:>11} {:>8} {:>8} {:>7} {:>9}",
        "outst.",
        "bytes",
        "writes/s",
        "p50 µs",
        "p99 µs",
        "MB/s",
        "spread",
        "floor/s",
        "p50 µs",
        "p99 µs",
        "ratio",
        "store/s"
    );
    let (mut floors, mut most) = (Vec::new(), 0.0f64);
    for (outstanding, bytes) in loads.iter().copied() {
        if !is_chosen("RAFTZ_BENCH_LOADS", &outstanding.to_string()) {
            floors.push(f64::INFINITY);
            continue;
        }
        // A cluster for each load, so that none pays for what an earlier one left in memory.
        let dir = dir.join(format!("{outstanding}-{bytes}"));
        let mut raftz = Cluster::start(place, Machine::Counting, &dir.join("raftz"));
        let mut of_floor = figures::Runs::default();
        let mut of_raftz = figures::Runs::default();
        for _ in 0..figures::rounds() {
            of_floor.add(floor.load(outstanding, bytes));
            of_raftz.add(raftz.load(outstanding, bytes));
        }
        most = most.max(raftz.peak_rss_mib());
        drop(raftz);
        let beside = KEY_VALUE.contains(&(outstanding, bytes)).then(|| {
            let mut store = Cluster::start(place, Machine::KeyValue, &dir.join("store"));
            let mut runs = figures::Runs::default();
            (0..3).for_each(|_| runs.add(store.load(outstanding, bytes)));
            runs.writes_per_s()
        });
        let (writes, base) = (of_raftz.writes_per_s(), of_floor.writes_per_s());
        let megabytes = writes * bytes as f64 / 1e6;
        println!(
            "{outstanding:>6} {bytes:>6} {writes:>11.0} {:>8.0} {:>8.0} {megabytes:>6.1} {:>17} {base:>11.0} {:>8.0} {:>8.0} {:>7.3} {:>9}",
            of_raftz.p50_us(),
            of_raftz.p99_us(),
            of_raftz.spread(),
            of_floor.p50_us(),
            of_floor.p99_us(),
            writes / base,
            beside.map_or("-".into(), |writes| format!("{writes:.0}")),
        );
        let kind = if place == Place::Disk { "durable" } else { "memory" };
        if (outstanding, bytes) == (1, 64) {
            let ratio = of_raftz.p50_us() / of_floor.p50_us();
            figures.set(&format!("{kind}_latency_ratio_1"), Some(ratio));
        } else if bytes == 64 {
            let name = format!("{kind}_throughput_ratio_{outstanding}");
            figures.set(&name, Some(writes / base));
        } else {
            figures.set("durable_mb_per_s_64k", Some(megabytes));
        }
        if place == Place::Disk && (outstanding, bytes) == (64, 64) {
            let ratio = of_raftz.p99_us() / of_raftz.p50_us();
            figures.set("durable_p99_over_p50_64", Some(ratio));
            let ratio = of_floor.p99_us() / of_floor.p50_us();
            figures.set("floor_p99_over_p50_64", Some(ratio));
        }
        floors.push(base);
    }
    println!(
        "most memory that a member took under load: {most:.0} MiB, {}; its caps add up to {:.0} MiB",
        if place == Place::Disk { "its log on disk" } else { "its whole log among it" },
        member::caps_mib()
    );
    floors
}

/// Where cargo puts what it builds: above this program.
fn workspace_target() -> PathBuf {
    let program = std::env::current_exe().expect("this program");
    let target = program.ancestors().find(|dir| dir.ends_with("target"));
    target.map_or_else(|| "target".into(), Path::to_path_buf)
}

fn machine_facts() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor")
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cpu}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
