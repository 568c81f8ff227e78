//! Takes the chunks of a snapshot in their order and believes nothing: not their places, lengths or
//! checksums, not whose they are, and at the end not the whole.

use std::path::{Path, PathBuf};

use super::format::{self, HEADER_BYTES, Kind, Layout, Owner};
use crate::storage::StorageError;
use crate::storage::wal::corrupt;
use crate::types::{Base, GroupId, Snapshot, SnapshotId};

/// What is wrong with more bytes than there should be.
pub(super) const BEHIND_THE_END: &str = "there is something behind the end";

/// Which snapshot is meant, and where it is.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) owner: Owner,
    pub(super) group: GroupId,
    pub(super) id: SnapshotId,
}

impl Wanted {
    /// Judges a whole head.
    pub(super) fn head(&self, chunk: &[u8]) -> Result<(Base, Layout), StorageError> {
        let path = &self.path;
        format::check_head(path, chunk)?;
        let base = format::read_head(path, chunk, self.owner, self.group)?;
        if base.id != self.id.last {
            let detail =
                format!("a snapshot at {} where one at {} should be", base.id, self.id.last);
            return Err(corrupt(path, 0, detail));
        }
        let (head, bytes) = (chunk.len() as u64, self.id.bytes);
        let layout = Layout::new(head, bytes).ok_or_else(|| {
            corrupt(path, 0, format!("no snapshot with a head of {head} bytes has {bytes}"))
        })?;
        Ok((base, layout))
    }
}

/// A chunk that may be believed.
pub(super) enum Sound {
    Head(Box<(Base, Layout)>),
    Data,
    End,
}

/// What was taken so far, and what must follow.
#[derive(Clone)]
pub(super) struct Verifier {
    wanted: Wanted,
    /// `None` before the head.
    head: Option<(Base, Layout)>,
    number: u64,
    hasher: blake3::Hasher,
}

impl Verifier {
    /// Nothing was taken yet.
    pub(super) fn new(wanted: Wanted) -> Result<Self, StorageError> {
        format::check_bytes(&wanted.path, wanted.id.bytes)?;
        Ok(Self { wanted, head: None, number: 0, hasher: blake3::Hasher::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.wanted.path
    }

    /// How many bytes were taken; the next chunk begins there.
    pub(super) fn taken_bytes(&self) -> u64 {
        let Some((_, layout)) = &self.head else { return 0 };
        layout.place(self.number).map_or(self.wanted.id.bytes, |place| place.at)
    }

    /// Whether nothing may follow.
    pub(super) fn is_ended(&self) -> bool {
        self.taken_bytes() == self.wanted.id.bytes
    }

    /// How many bytes of the next chunk are known to come, given those that it has `begun` with.
    pub(super) fn due_bytes(&self, begun: &[u8]) -> Result<usize, StorageError> {
        let path = &self.wanted.path;
        let whole = match &self.head {
            None if begun.len() < HEADER_BYTES => HEADER_BYTES as u64,
            None => format::head_bytes(path, begun, self.wanted.id.bytes)?,
            Some((_, layout)) => {
                let bytes = self.wanted.id.bytes;
                let place = layout
                    .place(self.number)
                    .ok_or_else(|| corrupt(path, bytes, BEHIND_THE_END))?;
                if begun.len() >= HEADER_BYTES {
                    format::check_place(path, begun, &place)?;
                }
                place.bytes
            }
        };
        Ok(whole as usize)
    }

    /// Judges the next chunk, whole.
    pub(super) fn judge(&self, chunk: &[u8]) -> Result<Sound, StorageError> {
        let path = &self.wanted.path;
        let Some((_, layout)) = &self.head else {
            return Ok(Sound::Head(Box::new(self.wanted.head(chunk)?)));
        };
        let place = layout
            .place(self.number)
            .ok_or_else(|| corrupt(path, self.wanted.id.bytes, BEHIND_THE_END))?;
        format::check_chunk(path, chunk, &place)?;
        match place.kind {
            Kind::Head | Kind::Data => Ok(Sound::Data),
            Kind::End => format::check_end(path, chunk, layout).map(|()| Sound::End),
        }
    }

    /// Takes a chunk that was judged.
    pub(super) fn take(&mut self, chunk: &[u8], sound: Sound) {
        if let Sound::Head(head) = sound {
            self.head = Some(*head);
        }
        self.hasher.update(chunk);
        self.number += 1;
    }

    /// Judges the whole.
    pub(super) fn finish(&self) -> Result<Snapshot, StorageError> {
        let Wanted { path, id, .. } = &self.wanted;
        let taken = self.taken_bytes();
        let (Some((base, _)), true) = (&self.head, self.is_ended()) else {
            let detail = format!("it ends here and should have {} bytes", id.bytes);
            return Err(corrupt(path, taken, detail));
        };
        if *self.hasher.finalize().as_bytes() != id.hash {
            let detail = "each chunk is sound and the whole has another hash than its name says";
            return Err(corrupt(path, 0, detail));
        }
        Ok(Snapshot { id: *id, base: base.clone() })
    }
}

/// Whatever sound chunks are kept in.
pub(super) trait Keep {
    /// Keeps a chunk, behind all that were kept. It is repeated in the same place after an error.
    fn keep(&mut self, at: u64, chunk: &[u8]) -> Result<(), StorageError>;
}

impl Keep for Vec<u8> {
    fn keep(&mut self, at: u64, chunk: &[u8]) -> Result<(), StorageError> {
        self.truncate(at as usize);
        self.extend_from_slice(chunk);
        Ok(())
    }
}

/// Puts chunks together from pieces that are cut anywhere.
pub(super) struct Feed {
    pub(super) verifier: Verifier,
    /// The beginning of a chunk.
    begun: Vec<u8>,
}

impl Feed {
    /// Goes on where `verifier` stands.
    pub(super) const fn new(verifier: Verifier) -> Self {
        Self { verifier, begun: Vec::new() }
    }

    /// Where the next piece begins.
    pub(super) fn held_bytes(&self) -> u64 {
        self.verifier.taken_bytes() + self.begun.len() as u64
    }

    /// Takes a piece. After an error everything before the chunk in question is held.
    pub(super) fn write(&mut self, piece: &[u8], into: &mut dyn Keep) -> Result<(), StorageError> {
        let fate = self.take_in(piece, into);
        if fate.is_err() {
            self.begun.clear();
        }
        fate
    }

    fn take_in(&mut self, piece: &[u8], into: &mut dyn Keep) -> Result<(), StorageError> {
        let mut rest = piece;
        while !rest.is_empty() {
            let due = self.verifier.due_bytes(&self.begun)?;
            let (some, behind) = rest.split_at(rest.len().min(due - self.begun.len()));
            self.begun.extend_from_slice(some);
            rest = behind;
            if self.begun.len() < self.verifier.due_bytes(&self.begun)? {
                continue;
            }
            let sound = self.verifier.judge(&self.begun)?;
            into.keep(self.verifier.taken_bytes(), &self.begun)?;
            self.verifier.take(&self.begun, sound);
            self.begun.clear();
        }
        Ok(())
    }
}
