//! Links between nodes: what is up on which side, what is cut, what is on its way.
//!
//! A connection has a number; each side knows which one it holds, and the two may disagree for a while. A
//! message travels with the number of the connection that it was sent on, and one that arrives on another is
//! swallowed, as a closed socket would. Messages are handed on as values, or as frames in a stream of
//! bytes that is cut anywhere.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::transport::frame::{FrameLimits, FrameReader};

use super::choice::{Choices, Chooser, Stream};
use super::mix::Mix;
use super::plan::{Fault, Plan, Wire};

/// The latest that a message arrives which others overtake: some of them outlive a term.
const LATE_US: u64 = 1_000_000;

/// One direction between two nodes, as seen by the sender.
pub(super) struct Direction {
    /// The connection that the sender holds.
    pub(super) connection: Option<u64>,
    /// When the sender last heard anything on it.
    pub(super) heard_us: u64,
    /// How many faults cut this direction.
    pub(super) cuts: u32,
    /// What is sent before then arrives after it.
    pub(super) clogged_until_us: u64,
    /// Messages or chunks on their way.
    pub(super) in_flight: u64,
    /// When the last of them arrives; a stream of bytes keeps its order.
    last_arrival_us: u64,
    /// Takes apart what arrives at the other end.
    pub(super) reader: FrameReader,
    /// Its place among directions on which something arrives at the same time; another on each connection.
    pub(super) tie: u64,
    /// The hashes of all frames sent on the connection, where bits may flip.
    sent: BTreeSet<u64>,
    pub(super) chooser: Chooser,
}

/// How bad the network is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weather {
    pub(super) loss_ppm: u32,
    pub(super) double_ppm: u32,
    pub(super) reorder_ppm: u32,
    pub(super) flip_ppm: u32,
}

/// All links.
pub(super) struct Network {
    nodes: usize,
    directions: Vec<Direction>,
    pub(super) weather: Weather,
    pub(super) wire: Wire,
    /// Whether bits may flip in this run.
    flips: bool,
    delay_us: u64,
    pub(super) bound: u64,
    next_connection: u64,
    /// Whether a bit has ever been flipped: until then every frame must decode.
    pub(super) has_flipped: bool,
    /// Whether messages have ever come in another order or number than they were sent in, as they never do on
    /// one connection: until then everything that nodes say must make sense to each other.
    pub(super) has_mixed: bool,
}

/// What becomes of something that is sent.
pub(super) enum Passage {
    /// It arrives after so long, and perhaps again.
    Arrives(u64, Option<u64>),
    /// It never does.
    Lost,
}

impl Network {
    pub(super) fn new(plan: &Plan, nodes: usize, choices: &Choices) -> Self {
        let direction = |at: usize| Direction {
            connection: None,
            heard_us: 0,
            cuts: 0,
            clogged_until_us: 0,
            in_flight: 0,
            last_arrival_us: 0,
            reader: FrameReader::new(FrameLimits::default()),
            tie: 0,
            sent: BTreeSet::new(),
            chooser: choices.stream(Stream::Link((at / nodes) as u64, (at % nodes) as u64)),
        };
        Self {
            nodes,
            directions: (0..nodes * nodes).map(direction).collect(),
            weather: Weather::default(),
            wire: plan.wire,
            flips: plan.faults.contains(&Fault::Flip),
            delay_us: plan.delay_us,
            bound: plan.link_bound,
            next_connection: 1,
            has_flipped: false,
            has_mixed: false,
        }
    }

    pub(super) fn to(&mut self, from: usize, to: usize) -> &mut Direction {
        &mut self.directions[from * self.nodes + to]
    }

    pub(super) fn get(&self, from: usize, to: usize) -> &Direction {
        &self.directions[from * self.nodes + to]
    }

