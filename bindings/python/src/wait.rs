//! How Python waits: detached, so that other threads run, and in slices, so that Ctrl-C is noticed.
#![allow(clippy::disallowed_methods, reason = "a caller's own waiting, outside the node's runtime")]

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use nix::sys::signal::{SigSet, SigmaskHow};
use pyo3::prelude::*;

use crate::error::{INVALID_ARG, PANIC, THREAD, failure};

/// How long a signal may go unnoticed.
const SLICE: Duration = Duration::from_millis(50);
/// The longest time that is waited for anything: 49 days.
const LONGEST: Duration = Duration::from_millis(u32::MAX as u64);

/// A time in seconds, as Python's habit is; at most 49 days.
pub(crate) fn seconds(py: Python<'_>, timeout: f64) -> PyResult<Duration> {
    if timeout.is_nan() || timeout < 0.0 {
        let message = format!("timeout = {timeout}: a number of seconds of 0 or more is wanted");
        return Err(failure(py, INVALID_ARG, &message));
    }
    Ok(Duration::try_from_secs_f64(timeout).unwrap_or(LONGEST).min(LONGEST))
}

/// A moment so long from now.
pub(crate) fn after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now)
}

/// Has `look` wait, again and again, for at most the time that it is given. `None` if it had found nothing by
/// `end`.
pub(crate) fn in_slices<T: Send>(
    py: Python<'_>,
    end: Instant,
    mut look: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Some(found) = py.detach(|| look(left.min(SLICE))) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Runs a blocking call of the library, which ends by itself, on a thread of its own, and waits for it. If a
/// signal handler raises meanwhile the call goes on, with nobody to tell.
pub(crate) fn blocking<T: Send + 'static>(
    py: Python<'_>,
    call: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (give, take) = bounded(1);
    // As all threads of the library, it takes no signals. It inherits its maker's mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let spawned = std::thread::Builder::new().name("raftz-wait".into()).spawn(move || {
        // Nobody listens any more after an interrupt.
        let _ = give.send(call());
    });
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    if let Err(error) = spawned {
        let message =
            format!("no thread to wait on: {error}; raise the limit on threads and retry");
        return Err(failure(py, THREAD, &message));
    }
    loop {
        match py.detach(|| take.recv_timeout(SLICE)) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(raised) = py.check_signals() {
                    // With a value in it, perhaps, that must not end while this thread is attached.
                    py.detach(|| drop(take));
                    return Err(raised);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(failure(py, PANIC, "the library failed inside; please report this"));
            }
        }
    }
}
