//! The write-ahead log: the durable store of a node.
//!
//! One directory holds a `superblock` (whose it is), a file `vote` (the second place of term and
//! vote), and the log, cut into segments `wal-<number>.log`. It keeps these promises:
//! - what was completed survives a power cut, and one damaged block is found, not believed;
//! - only what was never completed is cut; everything else that cannot be read is reported;
//! - no block is ever rewritten once it was synced, so a power cut can garble only what is new;
//! - the first failed write or sync ends the writing for this life.
//!
//! `format.rs`, `segment.rs`, `superblock.rs` and `hard_state.rs` draw the bytes; `create.rs`
//! formats; `recovery.rs` reads and `replay.rs` judges; `writer.rs` and `reader.rs` do the work;
//! `reclaim.rs` removes what a base has made useless.

mod batch;
mod create;
mod files;
mod format;
mod hard_state;
mod index;
mod reader;
mod reclaim;
mod recovery;
mod replay;
mod segment;
mod superblock;
mod writer;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

pub(super) use self::create::{lock, make_dir};
use self::files::{FORMATTING, SUPERBLOCK, VOTE};
pub(super) use self::files::{corrupt, io_error};
pub(super) use self::format::{crc_holds, seal_crc};
use self::index::LogIndex;
use self::reader::WalReader;
#[cfg(feature = "sim")]
pub(crate) use self::recovery::CUT_NOTE;
use self::recovery::Scanned;
use self::replay::Group;
use self::superblock::Superblock;
use self::writer::{Failed, Start, Writer};
use super::vfs::{Vfs, VfsLock};
use super::{Completion, LogReader, Space, Storage, StorageError, WriteBatch, snapshot};
use crate::types::{
    Base, Boot, ClusterId, Damage, DiskId, GroupId, HardState, Identity, Index, NodeId, Recovered,
};

/// What a founder's directory is formatted with.
#[derive(Clone, Debug)]
pub struct BootstrapSpec {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch: 0, unless the cluster is rebuilt from survivors.
    pub epoch: u64,
    /// The node.
    pub node: NodeId,
    /// The founding base record, the same on every founder.
    pub base: Base,
}

/// What a newcomer's directory is formatted with. It learns the membership from the leader.
#[derive(Clone, Copy, Debug)]
pub struct JoinSpec {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: u64,
    /// The node.
    pub node: NodeId,
}

/// Whose directory an opener believes to open.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// How a log is kept. May differ from one open to the next.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Size of a segment. Larger batches get a segment of their own size, and wait, with all that
    /// is submitted behind them, until the disk has room for it.
    pub segment_bytes: u64,
    /// Free space below which [`Storage::space`] says [`Space::Low`].
    pub reserve_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, reserve_bytes: 256 << 20 }
    }
}

/// What a segment of any log holds beside the largest batch in it: header, checkpoint, padding.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 64 << 10;

/// An open write-ahead log. Its directory is locked until it is dropped.
pub struct Wal {
    writer: Writer,
    reader: Arc<WalReader>,
    /// Submissions that wait, in order, for room for another segment.
    waiting: VecDeque<(WriteBatch, Completion)>,
    /// What they wait for.
    no_room: Option<StorageError>,
    /// Number and bytes of the segments that were last counted, and the newest of them.
    counted: (usize, u64, u64),
    // Released last: fields are dropped in this order.
    _lock: Box<dyn VfsLock>,
}

impl Wal {
    /// Formats the empty directory `dir` for a founder; creates it if its parent exists.
    ///
    /// Durable when it returns. After a crash on the way it can be repeated.
    pub fn bootstrap(
        vfs: &dyn Vfs,
        dir: &Path,
        spec: &BootstrapSpec,
        options: WalOptions,
    ) -> Result<Identity, StorageError> {
        let identity = Identity {
            cluster: spec.cluster,
            epoch: spec.epoch,
            node: spec.node,
            disk: new_disk_id(vfs),
            founders_hash: spec.base.founders_hash(),
        };
        create::format(vfs, dir, &identity, &spec.base, options.segment_bytes)?;
        Ok(identity)
    }

    /// Formats the empty directory `dir` for a node that joins a running cluster.
    pub fn join(
        vfs: &dyn Vfs,
        dir: &Path,
        spec: &JoinSpec,
        options: WalOptions,
    ) -> Result<Identity, StorageError> {
        let JoinSpec { cluster, epoch, node } = *spec;
        let disk = new_disk_id(vfs);
        let identity = Identity { cluster, epoch, node, disk, founders_hash: 0 };
        create::format(vfs, dir, &identity, &Base::default(), options.segment_bytes)?;
        Ok(identity)
    }

