//! The one source of everything that is not decided by a simulated cluster itself.
//!
//! Whoever needs an accident (a disk, a link, a client, a fault) holds a [`Chooser`] and asks it. Where
//! the answers come from is the business of [`Choices`]:
//!
//! - **seeded**: each [`Stream`] draws from a generator of its own, seeded by the run's seed and the
//!   stream's name. What one component draws never shifts what another draws, so a fault that is switched
//!   off leaves the rest of the run as it was;
//! - **recorded**: bytes, consumed in the order of the questions; 0 behind their end. A seeded run can be
//!   recorded, and a fuzzer may write the bytes;
//! - **scripted**: the answers themselves, in order; 0 behind their end;
//! - **exhaustive**: all combinations of answers, one run after the other ([`Exhaustive`]).

use std::sync::Arc;

use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Who asks. Streams of different names are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// The plan of the run.
    Plan,
    /// Which fault strikes whom, and when.
    Faults,
    /// The clock of a node.
    Clock(u64),
    /// The disk of a node.
    Disk(u64),
    /// The life of a node: how fast its lanes are, where it is cut off.
    Process(u64),
    /// One direction between two nodes.
    Link(u64, u64),
    /// One client.
    Client(u64),
    /// What a reader does.
    Reader(u64),
    /// The generator of commands.
    Workload,
    /// Ties between events of the same time.
    Order,
}

impl Stream {
    /// A number that no other stream has.
    const fn number(self) -> u64 {
        match self {
            Self::Plan => 1,
            Self::Faults => 2,
            Self::Workload => 3,
            Self::Order => 4,
            Self::Clock(node) => 1 << 40 | node,
            Self::Disk(node) => 2 << 40 | node,
            Self::Process(node) => 3 << 40 | node,
            Self::Client(client) => 4 << 40 | client,
            Self::Reader(reader) => 10 << 40 | reader,
            Self::Link(from, to) => 5 << 40 | (from & 0xf_ffff) << 20 | (to & 0xf_ffff),
        }
    }
}

/// Where a run's accidents come from.
#[derive(Clone)]
pub struct Choices(Origin);

#[derive(Clone)]
enum Origin {
    Seeded { seed: u64, tape: Option<Arc<Mutex<Vec<u8>>>> },
    Recorded(Arc<Mutex<Tape>>),
    Scripted(Arc<Mutex<Script>>),
    Exhaustive(Arc<Mutex<Odometer>>),
}

struct Tape {
    bytes: Vec<u8>,
    at: usize,
}

struct Script {
    answers: Vec<u64>,
    at: usize,
}

/// One combination of answers: each with the number of answers that there are.
#[derive(Default)]
struct Odometer {
    wheels: Vec<(u64, u64)>,
    at: usize,
    pruned: bool,
}

impl Choices {
    /// Everything follows from `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self(Origin::Seeded { seed, tape: None })
    }

    /// Like [`Choices::seeded`], and writes down what [`Choices::recorded`] needs to repeat it.
    pub fn recording(seed: u64) -> Self {
        Self(Origin::Seeded { seed, tape: Some(Arc::default()) })
    }

    /// Everything follows from `bytes`.
    pub fn recorded(bytes: Vec<u8>) -> Self {
        Self(Origin::Recorded(Arc::new(Mutex::new(Tape { bytes, at: 0 }))))
    }

    /// These answers, in order; an answer beyond the question's range is brought into it.
    pub fn scripted(answers: Vec<u64>) -> Self {
        Self(Origin::Scripted(Arc::new(Mutex::new(Script { answers, at: 0 }))))
    }

    /// What has been written down so far, of a recording.
    pub fn tape(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Origin::Seeded { tape: Some(tape), .. } => Some(tape.lock().clone()),
            Origin::Seeded { tape: None, .. }
            | Origin::Recorded(_)
            | Origin::Scripted(_)
            | Origin::Exhaustive(_) => None,
        }
    }

    /// Ends this branch of an exhaustive search: nothing that follows in this run is worth another.
    pub fn prune(&self) {
        if let Origin::Exhaustive(odometer) = &self.0 {
            odometer.lock().pruned = true;
        }
    }

    /// The answers of one stream. Ask for each stream once.
    pub fn stream(&self, stream: Stream) -> Chooser {
        Chooser(match &self.0 {
            Origin::Seeded { seed, tape } => {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&seed.to_le_bytes());
                key[8..16].copy_from_slice(&stream.number().to_le_bytes());
                Source::Seeded { rng: Box::new(ChaCha8Rng::from_seed(key)), tape: tape.clone() }
            }
            Origin::Recorded(tape) => Source::Recorded(tape.clone()),
            Origin::Scripted(script) => Source::Scripted(script.clone()),
            Origin::Exhaustive(odometer) => Source::Exhaustive(odometer.clone()),
        })
    }
}

