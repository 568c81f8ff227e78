//! What the tests of several subjects share.

pub mod flawed;
pub mod fuzz;
pub mod history;
pub mod linear;
pub mod mixed;
pub mod sim;

/// The one right value under a key of a test: whatever else is found there was never written.
pub fn value_of(key: &str) -> String {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}-{}", key.len())
}

/// The program in the README, compiled and run as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
