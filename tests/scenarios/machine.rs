//! A state machine in which any difference in order shows: each state is a hash of the one before.

use std::io::Read;

use bytes::Bytes;
use raftz_core::types::{Entry, EntryKind, Index, Reply};

/// The machine of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) applied: Index,
    state: u64,
}

/// The next state: not commutative, not associative.
pub(crate) fn next_state(state: u64, index: Index, payload: &[u8]) -> u64 {
    let mut state = state.rotate_left(7) ^ index.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in payload {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state
}

impl Machine {
    /// Applies one entry; commands have a reply.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Option<Reply> {
        assert_eq!(entry.index, self.applied.next(), "an entry applied out of order");
        self.applied = entry.index;
        self.state = next_state(self.state, entry.index, entry.payload.bytes());
        (entry.kind == EntryKind::Command)
            .then(|| Reply::Ok(Bytes::from(self.state.to_string().into_bytes())))
    }

    /// What a snapshot of it holds.
    pub(crate) fn content(&self) -> Vec<u8> {
        [self.applied.0.to_le_bytes(), self.state.to_le_bytes()].concat()
    }

    /// The machine that a snapshot holds.
    pub(crate) fn restored(from: &mut dyn Read) -> Self {
        let mut content = [[0; 8]; 2];
        content.iter_mut().for_each(|field| from.read_exact(field).expect("a sound snapshot"));
        let [applied, state] = content.map(u64::from_le_bytes);
        Self { applied: Index(applied), state }
    }

    /// The state, to compare.
    pub(crate) const fn state(&self) -> u64 {
        self.state
    }
}
