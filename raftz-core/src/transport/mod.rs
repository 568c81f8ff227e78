//! Moving frames between nodes. A transport knows bytes, links and who may hold one; what a frame
//! says is the codec's business.
//!
//! A transport is owned by one host's event loop and is also where that loop sleeps: [`Transport::poll`]
//! returns when a frame or a link change is there, when its waker was woken, or when time is up.

pub mod codec;
pub mod frame;
pub mod handshake;
pub mod memory;
pub mod tcp;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{Boot, DiskId, NodeId};

/// How urgent a frame is. A link sends control frames before data, and data before bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Elections, heartbeats, acknowledgements.
    Control,
    /// Entries and forwarded proposals.
    Data,
    /// Snapshots; on a connection of their own.
    Bulk,
}

/// One encoded frame to send: the front (header and metadata), then the payloads as they are.
#[derive(Clone, Debug)]
pub struct OutFrame {
    /// Its urgency.
    pub class: Class,
    /// Header and metadata.
    pub head: Bytes,
    /// The raw payloads, in order; never copied.
    pub payloads: Vec<Bytes>,
}

impl OutFrame {
    /// All its bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it has no bytes; no encoded frame is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A received frame, whole and with its header checksum verified; its parts share one buffer.
#[derive(Clone, Debug)]
pub struct InFrame {
    /// The header, metadata and payload bytes, as received.
    pub bytes: Bytes,
}

/// Who is at the other end of a link, proven by the handshake as far as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub disk: DiskId,
    /// Its life.
    pub boot: Boot,
}

/// What a transport reports.
#[derive(Debug)]
pub enum TransportEvent {
    /// A frame arrived.
    Frame {
        /// From this peer.
        from: NodeId,
        /// The frame.
        frame: InFrame,
    },
    /// The first usable link to this life of a peer. Comes before its first frame.
    LinkUp(PeerIdentity),
    /// No usable link to the peer is left. No frame that was handed up before comes again, so a
    /// receiver may forget what it has seen.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// An attempt to reach a peer failed; it goes on trying.
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A node was refused in the handshake.
    Refused {
        /// The id that it claims.
        peer: NodeId,
        /// Its data directory.
        disk: DiskId,
        /// Its stable code, see `transport::handshake::Reject`.
        code: u16,
        /// The whole reason, in words; the refused node is told less.
        reason: String,
    },
    /// Something went wrong that changes nothing about who is linked.
    Trouble {
        /// What, in words.
        detail: String,
    },
    /// A peer refused this node in the handshake; it goes on trying, slowly.
    RefusedBy {
        /// The peer.
        peer: NodeId,
        /// Its stable code, see `transport::handshake::Reject`.
        code: u16,
        /// Why, in its words: printable, but not to be believed.
        reason: String,
        /// The data directory by which the peer knows this node, where that is the reason and the
        /// peer was found at its own address: one that dialled in has not proven who it is.
        known_disk: Option<DiskId>,
    },
}

/// A peer that the transport should keep a link to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// The peer.
    pub node: NodeId,
    /// Where it listens, `host:port`.
    pub address: String,
    /// The only data directory that it may come with, once the membership knows it.
    pub disk: Option<DiskId>,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No usable link to the peer.
    NoLink,
    /// The link's queue is at its bound.
    Full,
    /// The peer accepts no frame of this size; to send it again is useless.
    TooLarge,
}

/// Ends a sleeping [`Transport::poll`] from another thread.
pub trait Wake: Send + Sync {
    /// Makes the present or the next `poll` return at once.
    fn wake(&self);
}

/// Moves frames. Owned and driven by one event loop.
pub trait Transport: Send {
    /// Replaces the set of peers to keep links to; links to others stay while they are useful.
    fn set_peers(&mut self, peers: &[PeerSpec]);

    /// Queues a frame on a usable link to `to`, inbound or outbound. Nothing is promised: the link
    /// may break before it arrives. Written out at the latest in the next [`Transport::poll`].
    ///
    /// Bulk frames may travel beside the link: those of one link keep their order among themselves
    /// and none with others, and may be lost while the link stands.
    fn send(&mut self, to: NodeId, frame: OutFrame) -> Result<(), SendError>;

    /// Writes what is queued, then waits at most `timeout` (for ever if `None`) until something
    /// happens, and appends it to `events`. May return early and empty.
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        events: &mut Vec<TransportEvent>,
    ) -> std::io::Result<()>;

    /// Hands queued bytes to the system now, without waiting.
    fn flush(&mut self);

    /// The waker of this transport's `poll`.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Where it listens, `host:port`, if it listens.
    fn local_address(&self) -> Option<String>;
}
