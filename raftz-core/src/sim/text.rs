//! What a run is asked for with, as text: kinds of faults by their names, faults of a run by their numbers.

use std::collections::BTreeSet;

use super::plan::Fault;

/// Most faults that one range may leave out: no run draws as many.
const RANGE_MAX: u64 = 1_000_000;

/// The names of kinds of faults, with commas: `kill,rot`.
pub fn names(faults: &BTreeSet<Fault>) -> String {
    faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",")
}

/// The kinds of faults that [`names`] wrote.
///
/// # Errors
/// What is wrong with the text, in a sentence.
pub fn kinds(text: &str) -> Result<BTreeSet<Fault>, String> {
    let known = |name: &str| {
        Fault::named(name).ok_or_else(|| {
            let all = names(&Fault::ALL.into_iter().collect());
            format!("there is no fault `{name}`; there are {all}")
        })
    };
    text.split(',').map(|name| known(name.trim())).collect()
}

/// A whole number.
///
/// # Errors
/// That it is none, in a sentence.
pub fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number from 0 to {}", u64::MAX))
}

/// Numbers and ranges of them, with commas: `3,5-9`.
///
/// # Errors
/// What is wrong with the text, in a sentence.
pub fn numbers(text: &str) -> Result<BTreeSet<u64>, String> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last || last - first >= RANGE_MAX {
            return Err(format!("`{part}` is not a range like 5-9"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// The shortest text that [`numbers`] reads as these.
pub fn ranges(numbers: &BTreeSet<u64>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let text = ranges.into_iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    text.collect::<Vec<_>>().join(",")
}
