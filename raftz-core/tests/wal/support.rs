//! What the tests share: a directory, short names for writes, and a wrapper that waits for fates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use raftz_core::storage::vfs::{RealVfs, Vfs};
use raftz_core::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use raftz_core::storage::{Completion, Storage, StorageError, WriteBatch};
use raftz_core::types::{
    Base, ClusterId, Entry, EntryKind, GroupId, HardState, Index, LogId, Member, Membership,
    NodeId, Payload, Recovered, Settings, Term, WriteOp,
};

/// The cluster of all tests.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// A node id.
pub(crate) fn node(raw: u64) -> NodeId {
    NodeId::new(raw).unwrap()
}

/// The owner whom all tests expect.
pub(crate) fn owner() -> Expect {
    Expect { cluster: CLUSTER, node: node(1) }
}

/// Segments of the smallest sensible sizes.
pub(crate) fn tiny(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, reserve_bytes: 0 }
}

/// A founding base of three nodes.
pub(crate) fn base() -> Base {
    let members = (1..=3).map(|id| (node(id), Member::at(format!("127.0.0.1:700{id}"))));
    Base::founding(Membership::of_voters(members), Settings::default())
}

/// A formatted directory that is removed at the end.
pub(crate) struct Dir {
    _root: tempfile::TempDir,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Dir {
    /// Nothing yet, but a place for it.
    pub(crate) fn empty() -> Self {
        // In memory where there is such a place: these tests are about bytes, not about disks.
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let root = root.unwrap();
        let path = root.path().join("data");
        Self { _root: root, path }
    }

    /// Formatted for node 1.
    pub(crate) fn formatted(segment_bytes: u64) -> Self {
        let dir = Self::empty();
        dir.bootstrap(&RealVfs, segment_bytes).unwrap();
        dir
    }

    /// Formats it for node 1.
    pub(crate) fn bootstrap(&self, vfs: &dyn Vfs, segment_bytes: u64) -> Result<(), StorageError> {
        let spec = BootstrapSpec { cluster: CLUSTER, epoch: 0, node: node(1), base: base() };
        Wal::bootstrap(vfs, &self.path, &spec, tiny(segment_bytes)).map(|_| ())
    }

    /// Opens it.
    pub(crate) fn open(&self, segment_bytes: u64) -> (Wal, Recovered) {
        self.try_open(segment_bytes).unwrap()
    }

    /// Tries to open it.
    pub(crate) fn try_open(&self, segment_bytes: u64) -> Result<(Wal, Recovered), StorageError> {
        Wal::open(Arc::new(RealVfs), &self.path, owner(), tiny(segment_bytes))
    }

    /// All its files, sorted, without the lock.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        files_of(&self.path)
    }

    /// A directory that holds these files.
    pub(crate) fn holding(files: &[(String, Vec<u8>)]) -> Self {
        let dir = Self::empty();
        std::fs::create_dir(&dir.path).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path.join(name), bytes).unwrap();
        }
        dir
    }
}

/// All files of a directory, sorted, without the lock.
pub(crate) fn files_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| name != "LOCK")
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// An entry with a payload of its own.
pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut payload = format!("t{term}i{index}.").into_bytes();
    payload.resize(bytes.max(payload.len()), (index % 251) as u8);
    Entry {
        term: Term(term),
        index: Index(index),
        log_time_us: 1000 + index,
        kind: EntryKind::Command,
        session: None,
        payload: Payload::new(payload),
    }
}

/// A write of these entries.
pub(crate) fn append(entries: Vec<Entry>) -> WriteOp {
    WriteOp { entries: entries.into(), ..WriteOp::default() }
}

/// A write that drops the tail and appends.
pub(crate) fn rewrite(from: u64, entries: Vec<Entry>) -> WriteOp {
    WriteOp { truncate_from: Some(Index(from)), entries: entries.into(), ..WriteOp::default() }
}

/// The founding base, moved.
pub(crate) fn moved(term: u64, index: u64) -> Option<Box<Base>> {
    let id = LogId::new(Term(term), Index(index));
    Some(Box::new(Base { id, log_time_us: 1000 + index, ..base() }))
}

/// A write that moves the base.
pub(crate) fn rebase(term: u64, index: u64) -> WriteOp {
    WriteOp { base: moved(term, index), ..WriteOp::default() }
}

/// A write of term and vote.
pub(crate) fn vote(term: u64, whom: u64) -> WriteOp {
    let hard_state = HardState { term: Term(term), vote: NodeId::new(whom) };
    WriteOp { hard_state: Some(hard_state), ..WriteOp::default() }
}

/// Submits and gives the fate.
pub(crate) fn submit(store: &mut dyn Storage, ops: Vec<WriteOp>) -> Result<(), StorageError> {
    let batch: WriteBatch = ops.into_iter().map(|op| (GroupId::FIRST, op)).collect();
    let (sender, receiver) = mpsc::channel();
    store.submit(batch, Completion::new(move |fate| sender.send(fate).unwrap()));
    receiver.recv().unwrap()
}

/// All entries of a store between base and `last`.
pub(crate) fn all(store: &dyn Storage, recovered: &Recovered) -> Vec<Entry> {
    let (first, last) = (recovered.base.id.index.next(), recovered.last.index);
    if last < first {
        return Vec::new();
    }
    store.reader().read(GroupId::FIRST, first, last, u64::MAX).unwrap()
}

/// Lets both copies of a superblock claim a later format.
pub(crate) fn raise_format(dir: &Path, version: u32) {
    let path = dir.join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    for slot in bytes.chunks_mut(4096) {
        slot[12..16].copy_from_slice(&version.to_le_bytes());
        slot[16..20].copy_from_slice(&version.to_le_bytes());
        slot[8..12].fill(0);
        let crc = crc32c::crc32c(slot);
        slot[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
}
