//! Mutations without a coverage instrument: a few of the usual changes, stacked.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Longest input that is made.
const BYTES_MAX: usize = 1 << 16;

/// One of `inputs`, changed in a few places, now and then in many.
pub(crate) fn mutated(inputs: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = pick(inputs, rng).clone();
    let most = if rng.random_range(0..4) == 0 { 64 } else { 8 };
    for _ in 0..rng.random_range(1..=most) {
        change(&mut bytes, inputs, rng);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn pick<'a>(inputs: &'a [Vec<u8>], rng: &mut ChaCha8Rng) -> &'a Vec<u8> {
    &inputs[rng.random_range(0..inputs.len())]
}

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=bytes.len());
    let count = rng.random_range(1..=16usize).min(bytes.len() - at);
    match rng.random_range(0..8) {
        0 if count > 0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if count > 0 => bytes[at] = rng.random(),
        2 if count > 0 => bytes[at..at + count].fill([0, 1, 127, 128, 255][rng.random_range(0..5)]),
        3 => drop(bytes.drain(at..at + count)),
        4 => {
            let new: Vec<u8> = (0..rng.random_range(1..=16)).map(|_| rng.random()).collect();
            bytes.splice(at..at, new);
        }
        5 => {
            let again = bytes[at..at + count].to_vec();
            let to = rng.random_range(0..=bytes.len());
            bytes.splice(to..to, again);
        }
        // The end of another input behind a beginning of this one.
        6 => {
            let other = pick(inputs, rng);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.random_range(0..=other.len())..]);
        }
        _ => bytes.truncate(at),
    }
}
