//! What a node takes that has nothing to do: memory, and time of a core for heartbeats.

use std::path::Path;
use std::time::Duration;

use super::cluster::{Cluster, Machine, Member, Place};
use super::figures::Figures;

const TIME: Duration = Duration::from_secs(10);

/// Clock ticks that the process has used.
fn ticks(member: &Member) -> u64 {
    let stat = member.proc_file("stat");
    // The name may hold anything but a closing bracket after the last one.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let mut cluster = Cluster::start(Place::Disk, Machine::Counting, &dir.join("idle"));
    let leader = cluster.leader();
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<u64> = cluster.members.iter().map(ticks).collect();
    std::thread::sleep(TIME);
    println!("\nidle for {} s, with the default heartbeats", TIME.as_secs());
    let (mut most_mib, mut most_percent) = (0.0_f64, 0.0_f64);
    for (at, (member, before)) in cluster.members.iter().zip(before).enumerate() {
        // A tick is a hundredth of a second wherever Linux runs.
        let percent = (ticks(member) - before) as f64 / TIME.as_secs_f64();
        let mib = member.mib("VmRSS:");
        let role = if at == leader { "leader" } else { "follower" };
        println!("{role:>10}: {mib:.1} MiB resident, {percent:.2} % of a core");
        most_mib = most_mib.max(mib);
        most_percent = most_percent.max(percent);
    }
    figures.set("idle_rss_mib", Some(most_mib));
    figures.set("idle_cpu_percent", Some(most_percent));
}
