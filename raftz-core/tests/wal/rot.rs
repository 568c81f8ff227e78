//! Damage at several places of logs of many segments, taken at random; then a leader brings back
//! what was lost, and the damage is forgotten neither too early nor never.

use std::path::PathBuf;
use std::sync::Arc;

use raftz_core::storage::wal::Wal;
use raftz_core::storage::{Storage, StorageError};
use raftz_core::types::{HardState, Index, LogId, NodeId, Recovered, Term, WriteOp};

use crate::disk::{Dice, Image, SECTOR, State};
use crate::life::*;
use crate::platter::Platter;
use crate::support::*;

const BLOCK: usize = 4096;
const LOGS: u64 = 30;
const ROUNDS: usize = 40;

fn open(disk: &Platter) -> Result<(Wal, Recovered), StorageError> {
    Wal::open(Arc::new(disk.clone()), dir(), owner(), tiny(SEGMENT))
}

/// How an open of a rotten disk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Intact,
    Damaged,
}

/// A log of several segments, and its files.
fn grown(seed: u64, dice: &mut Dice) -> (Arc<Log>, State) {
    let disk = formatted(seed);
    let mut life = Life::begin(&disk, SEGMENT).unwrap();
    for _ in 0..12 + dice.below(20) {
        assert!(life.submit_anything(dice));
        if dice.once_in(6) {
            life.wal.idle().unwrap();
        }
        if dice.once_in(8) {
            drop(life);
            life = Life::begin(&disk, SEGMENT).unwrap();
        }
    }
    let log = life.log.clone();
    drop(life);
    // An open takes over what no seal covers.
    drop(Life::begin(&disk, SEGMENT).unwrap());
    (log, disk.state())
}

/// The files of the log.
fn segments(image: &Image) -> Vec<PathBuf> {
    let is_log = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "log");
    image.keys().filter(is_log).cloned().collect()
}

/// Damages so many blocks of segments, half of them neighbours.
fn rot(image: &mut Image, count: usize, dice: &mut Dice) -> String {
    let logs = segments(image);
    let mut what = String::new();
    let mut last: Option<(PathBuf, usize)> = None;
    for _ in 0..count {
        let near = last.take().filter(|_| dice.once_in(2));
        let (path, block) = near.map_or_else(
            || {
                let path = logs[dice.below(logs.len())].clone();
                let block = dice.below(image[&path].len() / BLOCK);
                (path, block)
            },
            |(path, block)| (path, block + 1),
        );
        if (block + 1) * BLOCK > image[&path].len() {
            continue;
        }
        what += &damage(image, &path, block, dice);
        last = Some((path, block));
    }
    what
}

/// Damages one block; says how.
fn damage(image: &mut Image, path: &PathBuf, block: usize, dice: &mut Dice) -> String {
    let content = Arc::make_mut(image.get_mut(path).unwrap());
    let bytes = &mut content[block * BLOCK..][..BLOCK];
    let how = match dice.below(3) {
        0 => {
            bytes[dice.below(200)] ^= 1 << dice.below(8);
            "a flipped bit"
        }
        1 => {
            bytes.fill(0);
            "zeros"
        }
        _ => {
            let at = dice.below(BLOCK / SECTOR) * SECTOR;
            bytes[at..at + SECTOR].fill_with(|| dice.next() as u8);
            "a garbled sector"
        }
    };
    format!("; {} block {block}: {how}", path.display())
}

/// Opens a rotten disk and checks all that must hold; also says how far the log reaches.
fn judge(disk: &Platter, truth: &Log, what: &str) -> (Verdict, LogId) {
    let (wal, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(StorageError::Corrupt { .. } | StorageError::HardStateLost { .. }) => {
            return (Verdict::Refused, LogId::ZERO);
        }
        Err(error) => panic!("{what}: {error}"),
    };
    assert_eq!(recovered.hard_state, truth.hard_state, "{what}: {:?}", recovered.notes);
    let (base, last) = (&recovered.base, recovered.last);
    assert!(base.id <= truth.base.id, "{what}: base {} of {}", base.id, truth.base.id);
    assert!(base.id != truth.base.id || *base == truth.base, "{what}: the base changed");
    // Where the move of the base is lost there may be older entries, too.
    let mut read = all(&wal, &recovered);
    read.retain(|entry| entry.index > truth.base.id.index);
    assert!(truth.entries.starts_with(&read), "{what}: entries changed");
    let Some(damage) = recovered.damage else {
        assert_eq!(last, truth.last(), "{what}: silent: {:?}", recovered.notes);
        return (Verdict::Intact, last);
    };
    assert_eq!(damage.first_faulty, last.index.next(), "{what}");
    // What a lost checkpoint may have told of counts as lost, also where the log has turned away from it.
    assert!(damage.lost.last_known.is_none_or(|known| known >= truth.last()), "{what}: {damage:?}");
    (Verdict::Damaged, last)
}

