//! What the tests share: whose snapshots they are, what is in them, and how they are made and read.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raftz_core::storage::StorageError;
use raftz_core::storage::snapshot::{FileSnapshots, MemorySnapshots, SnapshotStore};
use raftz_core::types::{
    Base, ClusterId, DiskId, GroupId, Identity, Index, LogId, Member, Membership, NodeId, Settings,
    Snapshot, SnapshotId, Term,
};

use crate::disk::{Image, State};
use crate::platter::Platter;

/// The group of all tests.
pub(crate) const GROUP: GroupId = GroupId::FIRST;

/// The directory of all tests.
pub(crate) fn dir() -> &'static Path {
    Path::new("/disk/data")
}

/// Whose snapshots they are.
pub(crate) fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0x5a),
        epoch: 3,
        node: NodeId::new(1).unwrap(),
        disk: DiskId(9),
        founders_hash: 0,
    }
}

/// A base at term 2.
pub(crate) fn base(index: u64) -> Base {
    let members = (1..=3).map(|id| (NodeId::new(id).unwrap(), Member::at(format!("h:{id}"))));
    let founding = Base::founding(Membership::of_voters(members), Settings::default());
    Base { id: LogId::new(Term(2), Index(index)), log_time_us: 77, ..founding }
}

/// What a machine writes at this index.
pub(crate) fn machine(index: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at * 31 % 251 + index) as u8).collect()
}

/// A snapshot, its file and the machine's bytes in it.
pub(crate) struct Sample {
    pub(crate) snapshot: Snapshot,
    pub(crate) file: Vec<u8>,
    pub(crate) machine: Vec<u8>,
}

/// A snapshot of so many of the machine's bytes.
pub(crate) fn sample(index: u64, bytes: usize) -> Sample {
    let store = MemorySnapshots::new(&identity());
    let machine = machine(index, bytes);
    let snapshot = make(&store, &base(index), &machine).unwrap();
    let file = store.read_piece(GROUP, &snapshot.id, 0, usize::MAX).unwrap().to_vec();
    Sample { snapshot, file, machine }
}

/// Writes a snapshot.
pub(crate) fn make(
    store: &dyn SnapshotStore,
    base: &Base,
    machine: &[u8],
) -> Result<Snapshot, StorageError> {
    let mut sink = store.create(GROUP, base)?;
    // The failure is the sink's to tell.
    drop(sink.write_all(machine));
    sink.finish()
}

/// The machine's bytes as far as they were given, and how that ended.
pub(crate) fn read(store: &dyn SnapshotStore, id: &SnapshotId) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let fate = match store.open(GROUP, id) {
        Ok(mut reader) => reader.read_to_end(&mut bytes).map(|_| ()),
        Err(error) => Err(io::Error::other(error)),
    };
    (bytes, fate)
}

/// The name of a complete snapshot's file.
pub(crate) fn file_of(id: &SnapshotId) -> PathBuf {
    let hash: String = id.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let (index, term) = (id.last.index.0, id.last.term.0);
    let bytes = id.bytes;
    dir().join(format!("snap-{:08x}-{index:016x}-{term:016x}-{bytes:016x}-{hash}.rz", GROUP.0))
}

/// A directory with these files.
pub(crate) fn holding(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Platter {
    let image: Image = files.into_iter().map(|(path, bytes)| (path, Arc::new(bytes))).collect();
    Platter::new(State::at_rest(image, [dir().to_path_buf()].into()), (), 1)
}

/// Opens the store.
pub(crate) fn open<P: Clone + Send + 'static>(
    disk: &Platter<P>,
) -> Result<FileSnapshots, StorageError> {
    FileSnapshots::open(Arc::new(disk.clone()), dir(), &identity())
}
