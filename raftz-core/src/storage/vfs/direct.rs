//! Writes that go past the system's cache.
//!
//! A small write that is synced at once is dear by way of the cache: its page is marked, locked, written back and
//! waited for, though nobody reads it. Past the cache the disk takes it straight from the program's memory; the
//! sync behind it has only the disk's own cache left to empty. What such a write asks for, memory and places that
//! are whole blocks, a log has anyway. Whatever does not fit, and every write where the file system
//! refuses, goes through the cache: what holds after a sync is the same on both ways.
//!
//! Others read the same file through the cache meanwhile. That both ways stay in step is the file system's duty, and
//! one that cannot throw a page out in time says so by a failed sync, which would end the node. So this is for
//! file systems that never fail there for the sake of a reader: ext4 and XFS. On btrfs it has happened.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{RealFile, VfsFile};

/// What places, lengths and memory are multiples of: enough for every disk in use.
const BLOCK: usize = 4096;
/// More than this is written as fast through the cache, and need not be gathered.
const DIRECT_BYTES_MAX: usize = 64 << 10;

/// What `fstatfs` says of the file systems that keep both ways in step, whoever reads: ext2, ext3 and ext4, and XFS.
const IN_STEP: [i64; 2] = [0xEF53, 0x5846_5342];

/// A file whose small writes of whole blocks go past the cache.
pub(super) struct DirectFile {
    cached: RealFile,
    direct: Mutex<Direct>,
}

/// The way past the cache, and the memory that the disk reads from.
struct Direct {
    /// `None` once it was refused.
    file: Option<File>,
    gathered: Vec<u8>,
}

impl DirectFile {
    /// Another handle of an open file; `None` where its file system knows no such writes, or is not known well enough.
    pub(super) fn of(cached: &RealFile) -> Option<Self> {
        let kind = rustix::fs::fstatfs(cached.0.as_ref()).ok()?.f_type;
        if !IN_STEP.contains(&kind) {
            return None;
        }
        // By its number: the file may have been renamed since it was opened.
        let path = format!("/proc/self/fd/{}", cached.0.as_raw_fd());
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
        let direct = Direct { file: Some(file), gathered: Vec::new() };
        Some(Self { cached: RealFile(Arc::clone(&cached.0)), direct: Mutex::new(direct) })
    }
}

impl Direct {
    /// Writes all of `bufs`; `false` if that must be done otherwise.
    fn write_at(&mut self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<bool> {
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        let is_whole = bytes.is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK as u64);
        let Some(file) = self.file.as_ref().filter(|_| is_whole && bytes <= DIRECT_BYTES_MAX)
        else {
            return Ok(false);
        };
        let from = gather(bufs, bytes, &mut self.gathered);
        match file.write_all_at(&self.gathered[from..], offset) {
            // The first write may find out what opening did not. Written again through the cache, a part that the
            // disk has taken is the same bytes.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.file = None;
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }
}

/// Copies all of `bufs` into memory that begins on a block, which is from the returned place on.
fn gather(bufs: &[IoSlice<'_>], bytes: usize, into: &mut Vec<u8>) -> usize {
    into.clear();
    into.reserve(bytes + BLOCK);
    let from = into.as_ptr().addr().wrapping_neg() % BLOCK;
    into.resize(from, 0);
    bufs.iter().for_each(|buf| into.extend_from_slice(buf));
    from
}

impl VfsFile for DirectFile {
    fn len(&self) -> io::Result<u64> {
        self.cached.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.cached.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.direct.lock().write_at(bufs, offset)? {
            return Ok(());
        }
        self.cached.write_at(bufs, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.cached.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.cached.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.cached.drop_cache()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::vfs::{OpenMode, RealVfs, Vfs};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const FILE_BYTES: usize = 64 * BLOCK;

    /// Beside this program: what is meant for temporary files is often no file system of this kind.
    fn folder() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    }

    fn real(dir: &Path) -> RealFile {
        let path = dir.join("file");
        RealVfs.open(&path, OpenMode::Create).unwrap();
        RealFile(Arc::new(OpenOptions::new().read(true).write(true).open(path).unwrap()))
    }

    fn content(file: &dyn VfsFile) -> Vec<u8> {
        let mut bytes = vec![0; FILE_BYTES];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), FILE_BYTES);
        bytes
    }

    /// Writes of every shape through this handle, each read back through the other and through itself.
    fn writes_and_reads_agree(cached: &RealFile, direct: &DirectFile) {
        let mut expected = vec![7; FILE_BYTES];
        cached.write_at(&mut [IoSlice::new(&expected)], 0).unwrap();
        cached.sync_data().unwrap();
        let shapes: [(usize, &[usize]); 8] = [
            (0, &[BLOCK]),
            (3 * BLOCK, &[64, 1000, 3 * BLOCK - 1064]),
            (BLOCK, &[1, 0, BLOCK - 1, BLOCK]),
            (5 * BLOCK, &[100]),
            (5 * BLOCK + 512, &[BLOCK]),
            (8 * BLOCK, &[DIRECT_BYTES_MAX - 1, 1]),
            (32 * BLOCK, &[DIRECT_BYTES_MAX, BLOCK]),
            (9 * BLOCK, &[]),
        ];
        for (fill, (at, lengths)) in shapes.into_iter().enumerate() {
            let parts: Vec<Vec<u8>> = lengths.iter().map(|n| vec![fill as u8 + 100; *n]).collect();
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|it| IoSlice::new(it)).collect();
            direct.write_at(&mut slices, at as u64).unwrap();
            let bytes: Vec<u8> = parts.concat();
            expected[at..at + bytes.len()].copy_from_slice(&bytes);
            assert!(content(cached) == expected, "write {fill}");
            direct.sync_data().unwrap();
            // Every other time what follows finds nothing in the cache.
            if fill % 2 == 0 {
                direct.drop_cache().unwrap();
            }
            assert!(content(direct) == expected, "write {fill}, synced");
        }
        assert_eq!(direct.len().unwrap(), FILE_BYTES as u64);
    }

