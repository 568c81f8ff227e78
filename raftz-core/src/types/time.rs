//! Time as the pure parts see it: given, never read.

/// What the clocks said when an input was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since the machine booted, suspended time included. All deadlines use it.
    pub boot_us: u64,
    /// Microseconds since 1970 by the wall clock. Used only to slew log time.
    pub wall_us: u64,
}

impl Now {
    /// The instant `us` microseconds later on both clocks.
    #[must_use]
    pub const fn plus_us(self, us: u64) -> Self {
        Self { boot_us: self.boot_us.saturating_add(us), wall_us: self.wall_us.saturating_add(us) }
    }
}

/// The earliest of some moments; `None` is never.
pub(crate) fn earliest<const N: usize>(moments: [Option<u64>; N]) -> Option<u64> {
    let mut nearest = None;
    for moment in moments {
        nearest = match (nearest, moment) {
            (Some(a), Some(b)) if b < a => moment,
            (None, Some(_)) => moment,
            (Some(_) | None, _) => nearest,
        };
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_moment_is_found_among_those_that_never_come() {
        assert_eq!(earliest([None, None]), None);
        assert_eq!(earliest([None, Some(3), None]), Some(3));
        assert_eq!(earliest([Some(3), Some(2), None, Some(5)]), Some(2));
        assert_eq!(earliest([Some(0), Some(u64::MAX)]), Some(0));
    }
}