/// Answers one component's questions.
pub struct Chooser(Source);

enum Source {
    Seeded { rng: Box<ChaCha8Rng>, tape: Option<Arc<Mutex<Vec<u8>>>> },
    Recorded(Arc<Mutex<Tape>>),
    Scripted(Arc<Mutex<Script>>),
    Exhaustive(Arc<Mutex<Odometer>>),
}

/// Bytes that an answer below `count` takes on a tape.
const fn width(count: u64) -> usize {
    match count {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        0x1_0001..=0x1_0000_0000 => 4,
        _ => 8,
    }
}

impl Chooser {
    /// One of `0..count`; 0 if there is no choice. Every other question is put through this one.
    pub fn below(&mut self, count: u64) -> u64 {
        if count <= 1 {
            return 0;
        }
        match &mut self.0 {
            Source::Seeded { rng, tape } => {
                // The top of a 128-bit product: even enough for any count that is asked here.
                let answer = (u128::from(rng.next_u64()) * u128::from(count)) >> 64;
                let answer = u64::try_from(answer).unwrap_or_default();
                if let Some(tape) = tape {
                    tape.lock().extend_from_slice(&answer.to_le_bytes()[..width(count)]);
                }
                answer
            }
            Source::Recorded(tape) => {
                let mut tape = tape.lock();
                let mut bytes = [0; 8];
                let from = tape.at.min(tape.bytes.len());
                let upto = (from + width(count)).min(tape.bytes.len());
                bytes[..upto - from].copy_from_slice(&tape.bytes[from..upto]);
                tape.at = upto;
                u64::from_le_bytes(bytes) % count
            }
            Source::Scripted(script) => {
                let mut script = script.lock();
                let answer = script.answers.get(script.at).copied().unwrap_or_default();
                script.at += 1;
                answer % count
            }
            Source::Exhaustive(odometer) => {
                let mut odometer = odometer.lock();
                if odometer.pruned {
                    return 0;
                }
                let at = odometer.at;
                odometer.at += 1;
                if at == odometer.wheels.len() {
                    odometer.wheels.push((0, count));
                }
                odometer.wheels[at].0
            }
        }
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// `true` in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.ppm(percent.saturating_mul(10_000))
    }

    /// `true` in `ppm` of a million cases. Draws nothing where the answer is certain.
    pub fn ppm(&mut self, ppm: u32) -> bool {
        // The unlikely answer is 1, so that an empty tape is a run without accidents.
        ppm > 0 && (ppm >= 1_000_000 || self.below(1_000_000) >= u64::from(1_000_000 - ppm))
    }

    /// One of `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or_default()]
    }

    /// A waiting time around `mean`, mostly shorter, now and then several times as long.
    pub fn around(&mut self, mean: u64) -> u64 {
        // Halves and doublings instead of a logarithm: floating point must not decide a run.
        let octave = self.below(256).trailing_ones().min(4);
        let scale = mean.saturating_mul(1 << octave) / 3;
        scale / 2 + self.below(scale.max(1))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.below(u64::MAX)
    }
}

/// All combinations of answers, depth first. Each [`Exhaustive::next`] is one run's choices; the run must
/// ask the same questions after the same answers.
#[derive(Default)]
pub struct Exhaustive {
    odometer: Option<Arc<Mutex<Odometer>>>,
}

