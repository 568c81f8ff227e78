//! What Python costs: the same load on three durable nodes in one process, by turns through the Rust handle and, in
//! another process, through the Python package. The process whose turn it is not is idle. Beside them PySyncObj, which
//! keeps its log in memory, where pip can install it.
//!
//! Adds `python_future_ratio_256`, `python_many_ratio_256` and `python_aio_ratio_64` to `target/bench/summary.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use raftz_core::machine::CountingMachine;
use raftz_core::node::{Config, Node, ProposeOptions};
use raftz_core::types::{ClusterId, NodeId, Outcome};

const TIME: Duration = Duration::from_millis(700);
const ROUNDS: usize = 9;
const PAYLOAD: [u8; 64] = [7; 64];
/// How Python is called, how many writes are on their way, and at least how much of the Rust handle's rate that gives.
const LOADS: [(&str, usize, f64); 3] =
    [("future", 256, 0.30), ("many", 256, 0.70), ("aio", 64, 0.15)];
const PEER: &str = "pysyncobj==0.3.17";

/// A closed loop of proposals.
struct Load {
    node: Arc<Node>,
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    outstanding: AtomicUsize,
}

fn issue(load: &Arc<Load>) {
    let next = Arc::clone(load);
    let done = move |outcome| {
        let is_done = matches!(outcome, Outcome::Done(_));
        let counter = if is_done { &next.done } else { &next.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if next.stop.load(Ordering::Relaxed) {
            next.outstanding.fetch_sub(1, Ordering::Relaxed);
        } else {
            issue(&next);
        }
    };
    let command = bytes::Bytes::copy_from_slice(&PAYLOAD);
    load.node.propose_with(command, ProposeOptions::default(), done).unwrap();
}

/// Writes per second through the Rust handle.
fn in_rust(node: &Arc<Node>, outstanding: usize) -> f64 {
    let load = Arc::new(Load {
        node: Arc::clone(node),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        outstanding: AtomicUsize::new(outstanding),
    });
    (0..outstanding).for_each(|_| issue(&load));
    std::thread::sleep(TIME / 4);
    let (before, begun) = (load.done.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(TIME);
    let done = load.done.load(Ordering::Relaxed) - before;
    let seconds = begun.elapsed().as_secs_f64();
    load.stop.store(true, Ordering::Relaxed);
    while load.outstanding.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(load.failed.load(Ordering::Relaxed), 0, "writes failed");
    done as f64 / seconds
}

/// Three durable nodes of one cluster, over TCP.
fn start(folder: &Path) -> Vec<Arc<Node>> {
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> =
        listeners.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    let begin = |(id, listener): (u64, TcpListener)| {
        let node_id = NodeId::new(id).unwrap();
        let config = Config::new(node_id, ClusterId(0xbe7c));
        let founders = (1..).zip(&addresses);
        let config = founders.fold(config, |config, (other, address)| {
            config.with_founder(NodeId::new(other).unwrap(), address.clone())
        });
        let config = config.with_directory(folder.join(format!("rust-{id}")));
        Node::bootstrap(&config).unwrap();
        let machine = || Ok(Box::<CountingMachine>::default() as _);
        Arc::new(Node::start_with_listener(config, listener, machine).unwrap())
    };
    (1..).zip(listeners).map(begin).collect()
}

/// A program in Python that runs a load whenever a line asks for one, and answers with writes per second.
struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, stdin, stdout };
        (program.line() == "ready").then_some(program)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn run(&mut self, load: &str, outstanding: usize) -> f64 {
        writeln!(self.stdin, "{load} {outstanding} {}", TIME.as_secs_f64()).unwrap();
        self.line().parse().expect("a rate")
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

fn benches() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches")
}

/// A Python that the package can be loaded by.
fn python() -> Option<&'static str> {
    ["python3", "python3.11", "python3.12", "python3.13"].into_iter().find(|name| {
        let check = "import sys; sys.exit(sys.version_info < (3, 11))";
        Command::new(name).args(["-c", check]).output().is_ok_and(|out| out.status.success())
    })
}

/// The package as it lies here, put together in a folder.
fn package(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--release", "-p", "raftz-python", "--target-dir"])
        .arg(target())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "the package cannot be built");
    std::fs::create_dir_all(folder).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/raftz");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "py") {
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    std::fs::copy(target().join("release/lib_raftz.so"), folder.join("_raftz.abi3.so")).unwrap();
}

/// Writes per second of three processes with PySyncObj, if it can be had: as it comes, and with short periods.
fn peer(python: &str, outstanding: usize) -> Option<[f64; 2]> {
    let folder = target().join("bench/peer");
    let pip = folder.join("bin/pip");
    let quietly = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    let is_there = pip.exists() || quietly(Command::new(python).args(["-m", "venv"]).arg(&folder));
    if !is_there || !quietly(Command::new(pip).args(["install", "--quiet", PEER])) {
        return None;
    }
    let rate = |periods: &[&str]| {
        let mut program = Command::new(folder.join("bin/python"));
        program.arg(benches().join("peer.py")).args(periods).stderr(Stdio::null());
        let mut program = Program::start(&mut program)?;
        let rate = median((0..3).map(|_| program.run("future", outstanding)).collect());
        program.end();
        Some(rate)
    };
    Some([rate(&[])?, rate(&["0.001"])?])
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().find(|dir| dir.ends_with("target"));
    target.map_or_else(|| "target".into(), Path::to_path_buf)
}

/// Adds figures to those of the other benchmarks.
fn add_to_summary(figures: &[(String, f64)]) {
    let path = target().join("bench").join("summary.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
    let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (key, figure) in figures {
        all.insert(key.clone(), (*figure).into());
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
    println!("added to {}", path.display());
}

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let Some(python) = python() else {
        println!("NOT RUN: what Python costs: no Python of 3.11 or later");
        return ExitCode::SUCCESS;
    };
    let folder = tempfile::tempdir_in(target()).unwrap();
    let packages = folder.path().join("packages");
    package(&packages.join("raftz"));
    let mut program = Command::new(python);
    program.arg(benches().join("load.py")).arg(folder.path()).env("PYTHONPATH", packages);
    let mut program = Program::start(&mut program).expect("three nodes in Python");
    let nodes = start(folder.path());
    let leader = nodes[0].wait_for_leader(Duration::from_secs(60)).unwrap();
    let node = &nodes[leader.get() as usize - 1];
    println!("\nthrough Python, three durable nodes in one process, {} bytes", PAYLOAD.len());
    let mut figures = Vec::new();
    for (load, outstanding, target) in LOADS {
        let (mut rust, mut python) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rust.push(in_rust(node, outstanding));
            python.push(program.run(load, outstanding));
        }
        let ratio = median(rust.iter().zip(&python).map(|(rust, python)| python / rust).collect());
        let (rust, python) = (median(rust), median(python));
        let missed = if ratio < target { "; missed" } else { "" };
        println!(
            "{load:6} at {outstanding:3} outstanding: Rust handle {rust:.0} writes/s, Python {python:.0} writes/s, ratio {ratio:.3} (target ≥ {target:.2}{missed})"
        );
        figures.push((format!("python_{load}_ratio_{outstanding}"), ratio));
    }
    program.end();
    drop(nodes);
    match peer(python, 256) {
        Some([rate, short]) => println!(
            "beside it {PEER}, its log in memory, three processes, 256 outstanding: {rate:.0} writes/s, {short:.0} with periods of 1 ms"
        ),
        None => println!("NOT RUN: {PEER} beside it: pip cannot install it"),
    }
    add_to_summary(&figures);
    ExitCode::SUCCESS
}
