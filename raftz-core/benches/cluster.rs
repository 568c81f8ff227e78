//! Three real processes over loopback TCP, durable and in memory.
//!
//! The parent starts three copies of this program, each with one node and the counting machine, and
//! asks the leader's process for load: callback proposals, a fixed number outstanding. Every durable
//! figure stands beside the raw rate of fdatasync on the same disk, without which it says nothing.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
#![allow(missing_docs)]

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::CountingMachine;
use raftz_core::node::{Config, Founder, Node, ProposeOptions, StorageKind};
use raftz_core::types::{ClusterId, NodeId, Outcome};

const CLUSTER: ClusterId = ClusterId(0x0062_656e_6368);

// ---- the child: one node, and load on demand ----

struct Load {
    node: Node,
    payload: Bytes,
    stop: AtomicBool,
    outstanding: AtomicUsize,
    failed: AtomicUsize,
    micros: Mutex<Vec<u32>>,
}

fn issue(load: &Arc<Load>) {
    let begun = Instant::now();
    let next = Arc::clone(load);
    let accepted =
        load.node.propose_with(load.payload.clone(), ProposeOptions::default(), move |outcome| {
            match outcome {
                Outcome::Done(_) => {
                    let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                    next.micros.lock().unwrap().push(micros);
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => {
                    next.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            if next.stop.load(Ordering::Relaxed) {
                next.outstanding.fetch_sub(1, Ordering::Relaxed);
            } else {
                issue(&next);
            }
        });
    if accepted.is_err() {
        load.failed.fetch_add(1, Ordering::Relaxed);
        load.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run_load(node: Node, outstanding: usize, bytes: usize, time: Duration) -> (Node, String) {
    let load = Arc::new(Load {
        node,
        payload: Bytes::from(vec![7u8; bytes]),
        stop: AtomicBool::new(false),
        outstanding: AtomicUsize::new(outstanding),
        failed: AtomicUsize::new(0),
        micros: Mutex::new(Vec::with_capacity(1 << 20)),
    });
    for _ in 0..outstanding {
        issue(&load);
    }
    // Warm up, then count.
    std::thread::sleep(time / 4);
    load.micros.lock().unwrap().clear();
    let begun = Instant::now();
    std::thread::sleep(time);
    let mut micros = std::mem::take(&mut *load.micros.lock().unwrap());
    let elapsed = begun.elapsed().as_secs_f64();
    load.stop.store(true, Ordering::Relaxed);
    while load.outstanding.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let failed = load.failed.load(Ordering::Relaxed);
    micros.sort_unstable();
    let at = |part: f64| micros.get((micros.len() as f64 * part) as usize).copied().unwrap_or(0);
    let line = format!("{} {} {} {failed}", micros.len() as f64 / elapsed, at(0.5), at(0.99));
    let load = loop {
        // The last callback may still hold its reference for a moment.
        if Arc::strong_count(&load) == 1 {
            break load;
        }
        std::thread::yield_now();
    };
    let Ok(load) = Arc::try_unwrap(load) else { panic!("the load is still in use") };
    (load.node, line)
}

fn child(id: u64, storage: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    println!("{}", listener.local_addr().expect("bound"));
    let mut lines = std::io::stdin().lines();
    let mut next = move || lines.next().and_then(Result::ok);
    let Some(addresses) = next() else { return };
    let id = NodeId::new(id).expect("ids start at one");
    let mut config = Config::new(id, CLUSTER);
    config.founders = (1..)
        .zip(addresses.split(' '))
        .map(|(id, address)| Founder { id: NodeId::new(id).expect("id"), address: address.into() })
        .collect();
    config.storage = match storage {
        "memory" => StorageKind::Memory,
        directory => StorageKind::Directory(PathBuf::from(directory)),
    };
    Node::bootstrap(&config).expect("an empty directory");
    let machine = || Ok(Box::new(CountingMachine::default()) as _);
    let mut node = Node::start_with_listener(config, listener, machine).expect("starts");
    while let Some(line) = next() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["leader"] => {
                let leader = node.wait_for_leader(Duration::from_secs(10)).expect("a leader");
                println!("{leader}");
            }
            ["load", outstanding, bytes, millis] => {
                let time = Duration::from_millis(millis.parse().unwrap());
                let (back, result) =
                    run_load(node, outstanding.parse().unwrap(), bytes.parse().unwrap(), time);
                node = back;
                println!("{result}");
            }
            _ => panic!("unknown request {line:?}"),
        }
    }
    drop(node.shutdown(Duration::from_secs(5)));
}

// ---- the parent ----

struct Member {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Member {
    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    fn hear(&mut self) -> String {
        self.output.next().expect("the child answers").expect("text")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(storage: impl Fn(u64) -> String) -> (Vec<Member>, usize) {
    let program = std::env::current_exe().expect("this program");
    let mut members: Vec<Member> = (1..=3)
        .map(|id| {
            let mut process = Command::new(&program)
                .args(["--child", &id.to_string(), &storage(id)])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a child process");
            let input = process.stdin.take().expect("piped");
            let output = BufReader::new(process.stdout.take().expect("piped")).lines();
            Member { process, input, output }
        })
        .collect();
    let addresses: Vec<String> = members.iter_mut().map(Member::hear).collect();
    for member in &mut members {
        member.say(&addresses.join(" "));
    }
    members[0].say("leader");
    let leader: usize = members[0].hear().parse().expect("an id");
    (members, leader - 1)
}

/// Syncs a second of 4 KiB writes into a file that is already full of zeros.
fn fdatasync_per_s(dir: &Path) -> f64 {
    let file = File::create(dir.join("probe")).expect("a file");
    let block = vec![0u8; 4096];
    let blocks = 4096;
    for at in 0..blocks {
        file.write_all_at(&block, at * 4096).expect("writes");
    }
    file.sync_all().expect("syncs");
    let begun = Instant::now();
    let mut count = 0u64;
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&block, (count % blocks) * 4096).expect("writes");
        file.sync_data().expect("syncs");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
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

fn table(title: &str, members: &mut [Member], leader: usize, loads: &[(usize, usize)]) {
    println!("\n{title}");
    println!(
        "{:>12} {:>9} {:>12} {:>9} {:>9} {:>9}  spread",
        "outstanding", "bytes", "writes/s", "MB/s", "p50 µs", "p99 µs"
    );
    for (outstanding, bytes) in loads {
        let mut runs: Vec<Vec<f64>> = (0..3)
            .map(|_| {
                members[leader].say(&format!("load {outstanding} {bytes} 800"));
                let line = members[leader].hear();
                line.split(' ').map(|word| word.parse().expect("a number")).collect()
            })
            .collect();
        runs.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let (low, mid, high) = (&runs[0], &runs[1], &runs[2]);
        let megabytes = mid[0] * *bytes as f64 / 1e6;
        println!(
            "{outstanding:>12} {bytes:>9} {:>12.0} {megabytes:>9.1} {:>9} {:>9}  [{:.0}–{:.0}]{}",
            mid[0],
            mid[1],
            mid[2],
            low[0],
            high[0],
            if runs.iter().any(|run| run[3] > 0.0) { "  some refused" } else { "" }
        );
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--child") {
        return child(args[at + 1].parse().expect("an id"), &args[at + 2]);
    }
    println!("three processes on loopback, counting machine; {}", machine_facts());
    let loads = [(1, 64), (64, 64), (256, 64), (1024, 64), (64, 1024), (64, 65536)];
    {
        let (mut members, leader) = start(|_| "memory".into());
        table("memory storage over TCP", &mut members, leader, &loads);
    }
    let root = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let dir = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(if root.is_dir() { root } else { std::env::temp_dir() })
        .expect("a directory");
    println!("\nraw fdatasync: {:.0}/s (4 KiB into a zeroed file)", fdatasync_per_s(dir.path()));
    let (mut members, leader) = start(|id| dir.path().join(id.to_string()).display().to_string());
    table("durable, over TCP", &mut members, leader, &loads);
}
