//! Bulk frames on connections of their own: what the system and the wire have taken of a snapshot
//! then stands before no heartbeat.
//!
//! Each direction has its own connection, dialled by the side that sends, to the peer's address, when
//! there is something to send, and closed when nothing has moved for a while. It stands beside a
//! link of the same life and ends with it; it makes no link itself: no `LinkUp` or `LinkDown` is
//! told for it. A peer that is not in the set of peers, or does not know such connections, is sent
//! bulk frames on its link; so is one whose address cannot be reached, for as long as that is so.
//!
//! Invariant: of one peer there are at most one bulk connection dialled here, being set up or
//! carrying frames, and one that it dialled.

use std::collections::VecDeque;

use super::link::{Phase, Ready};
use super::route::{Dial, Route};
use super::{Conn, TcpTransport};
use crate::transport::handshake::{Accepted, Identity, Role};
use crate::transport::{OutFrame, SendError, TransportEvent};
use crate::types::NodeId;

/// So long a bulk frame waits for its connection; others then go on the link until there is one.
const LATE_US: u64 = 1_000_000;

/// The bulk connections of one peer.
#[derive(Debug)]
pub(super) struct Bulk {
    /// The way to the one that is dialled here.
    pub route: Route,
    /// The one that was dialled here, once it carries frames.
    outbound: Option<usize>,
    /// The one that the peer has dialled.
    inbound: Option<usize>,
    /// What waits for the one that is dialled here.
    waiting: VecDeque<OutFrame>,
    waiting_bytes: usize,
    /// Since when something waits.
    waiting_since_us: Option<u64>,
}

impl Bulk {
    /// No connection yet.
    pub(super) const fn new() -> Self {
        Self {
            route: Route::new(),
            outbound: None,
            inbound: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_since_us: None,
        }
    }

    /// Whether a connection should be dialled.
    pub(super) const fn is_wanted(&self) -> bool {
        self.outbound.is_none() && self.waiting_bytes > 0
    }

    /// Keeps a frame for the connection that will be there. One always finds room.
    fn wait(&mut self, frame: OutFrame, bytes_max: usize, now_us: u64) -> Result<(), SendError> {
        self.waiting_since_us.get_or_insert(now_us);
        let bytes = self.waiting_bytes.saturating_add(frame.len());
        if self.waiting_bytes > 0 && bytes > bytes_max {
            return Err(SendError::Full);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(frame);
        Ok(())
    }

    /// Whether what is to be sent has waited in vain for so long that it is better sent on the link: the peer's
    /// address may be one that only the peer itself can be reached from.
    pub(super) fn is_late(&self, now_us: u64) -> bool {
        let waited = self.waiting_since_us.map(|since_us| now_us.saturating_sub(since_us));
        self.outbound.is_none() && waited.is_some_and(|waited_us| waited_us > LATE_US)
    }

    /// Takes what has waited.
    pub(super) fn take_waiting(&mut self) -> VecDeque<OutFrame> {
        self.waiting_bytes = 0;
        self.waiting_since_us = None;
        std::mem::take(&mut self.waiting)
    }

    fn tokens(&self) -> impl Iterator<Item = usize> + use<> {
        let dialling = match self.route.dial {
            Dial::Dialling { token } => Some(token),
            Dial::Waiting { .. } | Dial::Resolving { .. } => None,
        };
        dialling.into_iter().chain(self.outbound).chain(self.inbound)
    }
}

impl TcpTransport {
    /// Who this node is on a connection to `to`.
    pub(super) fn said_on(&self, is_bulk: bool, to: Option<NodeId>) -> Identity {
        let role = if is_bulk { Role::Bulk } else { Role::Peer };
        Identity { role, ..self.identity.addressed_to(to) }
    }

    /// Whether bulk frames to a linked peer travel on a connection of their own.
    pub(super) fn has_bulk(&self, peer: &Accepted) -> bool {
        peer.features & Identity::BULK_CONNECTIONS != 0 && self.is_member(peer.peer.node)
    }

