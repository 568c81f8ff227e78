//! The few operations that durable storage needs from a file system, as a trait.
//!
//! Everything under `wal/` reaches the disk through here and nothing else, so that a simulator can
//! replace the disk, and a fault enumerator can stop, tear or fail each single operation. One
//! durable effect is one call. The random numbers and the helper thread of a store come from here,
//! too: they are the other two things a simulation must own.
#![allow(clippy::disallowed_methods, reason = "the one place that touches files")]

mod direct;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use direct::DirectFile;

/// How [`Vfs::open`] treats the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read and write.
    Existing,
    /// A file that is created, or emptied when it exists.
    Create,
    /// A file that is created when it is missing and otherwise kept as it is.
    Keep,
}

/// An open file. Positional, so that readers and the writer share it.
pub trait VfsFile: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bufs`, one behind the other, at `offset`.
    ///
    /// The slices are advanced as they are written; their content after the call is unspecified.
    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Another handle of the file, for whoever writes a few whole blocks of 4 KiB at a time, syncs them at once and
    /// hardly reads them: its writes may go past the system's cache. What is written through one handle is read
    /// through all, and made durable by the sync of any. `None` where there is no such thing.
    fn past_cache(&self) -> Option<Arc<dyn VfsFile>> {
        None
    }

    /// Secures room for a length of `bytes`, which reads as zeros where nothing was written. What the file
    /// holds stays.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = self.len()?;
        let zeros = vec![0; bytes.saturating_sub(length) as usize];
        if zeros.is_empty() { Ok(()) } else { self.write_at(&mut [IoSlice::new(&zeros)], length) }
    }

    /// Returns when everything written, and the file's length, survives a power cut.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks that the next read comes from the disk and not from memory; what is not there yet sets out for it
    /// now. A hint.
    fn drop_cache(&self) -> io::Result<()>;

    /// Asks that reads fetch no more from the disk than they give. A hint.
    ///
    /// A device may be set to read megabytes ahead, and while it does a sync of another file waits.
    fn read_no_further(&self) -> io::Result<()> {
        Ok(())
    }

    /// Tells that so many bytes from there will be read soon. A hint.
    fn will_read(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// An exclusive lock on a directory, released when it is dropped.
pub trait VfsLock: Send + Sync {}

/// A job for [`Vfs::background`].
pub type Job = Box<dyn FnOnce() + Send>;

/// A file system.
pub trait Vfs: Send + Sync {
    /// Opens a file to read and write.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;

    /// Renames a file over whatever has the new name. Durable after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Vfs::sync_dir`].
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory, whose parent exists.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns when all renames, creations and removals in `dir` survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Takes the lock that the file `path` stands for; `None` when somebody holds it, in this
    /// process or in another.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>>;

    /// Bytes that an ordinary user can still write to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// A random number.
    fn random(&self) -> u64;

    /// Runs `job` beside the caller. A simulator may run it at once.
    fn background(&self, job: Job) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

struct RealFile(Arc<File>);

/// Most buffers that one vectored write takes on Linux.
const IO_SLICES_MAX: usize = 1024;

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bufs = bufs;
        let mut at = offset;
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let some = &bufs[..bufs.len().min(IO_SLICES_MAX)];
            match rustix::io::pwritev(self.0.as_ref(), some, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut bufs, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn past_cache(&self) -> Option<Arc<dyn VfsFile>> {
        DirectFile::of(self).map(|file| Arc::new(file) as Arc<dyn VfsFile>)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self.0.as_ref(), rustix::fs::FallocateFlags::empty(), 0, bytes)
        {
            // Then whoever writes there finds out.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => result.map_err(io::Error::from),
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        rustix::fs::fadvise(self.0.as_ref(), 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn read_no_further(&self) -> io::Result<()> {
        rustix::fs::fadvise(self.0.as_ref(), 0, None, rustix::fs::Advice::Random)?;
        Ok(())
    }

    fn will_read(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let bytes = std::num::NonZeroU64::new(bytes);
        rustix::fs::fadvise(self.0.as_ref(), offset, bytes, rustix::fs::Advice::WillNeed)?;
        Ok(())
    }
}

struct RealLock {
    file: File,
    process: u32,
}

impl RealLock {
    /// `None` if somebody has it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, process: std::process::id() })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl VfsLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // A child that was forked meanwhile shares the lock: to close the file alone would leave it there. And what
        // a child drops is its parent's.
        if self.process == std::process::id() {
            let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
        }
    }
}

impl Vfs for RealVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match mode {
            OpenMode::Existing => {}
            OpenMode::Create => {
                options.create(true).truncate(true);
            }
            OpenMode::Keep => {
                options.create(true).truncate(false);
            }
        }
        Ok(Arc::new(RealFile(Arc::new(options.open(path)?))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        Ok(RealLock::take(path)?.map(|lock| Box::new(lock) as Box<dyn VfsLock>))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    // The one place where a store starts a thread; the simulator has its own.
    #[allow(clippy::disallowed_methods)]
    fn background(&self, job: Job) -> io::Result<()> {
        std::thread::Builder::new().name("raftz-prepare".into()).spawn(job).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_ends_with_its_owner_although_a_child_that_was_forked_shares_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = RealLock::take(&path).unwrap().unwrap();
        assert!(RealLock::take(&path).unwrap().is_none());
        // As fork() does.
        let of_the_child = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(RealLock::take(&path).unwrap().is_some());
        drop(of_the_child);
    }

    #[test]
    fn what_a_child_drops_stays_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = RealLock::take(&path).unwrap().unwrap();
        let file = lock.file.try_clone().unwrap();
        drop(RealLock { file, process: lock.process + 1 });
        assert!(RealLock::take(&path).unwrap().is_none());
    }
}
