//! The fuzz targets on a stable toolchain: every committed seed, then seeded mutations of them.
//!
//! `RAFTZ_FUZZ_RUNS` (mutations per target) and `RAFTZ_FUZZ_SEED` change what is tried; a failing input is
//! written to a file, named at the end, that `RAFTZ_FUZZ_INPUT=<file>` runs again (with RAFTZ_FUZZ_TRACE=1 for each call of C). `RAFTZ_WRITE_SEEDS=1`
//! writes the seeds that are missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use raftz_tests::fuzz::{Target, capi, target};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn committed_seeds(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name);
    if std::env::var_os("RAFTZ_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in (target.seeds)() {
            let path = dir.join(name);
            if !path.exists() {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    let entries = std::fs::read_dir(&dir).expect("seeds are committed");
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// Runs one input; a failure leaves it in a file.
fn run(target: &Target, input: &[u8], what: &str) {
    let Err(failure) = catch_unwind(AssertUnwindSafe(|| (target.body)(input))) else { return };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
    std::fs::write(&path, input).unwrap();
    eprintln!("{what} breaks {}; again: RAFTZ_FUZZ_INPUT={}", target.name, path.display());
    std::panic::resume_unwind(failure);
}

fn hold(name: &str, runs: u64) {
    let target = target(name);
    if let Some(path) = std::env::var_os("RAFTZ_FUZZ_INPUT") {
        return (target.body)(&std::fs::read(path).unwrap());
    }
    let seeds = committed_seeds(target);
    assert!(seeds.len() >= 5, "{} seeds", seeds.len());
    for (path, input) in &seeds {
        run(target, input, &path.display().to_string());
    }
    let seed = setting("RAFTZ_FUZZ_SEED", 1);
    let runs = setting("RAFTZ_FUZZ_RUNS", runs);
    let inputs: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for n in 0..runs {
        let input = mutate::mutated(&inputs, &mut rng);
        run(target, &input, &format!("mutation {n} of seed {seed}"));
    }
    println!("{name}: {} seeds, {runs} mutations (RAFTZ_FUZZ_SEED={seed})", inputs.len());
}

#[test]
fn a_stream_cut_anywhere_gives_the_same_frames_and_the_same_end() {
    hold("frame", 100_000);
}

#[test]
fn a_handshake_that_reads_is_written_back_alike_and_judged_by_every_condition() {
    hold("handshake", 200_000);
}

#[test]
fn a_message_that_decodes_encodes_to_the_same_message() {
    hold("message", 200_000);
}

#[test]
fn a_damaged_or_forged_directory_is_refused_or_opens_as_a_log() {
    hold("recovery", 10_000);
}

#[test]
fn calls_of_c_in_any_order_keep_every_promise_and_reach_every_function() {
    hold("capi", 60);
    if std::env::var_os("RAFTZ_FUZZ_INPUT").is_some() {
        return;
    }
    let symbols = include_str!("../../raftz-ffi/abi/libraftz.sym");
    let reached = capi::reached();
    let left_out: Vec<&str> = symbols.lines().filter(|it| !reached.contains_key(it)).collect();
    println!("not yet reached from a tape: {left_out:?}");
    assert_eq!(
        left_out,
        capi::NOT_YET,
        "give each an operation, or name it in NOT_YET (symbols in their order)"
    );
    // Whether leadership moves in time is the machine's to say.
    let by_luck = ["raftz_step_down_wait", "raftz_transfer_leadership_wait"];
    let failures = reached.iter().filter(|(name, ok)| !**ok && !by_luck.contains(name));
    let failed: Vec<&str> = failures.map(|(name, _)| *name).collect();
    assert_eq!(failed, Vec::<&str>::new(), "called, and never with success");
}

#[test]
fn a_member_among_liars_keeps_every_promise() {
    hold("step", 60_000);
}
