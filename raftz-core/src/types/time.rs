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
