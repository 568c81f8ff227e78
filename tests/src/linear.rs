//! Whether what clients saw of one key could have happened one operation at a time, each at some
//! moment between its invocation and its answer: linearizability, decided by search.
//!
//! The search is Wing and Gong's with the memory that Lowe added: it places one operation after the
//! other, takes a placement back where nothing fits behind it, and never enters the same situation
//! (the operations placed so far, the value they leave) twice. Keys are independent, so a history is
//! cut by key first, which is what keeps the search short.
//!
//! An operation whose answer says that it changed nothing is a read. One that fits is placed at
//! once, and nothing else is tried in its place: whatever comes before it in an explanation can as
//! well come behind it.
//!
//! Operations that may never have happened make a search long: any subset of them may have. Three
//! rules keep most subsets out, and lose no explanation. Of two situations that differ only in the
//! uncertain operations placed, one with fewer can do whatever one with more can. An uncertain
//! operation is placed only to make what comes next fit: a certain one other than a read that fits
//! two values leaves the same behind (it is a set or a delete), so it had no need of it. And of
//! uncertain operations that ask the same, the first invoked is placed first: it can stand in for
//! any later one.
//!
//! How an operation ended decides what is asked of it:
//! - *done*: it took effect once, between its two times, and the store would have answered that;
//! - *unknown*: it took effect once at any time after its invocation, or never;
//! - *refused*: it never took effect, so it is left out, and an effect of it that somebody saw has
//!   no explanation.
//!
//! The key begins absent. The model of the store is written down here once more, on purpose: a
//! checker that asked the store itself would agree with its mistakes.
//!
//! A read may go through the log: a compare-and-set whose expectation never holds answers with the
//! value ([`Request::read_through_log`]). [`Request::Get`] is one that does not.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use raftz_core::machine::kv::REPEATED_BYTES_MAX;
use raftz_core::machine::{KvCommand, KvReply};

/// Situations after which a search gives up. A history of clients that write unique values needs
/// about as many as it has operations.
const SITUATIONS_MAX: usize = 4_000_000;
/// A value that no client writes.
const NEVER_WRITTEN: &[u8] = b"\0never written";
/// Operations shown with an objection.
const SHOWN_MAX: usize = 24;

/// What was asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A command, through the log.
    Command(KvCommand),
    /// A read that does not go through the log.
    Get {
        /// The key.
        key: Bytes,
    },
}

impl Request {
    /// The command that reads `key` without changing it.
    pub const fn read_through_log(key: Bytes) -> KvCommand {
        let never = Bytes::from_static(NEVER_WRITTEN);
        KvCommand::CompareAndSet { key, expected: Some(never), value: None }
    }

    /// The key that it is about.
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Command(command) => command.key(),
            Self::Get { key } => key,
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered.
    Done {
        /// When, by the clock of `invoked_us`.
        at_us: u64,
        /// With what.
        reply: KvReply,
    },
    /// It may have taken effect, or may yet, or never.
    Unknown,
    /// It certainly never takes effect.
    Refused,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose it is; only shown.
    pub client: String,
    /// When it was begun, by a clock that all clients share.
    pub invoked_us: u64,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub end: End,
}

impl Operation {
    const fn answered_us(&self) -> Option<u64> {
        match self.end {
            End::Done { at_us, .. } => Some(at_us),
            End::Unknown | End::Refused => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}..", self.invoked_us)?;
        match &self.end {
            End::Done { at_us, reply } => {
                write!(f, "{at_us:<12} {} {:?} -> {reply:?}", self.client, self.request)
            }
            End::Unknown => {
                write!(f, "{:<12} {} {:?} -> unknown", "", self.client, self.request)
            }
            End::Refused => {
                write!(f, "{:<12} {} {:?} -> refused", "", self.client, self.request)
            }
        }
    }
}

