//! Taking connections in. Who connects is not known before its hello is read, so the places for
//! those who have not passed the handshake are few, and whoever has said least makes way: a
//! listener that is full of silent connections still meets every member.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::TcpTransport;
use super::link::{Link, Phase};
use crate::transport::TransportEvent;

/// Connections accepted in one turn; fewer than there are places, so that a newcomer has the time
/// of some turns to speak before others can push it out.
const ACCEPTS_PER_TURN: usize = 16;
/// Wait after the system could not give another connection.
const ACCEPT_BACK_OFF_US: u64 = 100_000;

impl TcpTransport {
    /// Accepts what waits, within the bounds of a turn.
    pub(super) fn accept(&mut self, now_us: u64) {
        if !self.accept_more || now_us < self.accept_after_us {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, remote)) => {
                    if !self.make_place(now_us) {
                        continue;
                    }
                    let _ = stream.set_nodelay(true);
                    let link = Link::new(None, self.limits.of_link(), now_us);
                    match self.add_conn(stream, link, remote) {
                        Ok(token) => self.meet(token, now_us),
                        Err(error) => {
                            let detail =
                                format!("cannot take in a connection from {remote}: {error}");
                            self.ready.push(TransportEvent::Trouble { detail });
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_more = false;
                    return;
                }
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted
                        || error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors or memory: trying again at once would only spin.
                    let detail = format!("cannot accept connections for a moment: {error}");
                    self.ready.push(TransportEvent::Trouble { detail });
                    self.accept_after_us = now_us + ACCEPT_BACK_OFF_US;
                    return;
                }
            }
        }
    }

    /// Reads what a newcomer has said already: whoever dials in earnest sends its hello at once.
    fn meet(&mut self, token: usize, now_us: u64) {
        if let Some(conn) = self.conns.get_mut(&token) {
            (conn.readable, conn.writable) = (true, true);
            self.read_share(token, now_us);
        }
    }

    /// Sees to it that a newcomer finds a place. False if there is none to be had.
    fn make_place(&mut self, now_us: u64) -> bool {
        while self.unauthenticated >= self.limits.unauthenticated_max {
            let Some(token) = self.weakest() else { return false };
            // What it should have said may have arrived just now.
            self.meet(token, now_us);
            if self.weakest() == Some(token) {
                self.remove(token);
            }
        }
        true
    }

    /// The connection with the weakest claim to its place: of those that have not said who they
    /// are the oldest, from the address that holds the most places; if all have, the oldest one
    /// from outside the membership.
    fn weakest(&self) -> Option<usize> {
        let mut silent: BTreeMap<IpAddr, (usize, usize)> = BTreeMap::new();
        let mut non_member = None;
        // Tokens grow, so the oldest connections come first.
        for (token, conn) in &self.conns {
            match &conn.link.phase {
                Phase::AwaitHello => {
                    silent.entry(conn.remote.ip()).or_insert((0, *token)).0 += 1;
                }
                Phase::AwaitConfirm(remote) => {
                    if !remote.from.is_some_and(|node| self.is_member(node)) {
                        non_member = non_member.or(Some(*token));
                    }
                }
                Phase::Connecting | Phase::AwaitWelcome | Phase::Ready(_) | Phase::Closing => {}
            }
        }
        let of_most = silent.values().max_by_key(|(places, oldest)| (*places, Reverse(*oldest)));
        of_most.map(|(_, oldest)| *oldest).or(non_member)
    }
}