/// What a leader sends: the base where the log does not reach it, then entries up to `to`.
fn bring_back(wal: &mut Wal, truth: &Log, last: LogId, to: Index) {
    if last.index < truth.base.id.index {
        let base = Some(Box::new(truth.base.clone()));
        submit(wal, vec![WriteOp { base, ..WriteOp::default() }]).unwrap();
    }
    let missing =
        truth.entries.iter().filter(|entry| entry.index > last.index && entry.index <= to);
    for entry in missing {
        submit(wal, vec![append(vec![entry.clone()])]).unwrap();
    }
}

/// Brings back what was lost, in two lives, and goes on in a new term.
fn heal(disk: &Platter, truth: &Log, what: &str) {
    let whole = truth.last().index;
    let (mut wal, recovered) = open(disk).unwrap();
    let left = recovered.last.index.max(truth.base.id.index);
    let half = left.plus(left.distance_to(whole) / 2);
    bring_back(&mut wal, truth, recovered.last, half);
    drop(wal);
    let (mut wal, recovered) = open(disk).unwrap();
    assert_eq!(recovered.last.index, half, "{what}");
    assert!(half == whole || recovered.damage.is_some(), "{what}: forgotten before it was healed");
    bring_back(&mut wal, truth, recovered.last, whole);
    let hard_state = HardState { term: Term(truth.hard_state.term.0 + 1), vote: NodeId::new(3) };
    let next = entry(hard_state.term.0, whole.next().0, 10);
    let op = WriteOp { hard_state: Some(hard_state), ..append(vec![next.clone()]) };
    submit(&mut wal, vec![op]).unwrap();
    drop(wal);
    let (wal, recovered) = open(disk).unwrap();
    assert_eq!(recovered.damage, None, "{what}: not healed: {:?}", recovered.notes);
    let expected = [&truth.entries[..], &[next]].concat();
    assert!(all(&wal, &recovered).ends_with(&expected), "{what}");
}

#[test]
fn rot_in_several_places_is_never_believed_and_heals() {
    let mut counts = [0_u64; 3];
    let mut healed = 0;
    for seed in 1..=LOGS {
        let mut dice = Dice(seed);
        let (truth, state) = grown(seed, &mut dice);
        for round in 0..ROUNDS {
            let mut image = state.synced();
            let count = 1 + dice.below(3);
            let mut what = format!("seed {seed} round {round}");
            what += &rot(&mut image, count, &mut dice);
            // One slot of the vote file, too: the other one knows of every vote.
            if count == 1 && dice.once_in(2) {
                let slot = dice.below(2);
                what += &damage(&mut image, &dir().join("vote"), slot, &mut dice);
            }
            let disk = Platter::holding(&image);
            let first = judge(&disk, &truth, &what);
            for again in 1..3 {
                let later = judge(&disk, &truth, &format!("{what}, open {again}"));
                assert_eq!(first, later, "{what}, open {again}");
            }
            counts[first.0 as usize] += 1;
            if first.0 == Verdict::Damaged {
                heal(&disk, &truth, &what);
                healed += 1;
            }
        }
    }
    println!("refused, intact, damaged: {counts:?}; healed: {healed}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn what_was_lost_is_not_forgotten_with_the_checkpoint_that_remembers_it() {
    let (mut kept, mut refused) = (0, 0);
    for seed in 1..=LOGS {
        let mut dice = Dice(seed);
        let (truth, state) = grown(seed, &mut dice);
        for round in 0..ROUNDS {
            let mut image = state.synced();
            let old = segments(&image);
            let count = 1 + dice.below(2);
            let mut what = format!("seed {seed} round {round}");
            what += &rot(&mut image, count, &mut dice);
            let disk = Platter::holding(&image);
            if judge(&disk, &truth, &what).0 != Verdict::Damaged {
                continue;
            }
            // Part of it is brought back, or nothing, or only the base.
            let (mut wal, recovered) = open(&disk).unwrap();
            let left = recovered.last.index.max(truth.base.id.index);
            let to = left.plus(left.distance_to(truth.last().index) * dice.below(3) as u64 / 3);
            if dice.once_in(2) {
                bring_back(&mut wal, &truth, recovered.last, to);
            }
            drop(wal);
            let image = disk.state().synced();
            for path in segments(&image).iter().filter(|path| !old.contains(path)) {
                let mut image = image.clone();
                let what = what.clone() + &damage(&mut image, path, 1, &mut dice);
                match open(&Platter::holding(&image)) {
                    Ok((_, recovered)) => {
                        let is_whole = recovered.last == truth.last();
                        assert!(is_whole || recovered.damage.is_some(), "{what}: forgotten");
                        kept += 1;
                    }
                    Err(StorageError::Corrupt { .. } | StorageError::HardStateLost { .. }) => {
                        refused += 1;
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
    println!("kept: {kept}, refused: {refused}");
    assert!(kept > 100 && refused < kept);
}
