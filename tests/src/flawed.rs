//! Key-value stores with a flaw: [`Blockable`] can be told to stand still in `apply`, as a machine
//! does that waits for a disk or a lock of its own; [`Forgetful`] loses writes that it acknowledges, so
//! that a test can show that this is found out.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use raftz_core::machine::{
    Command, KvCommand, KvReply, KvStore, MachineError, SnapshotView, StateMachine,
};
use raftz_core::types::Reply;

/// Tells a [`Blockable`] to block.
#[derive(Clone, Debug, Default)]
pub struct Brake(Arc<AtomicU64>);

impl Brake {
    /// The next batch is held up for this long, once.
    pub fn block(&self, for_ms: u64) {
        self.0.store(for_ms, Ordering::SeqCst);
    }
}

/// The store behind a [`Brake`]. It says of itself that it may block, so it has a thread of its own.
pub struct Blockable<F> {
    store: KvStore,
    brake: Brake,
    /// Told before and after it stood still.
    tell: F,
}

impl<F: Fn(&str) + Send> Blockable<F> {
    /// An empty store; `tell` hears "blocked" and "unblocked".
    pub fn new(brake: Brake, tell: F) -> Self {
        Self { store: KvStore::new(), brake, tell }
    }
}

impl<F> std::fmt::Debug for Blockable<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blockable").field("brake", &self.brake).finish_non_exhaustive()
    }
}

impl<F: Fn(&str) + Send> StateMachine for Blockable<F> {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        let for_ms = self.brake.0.swap(0, Ordering::SeqCst);
        if for_ms > 0 {
            (self.tell)("blocked");
            std::thread::sleep(Duration::from_millis(for_ms));
            (self.tell)("unblocked");
        }
        self.store.apply(batch, replies)
    }

    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.store.query(request)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        self.store.snapshot()
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        self.store.restore(from)
    }
}

/// A store that now and then says that a value is set and keeps the old one; all replicas alike.
#[derive(Debug, Default)]
pub struct Forgetful {
    store: KvStore,
}

/// One of so many entries of the log is forgotten.
const FORGOTTEN_ONE_OF: u64 = 10;

impl StateMachine for Forgetful {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        for command in batch {
            let is_forgotten = command.index.0 % FORGOTTEN_ONE_OF == 0
                && matches!(KvCommand::decode(command.payload), Ok(KvCommand::Set { .. }));
            if is_forgotten {
                replies.push(Reply::Ok(KvReply::Stored.encode()));
            } else {
                self.store.apply(std::slice::from_ref(command), replies)?;
            }
        }
        Ok(())
    }

    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        self.store.query(request)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        self.store.snapshot()
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        self.store.restore(from)
    }

    fn never_blocks(&self) -> bool {
        true
    }
}
