//! The attack: threads that say wrong things at a bounded rate while it is on.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftz_core::transport::frame::FRAME_VERSION;
use raftz_core::transport::handshake::{HandshakeMessage, Identity};
use raftz_core::types::{Boot, ClusterId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};

use super::wire::{admitted, connect, greet, header, node, right_header, stranger};

pub(super) const IDLE_CONNECTIONS: usize = 10_000;
/// Short visits a second, of all kinds together.
const VISITS_PER_SECOND: u64 = 100;
/// Idle connections opened a second.
const IDLE_PER_SECOND: u64 = 800;
const SLOW_CONNECTIONS: usize = 32;
/// Nodes that send bodies without end, and how fast each does.
const ENDLESS: u64 = 4;
const ENDLESS_BYTES_PER_SECOND: u64 = 4 << 20;
/// Handshakes of members said again.
const REPLAYS_PER_SECOND: u64 = 2;

/// As many descriptors as the system allows.
pub(super) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

struct Shared {
    addresses: Vec<String>,
    leader: usize,
    cluster: ClusterId,
    /// What each member says of itself, as it told a stranger.
    members: Vec<Identity>,
    on: AtomicBool,
    over: AtomicBool,
    visits: AtomicU64,
    replays: AtomicU64,
    endless_bytes: AtomicU64,
    idle: AtomicUsize,
    peak_kib: Vec<AtomicU64>,
}

impl Shared {
    fn to(&self, place: usize) -> raftz_core::types::NodeId {
        node(place as u64 + 1)
    }

    /// Waits for the next turn of something done `per_second`; false when all is over. Turns that
    /// were missed, or fall into a pause, are not made up for.
    fn turn(&self, next: &mut Instant, per_second: u64) -> bool {
        loop {
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            let now = Instant::now();
            if self.on.load(Ordering::Relaxed) && now >= *next {
                *next = (*next + Duration::from_micros(1_000_000 / per_second)).max(now);
                return true;
            }
            let wait = next.saturating_duration_since(now).max(Duration::from_micros(200));
            std::thread::park_timeout(wait.min(Duration::from_millis(10)));
        }
    }
}

/// A prepared attack; off until it begins.
pub(super) struct Attack {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    pub(super) fn prepare(addresses: Vec<String>, leader: usize, pids: Vec<u32>) -> Self {
        let cluster = ClusterId(0x5eed);
        // Anybody who knows the cluster's id is told who listens.
        let ask = |place: usize, address: &String| {
            let mut stream = connect(address).expect("it listens");
            let hello = stranger(cluster, 900, node(place as u64 + 1));
            match greet(&mut stream, &hello) {
                Some(HandshakeMessage::Welcome { identity, .. }) => identity,
                other => panic!("no welcome: {other:?}"),
            }
        };
        let members = addresses.iter().enumerate().map(|(at, address)| ask(at, address)).collect();
        let shared = Arc::new(Shared {
            members,
            addresses,
            leader,
            cluster,
            on: AtomicBool::new(false),
            over: AtomicBool::new(false),
            visits: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            endless_bytes: AtomicU64::new(0),
            idle: AtomicUsize::new(0),
            peak_kib: pids.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let mut threads = Vec::new();
        let mut spawn = |work: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || {
                // On Linux the calling thread's; without effect nothing is lost but calm.
                let _ = setpriority_process(None, 19);
                work(&shared);
            }));
        };
        spawn(Box::new(visit));
        spawn(Box::new(replay));
        spawn(Box::new(hold_idle));
        spawn(Box::new(speak_slowly));
        for n in 0..ENDLESS {
            spawn(Box::new(move |shared| send_without_end(shared, n)));
        }
        spawn(Box::new(move |shared| watch_memory(shared, &pids)));
        Self { shared, threads }
    }

    pub(super) fn begin(&self) {
        self.shared.on.store(true, Ordering::Relaxed);
    }

    pub(super) fn pause(&self) {
        self.shared.on.store(false, Ordering::Relaxed);
    }

    /// Idle connections held at once.
    pub(super) fn idle(&self) -> usize {
        self.shared.idle.load(Ordering::Relaxed)
    }

    /// Idle connections, what was done in words, and the most memory of each process.
    pub(super) fn end(self) -> (usize, String, Vec<u64>) {
        let Self { shared, threads } = self;
        let idle = shared.idle.load(Ordering::Relaxed);
        shared.over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("an attacker's thread");
        }
        let counts = format!(
            "{} visits, {} replayed handshakes, {} KiB of endless bodies",
            shared.visits.load(Ordering::Relaxed),
            shared.replays.load(Ordering::Relaxed),
            shared.endless_bytes.load(Ordering::Relaxed) >> 10
        );
        let peak = shared.peak_kib.iter().map(|kib| kib.load(Ordering::Relaxed)).collect();
        (idle, counts, peak)
    }
}

