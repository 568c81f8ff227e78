//! Every disk that a power cut may leave behind, opened.
//!
//! A workload runs on a [`Platter`](crate::platter::Platter), which takes a shot after each
//! operation. From each shot the disks are made that a cut at this moment may leave (`crash.rs`;
//! `disk.rs` says what is possible). Each is opened, on a disk that is full, and must hold exactly
//! what had been promised, or that and the whole of what was under way; nothing may be refused, and
//! nothing called damage. What such an open then says is a promise, too, and its own operations are
//! cut in turn, so that recovery is interrupted several times over. Processes are killed as well, at
//! each operation, and their successors inherit the page cache and lose power later.
//!
//! `RAFTZ_CRASH_STATES` says how many different disks to open, 100,000 if it does not;
//! `RAFTZ_CRASH_SEED=7` draws other workloads.

use std::collections::BTreeSet;

use raftz_core::storage::wal::Wal;

use crate::crash;
use crate::disk::{Dice, State};
use crate::life::*;
use crate::platter::{Helper, Shot};

/// Different disks that the tests of this directory open together, if nobody says.
const STATES: u64 = 100_000;
/// Interruptions of recovery, one within the other.
const DEPTH_MAX: usize = 3;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A test's part of the disks to open. The parts make up the whole.
#[derive(Clone, Copy)]
pub(crate) enum Share {
    PowerCuts = 50,
    Helper = 10,
    Formatting = 4,
    Kills = 20,
    Failures = 16,
}

const SHARES: [Share; 5] =
    [Share::PowerCuts, Share::Helper, Share::Formatting, Share::Kills, Share::Failures];

/// Seeds without end, other ones for each test: no disk of one is a disk of another.
pub(crate) fn seeds(share: Share) -> impl Iterator<Item = u64> {
    let first = from_environment("RAFTZ_CRASH_SEED").unwrap_or(1);
    (first << 8 | share as u64) << 32..
}

/// How many disks to make of one shot, by depth.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) first: usize,
    pub(crate) deeper: usize,
    /// One in so many disks has its own recovery interrupted.
    pub(crate) deepen_once_in: usize,
}

/// Opens disks, and counts the different ones.
pub(crate) struct Enumerator {
    dice: Dice,
    budget: Budget,
    seen: BTreeSet<(u64, u64)>,
    distinct: BTreeSet<u64>,
    depths: [u64; DEPTH_MAX + 1],
    least: u64,
}

impl Enumerator {
    pub(crate) fn new(share: Share, budget: Budget) -> Self {
        Self {
            dice: Dice(share as u64),
            budget,
            seen: BTreeSet::new(),
            distinct: BTreeSet::new(),
            depths: [0; DEPTH_MAX + 1],
            least: from_environment("RAFTZ_CRASH_STATES").unwrap_or(STATES) * share as u64 / 100,
        }
    }

    /// Whether more is to be done; said of a workload that begins.
    pub(crate) fn wants_more(&mut self) -> bool {
        self.seen.clear();
        (self.distinct.len() as u64) < self.least
    }

    /// Cuts the power at each of `shots`.
    pub(crate) fn cut(&mut self, shots: &[Shot<Promise>], what: &str) {
        self.cut_at_depth(shots, 0, what);
    }

    fn cut_at_depth(&mut self, shots: &[Shot<Promise>], depth: usize, what: &str) {
        for (at, shot) in shots.iter().enumerate() {
            let budget = if depth == 0 { self.budget.first } else { self.budget.deeper };
            let what = format!("{what}, cut at {at} of {}", shots.len());
            let mut dice = Dice(self.dice.next());
            crash::each(&shot.state, budget, &mut dice, &mut |disk| {
                self.survive(disk, &shot.promise, depth, &what);
            });
        }
    }

    /// Opens a disk as the power cut left it.
    fn survive(&mut self, state: State, promise: &Promise, depth: usize, what: &str) {
        let fingerprint = crash::fingerprint(&state);
        if !self.seen.insert((fingerprint, promise.number)) {
            return;
        }
        self.distinct.insert(fingerprint);
        self.depths[depth] += 1;
        let deepen = depth < DEPTH_MAX && self.dice.once_in(self.budget.deepen_once_in);
        let disk = Disk::new(state, promise.clone(), self.dice.next());
        if deepen {
            disk.record();
        }
        self.live_on(&disk, deepen, what);
        if deepen {
            self.cut_at_depth(&disk.shots(), depth + 1, &format!("{what}, opened"));
        }
    }

