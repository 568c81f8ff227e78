//! The runtime: threads, clocks and sockets around the pure replica, and the public handle.
//!
//! A *host* (`host`, `event_loop`) is one event loop that owns the transport and maps each group
//! to its replica; today it holds one group. It decides nothing about consensus: it takes what
//! has come, feeds it to the replica, and does what the replica asks. Slow work happens on lanes
//! (`lanes`); callers reach the loop through one inbox (`intake`) and are answered directly
//! (`pending`) or on the callback thread (`callbacks`). [`Node`] is the face that Rust, C and
//! Python share.
//!
//! The invariant kept here: every accepted call ends exactly once, by its deadline, whatever
//! happens to the node.

mod backlog;
mod callbacks;
mod callers;
mod clock;
mod config;
mod error;
mod event_loop;
mod handle;
mod host;
mod intake;
pub(crate) mod lanes;
mod limiter;
mod log;
mod metrics;
mod pending;
mod query;
mod reads;
mod snapshots;
mod start;
mod status;
mod stores;
mod subscription;
mod threads;
mod told;
mod transfer;
mod vigil;
mod watch;
mod watching;

#[doc(hidden)]
pub use backlog::Backlog;
pub use callbacks::EventObserver;
pub use config::{Config, ConfigError, Founder, StorageFactory, StorageKind};
pub use error::NodeError;
pub use handle::{Node, ProposeOptions, ReadOptions};
pub use log::log_text;
pub use metrics::{Metrics, PeerMetrics, PeerNumbers};
pub use pending::{Answer, Pending};
#[cfg(feature = "sim")]
pub(crate) use snapshots::{log_time_us, not_restored, restore_at_start};
pub use status::{PeerStatus, Status};
pub use subscription::Subscription;
pub use watch::{Next, Standing, Watch};

/// The callback of a node that this thread is in, if it is in one: blocking calls are refused there.
pub fn inside_callback() -> Option<&'static str> {
    threads::inside()
}

/// Runs a user's code as a callback of a node called `what`: blocking calls are refused in it.
pub fn run_callback<T>(what: &'static str, f: impl FnOnce() -> T) -> T {
    threads::run_inside(what, f)
}
