//! Hashes of what happened: quick, and the same on every machine.

use crate::types::{Entry, Reply};

/// Folds numbers into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mix(pub(super) u64);

impl Mix {
    /// This, and then `value`.
    #[must_use]
    pub(super) const fn and(self, value: u64) -> Self {
        Self((self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (value >> 29))
    }

    /// This, and then `bytes`.
    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.and(u64::from(crc32c::crc32c(bytes))).and(bytes.len() as u64)
    }
}

/// What an entry says, all of it.
pub(super) fn of_entry(entry: &Entry) -> u64 {
    let mix = Mix::default()
        .and(entry.term.0)
        .and(entry.index.0)
        .and(entry.log_time_us)
        .and(u64::from(entry.kind.to_u8()));
    let mix = match entry.session {
        None => mix.and(0),
        Some(tag) => mix.and(1).and(tag.session).and(tag.sequence).and(tag.acked_below),
    };
    mix.bytes(entry.payload.bytes()).0
}

/// What a reply says.
pub(super) fn of_reply(reply: &Reply) -> u64 {
    let kind = match reply {
        Reply::Ok(_) => 1,
        Reply::Rejected(_) => 2,
    };
    Mix(kind).bytes(reply.bytes()).0
}
