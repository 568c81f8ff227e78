//! One peer: where it is and which links lead to it. Decides; the transport does.
//!
//! A peer is dialled only while no usable link to it exists; for its bulk connection, only while one
//! exists and something waits (see `bulk`).

use std::net::{IpAddr, SocketAddr};

use rand_chacha::ChaCha8Rng;

use super::bulk::Bulk;
use super::route::Route;
use crate::transport::{PeerIdentity, PeerSpec};
use crate::types::earliest;

/// A peer's life as connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Up {
    pub identity: PeerIdentity,
    pub instance: u64,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where to dial it; `None` for one that only dialled us.
    pub spec: Option<PeerSpec>,
    /// The way to its link.
    pub route: Route,
    /// Who is at the other end of its links.
    pub up: Option<Up>,
    /// The link that frames are sent on.
    pub active: Option<usize>,
    /// Its bulk connections, which stand beside the active link.
    pub bulk: Bulk,
}

impl Peer {
    /// A peer that is to be dialled at once.
    pub(super) const fn new(spec: Option<PeerSpec>) -> Self {
        Self { spec, route: Route::new(), up: None, active: None, bulk: Bulk::new() }
    }

    /// Takes a new address or disk.
    pub(super) fn update(&mut self, spec: PeerSpec) {
        if self.spec.as_ref().is_none_or(|old| old.address != spec.address) {
            self.route.moved();
            self.bulk.route.moved();
        }
        self.spec = Some(spec);
    }

    /// The way to its link, or to its bulk connection.
    pub(super) const fn route_mut(&mut self, is_bulk: bool) -> &mut Route {
        if is_bulk { &mut self.bulk.route } else { &mut self.route }
    }

    /// Whether this way is wanted: to a link while there is none, to a bulk connection beside one.
    const fn is_wanted(&self, is_bulk: bool) -> bool {
        let is_linked = self.active.is_some();
        self.spec.is_some() && if is_bulk { is_linked && self.bulk.is_wanted() } else { !is_linked }
    }

    /// Whether something is to be done on this way now: to dial, or to report a slow lookup. A lookup
    /// concerns nobody while the way is not wanted.
    pub(super) fn is_due(&mut self, is_bulk: bool, now_us: u64) -> bool {
        let is_wanted = self.is_wanted(is_bulk);
        let route = self.route_mut(is_bulk);
        is_wanted && (route.is_due(now_us) || route.is_lookup_slow(now_us))
    }

    /// When it wants to be looked at next.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        let link = if self.is_wanted(false) { self.route.next_deadline_us() } else { None };
        let bulk = if self.is_wanted(true) { self.bulk.route.next_deadline_us() } else { None };
        earliest([link, bulk])
    }

    /// The last link, up since `since_us`, is gone.
    pub(super) fn lost(&mut self, now_us: u64, since_us: u64, rng: &mut ChaCha8Rng) {
        self.active = None;
        self.up = None;
        self.route.lost(now_us, since_us, rng);
    }

    /// A usable link exists.
    pub(super) const fn connected(&mut self, token: usize, up: Up) {
        self.active = Some(token);
        self.up = Some(up);
    }
}

/// Whether an address never leaves the machine.
pub(super) fn is_loopback(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use rand::SeedableRng;

    use super::*;
    use crate::types::{Boot, DiskId, NodeId};

    #[test]
    fn a_lookup_is_slow_only_while_no_link_makes_it_idle() {
        const LONG_US: u64 = 100_000_000;
        let node = NodeId::new(1).unwrap();
        let spec = PeerSpec { node, address: "name:1".into(), disk: None };
        let mut peer = Peer::new(Some(spec));
        peer.route.resolving(0);
        assert!(!peer.is_due(false, 0));
        let identity = PeerIdentity { node, disk: DiskId(1), boot: Boot(1) };
        peer.connected(5, Up { identity, instance: 1 });
        assert!(!peer.is_due(false, LONG_US));
        assert_eq!(peer.next_deadline_us(), None);
        peer.lost(LONG_US, 0, &mut ChaCha8Rng::seed_from_u64(1));
        peer.route.resolving(LONG_US);
        assert!(peer.is_due(false, 2 * LONG_US));
    }
}
