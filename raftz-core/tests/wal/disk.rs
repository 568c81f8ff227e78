//! A disk in memory that keeps apart what was written and what was synced, and fails on request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use raftz_core::storage::vfs::{Job, OpenMode, Vfs, VfsFile, VfsLock};

/// Files by name.
///
/// Contents are shared until they are changed, so that half a million damaged copies are cheap.
pub(crate) type Image = BTreeMap<PathBuf, Arc<Vec<u8>>>;

#[derive(Default)]
struct Content {
    /// What a running process sees.
    now: Arc<Vec<u8>>,
    /// What survives a power cut for certain.
    synced: Arc<Vec<u8>>,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Default)]
struct State {
    dirs: BTreeSet<PathBuf>,
    durable_dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Shared>,
    durable_names: BTreeMap<PathBuf, Shared>,
}

/// Which operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything from the nth operation that changes something on: the power is cut.
    CutFrom(u64),
    /// The nth write, with an IO error.
    Write(u64),
    /// The nth sync, with an IO error.
    Sync(u64),
    /// Every write that makes a file longer, for lack of space, as long as it is set.
    Full,
}

#[derive(Default)]
struct Control {
    state: Mutex<State>,
    locked: Mutex<BTreeSet<PathBuf>>,
    fault: Mutex<Option<Fault>>,
    changes: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    randoms: AtomicU64,
    free: AtomicU64,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub(crate) struct MemDisk(Arc<Control>);

impl Default for MemDisk {
    /// Nothing on it, and no end of room.
    fn default() -> Self {
        let control = Control::default();
        control.free.store(u64::MAX, Ordering::Relaxed);
        Self(Arc::new(control))
    }
}

struct MemFile {
    content: Shared,
    control: Arc<Control>,
}

struct MemLock(PathBuf, Arc<Control>);

impl VfsLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.1.locked.lock().unwrap().remove(&self.0);
    }
}

fn broken() -> io::Error {
    io::Error::other("injected")
}

impl Control {
    fn change(&self) -> io::Result<()> {
        let n = self.changes.fetch_add(1, Ordering::Relaxed);
        match *self.fault.lock().unwrap() {
            Some(Fault::CutFrom(from)) if n >= from => Err(broken()),
            _ => Ok(()),
        }
    }
}

impl MemDisk {
    /// A disk that holds these files, all durable.
    pub(crate) fn holding(image: &Image) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.0.state.lock().unwrap();
            for (path, bytes) in image {
                let content = Content { now: bytes.clone(), synced: bytes.clone() };
                let content = Arc::new(Mutex::new(content));
                state.names.insert(path.clone(), content.clone());
                state.durable_names.insert(path.clone(), content);
                state.dirs.insert(path.parent().unwrap().to_path_buf());
            }
        }
        disk
    }

    /// All files as a process sees them: what a killed process leaves behind.
    pub(crate) fn written(&self) -> Image {
        let state = self.0.state.lock().unwrap();
        state
            .names
            .iter()
            .map(|(path, content)| (path.clone(), content.lock().unwrap().now.clone()))
            .collect()
    }

    /// All files as they were synced: the least that a power cut leaves behind.
    pub(crate) fn synced(&self) -> Image {
        let state = self.0.state.lock().unwrap();
        state
            .durable_names
            .iter()
            .map(|(path, content)| (path.clone(), content.lock().unwrap().synced.clone()))
            .collect()
    }

    /// Whether the name of a directory survives a power cut.
    pub(crate) fn is_dir_durable(&self, dir: &Path) -> bool {
        self.0.state.lock().unwrap().durable_dirs.contains(dir)
    }

    /// Sets what fails, counting from now; `None` ends it.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        for counter in [&self.0.changes, &self.0.writes, &self.0.syncs] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.0.fault.lock().unwrap() = fault;
    }

    /// Operations that changed something since the last call of `fail`.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// Sets the free space.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.0.free.store(bytes, Ordering::Relaxed);
    }
}

impl VfsFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock().unwrap();
        let from = (offset as usize).min(content.now.len());
        let n = buf.len().min(content.now.len() - from);
        buf[..n].copy_from_slice(&content.now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.control.change()?;
        let n = self.control.writes.fetch_add(1, Ordering::Relaxed);
        let bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        match *self.control.fault.lock().unwrap() {
            Some(Fault::Write(at)) if n == at => return Err(broken()),
            Some(Fault::Full) if offset + bytes > self.len()? => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            _ => {}
        }
        let mut content = self.content.lock().unwrap();
        let now = Arc::make_mut(&mut content.now);
        let mut at = offset as usize;
        for buf in bufs {
            if now.len() < at + buf.len() {
                now.resize(at + buf.len(), 0);
            }
            now[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.control.change()?;
        let n = self.control.syncs.fetch_add(1, Ordering::Relaxed);
        if *self.control.fault.lock().unwrap() == Some(Fault::Sync(n)) {
            return Err(broken());
        }
        let mut content = self.content.lock().unwrap();
        let content = &mut *content;
        content.synced.clone_from(&content.now);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Vfs for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.0.state.lock().unwrap();
        let found = state.names.get(path).cloned();
        let content = match (found, mode) {
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(content), OpenMode::Existing | OpenMode::Keep) => content,
            (_, OpenMode::Create | OpenMode::Keep) => {
                self.0.change()?;
                let content = Shared::default();
                state.names.insert(path.to_path_buf(), content.clone());
                content
            }
        };
        let control = self.0.clone();
        Ok(Arc::new(MemFile { content, control }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.change()?;
        let mut state = self.0.state.lock().unwrap();
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), content);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.0.change()?;
        self.0.state.lock().unwrap().names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.0.change()?;
        match self.0.state.lock().unwrap().dirs.insert(path.to_path_buf()) {
            true => Ok(()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.change()?;
        let mut state = self.0.state.lock().unwrap();
        let here = |path: &PathBuf| path.parent() == Some(dir);
        let state = &mut *state;
        let dirs = state.dirs.iter().filter(|path| here(path)).cloned();
        state.durable_dirs.extend(dirs);
        state.durable_names.retain(|path, _| !here(path));
        let names = state.names.iter().filter(|(path, _)| here(path));
        state.durable_names.extend(names.map(|(path, content)| (path.clone(), content.clone())));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.state.lock().unwrap();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        let free = self.0.locked.lock().unwrap().insert(path.to_path_buf());
        Ok(free.then(|| Box::new(MemLock(path.to_path_buf(), self.0.clone())) as Box<dyn VfsLock>))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        let n = self.0.randoms.fetch_add(1, Ordering::Relaxed) + 1;
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn background(&self, job: Job) -> io::Result<()> {
        job();
        Ok(())
    }
}
