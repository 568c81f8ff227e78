//! From a long run that fails to a short one that fails in the same way.

use std::collections::BTreeSet;

use super::plan::Plan;
use super::{Report, Simulation};

impl Simulation {
    /// Looks for a shorter plan that violates the same property, in at most `runs` runs. Shortens the time
    /// and leaves faults out, in halves, quarters and so on, as long as the run goes on failing.
    pub fn shrink(&self, plan: &Plan, report: &Report, runs: usize) -> (Plan, Report) {
        let mut shrinker =
            Shrinker { simulation: self, best: (plan.clone(), report.clone()), left: runs };
        shrinker.shorten();
        shrinker.leave_faults_out();
        shrinker.shorten();
        shrinker.best
    }
}

struct Shrinker<'a> {
    simulation: &'a Simulation,
    best: (Plan, Report),
    left: usize,
}

impl Shrinker<'_> {
    /// Whether `plan` fails in the same way; then it is the best.
    fn holds(&mut self, plan: Plan) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let report = self.simulation.run(&plan);
        let property = |report: &Report| report.violation.as_ref().map(|v| v.property);
        let same = property(&report) == property(&self.best.1);
        if same {
            self.best = (plan, report);
        }
        same
    }

    fn shorten(&mut self) {
        let at_us = self.best.1.violation.as_ref().map_or(0, |violation| violation.at_us);
        if at_us > 0 && at_us < self.best.0.duration_us {
            let duration_us = at_us + 1;
            self.holds(Plan { duration_us, ..self.best.0.clone() });
        }
        // A failure after healing may need less of a storm before.
        let mut step_us = self.best.0.duration_us / 2;
        while step_us > 10_000 && self.left > 0 {
            let duration_us = self.best.0.duration_us.saturating_sub(step_us);
            if duration_us == 0 || !self.holds(Plan { duration_us, ..self.best.0.clone() }) {
                step_us /= 2;
            }
        }
    }

    fn leave_faults_out(&mut self) {
        let drawn = self.best.1.faults_drawn;
        let mut size = drawn.div_ceil(2).max(1);
        loop {
            let mut from = 1;
            while from <= drawn && self.left > 0 {
                let some: BTreeSet<u64> = (from..=drawn.min(from + size - 1)).collect();
                if !some.is_subset(&self.best.0.skipped) {
                    let mut plan = self.best.0.clone();
                    plan.skipped.extend(some);
                    self.holds(plan);
                }
                from += size;
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }
}
