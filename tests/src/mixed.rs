//! Clients that do a bit of everything to a few keys and tell the history of it.
//!
//! Keys live for a while and are then left for new ones, by a clock that all clients share, so that
//! each key's history stays short enough to be checked however long the run. Every value is written
//! by one call only, so a value that is seen tells which call happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::machine::{KvCommand, KvQuery, KvReply};
use raftz_core::node::{Node, ProposeOptions, ReadOptions};
use raftz_core::types::{Outcome, ReadLevel, Reply};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::history::{answer_line, call_line, end_line, now_us, read_line};
use crate::linear::Request;

/// How long a key is used.
const KEY_LIFE_US: u64 = 4_000_000;
/// Pause after a refusal, which often comes at once and would come at once again.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Largest value; most are a few bytes long.
const VALUE_BYTES_MAX: u32 = 6000;

/// What the clients of one process do.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Makes the values unique: no other process, and no other life, may have the same.
    pub tag: String,
    /// How many clients.
    pub clients: u64,
    /// Keys in use at a time; shared by all processes.
    pub keys: u64,
    /// Pause between two calls of a client.
    pub pace: Duration,
    /// Time after which a call must have ended.
    pub timeout: Duration,
    /// Seed of the choices.
    pub seed: u64,
    /// Whether reads only ask for what a node happens to have: none of them need be linearizable.
    pub stale: bool,
}

/// Numbers the calls of one process.
#[derive(Debug, Default)]
pub struct Ids(AtomicU64);

