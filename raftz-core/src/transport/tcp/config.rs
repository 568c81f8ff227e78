//! What a TCP transport is made with, and why it may not be made.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use super::link::LinkLimits;
use super::peer::is_loopback;
use super::resolve::ResolveFn;
use crate::transport::frame::FrameLimits;
use crate::transport::handshake::Identity;

/// Where a transport listens.
#[derive(Debug)]
pub enum Listen {
    /// On `host:port`; port 0 takes any free one.
    Address(String),
    /// On a socket that the caller has bound.
    Bound(TcpListener),
    /// Nowhere: it only dials.
    Nowhere,
}

/// Bounds and intervals. Change them only with a reason: the defaults suit clusters on one machine
/// and across cities.
#[derive(Clone, Copy, Debug)]
pub struct TcpLimits {
    /// Largest frames accepted.
    pub frames: FrameLimits,
    /// Bytes that may wait for one peer before [`SendError::Full`](crate::transport::SendError).
    pub queue_bytes_max: usize,
    /// Connections that have not passed the handshake, at once.
    pub unauthenticated_max: usize,
    /// Nodes outside the set of peers that are linked at once: newcomers, removed members, members
    /// of a later membership than this node knows.
    pub non_members_max: usize,
    /// Bytes of unfinished frames that all of those together may cause to be held. At least the
    /// largest frame that an honest node sends: a later membership's leader may have to.
    pub non_members_bytes_max: usize,
    /// Bytes that may wait for one of those.
    pub non_member_queue_bytes_max: usize,
    /// Time to connect and finish the handshake.
    pub handshake_ms: u64,
    /// Silence after which a link is pinged.
    pub ping_after_ms: u64,
    /// Silence, or time without a byte taken, after which a link is dead.
    pub dead_after_ms: u64,
    /// Bytes of bulk frames that may wait for one peer's bulk connection.
    pub bulk_queue_bytes_max: usize,
    /// Bytes that the system may hold of what is sent on a bulk connection, where it can be asked to.
    pub bulk_send_buffer_bytes: usize,
    /// Time without a byte after which a bulk connection is closed, by the side that dialled it.
    pub bulk_idle_ms: u64,
    /// Bytes read from all members in one turn. A quarter of it is added for their bulk connections,
    /// another one for everybody else.
    pub turn_bytes: usize,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            frames: FrameLimits::default(),
            queue_bytes_max: 64 << 20,
            unauthenticated_max: 64,
            non_members_max: 16,
            non_members_bytes_max: 32 << 20,
            non_member_queue_bytes_max: 1 << 20,
            handshake_ms: 3000,
            ping_after_ms: 2000,
            dead_after_ms: 6000,
            bulk_queue_bytes_max: 1 << 20,
            bulk_send_buffer_bytes: 256 << 10,
            bulk_idle_ms: 10_000,
            turn_bytes: 1 << 20,
        }
    }
}

impl TcpLimits {
    pub(super) const fn of_link(&self) -> LinkLimits {
        LinkLimits {
            frames: self.frames,
            queue_bytes_max: self.queue_bytes_max,
            handshake_us: self.handshake_ms.saturating_mul(1000),
            ping_after_us: self.ping_after_ms.saturating_mul(1000),
            dead_after_us: self.dead_after_ms.saturating_mul(1000),
            bulk_idle_us: self.bulk_idle_ms.saturating_mul(1000),
        }
    }
}

/// What a [`TcpTransport`](super::TcpTransport) is made with.
pub struct TcpConfig {
    /// Who this node is. An `instance` of zero is drawn at random; address and largest frame are
    /// filled in.
    pub identity: Identity,
    /// Where it listens.
    pub listen: Listen,
    /// Allows addresses beyond loopback although nothing is encrypted or authenticated.
    pub insecure_plaintext: bool,
    /// Bounds and intervals.
    pub limits: TcpLimits,
    /// Seeds the jitter of back-off.
    pub seed: u64,
    /// Looks names up, in place of the system's resolver.
    pub resolve: Option<ResolveFn>,
}

impl TcpConfig {
    /// The defaults: loopback only, the system's resolver.
    pub fn new(identity: Identity, listen: Listen) -> Self {
        let limits = TcpLimits::default();
        Self { identity, listen, insecure_plaintext: false, limits, seed: 0, resolve: None }
    }
}

impl std::fmt::Debug for TcpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpConfig")
            .field("identity", &self.identity)
            .field("listen", &self.listen)
            .field("insecure_plaintext", &self.insecure_plaintext)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why a TCP transport could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// Somebody listens there.
    #[error(
        "cannot listen on {address}: the port is in use; stop the other process or choose another \
         port (0 takes any free one)"
    )]
    PortInUse {
        /// The address.
        address: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// An address that others can reach, without encryption.
    #[error(
        "{address} is not a loopback address and the link would be neither encrypted nor \
         authenticated; listen on 127.0.0.1, or set insecure_plaintext = true on a network that \
         you trust"
    )]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// The listen address does not say where.
    #[error("cannot listen on {address:?}: {source}; expected host:port of this machine")]
    BadAddress {
        /// The address.
        address: String,
        /// Why it cannot be used.
        #[source]
        source: io::Error,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {source}")]
    CannotListen {
        /// The address.
        address: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The event queue could not be set up.
    #[error("cannot set up the event queue: {0}; is the limit of open files reached?")]
    EventQueue(#[source] io::Error),
}

/// Binds the listener, or takes the caller's.
pub(super) fn open_listener(
    listen: Listen,
    insecure_plaintext: bool,
) -> Result<Option<mio::net::TcpListener>, TcpError> {
    let listener = match listen {
        Listen::Nowhere => return Ok(None),
        Listen::Address(address) => bind(&address, insecure_plaintext)?,
        Listen::Bound(listener) => {
            let cannot =
                |source| TcpError::CannotListen { address: "a given socket".into(), source };
            let bound = listener.local_addr().map_err(cannot)?;
            check_plaintext(&bound, insecure_plaintext)?;
            listener.set_nonblocking(true).map_err(cannot)?;
            mio::net::TcpListener::from_std(listener)
        }
    };
    Ok(Some(listener))
}

fn bind(address: &str, insecure_plaintext: bool) -> Result<mio::net::TcpListener, TcpError> {
    let bad = |source| TcpError::BadAddress { address: address.to_owned(), source };
    // At construction nobody else waits, so a lookup may block here.
    let mut candidates = address.to_socket_addrs().map_err(bad)?;
    let resolved = candidates
        .next()
        .ok_or_else(|| bad(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))?;
    check_plaintext(&resolved, insecure_plaintext)?;
    // Sets SO_REUSEADDR, so that a restart does not wait for old connections to fade.
    mio::net::TcpListener::bind(resolved).map_err(|source| {
        let address = resolved.to_string();
        if source.kind() == io::ErrorKind::AddrInUse {
            TcpError::PortInUse { address, source }
        } else if source.kind() == io::ErrorKind::AddrNotAvailable {
            TcpError::BadAddress { address, source }
        } else {
            TcpError::CannotListen { address, source }
        }
    })
}

/// Nothing leaves the machine in the clear unless that was asked for.
pub(super) fn check_plaintext(
    address: &SocketAddr,
    insecure_plaintext: bool,
) -> Result<(), TcpError> {
    if insecure_plaintext || is_loopback(address) {
        Ok(())
    } else {
        Err(TcpError::NotLoopback { address: address.to_string() })
    }
}
