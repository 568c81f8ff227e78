//! Every single operation of a store's life fails, in every way: the failure is told, costs nothing that
//! was complete, leaves nothing behind that is taken for a snapshot, and the same step succeeds when it
//! is done again, in the same life and in the next.

use crate::crash;
use crate::disk::Dice;
use crate::life::*;
use crate::platter::{Fault, How, Op};

fn ways(op: Op) -> &'static [How] {
    if op == Op::Write {
        &[How::Broken, How::NoSpace, How::Short]
    } else {
        &[How::Broken, How::NoSpace]
    }
}

fn is_temporary(disk: &Disk) -> bool {
    disk.written().into_keys().any(|path| path.to_str().unwrap().ends_with(".tmp"))
}

#[test]
fn every_operation_may_fail_in_every_way_and_may_be_done_again() {
    let whole = fresh(1);
    let store = judge(&whole, "whole");
    whole.fail(None);
    assert_eq!(work(&store, &whole, &STEPS), STEPS.len());
    let mut failures = 0;
    for op in Op::ALL {
        for nth in 0..whole.count(op) {
            for how in ways(op) {
                for reopened in [false, true] {
                    let fault = Fault { op, nth, how: *how };
                    fail(fault, reopened);
                    failures += 1;
                }
            }
        }
    }
    println!("{failures} failures");
    assert!(failures > 200, "{failures}");
}

fn fail(fault: Fault, reopened: bool) {
    let what = format!("{fault:?}, reopened: {reopened}");
    let disk = fresh(fault.nth);
    let mut store = judge(&disk, &what);
    disk.fail(Some(fault));
    let done = work(&store, &disk, &STEPS);
    assert!(disk.failed().is_some(), "{what}: it did not happen");
    // What is only a hint may fail without a word, and so may the reading of something to go on with,
    // or the looking for what is there no more.
    let is_hint = matches!(fault.op, Op::DropCache | Op::Read);
    assert!(done < STEPS.len() || is_hint, "{what}: nobody noticed");
    assert!(fault.op == Op::Unlink || !is_temporary(&disk), "{what}: a temporary file is left");
    disk.fail(None);
    let mut dice = Dice(fault.nth);
    crash::each(&disk.state(), 12, &mut dice, &mut |state| {
        judge(&Disk::new(state, disk.promised(), 0), &format!("{what}, then cut"));
    });
    if reopened {
        drop(store);
        store = judge(&disk, &what);
    }
    let left = &STEPS[done..];
    assert_eq!(work(&store, &disk, left), left.len(), "{what}: it does not go on");
    judge(&disk, &format!("{what}, done again"));
    crash::each(&disk.state(), 4, &mut dice, &mut |state| {
        judge(&Disk::new(state, disk.promised(), 0), &format!("{what}, done again, then cut"));
    });
}
