//! Readable transcripts of the pure core, and the tests that attack it.
//!
//! A *transcript* (`*.txt` beside this file) is a script of verbs against a whole cluster of replicas in
//! one thread, with everything that the cluster says as expected output. `cluster` is that cluster:
//! a virtual clock, queues instead of sockets, a disk per node that makes nothing durable until it is told to,
//! snapshots in memory, and a machine whose state shows every difference in order. `oracle` watches each
//! step of each node and panics when Raft's promises are broken, whatever the expected output says. `chaos`
//! drives the same cluster at random. `cells` feeds one core messages that no honest peer sends.
//!
//! `REWRITE=1 cargo test --test scenarios` writes the transcripts anew: read the difference before
//! believing it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod by_hand;
mod cells;
mod chaos;
mod cluster;
mod disk;
mod machine;
mod oracle;
mod reads;
mod rules;
mod show;
mod snapshots;
mod solo;
mod transcripts;
mod verbs;
