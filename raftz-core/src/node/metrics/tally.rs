//! How proposals end, counted by the event loop without atomics: a million of them a second pass here.

use crate::types::{BOUNDS, Histogram, Measure, Outcome};

use super::{Meter, REASONS, reason};

/// What has ended since it was last handed over.
#[derive(Debug)]
pub(crate) struct Tally {
    committed: u64,
    failed: [u64; REASONS.len()],
    times_us: Histogram,
    /// Times that fell into one range, one after the other: its bounds, how many there are, and their sum.
    run: Run,
}

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    above_us: u64,
    upto_us: u64,
    count: u64,
    sum_us: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            committed: 0,
            failed: [0; REASONS.len()],
            times_us: Histogram::new(Measure::TimesUs),
            run: Run::default(),
        }
    }
}

impl Tally {
    /// A proposal has ended like this, after this time.
    pub(crate) fn ended(&mut self, outcome: &Outcome, took_us: u64) {
        match outcome {
            Outcome::Done(_) => self.committed += 1,
            Outcome::Refused(_) | Outcome::Unknown(_) => self.failed[reason(outcome.code())] += 1,
        }
        // Those that end together have begun together, as a rule: the range is looked up once for all of them.
        if took_us <= self.run.above_us || took_us > self.run.upto_us {
            self.close_run();
            let bounds = Measure::TimesUs.bounds();
            let range = Measure::TimesUs.range_of(took_us);
            let above_us = range.checked_sub(1).map_or(0, |below| bounds[below]);
            let upto_us = if range < BOUNDS { bounds[range] } else { u64::MAX };
            self.run = Run { above_us, upto_us, count: 0, sum_us: 0 };
        }
        self.run.count += 1;
        self.run.sum_us = self.run.sum_us.saturating_add(took_us);
    }

    fn close_run(&mut self) {
        let Run { upto_us, count, sum_us, .. } = self.run;
        if count > 0 {
            self.times_us.add_together(upto_us, count, sum_us);
            (self.run.count, self.run.sum_us) = (0, 0);
        }
    }

    /// Hands over what it has.
    pub(crate) fn publish(&mut self, meter: &Meter) {
        self.close_run();
        meter.propose_us.take(&mut self.times_us);
        meter.committed.add(std::mem::take(&mut self.committed));
        for (cell, count) in meter.failed.iter().zip(&mut self.failed) {
            if *count > 0 {
                cell.add(std::mem::take(count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::types::{NodeId, Refusal};

    use super::*;

    #[test]
    fn runs_come_to_what_each_by_itself_comes_to() {
        let meter = Meter::new(NodeId::new(1).unwrap(), true);
        let mut tally = Tally::default();
        let mut each = Histogram::new(Measure::TimesUs);
        let outcome = Outcome::Refused(Refusal::StorageFull);
        for took_us in [0, 1, 10, 11, 15, 9, 1000, 1001, 999, 0, u64::MAX / 2, 70_000_000, 5] {
            tally.ended(&outcome, took_us);
            each.add(took_us, 1);
        }
        tally.publish(&meter);
        assert_eq!(meter.metrics(0).propose_us, each);
        assert_eq!(meter.metrics(0).proposals_failed[3], ("storage_full", 13));
        tally.publish(&meter);
        assert_eq!(meter.metrics(0).propose_us.count(), 13, "handed over once");
    }
}
