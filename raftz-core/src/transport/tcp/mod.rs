//! The transport over TCP: one event queue, one listener, some links; no thread but short-lived
//! ones that look names up.
//!
//! This file performs what the state machines decide: `link` carries one connection, `peer`
//! and `route` say when to dial and which of two links to keep, `queue` orders what is written. `links`
//! judges handshakes and keeps the one account of who is reachable, from which `LinkUp` and
//! `LinkDown` are told in pairs. `accept` takes connections in and `read` their bytes, both within
//! bounds that hold whoever connects and whatever it sends. `bulk` gives bulk frames connections of
//! their own beside the links.
//!
//! Sockets are written only by `send` and `sendmsg` with MSG_NOSIGNAL, because a host written in C may not
//! ignore SIGPIPE.

mod accept;
mod bulk;
mod config;
mod dial;
mod link;
mod links;
mod peer;
mod queue;
mod read;
mod resolve;
mod route;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use litemap::LiteMap;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

pub use config::{Listen, TcpConfig, TcpError, TcpLimits};
pub use resolve::ResolveFn;

use super::handshake::Identity;
use super::{Class, InFrame, OutFrame, PeerSpec, SendError, Transport, TransportEvent, Wake};
use crate::types::NodeId;
use link::{Link, LinkError};
use peer::Peer;
use read::Unread;
use resolve::Resolver;

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_LINK: usize = 2;
/// Bytes read at once into the buffer that all links share.
const SCRATCH_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 256;

/// Moves frames over TCP. See [`Transport`] for the contract.
pub struct TcpTransport {
    identity: Identity,
    insecure_plaintext: bool,
    limits: TcpLimits,
    poll: Poll,
    events: Events,
    waker: Arc<TcpWaker>,
    listener: Option<TcpListener>,
    local_address: Option<String>,
    /// More connections may be waiting to be accepted.
    accept_more: bool,
    /// Nothing is accepted before this.
    accept_after_us: u64,
    conns: LiteMap<usize, Conn>,
    next_token: usize,
    unauthenticated: usize,
    peers: LiteMap<NodeId, Peer>,
    resolver: Resolver,
    rng: ChaCha8Rng,
    started: Instant,
    /// Links with something to write.
    dirty: Vec<usize>,
    /// Links with something left to read.
    unread: Unread,
    /// What is to be reported by the next `poll`.
    ready: Vec<TransportEvent>,
    scratch: Vec<u8>,
    /// Frames between a link and `ready`, and the links that the event queue names: kept for their room.
    frames: Vec<InFrame>,
    named: Vec<(usize, bool)>,
}

/// A link and its socket.
struct Conn {
    stream: TcpStream,
    link: Link,
    remote: SocketAddr,
    readable: bool,
    writable: bool,
    /// The system has told that the other side writes no more: what is left must be read to its end.
    is_closing: bool,
    /// Its token stands in the list of links with something to write.
    is_dirty: bool,
    /// Its token stands in one of the rings of links with something to read.
    is_unread: bool,
    /// The other side has written its last byte.
    is_ended: bool,
    /// Its write side was shut down, after a retired link had written its last frame.
    is_shut: bool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        // A child that was forked meanwhile shares the connection: to close it here alone would leave the other side
        // in the belief that somebody is there.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

struct TcpWaker(mio::Waker);

impl Wake for TcpWaker {
    fn wake(&self) {
        // Fails only if the event queue is broken, which `poll` reports.
        let _ = self.0.wake();
    }
}

impl std::fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpTransport")
            .field("identity", &self.identity)
            .field("local_address", &self.local_address)
            .field("links", &self.conns.len())
            .finish_non_exhaustive()
    }
}

