//! Events that wait for somebody who takes them.
//!
//! A backlog is bounded, and yet nobody who reads it late is left with an old state: of events that say the same
//! of the same thing (their key), only the latest waits, behind everything that was told before it. So its
//! number is bounded by the things there are, it is never dropped, and order is kept. Events without a key are
//! dropped beyond a bound, the newest first, and counted.

use std::collections::{BTreeMap, VecDeque};

/// Places that may be empty before a backlog is packed.
const SLACK: usize = 64;

/// Things that wait, the oldest first.
#[doc(hidden)]
#[derive(Debug)]
pub struct Backlog<K, T> {
    places: VecDeque<Option<(Option<K>, T)>>,
    /// The number of the first place; places are numbered on and on.
    first: u64,
    latest: BTreeMap<K, u64>,
    waiting: usize,
    keyless: usize,
    keyless_max: usize,
    keys_max: usize,
}

impl<K: Ord + Copy, T> Backlog<K, T> {
    /// An empty one, in which at most so many things without a key may wait, and as many different keys.
    pub const fn new(max: usize) -> Self {
        Self::with_bounds(max, max)
    }

    /// An empty one with a bound for things without a key, and one for keys.
    pub const fn with_bounds(keyless_max: usize, keys_max: usize) -> Self {
        Self {
            places: VecDeque::new(),
            first: 0,
            latest: BTreeMap::new(),
            waiting: 0,
            keyless: 0,
            keyless_max,
            keys_max,
        }
    }

    /// Puts something behind all that waits, and gives what has waited under the same key.
    ///
    /// # Errors
    /// There is no room for it: it is given back.
    pub fn push(&mut self, key: Option<K>, thing: T) -> Result<Option<T>, T> {
        let mut replaced = None;
        match key {
            None if self.keyless >= self.keyless_max => return Err(thing),
            None => self.keyless += 1,
            Some(key) => {
                let is_new = !self.latest.contains_key(&key);
                if is_new && self.latest.len() >= self.keys_max {
                    return Err(thing);
                }
                replaced = self.take_back(key);
                self.latest.insert(key, self.first + self.places.len() as u64);
            }
        }
        self.places.push_back(Some((key, thing)));
        self.waiting += 1;
        if self.places.len() > self.waiting * 2 + SLACK {
            self.pack();
        }
        Ok(replaced)
    }

    /// As [`Backlog::push`], for what must not be lost: the few things of which there is always one at most.
    pub fn push_surely(&mut self, key: K, thing: T) -> Option<T> {
        let keys_max = std::mem::replace(&mut self.keys_max, usize::MAX);
        let pushed = self.push(Some(key), thing);
        self.keys_max = keys_max;
        // With a key and no bound there is room.
        pushed.unwrap_or(None)
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<T> {
        loop {
            let place = self.places.pop_front()?;
            self.first += 1;
            let Some((key, thing)) = place else { continue };
            self.waiting -= 1;
            match key {
                None => self.keyless -= 1,
                Some(key) => drop(self.latest.remove(&key)),
            }
            return Some(thing);
        }
    }

    /// How many things wait.
    pub const fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    fn take_back(&mut self, key: K) -> Option<T> {
        let at = usize::try_from(self.latest.remove(&key)? - self.first).ok()?;
        let (_, thing) = self.places.get_mut(at)?.take()?;
        self.waiting -= 1;
        Some(thing)
    }

    /// Closes the gaps.
    fn pack(&mut self) {
        self.places.retain(Option::is_some);
        self.first = 0;
        let keys = self.places.iter().map(|place| place.as_ref().and_then(|(key, _)| *key));
        self.latest = (0..).zip(keys).filter_map(|(number, key)| Some((key?, number))).collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is pushed and taken: what is taken ascends, keeps every key's latest, and loses nothing
        /// without a key but what was refused.
        #[test]
        fn who_reads_late_knows_the_latest_of_everything(
            steps in proptest::collection::vec((0_u8..4, 0_u8..6), 0..400),
        ) {
            let mut backlog = Backlog::new(8);
            let (mut seen, mut latest) = (BTreeMap::new(), BTreeMap::new());
            let (mut number, mut refused, mut taken) = (0_u64, 0, Vec::new());
            let mut pushed_keyless = 0;
            for (what, key) in steps {
                match what {
                    0 | 1 => {
                        number += 1;
                        backlog.push(Some(key), (Some(key), number)).unwrap();
                        latest.insert(key, number);
                    }
                    2 => {
                        number += 1;
                        pushed_keyless += 1;
                        refused += u64::from(backlog.push(None, (None, number)).is_err());
                    }
                    _ => taken.extend(backlog.pop()),
                }
                prop_assert!(backlog.len() <= 8 + 6);
                prop_assert!(backlog.places.len() <= backlog.len() * 2 + SLACK + 1);
            }
            taken.extend(std::iter::from_fn(|| backlog.pop()));
            prop_assert!(taken.windows(2).all(|pair| pair[0].1 < pair[1].1), "in order");
            for (key, number) in &taken {
                if let Some(key) = key {
                    seen.insert(*key, *number);
                }
            }
            prop_assert_eq!(seen, latest);
            let keyless = taken.iter().filter(|(key, _)| key.is_none()).count() as u64;
            prop_assert_eq!(keyless + refused, pushed_keyless);
            prop_assert!(backlog.is_empty());
        }
    }

    #[test]
    fn one_thing_that_changes_for_ever_takes_one_place() {
        let mut backlog = Backlog::new(1);
        backlog.push(None, 0).unwrap();
        for number in 1..=100_000 {
            backlog.push(Some("role"), number).unwrap();
        }
        assert_eq!(backlog.push(None, 7), Err(7));
        assert_eq!(backlog.push(Some("leader"), 8), Err(8), "keys are bounded, too");
        assert_eq!(backlog.push(Some("role"), 100_000), Ok(Some(100_000)));
        assert_eq!(backlog.push_surely("dropped", 9), None);
        assert!(backlog.places.len() < 200, "{}", backlog.places.len());
        let rest: Vec<i32> = std::iter::from_fn(|| backlog.pop()).collect();
        assert_eq!(rest, [0, 100_000, 9]);
    }
}
