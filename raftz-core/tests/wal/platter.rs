//! A file system in memory over a [`State`]: what a store writes to in these tests.
//!
//! It counts its operations by kind and lets any single one fail; it can be full; and it can take a
//! *shot* of everything after each operation, together with what had been promised by then.
//! `crash.rs` turns a shot into the disks that a power cut at this moment may leave.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use raftz_core::storage::vfs::{Job, OpenMode, Vfs, VfsFile, VfsLock};

use super::disk::{Change, Dice, Image, Inode, NameChange, State};

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Open,
    Len,
    Read,
    Write,
    Sync,
    DropCache,
    Rename,
    Unlink,
    MakeDir,
    SyncDir,
    List,
    Lock,
    FreeBytes,
    Background,
}

impl Op {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Open,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::DropCache,
        Self::Rename,
        Self::Unlink,
        Self::MakeDir,
        Self::SyncDir,
        Self::List,
        Self::Lock,
        Self::FreeBytes,
        Self::Background,
    ];
}

/// The ways in which an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// EIO. A change of a name may have happened all the same.
    Broken,
    /// ENOSPC. Nothing happened.
    NoSpace,
    /// A write stops somewhere, then EIO.
    Short,
}

/// Which operation fails, counted from the moment that this is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) op: Op,
    pub(crate) nth: u64,
    pub(crate) how: How,
}

/// What becomes of the jobs that a store gives away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Helper {
    /// They are done at once.
    #[default]
    AtOnce,
    /// They run on a thread of their own.
    Beside,
    /// They are lost.
    Never,
    /// They wait for [`Platter::help`].
    Held,
}

/// The disk at one moment and what had been promised by then.
pub(crate) struct Shot<P> {
    pub(crate) state: State,
    pub(crate) promise: P,
}

struct Inner<P> {
    state: State,
    promise: P,
    shots: Option<Vec<Shot<P>>>,
    locked: BTreeSet<PathBuf>,
    counts: [u64; Op::ALL.len()],
    fault: Option<Fault>,
    failed: Option<PathBuf>,
    is_full: bool,
    free: u64,
    helper: Helper,
    held: Vec<Job>,
    dice: Dice,
}

/// The disk. Clones share it; `P` is what its user has promised so far.
pub(crate) struct Platter<P = ()>(Arc<Mutex<Inner<P>>>);

impl<P> Platter<P> {
    fn inner(&self) -> MutexGuard<'_, Inner<P>> {
        self.0.lock().unwrap()
    }
}

impl<P> Clone for Platter<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Default for Platter {
    fn default() -> Self {
        Self::new(State::default(), (), 0)
    }
}

impl Platter {
    /// A disk that holds these files, all durable.
    pub(crate) fn holding(image: &Image) -> Self {
        let dirs = image.keys().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
        Self::new(State::at_rest(image.clone(), dirs), (), 0)
    }
}

impl<P: Clone + Send + 'static> Platter<P> {
    /// A disk in this state, with no end of room.
    pub(crate) fn new(state: State, promise: P, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state,
            promise,
            shots: None,
            locked: BTreeSet::new(),
            counts: [0; Op::ALL.len()],
            fault: None,
            failed: None,
            is_full: false,
            free: u64::MAX,
            helper: Helper::default(),
            held: Vec::new(),
            dice: Dice(seed),
        })))
    }

    /// From now on a shot is taken after each operation and each promise.
    pub(crate) fn record(&self) {
        let mut inner = self.inner();
        inner.shots = Some(Vec::new());
        inner.shoot();
    }

    /// The shots taken so far; no more are taken.
    pub(crate) fn shots(&self) -> Vec<Shot<P>> {
        self.inner().shots.take().unwrap_or_default()
    }

    /// Says what is promised from now on.
    pub(crate) fn promise(&self, promise: P) {
        let mut inner = self.inner();
        inner.promise = promise;
        inner.shoot();
    }

    /// What is promised.
    pub(crate) fn promised(&self) -> P {
        self.inner().promise.clone()
    }

    /// All of it.
    pub(crate) fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// See [`State::written`].
    pub(crate) fn written(&self) -> Image {
        self.inner().state.written()
    }

    /// See [`State::synced`].
    pub(crate) fn synced(&self) -> Image {
        self.inner().state.synced()
    }

    /// Sets what fails, counting from now; `None` ends it.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        let mut inner = self.inner();
        inner.counts = [0; Op::ALL.len()];
        inner.fault = fault;
        inner.failed = None;
    }

    /// What did fail since then: the file or directory.
    pub(crate) fn failed(&self) -> Option<PathBuf> {
        self.inner().failed.clone()
    }

    /// How many operations of a kind there were since then.
    pub(crate) fn count(&self, op: Op) -> u64 {
        self.inner().counts[op as usize]
    }

    /// Sets whether no file may grow, which is found out by trying.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.inner().is_full = is_full;
    }

    /// Sets what is said to be free.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.inner().free = bytes;
    }

    /// Does the jobs that were held.
    pub(crate) fn help(&self) {
        let held = std::mem::take(&mut self.inner().held);
        held.into_iter().for_each(|job| job());
    }

    /// Sets what becomes of jobs.
    pub(crate) fn set_helper(&self, helper: Helper) {
        self.inner().helper = helper;
    }
}

impl<P: Clone> Inner<P> {
    fn shoot(&mut self) {
        if let Some(shots) = &mut self.shots {
            shots.push(Shot { state: self.state.clone(), promise: self.promise.clone() });
        }
    }

