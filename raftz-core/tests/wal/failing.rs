//! Each single operation of a store's life fails, in each way: nothing panics, nothing that was
//! acknowledged is lost, a failure of the log or of the vote file ends the writing, and the next
//! open is as if nothing had been, in the running machine as well as after a power cut.

use crate::cuts::{Budget, Enumerator, Share, seeds};
use crate::disk::Dice;
use crate::life::*;
use crate::platter::{Fault, How, Op, Shot};

/// Long enough for several segments, reopens and seals.
const STEPS: usize = 16;

/// Formats a disk and works on it; false if something failed.
fn live(disk: &Disk, seed: u64, what: &str) -> bool {
    if let Err(error) = format(disk) {
        assert!(disk.failed().is_some(), "{what}: {error}");
        return false;
    }
    work(disk, STEPS, &mut Dice(seed), what)
}

fn ways(op: Op) -> &'static [How] {
    if op == Op::Write {
        return &[How::Broken, How::NoSpace, How::Short];
    }
    &[How::Broken, How::NoSpace]
}

/// Whether nobody may go on after a failed write or sync of this file.
fn is_vital(disk: &Disk) -> bool {
    let failed = disk.failed().unwrap();
    let name = failed.file_name().unwrap().to_str().unwrap();
    name.ends_with(".log") || name == "vote"
}

fn fail_each(enumerator: &mut Enumerator, seed: u64) -> u64 {
    let whole = empty_disk(seed);
    assert!(live(&whole, seed, &format!("seed {seed}")));
    let mut failures = 0;
    for op in Op::ALL {
        let count = whole.count(op);
        assert!(count > 0, "seed {seed}: {op:?} never happens");
        for nth in 0..count {
            for how in ways(op) {
                let fault = Fault { op, nth, how: *how };
                let what = format!("seed {seed}, {fault:?}");
                let disk = empty_disk(seed);
                disk.fail(Some(fault));
                let fine = live(&disk, seed, &what);
                assert!(disk.failed().is_some(), "{what}: did not happen");
                // That an old segment cannot be removed is no failure of the log.
                let is_write = matches!(op, Op::Write | Op::Sync);
                assert!(!(fine && is_write && is_vital(&disk)), "{what}: nobody noticed");
                failures += 1;
                disk.fail(None);
                let after = Shot { state: disk.state(), promise: disk.promised() };
                enumerator.cut(&[after], &what);
                // The machine goes on; the next process reads what the failure left in the cache.
                disk.record();
                enumerator.live_on(&disk, true, &what);
                let shots = disk.shots();
                if nth % 8 == 0 {
                    enumerator.cut(&shots, &format!("{what}, restarted"));
                }
            }
        }
    }
    failures
}

#[test]
fn every_operation_may_fail_in_every_way_and_nothing_that_was_acknowledged_is_lost() {
    let budget = Budget { first: 12, deeper: 6, deepen_once_in: 400 };
    let mut enumerator = Enumerator::new(Share::Failures, budget);
    let mut failures = 0;
    for seed in seeds(Share::Failures) {
        if failures > 0 && !enumerator.wants_more() {
            break;
        }
        failures += fail_each(&mut enumerator, seed);
    }
    println!("{failures} operations failed");
    enumerator.report("failures");
}
