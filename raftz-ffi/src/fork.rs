//! Whether the process was forked since. A child has the parent's memory and none of its threads.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::error::Failure;
use crate::guard::Call;
use crate::status::{RAFTZ_FORKED, RAFTZ_THREAD};

const PARENT: u32 = 0x7061_7265;

/// A page that the kernel gives to a child as zeros. To look at it costs one load, where asking for the
/// process id would be a system call.
#[derive(Debug)]
pub(crate) struct ForkMark {
    page: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: the page is only ever read after it was made, and atomically.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// A mark of this process.
    pub(crate) fn new() -> Call<Self> {
        let failed = || {
            let error = std::io::Error::last_os_error();
            Failure::of_system(RAFTZ_THREAD, "no memory for the fork mark", &error)
        };
        // SAFETY: asks for a constant of the system.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let bytes = usize::try_from(bytes).unwrap_or(4096);
        // SAFETY: a new private page; no memory of ours is touched.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(failed());
        }
        let mark = Self { page, bytes };
        // SAFETY: the page is ours.
        if unsafe { libc::madvise(page, bytes, libc::MADV_WIPEONFORK) } != 0 {
            return Err(failed());
        }
        mark.word().store(PARENT, Ordering::Relaxed);
        Ok(mark)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as this lives, aligned, and used for nothing else.
        unsafe { &*self.page.cast::<AtomicU32>() }
    }

    /// Whether this is a child of the process that made it.
    pub(crate) fn is_child(&self) -> bool {
        self.word().load(Ordering::Relaxed) != PARENT
    }

    /// Refuses a call in a child.
    pub(crate) fn check(&self) -> Call {
        if self.is_child() {
            let message = "the process was forked after this handle was made, and the child has none of its threads; fork before nodes and queues are made, or exec in the child";
            return Err(Failure::new(RAFTZ_FORKED, message));
        }
        Ok(())
    }
}

/// The process that has nodes, or had the last ones, and how many.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static NODES: AtomicUsize = AtomicUsize::new(0);

/// A node that counts, as long as this lives.
#[derive(Debug)]
pub(crate) struct Resident(());

impl Resident {
    /// Counts a node; refused in a child of a process that had nodes when it was forked. Their threads are not here,
    /// and what they were waiting for, or held, is in a state that nobody mends.
    pub(crate) fn new() -> Call<Self> {
        let me = std::process::id();
        if PROCESS.load(Ordering::Relaxed) != me {
            if NODES.load(Ordering::Relaxed) > 0 {
                let message = "the process was forked while it had nodes, and the child can have none; fork before nodes are started or after they were freed, or exec in the child";
                return Err(Failure::new(RAFTZ_FORKED, message));
            }
            PROCESS.store(me, Ordering::Relaxed);
        }
        NODES.fetch_add(1, Ordering::Relaxed);
        Ok(Self(()))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        NODES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a reference any more.
        unsafe { libc::munmap(self.page, self.bytes) };
    }
}
