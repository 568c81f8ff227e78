//! What the way through C costs: the same load on the same durable cluster, by turns through the Rust handle
//! and through the functions of raftz.h; and how long one call of raftz_propose() takes.
//!
//! Adds `c_throughput_ratio_64` and `c_call_ns` to `target/bench/summary.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::ffi::{CString, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use raftz::bytes::raftz_slice;
use raftz::config::{raftz_config_add_founder, raftz_config_new, raftz_config_set_directory};
use raftz::machine::RAFTZ_BUILTIN_COUNTER;
use raftz::node::{
    raftz_node, raftz_node_bootstrap, raftz_node_free, raftz_node_start,
    raftz_node_wait_for_leader, raftz_start_opts,
};
use raftz::propose::{raftz_outcome, raftz_propose};
use raftz_core::node::ProposeOptions;
use raftz_core::types::Outcome;

const OUTSTANDING: usize = 64;
const TIME: Duration = Duration::from_millis(700);
const ROUNDS: usize = 9;
/// At most so much less through C.
const TARGET: f64 = 0.95;
const PAYLOAD: [u8; 64] = [7; 64];

/// A closed loop of proposals.
struct Load {
    node: usize,
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    outstanding: AtomicUsize,
}

impl Load {
    fn node(&self) -> &raftz_node {
        // SAFETY: the node outlives every load.
        unsafe { &*std::ptr::with_exposed_provenance(self.node) }
    }

