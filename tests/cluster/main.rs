//! Clusters of real processes: real fsync, real sockets, real SIGKILL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test of real processes lives in real time")]

mod kill;
mod process;
mod wiped;
