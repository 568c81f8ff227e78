//! The built-in key-value store: an ordered map of binary keys to binary values.
//!
//! It decides what each command does to the map and what it answers. How commands, queries and
//! replies look as bytes is in `kv/codec.rs`; how a frozen state looks in a file, in
//! `kv/snapshot.rs`. Whoever may propose a command, and when it counts, is Raft's affair.
//!
//! Rules that it keeps:
//! - Every answer follows from the commands alone. A malformed command, an empty key, an increment
//!   of something that is no number: all are [`Reply::Rejected`] with the same words on every
//!   replica, and change nothing.
//! - What the map keeps is copied out of the command. A payload is a slice of the network frame it
//!   came in, and a value of ten bytes must not keep a frame of a mebibyte alive.
//! - The map is copy-on-write ([`imbl::OrdMap`]): freezing it for a snapshot is one
//!   reference count, whatever its size.

mod codec;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::{Command, MachineError, SnapshotView, StateMachine};
use crate::types::Reply;

pub use codec::{KvCodecError, KvCommand, KvQuery, KvReply};
pub use snapshot::KvView;

/// Most entries in the answer to one [`KvQuery::Scan`], whatever limit it asks for.
pub const SCAN_ENTRIES_MAX: usize = 10_000;
/// Once the answer to a scan holds this many bytes of keys and values it ends, with `more` set.
pub const SCAN_REPLY_BYTES_MAX: usize = 1 << 20;
/// The longest value that the answer to a failed [`KvCommand::CompareAndSet`] repeats: a small
/// command must not cost every replica a large answer.
pub const REPEATED_BYTES_MAX: usize = 4096;
const EMPTY_KEY: &str = "the key is empty; a key has at least one byte";

/// The key-value store. A [`StateMachine`] that never blocks.
#[derive(Clone, Debug, Default)]
pub struct KvStore {
    map: OrdMap<Bytes, Bytes>,
    digest: u64,
}

impl KvStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.map.get(key)
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All keys and values, in the order of the keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.map.iter()
    }

    /// A number that is equal for equal contents, and for different ones almost never. It depends
    /// on the contents alone, not on the way there, and costs nothing: it is kept up to date.
    /// Compares replicas; no defence against somebody who searches for collisions.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Carries out one command.
    pub fn execute(&mut self, command: KvCommand) -> Reply {
        if command.key().is_empty() {
            return rejected(EMPTY_KEY);
        }
        let answer = match command {
            KvCommand::Set { key, value } => {
                self.put(key, value);
                KvReply::Stored
            }
            KvCommand::Delete { key } => KvReply::Deleted { existed: self.remove(&key) },
            KvCommand::CompareAndSet { key, expected, value } => {
                let actual = self.map.get(&key);
                if actual == expected.as_ref() {
                    match value {
                        Some(value) => self.put(key, value),
                        None => {
                            self.remove(&key);
                        }
                    }
                    KvReply::Swapped
                } else {
                    match actual {
                        Some(value) if value.len() > REPEATED_BYTES_MAX => {
                            KvReply::NotSwappedLarge { actual_bytes: value.len() as u64 }
                        }
                        actual => KvReply::NotSwapped { actual: actual.cloned() },
                    }
                }
            }
            KvCommand::Increment { key, by } => {
                let before = match self.map.get(&key) {
                    None => 0,
                    Some(text) => match parse_number(text) {
                        Some(number) => number,
                        None => return rejected("increment: the value is not a decimal integer"),
                    },
                };
                let Some(after) = before.checked_add(by) else {
                    return rejected("increment: the result does not fit 64 bits");
                };
                self.put(key, Bytes::from(after.to_string()));
                KvReply::Number(after)
            }
        };
        Reply::Ok(answer.encode())
    }

    /// Answers one query.
    pub fn answer(&self, query: &KvQuery) -> Reply {
        let answer = match query {
            KvQuery::Get { key } if key.is_empty() => return rejected(EMPTY_KEY),
            KvQuery::Get { key } => KvReply::Value(self.map.get(key).cloned()),
            KvQuery::Scan { prefix, after, limit } => self.scan(prefix, after.as_ref(), *limit),
            KvQuery::Digest => {
                KvReply::Digest { entries: self.map.len() as u64, digest: self.digest }
            }
        };
        Reply::Ok(answer.encode())
    }

    fn scan(&self, prefix: &Bytes, after: Option<&Bytes>, limit: u32) -> KvReply {
        let limit = (limit as usize).min(SCAN_ENTRIES_MAX);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, value) in self.map.range::<_, Bytes>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if entries.len() == limit || bytes >= SCAN_REPLY_BYTES_MAX {
                return KvReply::Scanned { entries, more: true };
            }
            bytes += key.len() + value.len();
            entries.push((key.clone(), value.clone()));
        }
        KvReply::Scanned { entries, more: false }
    }

    /// `key` and `value` must own their memory; see the module's second rule.
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.digest = self.digest.wrapping_add(digest_of(&key, &value));
        if let Some(old) = self.map.insert(key.clone(), value) {
            self.digest = self.digest.wrapping_sub(digest_of(&key, &old));
        }
    }

    fn remove(&mut self, key: &Bytes) -> bool {
        let Some(old) = self.map.remove(key) else { return false };
        self.digest = self.digest.wrapping_sub(digest_of(key, &old));
        true
    }
}

impl StateMachine for KvStore {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        replies.extend(batch.iter().map(|command| match KvCommand::decode(command.payload) {
            Ok(command) => self.execute(command),
            Err(error) => rejected(&error.to_string()),
        }));
        Ok(())
    }

    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        match KvQuery::decode(request) {
            Ok(query) => Ok(self.answer(&query)),
            Err(error) => Ok(rejected(&error.to_string())),
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        Ok(Box::new(KvView::new(self.map.clone())))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        let map = snapshot::read(from)?;
        self.digest = map.iter().fold(0, |sum, (k, v)| sum.wrapping_add(digest_of(k, v)));
        self.map = map;
        Ok(())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

fn rejected(why: &str) -> Reply {
    Reply::Rejected(Bytes::copy_from_slice(why.as_bytes()))
}

/// An optional minus and 1 to 19 decimal digits, within 64 bits; nothing else, no spaces.
fn parse_number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// One entry's share of the digest: both checksums and both lengths, stirred (the finalizer of
/// SplitMix64), so that a sum of shares tells sets of entries apart.
fn digest_of(key: &[u8], value: &[u8]) -> u64 {
    let checksums = (u64::from(crc32c::crc32c(key)) << 32) | u64::from(crc32c::crc32c(value));
    let lengths = ((key.len() as u64) << 32).wrapping_add(value.len() as u64);
    stir(checksums ^ stir(lengths))
}

const fn stir(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
