//! A network that can be made to misbehave: a TCP proxy in front of every node, with a rule for
//! each direction of each pair of nodes.
//!
//! The membership names the proxy's ports, so whoever dials a node reaches its proxy. The first
//! message of the handshake says who dials (ARCHITECTURE.md draws it); from then on the connection's two
//! directions obey the rules of that pair, which may change at any time. What a rule really did is
//! counted, so that a test can tell a fault that happened from one that was only planned.
//!
//! A rule that keeps bytes back and lets them pass later does what TCP makes of lost packets. One
//! that swallows bytes has broken the stream: when it is lifted the connection is reset.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raftz_core::transport::handshake::{HANDSHAKE_BYTES_MAX, HandshakeMessage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use socket2::SockRef;

/// How long a thread waits at most before it looks whether its connection still stands.
const GLANCE: Duration = Duration::from_millis(50);
/// Time for the first message of a connection, and for a connection to a node.
const GREETING: Duration = Duration::from_secs(3);
/// Bytes of a connection's beginning that a duplicate says again.
const REPLAYED_BYTES_MAX: usize = 64 << 10;
/// As small as loopback bears, whose segments have 64 KiB, so that what a writer is ahead of a slow
/// reader is bounded. (A window below a segment makes the system send by its timers alone.)
const SOCKET_BUFFER_BYTES: usize = 256 << 10;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// They pass.
    Pass,
    /// They pass, in order, this much later, and up to as much again when more follow.
    Delay { ms: u64, jitter_ms: u64 },
    /// They are kept, and pass when the rule is lifted: a network that is cut, then heals.
    Keep,
    /// They are gone: nobody listens any more at the other end.
    Swallow,
    /// They pass, one of about so many with a bit flipped.
    Flip { one_of: u32 },
    /// They pass this slowly.
    Slow { bytes_per_s: u64 },
}

/// What really happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) bytes_passed: u64,
    pub(crate) bytes_delayed: u64,
    pub(crate) bytes_kept: u64,
    pub(crate) bytes_swallowed: u64,
    pub(crate) bits_flipped: u64,
    pub(crate) bytes_slowed: u64,
    pub(crate) resets: u64,
    pub(crate) duplicates: u64,
}

