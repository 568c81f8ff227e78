//! The way to one connection: names, addresses, and when to try next. Decides; the transport does.
//!
//! After a failure the wait doubles from 20 ms to 1 s, each drawn at random from its upper half, so
//! that peers do not meet in step.

use std::net::SocketAddr;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

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

/// The way to one connection to a peer.
#[derive(Debug)]
pub(super) struct Route {
    pub dial: Dial,
    addresses: Vec<SocketAddr>,
    next_address: usize,
    back_off_us: u64,
}

impl Route {
    /// One that may be tried at once.
    pub(super) const fn new() -> Self {
        Self {
            dial: Dial::Waiting { until_us: 0 },
            addresses: Vec::new(),
            next_address: 0,
            back_off_us: BACK_OFF_MIN_US,
        }
    }

    /// The peer has another address.
    pub(super) fn moved(&mut self) {
        self.addresses.clear();
        self.back_off_us = BACK_OFF_MIN_US;
        if !matches!(self.dial, Dial::Dialling { .. }) {
            self.dial = Dial::Waiting { until_us: 0 };
        }
    }

    /// Whether it may be tried now.
    pub(super) const fn is_due(&self, now_us: u64) -> bool {
        match self.dial {
            Dial::Waiting { until_us } => now_us >= until_us,
            Dial::Resolving { .. } | Dial::Dialling { .. } => false,
        }
    }

    /// When it may be tried next, or reported.
    pub(super) const fn next_deadline_us(&self) -> Option<u64> {
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

    /// Whether a lookup has taken so long that it should be reported now.
    pub(super) const fn is_lookup_slow(&mut self, now_us: u64) -> bool {
        match &mut self.dial {
            Dial::Resolving { report_us } if now_us >= *report_us => {
                *report_us = now_us.saturating_add(SLOW_LOOKUP_US);
                true
            }
            Dial::Resolving { .. } | Dial::Waiting { .. } | Dial::Dialling { .. } => false,
        }
    }

    /// Takes the addresses of its name; may be tried at once.
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

    /// The peer does not want this node, or is no member's address: tries on, at the slowest pace.
    pub(super) fn refused(&mut self, now_us: u64, rng: &mut ChaCha8Rng) {
        self.back_off_us = BACK_OFF_MAX_US;
        self.failed(now_us, rng);
    }

    /// A connection, up since `since_us`, is gone: forgets earlier failures if it held for long.
    pub(super) fn lost(&mut self, now_us: u64, since_us: u64, rng: &mut ChaCha8Rng) {
        if now_us.saturating_sub(since_us) >= BACK_OFF_MAX_US {
            self.back_off_us = BACK_OFF_MIN_US;
        }
        if !matches!(self.dial, Dial::Dialling { .. }) {
            self.failed(now_us, rng);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn back_off_doubles_up_to_a_second_and_is_jittered() {
        let mut route = Route::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut waits = Vec::new();
        for _ in 0..12 {
            route.failed(0, &mut rng);
            waits.push(route.next_deadline_us().unwrap());
        }
        assert!((10_000..=20_000).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= BACK_OFF_MAX_US), "{waits:?}");
        assert!(waits[8..].iter().all(|wait| *wait >= BACK_OFF_MAX_US / 2), "{waits:?}");
        assert!(waits[9] != waits[10] || waits[10] != waits[11], "{waits:?}");
    }

    #[test]
    fn a_slow_lookup_is_told_once_each_time() {
        let mut route = Route::new();
        route.resolving(0);
        assert!(!route.is_lookup_slow(SLOW_LOOKUP_US - 1));
        assert!(route.is_lookup_slow(SLOW_LOOKUP_US));
        assert!(!route.is_lookup_slow(SLOW_LOOKUP_US));
        assert!(route.is_lookup_slow(2 * SLOW_LOOKUP_US));
    }
}
