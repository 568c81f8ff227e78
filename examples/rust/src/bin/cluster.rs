//! Three nodes; the leader stops; another takes over and writes go on; the old one comes back and
//! catches up: at first from the others' logs, and when it has missed more than those still hold, by a
//! snapshot.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use raftz_core::node::{Config, Node};
use raftz_core::types::{Event, Histogram, Index, NodeId, Outcome, SnapshotPhase};
use raftz_examples::{
    PATIENCE, Ports, Result, digest, get, node_id, report, set, start, wait_until,
};

/// Writes that the stopped node misses: several times the entries between two snapshots.
const MISSED: u64 = 300;

fn main() -> ExitCode {
    report("cluster", run)
}

fn run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = Ports::reserve(3)?;
    let addresses = ports.addresses();
    let mut nodes = (0..3)
        .map(|place| Ok(Some(start(config(place, &addresses, directory.path())?)?)))
        .collect::<Result<Vec<Option<Node>>>>()?;

    let first = agreed_leader(&nodes, None)?;
    println!("node {first} leads");
    let mut last = Index::ZERO;
    for (key, value) in [("name", "raftz"), ("kind", "library"), ("home", "on three disks")] {
        last = write(&nodes, key, value)?;
        println!("set {key} = {value}: entry {last}");
    }
    table(&nodes)?;
    measured(&nodes, first)?;

    let place = (0..3)
        .find(|place| node_id(*place).is_ok_and(|id| id == first))
        .ok_or("the leader is none of the three")?;
    stop(&mut nodes, place)?;
    let since = Instant::now();
    println!("\nstopped node {first}, the leader");

    let second = agreed_leader(&nodes, Some(first))?;
    println!("node {second} leads, {} ms later", since.elapsed().as_millis());
    for (key, value) in [("name", "raftz, still"), ("missed-by", "the old leader")] {
        last = write(&nodes, key, value)?;
        println!("set {key} = {value}: entry {last}");
    }
    table(&nodes)?;

    println!("\nstarting node {first} again");
    let back = start(config(place, &addresses, directory.path())?)?;
    back.wait_for_applied(last, PATIENCE)?;
    for (key, value) in [("name", "raftz, still"), ("missed-by", "the old leader")] {
        if get(&back, key)?.as_deref() != Some(value.as_bytes()) {
            return Err(format!("the node that came back does not have {key} = {value}").into());
        }
    }
    if back.status().base.index > Index::ZERO {
        return Err("so few entries, and not all of them are in its log".into());
    }
    nodes[place] = Some(back);
    println!("it has caught up to entry {last}, from the others' logs");
    table(&nodes)?;

    stop(&mut nodes, place)?;
    println!("\nstopped node {first} again; {MISSED} writes go on without it");
    let has = last;
    for number in 1..=MISSED {
        last = write(&nodes, &format!("page {}", number % 20), &number.to_string())?;
    }
    wait_until("no log holds what it lacks", || {
        nodes.iter().flatten().all(|node| node.status().base.index > has)
    })?;
    table(&nodes)?;
    println!("it ends at entry {has}, and the logs of the others begin later");

    println!("\nstarting node {first} again");
    let installed = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&installed);
    let mut lagging = config(place, &addresses, directory.path())?;
    lagging.on_event = Some(Arc::new(move |_, event| {
        if let Event::Snapshot { phase: SnapshotPhase::Installed, index, .. } = event {
            seen.store(index.0, Ordering::Relaxed);
        }
    }));
    let back = start(lagging)?;
    back.wait_for_applied(last, PATIENCE)?;
    wait_until("it tells of a snapshot", || installed.load(Ordering::Relaxed) > has.0)?;
    nodes[place] = Some(back);
    let snapshot = installed.load(Ordering::Relaxed);
    println!(
        "it has caught up to entry {last}: by a snapshot up to entry {snapshot}, then the log"
    );
    write(&nodes, "all", "back")?;
    table(&nodes)?;

    // As before the upkeep of a machine: nobody waits for an election.
    let leader = agreed_leader(&nodes, None)?;
    let mut running = nodes.iter().flatten();
    let leading = running.find(|node| node.id() == leader).ok_or("the leader is none of them")?;
    let since = Instant::now();
    let third = leading.transfer_leadership(None, PATIENCE)?;
    println!("\nnode {leader} hands over to node {third}, in {} ms", since.elapsed().as_millis());
    last = write(&nodes, "moved", "yes")?;

    let copies =
        nodes.iter().flatten().map(|node| digest(node, last)).collect::<Result<Vec<_>>>()?;
    if copies.len() != 3 || copies.iter().any(|copy| *copy != copies[0]) {
        return Err(format!("the stores differ: {copies:?}").into());
    }
    println!("three equal stores of {} keys, digest {:016x}", copies[0].0, copies[0].1);
    for node in nodes.iter().flatten() {
        node.shutdown(PATIENCE)?;
    }
    Ok(())
}

