//! The numbers behind the metrics: relaxed atomics, written by the thread that knows, read by anybody.
//!
//! Whoever reads never waits and is never waited for. Numbers of one reading need not belong to one moment; each
//! by itself is right.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{BOUNDS, Histogram, Measure};

/// A number.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

/// A histogram that many threads may count in.
#[derive(Debug)]
pub(crate) struct Spread {
    measure: Measure,
    counts: [Cell; BOUNDS + 1],
    sum: Cell,
}

impl Spread {
    pub(crate) fn new(measure: Measure) -> Self {
        Self { measure, counts: std::array::from_fn(|_| Cell::default()), sum: Cell::default() }
    }

    /// Counts a value.
    pub(crate) fn record(&self, value: u64) {
        if let Some(count) = self.counts.get(self.measure.range_of(value)) {
            count.add(1);
        }
        self.sum.add(value);
    }

    /// Counts all that a histogram has counted, and empties it.
    pub(crate) fn take(&self, counted: &mut Histogram) {
        if counted.count() == 0 {
            return;
        }
        for (cell, count) in self.counts.iter().zip(counted.counts()) {
            if *count > 0 {
                cell.add(*count);
            }
        }
        self.sum.add(counted.sum());
        *counted = Histogram::new(self.measure);
    }

    /// Is what somebody else has counted, who goes on with it. One thread only.
    pub(crate) fn show(&self, counted: &Histogram) {
        // Whatever is counted changes the sum, or is zero, which falls into the first range.
        let [first, ..] = &self.counts;
        if self.sum.get() == counted.sum() && first.get() == counted.counts()[0] {
            return;
        }
        for (cell, count) in self.counts.iter().zip(counted.counts()) {
            cell.set(*count);
        }
        self.sum.set(counted.sum());
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram::of(self.measure, std::array::from_fn(|at| self.counts[at].get()), self.sum.get())
    }
}

/// Places for peers that are made together.
const TOGETHER: usize = 8;

/// A list of places that only grows: whoever reads it needs no lock, and a place is used again when its peer
/// has left.
#[derive(Debug)]
pub(crate) struct Places<T> {
    places: [T; TOGETHER],
    more: OnceLock<Box<Self>>,
}

impl<T: Default> Default for Places<T> {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| T::default()), more: OnceLock::new() }
    }
}

impl<T: Default> Places<T> {
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let mut list = Some(self);
        std::iter::from_fn(move || {
            let this = list?;
            list = this.more.get().map(AsRef::as_ref);
            Some(this.places.iter())
        })
        .flatten()
    }

    /// The first place that is wanted; a new one if there is none.
    pub(crate) fn find_or_add(&self, is_wanted: impl Fn(&T) -> bool) -> &T {
        let mut list = self;
        loop {
            if let Some(place) = list.places.iter().find(|place| is_wanted(place)) {
                return place;
            }
            list = list.more.get_or_init(Box::default);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_together_is_read_together() {
        let spread = Spread::new(Measure::Sizes);
        let threads = crate::node::threads::Threads::new("t".into());
        let spread = std::sync::Arc::new(spread);
        for n in 0..4 {
            let spread = std::sync::Arc::clone(&spread);
            let count = move || (0..1000).for_each(|_| spread.record(1 << n));
            assert!(threads.spawn(&format!("count{n}"), count).is_ok());
        }
        let soon = crate::node::clock::deadline_us(std::time::Duration::from_secs(10));
        assert!(threads.join_until(soon).is_ok());
        let read = spread.read();
        assert_eq!((read.count(), read.sum()), (4000, 15_000));
        assert_eq!(read.counts()[..4], [1000; 4]);
        let mut more = Histogram::new(Measure::Sizes);
        more.add(8, 5);
        spread.take(&mut more);
        assert_eq!((spread.read().count(), more.count()), (4005, 0));
        let mut other = Histogram::new(Measure::Sizes);
        other.add(2, 3);
        spread.show(&other);
        assert_eq!(spread.read(), other);
    }

    #[test]
    fn places_grow_and_are_found_again() {
        let places: Places<Cell> = Places::default();
        for number in 1..=100 {
            places.find_or_add(|place| place.get() == 0).set(number);
        }
        assert_eq!(places.iter().filter(|place| place.get() > 0).count(), 100);
        places.find_or_add(|place| place.get() == 50).set(0);
        places.find_or_add(|place| place.get() == 0).set(500);
        let numbers: Vec<u64> = places.iter().map(Cell::get).collect();
        assert_eq!((numbers[49], numbers.len()), (500, 104));
    }
}
