//! One peer: where it is, which links lead to it, and when to dial it next. Decides; the transport
//! does.
//!
//! A peer is dialled only while no usable link to it exists. After a failure the wait doubles from
//! 20 ms to 1 s, each drawn at random from its upper half, so that peers do not meet in step.

use std::net::{IpAddr, SocketAddr};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::transport::{PeerIdentity, PeerSpec};
use crate::types::NodeId;

const BACK_OFF_MIN_US: u64 = 20_000;
const BACK_OFF_MAX_US: u64 = 1_000_000;
/// A lookup that takes longer is reported, while it goes on.
const SLOW_LOOKUP_US: u64 = 3_000_000;

/// What is being done to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Nothing until then.
    Waiting { until_us: u64 },
    /// Its name is being looked up.
    Resolving { report_us: u64 },
    /// A connection is being set up.
    Dialling { token: usize },
}

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
    pub dial: Dial,
    /// Who is at the other end of its links.
    pub up: Option<Up>,
    /// The link that frames are sent on.
    pub active: Option<usize>,
    addresses: Vec<SocketAddr>,
    next_address: usize,
    back_off_us: u64,
}

impl Peer {
    /// A peer that is to be dialled at once.
    pub(super) const fn new(spec: Option<PeerSpec>) -> Self {
        Self {
            spec,
            dial: Dial::Waiting { until_us: 0 },
            up: None,
            active: None,
            addresses: Vec::new(),
            next_address: 0,
            back_off_us: BACK_OFF_MIN_US,
        }
    }

    /// Takes a new address or disk.
    pub(super) fn update(&mut self, spec: PeerSpec) {
        if self.spec.as_ref().is_none_or(|old| old.address != spec.address) {
            self.addresses.clear();
            self.back_off_us = BACK_OFF_MIN_US;
            if !matches!(self.dial, Dial::Dialling { .. }) {
                self.dial = Dial::Waiting { until_us: 0 };
            }
        }
        self.spec = Some(spec);
    }

    /// Whether it should be dialled now.
    pub(super) const fn is_due(&self, now_us: u64) -> bool {
        match self.dial {
            Dial::Waiting { until_us } => {
                self.spec.is_some() && self.active.is_none() && now_us >= until_us
            }
            Dial::Resolving { .. } | Dial::Dialling { .. } => false,
        }
    }

    /// When it wants to be looked at next.
    pub(super) const fn next_deadline_us(&self) -> Option<u64> {
        if self.spec.is_none() || self.active.is_some() {
            return None;
        }
        match self.dial {
            Dial::Waiting { until_us } => Some(until_us),
            Dial::Resolving { report_us } => Some(report_us),
            Dial::Dialling { .. } => None,
        }
    }

    /// The next address to try: known ones in turn, `None` when they must be looked up (again).
    pub(super) fn next_address(&mut self) -> Option<SocketAddr> {
        let address = self.addresses.get(self.next_address).copied();
        self.next_address += 1;
        if address.is_none() {
            self.addresses.clear();
        }
        address
    }

    /// Notes that a lookup was started.
    pub(super) const fn resolving(&mut self, now_us: u64) {
        self.dial = Dial::Resolving { report_us: now_us.saturating_add(SLOW_LOOKUP_US) };
    }

    /// Whether a lookup has taken so long that it should be reported now. It concerns nobody while
    /// the peer is linked anyway.
    pub(super) const fn is_lookup_slow(&mut self, now_us: u64) -> bool {
        match &mut self.dial {
            Dial::Resolving { report_us } if self.active.is_none() && now_us >= *report_us => {
                *report_us = now_us.saturating_add(SLOW_LOOKUP_US);
                true
            }
            Dial::Resolving { .. } | Dial::Waiting { .. } | Dial::Dialling { .. } => false,
        }
    }