    /// Whether `dir` holds a formatted directory, of whomever.
    pub fn is_formatted(vfs: &dyn Vfs, dir: &Path) -> Result<bool, StorageError> {
        match vfs.list(dir) {
            Ok(names) => Ok(names.iter().any(|name| name == SUPERBLOCK)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(files::io_error(dir, "listing the directory", source)),
        }
    }

    /// Opens a formatted directory, reads and verifies all of it, and raises its boot number.
    /// Never formats.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        expect: Expect,
        options: WalOptions,
    ) -> Result<(Self, Recovered), StorageError> {
        check_formatted(vfs.as_ref(), dir)?;
        let lock = create::lock(vfs.as_ref(), dir)?;
        let superblock = Superblock::read(vfs.as_ref(), dir, expect.cluster, expect.node)?;
        // A process that was killed may have renamed what no power cut would leave in place.
        create::sync_dir(vfs.as_ref(), dir)?;
        let names = create::names(vfs.as_ref(), dir)?;
        let identity = superblock.identity;
        if !names.iter().any(|name| name == VOTE) {
            let detail = "the file vote is missing beside a formatted log".into();
            return Err(StorageError::HardStateLost { path: dir.to_path_buf(), detail });
        }
        let (vote, found) = hard_state::VoteFile::open(vfs.as_ref(), dir, identity.disk)?;
        let mut scanned = recovery::scan(vfs.as_ref(), dir, &names, identity.disk, &found)?;
        check_complete(dir, &scanned)?;
        let boot = superblock.raise_boot()?;
        if names.iter().any(|name| name == FORMATTING) {
            create::remove_marker(vfs.as_ref(), dir)?;
        }
        scanned.notes.splice(0..0, superblock.note);
        if found.is_torn() {
            scanned.notes.push(format!("{}: {}", dir.join(VOTE).display(), files::REWRITTEN));
        }
        let configs = scanned.replay.groups.get_mut(&GroupId::FIRST);
        let config_entries =
            configs.map(|group| std::mem::take(&mut group.config)).unwrap_or_default();
        let notes = std::mem::take(&mut scanned.notes);
        let damaged = scanned.damaged;
        let (mut writer, index) = start(vfs, dir, identity.disk, options, vote, scanned)?;
        writer.take_over(&found)?;
        if damaged {
            writer.write_damage_down()?;
        }
        writer.begin_reclaiming();
        let reader = Arc::new(WalReader::new(dir.to_path_buf(), index.clone()));
        let mut recovered = recovered(&index, identity, boot)?;
        recovered.config_entries = config_entries.into_values().collect();
        recovered.notes = notes;
        if recovered.last != recovered.base.id {
            let at = recovered.last.index;
            let newest = reader.read(GroupId::FIRST, at, at, 0)?;
            recovered.last_log_time_us = newest.first().map_or(0, |entry| entry.log_time_us);
        }
        let waiting = VecDeque::new();
        Ok((
            Self { writer, reader, waiting, no_room: None, counted: (0, 0, 0), _lock: lock },
            recovered,
        ))
    }

    /// Writes what waits, until there is no room for it.
    fn go_on(&mut self) {
        while let Some((batch, done)) = self.waiting.pop_front() {
            match self.writer.submit(&batch) {
                Ok(()) => done.complete(Ok(())),
                Err(Failed::Fatal(error)) => done.complete(Err(error)),
                Err(Failed::NoSegment(error)) => {
                    self.no_room = Some(error);
                    self.waiting.push_front((batch, done));
                    return;
                }
            }
        }
    }
}

impl Drop for Wal {
    // The room did not come in time.
    fn drop(&mut self) {
        let Some(error) = self.no_room.take() else { return };
        for (_, done) in self.waiting.drain(..) {
            done.complete(Err(error.clone()));
        }
    }
}

fn new_disk_id(vfs: &dyn Vfs) -> DiskId {
    DiskId(u128::from(vfs.random()) << 64 | u128::from(vfs.random()))
}

