//! What counting and measuring costs: the same writes with metrics and without, side by side on one processor.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::figures::{Figures, Run, Runs, median, rounds};
use super::inprocess;

const LOADS: [usize; 2] = [64, 1024];

/// The last of the processors that this thread may use.
fn one_processor() -> CpuSet {
    let all = sched_getaffinity(None).expect("processors");
    let last = (0..CpuSet::MAX_CPU).rev().find(|at| all.is_set(*at)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(last);
    one
}

/// Two clusters at the same time, one with metrics, that share one processor. One run differs from the next by far more
/// than what is looked for, but whatever slows the machine slows both, and who needs less time gets further.
fn pair(outstanding: usize) -> [Run; 2] {
    let one = one_processor();
    let run = |metrics: bool| {
        // Threads inherit it.
        sched_setaffinity(None, &one).expect("may choose");
        Run::parse(&inprocess::run(outstanding, metrics))
    };
    std::thread::scope(|scope| {
        let without = scope.spawn(|| run(false));
        let with = scope.spawn(|| run(true));
        [with, without].map(|it| it.join().expect("a run"))
    })
}

pub(crate) fn bench(figures: &mut Figures) {
    println!(
        "\nmetrics: twice three nodes in one process, 64-byte writes, with and without, on one processor at the same time"
    );
    println!("{:>6} {:>11} {:>11} {:>7}", "outst.", "with/s", "without/s", "ratio");
    for outstanding in LOADS {
        let (mut with, mut without) = (Runs::default(), Runs::default());
        let mut ratios = Vec::new();
        for _ in 0..12 * rounds() {
            let [one, other] = pair(outstanding);
            ratios.push(one.writes_per_s / other.writes_per_s);
            with.add(one);
            without.add(other);
        }
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]);
        let (with, without, ratio) = (with.writes_per_s(), without.writes_per_s(), median(ratios));
        println!(
            "{outstanding:>6} {with:>11.0} {without:>11.0} {ratio:>7.3}  half of the pairs: [{low:.3}–{high:.3}]"
        );
        figures.set(&format!("metrics_throughput_ratio_{outstanding}"), Some(ratio));
    }
}
