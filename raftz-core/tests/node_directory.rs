//! A node's directory is where it was when the node started. Alone here: a process has one working directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::Path;

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply, KvStore};
use raftz_core::node::{Config, Node, ProposeOptions};
use raftz_core::types::ClusterId;
use support::{LONG, done, id, until};

fn write(node: &Node, count: u64) {
    let value = Bytes::from(vec![7; 4096]);
    let commands: Vec<Bytes> = (0..count)
        .map(|n| KvCommand::Set { key: n.to_string().into(), value: value.clone() }.encode())
        .collect();
    for outcome in node.propose_batch(commands, ProposeOptions::default()).wait() {
        done(outcome);
    }
}

fn keys(node: &Node) -> u64 {
    let reply = node.query(KvQuery::Digest.encode(), LONG).unwrap();
    let Ok(KvReply::Digest { entries, .. }) = KvReply::decode(&reply) else { panic!() };
    entries
}

#[test]
fn a_relative_directory_stays_where_it_was_when_the_process_goes_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (root.path().join("here"), root.path().join("elsewhere"));
    // One of that name is there, too.
    std::fs::create_dir_all(elsewhere.join("node")).unwrap();
    std::fs::create_dir(&here).unwrap();
    std::env::set_current_dir(&here).unwrap();
    let mut config = Config::new(id(1), ClusterId(0xd1)).with_directory("node");
    config = config.with_founder(id(1), "127.0.0.1:7999");
    config.entry_bytes_max = 64 << 10;
    config.segment_bytes = 128 << 10;
    config.snapshot_retain_bytes = 0;
    Node::bootstrap(&config).unwrap();
    let begin = || Node::start(config.clone(), || Ok(Box::new(KvStore::new()))).unwrap();
    let node = begin();
    node.wait_for_leader(LONG).unwrap();

    std::env::set_current_dir(&elsewhere).unwrap();
    for _ in 0..5 {
        write(&node, 100);
        node.snapshot(LONG).unwrap();
    }
    until("segments to go", || segments(&here.join("node")) < 5);
    assert!(std::fs::read_dir(elsewhere.join("node")).unwrap().next().is_none());
    node.shutdown(LONG).unwrap();

    std::env::set_current_dir(&here).unwrap();
    let node = begin();
    node.wait_for_leader(LONG).unwrap();
    assert_eq!(keys(&node), 100);
    std::env::set_current_dir("/").unwrap();
}

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().flatten();
    names.filter(|name| name.file_name().to_string_lossy().starts_with("wal-")).count()
}
