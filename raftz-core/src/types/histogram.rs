//! How values spread: counts in fixed ranges, cheap enough to be kept where every batch passes.

/// How many bounds a histogram has. Above the last one is one more range.
pub const BOUNDS: usize = 22;

/// Bounds of times in microseconds: ten microseconds to a minute.
const TIMES_US: [u64; BOUNDS] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 30_000_000, 60_000_000,
];

/// Bounds of numbers of things: powers of two.
const SIZES: [u64; BOUNDS] = {
    let mut bounds = [1; BOUNDS];
    let mut at = 1;
    while at < BOUNDS {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// What a histogram counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Times, in microseconds.
    TimesUs,
    /// Numbers of things.
    Sizes,
}

impl Measure {
    /// The largest value of each range but the last, ascending.
    pub const fn bounds(self) -> &'static [u64; BOUNDS] {
        match self {
            Self::TimesUs => &TIMES_US,
            Self::Sizes => &SIZES,
        }
    }

    /// The range that a value falls into.
    pub(crate) fn range_of(self, value: u64) -> usize {
        self.bounds().partition_point(|bound| *bound < value)
    }
}

/// How often values fell into each of some fixed ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    measure: Measure,
    counts: [u64; BOUNDS + 1],
    sum: u64,
}

impl Histogram {
    /// One that has counted nothing.
    pub const fn new(measure: Measure) -> Self {
        Self { measure, counts: [0; BOUNDS + 1], sum: 0 }
    }

    /// One that has counted this. `counts` are of the ranges, in their order.
    pub(crate) const fn of(measure: Measure, counts: [u64; BOUNDS + 1], sum: u64) -> Self {
        Self { measure, counts, sum }
    }

    /// Counts a value `times` times.
    pub fn add(&mut self, value: u64, times: u64) {
        if let Some(count) = self.counts.get_mut(self.measure.range_of(value)) {
            *count = count.saturating_add(times);
        }
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    /// Counts values that all fall into the range of `one` of them.
    pub(crate) fn add_together(&mut self, one: u64, count: u64, sum: u64) {
        if let Some(cell) = self.counts.get_mut(self.measure.range_of(one)) {
            *cell = cell.saturating_add(count);
        }
        self.sum = self.sum.saturating_add(sum);
    }

    /// What it counts.
    pub const fn measure(&self) -> Measure {
        self.measure
    }

    /// How many values it has counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Their sum.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// How many values fell into each range, in the order of [`Measure::bounds`]; the last is what lies above
    /// all of them.
    pub const fn counts(&self) -> &[u64; BOUNDS + 1] {
        &self.counts
    }

    /// A bound that at least this part of the values does not exceed, 0.99 for the 99th percentile; `None` if
    /// nothing was counted, or if it lies above all bounds.
    pub fn at_most(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let wanted = (count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut reached = 0_u64;
        for (bound, count) in self.measure.bounds().iter().zip(&self.counts) {
            reached = reached.saturating_add(*count);
            if reached >= wanted {
                return Some(*bound);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_range_that_ends_with_it() {
        let mut times = Histogram::new(Measure::TimesUs);
        for value in [0, 10, 11, 60_000_000, 60_000_001, u64::MAX] {
            times.add(value, 1);
        }
        assert_eq!((times.counts()[0], times.counts()[1]), (2, 1));
        assert_eq!((times.counts()[BOUNDS - 1], times.counts()[BOUNDS]), (1, 2));
        assert_eq!((times.count(), times.sum()), (6, u64::MAX), "sums stay at their end");
    }

    #[test]
    fn bounds_ascend() {
        for measure in [Measure::TimesUs, Measure::Sizes] {
            assert!(measure.bounds().windows(2).all(|pair| pair[0] < pair[1]));
        }
        assert_eq!(Measure::Sizes.bounds()[BOUNDS - 1], 1 << (BOUNDS - 1));
    }

    #[test]
    fn a_part_of_the_values_lies_below_its_bound() {
        let mut sizes = Histogram::new(Measure::Sizes);
        assert_eq!(sizes.at_most(0.5), None, "of nothing");
        sizes.add(3, 99);
        sizes.add(1 << 40, 1);
        assert_eq!((sizes.at_most(0.5), sizes.at_most(0.99)), (Some(4), Some(4)));
        assert_eq!(sizes.at_most(1.0), None, "above all bounds");
        assert_eq!(sizes.at_most(0.0), Some(4));
    }
}
