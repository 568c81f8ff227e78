//! How long nobody leads after a leader was killed: until a write is done at the next one.

use std::path::Path;
use std::time::Instant;

use super::cluster::{Cluster, Machine, Place};
use super::figures::{Figures, median};

const KILLS: usize = 50;

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let mut cluster = Cluster::start(Place::Disk, Machine::Counting, &dir.join("failover"));
    let mut times: Vec<f64> = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        let leader = cluster.leader();
        let witness = (leader + 1) % cluster.members.len();
        let begun = Instant::now();
        cluster.members[leader].kill();
        let end = cluster.members[witness].ask(&format!("write-after {}", leader + 1));
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(end, "done");
        cluster.restart(leader);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    let middle = median(times);
    println!("\nfailover, {KILLS} kills of the leader, until a write is done at the next one");
    println!("median {middle:.0} ms, worst {worst:.0} ms, with election timeouts of 150 to 300 ms");
    figures.set("failover_worst_ms", Some(worst));
    figures.set("failover_median_ms", Some(middle));
}