    /// Opens a disk that has no room, then, if it is to be `busy` and sometimes otherwise, works on.
    pub(crate) fn live_on(&mut self, disk: &Disk, busy: bool, what: &str) {
        disk.set_full(true);
        if !Wal::is_formatted(disk, dir()).unwrap() {
            assert!(!disk.promised().formatted, "{what}: the superblock is gone");
            disk.set_full(false);
            format(disk).unwrap_or_else(|error| panic!("{what}: formatting again: {error}"));
        }
        let life = Life::begin(disk, SEGMENT);
        let mut life = life.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        if !busy && !self.dice.once_in(8) {
            return;
        }
        disk.set_full(false);
        for _ in 0..self.dice.below(3) {
            assert!(life.submit_anything(&mut self.dice), "{what}: it does not write");
        }
        drop(life);
        let life = Life::begin(disk, SEGMENT);
        drop(life.unwrap_or_else(|wrong| panic!("{what}, written and opened again: {wrong}")));
    }

    /// Tells how much was done, and that it was enough.
    pub(crate) fn report(&self, test: &str) {
        let distinct = self.distinct.len();
        println!("{test}: {distinct} different disks; opened by depth {:?}", self.depths);
        assert!(distinct as u64 >= self.least, "{test}: {distinct} disks");
    }
}

#[test]
fn the_shares_make_up_the_whole() {
    assert_eq!(SHARES.iter().map(|share| *share as u64).sum::<u64>(), 100);
}

fn cut_workloads(share: Share, budget: Budget, helper: Helper) {
    let mut enumerator = Enumerator::new(share, budget);
    for seed in seeds(share) {
        if !enumerator.wants_more() {
            break;
        }
        let disk = formatted(seed);
        disk.set_helper(helper);
        disk.record();
        let what = format!("seed {seed}, helper {helper:?}");
        assert!(work(&disk, 40, &mut Dice(seed), &what));
        enumerator.cut(&disk.shots(), &what);
    }
    enumerator.report(&format!("power cuts, helper {helper:?}"));
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    let budget = Budget { first: 60, deeper: 12, deepen_once_in: 150 };
    cut_workloads(Share::PowerCuts, budget, Helper::AtOnce);
}

#[test]
fn a_power_cut_while_the_helper_prepares_a_segment_loses_nothing_that_was_acknowledged() {
    let budget = Budget { first: 40, deeper: 8, deepen_once_in: 300 };
    cut_workloads(Share::Helper, budget, Helper::Beside);
}

#[test]
fn formatting_cut_anywhere_several_times_is_repeated_or_complete() {
    let budget = Budget { first: 100, deeper: 10, deepen_once_in: 30 };
    let mut enumerator = Enumerator::new(Share::Formatting, budget);
    for seed in seeds(Share::Formatting) {
        if !enumerator.wants_more() {
            break;
        }
        let disk = empty_disk(seed);
        disk.record();
        format(&disk).unwrap();
        enumerator.cut(&disk.shots(), &format!("seed {seed}, formatting"));
    }
    enumerator.report("formatting");
}

#[test]
fn a_killed_process_and_then_a_power_cut_lose_nothing_that_was_acknowledged() {
    let budget = Budget { first: 12, deeper: 8, deepen_once_in: 400 };
    let mut enumerator = Enumerator::new(Share::Kills, budget);
    for seed in seeds(Share::Kills) {
        if !enumerator.wants_more() {
            break;
        }
        let mut dice = Dice(seed ^ 0x5eed);
        let disk = empty_disk(seed);
        disk.record();
        format(&disk).unwrap();
        assert!(work(&disk, 12, &mut dice, &format!("seed {seed}")));
        for (at, killed) in disk.shots().into_iter().enumerate() {
            let what = format!("seed {seed}, killed at {at}");
            // The page cache outlives the process.
            let disk = Disk::new(killed.state, killed.promise, dice.next());
            disk.record();
            enumerator.live_on(&disk, true, &what);
            enumerator.cut(&disk.shots(), &what);
        }
    }
    enumerator.report("kills");
}
