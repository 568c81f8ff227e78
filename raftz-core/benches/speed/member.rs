//! One node in a process of its own, and load on demand: callback proposals, a fixed number outstanding.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{CountingMachine, KvCommand, KvStore, StateMachine};
use raftz_core::node::{Config, Founder, Node, ProposeOptions, StorageKind};
use raftz_core::types::{ClusterId, NodeId, Outcome};

use super::figures::Run;

const CLUSTER: ClusterId = ClusterId(0x0062_656e_6368);
const TIME: Duration = Duration::from_millis(600);

/// A closed loop of proposals.
struct Load {
    node: Node,
    payload: Bytes,
    stop: AtomicBool,
    outstanding: AtomicUsize,
    failed: AtomicUsize,
    nanos: Mutex<Vec<u64>>,
}

fn issue(load: &Arc<Load>) {
    let begun = Instant::now();
    let next = Arc::clone(load);
    let options = ProposeOptions::default();
    let accepted = load.node.propose_with(load.payload.clone(), options, move |outcome| {
        match outcome {
            Outcome::Done(_) => {
                let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                next.nanos.lock().unwrap().push(nanos);
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

/// Puts load on a node for a while: how many writes were done, and how long they took.
pub(crate) fn load(node: Node, outstanding: usize, payload: Bytes) -> (Node, String) {
    let load = Arc::new(Load {
        node,
        payload,
        stop: AtomicBool::new(false),
        outstanding: AtomicUsize::new(outstanding),
        failed: AtomicUsize::new(0),
        nanos: Mutex::new(Vec::with_capacity(1 << 21)),
    });
    for _ in 0..outstanding {
        issue(&load);
    }
    // Warm up, then count.
    std::thread::sleep(TIME / 4);
    load.nanos.lock().unwrap().clear();
    let begun = Instant::now();
    std::thread::sleep(TIME);
    let nanos = std::mem::take(&mut *load.nanos.lock().unwrap());
    let elapsed = begun.elapsed().as_secs_f64();
    load.stop.store(true, Ordering::Relaxed);
    while load.outstanding.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let line = Run::line(nanos, elapsed, load.failed.load(Ordering::Relaxed));
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

/// A command of so many bytes for a machine.
fn payload(machine: &str, bytes: usize) -> Bytes {
    let value = vec![7u8; bytes];
    if machine == "store" {
        KvCommand::Set { key: Bytes::from_static(b"key"), value: value.into() }.encode()
    } else {
        value.into()
    }
}

fn machine(name: &str) -> Box<dyn StateMachine> {
    if name == "store" { Box::<KvStore>::default() } else { Box::<CountingMachine>::default() }
}

/// What a member of three may hold in memory for its work: every cap of its configuration that counts bytes
/// which another one does not count as well.
pub(crate) fn caps_mib() -> f64 {
    let config = Config::new(NodeId::new(1).expect("an id"), CLUSTER);
    let bytes = config.uncommitted_bytes_max
        + config.unapplied_bytes_max
        + config.cache_bytes_max
        + config.held_bytes_max
        + config.calls_bytes_max
        + 2 * config.link_queue_bytes_max;
    bytes as f64 / f64::from(1 << 20)
}

/// The child.
pub(crate) fn run(args: &[String]) {
    let [id, name, storage, address] = args else { panic!("id, machine, storage, address") };
    let listener = TcpListener::bind(address).expect("a loopback port");
    println!("{}", listener.local_addr().expect("bound"));
    let mut lines = std::io::stdin().lines();
    let mut next = move || lines.next().and_then(Result::ok);
    let Some(addresses) = next() else { return };
    let id = NodeId::new(id.parse().expect("a number")).expect("ids start at one");
    let mut config = Config::new(id, CLUSTER);
    config.founders = (1..)
        .zip(addresses.split(' '))
        .map(|(id, address)| Founder { id: NodeId::new(id).expect("id"), address: address.into() })
        .collect();
    config.storage = match storage.as_str() {
        "memory" => StorageKind::Memory,
        directory => StorageKind::Directory(PathBuf::from(directory)),
    };
    if !Node::is_formatted(&config).expect("a directory") {
        Node::bootstrap(&config).expect("an empty directory");
    }
    let made = name.clone();
    let factory = move || Ok(machine(&made));
    let mut node = Node::start_with_listener(config, listener, factory).expect("starts");
    while let Some(line) = next() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["leader"] => {
                let leader = node.wait_for_leader(Duration::from_secs(10)).expect("a leader");
                println!("{leader}");
            }
            ["load", outstanding, bytes] => {
                let payload = payload(name, bytes.parse().unwrap());
                let (back, result) = load(node, outstanding.parse().unwrap(), payload);
                node = back;
                println!("{result}");
            }
            ["write-after", killed] => {
                println!("{}", write_after(&node, killed, payload(name, 64)))
            }
            _ => panic!("unknown request {line:?}"),
        }
    }
    drop(node.shutdown(Duration::from_secs(5)));
}

/// Waits until another node leads than the one that was killed, and until a write is done there.
fn write_after(node: &Node, killed: &str, payload: Bytes) -> &'static str {
    let killed: u64 = killed.parse().expect("an id");
    let patience = Instant::now() + Duration::from_secs(30);
    while Instant::now() < patience {
        let leader = node.status().leader;
        if leader.is_none_or(|leader| leader.get() == killed) {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        }
        if let Outcome::Done(_) = node.propose_blocking(payload.clone(), Duration::from_secs(5)) {
            return "done";
        }
    }
    "nothing"
}
