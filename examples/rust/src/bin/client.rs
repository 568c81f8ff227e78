//! Three nodes, and clients on each of them that write at the same time.
//!
//! A client may talk to any node: a follower hands proposals on to the leader. What it must do is
//! tell the three kinds of outcome apart. Done is done. Refused is certainly not in the log: try
//! again. Unknown may have happened or may yet: whether to try again depends on the command, and
//! this example has one of each kind.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use raftz_core::machine::KvCommand;
use raftz_core::node::Node;
use raftz_core::types::{Index, Outcome, Reply};
use raftz_examples::{PATIENCE, Ports, Result, config, digest, get, report, set, start};

const CLIENTS_PER_NODE: usize = 2;
const WRITES_PER_CLIENT: usize = 100;

fn main() -> ExitCode {
    report("client", run)
}

/// What one client saw.
#[derive(Default)]
struct Tally {
    done: u64,
    refused: u64,
    unknown: u64,
    /// Increments of the shared counter that are certain, and those that may have happened.
    counted: u64,
    perhaps_counted: u64,
    last: Index,
}

fn run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = Ports::reserve(3)?;
    let addresses = ports.addresses();
    let nodes = (0..3)
        .map(|place| start(config(place, &addresses, directory.path())?))
        .collect::<Result<Vec<_>>>()?;
    let leader = nodes[0].wait_for_leader(PATIENCE)?;
    println!("three nodes at {}; node {leader} leads", addresses.join(", "));

    let tallies = thread::scope(|scope| {
        let clients: Vec<_> = nodes
            .iter()
            .flat_map(|node| (0..CLIENTS_PER_NODE).map(move |client| (node, client)))
            .map(|(node, client)| scope.spawn(move || write_all(node, client)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err("a client panicked".into())))
            .collect::<Result<Vec<_>>>()
    })?;

    let sum = |field: fn(&Tally) -> u64| tallies.iter().map(field).sum::<u64>();
    println!(
        "{} clients: {} done, {} refused and tried again, {} unknown",
        tallies.len(),
        sum(|t| t.done),
        sum(|t| t.refused),
        sum(|t| t.unknown)
    );

    let last = tallies.iter().map(|tally| tally.last).max().unwrap_or_default();
    let copies = nodes.iter().map(|node| digest(node, last)).collect::<Result<Vec<_>>>()?;
    for (node, (entries, digest)) in nodes.iter().zip(&copies) {
        let status = node.status();
        println!(
            "node {} {:<9} term {} applied {} keys {entries} digest {digest:016x}",
            node.id(),
            status.role,
            status.term,
            status.applied
        );
    }
    if copies.iter().any(|copy| *copy != copies[0]) {
        return Err("the nodes' stores differ".into());
    }
    for node in &nodes {
        for writer in &nodes {
            for client in 0..CLIENTS_PER_NODE {
                for n in 0..WRITES_PER_CLIENT {
                    let (key, value) = pair(writer, client, n);
                    if get(node, &key)?.as_deref() != Some(value.as_bytes()) {
                        return Err(format!("node {} does not have {key}", node.id()).into());
                    }
                }
            }
        }
    }
    let counter = get(&nodes[0], "counter")?.unwrap_or_default();
    let counter: u64 = std::str::from_utf8(&counter)?.parse()?;
    let (least, most) = (sum(|t| t.counted), sum(|t| t.counted + t.perhaps_counted));
    println!("counter: {counter}, between {least} certain and {most} possible increments");
    if !(least..=most).contains(&counter) {
        return Err("the counter is not what the outcomes allow".into());
    }
    for node in &nodes {
        node.shutdown(PATIENCE)?;
    }
    Ok(())
}

fn pair(node: &Node, client: usize, n: usize) -> (String, String) {
    (format!("{}/{client}/{n}", node.id()), format!("value {n} of client {client}"))
}

fn write_all(node: &Node, client: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for n in 0..WRITES_PER_CLIENT {
        let (key, value) = pair(node, client, n);
        write(node, &key, &value, &mut tally)?;
        if n % 10 == 0 {
            count(node, &mut tally)?;
        }
    }
    Ok(tally)
}

/// Setting a key to a value twice is the same as doing it once, so every failure may be retried.
fn write(node: &Node, key: &str, value: &str, tally: &mut Tally) -> Result<()> {
    loop {
        match node.propose_blocking(set(key, value), PATIENCE) {
            Outcome::Done(done) => {
                tally.last = tally.last.max(done.index);
                tally.done += 1;
                return match done.reply {
                    Reply::Ok(_) => Ok(()),
                    Reply::Rejected(why) => Err(String::from_utf8_lossy(&why).into()),
                };
            }
            Outcome::Refused(why) => {
                tally.refused += 1;
                pause_after(&why.to_string(), tally.refused)?;
            }
            Outcome::Unknown(why) => {
                tally.unknown += 1;
                pause_after(&why.to_string(), tally.unknown)?;
            }
        }
    }
}

/// Counting twice is not the same as counting once, so an unknown outcome is left alone: only
/// sessions, which raftz does not have yet, could tell whether it happened.
fn count(node: &Node, tally: &mut Tally) -> Result<()> {
    loop {
        let command = KvCommand::Increment { key: "counter".into(), by: 1 };
        match node.propose_blocking(command.encode(), PATIENCE) {
            Outcome::Done(done) => {
                tally.last = tally.last.max(done.index);
                tally.done += 1;
                tally.counted += 1;
                return match done.reply {
                    Reply::Ok(_) => Ok(()),
                    Reply::Rejected(why) => Err(String::from_utf8_lossy(&why).into()),
                };
            }
            Outcome::Refused(why) => {
                tally.refused += 1;
                pause_after(&why.to_string(), tally.refused)?;
            }
            Outcome::Unknown(_) => {
                tally.unknown += 1;
                tally.perhaps_counted += 1;
                return Ok(());
            }
        }
    }
}

/// A short wait before the next try; gives up when there have been absurdly many.
fn pause_after(why: &str, tries: u64) -> Result<()> {
    if tries > 1000 {
        return Err(format!("gave up after {tries} tries: {why}").into());
    }
    thread::sleep(Duration::from_millis(10));
    Ok(())
}
