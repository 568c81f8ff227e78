//! The cluster's clock: the stamp a leader puts into each entry.
//!
//! It never decreases along the log. A leader continues from the highest stamp in its log at the
//! pace of its boottime clock, and leans towards wall time by at most a tenth of that pace, so a
//! step of the wall clock never shows. While there is no leader it stands still.

use crate::types::{Now, SANE_MAX};

#[derive(Clone, Copy, Debug)]
pub(crate) struct LogClock {
    at_us: u64,
    read: Now,
    /// Elapsed time that has not paid for a lean yet: tenths of a microsecond.
    rest: u64,
}

impl LogClock {
    /// A clock that goes on from `highest_us`. A log that was never stamped begins at wall time.
    pub(crate) fn start(highest_us: u64, now: Now) -> Self {
        Self { at_us: if highest_us == 0 { now.wall_us } else { highest_us }, read: now, rest: 0 }
    }

    /// The stamp for entries appended now.
    pub(crate) fn stamp_us(&mut self, now: Now) -> u64 {
        let elapsed = now.boot_us.saturating_sub(self.read.boot_us);
        let paid = elapsed.saturating_add(self.rest);
        let lean = paid / 10;
        self.rest = paid % 10;
        let steady = self.at_us.saturating_add(elapsed);
        self.at_us = if steady < now.wall_us {
            steady + lean.min(now.wall_us - steady)
        } else {
            steady - lean.min(steady - now.wall_us)
        };
        if elapsed > 0 {
            self.read = now;
        }
        // Never a stamp that the followers would refuse as absurd.
        self.at_us = self.at_us.min(SANE_MAX);
        self.at_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot_us: u64, wall_us: u64) -> Now {
        Now { boot_us, wall_us }
    }

    #[test]
    fn a_new_cluster_begins_at_wall_time_and_a_successor_continues() {
        assert_eq!(LogClock::start(0, now(5, 1_000)).stamp_us(now(5, 1_000)), 1_000);
        assert_eq!(LogClock::start(9_000, now(5, 1_000)).stamp_us(now(5, 1_000)), 9_000);
    }

    #[test]
    fn it_leans_towards_wall_time_by_at_most_a_tenth_and_never_steps() {
        let mut behind = LogClock::start(1_000, now(0, 1_000_000));
        assert_eq!(behind.stamp_us(now(1_000, 1_001_000)), 2_100);
        let mut ahead = LogClock::start(1_000_000, now(0, 0));
        assert_eq!(ahead.stamp_us(now(1_000, 0)), 1_000_900, "slower, but forwards");
        let mut close = LogClock::start(1_000, now(0, 1_000));
        assert_eq!(close.stamp_us(now(1_000, 2_030)), 2_030, "reaches wall time and stays");
    }

    #[test]
    fn it_leans_at_the_same_pace_however_often_it_is_read() {
        let mut clock = LogClock::start(1_000, now(0, 1_000_000));
        for step in 1..=1_000 {
            clock.stamp_us(now(step, 1_000_000));
        }
        assert_eq!(clock.stamp_us(now(1_000, 1_000_000)), 2_100);
    }

    #[test]
    fn it_stands_still_at_the_highest_stamp_that_anybody_accepts() {
        let mut clock = LogClock::start(SANE_MAX - 10, now(0, 0));
        assert_eq!(clock.stamp_us(now(1_000, 0)), SANE_MAX);
        assert_eq!(clock.stamp_us(now(9_000, 0)), SANE_MAX);
    }

    #[test]
    fn it_stands_still_when_the_boot_clock_does_and_ignores_wall_steps() {
        let mut clock = LogClock::start(1_000, now(0, 1_000));
        assert_eq!(clock.stamp_us(now(0, 9_999_999)), 1_000);
        assert_eq!(clock.stamp_us(now(0, 0)), 1_000);
    }
}
