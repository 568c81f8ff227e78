//! The account of links: handshakes judged, two links of one pair settled, ends told.
//!
//! Invariant: between a `LinkUp` and the next one of the same peer there is exactly one `LinkDown`,
//! and `Peer::up` is set exactly between the two. A peer is up while at least one link to its life
//! carries frames and is not retiring; `Peer::active` is that link. Bulk connections, which are links of
//! another kind, count for nothing here and end with the last link (see `bulk`).

use std::net::Shutdown;

use super::link::{Phase, Ready};
use super::peer::{Peer, Up};
use super::route::Dial;
use super::{TcpLimits, TcpTransport};
use crate::transport::TransportEvent;
use crate::transport::handshake::{
    Accepted, HandshakeMessage, Identity, Known, Refused, Reject, Role, judge, keeps_new,
};
use crate::types::NodeId;

impl TcpTransport {
    /// Answers one handshake message; an error closes the link.
    pub(super) fn handshake(
        &mut self,
        token: usize,
        message: HandshakeMessage,
        now_us: u64,
    ) -> Result<(), String> {
        let Some(conn) = self.conns.get_mut(&token) else { return Ok(()) };
        let phase = std::mem::replace(&mut conn.link.phase, Phase::Closing);
        match (phase, message) {
            (Phase::AwaitHello, HandshakeMessage::Hello(remote)) => {
                self.on_hello(token, remote, now_us);
                Ok(())
            }
            (Phase::AwaitWelcome, HandshakeMessage::Welcome { version, identity }) => {
                self.on_welcome(token, version, identity, now_us);
                Ok(())
            }
            (Phase::AwaitConfirm(remote), HandshakeMessage::Confirm) => {
                // The world may have changed since the welcome: judged again.
                match self.verdict(&remote, None) {
                    Ok(accepted) => {
                        self.unauthenticated = self.unauthenticated.saturating_sub(1);
                        self.establish(token, accepted, now_us);
                        Ok(())
                    }
                    Err(refused) => Err(refused.words),
                }
            }
            // The peer wants its link, or it would be gone; only its bulk connection is missing.
            (Phase::AwaitWelcome | Phase::AwaitConfirm(_), HandshakeMessage::Reject(reject))
                if conn.link.is_bulk =>
            {
                Err(format!("refused by the peer: {reject}"))
            }
            (Phase::AwaitWelcome, HandshakeMessage::Reject(reject)) => {
                let dialled = self.conns.get(&token).and_then(|conn| conn.link.dialled);
                if let Some(peer) = dialled {
                    self.on_rejected(peer, reject, true, now_us);
                }
                Err("refused by the peer".into())
            }
            (Phase::AwaitConfirm(remote), HandshakeMessage::Reject(reject)) => {
                // Whoever dials may claim any id; only what a wanted peer says is worth telling.
                if let Some(peer) = remote.from
                    && self.peers.get(&peer).is_some_and(|peer| peer.spec.is_some())
                {
                    self.on_rejected(peer, reject, false, now_us);
                }
                Err("refused by the peer".into())
            }
            (
                Phase::Connecting
                | Phase::AwaitWelcome
                | Phase::AwaitHello
                | Phase::AwaitConfirm(_)
                | Phase::Ready(_)
                | Phase::Closing,
                HandshakeMessage::Hello(_)
                | HandshakeMessage::Welcome { .. }
                | HandshakeMessage::Reject(_)
                | HandshakeMessage::Confirm,
            ) => Err("a handshake message out of turn".into()),
        }
    }

    fn on_hello(&mut self, token: usize, remote: Identity, now_us: u64) {
        let verdict = self.verdict(&remote, None);
        let Some(conn) = self.conns.get_mut(&token) else { return };
        match verdict {
            Ok(accepted) => {
                conn.link.is_bulk = remote.role == Role::Bulk;
                let is_bulk = conn.link.is_bulk;
                let identity = self.said_on(is_bulk, remote.from);
                let Some(conn) = self.conns.get_mut(&token) else { return };
                let welcome = HandshakeMessage::Welcome { version: accepted.version, identity };
                conn.link.say(&welcome, now_us);
                conn.link.phase = Phase::AwaitConfirm(Box::new(remote));
            }
            Err(refused) => self.refuse(token, &remote, refused, now_us),
        }
    }

    fn on_welcome(&mut self, token: usize, version: u16, remote: Identity, now_us: u64) {
        let Some(conn) = self.conns.get(&token) else { return };
        let (dialled, is_bulk) = (conn.link.dialled, conn.link.is_bulk);
        let verdict = self.verdict(&remote, dialled).and_then(|accepted| {
            if accepted.version != version {
                let words = format!(
                    "version {version} was chosen where {} is the highest in common",
                    accepted.version
                );
                return Err(Refused::alike(Reject::MALFORMED, words));
            }
            if (remote.role == Role::Bulk) != is_bulk {
                let words = "the welcome is for a connection of another role";
                return Err(Refused::alike(Reject::MALFORMED, words));
            }
            Ok(accepted)
        });
        match verdict {
            Ok(accepted) => {
                if let Some(conn) = self.conns.get_mut(&token) {
                    conn.link.say(&HandshakeMessage::Confirm, now_us);
                }
                self.establish(token, accepted, now_us);
            }
            Err(refused) => self.refuse(token, &remote, refused, now_us),
        }
    }

