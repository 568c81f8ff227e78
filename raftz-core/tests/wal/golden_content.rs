//! What the golden data directories of format 1 hold. Never edit what is written: the directories do
//! not change.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raftz_core::storage::vfs::{Job, OpenMode, RealVfs, Vfs, VfsFile, VfsLock};
use raftz_core::storage::wal::{BootstrapSpec, Expect, Wal, WalOptions};
use raftz_core::storage::{Completion, Storage};
use raftz_core::types::{
    Base, ClusterId, Entry, EntryKind, GroupId, HardState, Index, LogId, Member, Membership,
    NodeId, Payload, SessionTag, Settings, Term, WriteOp,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
pub(crate) const DISK: u128 = 0x0000_0000_0000_0001_0000_0000_0000_0002;
pub(crate) const SEGMENT_BYTES: u64 = 1 << 15;

pub(crate) fn node() -> NodeId {
    NodeId::new(2).expect("not zero")
}

pub(crate) fn base() -> Base {
    let members = (1..=3).filter_map(NodeId::new);
    let members = members.map(|id| (id, Member::at(format!("10.0.0.{}:7000", id.get()))));
    Base::founding(Membership::of_voters(members), Settings::default())
}

fn entry(term: u64, index: u64, kind: EntryKind, payload: Payload) -> Entry {
    let session = (index.is_multiple_of(3) && kind == EntryKind::Command).then_some(SessionTag {
        session: 7,
        sequence: index,
        acked_below: index - 1,
    });
    let (term, index) = (Term(term), Index(index));
    Entry { term, index, log_time_us: 1_000_000 + index.0 * 10, kind, session, payload }
}

fn command(term: u64, index: u64, bytes: usize) -> Entry {
    let payload: Vec<u8> = (0..bytes).map(|at| (at as u64 * 7 + index) as u8).collect();
    entry(term, index, EntryKind::Command, Payload::new(payload))
}

/// The entries that are in it at the end.
pub(crate) fn entries() -> Vec<Entry> {
    let grown = base().membership.to_payload().expect("encodes");
    let mut entries = vec![
        entry(1, 1, EntryKind::Noop, Payload::empty()),
        command(1, 2, 0),
        command(1, 3, 100),
        command(1, 4, 4095),
        command(1, 5, 4096),
        command(1, 6, 20_000),
        entry(1, 7, EntryKind::Membership, grown),
        entry(3, 8, EntryKind::Noop, Payload::empty()),
    ];
    entries.extend((9..=20).map(|index| command(3, index, index as usize * 90)));
    entries
}

pub(crate) fn hard_state() -> HardState {
    HardState { term: Term(3), vote: NodeId::new(1) }
}

pub(crate) fn commit() -> Index {
    Index(18)
}

/// The writes that led there, one batch each.
pub(crate) fn writes() -> Vec<WriteOp> {
    let all = entries();
    let write =
        |entries: &[Entry]| WriteOp { entries: entries.to_vec().into(), ..WriteOp::default() };
    let vote = |term, whom| WriteOp {
        hard_state: Some(HardState { term: Term(term), vote: NodeId::new(whom) }),
        ..WriteOp::default()
    };
    let mut writes = vec![vote(1, 2), write(&all[..2]), write(&all[2..5]), write(&all[5..6])];
    writes.push(WriteOp { commit: Index(6), ..write(&all[6..7]) });
    // Entries of term 2 that a leader of term 3 overwrites.
    writes.push(write(&[command(2, 8, 700), command(2, 9, 10)]));
    writes.push(WriteOp {
        hard_state: Some(hard_state()),
        truncate_from: Some(Index(8)),
        ..write(&all[7..8])
    });
    writes.extend(all[8..].chunks(2).map(write));
    if let Some(last) = writes.last_mut() {
        last.commit = commit();
    }
    writes
}

/// The real file system with random numbers that anybody can repeat.
#[derive(Default)]
struct Repeatable(AtomicU64);

impl Vfs for Repeatable {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        RealVfs.open(path, mode)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealVfs.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealVfs.unlink(path)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        RealVfs.make_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealVfs.sync_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealVfs.list(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        RealVfs.lock(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealVfs.free_bytes(dir)
    }
    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
    fn background(&self, job: Job) -> io::Result<()> {
        job();
        Ok(())
    }
}

/// Where the log of the second directory begins: another membership than at first.
pub(crate) fn moved_base(index: u64) -> Base {
    let members = (1..=4).filter_map(NodeId::new);
    let members = members.map(|id| (id, Member::at(format!("10.0.0.{}:7000", id.get()))));
    Base {
        id: LogId::new(Term(2), Index(index)),
        log_time_us: 1_000_000 + index * 10,
        membership: Membership::of_voters(members),
        settings: Settings::default(),
    }
}

/// The entries behind it.
pub(crate) fn entries_behind_base() -> Vec<Entry> {
    (38..=41).map(|index| command(3, index, 900)).collect()
}

/// The writes that led there: a move that lets segments go, one together with a shorter and another
/// end, and one that stands in a record alone.
pub(crate) fn moving_writes() -> Vec<WriteOp> {
    let write = |entries: Vec<Entry>| WriteOp { entries: entries.into(), ..WriteOp::default() };
    let base = |index| Some(Box::new(moved_base(index)));
    let mut writes: Vec<WriteOp> =
        (1..=20).map(|index| write(vec![command(2, index, 4000)])).collect();
    writes.push(WriteOp { base: base(17), ..WriteOp::default() });
    writes.extend((21..=36).map(|index| write(vec![command(2, index, 2000)])));
    writes.push(WriteOp { base: base(34), ..WriteOp::default() });
    writes.push(WriteOp {
        hard_state: Some(hard_state()),
        truncate_from: Some(Index(36)),
        base: base(35),
        commit: Index(35),
        ..write((36..=41).map(|index| command(3, index, 900)).collect())
    });
    let id = LogId::new(Term(3), Index(37));
    let last = Base { id, ..moved_base(37) };
    writes.push(WriteOp { base: Some(Box::new(last)), ..WriteOp::default() });
    writes
}

/// Writes a directory. Panics if it exists: golden files are never written again.
pub(crate) fn generate(dir: &Path, writes: Vec<WriteOp>) {
    assert!(!dir.exists(), "{} exists; golden files are never rewritten", dir.display());
    let vfs = Arc::new(Repeatable::default());
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: 0 };
    let (cluster, node) = (CLUSTER, node());
    let spec = BootstrapSpec { cluster, epoch: 0, node, base: base() };
    let identity = Wal::bootstrap(vfs.as_ref(), dir, &spec, options).expect("formats");
    assert_eq!(identity.disk.0, DISK);
    let (mut wal, _) = Wal::open(vfs, dir, Expect { cluster, node }, options).expect("opens");
    for op in writes {
        let done = Completion::new(|fate| fate.expect("is written"));
        wal.submit(vec![(GroupId::FIRST, op)], done);
    }
    wal.close().unwrap();
    drop(wal);
    for name in ["LOCK", "spare.tmp"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}
