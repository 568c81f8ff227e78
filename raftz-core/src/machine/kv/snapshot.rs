//! The store's frozen state as a stream of bytes.
//!
//! ```text
//! magic "RAFTZKV1" | entries u64 | entries x (key length u32 | key | value length u32 | value)
//!     | crc32c u32 of everything before it
//! ```
//! Numbers are little-endian; keys ascend strictly, so equal stores give equal bytes. The reader
//! builds a whole new map and hands it over only if magic, order, count, checksum and end are
//! right: a bad stream leaves the old state as it was.

use std::io::{self, Read, Write};

use bytes::{BufMut, Bytes};
use imbl::OrdMap;

use crate::machine::{MachineError, SnapshotView};

const MAGIC: &[u8; 8] = b"RAFTZKV1";
/// Entries are gathered to pieces of about this size: a write call for each would be dear.
const PIECE_BYTES: usize = 64 << 10;

/// A frozen store on its way into a file.
pub struct KvView {
    map: OrdMap<Bytes, Bytes>,
}

impl KvView {
    pub(super) const fn new(map: OrdMap<Bytes, Bytes>) -> Self {
        Self { map }
    }
}

impl SnapshotView for KvView {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut crc = 0;
        piece.extend_from_slice(MAGIC);
        piece.put_u64_le(self.map.len() as u64);
        for (key, value) in &self.map {
            for bytes in [key, value] {
                let length = u32::try_from(bytes.len()).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "a key or value beyond 4 GiB")
                })?;
                piece.put_u32_le(length);
                piece.extend_from_slice(bytes);
            }
            if piece.len() >= PIECE_BYTES {
                crc = crc32c::crc32c_append(crc, &piece);
                out.write_all(&piece)?;
                piece.clear();
            }
        }
        crc = crc32c::crc32c_append(crc, &piece);
        piece.put_u32_le(crc);
        out.write_all(&piece)
    }
}

/// The map that a [`KvView`] wrote.
pub(super) fn read(from: &mut dyn Read) -> Result<OrdMap<Bytes, Bytes>, MachineError> {
    let mut stream = Stream::new(from);
    if &stream.array()? != MAGIC {
        return Err(bad("it does not begin as one; is it another machine's?"));
    }
    let count = u64::from_le_bytes(stream.array()?);
    let mut map = OrdMap::new();
    // A copy: a clone of the key itself would cost each key an allocation for as long as it lives.
    let mut last = Vec::new();
    for _ in 0..count {
        let key = stream.bytes()?;
        let value = stream.bytes()?;
        if key <= last {
            return Err(bad("its keys are empty or out of order"));
        }
        last.clear();
        last.extend_from_slice(&key);
        map.insert(key, value);
    }
    let computed = stream.checksum();
    if computed != u32::from_le_bytes(stream.array()?) {
        return Err(bad("its checksum does not match its content"));
    }
    if stream.is_at_end()? { Ok(map) } else { Err(bad("bytes follow its end")) }
}

/// Reads in pieces, and sums them as such: an entry is too small for calls of its own.
struct Stream<'a> {
    from: &'a mut dyn Read,
    piece: Vec<u8>,
    /// So much of the piece holds bytes, so much of that was taken, and so much of that is in the checksum.
    filled: usize,
    taken: usize,
    summed: usize,
    crc: u32,
}

impl<'a> Stream<'a> {
    fn new(from: &'a mut dyn Read) -> Self {
        Self { from, piece: vec![0; PIECE_BYTES], filled: 0, taken: 0, summed: 0, crc: 0 }
    }

    /// The checksum of all that was taken.
    fn checksum(&mut self) -> u32 {
        self.crc = crc32c::crc32c_append(self.crc, &self.piece[self.summed..self.taken]);
        self.summed = self.taken;
        self.crc
    }

    /// Up to so many bytes that are there. None at the end alone.
    fn some(&mut self, most: usize) -> Result<&[u8], MachineError> {
        if self.taken == self.filled {
            self.checksum();
            (self.filled, self.taken, self.summed) = (0, 0, 0);
            self.filled = loop {
                match self.from.read(&mut self.piece) {
                    Ok(filled) => break filled,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(unreadable(&error)),
                }
            };
        }
        let begin = self.taken;
        self.taken += most.min(self.filled - begin);
        Ok(&self.piece[begin..self.taken])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MachineError> {
        let mut array = [0; N];
        let mut held = 0;
        while held < N {
            let some = self.some(N - held)?;
            if some.is_empty() {
                return Err(bad("it ends too early"));
            }
            array[held..held + some.len()].copy_from_slice(some);
            held += some.len();
        }
        Ok(array)
    }

    /// Grows with the bytes that arrive, not with the length that is claimed.
    fn bytes(&mut self) -> Result<Bytes, MachineError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let mut bytes = Vec::with_capacity(length.min(PIECE_BYTES));
        while bytes.len() < length {
            let some = self.some(length - bytes.len())?;
            if some.is_empty() {
                return Err(bad("it ends too early"));
            }
            bytes.extend_from_slice(some);
        }
        // Without the room that growing left over.
        Ok(Bytes::from(bytes.into_boxed_slice()))
    }

    fn is_at_end(&mut self) -> Result<bool, MachineError> {
        Ok(self.some(1)?.is_empty())
    }
}

fn bad(why: &str) -> MachineError {
    MachineError(format!("not a whole snapshot of a key-value store: {why}"))
}

fn unreadable(error: &io::Error) -> MachineError {
    MachineError(format!("the snapshot cannot be read: {error}"))
}
