//! Arbitrary bytes read as choices. An exhausted tape gives zeros, so every input means something.

use raftz_core::types::SANE_MAX;

/// What is left of an input.
#[derive(Clone)]
pub(super) struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `n`, which is at most 256.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// A number below `n`, which may be large.
    pub(super) fn place(&mut self, n: usize) -> usize {
        let raw = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        let raw = raw | usize::from(self.byte()) << 16;
        raw % n.max(1)
    }

    /// Up to `n` bytes as they are.
    pub(super) fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number as outsiders choose them: mostly small, sometimes at an edge, sometimes anything.
    pub(super) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=191 => u64::from(small % 16),
            192..=199 => u64::MAX,
            200..=207 => u64::MAX - 1,
            208..=215 => SANE_MAX,
            216..=223 => SANE_MAX + 1,
            224..=231 => 1 << 40,
            232..=239 => (1 << 40) + 1,
            _ => {
                let mut raw = [0; 8];
                let bytes = self.take(8);
                raw[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(raw)
            }
        }
    }
}
