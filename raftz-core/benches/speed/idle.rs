//! What a node takes that has nothing to do: memory, and time of a core for heartbeats.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Machine, Member, Place};
use super::figures::Figures;

const TIME: Duration = Duration::from_secs(10);
/// The default.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// What a heartbeat and its answer take on the wire.
const HEARTBEAT_BYTES: usize = 100;

/// The part of a core that the unavoidable takes: a thread that sends two peers a heartbeat each and reads their
/// answers, and does nothing else.
fn floor_percent() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut peers: Vec<TcpStream> = (0..2)
        .map(|_| {
            let near = TcpStream::connect(address).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            far.set_nodelay(true).unwrap();
            near.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut heartbeat = [0; HEARTBEAT_BYTES];
                while far.read_exact(&mut heartbeat).is_ok() && far.write_all(&heartbeat).is_ok() {}
            });
            near
        })
        .collect();
    let used = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (begun, before) = (Instant::now(), used());
    let mut heartbeat = [0; HEARTBEAT_BYTES];
    let mut next = begun;
    while begun.elapsed() < TIME {
        next += HEARTBEAT;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        for peer in &mut peers {
            peer.write_all(&heartbeat).unwrap();
        }
        for peer in &mut peers {
            peer.read_exact(&mut heartbeat).unwrap();
        }
    }
    (used() - before) as f64 / begun.elapsed().as_nanos() as f64 * 100.0
}

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
    drop(cluster);
    let floor = floor_percent();
    println!(
        "     floor: {floor:.2} % of a core: a thread that exchanges a leader's heartbeats, and nothing else"
    );
    figures.set("idle_floor_cpu_percent", Some(floor));
    figures.set("idle_rss_mib", Some(most_mib));
    figures.set("idle_cpu_percent", Some(most_percent));
}
