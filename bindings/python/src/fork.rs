//! Whether the process was forked since. A child has the parent's memory and none of its threads.
//!
//! What a running node's threads had locked at that moment is locked for ever in the child, tables that belong to the
//! whole process among it. So such a child starts none of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::error::{FORKED, failure};

/// How often this process, or one that it stems from, was forked.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Nodes whose threads run in this process.
static LIVING: AtomicU64 = AtomicU64::new(0);
/// Whether a process that this one stems from had any when it was forked.
static IS_SPOILED: AtomicBool = AtomicBool::new(false);

/// Called by the interpreter in every child that `os.fork` has made.
#[pyfunction]
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    if LIVING.swap(0, Ordering::Relaxed) > 0 {
        IS_SPOILED.store(true, Ordering::Relaxed);
    }
}

/// Refuses to start a node in a child of a process that had one.
#[pyfunction]
pub(crate) fn may_start(py: Python<'_>) -> PyResult<()> {
    if IS_SPOILED.load(Ordering::Relaxed) {
        let message = "the process was forked while a node ran in it, and the child has that node's locks and none of its threads; start nodes only in children of processes that run none, or let multiprocessing use 'spawn' or 'forkserver'";
        return Err(failure(py, FORKED, message));
    }
    Ok(())
}

/// Kept while a node's threads may run. One that is never dropped counts for ever.
#[derive(Debug)]
pub(crate) struct Living(Origin);

impl Living {
    pub(crate) fn begin() -> Self {
        LIVING.fetch_add(1, Ordering::Relaxed);
        Self(Origin::here())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // A child counts its own.
        if !self.0.is_elsewhere() {
            LIVING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin(u64);

impl Origin {
    /// This process.
    pub(crate) fn here() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is a child of that process.
    pub(crate) fn is_elsewhere(self) -> bool {
        self.0 != FORKS.load(Ordering::Relaxed)
    }

    /// Refuses a call in a child.
    pub(crate) fn check(self, py: Python<'_>) -> PyResult<()> {
        if self.is_elsewhere() {
            let message = "the process was forked after this node was started, and the child has none of its threads; start nodes only in children of processes that run none, or let multiprocessing use 'spawn' or 'forkserver'";
            return Err(failure(py, FORKED, message));
        }
        Ok(())
    }
}
