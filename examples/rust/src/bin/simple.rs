//! One node with its data on disk: write, read, stop, start again, and find everything there.
//!
//! A cluster of one is a whole cluster: it elects itself, and what it acknowledges is on its disk.

use std::process::ExitCode;

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvReply};
use raftz_core::node::Node;
use raftz_core::types::{Done, Outcome};
use raftz_examples::{PATIENCE, Ports, Result, config, get, report, set, start};

fn main() -> ExitCode {
    report("simple", run)
}

fn run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = Ports::reserve(1)?;
    let config = config(0, &ports.addresses(), directory.path())?;

    let node = start(config.clone())?;
    let leader = node.wait_for_leader(PATIENCE)?;
    println!("node {} runs, listens at {}", node.id(), ports.addresses()[0]);
    println!("leader: node {leader}, term {}", node.status().term);

    let wrote = write(&node, set("greeting", "hello, log"))?;
    println!("set greeting: committed as entry {} of term {}", wrote.index, wrote.term);
    for expected in 1..=3 {
        let visits = write(&node, KvCommand::Increment { key: "visits".into(), by: 1 }.encode())?;
        if KvReply::decode(&visits.reply)? != KvReply::Number(expected) {
            return Err(format!("increment {expected} answered {:?}", visits.reply).into());
        }
    }
    // A command that makes no sense is committed like any other and turned down alike everywhere.
    let refused = write(&node, KvCommand::Increment { key: "greeting".into(), by: 1 }.encode())?;
    let answer = KvReply::decode(&refused.reply)?;
    let KvReply::Rejected(why) = answer else {
        return Err(format!("a text was incremented: {answer:?}").into());
    };
    println!("increment greeting: rejected: {why}");
    expect(&node, "greeting", "hello, log")?;
    expect(&node, "visits", "3")?;

    node.shutdown(PATIENCE)?;
    drop(node);
    println!("stopped; starting again on the same directory");

    let node = start(config)?;
    node.wait_for_applied(refused.index, PATIENCE)?;
    expect(&node, "greeting", "hello, log")?;
    expect(&node, "visits", "3")?;
    let status = node.status();
    println!("term {}, {} entries applied, life {}", status.term, status.applied, status.boot.0);
    node.shutdown(PATIENCE)?;
    Ok(())
}

fn write(node: &Node, command: Bytes) -> Result<Done> {
    match node.propose_blocking(command, PATIENCE) {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(why) => Err(why.into()),
        Outcome::Unknown(why) => Err(why.into()),
    }
}

fn expect(node: &Node, key: &str, expected: &str) -> Result<()> {
    let value = get(node, key)?;
    if value.as_deref() != Some(expected.as_bytes()) {
        return Err(format!("{key} should be {expected:?} and is {value:?}").into());
    }
    println!("get {key}: {expected}");
    Ok(())
}