fn watch_memory(shared: &Shared, pids: &[u32]) {
    while !shared.over.load(Ordering::Relaxed) {
        for (pid, peak) in pids.iter().zip(&shared.peak_kib) {
            peak.fetch_max(super::resident_kib(*pid).unwrap_or(0), Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

// ---- short visits ----

fn visit(shared: &Shared) {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut next = Instant::now();
    let mut n = 0;
    while shared.turn(&mut next, VISITS_PER_SECOND) {
        n += 1;
        // Every other one goes to the leader.
        let place = if n % 2 == 0 { shared.leader } else { n as usize / 2 % 3 };
        // Whoever is refused or cut off has got what it deserves.
        let _ = one_visit(shared, n / 2 % 10, place, &mut rng);
        shared.visits.fetch_add(1, Ordering::Relaxed);
    }
}

fn one_visit(shared: &Shared, kind: u64, place: usize, rng: &mut ChaCha8Rng) -> Option<()> {
    let address = &shared.addresses[place];
    let hello = stranger(shared.cluster, 1000 + kind, shared.to(place));
    let greeting = HandshakeMessage::Hello(hello.clone()).encode();
    let random = |rng: &mut ChaCha8Rng, most: usize| -> Vec<u8> {
        (0..rng.random_range(1..most)).map(|_| rng.random()).collect()
    };
    match kind {
        0 => connect(address)?.write_all(&random(rng, 5000)),
        1 => connect(address)?.write_all(&[b"RFHS", &random(rng, 5000)[..]].concat()),
        2 => connect(address)?.write_all(&greeting[..rng.random_range(1..greeting.len())]),
        3 => {
            let versions = FRAME_VERSION + 1..FRAME_VERSION + 9;
            let newer =
                Identity { version_min: versions.start, version_max: versions.end, ..hello };
            greet(&mut connect(address)?, &newer)?;
            Ok(())
        }
        // A handshake of 64 KiB.
        4 => {
            let mut large = greeting;
            large[6..8].fill(255);
            connect(address)?.write_all(&large)
        }
        5 => {
            let class = rng.random_range(0..4);
            admitted(address, &hello)?.write_all(&right_header(class, u32::MAX))
        }
        6 => {
            let mut stream = admitted(address, &hello)?;
            let header = right_header(1, 10_000);
            stream.write_all(&header[..rng.random_range(1..header.len())])
        }
        7 => admitted(address, &hello)?.write_all(&header(FRAME_VERSION + 1, 0, 10)),
        8 => admitted(address, &hello)?.write_all(&random(rng, 50_000)),
        // A frame before the handshake.
        _ => connect(address)?.write_all(&right_header(1, 100)),
    }
    .ok()
}

// ---- members' handshakes, said again ----

fn replay(shared: &Shared) {
    let mut next = Instant::now();
    let mut n = 0;
    while shared.turn(&mut next, REPLAYS_PER_SECOND) {
        n += 1;
        let victim = (shared.leader + 1 + n % 2) % 3;
        let mut identity = shared.members[victim].addressed_to(Some(shared.to(shared.leader)));
        if n % 3 == 0 {
            // An earlier life.
            identity.boot = Boot(identity.boot.0.saturating_sub(1));
        }
        let stream = admitted(&shared.addresses[shared.leader], &identity);
        shared.replays.fetch_add(u64::from(stream.is_some()), Ordering::Relaxed);
    }
}

// ---- connections that say nothing, little, or too much ----

fn hold_idle(shared: &Shared) {
    const AT_ONCE: u64 = 20;
    let mut held = std::collections::VecDeque::new();
    let mut next = Instant::now();
    while shared.turn(&mut next, IDLE_PER_SECOND / AT_ONCE) {
        held.extend((0..AT_ONCE).filter_map(|_| connect(&shared.addresses[shared.leader])));
        // Once all are there, the oldest make room for new ones: the pressure stays the same.
        while held.len() > IDLE_CONNECTIONS + AT_ONCE as usize {
            held.pop_front();
        }
        shared.idle.store(held.len(), Ordering::Relaxed);
    }
}

fn speak_slowly(shared: &Shared) {
    let address = &shared.addresses[shared.leader];
    let hello = stranger(shared.cluster, 2000, shared.to(shared.leader));
    let greeting = HandshakeMessage::Hello(hello).encode();
    let mut speakers: Vec<(Option<TcpStream>, usize)> =
        (0..SLOW_CONNECTIONS).map(|at| (None, at)).collect();
    let mut next = Instant::now();
    while shared.turn(&mut next, 10) {
        for (stream, said) in &mut speakers {
            let byte = greeting[*said % (greeting.len() - 1)];
            let spoken = stream.as_mut().is_some_and(|stream| stream.write_all(&[byte]).is_ok());
            *said += 1;
            if !spoken {
                (*stream, *said) = (connect(address), 0);
            }
        }
    }
}

/// A frame of the largest size allowed, of which ever more comes, but never the end.
fn send_without_end(shared: &Shared, n: u64) {
    const PIECE: usize = 128 << 10;
    let hello = stranger(shared.cluster, 3000 + n, shared.to(shared.leader));
    let piece = vec![7; PIECE];
    let mut stream: Option<TcpStream> = None;
    let mut next = Instant::now();
    while shared.turn(&mut next, ENDLESS_BYTES_PER_SECOND / PIECE as u64) {
        let written = match &mut stream {
            Some(open) => open.write_all(&piece),
            None => {
                stream = admitted(&shared.addresses[shared.leader], &hello);
                let front = right_header(1, (32 << 20) - 32);
                stream.as_mut().map_or(Ok(()), |open| open.write_all(&front))
            }
        };
        match written {
            Ok(()) => drop(shared.endless_bytes.fetch_add(PIECE as u64, Ordering::Relaxed)),
            Err(_) => stream = None,
        }
    }
}
