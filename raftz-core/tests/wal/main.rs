//! The write-ahead log from outside: what it keeps, what it refuses, what it says.
#![allow(clippy::disallowed_methods, reason = "tests act from outside the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bases;
mod basic;
mod contract;
mod crash;
mod cuts;
mod damage;
mod disk;
mod failing;
mod faults;
mod golden;
mod golden_content;
mod life;
mod model;
mod platter;
mod refusals;
mod rot;
mod support;
