//! Snapshots on disk from outside: what a power cut leaves of them, and what damage makes of them.
//!
//! The disk that is cut here, fails and fills is the log's: see `tests/wal/disk.rs`.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../wal/crash.rs"]
mod crash;
mod cuts;
mod damage;
#[path = "../wal/disk.rs"]
mod disk;
mod failing;
mod golden;
mod life;
mod neighbours;
#[path = "../wal/platter.rs"]
#[expect(dead_code, reason = "the log's tests use more of it")]
mod platter;
mod stories;
mod support;