fn check_formatted(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    if Wal::is_formatted(vfs, dir)? {
        return Ok(());
    }
    let names = match vfs.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(files::io_error(dir, "listing the directory", source)),
    };
    match create::check_unformatted(dir, &names) {
        Err(StorageError::NotEmpty { found, .. })
            if found == VOTE
                || files::segment_number(&found).is_some()
                || snapshot::is_name(&found) =>
        {
            let detail = format!(
                "the superblock is missing beside {found}; restore it, or remove \
                 this node and join under a new id"
            );
            Err(corrupt(&dir.join(SUPERBLOCK), 0, detail))
        }
        Err(_) | Ok(()) => Err(StorageError::NotFormatted { path: dir.to_path_buf() }),
    }
}

/// Refuses a log whose oldest segments are gone although its base does not cover them.
fn check_complete(dir: &Path, scanned: &Scanned) -> Result<(), StorageError> {
    for (id, Group { log, .. }) in &scanned.replay.groups {
        if log.anchor.index > log.base.id.index {
            let detail = format!(
                "entries {} to {} of group {} lie in this segment or earlier ones, which are missing; restore them, or \
                 remove this node and join under a new id",
                log.base.id.index.next(),
                log.anchor.index,
                id.0
            );
            let before = scanned.files.first().map_or(0, |(number, _)| number.saturating_sub(1));
            return Err(corrupt(&dir.join(files::segment_name(before)), 0, detail));
        }
    }
    Ok(())
}

fn start(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    disk: DiskId,
    options: WalOptions,
    vote: hard_state::VoteFile,
    scanned: Scanned,
) -> Result<(Writer, Arc<RwLock<LogIndex>>), StorageError> {
    let Scanned { replay, files, headless, tail, .. } = scanned;
    let Some((_, file)) = files.last().cloned() else {
        return Err(corrupt(dir, 0, "there is no log segment beside the superblock"));
    };
    let groups = replay.groups.into_iter().map(|(id, group)| (id, group.log)).collect();
    let index = LogIndex { groups, files: files.into_iter().collect(), headless };
    let hard_state_seq = index.groups.values().map(|log| log.hard_state_seq).max().unwrap_or(0);
    let index = Arc::new(RwLock::new(index));
    let writer = Writer::new(Start {
        vfs,
        dir: dir.to_path_buf(),
        disk,
        segment_bytes: segment::segment_bytes(options.segment_bytes),
        reserve_bytes: options.reserve_bytes,
        index: index.clone(),
        vote,
        tail,
        file,
        hard_state_seq: hard_state_seq.max(replay.hard_state_stated),
        touched: replay.touched,
        sealed: replay.sealed,
        base_moved: replay.base_moved,
    });
    Ok((writer, index))
}

fn recovered(
    index: &RwLock<LogIndex>,
    identity: Identity,
    boot: Boot,
) -> Result<Recovered, StorageError> {
    let index = index.read();
    let log = index.groups.get(&GroupId::FIRST).cloned().unwrap_or_default();
    let last = log.last;
    Ok(Recovered {
        identity,
        boot,
        hard_state: HardState {
            vote: log.hard_state.vote.filter(|_| !bug!(RestartForgetsTheVote)),
            ..log.hard_state
        },
        last,
        runs: log.runs,
        config_entries: Vec::new(),
        last_log_time_us: log.base.log_time_us,
        commit: log.commit.min(last.index).max(log.base.id.index),
        damage: log.damage.map(|damage| Damage {
            // Everything up to `last` was read and verified.
            first_faulty: Index::next(last.index),
            lost: damage,
        }),
        base: log.base,
        notes: Vec::new(),
    })
}

impl Storage for Wal {
    // Without room for the next segment a submission waits, and all behind it, until `space` finds
    // some: nothing is lost, and votes are cast again without anybody's help.
    fn submit(&mut self, batch: WriteBatch, done: Completion) {
        self.waiting.push_back((batch, done));
        if self.waiting.len() == 1 {
            self.go_on();
        }
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.reader.clone()
    }

    fn idle(&mut self) -> Result<(), StorageError> {
        self.writer.seal()
    }

    fn space(&mut self) -> Space {
        let space = self.writer.space();
        if !self.writer.lacks_segment() {
            self.go_on();
        }
        if self.waiting.is_empty() { space } else { Space::Low }
    }

    // Segments are made in their full size: only which there are can change it.
    fn log_bytes(&mut self) -> Option<u64> {
        let (count, newest, bytes) = self.writer.segments(self.counted);
        self.counted = (count, newest, bytes);
        Some(bytes)
    }

    // What was completed is durable without the seal, which helps to find damage later.
    fn close(&mut self) -> Result<(), StorageError> {
        self.writer.seal()
    }
}
