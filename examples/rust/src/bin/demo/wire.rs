//! What parent and child say to each other: one line a message, words separated by spaces, over
//! the child's standard input (orders) and standard output (reports).
//!
//! A child writes each line whole and flushes it before it goes on. What a killed child had
//! written is still in the pipe; only a line without its end counts for nothing.

use std::fmt;
use std::ops::Range;
use std::str::SplitWhitespace;

/// Parent to child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `load 0-100 200-300`: make these writes.
    Load(Vec<Range<u64>>),
    /// `await 7`: say when entry 7 is applied.
    Await(u64),
    /// `dump 7`: once entry 7 is applied, send all keys and values of your own store.
    Dump(u64),
    /// `stop`: end, in order.
    Stop,
}

/// Child to parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// `ready`: the node runs.
    Ready,
    /// `leads 3`: this node leads in term 3.
    Leads { term: u64 },
    /// `follows 3`: this node does not lead; its term is 3.
    Follows { term: u64 },
    /// `acked 3 99 5 6 7`: writes 5, 6 and 7 are acknowledged, in term 3, up to entry 99.
    Acked { term: u64, index: u64, items: Vec<u64> },
    /// `again 1 2`: one refusal and two unknown outcomes are being tried again.
    Again { refused: u64, unknown: u64 },
    /// `reached 7`: entry 7 is applied.
    Reached(u64),
    /// `pair 6b 76`: a key and its value, in hexadecimal; `-` stands for no bytes.
    Pair { key: Vec<u8>, value: Vec<u8> },
    /// `end 20000`: that was the store, of so many keys.
    End { keys: u64 },
    /// `fatal …`: this node can do no more, and why.
    Fatal(String),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(ranges) => {
                f.write_str("load")?;
                ranges.iter().try_for_each(|range| write!(f, " {}-{}", range.start, range.end))
            }
            Self::Await(index) => write!(f, "await {index}"),
            Self::Dump(index) => write!(f, "dump {index}"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl Order {
    /// The order in a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let order = match words.next()? {
            "load" => Self::Load(
                words
                    .by_ref()
                    .map(|word| {
                        let (start, end) = word.split_once('-')?;
                        Some(start.parse().ok()?..end.parse().ok()?)
                    })
                    .collect::<Option<_>>()?,
            ),
            "await" => Self::Await(number(&mut words)?),
            "dump" => Self::Dump(number(&mut words)?),
            "stop" => Self::Stop,
            _ => return None,
        };
        words.next().is_none().then_some(order)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Leads { term } => write!(f, "leads {term}"),
            Self::Follows { term } => write!(f, "follows {term}"),
            Self::Acked { term, index, items } => {
                write!(f, "acked {term} {index}")?;
                items.iter().try_for_each(|item| write!(f, " {item}"))
            }
            Self::Again { refused, unknown } => write!(f, "again {refused} {unknown}"),
            Self::Reached(index) => write!(f, "reached {index}"),
            Self::Pair { key, value } => write!(f, "pair {} {}", Hex(key), Hex(value)),
            Self::End { keys } => write!(f, "end {keys}"),
            Self::Fatal(why) => write!(f, "fatal {}", why.replace('\n', " ")),
        }
    }
}

impl Report {
    /// The report in a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        if let Some(why) = line.strip_prefix("fatal ") {
            return Some(Self::Fatal(why.to_owned()));
        }
        let mut words = line.split_whitespace();
        let report = match words.next()? {
            "ready" => Self::Ready,
            "leads" => Self::Leads { term: number(&mut words)? },
            "follows" => Self::Follows { term: number(&mut words)? },
            "acked" => Self::Acked {
                term: number(&mut words)?,
                index: number(&mut words)?,
                items: words.by_ref().map(|word| word.parse().ok()).collect::<Option<_>>()?,
            },
            "again" => Self::Again { refused: number(&mut words)?, unknown: number(&mut words)? },
            "reached" => Self::Reached(number(&mut words)?),
            "pair" => Self::Pair { key: unhex(words.next()?)?, value: unhex(words.next()?)? },
            "end" => Self::End { keys: number(&mut words)? },
            _ => return None,
        };
        words.next().is_none().then_some(report)
    }
}

fn number(words: &mut SplitWhitespace<'_>) -> Option<u64> {
    words.next()?.parse().ok()
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if self.0.is_empty() {
            return f.write_str("-");
        }
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        f.write_str(&text)
    }
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    if word == "-" {
        return Some(Vec::new());
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = word.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_survive_the_way_through_a_line() {
        for order in [Order::Load(vec![0..5, 7..9]), Order::Await(3), Order::Dump(4), Order::Stop] {
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
        for report in [
            Report::Ready,
            Report::Leads { term: 3 },
            Report::Follows { term: 4 },
            Report::Acked { term: 1, index: 2, items: vec![3, 4] },
            Report::Again { refused: 1, unknown: 2 },
            Report::Reached(9),
            Report::Pair { key: b"k\0\xff".to_vec(), value: Vec::new() },
            Report::End { keys: 2 },
            Report::Fatal("two  words".into()),
        ] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
    }

    #[test]
    fn a_line_that_is_none_of_ours_is_none() {
        for line in ["", "nonsense", "acked", "acked 1 x", "pair 6 61", "ready now", "await -1"] {
            assert_eq!(Report::parse(line), None, "{line}");
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }
}
