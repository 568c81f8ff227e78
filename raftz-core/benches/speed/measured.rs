//! What counting and measuring costs: the same writes in one process with metrics and without, in turns.

use super::figures::{Figures, Run, Runs, rounds};
use super::inprocess;

const LOADS: [usize; 2] = [64, 1024];

pub(crate) fn bench(figures: &mut Figures) {
    println!("\nmetrics: three nodes in one process, 64-byte writes, with and without in turns");
    println!("{:>6} {:>11} {:>11} {:>7}", "outst.", "with/s", "without/s", "ratio");
    for outstanding in LOADS {
        let (mut with, mut without) = (Runs::default(), Runs::default());
        // Twice as many as elsewhere: what is looked for is smaller than the noise of one run.
        for round in 0..2 * rounds() {
            for turn in [round % 2 == 0, round % 2 == 1] {
                let runs = if turn { &mut with } else { &mut without };
                runs.add(Run::parse(&inprocess::run(outstanding, turn)));
            }
        }
        let (with, without) = (with.writes_per_s(), without.writes_per_s());
        let ratio = with / without;
        println!("{outstanding:>6} {with:>11.0} {without:>11.0} {ratio:>7.3}");
        figures.set(&format!("metrics_throughput_ratio_{outstanding}"), Some(ratio));
    }
}
