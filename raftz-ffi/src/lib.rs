//! raftz for C: `libraftz.so`, `libraftz.a` and, made from this crate by cbindgen, `include/raftz.h`.
//!
//! The header is what C programmers read, so the documentation here is written for them, in Doxygen's
//! words. What it promises throughout:
//!
//! - No panic crosses into C (`guard`), nothing exits or aborts the process, and nothing is global.
//! - Pointers are checked for NULL before use, sizes before reading, text for UTF-8.
//! - Output arguments are written on success only, the error on failure only; see [`error`].
//! - What C gives is copied, unless it is wrapped on purpose ([`bytes`]).
//! - User functions run on the node's own threads, never inside a call, never under a lock.
#![allow(non_camel_case_types, reason = "these are C's names")]
#![allow(clippy::missing_safety_doc, reason = "C's contract is in the brief of each function")]
#![allow(rustdoc::broken_intra_doc_links, reason = "Doxygen's [out] is no link")]

pub mod status;
pub mod version;

pub mod bytes;
pub mod error;

pub mod config;
pub mod events;
pub mod queue;

pub mod machine;
pub mod network;
pub mod storage;
pub mod transport;

pub mod metrics;
pub mod node;
pub mod propose;
pub mod read;
pub mod state;
pub mod transfer;
pub mod watch;

pub mod kv;
pub mod sim;

pub mod bare;

mod fork;
mod guard;
mod log;
mod sized;
