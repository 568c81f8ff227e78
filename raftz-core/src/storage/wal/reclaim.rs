//! Segments that nobody needs any more are removed, beside the log lane.
//!
//! The oldest goes first, and the directory is synced before the next one goes: whatever a power cut
//! leaves is a row of segments without a gap, and a gap is how a lost segment is found. Whoever asks
//! answers for it that the segments which stay state everything, durably. A removal that fails is
//! tried again when somebody asks the next time, after the next open at the latest. A failed sync of
//! the directory leaves nobody sure of what it holds, so then nothing is removed until that open.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::files::segment_name;
use crate::storage::vfs::{Job, Vfs};

struct State {
    /// No segment below this one is left.
    oldest: u64,
    /// Segments below this one are to go.
    needed: u64,
    underway: bool,
    /// Whether the directory could not be synced.
    unsure: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Removes old segments.
pub(super) struct Reclaimer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    state: Shared,
}

/// The helper's task, until it is done. Whatever becomes of it, nobody waits for it afterwards.
struct Task(Option<Shared>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.0.lock().underway = false;
            shared.1.notify_all();
        }
    }
}

impl Task {
    fn run(mut self, vfs: &dyn Vfs, dir: &Path) {
        while let Some(shared) = &self.0 {
            let mut state = shared.0.lock();
            if state.oldest >= state.needed || state.unsure {
                // Under the lock: a wish that comes now must find that nobody is at it.
                state.underway = false;
                shared.1.notify_all();
                drop(state);
                self.0 = None;
                return;
            }
            let number = state.oldest;
            drop(state);
            match vfs.unlink(&dir.join(segment_name(number))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return,
                Ok(()) | Err(_) => {}
            }
            let synced = vfs.sync_dir(dir);
            let mut state = shared.0.lock();
            match synced {
                Ok(()) => state.oldest = number + 1,
                Err(_) => state.unsure = true,
            }
        }
    }
}

impl Reclaimer {
    /// Nothing is removed yet; `oldest` is the oldest segment that is there.
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, oldest: u64) -> Self {
        let state = State { oldest, needed: 0, underway: false, unsure: false };
        Self { vfs, dir, state: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Has every segment below `needed` removed.
    pub(super) fn want(&self, needed: u64) {
        {
            let mut state = self.state.0.lock();
            state.needed = state.needed.max(needed);
            if state.underway || state.unsure || state.oldest >= state.needed {
                return;
            }
            state.underway = true;
        }
        let task = Task(Some(self.state.clone()));
        let (vfs, dir) = (self.vfs.clone(), self.dir.clone());
        let job: Job = Box::new(move || task.run(vfs.as_ref(), &dir));
        // Where it cannot be started the job is dropped, and with it the task.
        let _ = self.vfs.background(job);
    }
}

impl Drop for Reclaimer {
    // The helper works in a directory whose lock is about to be released.
    fn drop(&mut self) {
        let mut state = self.state.0.lock();
        // What is not yet removed can wait for the next open.
        state.needed = 0;
        while state.underway {
            self.state.1.wait(&mut state);
        }
    }
}
