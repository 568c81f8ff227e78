//! Writes a golden data directory of the current format: `cargo run --example golden_data DIR`, or
//! `DIR base` for the one whose base has moved.
//!
//! Run once per format version, by hand. It refuses a directory that exists: what an earlier
//! version wrote is the proof that later ones read it, and is never written again.
#![allow(clippy::disallowed_methods, reason = "a program around the library")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/wal/golden_content.rs"]
mod golden_content;

fn main() {
    // What the test of the directory compares with is of no use here.
    let _ = (golden_content::entries, golden_content::hard_state, golden_content::commit);
    let _ = golden_content::entries_behind_base;
    let dir = std::env::args().nth(1).expect("usage: golden_data DIR [base]");
    let writes = match std::env::args().nth(2).as_deref() {
        Some("base") => golden_content::moving_writes(),
        Some(_) | None => golden_content::writes(),
    };
    golden_content::generate(dir.as_ref(), writes);
    println!("{dir} written");
}
