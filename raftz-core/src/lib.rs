//! Raft consensus as a library: one copy of your state machine on every node of a cluster, and
//! nothing lost that was acknowledged while a majority of the disks survives.
//!
//! There are three ways in, each usable alone:
//!
//! 1. **A node in a box**: [`node::Node`] with its durable log, TCP links and the key-value store.
//! 2. **Your own parts**: a [`machine::StateMachine`], a [`storage::Storage`] (put it through
//!    [`storage::conformance`]) or a [`transport::Transport`] of yours behind the same node.
//! 3. **The bare algorithm**: [`replica::Replica`] or [`raft::Raft`], pure objects without thread,
//!    clock, file or socket, for those who own the event loop.
//!
//! ```
//! use std::time::Duration;
//!
//! use raftz_core::machine::{KvCommand, KvStore};
//! use raftz_core::node::{Config, Node};
//! use raftz_core::types::{ClusterId, NodeId, Outcome};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id = NodeId::new(1).ok_or("ids begin at 1")?;
//! let config = Config::new(id, ClusterId(7)).with_founder(id, "127.0.0.1:7001"); // in memory
//! let node = Node::start(config, || Ok(Box::new(KvStore::new())))?;
//! let set = KvCommand::Set { key: "city".into(), value: "Torino".into() };
//! let outcome = node.propose_blocking(set.encode(), Duration::from_secs(5));
//! assert!(matches!(outcome, Outcome::Done(_)));
//! # Ok(())
//! # }
//! ```
//!
//! Every accepted call ends exactly once, by its deadline, as one of three kinds of
//! [`types::Outcome`]: done, refused (certainly not in the log) or unknown (it may still commit).
#![forbid(unsafe_code)]

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("raftz supports Linux with glibc on x86-64 and aarch64, and nothing else yet");

/// Whether the mistake of this name is planted: the literal `false`, so that nothing of it is left in
/// the library, except in a build that is to be found out (see `bugs`).
#[cfg(not(raftz_bugs))]
macro_rules! bug {
    ($name:ident) => {
        false
    };
}
#[cfg(raftz_bugs)]
macro_rules! bug {
    ($name:ident) => {
        $crate::bugs::is_planted($crate::bugs::Bug::$name)
    };
}

#[cfg(raftz_bugs)]
pub mod bugs;
pub mod machine;
pub mod node;
pub mod raft;
pub mod replica;
#[cfg(feature = "sim")]
pub mod sim;
pub mod storage;
pub mod transport;
pub mod types;
