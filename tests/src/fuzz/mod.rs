//! What outsiders can influence, as functions of arbitrary bytes.
//!
//! Each target is one `fn(&[u8])` that panics when something promised does not hold: not only "it did
//! not crash", but what must be true of whatever came out. `cargo fuzz` (`tests/fuzz`) searches for bytes
//! that break one; the workspace's tests (`tests/seeded`) run the same functions over the committed seeds
//! and over seeded mutations of them, on any toolchain.
//!
//! Checksums would keep a mutator out of everything behind them, so each input opens with a byte of flags
//! by which it may ask for its checksums to be put right. That is no privilege: anybody can compute a CRC.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "bodies of tests")]

pub mod capi;
/// A disk in memory: the one of the log's own tests.
#[path = "../../../raftz-core/tests/wal/disk.rs"]
#[allow(dead_code, reason = "the log's tests also cut its power")]
mod disk;
mod frame;
mod handshake;
mod message;
/// A disk of one member that makes durable what it is told to: the one of the scenarios.
#[path = "../../scenarios/disk.rs"]
#[allow(dead_code, reason = "the scenarios also damage it")]
mod model_disk;
/// The file system over it.
#[path = "../../../raftz-core/tests/wal/platter.rs"]
#[allow(dead_code, reason = "the log's tests also make it fail")]
mod platter;
mod recovery;
mod step;
mod tape;

/// Name, body and the first inputs of a target.
pub struct Target {
    /// As `cargo fuzz` knows it.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub body: fn(&[u8]),
    /// Small meaningful inputs with names; they are committed under `tests/fuzz/seeds/<target>`.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "capi", body: capi::check, seeds: capi::seeds },
    Target { name: "frame", body: frame::check, seeds: frame::seeds },
    Target { name: "handshake", body: handshake::check, seeds: handshake::seeds },
    Target { name: "message", body: message::check, seeds: message::seeds },
    Target { name: "recovery", body: recovery::check, seeds: recovery::seeds },
    Target { name: "step", body: step::check, seeds: step::seeds },
];

/// The target of this name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

/// A file of the golden frames: its bytes.
fn golden_frames() -> Vec<(String, Vec<u8>)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/frames-v1");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).unwrap();
            let bytes = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
            (name, bytes.collect())
        })
        .collect();
    files.sort();
    files
}