    /// Whether anything sent now from one to the other gets there.
    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        self.get(from, to).cuts == 0
    }

    /// Something that was on its way is there, or lost at the door.
    pub(super) fn arrived(&mut self, from: usize, to: usize) {
        let direction = self.to(from, to);
        direction.in_flight = direction.in_flight.saturating_sub(1);
    }

    /// A new connection, known to both sides.
    pub(super) fn connect(&mut self, a: usize, b: usize, now_us: u64) {
        let number = self.next_connection;
        self.next_connection += 1;
        for (from, to) in [(a, b), (b, a)] {
            let direction = self.to(from, to);
            direction.connection = Some(number);
            direction.heard_us = now_us;
            direction.reader = FrameReader::new(FrameLimits::default());
            direction.tie = direction.chooser.below(1 << 16);
            direction.sent.clear();
        }
    }

    /// Notes a frame, if it may be damaged on its way.
    pub(super) fn note_sent(&mut self, from: usize, to: usize, frame: &[u8]) {
        if self.flips {
            self.to(from, to).sent.insert(Mix::default().bytes(frame).0);
        }
    }

    /// Whether a frame that was found good is one that was sent.
    pub(super) fn was_sent(&self, from: usize, to: usize, frame: &[u8]) -> bool {
        !self.flips || self.get(from, to).sent.contains(&Mix::default().bytes(frame).0)
    }

    /// When a message that is sent now arrives.
    pub(super) fn passage(&mut self, from: usize, to: usize, now_us: u64) -> Passage {
        let (weather, wire, mean) = (self.weather, self.wire, self.delay_us);
        let direction = self.to(from, to);
        if direction.cuts > 0 || direction.chooser.ppm(weather.loss_ppm) {
            return Passage::Lost;
        }
        let mut arrival = direction.arrival_us(now_us, mean);
        let reorders = wire == Wire::Messages && direction.chooser.ppm(weather.reorder_ppm);
        if reorders {
            let most = direction.chooser.pick(&[mean * 20, mean * 20, LATE_US]);
            arrival += direction.chooser.below(most);
        } else {
            arrival = direction.in_order(arrival);
        }
        let doubles = direction.chooser.ppm(weather.double_ppm);
        let again = doubles.then(|| match wire {
            Wire::Messages => direction.arrival_us(now_us, mean * 4),
            Wire::Bytes => {
                let arrival = direction.arrival_us(now_us, mean);
                direction.in_order(arrival)
            }
        });
        self.has_mixed |= reorders || doubles;
        Passage::Arrives(arrival, again)
    }

    /// Cuts a stream of bytes anywhere, and flips a bit of it now and then.
    pub(super) fn chunks(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) -> Vec<Bytes> {
        let flip_ppm = self.weather.flip_ppm;
        let direction = self.to(from, to);
        let flips = direction.chooser.ppm(flip_ppm);
        if flips {
            let bit = direction.chooser.below(bytes.len() as u64 * 8);
            let (byte, bit) = (usize::try_from(bit / 8).unwrap_or_default(), bit % 8);
            bytes[byte] ^= 1 << bit;
        }
        let mut rest = Bytes::from(bytes);
        let mut chunks = Vec::new();
        while rest.len() > 1 && chunks.len() < 4 && direction.chooser.percent(40) {
            let at = 1 + direction.chooser.below(rest.len() as u64 - 1);
            chunks.push(rest.split_to(usize::try_from(at).unwrap_or(1)));
        }
        chunks.push(rest);
        self.has_flipped |= flips;
        chunks
    }
}

impl Direction {
    /// It is open and quick again.
    pub(super) const fn heal(&mut self) {
        self.cuts = 0;
        self.clogged_until_us = 0;
        self.last_arrival_us = 0;
    }

    fn arrival_us(&mut self, now_us: u64, mean: u64) -> u64 {
        (now_us + 1 + self.chooser.around(mean)).max(self.clogged_until_us)
    }

    fn in_order(&mut self, arrival_us: u64) -> u64 {
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
        self.last_arrival_us
    }
}