    /// Queues a bulk frame for a linked peer that takes frames of this size.
    pub(super) fn send_bulk(
        &mut self,
        to: NodeId,
        frame: OutFrame,
        now_us: u64,
    ) -> Result<(), SendError> {
        let peer = self.peers.get_mut(&to).ok_or(SendError::NoLink)?;
        let Some(token) = peer.bulk.outbound else {
            return peer.bulk.wait(frame, self.limits.bulk_queue_bytes_max, now_us);
        };
        let conn = self.conns.get_mut(&token).ok_or(SendError::NoLink)?;
        conn.link.send(frame, now_us)?;
        self.mark_dirty(token);
        Ok(())
    }

    /// A bulk connection passed its handshake.
    pub(super) fn establish_bulk(&mut self, token: usize, accepted: Accepted, now_us: u64) {
        let node = accepted.peer.node;
        let Some(conn) = self.conns.get_mut(&token) else { return };
        let ready = Ready { peer: accepted, since_us: now_us, retiring: false };
        conn.link.phase = Phase::Ready(Box::new(ready));
        conn.link.bound_queue(self.limits.bulk_queue_bytes_max);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if conn.link.dialled.is_some() {
            peer.bulk.route.dial = Dial::Waiting { until_us: now_us };
            peer.bulk.outbound = Some(token);
            let waiting = peer.bulk.take_waiting();
            conn.link.send_waiting(waiting.into_iter(), now_us);
            self.mark_dirty(token);
        } else if let Some(old) = peer.bulk.inbound.replace(token) {
            // The peer dialled again because it has lost the old one.
            self.remove(old);
        }
    }

    /// A bulk connection is gone, and with it what it had queued: receivers ask again.
    pub(super) fn bulk_closed(&mut self, token: usize, conn: &Conn, now_us: u64, reason: &str) {
        let ready = conn.link.ready();
        let node = ready.map(|ready| ready.peer.peer.node).or(conn.link.dialled);
        let Some(node) = node else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Bulk { route, outbound, inbound, .. } = &mut peer.bulk;
        if *inbound == Some(token) {
            *inbound = None;
        } else if *outbound == Some(token) {
            *outbound = None;
            route.lost(now_us, ready.map_or(0, |ready| ready.since_us), &mut self.rng);
        }
        if ready.is_some() {
            if !conn.is_ended {
                let detail = format!("the bulk connection with node {node} broke: {reason}");
                self.ready.push(TransportEvent::Trouble { detail });
            }
        } else if route.dial == (Dial::Dialling { token }) {
            // What waits goes on waiting.
            self.attempt_failed(node, true, now_us, format!("{}: {reason}", conn.remote));
        }
    }

    /// The peer's last link is gone: so are its bulk connections, and what waited for them.
    pub(super) fn end_bulk(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let bulk = std::mem::replace(&mut peer.bulk, Bulk::new());
        for token in bulk.tokens() {
            self.remove(token);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bytes::Bytes;

    use super::*;
    use crate::transport::Class;

    fn frame(bytes: usize) -> OutFrame {
        OutFrame { class: Class::Bulk, head: Bytes::from(vec![0; bytes]), payloads: Vec::new() }
    }

    #[test]
    fn what_waits_for_a_connection_is_bounded_and_one_frame_always_finds_room() {
        let mut bulk = Bulk::new();
        assert!(!bulk.is_wanted());
        assert_eq!(bulk.wait(frame(200), 100, 0), Ok(()));
        assert_eq!(bulk.wait(frame(1), 100, 0), Err(SendError::Full));
        assert!(bulk.is_wanted());
        assert_eq!(bulk.take_waiting().len(), 1);
        assert!(!bulk.is_wanted());
        assert_eq!(bulk.wait(frame(60), 100, 0), Ok(()));
        assert_eq!(bulk.wait(frame(40), 100, 0), Ok(()));
        assert_eq!(bulk.wait(frame(1), 100, 0), Err(SendError::Full));
    }
}
