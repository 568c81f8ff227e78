//! Callbacks: which one this thread is in, and the thread on which those of futures run.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::error::{IN_CALLBACK, failure};
use crate::future::Future;

thread_local! {
    static INSIDE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Futures whose callbacks are called at once.
const BATCH: usize = 1024;

/// From now on this thread is in a callback.
pub(crate) fn enter(what: &'static str) {
    INSIDE.set(Some(what));
}

/// From now on it is in none.
#[pyfunction]
pub(crate) fn leave() {
    INSIDE.set(None);
}

/// Refuses a blocking call inside a callback, where it would wait for itself.
pub(crate) fn may_block(py: Python<'_>) -> PyResult<()> {
    let Some(inside) = INSIDE.get() else { return Ok(()) };
    let message = format!(
        "a blocking call inside {inside} would wait for itself; use a future and its callback, or another thread"
    );
    Err(failure(py, IN_CALLBACK, &message))
}

/// Where futures of one node go that have ended and have callbacks. It lasts as long as the node or a future does.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Calls {
    give: Sender<Option<Py<Future>>>,
    take: Receiver<Option<Py<Future>>>,
    is_served: AtomicBool,
    /// Starts the thread that takes them.
    serve: Py<PyAny>,
}

#[pymethods]
impl Calls {
    /// `serve` is called with their queue, once, when the first callback waits.
    #[new]
    fn new(serve: Py<PyAny>) -> Self {
        let (give, take) = unbounded();
        Self { give, take, is_served: AtomicBool::new(false), serve }
    }
}

impl Calls {
    /// Has them served, unless they are already.
    pub(crate) fn wanted(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_served.swap(true, Ordering::Relaxed) {
            let (take, is_over) = (self.take.clone(), AtomicBool::new(false));
            self.serve.call1(py, (CallQueue { take, is_over },))?;
        }
        Ok(())
    }

    /// What tells when a future has ended.
    pub(crate) fn bell(&self, future: Py<Future>) -> Arc<Bell> {
        Arc::new(Bell { give: self.give.clone(), future: Mutex::new(Some(future)) })
    }

    /// Ends the thread that takes, once it has done what waits: no more will come.
    pub(crate) fn close(&self) {
        let _ = self.give.send(None);
    }
}

/// The other end, for the thread.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct CallQueue {
    take: Receiver<Option<Py<Future>>>,
    is_over: AtomicBool,
}

#[pymethods]
impl CallQueue {
    /// Waits for futures that have ended. `None` when no more will come.
    fn take(&self, py: Python<'_>) -> Option<Vec<Py<Future>>> {
        leave();
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let mut batch = vec![py.detach(|| self.take.recv()).ok()??];
        while batch.len() < BATCH {
            match self.take.try_recv() {
                Ok(Some(future)) => batch.push(future),
                Ok(None) => {
                    self.is_over.store(true, Ordering::Relaxed);
                    break;
                }
                Err(_) => break,
            }
        }
        enter("a callback of a future");
        Some(batch)
    }
}

/// A future's waker.
pub(crate) struct Bell {
    give: Sender<Option<Py<Future>>>,
    future: Mutex<Option<Py<Future>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(future) = self.future.lock().take() {
            let _ = self.give.send(Some(future));
        }
    }
}
