//! The disks that a power cut may leave behind: every combination of names kept or lost, and of the
//! unsynced sectors kept, lost or garbled as many as a budget allows, the regular ones (prefixes,
//! single holes, single survivors) first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Change, Dice, Inode, Names, SECTOR, State};

/// Up to this many changes of names are combined in all ways.
const NAMES_COMBINED_MAX: usize = 5;
/// Combinations that are drawn where there are more.
const NAMES_DRAWN: usize = 16;
/// Each combination of names is tried with this many combinations of sectors at least.
const BUDGET_MIN: usize = 8;

/// A sector that an unsynced write touched, and all that it may hold.
struct Blot {
    inode: u64,
    at: usize,
    /// As it was synced, then as each write left it; without repetitions.
    versions: Vec<Vec<u8>>,
}

/// What becomes of a blot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Version(usize),
    Garbled,
}

fn sector(content: &[u8], at: usize) -> Vec<u8> {
    let start = (at * SECTOR).min(content.len());
    let mut bytes = content[start..(start + SECTOR).min(content.len())].to_vec();
    bytes.resize(SECTOR, 0);
    bytes
}

/// The blots of a file, and the lengths that it may have.
fn blots_of(number: u64, inode: &Inode) -> (Vec<Blot>, Vec<usize>) {
    let mut blots: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    let mut lengths = vec![inode.durable.len()];
    let mut content = inode.durable.to_vec();
    for change in &inode.pending {
        let before = content.len();
        change.apply(&mut content);
        let touched = match change {
            Change::Write(at, bytes) => at / SECTOR..(at + bytes.len()).div_ceil(SECTOR),
            Change::Length(length) => {
                let (from, upto) = (before.min(*length), before.max(*length));
                from / SECTOR..upto.div_ceil(SECTOR)
            }
        };
        for at in touched {
            let versions = blots.entry(at).or_insert_with(|| vec![sector(&inode.durable, at)]);
            let now = sector(&content, at);
            if !versions.contains(&now) {
                versions.push(now);
            }
        }
        if !lengths.contains(&content.len()) {
            lengths.push(content.len());
        }
    }
    // Zeros written over zeros, as a spare segment is: there is nothing to tell apart.
    if blots.values().all(|versions| versions.len() == 1) {
        blots.clear();
    }
    let blots = blots.into_iter().map(|(at, versions)| Blot { inode: number, at, versions });
    (blots.collect(), lengths)
}

/// All that may have become of the names.
fn names_of(state: &State, dice: &mut Dice) -> Vec<Names> {
    let pending = &state.pending_names;
    let all = 1_u64 << pending.len().min(63);
    let masks: Vec<u64> = if pending.len() <= NAMES_COMBINED_MAX {
        (0..all).collect()
    } else {
        let prefixes = (0..=pending.len()).map(|n| (1 << n) - 1);
        let holes = (0..pending.len()).map(|n| (all - 1) & !(1 << n));
        let drawn: Vec<u64> = (0..NAMES_DRAWN).map(|_| dice.next() & (all - 1)).collect();
        prefixes.chain(holes).chain(drawn).collect()
    };
    let mut found: Vec<Names> = Vec::new();
    for mask in masks {
        let mut names = state.durable_names.clone();
        for (at, change) in pending.iter().enumerate() {
            if mask >> at & 1 == 1 {
                change.apply(&mut names);
            }
        }
        if !found.contains(&names) {
            found.push(names);
        }
    }
    found
}

