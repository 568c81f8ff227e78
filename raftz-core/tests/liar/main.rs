//! A valid peer that lies. Two honest nodes with real logs on real sockets, and a third member whose mouth
//! is a real transport with a valid handshake, and which says what it likes.
//!
//! Raft does not survive every lie; `ARCHITECTURE.md` ("What a lying member can do") says which. Each lie
//! here is survived: nobody panics, nothing is committed without a majority of honest logs, what was
//! committed stays, the honest go on, and the lie is told where it can be known as one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod acks;
mod forwards;
mod honest;
mod lives;
mod mouth;
mod offices;
#[path = "../support/mod.rs"]
mod support;
mod votes;