/// A node that takes a snapshot every hundred entries or so, and keeps no log behind it. The defaults are
/// a million entries or 64 MiB, and 16 MiB of log for those who are a little behind.
fn config(place: usize, addresses: &[String], root: &Path) -> Result<Config> {
    let mut config = raftz_examples::config(place, addresses, root)?;
    config.snapshot_log_entries = 100;
    config.snapshot_retain_bytes = 0;
    Ok(config)
}

fn stop(nodes: &mut [Option<Node>], place: usize) -> Result<()> {
    let node = nodes[place].take().ok_or("it is stopped already")?;
    Ok(node.shutdown(PATIENCE)?)
}

/// The leader that all running nodes know, and that is not `but`.
fn agreed_leader(nodes: &[Option<Node>], but: Option<NodeId>) -> Result<NodeId> {
    let mut agreed = None;
    wait_until("the nodes agree on a leader", || {
        let mut known = nodes.iter().flatten().map(|node| node.status().leader);
        agreed = known.next().flatten().filter(|leader| Some(*leader) != but);
        agreed.is_some() && known.all(|leader| leader == agreed)
    })?;
    agreed.ok_or_else(|| "no leader".into())
}

/// Writes through the first node that runs, whichever role it has. Setting a key again does no
/// harm, so whatever is not done is tried again.
fn write(nodes: &[Option<Node>], key: &str, value: &str) -> Result<Index> {
    let node = nodes.iter().flatten().next().ok_or("no node runs")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let why = match node.propose_blocking(set(key, value), Duration::from_secs(5)) {
            Outcome::Done(done) => return Ok(done.index),
            Outcome::Refused(why) => why.to_string(),
            Outcome::Unknown(why) => why.to_string(),
        };
        if Instant::now() > deadline {
            return Err(format!("set {key}: {why}").into());
        }
        println!("set {key}: {why}; trying again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a leader has measured, of itself and of the others.
fn measured(nodes: &[Option<Node>], leader: NodeId) -> Result<()> {
    let mut nodes = nodes.iter().flatten();
    let node = nodes.find(|node| node.id() == leader).ok_or("the leader is none of the three")?;
    wait_until("it has heard the others", || {
        let peers = node.metrics().peers;
        peers.len() == 2 && peers.iter().all(|it| it.progress.is_some_and(|it| it.rtt.is_some()))
    })?;
    let metrics = node.metrics();
    let p99_us = |times: &Histogram| times.at_most(0.99).unwrap_or_default();
    println!(
        "  {} writes of the log, 99 of 100 within {} \u{b5}s; commits within {} \u{b5}s",
        metrics.wal_fsync_us.count(),
        p99_us(&metrics.wal_fsync_us),
        p99_us(&metrics.commit_us),
    );
    for peer in &metrics.peers {
        let progress = peer.progress.ok_or("a leader knows how far others are")?;
        let (lag, rtt) = (progress.lag_entries, progress.rtt.unwrap_or_default());
        println!("  node {} lags by {lag} entries; a heartbeat takes {rtt:?}", peer.id);
    }
    Ok(())
}

fn table(nodes: &[Option<Node>]) -> Result<()> {
    println!("  node  role       term  commit  applied  log");
    for (place, node) in nodes.iter().enumerate() {
        let id = node_id(place)?;
        match node.as_ref().map(Node::status) {
            None => println!("  {id:<5} stopped"),
            Some(status) => println!(
                "  {id:<5} {:<10} {:<5} {:<7} {:<8} {} to {}",
                status.role,
                status.term,
                status.commit,
                status.applied,
                status.base.index.next(),
                status.last.index
            ),
        }
    }
    Ok(())
}
