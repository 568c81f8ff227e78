//! Reads a complete snapshot: a glance at both ends, pieces for a peer, or all of it.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::format::{self, END_BYTES, HEADER_BYTES, Layout};
use super::verify::{Sound, Verifier, Wanted};
use super::{AHEAD_BYTES, HINT_BYTES, to_io};
use crate::storage::StorageError;
use crate::storage::vfs::VfsFile;
use crate::storage::wal::{corrupt, io_error};
use crate::types::Snapshot;

/// A file that should hold a snapshot.
pub(super) struct Source {
    pub(super) wanted: Wanted,
    pub(super) file: Arc<dyn VfsFile>,
}

impl Source {
    /// Judges its length, head and end.
    pub(super) fn glance(&self) -> Result<Snapshot, StorageError> {
        let (snapshot, layout) = self.head()?;
        let mut end = Vec::new();
        self.read_chunk(&layout, layout.end(), &mut end)?;
        format::check_end(&self.wanted.path, &end, &layout)?;
        Ok(snapshot)
    }

    fn head(&self) -> Result<(Snapshot, Layout), StorageError> {
        let Wanted { path, id, .. } = &self.wanted;
        format::check_bytes(path, id.bytes)?;
        let length = self.file.len().map_err(|source| io_error(path, "measuring", source))?;
        if length != id.bytes {
            let detail = format!("it has {length} bytes and its name says {}", id.bytes);
            return Err(corrupt(path, length.min(id.bytes), detail));
        }
        let mut head = Vec::new();
        self.read(&mut head, 0, HEADER_BYTES)?;
        let bytes = format::head_bytes(path, &head, length)?;
        self.read(&mut head, 0, bytes as usize)?;
        let (base, layout) = self.wanted.head(&head)?;
        Ok((Snapshot { id: *id, base }, layout))
    }

    /// Bytes of the file as they are, of sound chunks alone.
    pub(super) fn piece(&self, offset: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let (snapshot, layout) = self.head()?;
        let bytes = snapshot.id.bytes;
        let upto = offset.saturating_add(bytes_max as u64).min(bytes);
        if upto <= offset {
            return Ok(Bytes::new());
        }
        let mut piece = BytesMut::with_capacity((upto - offset) as usize);
        let mut chunk = Vec::new();
        for number in layout.number_at(offset)..=layout.number_at(upto - 1) {
            let at = self.read_chunk(&layout, number, &mut chunk)?;
            let from = offset.saturating_sub(at) as usize;
            let end = chunk.len().min((upto - at) as usize);
            piece.extend_from_slice(&chunk[from..end]);
        }
        if upto == bytes {
            self.let_go();
        }
        Ok(piece.freeze())
    }

    /// Reads a chunk and judges it; answers where it begins.
    fn read_chunk(
        &self,
        layout: &Layout,
        number: u64,
        into: &mut Vec<u8>,
    ) -> Result<u64, StorageError> {
        let path = &self.wanted.path;
        let place = layout
            .place(number)
            .ok_or_else(|| corrupt(path, self.wanted.id.bytes - END_BYTES, "no such chunk"))?;
        self.read(into, place.at, place.bytes as usize)?;
        format::check_chunk(path, into, &place)?;
        Ok(place.at)
    }

    fn read(&self, into: &mut Vec<u8>, at: u64, bytes: usize) -> Result<(), StorageError> {
        into.resize(bytes, 0);
        let path = &self.wanted.path;
        let read =
            self.file.read_at(into, at).map_err(|source| io_error(path, "reading", source))?;
        if read < bytes {
            return Err(corrupt(path, at + read as u64, "it ends in the middle of a chunk"));
        }
        Ok(())
    }

    /// What was read or written stays in memory for nobody. A hint, so that it may fail.
    fn let_go(&self) {
        drop(self.file.drop_cache());
    }
}

/// Reads a snapshot from its beginning, chunk by chunk.
pub(super) struct Reader {
    source: Source,
    pub(super) verifier: Verifier,
    chunk: Vec<u8>,
    /// How much of the chunk was given.
    given: usize,
    hinted_at: u64,
    /// Whether nobody will read it again soon.
    lets_go: bool,
    /// What lies before this is on its way.
    ahead_to: u64,
}

impl Reader {
    /// Nothing was read yet.
    pub(super) fn new(source: Source) -> Result<Self, StorageError> {
        let verifier = Verifier::new(source.wanted.clone())?;
        Ok(Self {
            source,
            verifier,
            chunk: Vec::new(),
            given: 0,
            hinted_at: 0,
            lets_go: true,
            ahead_to: 0,
        })
    }

    /// Reads the next chunk. False behind the end.
    pub(super) fn advance(&mut self) -> Result<bool, StorageError> {
        if self.verifier.is_ended() {
            return Ok(false);
        }
        self.given = 0;
        self.chunk.clear();
        let at = self.verifier.taken_bytes();
        if at + AHEAD_BYTES / 2 > self.ahead_to {
            drop(self.source.file.will_read(self.ahead_to, AHEAD_BYTES));
            self.ahead_to += AHEAD_BYTES;
        }
        // Nothing of a chunk that was not judged may be given.
        self.read_chunk().inspect_err(|_| self.chunk.clear())?;
        let read = self.verifier.taken_bytes();
        let is_far = read - self.hinted_at >= HINT_BYTES || self.verifier.is_ended();
        if is_far && self.lets_go {
            self.hinted_at = read;
            self.source.let_go();
        }
        Ok(true)
    }

    fn read_chunk(&mut self) -> Result<(), StorageError> {
        let at = self.verifier.taken_bytes();
        // Of the head only its header tells how long it is.
        let mut due = self.verifier.due_bytes(&[])?;
        while self.chunk.len() < due {
            self.source.read(&mut self.chunk, at, due)?;
            due = self.verifier.due_bytes(&self.chunk)?;
        }
        let sound = self.verifier.judge(&self.chunk)?;
        let is_data = matches!(sound, Sound::Data);
        self.given = if is_data { HEADER_BYTES } else { self.chunk.len() };
        self.verifier.take(&self.chunk, sound);
        Ok(())
    }

    /// Reads all of it. `pace` is told how much was read, and ends it by saying no.
    pub(super) fn check(mut self, pace: &mut dyn FnMut(u64) -> bool) -> Result<(), StorageError> {
        // From the disk and not from memory, where it then stays for who restores from it next.
        self.source.let_go();
        self.lets_go = false;
        while self.advance()? {
            if !pace(self.verifier.taken_bytes()) {
                return Ok(());
            }
        }
        self.verifier.finish().map(|_| ())
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.chunk.len() {
            if !self.advance().map_err(to_io)? {
                self.verifier.finish().map_err(to_io)?;
                return Ok(0);
            }
        }
        let n = buf.len().min(self.chunk.len() - self.given);
        buf[..n].copy_from_slice(&self.chunk[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}
