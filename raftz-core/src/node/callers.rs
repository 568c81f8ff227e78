//! Who waits for what: the permits that bound calls in flight, the callers behind them, and the
//! table from token to caller.
//!
//! A [`Caller`] answers exactly once by construction: answering consumes it, and one that is
//! dropped unanswered (a panic, a stop in the wrong moment) answers by itself on the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::types::{Outcome, Refusal, Token, Unknown};

use super::callbacks::{self, Callbacks, Done, Item};
use super::pending::Slot;

/// What a call costs beyond its payload: an estimate of the bookkeeping around it.
pub(crate) const CALL_OVERHEAD_BYTES: u64 = 256;

/// Counts what is in flight, from intake to the end of a completion, against two bounds.
#[derive(Debug)]
pub(crate) struct Gauge {
    calls: AtomicU64,
    bytes: AtomicU64,
    calls_max: u64,
    bytes_max: u64,
}

/// The right to be in flight; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gauge: Arc<Gauge>,
    calls: u64,
    bytes: u64,
}

impl Gauge {
    /// A gauge with these bounds.
    pub(crate) fn new(calls_max: u64, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { calls: AtomicU64::new(0), bytes: AtomicU64::new(0), calls_max, bytes_max })
    }

    /// Admits `calls` calls of `bytes` bytes together, or says which bound is reached.
    pub(crate) fn admit(self: &Arc<Self>, calls: u64, bytes: u64) -> Result<Permit, String> {
        // Adding first and looking afterwards keeps two callers from both taking the last place.
        let permit = Permit { gauge: Arc::clone(self), calls, bytes };
        let calls_before = self.calls.fetch_add(calls, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls_before.saturating_add(calls) > self.calls_max {
            return Err(format!("calls in flight (calls_max = {})", self.calls_max));
        }
        if bytes_before.saturating_add(bytes) > self.bytes_max {
            return Err(format!("bytes in flight (calls_bytes_max = {})", self.bytes_max));
        }
        Ok(permit)
    }

    /// The permit of a call that another one's permit counts.
    pub(crate) fn nothing(self: &Arc<Self>) -> Permit {
        Permit { gauge: Arc::clone(self), calls: 0, bytes: 0 }
    }

    /// Calls in flight.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Splits off the share of one call of `bytes` bytes.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        let calls = self.calls.min(1);
        self.bytes -= bytes;
        self.calls -= calls;
        Self { gauge: Arc::clone(&self.gauge), calls, bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.calls.fetch_sub(self.calls, Ordering::Relaxed);
        self.gauge.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whom a batch's outcomes go to, all at once.
pub(crate) enum BatchEnd {
    /// A future or a blocked thread.
    Slot(Arc<Slot<Vec<Outcome>>>),
    /// A user's function, on the callback thread; the permit is given back after it ran.
    Callback(Box<dyn FnOnce(Vec<Outcome>) + Send>, Permit),
}

/// Collects the outcomes of one batch for its one waiter.
pub(crate) struct Collector {
    state: Mutex<Collected>,
}

struct Collected {
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    end: Option<BatchEnd>,
}

impl Collector {
    /// A collector of `count` outcomes, at least one, that tells `end` when it has them all.
    pub(crate) fn new(count: usize, end: BatchEnd) -> Arc<Self> {
        let outcomes = vec![None; count];
        let collected = Collected { outcomes, missing: count, end: Some(end) };
        Arc::new(Self { state: Mutex::new(collected) })
    }

    /// Nobody waits any more: he is told in another way.
    pub(crate) fn disarm(&self) {
        drop(self.state.lock().end.take());
    }

    #[must_use = "nobody else tells the waiter"]
    fn put(&self, at: usize, outcome: Outcome, permit: Permit) -> Option<Item> {
        let mut state = self.state.lock();
        let place = state.outcomes.get_mut(at)?;
        if place.replace(outcome).is_none() {
            state.missing -= 1;
        }
        if state.missing > 0 {
            return None;
        }
        let all: Vec<Outcome> = state.outcomes.drain(..).flatten().collect();
        let end = state.end.take()?;
        drop(state);
        match end {
            BatchEnd::Slot(slot) => slot.fill(all).map(|waker| Item::Wake(waker, permit)),
            BatchEnd::Callback(done, whole) => Some(Item::Answer(Box::new(move || {
                let _whole = whole;
                done(all);
            }))),
        }
    }
}

/// Where an answer goes.
pub(crate) enum Sink {
    /// To a future or a blocked thread, directly.
    Slot(Arc<Slot<Outcome>>),
    /// To a place in a batch.
    Batch(Arc<Collector>, usize, Arc<Callbacks>),
    /// To a user's function, on the callback thread.
    Callback(Done, Arc<Callbacks>),
}

/// Somebody who waits for one outcome.
pub(crate) struct Caller {
    body: Option<(Sink, Permit)>,
    begun_us: u64,
    handed_over: bool,
}

impl Caller {
    /// A caller whose command nobody has seen yet, and when he called.
    pub(crate) const fn new(sink: Sink, permit: Permit, begun_us: u64) -> Self {
        Self { body: Some((sink, permit)), begun_us, handed_over: false }
    }

    /// When he called, on the boot clock.
    pub(crate) const fn begun_us(&self) -> u64 {
        self.begun_us
    }

    /// From here on the command may be in the log.
    pub(crate) const fn on_its_way(mut self) -> Self {
        self.handed_over = true;
        self
    }

    /// Gives the permit back without an answer: the caller was told in another way.
    pub(crate) fn disarm(mut self) {
        self.body = None;
    }

    /// Tells the caller how it ended; what is a user's code (a completion, a future's waker) is put
    /// on `later`, for the callback thread.
    pub(crate) fn answer(mut self, outcome: Outcome, later: &mut Vec<Item>) {
        let Some((sink, permit)) = self.body.take() else { return };
        match sink {
            Sink::Slot(slot) => {
                later.extend(slot.fill(outcome).map(|waker| Item::Wake(waker, permit)));
            }
            Sink::Batch(collector, at, _) => later.extend(collector.put(at, outcome, permit)),
            Sink::Callback(done, _) => later.push(Item::Done(done, outcome, permit)),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let outcome = if self.handed_over {
            Outcome::Unknown(Unknown::ShuttingDown)
        } else {
            Outcome::Refused(Refusal::ShuttingDown)
        };
        match self.body.take() {
            Some((Sink::Slot(slot), permit)) => {
                // The node ends or the call was never taken in: there may be no callback thread to ask.
                if let Some(waker) = slot.fill(outcome) {
                    callbacks::perform(None, Item::Wake(waker, permit));
                }
            }
            Some((Sink::Batch(collector, at, callbacks), permit)) => {
                if let Some(item) = collector.put(at, outcome, permit) {
                    callbacks.push(item);
                }
            }
            Some((Sink::Callback(done, callbacks), permit)) => {
                callbacks.push(Item::Done(done, outcome, permit));
            }
            None => {}
        }
    }
}

/// Those whom the replicas know by token. A token names its place and that place's generation, so that a reply
/// that comes twice finds nobody.
pub(crate) struct Table<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Enters somebody.
    pub(crate) fn enter(&mut self, item: T) -> Token {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push((0, None));
                (self.places.len() - 1) as u32
            }
        };
        let mut generation = 0;
        if let Some(entry) = self.places.get_mut(place as usize) {
            generation = entry.0;
            entry.1 = Some(item);
        }
        Token(u64::from(generation) << 32 | u64::from(place))
    }

    /// Takes somebody out, if the token is still his own.
    pub(crate) fn take(&mut self, token: Token) -> Option<T> {
        let place = token.0 as u32;
        let (generation, item) = self.places.get_mut(place as usize)?;
        if u64::from(*generation) != token.0 >> 32 {
            return None;
        }
        let item = item.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(place);
        Some(item)
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        (self.places.len() - self.free.len()) as u64
    }

    /// Takes out everybody.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.free.clear();
        self.places.drain(..).filter_map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn caller(gauge: &Arc<Gauge>) -> (Arc<Slot<Outcome>>, Caller) {
        let slot = Slot::empty();
        let caller = Caller::new(Sink::Slot(Arc::clone(&slot)), gauge.admit(1, 1).unwrap(), 0);
        (slot, caller)
    }

    #[test]
    fn a_full_gauge_names_its_bound_and_takes_nothing() {
        let gauge = Gauge::new(2, 100);
        let first = gauge.admit(1, 60).unwrap();
        let error = gauge.admit(1, 60).unwrap_err();
        assert!(error.contains("calls_bytes_max = 100"), "{error}");
        let second = gauge.admit(1, 10).unwrap();
        let error = gauge.admit(1, 0).unwrap_err();
        assert!(error.contains("calls_max = 2"), "{error}");
        drop((first, second));
        assert_eq!((gauge.calls(), gauge.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_split_permit_gives_everything_back() {
        let gauge = Gauge::new(10, 100);
        let mut whole = gauge.admit(3, 30).unwrap();
        let parts = [whole.split(5), whole.split(10), whole.split(15)];
        drop(whole);
        assert_eq!(gauge.calls(), 3);
        drop(parts);
        assert_eq!((gauge.calls(), gauge.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_dropped_caller_is_answered_by_how_far_it_had_come() {
        let gauge = Gauge::new(10, 100);
        let (slot, queued) = caller(&gauge);
        drop(queued);
        assert_eq!(slot.take(), Some(Outcome::Refused(Refusal::ShuttingDown)));
        let (slot, known) = caller(&gauge);
        let mut callers = Table::default();
        callers.enter(known.on_its_way());
        drop(callers);
        assert_eq!(slot.take(), Some(Outcome::Unknown(Unknown::ShuttingDown)));
        assert_eq!(gauge.calls(), 0);
    }

    #[test]
    fn a_token_finds_its_caller_once() {
        let gauge = Gauge::new(10, 100);
        let mut callers = Table::default();
        let (_slot, first) = caller(&gauge);
        let token = callers.enter(first);
        assert!(callers.take(token).is_some());
        let (slot, second) = caller(&gauge);
        let other = callers.enter(second);
        assert_ne!(token, other);
        assert!(callers.take(token).is_none(), "the old token must not find the new caller");
        callers.take(other).unwrap().answer(Outcome::Refused(Refusal::StorageFull), &mut vec![]);
        assert_eq!(slot.take(), Some(Outcome::Refused(Refusal::StorageFull)));
    }

    #[test]
    fn a_batch_is_answered_when_its_last_outcome_is_there() {
        let gauge = Gauge::new(10, 100);
        let permit = || gauge.admit(1, 1).unwrap();
        let slot = Slot::empty();
        let collector = Collector::new(2, BatchEnd::Slot(Arc::clone(&slot)));
        let full = || Outcome::Refused(Refusal::StorageFull);
        assert!(collector.put(1, full(), permit()).is_none());
        assert!(collector.put(1, full(), permit()).is_none());
        assert_eq!(slot.take(), None);
        assert!(collector.put(0, Outcome::Refused(Refusal::Overwritten), permit()).is_none());
        assert_eq!(slot.take().unwrap(), [Outcome::Refused(Refusal::Overwritten), full()]);
    }

    #[test]
    fn a_batch_s_callback_keeps_the_permit_until_it_ran() {
        let gauge = Gauge::new(10, 100);
        let told = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&told);
        let done = Box::new(move |outcomes| *theirs.lock() = outcomes);
        let end = BatchEnd::Callback(done, gauge.admit(2, 20).unwrap());
        let collector = Collector::new(2, end);
        let full = || Outcome::Refused(Refusal::StorageFull);
        assert!(collector.put(0, full(), gauge.nothing()).is_none());
        let item = collector.put(1, full(), gauge.nothing()).unwrap();
        assert_eq!((gauge.calls(), told.lock().len()), (2, 0));
        callbacks::perform(None, item);
        assert_eq!((gauge.calls(), &told.lock()[..]), (0, &[full(), full()][..]));
    }
}
