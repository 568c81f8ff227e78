//! Whether the process was forked since. A child has the parent's memory and none of its threads.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::error::{FORKED, failure};

/// How often this process, or one that it stems from, was forked.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Called by the interpreter in every child that `os.fork` has made.
#[pyfunction]
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
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
            let message = "the process was forked after this node was started, and the child has none of its threads; start nodes after the fork, or let multiprocessing use 'spawn' or 'forkserver'";
            return Err(failure(py, FORKED, message));
        }
        Ok(())
    }
}
