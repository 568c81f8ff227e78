//! One node in a process of its own, and what it is asked to do: load (callback proposals, a fixed number
//! outstanding), a steady one beside other things, a state to hold, a snapshot of it.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftz_core::machine::{CountingMachine, KvCommand, KvStore, StateMachine};
use raftz_core::node::{Config, Founder, Node, ProposeOptions, StorageKind};
use raftz_core::types::{ClusterId, Event, Index, NodeId, Outcome, ReadLevel, SnapshotPhase};

use super::figures::Run;
use super::steady::Steady;

const CLUSTER: ClusterId = ClusterId(0x0062_656e_6368);
const TIME: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(90);
/// What a store is filled with at once, and how many such batches are on the way.
const FILL_BYTES: usize = 1 << 20;
const FILLS_AHEAD: usize = 4;

/// What a load consists of.
enum Work {
    Write(Bytes),
    Read(ReadLevel),
}

/// A closed loop of calls.
struct Load {
    node: Arc<Node>,
    work: Work,
    stop: AtomicBool,
    outstanding: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicUsize,
    nanos: Mutex<Vec<u64>>,
}

/// Of the calls outstanding so many are timed: to time each of a million a second is itself a load.
const TIMED: usize = 64;

/// The next call, which begins when the one before has ended, and when that was if it is timed.
fn issue(load: &Arc<Load>, begun: Option<Instant>) {
    let next = Arc::clone(load);
    let ended = move |is_done: bool| {
        let timed = begun.map(|begun| (begun, Instant::now()));
        if !is_done {
            next.failed.fetch_add(1, Ordering::Relaxed);
        } else {
            next.done.fetch_add(1, Ordering::Relaxed);
            if let Some((begun, now)) = timed {
                let nanos = u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX);
                next.nanos.lock().unwrap().push(nanos);
            }
        }
        if next.stop.load(Ordering::Relaxed) {
            next.outstanding.fetch_sub(1, Ordering::Relaxed);
        } else {
            issue(&next, timed.map(|(_, now)| now));
        }
    };
    let is_accepted = match &load.work {
        Work::Write(payload) => {
            let done = move |outcome| ended(matches!(outcome, Outcome::Done(_)));
            load.node.propose_with(payload.clone(), ProposeOptions::default(), done).is_ok()
        }
        Work::Read(level) => {
            load.node.read_with(Bytes::new(), *level, move |answer| ended(answer.is_ok())).is_ok()
        }
    };
    if !is_accepted {
        load.failed.fetch_add(1, Ordering::Relaxed);
        load.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts writes on a node for a while; as [`put`].
pub(crate) fn load(node: Arc<Node>, outstanding: usize, payload: Bytes) -> String {
    put(node, outstanding, Work::Write(payload))
}

/// Puts load on a node for a while: how many calls were done, and how long they took.
fn put(node: Arc<Node>, outstanding: usize, work: Work) -> String {
    let load = Arc::new(Load {
        node,
        work,
        stop: AtomicBool::new(false),
        outstanding: AtomicUsize::new(outstanding),
        done: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
        nanos: Mutex::new(Vec::with_capacity(1 << 21)),
    });
    let every = outstanding.div_ceil(TIMED);
    for nth in 0..outstanding {
        issue(&load, (nth % every == 0).then(Instant::now));
    }
    // Warm up, then count.
    std::thread::sleep(TIME / 4);
    load.nanos.lock().unwrap().clear();
    let (before, begun) = (load.done.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(TIME);
    let done = load.done.load(Ordering::Relaxed) - before;
    let elapsed = begun.elapsed().as_secs_f64();
    let nanos = std::mem::take(&mut *load.nanos.lock().unwrap());
    load.stop.store(true, Ordering::Relaxed);
    while load.outstanding.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let line = Run::line_of(done, nanos, elapsed, load.failed.load(Ordering::Relaxed));
    // The last callback may still hold its reference for a moment, and must not be the one that ends the node.
    while Arc::strong_count(&load) > 1 {
        std::thread::yield_now();
    }
    line
}

/// The command that gives the key of this number a value of so many bytes.
pub(crate) fn set(key: u64, bytes: usize) -> Bytes {
    let value = Bytes::from(vec![key as u8; bytes]);
    KvCommand::Set { key: Bytes::from(format!("key{key:012}")), value }.encode()
}

/// Writes values of so many bytes under these keys, in order.
fn fill(node: &Node, keys: std::ops::Range<u64>, bytes: usize) {
    let step = (FILL_BYTES / bytes).clamp(1, 1000);
    let mut ahead = VecDeque::new();
    let mut commands = keys.map(|key| set(key, bytes)).peekable();
    while commands.peek().is_some() || !ahead.is_empty() {
        let batch: Vec<Bytes> = commands.by_ref().take(step).collect();
        if !batch.is_empty() {
            let options = ProposeOptions { timeout: Some(PATIENCE), ..ProposeOptions::default() };
            ahead.push_back(node.propose_batch(batch, options));
        }
        if (ahead.len() > FILLS_AHEAD || commands.peek().is_none())
            && let Some(oldest) = ahead.pop_front()
        {
            let outcomes: Vec<Outcome> = oldest.wait();
            let refused = outcomes.iter().find(|it| !matches!(it, Outcome::Done(_)));
            assert!(refused.is_none(), "a key was not written: {refused:?}");
        }
    }
}

/// When this node came how far with a snapshot that it fetched.
#[derive(Clone, Copy, Debug, Default)]
struct Fetch {
    bytes: u64,
    fetching: Option<Instant>,
    fetched: Option<Instant>,
    installed: Option<Instant>,
}

impl Fetch {
    fn note(&mut self, event: &Event) {
        let Event::Snapshot { phase, total_bytes, .. } = event else { return };
        let now = Some(Instant::now());
        match phase {
            SnapshotPhase::Fetching if self.fetching.is_none() => self.fetching = now,
            SnapshotPhase::Fetched => (self.fetched, self.bytes) = (now, *total_bytes),
            SnapshotPhase::Installed => self.installed = now,
            SnapshotPhase::Built
            | SnapshotPhase::Sending
            | SnapshotPhase::Sent
            | SnapshotPhase::Fetching
            | SnapshotPhase::Failed => {}
        }
    }

    /// The phase, the bytes, and the seconds that fetching and installing took, as far as it has come.
    fn line(&self) -> String {
        let between = |from: Option<Instant>, to: Option<Instant>| {
            let (from, to) = (from?, to?);
            Some(to.duration_since(from).as_secs_f64())
        };
        let phase = match self {
            Self { installed: Some(_), .. } => "installed",
            Self { fetched: Some(_), .. } => "fetched",
            Self { fetching: Some(_), .. } => "fetching",
            Self { .. } => "none",
        };
        let fetching = between(self.fetching, self.fetched).unwrap_or(0.0);
        let installing = between(self.fetched, self.installed).unwrap_or(0.0);
        format!("{phase} {} {fetching} {installing}", self.bytes)
    }
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
    let [id, name, storage, address, settings @ ..] = args else {
        panic!("id, machine, storage, address, settings")
    };
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
    for setting in settings {
        let (key, value) = setting.split_once('=').expect("a key and a value");
        config.set(key, value).expect("a setting");
    }
    let fetch = Arc::new(Mutex::new(Fetch::default()));
    let noted = Arc::clone(&fetch);
    config.on_event = Some(Arc::new(move |_, event| noted.lock().unwrap().note(event)));
    if !Node::is_formatted(&config).expect("a directory") {
        Node::bootstrap(&config).expect("an empty directory");
    }
    let made = name.clone();
    let factory = move || Ok(machine(&made));
    let begun = Instant::now();
    let node = Node::start_with_listener(config, listener, factory).expect("starts");
    let node = Arc::new(node);
    let mut steady: Option<Steady> = None;
    while let Some(line) = next() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["leader"] => {
                let leader = node.wait_for_leader(Duration::from_secs(10)).expect("a leader");
                println!("{leader}");
            }
            ["load", outstanding, bytes] => {
                let payload = payload(name, bytes.parse().unwrap());
                println!("{}", load(Arc::clone(&node), outstanding.parse().unwrap(), payload));
            }
            ["read", level, outstanding] => {
                let level = match level {
                    "stale" => ReadLevel::Stale,
                    _ => ReadLevel::Linearizable,
                };
                let work = Work::Read(level);
                println!("{}", put(Arc::clone(&node), outstanding.parse().unwrap(), work));
            }
            ["write-after", killed] => {
                println!("{}", write_after(&node, killed, payload(name, 64)))
            }
            ["fill", first, last, bytes] => {
                fill(&node, first.parse().unwrap()..last.parse().unwrap(), bytes.parse().unwrap());
                println!("filled");
            }
            ["steady", writes_per_s] => {
                steady = Some(Steady::start(Arc::clone(&node), writes_per_s.parse().unwrap()));
                println!("steady");
            }
            ["rest"] => {
                steady = None;
                println!("rests");
            }
            ["lap"] => println!("{}", steady.as_ref().expect("a steady load").lap()),
            ["snapshot"] => println!("{}", node.snapshot(PATIENCE).expect("a snapshot").id.bytes),
            ["fetch"] => println!("{}", fetch.lock().unwrap().line()),
            ["status"] => {
                let status = node.status();
                let (base, last) = (status.base.index, status.last.index);
                println!("{} {base} {} {last}", status.term, status.applied);
            }
            ["applied", index] => {
                let index = Index(index.parse().unwrap());
                node.wait_for_applied(index, PATIENCE).expect("it is applied");
                println!("{}", begun.elapsed().as_secs_f64());
            }
            _ => panic!("unknown request {line:?}"),
        }
    }
    drop(steady);
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
