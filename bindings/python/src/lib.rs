//! The native half of the Python package: what crosses between the node's threads and the interpreter.
//!
//! Everything that a user sees is annotated Python, in `python/raftz`; this is what it stands on. The rule
//! of all of it: the interpreter is never on Raft's way. No thread of a node ever attaches to it: a thread
//! that has something for Python puts it into a queue (`jobs`, `future`, `loops`, `logs`), and threads that
//! Python made take it from there, many at a time. Whoever blocks on behalf of Python does so detached and in
//! slices, between which signals are looked at (`wait`).

mod callbacks;
mod config;
mod error;
mod events;
mod fork;
mod future;
mod jobs;
mod kv;
mod logs;
mod loops;
mod machine;
mod node;
mod told;
mod wait;

use pyo3::pymodule;

/// What Python imports as `raftz._raftz`.
#[pymodule]
mod _raftz {
    #[pymodule_export]
    use super::callbacks::{CallQueue, Calls, leave};
    #[pymodule_export]
    use super::config::{Config, Listener, config_keys};
    #[pymodule_export]
    use super::error::failure_of_python;
    #[pymodule_export]
    use super::events::Subscription;
    #[pymodule_export]
    use super::fork::{forked, may_start};
    #[pymodule_export]
    use super::future::{Done, Future};
    #[pymodule_export]
    use super::jobs::{Entry, Job, Jobs, SnapshotReader, SnapshotWriter};
    #[pymodule_export]
    use super::kv::{
        kv_compare_and_set, kv_delete, kv_digest, kv_get, kv_increment, kv_reply, kv_scan, kv_set,
    };
    #[pymodule_export]
    use super::logs::{log_level, log_stop, log_take};
    #[pymodule_export]
    use super::loops::LoopDesk;
    #[pymodule_export]
    use super::node::Node;
    #[pymodule_export]
    use super::told::Histogram;
}