    /// Counts an end; whether the loop goes on.
    fn goes_on(&self, is_done: bool) -> bool {
        let counter = if is_done { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

type Issue = fn(&Arc<Load>);

fn issue_rust(load: &Arc<Load>) {
    let next = Arc::clone(load);
    let done = move |outcome| {
        if next.goes_on(matches!(outcome, Outcome::Done(_))) {
            issue_rust(&next);
        } else {
            next.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
    };
    let command = bytes::Bytes::copy_from_slice(&PAYLOAD);
    load.node().rust().propose_with(command, ProposeOptions::default(), done).unwrap();
}

unsafe extern "C" fn c_done(user_data: *mut c_void, outcome: *const raftz_outcome) {
    // SAFETY: made by `issue_c`; called once for each call.
    let load = unsafe { Arc::from_raw(user_data.cast::<Load>().cast_const()) };
    // SAFETY: the library's contract.
    if load.goes_on(unsafe { (*outcome).status } == 0) {
        issue_c(&load);
    } else {
        load.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

fn issue_c(load: &Arc<Load>) {
    let user_data = Arc::into_raw(Arc::clone(load)).cast_mut().cast();
    let command = raftz_slice { data: PAYLOAD.as_ptr(), len: PAYLOAD.len() };
    // SAFETY: everything lives long enough.
    let status = unsafe {
        raftz_propose(
            std::ptr::from_ref(load.node()).cast_mut(),
            command,
            null(),
            Some(c_done),
            user_data,
            null_mut(),
        )
    };
    assert_eq!(status, 0);
}

/// Writes per second.
fn run(node: *const raftz_node, issue: Issue) -> f64 {
    let load = Arc::new(Load {
        node: node.expose_provenance(),
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        outstanding: AtomicUsize::new(OUTSTANDING),
    });
    (0..OUTSTANDING).for_each(|_| issue(&load));
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

/// Nodes of one cluster in this process, over TCP: durable, or one in memory.
fn start(count: u64, directory: Option<&Path>) -> Vec<*mut raftz_node> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<CString> = listeners
        .iter()
        .map(|listener| CString::new(listener.local_addr().unwrap().to_string()).unwrap())
        .collect();
    let begin = |(id, listener): (u64, TcpListener)| {
        let (mut config, mut node) = (null_mut(), null_mut());
        // SAFETY: every pointer is good; what fails is found by the assertions.
        unsafe {
            assert_eq!(raftz_config_new(id, c"be7c".as_ptr(), &raw mut config, null_mut()), 0);
            for (other, address) in (1..).zip(&addresses) {
                assert_eq!(
                    raftz_config_add_founder(config, other, address.as_ptr(), null_mut()),
                    0
                );
            }
            if let Some(directory) = directory {
                let path = directory.join(format!("node-{id}"));
                let path = CString::new(path.to_str().unwrap()).unwrap();
                assert_eq!(raftz_config_set_directory(config, path.as_ptr(), null_mut()), 0);
                assert_eq!(raftz_node_bootstrap(config, null_mut()), 0);
            }
            let opts = raftz_start_opts {
                size: std::mem::size_of::<raftz_start_opts>(),
                builtin: RAFTZ_BUILTIN_COUNTER,
                listen_fd: listener.into_raw_fd(),
                network: null(),
            };
            let started =
                raftz_node_start(config, null(), &raw const opts, &raw mut node, null_mut());
            assert_eq!(started, 0);
            raftz::config::raftz_config_free(config);
        }
        node
    };
    (1..).zip(listeners).map(begin).collect()
}

fn leader(nodes: &[*mut raftz_node]) -> *const raftz_node {
    let mut leader = 0_u64;
    // SAFETY: a running node and a place for the id.
    let found =
        unsafe { raftz_node_wait_for_leader(nodes[0], 10_000, &raw mut leader, null_mut()) };
    assert_eq!(found, 0);
    nodes[leader as usize - 1]
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// Nanoseconds of one call, in bursts on a node that has nothing else to do.
fn call_ns() -> f64 {
    unsafe extern "C" fn count(user_data: *mut c_void, _: *const raftz_outcome) {
        // SAFETY: the counter outlives the node.
        unsafe { &*user_data.cast::<AtomicU64>() }.fetch_add(1, Ordering::Relaxed);
    }
    const BURST: u64 = 1000;
    let nodes = start(1, None);
    let node = leader(&nodes);
    let done = AtomicU64::new(0);
    let user_data = (&raw const done).cast_mut().cast();
    let command = raftz_slice { data: PAYLOAD.as_ptr(), len: PAYLOAD.len() };
    let burst = |round: u64| {
        let begun = Instant::now();
        for _ in 0..BURST {
            // SAFETY: everything lives long enough.
            let status = unsafe {
                raftz_propose(node.cast_mut(), command, null(), Some(count), user_data, null_mut())
            };
            assert_eq!(status, 0);
        }
        let nanos = begun.elapsed().as_nanos() as f64 / BURST as f64;
        while done.load(Ordering::Relaxed) < (round + 1) * BURST {
            std::thread::yield_now();
        }
        nanos
    };
    let nanos = median((0..200).map(burst).collect());
    // SAFETY: not used any more.
    nodes.into_iter().for_each(|node| unsafe { raftz_node_free(node) });
    nanos
}

fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().find(|dir| dir.ends_with("target"));
    target.map_or_else(|| "target".into(), Path::to_path_buf)
}

/// Adds figures to those of the other benchmarks.
fn add_to_summary(figures: &[(&str, f64)]) {
    let path = target().join("bench").join("summary.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
    let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (key, figure) in figures {
        all.insert((*key).to_owned(), (*figure).into());
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
    let nodes = start(3, Some(folder.path()));
    let node = leader(&nodes);
    let (mut rust, mut c) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rust.push(run(node, issue_rust));
        c.push(run(node, issue_c));
    }
    // SAFETY: not used any more.
    nodes.into_iter().for_each(|node| unsafe { raftz_node_free(node) });
    let ratio = median(rust.iter().zip(&c).map(|(rust, c)| c / rust).collect());
    let (rust, c, call_ns) = (median(rust), median(c), call_ns());
    println!("\nthrough C, three durable nodes in one process, {OUTSTANDING} outstanding");
    println!(
        "Rust handle {rust:.0} writes/s, raftz.h {c:.0} writes/s, ratio {ratio:.3} (target ≥ {TARGET})"
    );
    println!("one call of raftz_propose(): {call_ns:.0} ns");
    add_to_summary(&[("c_throughput_ratio_64", ratio), ("c_call_ns", call_ns)]);
    if ratio < TARGET {
        println!("missed")
    }
    ExitCode::SUCCESS
}
