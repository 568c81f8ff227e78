//! The power is cut, or the process killed, at every operation of a store's life: the snapshot that was
//! complete is there until the next one is, and no half of anything is ever taken for a whole.

use std::collections::BTreeSet;

use crate::crash;
use crate::disk::{Dice, State};
use crate::life::*;
use crate::platter::Shot;

/// Disks of one shot, at most about.
const BUDGET: usize = 40;
/// One in so many disks has its next life cut, too.
const DEEPEN_ONCE_IN: usize = 40;

struct Cuts {
    dice: Dice,
    seen: BTreeSet<u64>,
    opened: u64,
}

impl Cuts {
    fn cut(&mut self, shots: &[Shot<Promise>], depth: usize, what: &str) {
        for (at, shot) in shots.iter().enumerate() {
            let what = format!("{what}, cut at {at} of {}", shots.len());
            let mut dice = Dice(self.dice.next());
            let budget = if depth == 0 { BUDGET } else { BUDGET / 5 };
            crash::each(&shot.state, budget, &mut dice, &mut |state| {
                self.survive(state, &shot.promise, depth, &what);
            });
        }
    }

    fn survive(&mut self, state: State, promise: &Promise, depth: usize, what: &str) {
        self.seen.insert(crash::fingerprint(&state));
        self.opened += 1;
        let disk = Disk::new(state, promise.clone(), self.dice.next());
        let deepen = depth < 2 && self.dice.once_in(DEEPEN_ONCE_IN);
        if deepen {
            disk.record();
        }
        // A full disk opens, too.
        disk.set_full(true);
        let store = judge(&disk, what);
        disk.set_full(false);
        if !deepen {
            return;
        }
        hold_to(&disk, &store);
        let steps = [Step::Receive(40), Step::Retain];
        assert_eq!(work(&store, &disk, &steps), steps.len(), "{what}: it does not go on");
        self.cut(&disk.shots(), depth + 1, &format!("{what}, opened"));
    }
}

fn cuts(seed: u64) -> Cuts {
    Cuts { dice: Dice(seed), seen: BTreeSet::new(), opened: 0 }
}

fn shots(seed: u64) -> Vec<Shot<Promise>> {
    let disk = fresh(seed);
    disk.record();
    let store = judge(&disk, "fresh");
    assert_eq!(work(&store, &disk, &STEPS), STEPS.len());
    disk.shots()
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_old_snapshot_or_the_new_one() {
    let mut cuts = cuts(1);
    cuts.cut(&shots(1), 0, "life");
    println!("{} disks, {} different ones", cuts.opened, cuts.seen.len());
    assert!(cuts.seen.len() > 500, "{}", cuts.seen.len());
}

#[test]
fn a_process_killed_at_any_operation_is_followed_by_one_that_goes_on_and_may_lose_power() {
    let mut cuts = cuts(2);
    for (at, killed) in shots(2).into_iter().enumerate() {
        let what = format!("killed at {at}");
        let disk = Disk::new(killed.state, killed.promise, at as u64);
        disk.record();
        let store = judge(&disk, &what);
        hold_to(&disk, &store);
        let steps = [Step::Receive(40), Step::Retain];
        assert_eq!(work(&store, &disk, &steps), steps.len(), "{what}: it does not go on");
        let shots = disk.shots();
        let some: Vec<_> = shots.into_iter().skip(at % 3).step_by(3).collect();
        cuts.cut(&some, 1, &what);
    }
    println!("{} disks, {} different ones", cuts.opened, cuts.seen.len());
}