/// Why a history was not accepted.
#[derive(Clone, Debug)]
pub enum Objection {
    /// No order of the operations explains what was answered.
    NotLinearizable {
        /// Operations in the longest explanation that was found.
        placed: usize,
        /// Operations that had to be explained.
        of: usize,
        /// The value after it.
        value: Option<Bytes>,
        /// The operations that would have come next, none of which fits.
        stuck: Vec<Operation>,
    },
    /// The search was given up: nothing is known.
    TooHard {
        /// Situations entered.
        situations: usize,
        /// Operations that were done.
        certain: usize,
        /// Operations whose end is unknown.
        uncertain: usize,
    },
}

impl std::error::Error for Objection {}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable { placed, of, value, stuck } => {
                writeln!(
                    f,
                    "not linearizable: {placed} of {of} operations can be explained, which leaves \
                     the value {value:?}; then none of these fits:"
                )?;
                stuck.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
            }
            Self::TooHard { situations, certain, uncertain } => {
                write!(
                    f,
                    "undecided after {situations} situations, with {certain} operations that were done and {uncertain} unknown"
                )
            }
        }
    }
}

/// Cuts a history by key.
pub fn by_key(history: impl IntoIterator<Item = Operation>) -> BTreeMap<Bytes, Vec<Operation>> {
    let mut keys: BTreeMap<Bytes, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.request.key().clone()).or_default().push(operation);
    }
    keys
}

/// Checks the history of one key.
///
/// # Errors
/// Why it is not linearizable, or that this could not be decided.
pub fn check(history: &[Operation]) -> Result<(), Objection> {
    Search::new(history).run()
}

/// A value of the key: absent, or bytes.
type Value = Option<Bytes>;

/// What the store makes of a request: the value after it, and the answer.
fn model(request: &Request, value: Option<&Bytes>) -> (Value, KvReply) {
    let same = || value.cloned();
    let command = match request {
        Request::Get { .. } => return (same(), KvReply::Value(same())),
        Request::Command(command) => command,
    };
    match command {
        KvCommand::Set { value: new, .. } => (Some(new.clone()), KvReply::Stored),
        KvCommand::Delete { .. } => (None, KvReply::Deleted { existed: value.is_some() }),
        KvCommand::CompareAndSet { expected, value: new, .. } => {
            if expected.as_ref() == value {
                (new.clone(), KvReply::Swapped)
            } else {
                let answer = match value {
                    Some(value) if value.len() > REPEATED_BYTES_MAX => {
                        KvReply::NotSwappedLarge { actual_bytes: value.len() as u64 }
                    }
                    actual => KvReply::NotSwapped { actual: actual.cloned() },
                };
                (same(), answer)
            }
        }
        KvCommand::Increment { by, .. } => {
            let number = match value {
                None => Some(0),
                Some(text) => decimal(text),
            };
            match number.and_then(|number| number.checked_add(*by)) {
                Some(sum) => (Some(Bytes::from(sum.to_string())), KvReply::Number(sum)),
                None => (same(), KvReply::Rejected(String::new())),
            }
        }
    }
}

fn decimal(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    // What `parse` takes beyond the store's numbers.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Whether two answers say the same; a rejection's words are the store's own affair.
fn agree(expected: &KvReply, answered: &KvReply) -> bool {
    match (expected, answered) {
        (KvReply::Rejected(_), KvReply::Rejected(_)) => true,
        (expected, answered) => expected == answered,
    }
}

/// The value behind an operation that was done, if the value before it explains its answer.
fn fit(operation: &Operation, before: &Value) -> Option<Value> {
    let (after, expected) = model(&operation.request, before.as_ref());
    match &operation.end {
        End::Done { reply, .. } if agree(&expected, reply) => Some(after),
        End::Done { .. } | End::Unknown | End::Refused => None,
    }
}

/// Whether its answer, whatever the value was, says that it left it alone.
const fn is_read(operation: &Operation) -> bool {
    matches!(
        operation.end,
        End::Done {
            reply: KvReply::Value(_)
                | KvReply::NotSwapped { .. }
                | KvReply::NotSwappedLarge { .. }
                | KvReply::Deleted { existed: false }
                | KvReply::Rejected(_),
            ..
        }
    )
}

/// A set of small numbers.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
    fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(here, there)| here & !there == 0)
    }
}

