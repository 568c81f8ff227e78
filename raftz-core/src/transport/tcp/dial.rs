//! Reaching peers: names, addresses, connections.

use std::net::SocketAddr;

use mio::net::TcpStream;

use super::TcpTransport;
use super::config::check_plaintext;
use super::link::{Link, Phase};
use super::peer::{Dial, Peer};
use crate::transport::handshake::HandshakeMessage;
use crate::transport::{PeerSpec, TransportEvent};
use crate::types::NodeId;

impl TcpTransport {
    /// Takes the new set of peers over; see [`Transport::set_peers`](crate::transport::Transport).
    pub(super) fn update_peers(&mut self, specs: &[PeerSpec], now_us: u64) {
        for peer in self.peers.values_mut() {
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
        self.peers.retain(|_, peer| {
            let dialling = matches!(peer.dial, Dial::Dialling { .. });
            peer.spec.is_some() || peer.up.is_some() || dialling
        });
        self.bound_queues();
    }

    /// Dials every peer whose time has come.
    pub(super) fn dial_due(&mut self, now_us: u64) {
        let due: Vec<NodeId> = self
            .peers
            .iter_mut()
            .filter_map(|(node, peer)| {
                (peer.is_due(now_us) || peer.is_lookup_slow(now_us)).then_some(*node)
            })
            .collect();
        for node in due {
            self.dial(node, now_us);
        }
    }

    fn dial(&mut self, node: NodeId, now_us: u64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(spec) = &peer.spec else { return };
        let name = spec.address.clone();
        if matches!(peer.dial, Dial::Resolving { .. }) {
            let reason = format!("the name in {name:?} is still being looked up");
            self.ready.push(TransportEvent::Unreachable { peer: node, reason });
            return;
        }
        let address = match name.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => match peer.next_address() {
                Some(address) => address,
                None => {
                    match self.resolver.start(&name) {
                        Ok(()) => peer.resolving(now_us),
                        Err(reason) => self.unreachable(node, now_us, reason),
                    }
                    return;
                }
            },
        };
        if let Err(error) = check_plaintext(&address, self.insecure_plaintext) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.refused(now_us, &mut self.rng);
            }
            let reason = error.to_string();
            self.ready.push(TransportEvent::Unreachable { peer: node, reason });
            return;
        }
        let link = Link::new(Some(node), self.limits.of_link(), now_us);
        let added = TcpStream::connect(address)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                self.add_conn(stream, link, address)
            })
            .map_err(|error| format!("cannot connect to {address}: {error}"));
        match added {
            Ok(token) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.dial = Dial::Dialling { token };
                }
            }
            Err(reason) => self.unreachable(node, now_us, reason),
        }
    }

    /// Plans the next attempt after one that failed, and reports it: unless the peer has come by
    /// itself meanwhile, for then it is not out of reach.
    pub(super) fn unreachable(&mut self, node: NodeId, now_us: u64, reason: String) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failed(now_us, &mut self.rng);
            if peer.active.is_some() {
                return;
            }
        }
        self.ready.push(TransportEvent::Unreachable { peer: node, reason });
    }

    /// Hands finished lookups to the peers that wait for them.
    pub(super) fn take_resolved(&mut self, now_us: u64) {
        while let Some(resolved) = self.resolver.next() {
            let waiting: Vec<NodeId> = self
                .peers
                .iter()
                .filter(|(_, peer)| {
                    let address = peer.spec.as_ref().map(|spec| spec.address.as_str());
                    address == Some(resolved.name.as_str())
                        && matches!(peer.dial, Dial::Resolving { .. })
                })
                .map(|(node, _)| *node)
                .collect();
            for node in waiting {
                let reason = match &resolved.result {
                    Ok(addresses) if !addresses.is_empty() => {
                        if let Some(peer) = self.peers.get_mut(&node) {
                            peer.resolved(addresses.clone());
                        }
                        continue;
                    }
                    Ok(_) => "the name has no address".to_owned(),
                    Err(error) => error.clone(),
                };
                let reason = format!("cannot look up {:?}: {reason}", resolved.name);
                self.unreachable(node, now_us, reason);
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
        let hello = HandshakeMessage::Hello(self.identity.addressed_to(conn.link.dialled));
        conn.link.say(&hello, now_us);
    }
}
