//! What a data directory is: its format, its owner, its random disk id, and how often it was
//! opened.
//!
//! Two slots of one block, each covered by a checksum; an open writes the next boot number into
//! the older one. The places of magic, versions and checksum are the same in every format version,
//! so that an old program can say *which* version it cannot read.
//!
//! ```text
//!  0  magic "rzsuper1"      16  oldest reader (4)   48  epoch (8)      80  founders hash (8)
//!  8  crc32c of the block   20  zero (4)            56  node (8)       88  boot (8)
//! 12  format version (4)    24  features (8)        64  disk id (16)   96  zeros to 4096
//!                           32  cluster (16)
//! ```

use std::path::Path;

use bytes::{Buf, BufMut};

use super::files::{REWRITTEN, SUPERBLOCK, SlotFile, corrupt, io_error};
use super::format::{BLOCK, FORMAT_VERSION, crc_holds, seal_crc};
use crate::storage::StorageError;
use crate::storage::vfs::{OpenMode, Vfs};
use crate::types::{Boot, ClusterId, DiskId, Identity, NodeId};

const MAGIC: [u8; 8] = *b"rzsuper1";
const CRC_AT: usize = 8;

/// One slot's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    version: u32,
    reader_min: u32,
    features: u64,
    identity: Identity,
    boot: Boot,
}

/// The bytes of a slot of this version.
pub(super) fn encode(identity: &Identity, boot: Boot) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    out.put_slice(&MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(0);
    out.put_u64_le(0);
    out.put_u128_le(identity.cluster.0);
    out.put_u64_le(identity.epoch);
    out.put_u64_le(identity.node.get());
    out.put_u128_le(identity.disk.0);
    out.put_u64_le(identity.founders_hash);
    out.put_u64_le(boot.0);
    out.resize(BLOCK, 0);
    seal_crc(&mut out, CRC_AT);
    out
}

fn decode(bytes: &[u8]) -> Option<Slot> {
    if bytes.len() < BLOCK || bytes[..8] != MAGIC || !crc_holds(bytes, CRC_AT) {
        return None;
    }
    let mut at = &bytes[12..];
    let version = at.get_u32_le();
    let reader_min = at.get_u32_le();
    at.advance(4);
    let features = at.get_u64_le();
    let cluster = ClusterId(at.get_u128_le());
    let epoch = at.get_u64_le();
    let node = NodeId::new(at.get_u64_le())?;
    let disk = DiskId(at.get_u128_le());
    let founders_hash = at.get_u64_le();
    let boot = Boot(at.get_u64_le());
    let identity = Identity { cluster, epoch, node, disk, founders_hash };
    Some(Slot { version, reader_min, features, identity, boot })
}

/// A superblock that was read and belongs to who asked for it.
pub(super) struct Superblock {
    file: SlotFile,
    slot: u64,
    boot_next: Boot,
    /// What the directory is.
    pub(super) identity: Identity,
    /// What a person should know.
    pub(super) note: Option<String>,
}

impl Superblock {
    /// Reads and judges the superblock in `dir`.
    pub(super) fn read(
        vfs: &dyn Vfs,
        dir: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Self, StorageError> {
        let path = dir.join(SUPERBLOCK);
        let file = vfs
            .open(&path, OpenMode::Existing)
            .map_err(|source| io_error(&path, "opening", source))?;
        let file = SlotFile { path, file };
        let raw = file.read()?;
        let slots = [decode(&raw[0]), decode(&raw[1])];
        let (slot, found) = match slots {
            [Some(a), Some(b)] if b.boot > a.boot => (1, b),
            [Some(a), _] => (0, a),
            [None, Some(b)] => (1, b),
            [None, None] => {
                return Err(corrupt(
                    &file.path,
                    0,
                    "neither copy of the superblock can be read, so it is unknown whose data \
                     this is; restore the file, or remove this node and join under a new id",
                ));
            }
        };
        if found.reader_min > FORMAT_VERSION {
            let (found, known) = (found.version, FORMAT_VERSION);
            return Err(StorageError::TooNew { path: file.path, found, known });
        }
        if found.features != 0 {
            return Err(StorageError::UnknownFeature { path: file.path, features: found.features });
        }
        let owner = found.identity;
        if owner.cluster != cluster || owner.node != node {
            return Err(StorageError::WrongOwner {
                path: dir.to_path_buf(),
                found: format!("node {} of cluster {}", owner.node, owner.cluster),
                wanted: format!("node {node} of cluster {cluster}"),
            });
        }
        // The unreadable copy may have been the newer one, one boot ahead.
        let whole = slots.iter().all(Option::is_some);
        let ahead = if whole { 1 } else { 2 };
        let note = (!whole).then(|| format!("{}: {REWRITTEN}", file.path.display()));
        let boot_next = Boot(found.boot.0.saturating_add(ahead));
        Ok(Self { file, slot: slot + 1, boot_next, identity: owner, note })
    }

    /// Writes the next boot number over the older copy, durably, and gives it.
    pub(super) fn raise_boot(&self) -> Result<Boot, StorageError> {
        self.file.write(self.slot, &encode(&self.identity, self.boot_next))?;
        Ok(self.boot_next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_superblock_lies_as_it_is_drawn() {
        let identity = Identity {
            cluster: ClusterId(2),
            epoch: 3,
            node: NodeId::new(4).unwrap(),
            disk: DiskId(5),
            founders_hash: 6,
        };
        let bytes = encode(&identity, Boot(7));
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..8], b"rzsuper1");
        for (at, value) in [(12, 1), (16, 1), (32, 2), (48, 3), (56, 4), (64, 5), (80, 6), (88, 7)]
        {
            assert_eq!(bytes[at], value, "byte {at}");
        }
        assert!(bytes[96..].iter().all(|byte| *byte == 0));
        assert_eq!(decode(&bytes).unwrap().identity, identity);
    }
}