    /// Takes the addresses of its name; dials at once.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
        self.next_address = 0;
        self.dial = Dial::Waiting { until_us: 0 };
    }

    /// An attempt failed: waits, longer each time.
    pub(super) fn failed(&mut self, now_us: u64, rng: &mut ChaCha8Rng) {
        let wait = rng.random_range(self.back_off_us / 2..=self.back_off_us);
        self.back_off_us = self.back_off_us.saturating_mul(2).min(BACK_OFF_MAX_US);
        self.dial = Dial::Waiting { until_us: now_us.saturating_add(wait) };
    }

    /// The last link, up since `since_us`, is gone: forgets earlier failures if it held for long.
    pub(super) fn lost(&mut self, now_us: u64, since_us: u64, rng: &mut ChaCha8Rng) {
        self.active = None;
        self.up = None;
        if now_us.saturating_sub(since_us) >= BACK_OFF_MAX_US {
            self.back_off_us = BACK_OFF_MIN_US;
        }
        if !matches!(self.dial, Dial::Dialling { .. }) {
            self.failed(now_us, rng);
        }
    }

    /// The peer does not want this node, or is no member's address: tries on, at the slowest pace.
    pub(super) fn refused(&mut self, now_us: u64, rng: &mut ChaCha8Rng) {
        self.back_off_us = BACK_OFF_MAX_US;
        self.failed(now_us, rng);
    }

    /// A usable link exists.
    pub(super) const fn connected(&mut self, token: usize, up: Up) {
        self.active = Some(token);
        self.up = Some(up);
    }
}

/// Which of two links of one life of a peer to keep, the same on both sides: the one that the node
/// with the lower id dialled; of two by the same side, or when the other has stood so long that
/// the peer must have lost it to dial again, the new one.
pub(super) const fn keeps_new(
    node: NodeId,
    peer: NodeId,
    new_dialled_here: bool,
    old_dialled_here: bool,
    old_is_settled: bool,
) -> bool {
    if new_dialled_here == old_dialled_here || old_is_settled {
        return true;
    }
    new_dialled_here == (node.get() < peer.get())
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
    use crate::types::{Boot, DiskId};

    #[test]
    fn both_sides_keep_the_same_one_of_two_simultaneous_links() {
        let (low, high) = (NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
        // The low node's link is the new one on either side, or the old one on either side.
        assert!(keeps_new(low, high, true, false, false));
        assert!(keeps_new(high, low, false, true, false));
        assert!(!keeps_new(low, high, false, true, false));
        assert!(!keeps_new(high, low, true, false, false));
    }

    #[test]
    fn back_off_doubles_up_to_a_second_and_is_jittered() {
        let address = "127.0.0.1:1".into();
        let spec = PeerSpec { node: NodeId::new(1).unwrap(), address, disk: None };
        let mut peer = Peer::new(Some(spec));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut waits = Vec::new();
        for _ in 0..12 {
            peer.failed(0, &mut rng);
            waits.push(peer.next_deadline_us().unwrap());
        }
        assert!((10_000..=20_000).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= BACK_OFF_MAX_US), "{waits:?}");
        assert!(waits[8..].iter().all(|wait| *wait >= BACK_OFF_MAX_US / 2), "{waits:?}");
        assert!(waits[9] != waits[10] || waits[10] != waits[11], "{waits:?}");
    }

    #[test]
    fn a_lookup_is_slow_only_while_no_link_makes_it_idle() {
        let node = NodeId::new(1).unwrap();
        let spec = PeerSpec { node, address: "name:1".into(), disk: None };
        let mut peer = Peer::new(Some(spec));
        peer.resolving(0);
        assert!(!peer.is_lookup_slow(SLOW_LOOKUP_US - 1));
        let identity = PeerIdentity { node, disk: DiskId(1), boot: Boot(1) };
        peer.connected(5, Up { identity, instance: 1 });
        assert!(!peer.is_lookup_slow(SLOW_LOOKUP_US));
        peer.lost(SLOW_LOOKUP_US, 0, &mut ChaCha8Rng::seed_from_u64(1));
        peer.resolving(SLOW_LOOKUP_US);
        assert!(peer.is_lookup_slow(2 * SLOW_LOOKUP_US));
        assert!(!peer.is_lookup_slow(2 * SLOW_LOOKUP_US), "told once each time");
    }
}