impl Ids {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Tells what happens, line by line.
pub type Say = fn(&str);

/// Clients that run until they are told to stop.
#[derive(Debug)]
pub struct MixedClients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl MixedClients {
    /// Starts the clients, a thread each.
    pub fn start(node: &Arc<Node>, ids: &Arc<Ids>, mix: &Mix, say: Say) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..mix.clients)
            .map(|number| {
                let client = Client {
                    node: Arc::clone(node),
                    ids: Arc::clone(ids),
                    rng: ChaCha8Rng::seed_from_u64(mix.seed.wrapping_add(number)),
                    name: format!("{}.{number}", mix.tag),
                    mix: mix.clone(),
                    seen: None,
                    say,
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || client.run(&stop))
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops them; each finishes the call that it is in.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A client that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Reads a key through the log, as a call like any other.
pub fn read(node: &Node, ids: &Ids, key: Bytes, timeout: Duration, say: Say) {
    let command = Request::read_through_log(key).encode();
    let id = ids.next();
    say(&call_line(id, now_us(), &command));
    let outcome = node.propose_blocking(command, timeout);
    say(&end_line(id, now_us(), &outcome));
}

struct Client {
    node: Arc<Node>,
    ids: Arc<Ids>,
    rng: ChaCha8Rng,
    name: String,
    mix: Mix,
    /// A value of this key that was there not long ago.
    seen: Option<(Bytes, Option<Bytes>)>,
    say: Say,
}

impl Client {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let is_refused = if self.below(3) == 0 {
                self.read()
            } else {
                let outcomes = self.call();
                outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)))
            };
            if is_refused {
                std::thread::sleep(REFUSED_PAUSE);
            }
            std::thread::sleep(self.mix.pace);
        }
    }

    /// A read past the log, confirmed by a round or, where the cluster has them, by a lease; whether it failed.
    fn read(&mut self) -> bool {
        let (id, (_, key)) = (self.ids.next(), self.key());
        let query = KvQuery::Get { key: key.clone() }.encode();
        let level = match self.below(2) {
            _ if self.mix.stale => ReadLevel::Stale,
            0 => ReadLevel::Linearizable,
            _ => ReadLevel::Lease,
        };
        let options = ReadOptions { level, timeout: Some(self.mix.timeout) };
        (self.say)(&read_line(id, now_us(), &key));
        let answer = match self.below(2) {
            0 => self.node.read_blocking(query, options),
            _ => self.node.read(query, options).wait(),
        };
        (self.say)(&answer_line(id, now_us(), &answer));
        if let Ok(Reply::Ok(bytes)) = &answer
            && let Ok(KvReply::Value(value)) = KvReply::decode(&Reply::Ok(bytes.clone()))
        {
            self.seen = Some((key, value));
        }
        answer.is_err()
    }

    /// One call in one of its forms, or a few as a batch.
    fn call(&mut self) -> Vec<Outcome> {
        let form = self.below(10);
        let count = if form == 0 { 2 + self.below(3) } else { 1 };
        let calls: Vec<(u64, KvCommand)> = (0..count)
            .map(|_| {
                let id = self.ids.next();
                (id, self.command(id))
            })
            .collect();
        let commands: Vec<Bytes> = calls.iter().map(|(_, command)| command.encode()).collect();
        for ((id, _), command) in calls.iter().zip(&commands) {
            // One by one: each began no later than it was proposed.
            (self.say)(&call_line(*id, now_us(), command));
        }
        let options =
            ProposeOptions { timeout: Some(self.mix.timeout), ..ProposeOptions::default() };
        let first = commands[0].clone();
        let outcomes = match form {
            0 => self.node.propose_batch(commands, options).wait(),
            1 | 2 => vec![self.call_back(first, options)],
            3 | 4 => vec![self.node.propose_blocking(first, self.mix.timeout)],
            _ => vec![self.node.propose_opt(first, options).wait()],
        };
        for ((id, command), outcome) in calls.into_iter().zip(&outcomes) {
            (self.say)(&end_line(id, now_us(), outcome));
            self.learn(command, outcome);
        }
        outcomes
    }

    fn call_back(&self, command: Bytes, options: ProposeOptions) -> Outcome {
        let (tell, told) = std::sync::mpsc::channel();
        let done = move |outcome| {
            // A client that is gone has nothing to learn.
            let _ = tell.send(outcome);
        };
        match self.node.propose_with(command, options, done) {
            // A completion that was dropped uncalled would be a call that never ends; the test
            // sees it as one, since nothing tells of an end.
            Ok(()) => told.recv().unwrap_or_else(|_| {
                loop {
                    std::thread::park();
                }
            }),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn learn(&mut self, command: KvCommand, outcome: &Outcome) {
        let Outcome::Done(done) = outcome else { return };
        let value = match (&command, KvReply::decode(&done.reply)) {
            (KvCommand::Set { value, .. }, Ok(KvReply::Stored)) => Some(value.clone()),
            (KvCommand::CompareAndSet { value, .. }, Ok(KvReply::Swapped)) => value.clone(),
            (_, Ok(KvReply::NotSwapped { actual })) => actual,
            (_, Ok(KvReply::Number(number))) => Some(Bytes::from(number.to_string())),
            (_, Ok(KvReply::Deleted { .. })) => None,
            _ => return,
        };
        self.seen = Some((command.key().clone(), value));
    }

    /// One of the keys in use, and its number.
    fn key(&mut self) -> (u64, Bytes) {
        let slot = u64::from(self.below(u32::try_from(self.mix.keys).unwrap_or(u32::MAX)));
        (slot, Bytes::from(format!("m{slot}.{}", now_us() / KEY_LIFE_US)))
    }

    fn command(&mut self, id: u64) -> KvCommand {
        let (slot, key) = self.key();
        // The first key counts; words on it are rare.
        if slot == 0 {
            return match self.below(20) {
                0 => KvCommand::Delete { key },
                1 => KvCommand::Set { key, value: Bytes::from(id.to_string()) },
                2 => self.word(key, id),
                3..8 => Request::read_through_log(key),
                // Few steps, so that increments of unknown ends are interchangeable: a checker would
                // have to try every subset of different ones.
                _ => KvCommand::Increment { key, by: [1, 10, 100][self.below(3) as usize] },
            };
        }
        match self.below(20) {
            0 => KvCommand::Delete { key },
            1 => KvCommand::Increment { key, by: 1 },
            2..8 => self.word(key, id),
            8..14 => self.swap(key, id),
            _ => Request::read_through_log(key),
        }
    }

    fn word(&mut self, key: Bytes, id: u64) -> KvCommand {
        KvCommand::Set { key, value: self.value(id) }
    }

    /// Expects what was there when this client last saw the key.
    fn swap(&mut self, key: Bytes, id: u64) -> KvCommand {
        let expected = match &self.seen {
            Some((seen, value)) if *seen == key => value.clone(),
            _ => None,
        };
        let value = (self.below(8) > 0).then(|| self.value(id));
        KvCommand::CompareAndSet { key, expected, value }
    }

    fn value(&mut self, id: u64) -> Bytes {
        let mut value = format!("{}#{id}", self.name);
        if self.below(30) == 0 {
            let more = self.below(VALUE_BYTES_MAX);
            value.extend(std::iter::repeat_n('.', more as usize));
        }
        Bytes::from(value)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound.max(1)
    }
}
