//! Reads, in member processes that keep their logs in memory and talk over TCP: how many a leader confirms, beside
//! the writes that it commits; how long one takes on a leader and on a follower; how many a node answers without
//! asking anybody.

use std::path::Path;

use super::cluster::{Cluster, Machine, Place};
use super::figures::{Figures, Run, Runs, rounds};

const OUTSTANDING: usize = 256;

pub(crate) fn bench(dir: &Path, figures: &mut Figures) {
    let mut cluster = Cluster::start(Place::Memory, Machine::Counting, dir);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let [mut writes, mut reads, mut stale] = [(); 3].map(|()| Runs::default());
    let [mut near, mut far] = [(); 2].map(|()| Runs::default());
    for _ in 0..rounds() {
        let mut ask = |at: usize, line: String| Run::parse(&cluster.members[at].ask(&line));
        writes.add(ask(leader, format!("load {OUTSTANDING} 64")));
        reads.add(ask(leader, format!("read linearizable {OUTSTANDING}")));
        stale.add(ask(leader, format!("read stale {OUTSTANDING}")));
        near.add(ask(leader, "read linearizable 1".into()));
        far.add(ask(follower, "read linearizable 1".into()));
    }
    println!("\nreads over TCP: three processes, logs in memory");
    println!("{:>38} {:>11} {:>8} {:>8}  spread", "", "a second", "p50 µs", "p99 µs");
    let line = |what: &str, runs: &Runs| {
        let (rate, p50, p99) = (runs.writes_per_s(), runs.p50_us(), runs.p99_us());
        println!("{what:>38} {rate:>11.0} {p50:>8.0} {p99:>8.0}  {}", runs.spread());
    };
    line("writes, 256 outstanding", &writes);
    line("linearizable on the leader, 256", &reads);
    line("stale, 256", &stale);
    line("linearizable on the leader, 1", &near);
    line("linearizable on a follower, 1", &far);
    figures.set("read_linearizable_per_s_256", Some(reads.writes_per_s()));
    figures.set("read_over_write_ratio_256", Some(reads.writes_per_s() / writes.writes_per_s()));
    figures.set("read_stale_per_s", Some(stale.writes_per_s()));
    figures.set("read_follower_over_leader_latency", Some(far.p50_us() / near.p50_us()));
}