impl TcpTransport {
    /// Binds and listens. Nothing is dialled before [`Transport::set_peers`].
    #[allow(clippy::disallowed_methods, reason = "a transport lives in real time")]
    pub fn new(config: TcpConfig) -> Result<Self, TcpError> {
        let poll = Poll::new().map_err(TcpError::EventQueue)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(TcpError::EventQueue)?;
        let waker = Arc::new(TcpWaker(waker));
        let mut listener = config::open_listener(config.listen, config.insecure_plaintext)?;
        let mut local_address = None;
        if let Some(listener) = &mut listener {
            poll.registry()
                .register(listener, LISTENER, Interest::READABLE)
                .map_err(TcpError::EventQueue)?;
            let address = listener.local_addr().map_err(TcpError::EventQueue)?;
            local_address = Some(address.to_string());
        }
        let mut identity = config.identity;
        if identity.instance == 0 {
            // Not from the seed: two processes with one configuration must differ here.
            identity.instance = rand::random_range(1..=u64::MAX);
        }
        identity.features |= Identity::BULK_CONNECTIONS;
        let mut limits = config.limits;
        let largest = limits.frames.largest();
        // One frame of any size must always find room.
        limits.non_members_bytes_max = limits.non_members_bytes_max.max(largest);
        identity.frame_bytes_max = u32::try_from(largest).unwrap_or(u32::MAX);
        identity.address = local_address.clone().unwrap_or_default();
        let resolver = Resolver::new(config.resolve, Arc::clone(&waker) as Arc<dyn Wake>);
        Ok(Self {
            identity,
            insecure_plaintext: config.insecure_plaintext,
            limits,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            waker,
            accept_more: listener.is_some(),
            listener,
            local_address,
            accept_after_us: 0,
            conns: LiteMap::new(),
            next_token: FIRST_LINK,
            unauthenticated: 0,
            peers: LiteMap::new(),
            resolver,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            started: Instant::now(),
            dirty: Vec::new(),
            unread: Unread::default(),
            ready: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            frames: Vec::new(),
            named: Vec::new(),
        })
    }

    /// Microseconds since the transport was made.
    #[allow(clippy::disallowed_methods, reason = "a transport lives in real time")]
    fn now_us(&self) -> u64 {
        u64::try_from(Instant::now().duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes a socket in; returns its token.
    fn add_conn(
        &mut self,
        mut stream: TcpStream,
        link: Link,
        remote: SocketAddr,
    ) -> io::Result<usize> {
        let token = self.next_token;
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(token), interest)?;
        if link.is_unauthenticated() {
            self.unauthenticated += 1;
        }
        let conn = Conn {
            stream,
            link,
            remote,
            readable: false,
            writable: false,
            is_closing: false,
            is_dirty: false,
            is_unread: false,
            is_ended: false,
            is_shut: false,
        };
        self.conns.insert(token, conn);
        Ok(token)
    }

    fn mark_dirty(&mut self, token: usize) {
        if let Some(conn) = self.conns.get_mut(&token)
            && !conn.is_dirty
        {
            conn.is_dirty = true;
            self.dirty.push(token);
        }
    }

    /// Writes what the links have queued.
    fn write_dirty(&mut self, now_us: u64) {
        let mut at = 0;
        // Closing a link may queue something on another one.
        while let Some(token) = self.dirty.get(at).copied() {
            at += 1;
            if let Some(conn) = self.conns.get_mut(&token) {
                conn.is_dirty = false;
                self.write(token, now_us);
            }
        }
        self.dirty.clear();
    }

    fn write(&mut self, token: usize, now_us: u64) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        if conn.writable && conn.link.wants_write() {
            let Conn { stream, link, writable, .. } = conn;
            let result = link.write(now_us, |pieces| {
                let sent = match pieces {
                    [piece] => send(&*stream, piece, SendFlags::NOSIGNAL),
                    _ => {
                        let mut control = SendAncillaryBuffer::default();
                        sendmsg(&*stream, pieces, &mut control, SendFlags::NOSIGNAL)
                    }
                };
                if sent == Err(Errno::AGAIN) {
                    *writable = false;
                }
                sent.map_err(io::Error::from)
            });
            if let Err(error) = result {
                self.close(token, now_us, &format!("writing failed: {error}"));
                return;
            }
        }
        self.finish_written(token, now_us);
    }

