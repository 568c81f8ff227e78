//! What a process sees of the disk.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::cut::Plan;
use super::inode::{Inode, InodeRef};
use super::names::{Entry, NameChange};
use super::{SimDisk, State};
use crate::storage::vfs::{Job, OpenMode, Vfs, VfsFile, VfsLock};

/// No file is longer: an offset that was computed wrongly must not cost all memory.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// What a broken device says.
fn broken() -> io::Error {
    rustix::io::Errno::IO.into()
}

fn no_such_file() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// A path's directory and the name in it; `None` for the root and for what is no name.
pub(super) fn split(path: &Path) -> Option<(&Path, &str)> {
    Some((path.parent()?, path.file_name()?.to_str()?))
}

fn split_or_refuse(path: &Path) -> io::Result<(&Path, &str)> {
    split(path).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl State {
    /// Whether a process of this life can do anything at all.
    fn check_alive(&self, life: Option<u64>) -> io::Result<()> {
        if life.is_some_and(|life| life != self.life) {
            return Err(io::Error::other("used by a process that is dead"));
        }
        if self.left == Some(0) {
            return Err(io::Error::other("used by a process that is dying"));
        }
        Ok(())
    }

    /// Counts a changing operation.
    const fn count_change(&mut self) -> u64 {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        self.seq += 1;
        self.seq
    }

    /// Whether something is to fail that does so in `ppm` of a million cases.
    fn fails(&mut self, ppm: u32) -> bool {
        self.chooser.ppm(ppm)
    }

    /// Fails an operation on names. Answers whether it shall be done, and what is to be said of it.
    fn other_error(&mut self) -> (bool, io::Result<()>) {
        if !self.fails(self.faults.other_error_ppm) {
            return (true, Ok(()));
        }
        self.counts.other_errors += 1;
        (self.chooser.below(2) == 1, Err(broken()))
    }

    fn find(&mut self, path: &Path) -> io::Result<Option<InodeRef>> {
        let (parent, name) = split_or_refuse(path)?;
        match self.dir(parent).ok_or_else(no_such_file)?.names().get(name) {
            Some(Entry::File(inode)) => Ok(Some(inode.clone())),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Ok(None),
        }
    }

    fn change_name(&mut self, parent: &Path, seq: u64, change: NameChange) {
        if let Some(dir) = self.dir(parent) {
            dir.change(seq, change);
        }
    }

    fn create(&mut self, path: &Path, seq: u64) -> io::Result<InodeRef> {
        let (parent, name) = split_or_refuse(path)?;
        let inode: InodeRef = Arc::new(Mutex::new(Inode::named()));
        let change = NameChange::Create(name.to_owned(), Entry::File(inode.clone()));
        self.change_name(parent, seq, change);
        Ok(inode)
    }

    /// Finds or makes a file.
    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeRef> {
        let found = self.find(path)?;
        let (done, fate) = self.other_error();
        match (found, mode) {
            (None, OpenMode::Existing) => Err(no_such_file()),
            (Some(inode), OpenMode::Existing | OpenMode::Keep) => fate.map(|()| inode),
            (Some(inode), OpenMode::Create) => {
                let seq = self.count_change();
                if done {
                    let mut inode = inode.lock();
                    self.release(&inode);
                    if inode.len() > 0 {
                        inode.empty(seq, &mut self.pool);
                    }
                }
                fate.map(|()| inode)
            }
            (None, OpenMode::Create | OpenMode::Keep) => {
                let seq = self.count_change();
                if !done {
                    return Err(broken());
                }
                let inode = self.create(path, seq)?;
                fate.map(|()| inode)
            }
        }
    }

    /// Gives the room of a file free.
    const fn release(&mut self, inode: &Inode) {
        if inode.is_named {
            self.used_bytes -= inode.len() as u64;
        }
    }

    /// A file lost its name.
    fn let_go(&mut self, inode: &InodeRef) {
        let mut inode = inode.lock();
        self.release(&inode);
        inode.is_named = false;
    }

    /// How much of a write is done, and what is to be said of it.
    fn limit_write(&mut self, inode: &Inode, at: usize, wanted: usize) -> (usize, io::Result<()>) {
        if self.fails(self.faults.write_error_ppm) {
            self.counts.write_errors += 1;
            return (0, Err(broken()));
        }
        let (mut total, mut fate) = (wanted, Ok(()));
        if self.fails(self.faults.short_write_ppm) {
            self.counts.short_writes += 1;
            total = usize::try_from(self.chooser.below(wanted as u64)).unwrap_or_default();
            fate = Err(broken());
        }
        if let Some(capacity) = self.faults.capacity_bytes.filter(|_| inode.is_named) {
            let room = capacity.saturating_sub(self.used_bytes);
            let growth = (at + total).saturating_sub(inode.len()) as u64;
            if growth > room {
                self.counts.no_space += 1;
                let missing = usize::try_from(growth - room).unwrap_or(usize::MAX);
                let fits = total.saturating_sub(missing);
                total = if self.chooser.below(2) == 0 { 0 } else { fits };
                fate = Err(io::ErrorKind::StorageFull.into());
            }
        }
        if inode.needs_unreadable(at, at + total) {
            self.counts.latent_errors += 1;
            return (0, Err(broken()));
        }
        (total, fate)
    }

    fn write(&mut self, inode: &InodeRef, bufs: &[IoSlice<'_>], at: usize) -> io::Result<()> {
        let seq = self.count_change();
        self.counts.writes += 1;
        let mut inode = inode.lock();
        let wanted = bufs.iter().map(|buf| buf.len()).sum();
        let (total, fate) = self.limit_write(&inode, at, wanted);
        if total > 0 {
            let length_before = inode.len();
            inode.write(seq, bufs, at, total, &mut self.pool);
            if inode.is_named {
                self.used_bytes += (inode.len() - length_before) as u64;
            }
        }
        fate
    }

    fn sync(&mut self, inode: &InodeRef) -> io::Result<()> {
        let seq = self.count_change();
        self.counts.syncs += 1;
        let mut inode = inode.lock();
        if self.fails(self.faults.sync_error_ppm) {
            self.counts.sync_errors += 1;
            let plan = Plan::draw(inode.unsynced_seqs().collect(), &mut self.chooser);
            inode.fail_sync(plan, seq, &mut self.chooser, &mut self.counts, &mut self.pool);
            return Err(broken());
        }
        if self.faults.drop_syncs {
            self.counts.syncs_dropped += 1;
            inode.write_back_excess();
        } else {
            inode.sync(&mut self.pool);
        }
        Ok(())
    }

    fn read(&mut self, inode: &InodeRef, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.fails(self.faults.read_error_ppm) {
            self.counts.read_errors += 1;
            return Err(broken());
        }
        let read = inode.lock().read(buf, offset);
        self.counts.lying_reads += u64::from(read.lies);
        if read.unreadable {
            self.counts.latent_errors += 1;
            return Err(broken());
        }
        Ok(read.bytes)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((parent, from_name), (to_parent, to_name)) =
            (split_or_refuse(from)?, split_or_refuse(to)?);
        if parent != to_parent {
            // Nobody moves files between directories, and what is kept of that would be two changes.
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let inode = self.find(from)?.ok_or_else(no_such_file)?;
        let replaced = self.find(to)?;
        let seq = self.count_change();
        let (done, fate) = self.other_error();
        if done && from_name != to_name {
            if let Some(replaced) = replaced {
                self.let_go(&replaced);
            }
            let entry = Entry::File(inode);
            let (from, to) = (from_name.to_owned(), to_name.to_owned());
            self.change_name(parent, seq, NameChange::Rename { from, to, entry });
        }
        fate
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = split_or_refuse(path)?;
        let inode = self.find(path)?.ok_or_else(no_such_file)?;
        let seq = self.count_change();
        let (done, fate) = self.other_error();
        if done {
            self.let_go(&inode);
            self.change_name(parent, seq, NameChange::Unlink(name.to_owned()));
        }
        fate
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.dirs.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (parent, name) = split_or_refuse(path)?;
        if self.find(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let seq = self.count_change();
        let (done, fate) = self.other_error();
        if done {
            self.change_name(parent, seq, NameChange::Create(name.to_owned(), Entry::Dir));
            self.dirs.entry(path.to_path_buf()).or_default();
        }
        fate
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.dirs.contains_key(path) {
            return Err(no_such_file());
        }
        self.count_change();
        self.counts.dir_syncs += 1;
        if self.fails(self.faults.dir_sync_error_ppm) {
            self.counts.dir_sync_errors += 1;
            return Err(broken());
        }
        let drop_syncs = self.faults.drop_syncs;
        self.counts.syncs_dropped += u64::from(drop_syncs);
        if let Some(dir) = self.dir(path) {
            if drop_syncs {
                dir.write_back_excess();
            } else {
                dir.sync();
            }
        }
        Ok(())
    }

    fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.other_error().1?;
        let dir = self.dir(path).ok_or_else(no_such_file)?;
        Ok(dir.names().keys().cloned().collect())
    }
}

impl SimDisk {
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        state.check_alive(self.life)?;
        Ok(state)
    }
}

/// An open file of one life.
struct SimFile {
    inode: InodeRef,
    disk: SimDisk,
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let _alive = self.disk.alive()?;
        Ok(self.inode.lock().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.alive()?.read(&self.inode, buf, offset)
    }

    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        if offset > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.disk.alive()?.write(&self.inode, bufs, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.alive()?.sync(&self.inode)
    }

    fn drop_cache(&self) -> io::Result<()> {
        let _alive = self.disk.alive()?;
        self.inode.lock().drop_cache();
        Ok(())
    }
}

/// A lock of one life.
struct SimLock {
    path: PathBuf,
    disk: SimDisk,
}

impl VfsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        // The end of a life has released its locks; this one may be held by a successor.
        if self.disk.life == Some(state.life) {
            state.locked.remove(&self.path);
        }
    }
}

impl Vfs for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.alive()?;
        let inode = state.open(path, mode)?;
        let disk = Self { state: self.state.clone(), life: Some(state.life) };
        Ok(Arc::new(SimFile { inode, disk }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive()?.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.alive()?.unlink(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.alive()?.make_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.alive()?.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?.list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        let mut state = self.alive()?;
        state.open(path, OpenMode::Keep)?;
        if !state.locked.insert(path.to_path_buf()) {
            return Ok(None);
        }
        let disk = Self { state: self.state.clone(), life: Some(state.life) };
        Ok(Some(Box::new(SimLock { path: path.to_path_buf(), disk })))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.alive()?;
        let capacity = state.faults.capacity_bytes;
        Ok(capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes)))
    }

    fn random(&self) -> u64 {
        self.state.lock().chooser.number()
    }

    fn background(&self, job: Job) -> io::Result<()> {
        job();
        Ok(())
    }
}
