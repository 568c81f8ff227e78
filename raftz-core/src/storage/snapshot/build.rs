//! Makes chunks of whatever a machine writes.

use super::format::{self, CHUNK_BYTES, HEADER_BYTES, Kind, Owner};
use super::verify::Keep;
use crate::storage::StorageError;
use crate::types::{Base, GroupId, Snapshot, SnapshotId};

/// A snapshot under way. How the machine's writes are cut leaves no trace in it.
pub(super) struct Builder {
    base: Base,
    /// The chunk under way.
    chunk: Vec<u8>,
    number: u64,
    at: u64,
    machine_bytes: u64,
    hasher: blake3::Hasher,
}

impl Builder {
    /// Keeps the head. The inner error says, in words, why there can be none.
    pub(super) fn begin(
        owner: Owner,
        group: GroupId,
        base: &Base,
    ) -> Result<(Self, Vec<u8>), String> {
        let head = format::head(owner, group, base)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head);
        let mut chunk = Vec::with_capacity(HEADER_BYTES + CHUNK_BYTES);
        format::begin(Kind::Data, 1, &mut chunk);
        let at = head.len() as u64;
        Ok((Self { base: base.clone(), chunk, number: 1, at, machine_bytes: 0, hasher }, head))
    }

    /// Takes some of the machine's bytes. After an error the snapshot can only be given up.
    pub(super) fn write(&mut self, bytes: &[u8], into: &mut dyn Keep) -> Result<(), StorageError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = HEADER_BYTES + CHUNK_BYTES - self.chunk.len();
            let (some, behind) = rest.split_at(rest.len().min(room));
            self.chunk.extend_from_slice(some);
            rest = behind;
            if self.chunk.len() == HEADER_BYTES + CHUNK_BYTES {
                self.keep_chunk(into)?;
            }
        }
        Ok(())
    }

    fn keep_chunk(&mut self, into: &mut dyn Keep) -> Result<(), StorageError> {
        format::seal(&mut self.chunk);
        into.keep(self.at, &self.chunk)?;
        self.hasher.update(&self.chunk);
        self.at += self.chunk.len() as u64;
        self.machine_bytes += (self.chunk.len() - HEADER_BYTES) as u64;
        self.number += 1;
        format::begin(Kind::Data, self.number, &mut self.chunk);
        Ok(())
    }

    /// Keeps what is left, and the end.
    pub(super) fn finish(&mut self, into: &mut dyn Keep) -> Result<Snapshot, StorageError> {
        if self.chunk.len() > HEADER_BYTES {
            self.keep_chunk(into)?;
        }
        let end = format::end(self.number - 1, self.machine_bytes);
        into.keep(self.at, &end)?;
        self.hasher.update(&end);
        let bytes = self.at + end.len() as u64;
        let hash = *self.hasher.finalize().as_bytes();
        let id = SnapshotId { last: self.base.id, bytes, hash };
        Ok(Snapshot { id, base: self.base.clone() })
    }
}