    /// Whether the set of peers names a node.
    pub(super) fn is_member(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.spec.is_some())
    }

    fn verdict(&self, remote: &Identity, expected: Option<NodeId>) -> Result<Accepted, Refused> {
        let peer = remote.from.and_then(|node| self.peers.get(&node));
        let known = Known {
            expected,
            disk: peer.and_then(|peer| peer.spec.as_ref()).and_then(|spec| spec.disk),
            connected: peer
                .and_then(|peer| peer.up)
                .map(|up| (up.identity.disk, up.identity.boot, up.instance)),
        };
        let accepted = judge(&self.identity, remote, &known)?;
        // Whoever knows the cluster may link under any id, so those that no membership names are
        // few. One that is linked already takes no further place.
        let has_place = peer.is_some_and(|peer| peer.spec.is_some() || peer.up.is_some());
        if !has_place && self.non_members_up() >= self.limits.non_members_max {
            let words = format!(
                "as many nodes outside the membership as this one serves at once ({}) are \
                 connected; try again later",
                self.limits.non_members_max
            );
            return Err(Refused::alike(Reject::NO_PLACE, words));
        }
        Ok(accepted)
    }

    fn non_members_up(&self) -> usize {
        self.peers.values().filter(|peer| peer.spec.is_none() && peer.up.is_some()).count()
    }

    /// Bounds what may wait for each linked node by what it is now.
    pub(super) fn bound_queues(&mut self) {
        let TcpLimits { queue_bytes_max, non_member_queue_bytes_max, .. } = self.limits;
        for conn in self.conns.iter_mut().map(|(_, conn)| conn).filter(|conn| !conn.link.is_bulk) {
            let Some(node) = conn.link.ready().map(|ready| ready.peer.peer.node) else { continue };
            let is_member = self.peers.get(&node).is_some_and(|peer| peer.spec.is_some());
            conn.link.bound_queue(if is_member {
                queue_bytes_max
            } else {
                non_member_queue_bytes_max.min(queue_bytes_max)
            });
        }
    }

    /// Tells the other side why it is refused; the link ends when that is written.
    fn refuse(&mut self, token: usize, remote: &Identity, refused: Refused, now_us: u64) {
        let link = self.conns.get(&token).map(|conn| &conn.link);
        let dialled = link.and_then(|link| link.dialled);
        // A bulk connection that is refused counts as failed when it is closed.
        if let Some(peer) = dialled.filter(|_| link.is_some_and(|link| !link.is_bulk))
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.route.refused(now_us, &mut self.rng);
        }
        // A bulk connection that is there before the link has been read concerns nobody.
        if let Some(peer) = remote.from.or(dialled)
            && refused.told.code != Reject::NO_LINK
        {
            let (disk, code, reason) = (remote.disk, refused.told.code, refused.to_string());
            self.ready.push(TransportEvent::Refused { peer, disk, code, reason });
        }
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.link.say(&HandshakeMessage::Reject(refused.told), now_us);
            conn.link.phase = Phase::Closing;
        }
        self.mark_dirty(token);
    }

    fn on_rejected(&mut self, node: NodeId, reject: Reject, dialled_here: bool, now_us: u64) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.active.is_none()
        {
            peer.route.refused(now_us, &mut self.rng);
        }
        let Reject { code, words: reason, known_disk } = reject;
        let known_disk = known_disk.filter(|_| dialled_here);
        self.ready.push(TransportEvent::RefusedBy { peer: node, code, reason, known_disk });
    }

    /// A link passed its handshake: it becomes the peer's active one, or yields to another.
    fn establish(&mut self, token: usize, accepted: Accepted, now_us: u64) {
        let identity = accepted.peer;
        let up = Up { identity, instance: accepted.instance };
        let node = identity.node;
        let Some(conn) = self.conns.get_mut(&token) else { return };
        if conn.link.is_bulk {
            return self.establish_bulk(token, accepted, now_us);
        }
        let dialled_here = conn.link.dialled.is_some();
        conn.link.phase =
            Phase::Ready(Box::new(Ready { peer: accepted, since_us: now_us, retiring: false }));
        self.bound_queues();
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(None));
        if peer.route.dial == (Dial::Dialling { token }) {
            peer.route.dial = Dial::Waiting { until_us: now_us };
        }
        if let Some(old) = peer.up
            && old.identity.boot < identity.boot
        {
            let reason = format!("node {node} restarted (life {})", identity.boot.0);
            self.close_lives_before(node, token, now_us, &reason);
        }
        // A node that no membership names is forgotten with its last link: it is entered anew.
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(None));
        let Some(old_token) = peer.active else {
            peer.connected(token, up);
            self.ready.push(TransportEvent::LinkUp(identity));
            self.drop_attempt(node, dialled_here, now_us);
            return;
        };
        let (old_dialled_here, old_since_us) = match self.conns.get(&old_token) {
            Some(old) => {
                (old.link.dialled.is_some(), old.link.ready().map_or(0, |ready| ready.since_us))
            }
            None => (dialled_here, 0),
        };
        let settled_us = self.limits.handshake_ms.saturating_mul(1000);
        let is_settled = now_us.saturating_sub(old_since_us) > settled_us;
        let here = self.identity.from.unwrap_or(node);
        if keeps_new(here, node, dialled_here, old_dialled_here, is_settled) {
            peer.connected(token, up);
            if dialled_here == old_dialled_here || is_settled {
                // The peer dialled again because it has lost the old one.
                self.close(old_token, now_us, "replaced by a newer connection");
            } else {
                self.retire(old_token);
            }
        } else {
            self.retire(token);
        }
    }

    /// An inbound link came up while this node was dialling: if that attempt would lose against
    /// it anyway, it is given up.
    fn drop_attempt(&mut self, node: NodeId, dialled_here: bool, now_us: u64) {
        let here = self.identity.from.unwrap_or(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if let Dial::Dialling { token } = peer.route.dial
            && !dialled_here
            && !keeps_new(here, node, true, false, false)
            && self
                .conns
                .get(&token)
                .is_some_and(|conn| matches!(conn.link.phase, Phase::Connecting))
        {
            peer.route.dial = Dial::Waiting { until_us: now_us };
            self.remove(token);
        }
    }

    fn retire(&mut self, token: usize) {
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.link.retire();
        }
        self.mark_dirty(token);
    }

    /// Goes on when a link's queue is empty: a refusal is followed by the end, a retired link's
    /// last frame by the end of its write side.
    pub(super) fn finish_written(&mut self, token: usize, now_us: u64) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        if conn.link.wants_write() {
            return;
        }
        if matches!(conn.link.phase, Phase::Closing) {
            self.close(token, now_us, "refused");
        } else if conn.link.is_retiring() && conn.is_ended {
            self.close(token, now_us, "retired");
        } else if conn.link.is_retiring() && !conn.is_shut {
            conn.is_shut = true;
            // If it fails the connection is broken, which the next read tells.
            let _ = conn.stream.shutdown(Shutdown::Write);
        }
    }

    /// Ends a link and tells what follows from that.
    pub(super) fn close(&mut self, token: usize, now_us: u64, reason: &str) {
        let Some(conn) = self.remove(token) else { return };
        if conn.link.is_bulk {
            return self.bulk_closed(token, &conn, now_us, reason);
        }
        if let Some(ready) = conn.link.ready() {
            let node = ready.peer.peer.node;
            let Some(peer) = self.peers.get_mut(&node) else { return };
            if peer.active != Some(token) {
                return;
            }
            // A link that was good deserves a quick second try; one that keeps breaking does not.
            peer.lost(now_us, ready.since_us, &mut self.rng);
            self.end_bulk(node);
            let reason = reason.to_owned();
            self.ready.push(TransportEvent::LinkDown { peer: node, reason });
            self.forget_if_unknown(node);
            return;
        }
        if let Some(node) = conn.link.dialled
            && let Some(peer) = self.peers.get_mut(&node)
            && peer.route.dial == (Dial::Dialling { token })
        {
            let reason = format!("{}: {reason}", conn.remote);
            self.attempt_failed(node, false, now_us, reason);
            self.forget_if_unknown(node);
        }
    }

    fn forget_if_unknown(&mut self, node: NodeId) {
        if self.peers.get(&node).is_some_and(|peer| peer.spec.is_none() && peer.up.is_none()) {
            self.peers.remove(&node);
        }
    }

    pub(super) fn remove(&mut self, token: usize) -> Option<super::Conn> {
        let mut conn = self.conns.remove(&token)?;
        if conn.link.is_unauthenticated() {
            self.unauthenticated = self.unauthenticated.saturating_sub(1);
        }
        // Closing the descriptor removes it from the event queue as well.
        let _ = self.poll.registry().deregister(&mut conn.stream);
        Some(conn)
    }

    fn tokens_of(&self, node: NodeId) -> Vec<usize> {
        self.conns
            .iter()
            .filter(|(_, conn)| conn.link.ready().is_some_and(|ready| ready.peer.peer.node == node))
            .map(|(token, _)| *token)
            .collect()
    }

    /// Closes every link to a peer.
    pub(super) fn close_all(&mut self, node: NodeId, now_us: u64, reason: &str) {
        for token in self.tokens_of(node) {
            self.close(token, now_us, reason);
        }
    }

    fn close_lives_before(&mut self, node: NodeId, newest: usize, now_us: u64, reason: &str) {
        for token in self.tokens_of(node) {
            if token != newest {
                self.close(token, now_us, reason);
            }
        }
    }
}