/// One operation by its place in [`Search::certain`] or [`Search::uncertain`].
#[derive(Clone, Copy, Debug)]
enum Place {
    Certain(usize),
    Uncertain(usize),
}

/// A placement, and what was left to try before it.
struct Step {
    place: Place,
    value_before: Value,
    choices: Vec<Place>,
    tried: usize,
}

struct Search<'a> {
    /// Answered operations and their ends, in the order of their invocations.
    certain: Vec<(&'a Operation, u64)>,
    /// Operations that may or may not have happened, in the order of their invocations.
    uncertain: Vec<&'a Operation>,
    /// For each of them, the one before it that asks the same.
    twins: Vec<Option<usize>>,
    certain_placed: Bits,
    uncertain_placed: Bits,
    /// All certain operations before this one are placed.
    low: usize,
    placed: usize,
    value: Value,
    /// Situations entered so far: the certain operations placed and the value, and with them the
    /// uncertain ones placed, no set within another that came before it.
    entered: HashMap<(Box<[u64]>, Value), Vec<Bits>>,
    situations: usize,
    /// Situations after which it gives up.
    situations_max: usize,
    /// The longest explanation so far, for the objection.
    best: Option<(usize, Value, Vec<Place>)>,
}

impl<'a> Search<'a> {
    fn new(history: &'a [Operation]) -> Self {
        let mut certain: Vec<_> =
            history.iter().filter_map(|op| Some((op, op.answered_us()?))).collect();
        certain.sort_by_key(|(op, answered_us)| (op.invoked_us, *answered_us));
        let mut uncertain: Vec<_> = history.iter().filter(|op| op.end == End::Unknown).collect();
        uncertain.sort_by_key(|op| op.invoked_us);
        let twin = |at: usize| {
            uncertain[..at].iter().rposition(|before| before.request == uncertain[at].request)
        };
        let twins = (0..uncertain.len()).map(twin).collect();
        Self {
            certain_placed: Bits::new(certain.len()),
            uncertain_placed: Bits::new(uncertain.len()),
            certain,
            uncertain,
            twins,
            low: 0,
            placed: 0,
            value: None,
            entered: HashMap::new(),
            situations: 0,
            situations_max: SITUATIONS_MAX,
            best: None,
        }
    }

    fn run(mut self) -> Result<(), Objection> {
        let mut path: Vec<Step> = Vec::new();
        let mut choices = self.choices();
        let mut tried = 0;
        while self.placed < self.certain.len() {
            let Some(place) = choices.get(tried).copied() else {
                self.remember_best(&choices);
                let Some(step) = path.pop() else { return Err(self.objection()) };
                self.take_back(step.place, step.value_before);
                (choices, tried) = (step.choices, step.tried);
                continue;
            };
            tried += 1;
            let Some(value) = self.value_after(place, path.last()) else { continue };
            let value_before = std::mem::replace(&mut self.value, value);
            self.place(place);
            if !self.enter() {
                self.take_back(place, value_before);
                continue;
            }
            if self.situations > self.situations_max {
                return Err(Objection::TooHard {
                    situations: self.situations,
                    certain: self.certain.len(),
                    uncertain: self.uncertain.len(),
                });
            }
            path.push(Step { place, value_before, choices, tried });
            choices = self.choices();
            tried = 0;
        }
        // Whatever is left may never have happened.
        Ok(())
    }

