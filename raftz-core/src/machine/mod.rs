//! The state machine: what the cluster keeps one copy of on every node.
//!
//! This file is the contract. Two machines come with the library: the key-value store
//! ([`KvStore`]) and a counter for tests and benchmarks ([`CountingMachine`]). When `apply` is
//! called, and on which thread, is decided elsewhere; a machine only says what a command does.

mod counter;
pub mod kv;

use std::io::{Read, Write};

use bytes::Bytes;

use crate::types::{Index, Reply, Term};

pub use counter::CountingMachine;
pub use kv::{KvCommand, KvQuery, KvReply, KvStore};

/// One committed command, in log order.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Index of its entry. Indexes grow but have gaps: not every entry is a command.
    pub index: Index,
    /// Term of its entry.
    pub term: Term,
    /// The cluster's clock when it was appended, in microseconds; never decreases.
    pub log_time_us: u64,
    /// The bytes that were proposed. A clone of them costs no copy, and keeps in memory the buffer that they came in.
    pub payload: &'a Bytes,
}

/// Why a machine failed. Faults the replica; a command that is merely wrong is a
/// [`Reply::Rejected`] instead.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// A deterministic state machine. Everything it does must follow from the commands alone: no
/// clock, no randomness, no hash order, nothing of the machine it runs on.
///
/// `apply`, `query`, `restore` and `snapshot` are called from one thread at a time, never from the
/// event loop unless [`StateMachine::never_blocks`] says so.
pub trait StateMachine: Send {
    /// Applies commands in order and pushes exactly one reply for each.
    ///
    /// # Errors
    /// Faults this replica. A half-applied batch is never taken for an applied one. The fault names the first
    /// command without a reply.
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError>;

    /// Answers a read-only request from the present state.
    ///
    /// # Errors
    /// The asker is told; the replica goes on, for a query changes nothing.
    fn query(&self, request: &[u8]) -> Result<Reply, MachineError>;

    /// Freezes the present state, cheaply: it is written later, while commands go on.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError>;

    /// Replaces the whole state by what a [`SnapshotView`] wrote. May be called again with the
    /// same content; a failure leaves the replica faulted.
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError>;

    /// For a machine that persists itself: the index of the last command in its own storage, stored there
    /// at once with what the command did; [`Index::ZERO`] while there is none. Asked once, when the node
    /// starts. Commands up to there are not applied again, and none is applied before it is on this node's
    /// own disk. `None`, the default: the machine is rebuilt from the log at every start.
    ///
    /// # Errors
    /// The node does not start.
    fn applied_index(&mut self) -> Result<Option<Index>, MachineError> {
        Ok(None)
    }

    /// Whether no method ever blocks or takes long, so that all may run on the event loop.
    fn never_blocks(&self) -> bool {
        false
    }
}

/// A frozen state, on its way into a snapshot file. Called on another thread than the machine.
pub trait SnapshotView: Send {
    /// Writes the whole state.
    fn write_to(&mut self, out: &mut dyn Write) -> std::io::Result<()>;
}

/// Makes the machine of a replica. Called on the thread that starts the node.
pub type MachineFactory = Box<dyn FnOnce() -> Result<Box<dyn StateMachine>, MachineError> + Send>;
