//! One line a second of a kind, and a count of what was left out. Time is passed in.

/// Time after a line in which no other of its kind is told.
const QUIET_US: u64 = 1_000_000;

/// Lets one thing through a second and counts the rest.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    quiet_until_us: u64,
    left_out: u64,
}

impl Limiter {
    /// Whether something may be told now; if so, how many were left out before it. If not, it is
    /// counted as left out.
    pub(super) const fn admit(&mut self, now_us: u64) -> Option<u64> {
        if now_us < self.quiet_until_us {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.quiet_until_us = now_us.saturating_add(QUIET_US);
        Some(std::mem::replace(&mut self.left_out, 0))
    }

    /// Takes a number from [`Limiter::admit`] back that could not be told.
    pub(super) const fn put_back(&mut self, left_out: u64) {
        self.left_out = self.left_out.saturating_add(left_out);
    }

    /// How many were left out, when nothing has come for a second that could have carried the
    /// number. (Sooner, and in a flood the number would always be faster than the next of its kind,
    /// of which nobody would hear.) The number's own line is one like the others.
    pub(super) const fn overdue(&mut self, now_us: u64) -> Option<u64> {
        let is_due = self.left_out > 0 && now_us >= self.quiet_until_us.saturating_add(QUIET_US);
        if is_due { self.admit(now_us) } else { None }
    }
}

/// Lines of a kind that may come at once.
const BURST: u64 = 20;

/// Lets a burst of things through at once, one a second in the long run, and counts the rest.
#[derive(Debug)]
pub(super) struct Burst {
    /// When it had let nothing through for so long that all of the burst was free.
    empty_us: u64,
    left_out: u64,
}

impl Burst {
    /// One that has let nothing through.
    pub(super) const fn new() -> Self {
        Self { empty_us: 0, left_out: 0 }
    }

    /// Whether something may be told now; if so, how many were left out before it.
    pub(super) const fn admit(&mut self, now_us: u64) -> Option<u64> {
        // Each thing takes a second; what lies ahead of now is what has been let through too early.
        let from_us = if self.empty_us > now_us { self.empty_us } else { now_us };
        if from_us - now_us > (BURST - 1) * QUIET_US {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.empty_us = from_us.saturating_add(QUIET_US);
        Some(std::mem::replace(&mut self.left_out, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let mut burst = Burst::new();
        let start_us = 1 << 40;
        let passed = (0..1000).filter(|n| burst.admit(start_us + n).is_some()).count();
        assert_eq!(passed as u64, BURST);
        let mut told = Vec::new();
        for now_us in (start_us + 1000..start_us + 10_001_000).step_by(10_000) {
            told.extend(burst.admit(now_us));
        }
        assert_eq!(told.len(), 9, "the first of the ten seconds pays for the burst: {told:?}");
        assert_eq!(told[0], 980 + 100, "what was left out is told by the next");
        assert!(burst.admit(start_us + (1 << 39)).is_some());
        let again = (0..100).filter(|_| burst.admit(start_us + (1 << 39)).is_some()).count();
        assert_eq!(again as u64, BURST - 1, "after a rest all of the burst is free again");
    }

    #[test]
    fn the_first_is_told_at_once_and_then_one_a_second_with_a_count() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.admit(5), Some(0));
        for n in 1..=123 {
            assert_eq!(limiter.admit(5 + n), None);
        }
        assert_eq!(limiter.admit(1_000_004), None);
        assert_eq!(limiter.admit(1_000_005), Some(124));
        assert_eq!(limiter.admit(1_000_006), None);
        assert_eq!(limiter.admit(9_000_000), Some(1));
        assert_eq!(limiter.admit(10_000_000), Some(0), "nothing was left out since");
    }

    #[test]
    fn what_was_left_out_last_is_told_though_nothing_follows() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.overdue(0), None);
        assert_eq!(limiter.admit(0), Some(0));
        assert_eq!(limiter.overdue(2_000_000), None, "nothing to say");
        assert_eq!(limiter.admit(2_000_000), Some(0));
        assert_eq!(limiter.admit(2_000_001), None);
        assert_eq!(limiter.overdue(3_999_999), None, "something may still come to carry it");
        assert_eq!(limiter.overdue(4_000_000), Some(1));
        assert_eq!(limiter.overdue(9_000_000), None, "told once");
    }

    #[test]
    fn asking_whether_a_count_is_overdue_counts_nothing() {
        let mut limiter = Limiter::default();
        limiter.admit(0);
        limiter.admit(1);
        for now_us in 2..50 {
            assert_eq!(limiter.overdue(now_us), None);
        }
        assert_eq!(limiter.overdue(2_000_000), Some(1));
    }

    #[test]
    fn two_lines_never_come_within_a_second() {
        let mut limiter = Limiter::default();
        let mut told: Vec<u64> = Vec::new();
        for now_us in (0..10_000_000).step_by(10_007) {
            let line = limiter.admit(now_us).or_else(|| limiter.overdue(now_us));
            if line.is_some() {
                told.push(now_us);
            }
        }
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= QUIET_US), "{told:?}");
        assert_eq!(told.len(), 10);
    }
}
