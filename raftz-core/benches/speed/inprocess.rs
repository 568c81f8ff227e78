//! Three nodes in one process that talk through memory: what raftz costs without sockets and disks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::machine::CountingMachine;
use raftz_core::node::{Config, Node};
use raftz_core::transport::memory::MemoryNetwork;
use raftz_core::types::{ClusterId, NodeId};

use super::figures::{Figures, Run, Runs, rounds};
use super::member;

const LOADS: [usize; 3] = [1, 64, 1024];

fn start(metrics: bool) -> Vec<Node> {
    let network = MemoryNetwork::new();
    let id = |raw| NodeId::new(raw).expect("ids start at one");
    let node = |raw| {
        let mut config = Config::new(id(raw), ClusterId(1));
        config.metrics = metrics;
        for founder in 1..=3 {
            config = config.with_founder(id(founder), format!("127.0.0.1:{founder}"));
        }
        Node::start_in_network(config, &network, || Ok(Box::<CountingMachine>::default() as _))
            .expect("starts")
    };
    (1..=3).map(node).collect()
}

/// One run, with empty logs: they grow as long as nothing compacts them, and memory that nobody has touched yet
/// costs what the machine's host makes of it.
pub(crate) fn run(outstanding: usize, metrics: bool) -> String {
    let mut nodes = start(metrics);
    let leader = nodes[0].wait_for_leader(Duration::from_secs(10)).expect("a leader");
    let at = usize::try_from(leader.get()).expect("small") - 1;
    member::load(Arc::new(nodes.remove(at)), outstanding, Bytes::from(vec![7u8; 64]))
}

pub(crate) fn bench(figures: &mut Figures) {
    println!("\nthree nodes in one process, 64-byte writes");
    println!("{:>6} {:>11} {:>8} {:>8}  spread", "outst.", "writes/s", "p50 µs", "p99 µs");
    for outstanding in LOADS {
        if !super::is_chosen("RAFTZ_BENCH_LOADS", &outstanding.to_string()) {
            continue;
        }
        let mut runs = Runs::default();
        for _ in 0..rounds() {
            runs.add(Run::parse(&run(outstanding, true)));
        }
        let writes = runs.writes_per_s();
        let (p50, p99, spread) = (runs.p50_us(), runs.p99_us(), runs.spread());
        println!("{outstanding:>6} {writes:>11.0} {p50:>8.1} {p99:>8.1}  {spread}");
        figures.set(&format!("inprocess_writes_per_s_{outstanding}"), Some(writes));
    }
}