/// Every combination of fates.
fn all_fates(blots: &[Blot]) -> Vec<Vec<Fate>> {
    let mut all = vec![Vec::new()];
    for blot in blots {
        let fates = (0..blot.versions.len()).map(Fate::Version).chain([Fate::Garbled]);
        let fates: Vec<Fate> = fates.collect();
        let longer = |some: Vec<Fate>| fates.iter().map(move |f| [&some[..], &[*f]].concat());
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

/// Everything kept or lost but for a prefix, one hole, one survivor, or one garbled sector.
fn regular_fates(blots: &[Blot], lost: &[Fate], kept: &[Fate]) -> Vec<Vec<Fate>> {
    let with = |base: &[Fate], at: usize, fate: Fate| {
        let mut fates = base.to_vec();
        fates[at] = fate;
        fates
    };
    let mut regular = vec![vec![Fate::Garbled; blots.len()]];
    for at in (0..blots.len()).filter(|at| blots[*at].versions.len() > 1) {
        let prefix = [&kept[..at], &lost[at..]].concat();
        regular.extend([
            with(&prefix, at, Fate::Garbled),
            prefix,
            [&lost[..at], &kept[at..]].concat(),
            with(kept, at, lost[at]),
            with(lost, at, kept[at]),
            with(kept, at, Fate::Garbled),
            with(lost, at, Fate::Garbled),
        ]);
    }
    regular
}

/// The fates of `blots` that are worth trying, about `budget` of them.
fn fates_of(blots: &[Blot], budget: usize, dice: &mut Dice) -> Vec<Vec<Fate>> {
    let product = blots.iter().try_fold(1_usize, |n, b| n.checked_mul(b.versions.len() + 1));
    if product.is_some_and(|product| product <= budget) {
        return all_fates(blots);
    }
    let lost: Vec<Fate> = blots.iter().map(|_| Fate::Version(0)).collect();
    let kept: Vec<Fate> = blots.iter().map(|b| Fate::Version(b.versions.len() - 1)).collect();
    let mut regular = regular_fates(blots, &lost, &kept);
    while regular.len() > budget * 3 / 4 {
        regular.swap_remove(dice.below(regular.len()));
    }
    let mut fates = vec![lost.clone(), kept.clone()];
    fates.extend(regular);
    while fates.len() < budget {
        let few = 1 + dice.below(8);
        let base = if dice.once_in(2) { &kept } else { &lost };
        let drawn = blots.iter().zip(base).map(|(blot, fate)| match dice.below(few + 2) {
            0 => Fate::Garbled,
            1 => Fate::Version(dice.below(blot.versions.len())),
            _ => *fate,
        });
        fates.push(drawn.collect());
    }
    fates
}

fn garble(versions: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let (old, new) = (&versions[0], &versions[versions.len() - 1]);
    let cut = 1 + dice.below(SECTOR - 1);
    match dice.below(4) {
        0 => [&new[..cut], &old[cut..]].concat(),
        1 => [&old[..cut], &new[cut..]].concat(),
        2 => new.iter().map(|byte| !byte).collect(),
        _ => (0..SECTOR).map(|_| dice.next() as u8).collect(),
    }
}

/// A file's content after the cut.
fn content_of(
    inode: &Inode,
    lengths: &[usize],
    fates: &[(&Blot, Fate)],
    dice: &mut Dice,
) -> Arc<Vec<u8>> {
    let mut content = inode.durable.clone();
    if lengths.len() == 1 && fates.is_empty() {
        return content;
    }
    let bytes = Arc::make_mut(&mut content);
    bytes.resize(lengths.iter().copied().max().unwrap_or(0), 0);
    for (blot, fate) in fates {
        let start = (blot.at * SECTOR).min(bytes.len());
        let end = (start + SECTOR).min(bytes.len());
        match fate {
            Fate::Version(n) => {
                bytes[start..end].copy_from_slice(&blot.versions[*n][..end - start]);
            }
            Fate::Garbled => {
                let garbled = garble(&blot.versions, dice);
                bytes[start..end].copy_from_slice(&garbled[..end - start]);
            }
        }
    }
    bytes.truncate(lengths[dice.below(lengths.len())]);
    content
}

/// Calls `visit` with disks that a power cut at `state` may leave, at least one for each
/// combination of names and about `budget` in all.
pub(crate) fn each(state: &State, budget: usize, dice: &mut Dice, visit: &mut dyn FnMut(State)) {
    if state.dirs != state.durable_dirs {
        visit(State::at_rest(BTreeMap::new(), state.durable_dirs.clone()));
    }
    let choices = names_of(state, dice);
    let budget = budget.div_ceil(choices.len()).max(BUDGET_MIN);
    for names in choices {
        let mut blots = Vec::new();
        let mut lengths = BTreeMap::new();
        for number in names.values() {
            let (more, possible) = blots_of(*number, &state.inodes[number]);
            blots.extend(more);
            lengths.insert(*number, possible);
        }
        for fates in fates_of(&blots, budget, dice) {
            let mut files = BTreeMap::new();
            for (path, number) in &names {
                let fates = blots.iter().zip(fates.iter().copied());
                let mine: Vec<_> = fates.filter(|(blot, _)| blot.inode == *number).collect();
                let inode = &state.inodes[number];
                files.insert(path.clone(), content_of(inode, &lengths[number], &mine, dice));
            }
            visit(State::at_rest(files, state.dirs.clone()));
        }
    }
}

/// Tells disks apart.
pub(crate) fn fingerprint(state: &State) -> u64 {
    let mut hash = 0_u64;
    for (path, number) in &state.names {
        let content = &state.inodes[number].durable;
        let name = crc32c::crc32c(path.as_os_str().as_encoded_bytes());
        let words = [u64::from(name), content.len() as u64, u64::from(crc32c::crc32c(content))];
        for word in words {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    hash
}
