//! Three nodes; the leader stops; another takes over and writes go on; the old one comes back and
//! catches up.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use raftz_core::node::Node;
use raftz_core::types::{Index, NodeId, Outcome};
use raftz_examples::{
    PATIENCE, Ports, Result, config, digest, get, node_id, report, set, start, wait_until,
};

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

    let place = (0..3)
        .find(|place| node_id(*place).is_ok_and(|id| id == first))
        .ok_or("the leader is none of the three")?;
    let stopped = nodes[place].take().ok_or("the leader is gone already")?;
    stopped.shutdown(PATIENCE)?;
    drop(stopped);
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
    nodes[place] = Some(back);
    println!("it has caught up to entry {last}");
    last = write(&nodes, "all", "back")?;
    table(&nodes)?;

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

fn table(nodes: &[Option<Node>]) -> Result<()> {
    println!("  node  role       term  commit  applied  last");
    for (place, node) in nodes.iter().enumerate() {
        let id = node_id(place)?;
        match node.as_ref().map(Node::status) {
            None => println!("  {id:<5} stopped"),
            Some(status) => println!(
                "  {id:<5} {:<10} {:<5} {:<7} {:<8} {}",
                status.role, status.term, status.commit, status.applied, status.last.index
            ),
        }
    }
    Ok(())
}
