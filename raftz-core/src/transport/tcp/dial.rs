//! Reaching peers: names, addresses, connections.

use std::net::SocketAddr;

use mio::net::TcpStream;
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::TcpTransport;
use super::config::check_plaintext;
use super::link::{Link, Phase};
use super::peer::Peer;
use super::route::Dial;
use crate::transport::handshake::HandshakeMessage;
use crate::transport::{PeerSpec, TransportEvent};
use crate::types::NodeId;

impl TcpTransport {
    /// Takes the new set of peers over; see [`Transport::set_peers`](crate::transport::Transport).
    pub(super) fn update_peers(&mut self, specs: &[PeerSpec], now_us: u64) {
        for (_, peer) in self.peers.iter_mut() {
            peer.spec = None;
        }
        let here = self.identity.from;
        for spec in specs.iter().filter(|spec| Some(spec.node) != here) {
            match self.peers.get_mut(&spec.node) {
                Some(peer) => peer.update(spec.clone()),
                None => {
                    self.peers.insert(spec.node, Peer::new(Some(spec.clone())));
                }
            }
            let up = self.peers.get(&spec.node).and_then(|peer| peer.up);
            if let (Some(up), Some(disk)) = (up, spec.disk)
                && up.identity.disk != disk
            {
                let reason = format!(
                    "the membership knows node {} by data directory {disk}, not {}",
                    spec.node, up.identity.disk
                );
                self.close_all(spec.node, now_us, &reason);
            }
        }
        for (_, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.spec.is_none()) {
            // Nobody will be dialled for it any more.
            peer.bulk.take_waiting();
        }
        self.peers.retain(|_, peer| {
            let dialling = matches!(peer.route.dial, Dial::Dialling { .. });
            peer.spec.is_some() || peer.up.is_some() || dialling
        });
        self.bound_queues();
    }

    /// Dials every peer whose time has come.
    pub(super) fn dial_due(&mut self, now_us: u64) {
        let mut due: Vec<(NodeId, bool)> = Vec::new();
        for (node, peer) in self.peers.iter_mut() {
            for is_bulk in [false, true] {
                if peer.is_due(is_bulk, now_us) {
                    due.push((*node, is_bulk));
                }
            }
        }
        for (node, is_bulk) in due {
            self.dial(node, is_bulk, now_us);
        }
    }

    fn dial(&mut self, node: NodeId, is_bulk: bool, now_us: u64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(spec) = &peer.spec else { return };
        let name = spec.address.clone();
        let route = peer.route_mut(is_bulk);
        if matches!(route.dial, Dial::Resolving { .. }) {
            let reason = format!("the name in {name:?} is still being looked up");
            self.report_attempt(node, is_bulk, reason);
            return;
        }
        let address = match name.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => match route.next_address() {
                Some(address) => address,
                None => {
                    match self.resolver.start(&name) {
                        Ok(()) => route.resolving(now_us),
                        Err(reason) => self.attempt_failed(node, is_bulk, now_us, reason),
                    }
                    return;
                }
            },
        };
        if let Err(error) = check_plaintext(&address, self.insecure_plaintext) {
            route.refused(now_us, &mut self.rng);
            self.report_attempt(node, is_bulk, error.to_string());
            return;
        }
        let mut link = Link::new(Some(node), self.limits.of_link(), now_us);
        link.is_bulk = is_bulk;
        let added = TcpStream::connect(address)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                if is_bulk {
                    // What the system holds cannot be ordered or taken back, so it is given little
                    // room. If it refuses, that costs no more than some delay.
                    let _ =
                        set_socket_send_buffer_size(&stream, self.limits.bulk_send_buffer_bytes);
                }
                self.add_conn(stream, link, address)
            })
            .map_err(|error| format!("cannot connect to {address}: {error}"));
        match added {
            Ok(token) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.route_mut(is_bulk).dial = Dial::Dialling { token };
                }
            }
            Err(reason) => self.attempt_failed(node, is_bulk, now_us, reason),
        }
    }

    /// Plans the next attempt after one that failed, and reports it: unless the peer has come by
    /// itself meanwhile, for then it is not out of reach.
    pub(super) fn attempt_failed(
        &mut self,
        node: NodeId,
        is_bulk: bool,
        now_us: u64,
        reason: String,
    ) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.route_mut(is_bulk).failed(now_us, &mut self.rng);
            if peer.active.is_some() && !is_bulk {
                return;
            }
        }
        self.report_attempt(node, is_bulk, reason);
    }

    /// A peer without a bulk connection is linked, so it is not told to be out of reach.
    fn report_attempt(&mut self, node: NodeId, is_bulk: bool, reason: String) {
        self.ready.push(if is_bulk {
            let detail = format!("no bulk connection to node {node} yet: {reason}");
            TransportEvent::Trouble { detail }
        } else {
            TransportEvent::Unreachable { peer: node, reason }
        });
    }

    /// Hands finished lookups to the peers that wait for them.
    pub(super) fn take_resolved(&mut self, now_us: u64) {
        while let Some(resolved) = self.resolver.next() {
            let mut waiting: Vec<(NodeId, bool)> = Vec::new();
            for (node, peer) in self.peers.iter_mut() {
                let address = peer.spec.as_ref().map(|spec| spec.address.as_str());
                if address != Some(resolved.name.as_str()) {
                    continue;
                }
                for is_bulk in [false, true] {
                    if matches!(peer.route_mut(is_bulk).dial, Dial::Resolving { .. }) {
                        waiting.push((*node, is_bulk));
                    }
                }
            }
            for (node, is_bulk) in waiting {
                let reason = match &resolved.result {
                    Ok(addresses) if !addresses.is_empty() => {
                        if let Some(peer) = self.peers.get_mut(&node) {
                            peer.route_mut(is_bulk).resolved(addresses.clone());
                        }
                        continue;
                    }
                    Ok(_) => "the name has no address".to_owned(),
                    Err(error) => error.clone(),
                };
                let reason = format!("cannot look up {:?}: {reason}", resolved.name);
                self.attempt_failed(node, is_bulk, now_us, reason);
            }
        }
    }

    /// A dialled socket became writable: connected, or failed.
    pub(super) fn check_connected(&mut self, token: usize, now_us: u64) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        if !matches!(conn.link.phase, Phase::Connecting) {
            return;
        }
        let failure = match conn.stream.take_error() {
            Ok(Some(error)) | Err(error) => Some(error),
            Ok(None) => match conn.stream.peer_addr() {
                Ok(_) => None,
                // Woken early: the connection is still being set up.
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
                Err(error) => Some(error),
            },
        };
        if let Some(error) = failure {
            let reason = format!("cannot connect to {}: {error}", conn.remote);
            self.close(token, now_us, &reason);
            return;
        }
        conn.link.phase = Phase::AwaitWelcome;
        let (is_bulk, dialled) = (conn.link.is_bulk, conn.link.dialled);
        let hello = HandshakeMessage::Hello(self.said_on(is_bulk, dialled));
        if let Some(conn) = self.conns.get_mut(&token) {
            conn.link.say(&hello, now_us);
        }
    }
}
