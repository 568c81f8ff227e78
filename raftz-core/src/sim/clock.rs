//! The clock of one node: true time, seen through a drift that changes.

use crate::types::Now;

/// Wall time at the beginning of every run.
const WALL_START_US: u64 = 1_700_000_000_000_000;
/// Boot-clock time at the beginning of every run: machines were on before.
const BOOT_START_US: u64 = 1_000_000;

/// One node's view of time. Its boot clock never goes back; its wall clock may be set.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Parts in a million that it gains (or loses).
    drift_ppm: i64,
    /// Since when, in true and in its own time.
    since_true_us: u64,
    since_boot_us: u64,
    /// The same of earlier times.
    past: Vec<(i64, u64, u64)>,
    /// How far its wall clock is off.
    wall_offset_us: i64,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            drift_ppm: 0,
            since_true_us: 0,
            since_boot_us: BOOT_START_US,
            past: Vec::new(),
            wall_offset_us: 0,
        }
    }

    /// What it shows.
    pub(super) fn now(&self, true_us: u64) -> Now {
        let boot_us = self.boot_us(true_us);
        let wall_us = (WALL_START_US + boot_us).saturating_add_signed(self.wall_offset_us);
        Now { boot_us, wall_us }
    }

    /// How much of its own time passes in a million of true time.
    fn rate(&self) -> i128 {
        i128::from(1_000_000 + self.drift_ppm)
    }

    fn boot_us(&self, true_us: u64) -> u64 {
        let passed = i128::from(true_us.saturating_sub(self.since_true_us));
        let own = passed * self.rate() / 1_000_000;
        self.since_boot_us + u64::try_from(own).unwrap_or_default()
    }

    /// The first true time at which it shows `boot_us` or more.
    pub(super) fn true_us(&self, boot_us: u64) -> u64 {
        let wanted = i128::from(boot_us.saturating_sub(self.since_boot_us));
        let rate = self.rate();
        let passed = (wanted * 1_000_000 + rate - 1) / rate;
        self.since_true_us + u64::try_from(passed).unwrap_or_default()
    }

    /// The last true time at which it showed `boot_us` or less.
    pub(super) fn showed(&self, boot_us: u64) -> u64 {
        let present = (self.drift_ppm, self.since_true_us, self.since_boot_us);
        let mut segments = std::iter::once(&present).chain(self.past.iter().rev());
        let then = segments.find(|(_, _, since_boot_us)| *since_boot_us <= boot_us);
        then.map_or(0, |(drift_ppm, since_true_us, since_boot_us)| {
            let own = i128::from(boot_us - since_boot_us);
            let passed = own * 1_000_000 / i128::from(1_000_000 + drift_ppm);
            since_true_us + u64::try_from(passed).unwrap_or_default()
        })
    }

    /// From now on it gains `ppm` parts in a million.
    pub(super) fn drift(&mut self, true_us: u64, ppm: i64) {
        self.past.push((self.drift_ppm, self.since_true_us, self.since_boot_us));
        self.since_boot_us = self.boot_us(true_us);
        self.since_true_us = true_us;
        self.drift_ppm = ppm.clamp(-900_000, 900_000);
    }

    /// Sets the wall clock `us` forward or back.
    pub(super) const fn step_wall(&mut self, us: i64) {
        self.wall_offset_us = self.wall_offset_us.saturating_add(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_drifts_never_goes_back_and_finds_the_time_it_was_asked_for() {
        let mut clock = Clock::new();
        let mut last = 0;
        for (at, ppm) in [(0, 0), (5_000_000, 300), (9_000_001, -70_001), (20_000_003, 123_457)] {
            clock.drift(at, ppm);
            for step in 0..100 {
                let now = clock.now(at + step * 997).boot_us;
                assert!(now >= last);
                last = now;
                let due = now + step * 31;
                let due_true = clock.true_us(due);
                assert!(clock.now(due_true).boot_us >= due);
                let shown = clock.showed(now);
                assert!(clock.now(shown).boot_us <= now && clock.now(shown + 3).boot_us > now);
                assert!(due_true == at || clock.now(due_true - 1).boot_us < due || due == now);
            }
        }
        let (before, showed) = (clock.showed(last / 2), clock.showed(last));
        assert!(before < showed && clock.showed(0) == 0, "{before} {showed}");
        let wall = clock.now(30_000_000).wall_us;
        clock.step_wall(-5_000_000);
        assert_eq!(clock.now(30_000_000).wall_us, wall - 5_000_000);
    }
}