#[derive(Default)]
struct Counters {
    bytes_passed: AtomicU64,
    bytes_delayed: AtomicU64,
    bytes_kept: AtomicU64,
    bytes_swallowed: AtomicU64,
    bits_flipped: AtomicU64,
    bytes_slowed: AtomicU64,
    resets: AtomicU64,
    duplicates: AtomicU64,
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// The proxies of a whole cluster. Nodes are named by their ids, from 1.
pub(crate) struct Proxies {
    shared: Arc<Shared>,
    addresses: Vec<String>,
    acceptors: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
    counters: Counters,
    seed: u64,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<(u64, u64), Rule>,
    conns: BTreeMap<u64, Arc<Conn>>,
    next: u64,
}

/// A connection: from the node that dialled to the proxy, and from the proxy to the node meant.
struct Conn {
    dialler: u64,
    target: u64,
    near: TcpStream,
    far: TcpStream,
    far_address: SocketAddr,
    /// What the dialling node said first, for duplicates.
    beginning: Mutex<Vec<u8>>,
    /// Bytes are missing from the stream.
    has_hole: AtomicBool,
    is_over: AtomicBool,
}

/// One direction of a connection.
struct Way {
    from: u64,
    to: u64,
    /// From the node that dialled.
    is_onward: bool,
}

impl Conn {
    const fn way(&self, is_onward: bool) -> Way {
        let (from, to) =
            if is_onward { (self.dialler, self.target) } else { (self.target, self.dialler) };
        Way { from, to, is_onward }
    }
}

impl Proxies {
    /// Proxies in front of nodes that listen on these addresses, in the order of their ids.
    pub(crate) fn new(nodes: &[String], seed: u64) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            counters: Counters::default(),
            seed,
        });
        let mut addresses = Vec::new();
        let mut acceptors = Vec::new();
        for (target, node) in (1..).zip(nodes) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
            addresses.push(listener.local_addr().expect("bound").to_string());
            let far = node.parse().expect("an address");
            let shared = Arc::clone(&shared);
            let accept = move || {
                for near in listener.incoming() {
                    if shared.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    if let Ok(near) = near {
                        spawn("greet", move || shared.greet(near, target, far));
                    }
                }
            };
            acceptors.push(spawn("accept", accept));
        }
        Self { shared, addresses, acceptors }
    }

    /// Where the nodes are to be dialled, in the order of their ids.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// What has happened so far.
    pub(crate) fn happened(&self) -> Happened {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        Happened {
            bytes_passed: read(&counters.bytes_passed),
            bytes_delayed: read(&counters.bytes_delayed),
            bytes_kept: read(&counters.bytes_kept),
            bytes_swallowed: read(&counters.bytes_swallowed),
            bits_flipped: read(&counters.bits_flipped),
            bytes_slowed: read(&counters.bytes_slowed),
            resets: read(&counters.resets),
            duplicates: read(&counters.duplicates),
        }
    }

    /// The rule for what `from` sends to `to`, whoever of the two dialled.
    pub(crate) fn one_way(&self, from: u64, to: u64, rule: Rule) {
        self.shared.change(|rules| {
            rules.insert((from, to), rule);
        });
    }

    /// The rule for both directions of a pair.
    pub(crate) fn both_ways(&self, one: u64, other: u64, rule: Rule) {
        self.shared.change(|rules| {
            rules.insert((one, other), rule);
            rules.insert((other, one), rule);
        });
    }

    /// The rule for both directions between every node of one side and every node of the other.
    pub(crate) fn between(&self, these: &[u64], those: &[u64], rule: Rule) {
        for one in these {
            for other in those {
                self.both_ways(*one, *other, rule);
            }
        }
    }

    /// Everything passes again. Streams with holes are reset.
    pub(crate) fn heal(&self) {
        self.shared.change(BTreeMap::clear);
    }

    /// Resets every connection of a pair; how many there were.
    pub(crate) fn reset(&self, one: u64, other: u64) -> usize {
        let conns = self.shared.conns_of(one, other);
        for conn in &conns {
            self.shared.reset(conn);
        }
        conns.len()
    }

    /// Opens every connection of a pair a second time, from the side that dialled it, and says
    /// again what was said first; how many there were.
    pub(crate) fn duplicate(&self, one: u64, other: u64) -> usize {
        let conns = self.shared.conns_of(one, other);
        let count = conns.len();
        for conn in conns {
            let shared = Arc::clone(&self.shared);
            spawn("again", move || shared.say_again(&conn));
        }
        count
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        for address in &self.addresses {
            // Wakes the acceptor, which then sees that it is over.
            let _ = TcpStream::connect(address);
        }
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(format!("proxy-{name}")).spawn(run).expect("a thread")
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<(u64, u64), Rule>)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state.rules);
        let State { rules, conns, .. } = &*state;
        let swallows = |from, to| rules.get(&(from, to)) == Some(&Rule::Swallow);
        let broken: Vec<Arc<Conn>> = conns
            .values()
            .filter(|conn| {
                conn.has_hole.load(Ordering::SeqCst)
                    && !(swallows(conn.dialler, conn.target) || swallows(conn.target, conn.dialler))
            })
            .cloned()
            .collect();
        drop(state);
        self.changed.notify_all();
        for conn in broken {
            self.reset(&conn);
        }
    }

    fn rule(&self, from: u64, to: u64) -> Rule {
        self.state.lock().unwrap().rules.get(&(from, to)).copied().unwrap_or(Rule::Pass)
    }

    fn conns_of(&self, one: u64, other: u64) -> Vec<Arc<Conn>> {
        let state = self.state.lock().unwrap();
        let of_pair = |conn: &&Arc<Conn>| {
            (conn.dialler, conn.target) == (one, other)
                || (conn.dialler, conn.target) == (other, one)
        };
        state.conns.values().filter(of_pair).cloned().collect()
    }

    fn is_over(&self, conn: &Conn) -> bool {
        conn.is_over.load(Ordering::SeqCst) || self.stopping.load(Ordering::SeqCst)
    }

    /// Ends a connection with a reset on either side: closing a socket that must not linger is
    /// one, and the sockets are closed when both pumps have let go of them.
    fn reset(&self, conn: &Conn) {
        if !conn.is_over.swap(true, Ordering::SeqCst) {
            count(&self.counters.resets, 1);
        }
        for socket in [&conn.near, &conn.far] {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.changed.notify_all();
    }

    /// Takes in a connection for `target`.
    fn greet(self: &Arc<Self>, near: TcpStream, target: u64, far_address: SocketAddr) {
        prepare(&near);
        let Some((dialler, hello)) = self.first_message(&near) else { return };
        let Ok(far) = TcpStream::connect_timeout(&far_address, GREETING) else {
            // As the system does for a port where nobody listens.
            let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
            return;
        };
        prepare(&far);
        let conn = Arc::new(Conn {
            dialler,
            target,
            near,
            far,
            far_address,
            beginning: Mutex::default(),
            has_hole: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let number = {
            let mut state = self.state.lock().unwrap();
            state.next += 1;
            let number = state.next;
            state.conns.insert(number, Arc::clone(&conn));
            number
        };
        let answers = {
            let (shared, conn) = (Arc::clone(self), Arc::clone(&conn));
            spawn("answers", move || shared.pump(&conn, number, false, Vec::new()))
        };
        self.pump(&conn, number, true, hello);
        let _ = answers.join();
        self.state.lock().unwrap().conns.remove(&number);
    }

    /// Reads until the hello is whole: who dials, and the bytes.
    fn first_message(&self, mut near: &TcpStream) -> Option<(u64, Vec<u8>)> {
        let deadline = Instant::now() + GREETING;
        let mut bytes = Vec::new();
        let mut chunk = [0; HANDSHAKE_BYTES_MAX];
        while Instant::now() < deadline && !self.stopping.load(Ordering::SeqCst) {
            match near.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if is_glance(&error) => continue,
                Err(_) => return None,
            }
            if let Some((message, _)) = HandshakeMessage::decode(&bytes).ok()? {
                let HandshakeMessage::Hello(identity) = message else { return None };
                return Some((identity.from?.get(), bytes));
            }
        }
        None
    }

    /// Carries one direction of a connection until it ends. `chunk` was read before.
    fn pump(&self, conn: &Conn, number: u64, is_onward: bool, mut chunk: Vec<u8>) {
        let (mut reader, writer) =
            if is_onward { (&conn.near, &conn.far) } else { (&conn.far, &conn.near) };
        let way = conn.way(is_onward);
        let (from, to) = (way.from, way.to);
        let direction = number.wrapping_mul(2) + u64::from(is_onward);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ direction);
        let mut buffer = vec![0; 16 << 10];
        while !self.is_over(conn) {
            if !chunk.is_empty() {
                if !self.carry(conn, &way, writer, &mut chunk, &mut rng) {
                    break;
                }
                chunk.clear();
                continue;
            }
            // A slow reader takes little at once; what it leaves fills the sender's buffer.
            let most = if let Rule::Slow { bytes_per_s } = self.rule(from, to) {
                slow_piece(bytes_per_s).min(buffer.len())
            } else {
                buffer.len()
            };
            match reader.read(&mut buffer[..most]) {
                Ok(0) => {
                    let _ = writer.shutdown(std::net::Shutdown::Write);
                    return;
                }
                Ok(count) => chunk.extend_from_slice(&buffer[..count]),
                Err(error) if is_glance(&error) => {}
                Err(_) => break,
            }
        }
        // An error on one side is passed on to the other, and ends both directions.
        conn.is_over.store(true, Ordering::SeqCst);
        for socket in [&conn.near, &conn.far] {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Does to a chunk what the rule says; whether the connection goes on.
    fn carry(
        &self,
        conn: &Conn,
        &Way { from, to, is_onward }: &Way,
        writer: &TcpStream,
        chunk: &mut [u8],
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let counters = &self.counters;
        let mut rule = self.rule(from, to);
        if rule == Rule::Keep {
            count(&counters.bytes_kept, chunk.len());
            let mut state = self.state.lock().unwrap();
            while state.rules.get(&(from, to)) == Some(&Rule::Keep) {
                if self.is_over(conn) {
                    return false;
                }
                state = self.changed.wait_timeout(state, GLANCE).unwrap().0;
            }
            drop(state);
            rule = self.rule(from, to);
        }
        match rule {
            Rule::Pass | Rule::Keep => {}
            Rule::Delay { ms, jitter_ms } => {
                count(&counters.bytes_delayed, chunk.len());
                let jitter_ms = u64::from(rng.next_u32()) % (jitter_ms + 1);
                std::thread::sleep(Duration::from_millis(ms + jitter_ms));
            }
            Rule::Swallow => {
                count(&counters.bytes_swallowed, chunk.len());
                conn.has_hole.store(true, Ordering::SeqCst);
                return true;
            }
            Rule::Flip { one_of } => {
                for byte in chunk.iter_mut() {
                    if rng.next_u32().is_multiple_of(one_of) {
                        *byte ^= 1 << (rng.next_u32() % 8);
                        count(&counters.bits_flipped, 1);
                    }
                }
            }
            Rule::Slow { .. } => {
                count(&counters.bytes_slowed, chunk.len());
                std::thread::sleep(GLANCE);
            }
        }
        if conn.has_hole.load(Ordering::SeqCst) {
            self.reset(conn);
            return false;
        }
        if is_onward {
            let mut beginning = conn.beginning.lock().unwrap();
            let room = REPLAYED_BYTES_MAX - beginning.len();
            beginning.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        count(&counters.bytes_passed, chunk.len());
        self.write_all(conn, writer, chunk)
    }

    fn write_all(&self, conn: &Conn, mut writer: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match writer.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_glance(&error) && !self.is_over(conn) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// A second connection that says what the first one said, and then nothing more.
    fn say_again(&self, conn: &Conn) {
        let beginning = conn.beginning.lock().unwrap().clone();
        let Ok(mut again) = TcpStream::connect_timeout(&conn.far_address, GREETING) else { return };
        prepare(&again);
        if again.write_all(&beginning).is_err() {
            return;
        }
        count(&self.counters.duplicates, 1);
        let deadline = Instant::now() + GREETING;
        let mut answers = [0; 4096];
        while Instant::now() < deadline && !self.stopping.load(Ordering::SeqCst) {
            match again.read(&mut answers) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_glance(&error) => {}
                Err(_) => return,
            }
        }
    }
}

fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = socket.set_read_timeout(Some(GLANCE));
    let _ = socket.set_write_timeout(Some(GLANCE));
    let _ = SockRef::from(socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = SockRef::from(socket).set_send_buffer_size(SOCKET_BUFFER_BYTES);
}

/// What a slow reader takes in one [`GLANCE`].
fn slow_piece(bytes_per_s: u64) -> usize {
    (bytes_per_s * GLANCE.as_millis() as u64 / 1000).max(1) as usize
}

fn is_glance(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
