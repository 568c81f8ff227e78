//! Clusters of real processes: real fsync, real sockets, real SIGKILL; and, under a shim, disks and
//! resolvers that fail on request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test of real processes lives in real time")]

mod disks;
mod faults;
mod kill;
mod language;
mod network;
#[path = "../python/package.rs"]
mod package;
mod power;
mod process;
mod proxy;
mod refusals;
mod resolver;
mod shim;
#[path = "../../raftz-ffi/tests/support/mod.rs"]
mod support;
mod transfer;
mod wiped;