impl Exhaustive {
    /// At the first combination.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Iterator for Exhaustive {
    type Item = Choices;

    fn next(&mut self) -> Option<Choices> {
        let wheels = match &self.odometer {
            None => Vec::new(),
            Some(odometer) => {
                let mut odometer = odometer.lock();
                let asked = odometer.at;
                let mut wheels = std::mem::take(&mut odometer.wheels);
                wheels.truncate(asked);
                // The last answer that has a successor moves on; what came behind it begins anew.
                while wheels.last().is_some_and(|(answer, count)| answer + 1 >= *count) {
                    wheels.pop();
                }
                wheels.last_mut()?.0 += 1;
                wheels
            }
        };
        let odometer = Arc::new(Mutex::new(Odometer { wheels, at: 0, pruned: false }));
        self.odometer = Some(odometer.clone());
        Some(Choices(Origin::Exhaustive(odometer)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn draw(choices: &Choices, stream: Stream) -> Vec<u64> {
        let mut chooser = choices.stream(stream);
        (0..20).map(|_| chooser.below(1000)).collect()
    }

    #[test]
    fn streams_of_a_seed_are_repeatable_and_independent() {
        let choices = Choices::seeded(7);
        let disk = draw(&choices, Stream::Disk(1));
        assert_eq!(disk, draw(&Choices::seeded(7), Stream::Disk(1)));
        for other in [Stream::Disk(2), Stream::Clock(1), Stream::Link(1, 2), Stream::Link(2, 1)] {
            assert_ne!(disk, draw(&choices, other), "{other:?}");
        }
        assert_ne!(disk, draw(&Choices::seeded(8), Stream::Disk(1)));
    }

    #[test]
    fn a_recording_repeats_what_was_drawn_and_ends_in_zeros() {
        let ask = |choices: &Choices| {
            let (mut a, mut b) = (choices.stream(Stream::Plan), choices.stream(Stream::Faults));
            [a.below(10), b.below(70_000), a.below(300), b.number(), a.below(1 << 30), b.around(90)]
        };
        let recording = Choices::recording(3);
        let first = ask(&recording);
        let tape = recording.tape().unwrap();
        assert_eq!(ask(&Choices::recorded(tape)), first);
        assert_eq!(ask(&Choices::recorded(Vec::new()))[..5], [0; 5]);
        assert!(!Choices::recorded(Vec::new()).stream(Stream::Faults).percent(99), "no accidents");
    }

    #[test]
    fn scripted_answers_come_in_order() {
        let mut chooser = Choices::scripted(vec![2, 9, 1]).stream(Stream::Plan);
        let answers = [chooser.below(3), chooser.below(4), chooser.below(5), chooser.below(6)];
        assert_eq!(answers, [2, 1, 1, 0]);
    }

    #[test]
    fn an_exhaustive_search_meets_every_combination_once() {
        let mut seen = Vec::new();
        for choices in Exhaustive::new() {
            let mut chooser = choices.stream(Stream::Order);
            let first = chooser.below(3);
            let second = if first == 1 { chooser.below(2) } else { 7 };
            seen.push((first, second));
        }
        assert_eq!(seen, [(0, 7), (1, 0), (1, 1), (2, 7)]);
    }

    #[test]
    fn a_pruned_branch_is_left_behind() {
        let mut runs = 0;
        for choices in Exhaustive::new() {
            let mut chooser = choices.stream(Stream::Order);
            if chooser.below(2) == 0 {
                choices.prune();
            }
            chooser.below(5);
            runs += 1;
        }
        assert_eq!(runs, 1 + 5);
    }

    #[test]
    fn chances_come_about_as_often_as_they_say() {
        let mut chooser = Choices::seeded(1).stream(Stream::Faults);
        let hits = (0..10_000).filter(|_| chooser.percent(20)).count();
        assert!((1800..2200).contains(&hits), "{hits}");
        let mean = (0..10_000).map(|_| chooser.around(1000)).sum::<u64>() / 10_000;
        assert!((900..1100).contains(&mean), "{mean}");
    }
}