    /// Pings, deaths and dials that are due.
    fn tick(&mut self, now_us: u64) {
        self.take_resolved(now_us);
        if self.next_due_us() > now_us {
            return;
        }
        let due: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.link.next_deadline_us() <= now_us)
            .map(|(token, _)| *token)
            .collect();
        for token in due {
            let Some(conn) = self.conns.get_mut(&token) else { continue };
            if conn.is_unread {
                // What waits to be read is a sign of life.
                conn.link.hear(now_us);
            }
            match conn.link.tick(now_us) {
                Ok(()) => self.mark_dirty(token),
                Err(error) => {
                    // The end of an idle bulk connection is as good as if the peer had closed it.
                    conn.is_ended |=
                        matches!(error, LinkError::Idle(_)) && !conn.link.wants_write();
                    self.close(token, now_us, &error.to_string());
                }
            }
        }
        self.dial_due(now_us);
    }

    /// When the links, the peers and the listener next want something done; `u64::MAX`: never.
    fn next_due_us(&self) -> u64 {
        let mut due_us = if self.accept_more { self.accept_after_us } else { u64::MAX };
        for conn in self.conns.values() {
            due_us = due_us.min(conn.link.next_deadline_us());
        }
        for peer in self.peers.values() {
            due_us = due_us.min(peer.next_deadline_us().unwrap_or(u64::MAX));
        }
        due_us
    }

    /// How long the event queue may be waited for.
    fn wait(&self, timeout: Option<Duration>, now_us: u64) -> Option<Duration> {
        if !self.ready.is_empty() || !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let due_us = self.next_due_us();
        if due_us == u64::MAX {
            return timeout;
        }
        let own = Duration::from_micros(due_us.saturating_sub(now_us));
        Some(timeout.map_or(own, |timeout| timeout.min(own)))
    }
}

impl Transport for TcpTransport {
    fn set_peers(&mut self, peers: &[PeerSpec]) {
        let now_us = self.now_us();
        self.update_peers(peers, now_us);
    }

    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError> {
        let token = self.peers.get(&to).and_then(|peer| peer.active).ok_or(SendError::NoLink)?;
        let now_us = self.now_us();
        if frame.class == Class::Bulk
            && let Some(ready) = self.conns.get(&token).and_then(|conn| conn.link.ready())
            && self.has_bulk(&ready.peer)
            && !self.peers.get(&to).is_some_and(|peer| peer.bulk.is_late(now_us))
        {
            if frame.len() > ready.peer.frame_bytes_max {
                return Err(SendError::TooLarge);
            }
            return self.send_bulk(to, frame, now_us);
        }
        let conn = self.conns.get_mut(&token).ok_or(SendError::NoLink)?;
        conn.link.send(frame, now_us)?;
        self.mark_dirty(token);
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> io::Result<()> {
        let now_us = self.now_us();
        self.write_dirty(now_us);
        let wait = self.wait(timeout, now_us);
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let now_us = self.now_us();
        let mut named = std::mem::take(&mut self.named);
        for event in &self.events {
            let token = event.token();
            if token == LISTENER {
                self.accept_more = true;
            } else if let Some(conn) = self.conns.get_mut(&token.0) {
                let closes = event.is_read_closed() || event.is_error();
                conn.readable |= event.is_readable() || closes;
                conn.is_closing |= closes;
                let writes = event.is_writable() || event.is_write_closed() || event.is_error();
                conn.writable |= writes;
                named.push((token.0, writes));
            }
        }
        for (token, writes) in named.drain(..) {
            if writes {
                self.check_connected(token, now_us);
                self.mark_dirty(token);
            }
            self.note_unread(token);
        }
        self.named = named;
        self.read_turn(now_us);
        self.accept(now_us);
        // Deaths are judged after reading and writing: were this thread itself held up, what lies
        // in the sockets by now, and what they take, shows that the peers are alive.
        self.write_dirty(now_us);
        self.tick(now_us);
        self.write_dirty(now_us);
        events.append(&mut self.ready);
        Ok(())
    }

    fn flush(&mut self) {
        let now_us = self.now_us();
        self.write_dirty(now_us);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn local_address(&self) -> Option<String> {
        self.local_address.clone()
    }
}