    /// What may come next: everything that began before the first end among what is not placed.
    /// The likeliest first: what was answered first, then what may never have happened.
    fn choices(&self) -> Vec<Place> {
        let mut first_end_us = u64::MAX;
        let mut open: Vec<usize> = Vec::new();
        for at in self.low..self.certain.len() {
            let (operation, answered_us) = self.certain[at];
            if operation.invoked_us > first_end_us {
                break;
            }
            if !self.certain_placed.has(at) {
                open.push(at);
                first_end_us = first_end_us.min(answered_us);
            }
        }
        open.retain(|at| self.certain[*at].0.invoked_us <= first_end_us);
        let is_read_that_fits = |at: &&usize| {
            let operation = self.certain[**at].0;
            is_read(operation) && fit(operation, &self.value).is_some()
        };
        if let Some(at) = open.iter().find(is_read_that_fits) {
            return vec![Place::Certain(*at)];
        }
        open.sort_by_key(|at| self.certain[*at].1);
        let uncertain = (0..self.uncertain.len())
            .take_while(|at| self.uncertain[*at].invoked_us <= first_end_us)
            .filter(|at| !self.uncertain_placed.has(*at))
            .filter(|at| self.twins[*at].is_none_or(|twin| self.uncertain_placed.has(twin)));
        open.into_iter().map(Place::Certain).chain(uncertain.map(Place::Uncertain)).collect()
    }

    /// The value if this operation comes next, behind `last`; `None` if it cannot, or need not.
    fn value_after(&self, place: Place, last: Option<&Step>) -> Option<Value> {
        match place {
            Place::Certain(at) => {
                let operation = self.certain[at].0;
                if let Some(Step { place: Place::Uncertain(_), value_before, .. }) = last
                    && fit(operation, value_before).is_some()
                {
                    return None;
                }
                fit(operation, &self.value)
            }
            Place::Uncertain(at) => {
                let (value, _) = model(&self.uncertain[at].request, self.value.as_ref());
                // Without an effect it explains nothing.
                (value != self.value).then_some(value)
            }
        }
    }

    fn place(&mut self, place: Place) {
        match place {
            Place::Certain(at) => {
                self.certain_placed.flip(at);
                self.placed += 1;
                while self.low < self.certain.len() && self.certain_placed.has(self.low) {
                    self.low += 1;
                }
            }
            Place::Uncertain(at) => self.uncertain_placed.flip(at),
        }
    }

    fn take_back(&mut self, place: Place, value_before: Value) {
        match place {
            Place::Certain(at) => {
                self.certain_placed.flip(at);
                self.placed -= 1;
                self.low = self.low.min(at);
            }
            Place::Uncertain(at) => self.uncertain_placed.flip(at),
        }
        self.value = value_before;
    }

    /// Notes the present situation; whether there is anything new to be found behind it.
    fn enter(&mut self) -> bool {
        // Everything before `low` is placed, so only the window behind it is told.
        let from = (self.low / 64).min(self.certain_placed.0.len());
        let window = &self.certain_placed.0[from..];
        let used = window.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let words: Vec<u64> =
            std::iter::once(self.low as u64).chain(window[..used].iter().copied()).collect();
        let before = self.entered.entry((words.into(), self.value.clone())).or_default();
        if before.iter().any(|placed| placed.is_within(&self.uncertain_placed)) {
            return false;
        }
        before.push(self.uncertain_placed.clone());
        self.situations += 1;
        true
    }

    fn remember_best(&mut self, stuck: &[Place]) {
        if self.best.as_ref().is_none_or(|(placed, ..)| *placed < self.placed) {
            self.best = Some((self.placed, self.value.clone(), stuck.to_vec()));
        }
    }

    fn objection(self) -> Objection {
        let (placed, value, stuck) = self.best.unwrap_or_default();
        let stuck = stuck.into_iter().take(SHOWN_MAX).map(|place| match place {
            Place::Certain(at) => self.certain[at].0.clone(),
            Place::Uncertain(at) => self.uncertain[at].clone(),
        });
        Objection::NotLinearizable { placed, of: self.certain.len(), value, stuck: stuck.collect() }
    }
}