    /// Counts an operation. It fails if it is its turn, after `spoil` did what it does then.
    fn begin(
        &mut self,
        op: Op,
        path: &Path,
        spoil: impl FnOnce(&mut State, How, &mut Dice),
    ) -> io::Result<()> {
        let nth = self.counts[op as usize];
        self.counts[op as usize] += 1;
        let Some(how) = self.fault.filter(|fault| (fault.op, fault.nth) == (op, nth)) else {
            return Ok(());
        };
        self.failed = Some(path.to_path_buf());
        spoil(&mut self.state, how.how, &mut self.dice);
        self.shoot();
        Err(match how.how {
            How::Broken | How::Short => io::Error::other("injected"),
            How::NoSpace => io::ErrorKind::StorageFull.into(),
        })
    }

    /// Counts an operation that changes nothing.
    fn look(&mut self, op: Op, path: &Path) -> io::Result<()> {
        self.begin(op, path, |_, _, _| {})
    }

    fn change_name(&mut self, op: Op, path: &Path, change: NameChange) -> io::Result<()> {
        let late = change.clone();
        self.begin(op, path, |state, how, dice| {
            if how == How::Broken && dice.once_in(2) {
                state.change_name(late);
            }
        })?;
        self.state.change_name(change);
        self.shoot();
        Ok(())
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.state.inodes.entry(number).or_default()
    }
}

struct OpenFile<P> {
    /// As it was opened.
    path: PathBuf,
    inode: u64,
    disk: Platter<P>,
}

impl<P: Clone> OpenFile<P> {
    /// Its present name: a segment is opened under a temporary one.
    fn name(&self, inner: &Inner<P>) -> PathBuf {
        let names = &mut inner.state.names.iter();
        let name = names.find(|(_, inode)| **inode == self.inode).map(|(path, _)| path.clone());
        name.unwrap_or_else(|| self.path.clone())
    }

    fn look(&self, op: Op) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.look(op, &self.path)
    }
}

impl<P: Clone + Send + 'static> VfsFile for OpenFile<P> {
    fn len(&self) -> io::Result<u64> {
        self.look(Op::Len)?;
        Ok(self.disk.inner().inode(self.inode).seen.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look(Op::Read)?;
        let seen = self.disk.inner().inode(self.inode).seen.clone();
        let from = (offset as usize).min(seen.len());
        let n = buf.len().min(seen.len() - from);
        buf[..n].copy_from_slice(&seen[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let at = offset as usize;
        let mut inner = self.disk.inner();
        let name = self.name(&inner);
        inner.begin(Op::Write, &name, |state, how, dice| {
            if how == How::Short {
                let upto = dice.below(bytes.len() + 1);
                let change = Change::Write(at, bytes[..upto].into());
                state.inodes.entry(self.inode).or_default().change(change);
            }
        })?;
        if inner.is_full && at + bytes.len() > inner.inode(self.inode).seen.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.inode(self.inode).change(Change::Write(at, bytes.into()));
        inner.shoot();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let name = self.name(&inner);
        inner.begin(Op::Sync, &name, |state, _, dice| {
            state.inodes.entry(self.inode).or_default().fail_sync(dice);
        })?;
        inner.inode(self.inode).sync();
        inner.shoot();
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.look(Op::DropCache)?;
        self.disk.inner().inode(self.inode).drop_cache();
        Ok(())
    }
}

struct Lock<P>(PathBuf, Platter<P>);

impl<P: Send> VfsLock for Lock<P> {}

impl<P> Drop for Lock<P> {
    fn drop(&mut self) {
        self.1.inner().locked.remove(&self.0);
    }
}

impl<P: Clone + Send + 'static> Vfs for Platter<P> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut inner = self.inner();
        let inode = match (inner.state.names.get(path).copied(), mode) {
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(inode), OpenMode::Existing | OpenMode::Keep) => {
                inner.look(Op::Open, path)?;
                inode
            }
            (Some(inode), OpenMode::Create) => {
                inner.look(Op::Open, path)?;
                inner.inode(inode).change(Change::Length(0));
                inner.shoot();
                inode
            }
            (None, OpenMode::Create | OpenMode::Keep) => {
                let inode = inner.state.create(Inode::default());
                let change = NameChange::Create(path.to_path_buf(), inode);
                inner.change_name(Op::Open, path, change)?;
                inode
            }
        };
        drop(inner);
        Ok(Arc::new(OpenFile { path: path.to_path_buf(), inode, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let inode = *inner.state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode);
        inner.change_name(Op::Rename, to, change)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change_name(Op::Unlink, path, NameChange::Unlink(path.to_path_buf()))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.look(Op::MakeDir, path)?;
        if !inner.state.dirs.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.shoot();
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.look(Op::SyncDir, dir)?;
        inner.state.sync_dir(dir);
        inner.shoot();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.inner();
        inner.look(Op::List, dir)?;
        if !inner.state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = inner.state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        self.inner().look(Op::Lock, path)?;
        drop(self.open(path, OpenMode::Keep)?);
        let free = self.inner().locked.insert(path.to_path_buf());
        Ok(free.then(|| Box::new(Lock(path.to_path_buf(), self.clone())) as Box<dyn VfsLock>))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let mut inner = self.inner();
        inner.look(Op::FreeBytes, dir)?;
        Ok(inner.free)
    }

    fn random(&self) -> u64 {
        self.inner().dice.next()
    }

    fn background(&self, job: Job) -> io::Result<()> {
        let helper = {
            let mut inner = self.inner();
            inner.look(Op::Background, Path::new("helper"))?;
            inner.helper
        };
        match helper {
            Helper::AtOnce => job(),
            Helper::Beside => drop(std::thread::Builder::new().spawn(job)?),
            Helper::Never => drop(job),
            Helper::Held => self.inner().held.push(job),
        }
        Ok(())
    }
}
