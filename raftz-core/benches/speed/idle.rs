//! What a node takes that has nothing to do: memory, and time of a core for heartbeats.

use std::path::Path;
use std::time::Duration;

use super::cluster::{Cluster, Machine, Member, Place};
use super::figures::Figures;

const TIME: Duration = Duration::from_secs(10);

/// Nanoseconds on a core, and how often it was woken: all threads together.
fn used(member: &Member) -> (u64, u64) {
    let sum = |threads: Vec<u64>| threads.into_iter().sum();
    let nanos = member.of_threads("schedstat", |text| text.split(' ').next()?.parse().ok());
    let wakes = member.of_threads("status", |text| {
        text.lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
            .trim()
            .parse()
            .ok()
    });
    (sum(nanos), sum(wakes))
}

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let mut cluster = Cluster::start(Place::Disk, Machine::Counting, &dir.join("idle"));
    let leader = cluster.leader();
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<(u64, u64)> = cluster.members.iter().map(used).collect();
    std::thread::sleep(TIME);
    println!("\nidle for {} s, with the default heartbeats", TIME.as_secs());
    let (mut most_mib, mut most_percent) = (0.0_f64, 0.0_f64);
    for (at, (member, before)) in cluster.members.iter().zip(before).enumerate() {
        let now = used(member);
        let percent = (now.0 - before.0) as f64 / TIME.as_nanos() as f64 * 100.0;
        let wakes = (now.1 - before.1) / TIME.as_secs();
        let mib = member.mib("VmRSS:");
        let role = if at == leader { "leader" } else { "follower" };
        println!(
            "{role:>10}: {mib:.1} MiB resident, {percent:.2} % of a core, {wakes} wakes a second"
        );
        most_mib = most_mib.max(mib);
        most_percent = most_percent.max(percent);
    }
    figures.set("idle_rss_mib", Some(most_mib));
    figures.set("idle_cpu_percent", Some(most_percent));
}
