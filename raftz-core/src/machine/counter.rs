//! The smallest useful machine: it counts commands and folds them, in order, into one number.
//!
//! For benchmarks and tests: it costs next to nothing, and two replicas that saw different
//! commands, or the same in another order, end up with different numbers.

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes};

use super::{Command, MachineError, SnapshotView, StateMachine};
use crate::types::Reply;

/// Bytes of a reply, and of a snapshot: count u64, fold u64, little-endian.
const STATE_BYTES: usize = 16;

/// Counts and folds. Takes any payload; never rejects, never blocks.
///
/// Every reply, also that to any query, is the state after it: see [`CountingMachine::decode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountingMachine {
    /// Commands applied.
    pub count: u64,
    /// `fold * 31 + crc32c(payload)` over all of them, from 0, wrapping.
    pub fold: u64,
}

impl CountingMachine {
    /// A machine that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state in a reply, or `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut at = bytes;
        (bytes.len() == STATE_BYTES).then(|| Self { count: at.get_u64_le(), fold: at.get_u64_le() })
    }

    fn encode_into(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.count);
        out.put_u64_le(self.fold);
    }

    fn encode(self) -> Bytes {
        let mut bytes = Vec::with_capacity(STATE_BYTES);
        self.encode_into(&mut bytes);
        bytes.into()
    }
}

impl StateMachine for CountingMachine {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        // One buffer for the replies of the whole batch.
        let mut states = Vec::with_capacity(batch.len() * STATE_BYTES);
        for command in batch {
            let crc = u64::from(crc32c::crc32c(command.payload));
            self.count = self.count.wrapping_add(1);
            self.fold = self.fold.wrapping_mul(31).wrapping_add(crc);
            self.encode_into(&mut states);
        }
        let mut states = Bytes::from(states);
        replies.extend(batch.iter().map(|_| Reply::Ok(states.split_to(STATE_BYTES))));
        Ok(())
    }

    fn query(&self, _request: &[u8]) -> Result<Reply, MachineError> {
        Ok(Reply::Ok(self.encode()))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        Ok(Box::new(*self))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        let mut bytes = Vec::new();
        from.take(STATE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| MachineError(format!("the snapshot cannot be read: {error}")))?;
        *self = Self::decode(&bytes)
            .ok_or_else(|| MachineError("not a snapshot of a counting machine".into()))?;
        Ok(())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl SnapshotView for CountingMachine {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::types::{Index, Term};

    fn run(payloads: &[&'static [u8]]) -> (CountingMachine, Vec<Reply>) {
        let mut machine = CountingMachine::new();
        let mut replies = Vec::new();
        let payloads: Vec<Bytes> = payloads.iter().copied().map(Bytes::from_static).collect();
        let batch: Vec<_> = (1..)
            .zip(&payloads)
            .map(|(index, payload)| Command {
                index: Index(index),
                term: Term(1),
                log_time_us: 0,
                payload,
            })
            .collect();
        machine.apply(&batch, &mut replies).unwrap();
        (machine, replies)
    }

    #[test]
    fn order_changes_the_fold_and_each_reply_is_the_state_after_its_command() {
        let (ab, replies) = run(&[b"a", b"b"]);
        let (ba, _) = run(&[b"b", b"a"]);
        assert_eq!((ab.count, ba.count), (2, 2));
        assert_ne!(ab.fold, ba.fold);
        let states: Vec<_> = replies.iter().map(|r| CountingMachine::decode(r.bytes())).collect();
        assert_eq!(states, [Some(run(&[b"a"]).0), Some(ab)]);
    }

    #[test]
    fn a_restored_machine_is_the_one_that_was_frozen_and_bad_input_changes_nothing() {
        let (mut machine, _) = run(&[b"a", b"b", b"c"]);
        let mut bytes = Vec::new();
        machine.snapshot().unwrap().write_to(&mut bytes).unwrap();
        let mut other = CountingMachine::new();
        other.restore(&mut &bytes[..]).unwrap();
        assert_eq!(other, machine);
        other.restore(&mut &bytes[..15]).unwrap_err();
        bytes.push(0);
        other.restore(&mut &bytes[..]).unwrap_err();
        assert_eq!(other, machine);
    }
}
