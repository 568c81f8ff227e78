//! The write-ahead log from outside: what it keeps, what it refuses, what it says.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basic;
mod contract;
mod damage;
mod disk;
mod faults;
mod golden;
mod golden_content;
mod model;
mod refusals;
mod support;
