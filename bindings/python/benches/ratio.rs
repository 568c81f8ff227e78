//! What Python costs: the same load on three durable nodes in one process, by turns through the Rust handle and,
//! in another process, through the Python package, with the other process idle meanwhile.
//!
//! Adds `python_future_ratio_256`, `python_many_ratio_256` and `python_aio_ratio_64` to
//! `target/bench/summary.json`.
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
/// The loads of Python's, with how many writes are on their way, and at least how much of the Rust handle's rate.
const LOADS: [(&str, usize, f64); 3] =
    [("future", 256, 0.30), ("many", 256, 0.70), ("aio", 64, 0.15)];

/// A closed loop of proposals.
struct Load {
    node: Arc<Node>,
    stop: AtomicBool,
    done: AtomicU64,
    outstanding: AtomicUsize,
}

fn issue(load: &Arc<Load>) {
    let next = Arc::clone(load);
    let done = move |outcome| {
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        next.done.fetch_add(1, Ordering::Relaxed);
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
        outstanding: AtomicUsize::new(outstanding),
    });
    let begun = Instant::now();
    (0..outstanding).for_each(|_| issue(&load));
    std::thread::sleep(TIME);
    let rate = load.done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    load.stop.store(true, Ordering::Relaxed);
    while load.outstanding.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    rate
}

/// The process with the nodes in Python.
struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    /// If there is an interpreter that can load the package.
    fn start(folder: &Path) -> Option<Self> {
        let python = ["python3", "python3.11", "python3.12", "python3.13"].iter().find(|name| {
            let check = "import sys; sys.exit(sys.version_info < (3, 11))";
            Command::new(name).args(["-c", check]).output().is_ok_and(|out| out.status.success())
        })?;
        // The package as it lies here, with what cargo has built for this benchmark.
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/raftz");
        let copy = folder.join("packages/raftz");
        std::fs::create_dir_all(&copy).unwrap();
        for entry in std::fs::read_dir(package).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "py") {
                std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
            }
        }
        let program = std::env::current_exe().unwrap();
        let library = program.with_file_name("lib_raftz.so");
        let built = if library.exists() {
            library
        } else {
            program.ancestors().nth(2).unwrap().join("lib_raftz.so")
        };
        std::fs::copy(built, copy.join("_raftz.abi3.so")).unwrap();
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load.py"))
            .arg(folder)
            .env("PYTHONPATH", folder.join("packages"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut python = Self { child, stdin, stdout };
        assert_eq!(python.line(), "ready");
        Some(python)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Writes per second through Python.
    fn run(&mut self, load: &str, outstanding: usize) -> f64 {
        writeln!(self.stdin, "{load} {outstanding} {}", TIME.as_secs_f64()).unwrap();
        self.line().parse().expect("a rate")
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
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
    let folder = tempfile::tempdir_in(target()).unwrap();
    let Some(mut python) = Python::start(folder.path()) else {
        println!("NOT RUN: the benchmark of the Python package: no Python of 3.11 or later");
        return ExitCode::SUCCESS;
    };
    let nodes = start(folder.path());
    let leader = nodes[0].wait_for_leader(Duration::from_secs(60)).unwrap();
    let node = &nodes[leader.get() as usize - 1];
    println!("\nthrough Python, three durable nodes in one process, 64 bytes");
    let mut figures = Vec::new();
    for (load, outstanding, target) in LOADS {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(in_rust(node, outstanding));
            ours.push(python.run(load, outstanding));
        }
        let ratio = median(theirs.iter().zip(&ours).map(|(rust, python)| python / rust).collect());
        let (rust, python) = (median(theirs), median(ours));
        let missed = if ratio < target { ", missed" } else { "" };
        println!(
            "{load:6} {outstanding} outstanding: Rust handle {rust:.0} writes/s, Python {python:.0} writes/s, ratio {ratio:.3} (target ≥ {target}{missed})"
        );
        figures.push((format!("python_{load}_ratio_{outstanding}"), ratio));
    }
    python.end();
    add_to_summary(&figures);
    ExitCode::SUCCESS
}
