//! The one place of the runtime that reads clocks and draws randomness. Everything below it is
//! given a [`Now`] and a seed.
#![allow(
    clippy::disallowed_methods,
    reason = "the one place where time and randomness come in from outside"
)]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::types::Now;

/// Microseconds since the machine booted, time in suspend included.
pub(crate) fn boot_us() -> u64 {
    read_us(ClockId::Boottime)
}

/// What both clocks say.
pub(crate) fn now() -> Now {
    Now { boot_us: boot_us(), wall_us: read_us(ClockId::Realtime) }
}

/// The boot-clock time `after` from now; a duration beyond any life is as good as for ever.
pub(crate) fn deadline_us(after: Duration) -> u64 {
    boot_us().saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX))
}

/// How long it is until `deadline_us`; zero when it has passed.
pub(crate) fn left_until(deadline_us: u64) -> Duration {
    Duration::from_micros(deadline_us.saturating_sub(boot_us()))
}

/// Sleeps until `due_us`, if that is still to come.
pub(crate) fn sleep_until(due_us: u64) {
    std::thread::sleep(left_until(due_us));
}

/// A number that nobody can foresee, for seeds and for the identity of a store.
pub(crate) fn random_u128() -> u128 {
    rand::random()
}

/// As [`random_u128`], for seeds.
pub(crate) fn random_u64() -> u64 {
    rand::random()
}

fn read_us(clock: ClockId) -> u64 {
    let at = clock_gettime(clock);
    // Neither clock is before its own zero on a sane machine; if it is, zero is the safe reading.
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(at.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_never_goes_back() {
        let mut last = boot_us();
        for _ in 0..1000 {
            let next = boot_us();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn a_deadline_without_end_does_not_overflow() {
        assert_eq!(deadline_us(Duration::MAX), u64::MAX);
        assert!(left_until(0).is_zero());
    }
}