    #[test]
    fn what_goes_past_the_cache_is_seen_through_it() {
        let dir = folder();
        let cached = real(dir.path());
        // Where the file system has no such way there is nothing to see.
        if let Some(direct) = DirectFile::of(&cached) {
            let flags = rustix::fs::fcntl_getfl(direct.direct.lock().file.as_ref().unwrap());
            assert!(flags.unwrap().contains(rustix::fs::OFlags::DIRECT));
            writes_and_reads_agree(&cached, &direct);
        }
    }

    #[test]
    fn whoever_reads_meanwhile_sees_what_was_synced_and_fails_no_sync() {
        let dir = folder();
        let cached = real(dir.path());
        cached.write_at(&mut [IoSlice::new(&vec![0; FILE_BYTES])], 0).unwrap();
        cached.sync_data().unwrap();
        let Some(direct) = DirectFile::of(&cached) else { return };
        let rounds = 8;
        // How much of the file holds the number of this round; the rest holds that of the one before.
        let (synced, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let read_on = || {
            let mut bytes = vec![0; FILE_BYTES];
            while !done.load(Ordering::SeqCst) {
                let before = synced.load(Ordering::SeqCst);
                // Now and then from the disk, and what is still to be written with it.
                if before % 3 == 0 {
                    cached.drop_cache().unwrap();
                }
                cached.read_at(&mut bytes, 0).unwrap();
                let after = synced.load(Ordering::SeqCst);
                let (round, upto) = (before / FILE_BYTES, before % FILE_BYTES);
                if after / FILE_BYTES == round {
                    let new = bytes[..upto].iter().all(|byte| usize::from(*byte) == round + 1);
                    assert!(new, "round {round}, {upto} bytes");
                }
            }
        };
        std::thread::scope(|scope| {
            let readers = [(); 2].map(|()| scope.spawn(read_on));
            for at in (0..rounds * FILE_BYTES).step_by(BLOCK) {
                let bytes = [(at / FILE_BYTES) as u8 + 1; BLOCK];
                let written = direct
                    .write_at(&mut [IoSlice::new(&bytes)], (at % FILE_BYTES) as u64)
                    .and_then(|()| direct.sync_data());
                if written.is_err() {
                    done.store(true, Ordering::SeqCst);
                }
                written.unwrap();
                synced.store(at + BLOCK, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }

    #[test]
    fn a_renamed_file_stays_the_same_file() {
        let dir = folder();
        let cached = real(dir.path());
        std::fs::rename(dir.path().join("file"), dir.path().join("another")).unwrap();
        real(dir.path());
        if let Some(direct) = DirectFile::of(&cached) {
            direct.write_at(&mut [IoSlice::new(&[1; BLOCK])], 0).unwrap();
            assert_eq!(cached.len().unwrap(), BLOCK as u64);
        }
    }

    #[test]
    fn after_a_refusal_everything_goes_through_the_cache() {
        let dir = folder();
        let cached = real(dir.path());
        let refused = Direct { file: None, gathered: Vec::new() };
        let shared = RealFile(Arc::clone(&cached.0));
        writes_and_reads_agree(
            &cached,
            &DirectFile { cached: shared, direct: Mutex::new(refused) },
        );
    }

    #[test]
    fn a_refusal_that_only_a_write_finds_out_loses_nothing() {
        let dir = folder();
        let cached = real(dir.path());
        // The kernel calls anything but a small number here an invalid argument.
        let refusing = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap();
        let direct = Direct { file: Some(refusing), gathered: Vec::new() };
        let shared = RealFile(Arc::clone(&cached.0));
        let file = DirectFile { cached: shared, direct: Mutex::new(direct) };
        writes_and_reads_agree(&cached, &file);
        assert!(file.direct.lock().file.is_none());
    }

    #[test]
    fn an_error_that_is_no_refusal_is_the_writers() {
        let dir = folder();
        let cached = real(dir.path());
        let read_only = File::open(dir.path().join("file")).unwrap();
        let direct = Direct { file: Some(read_only), gathered: Vec::new() };
        let shared = RealFile(Arc::clone(&cached.0));
        let file = DirectFile { cached: shared, direct: Mutex::new(direct) };
        assert!(file.write_at(&mut [IoSlice::new(&[1; BLOCK])], 0).is_err());
        assert_eq!(cached.len().unwrap(), 0);
    }

    #[test]
    fn what_is_gathered_begins_on_a_block() {
        let mut into = Vec::new();
        for bytes in [BLOCK, 16 * BLOCK, 2 * BLOCK] {
            let all = vec![3; bytes];
            let (head, tail) = all.split_at(100);
            let from = gather(&[IoSlice::new(head), IoSlice::new(tail)], bytes, &mut into);
            assert!(into[from..] == all && into[from..].as_ptr().addr().is_multiple_of(BLOCK));
        }
    }
}
