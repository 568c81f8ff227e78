//! The store's frozen state as a stream of bytes.
//!
//! ```text
//! magic "RAFTZKV1" | entries u64 | entries x (key length u32 | key | value length u32 | value)
//!     | crc32c u32 of everything before it
//! ```
//! Numbers are little-endian; keys ascend strictly, so equal stores give equal bytes. The reader
//! builds a whole new map and hands it over only if magic, order, count, checksum and end are
//! right: a bad stream leaves the old state as it was.

use std::io::{self, BufReader, Read, Write};

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
    let mut stream = Stream { from: BufReader::with_capacity(PIECE_BYTES, from), crc: 0 };
    let mut magic = [0; MAGIC.len()];
    stream.fill(&mut magic)?;
    if &magic != MAGIC {
        return Err(bad("it does not begin as one; is it another machine's?"));
    }
    let mut count = [0; 8];
    stream.fill(&mut count)?;
    let mut map = OrdMap::new();
    let mut last = Bytes::new();
    for _ in 0..u64::from_le_bytes(count) {
        let key = stream.bytes()?;
        let value = stream.bytes()?;
        if key <= last {
            return Err(bad("its keys are empty or out of order"));
        }
        last = key.clone();
        map.insert(key, value);
    }
    let computed = stream.crc;
    let mut stated = [0; 4];
    stream.fill(&mut stated)?;
    if computed != u32::from_le_bytes(stated) {
        return Err(bad("its checksum does not match its content"));
    }
    let mut beyond = [0; 1];
    match stream.from.read(&mut beyond) {
        Ok(0) => Ok(map),
        Ok(_) => Err(bad("bytes follow its end")),
        Err(error) => Err(unreadable(&error)),
    }
}

struct Stream<R> {
    from: BufReader<R>,
    crc: u32,
}

impl<R: Read> Stream<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), MachineError> {
        self.from.read_exact(buffer).map_err(|error| unreadable(&error))?;
        self.crc = crc32c::crc32c_append(self.crc, buffer);
        Ok(())
    }

    /// Grows with the bytes that arrive, not with the length that is claimed.
    fn bytes(&mut self) -> Result<Bytes, MachineError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length);
        let mut bytes = Vec::new();
        self.from
            .by_ref()
            .take(u64::from(length))
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&error))?;
        if bytes.len() != length as usize {
            return Err(bad("it ends too early"));
        }
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        // Without the room that growing left over.
        Ok(Bytes::from(bytes.into_boxed_slice()))
    }
}

fn bad(why: &str) -> MachineError {
    MachineError(format!("not a whole snapshot of a key-value store: {why}"))
}

fn unreadable(error: &io::Error) -> MachineError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return bad("it ends too early");
    }
    MachineError(format!("the snapshot cannot be read: {error}"))
}
