//! Callbacks: which one this thread is in, and the thread on which those of futures run.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crossbeam_channel::{Receiver, Sender, unbounded};
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

/// The futures of one node that have ended and have callbacks.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct CallDesk {
    give: Sender<Option<Py<Future>>>,
    take: Receiver<Option<Py<Future>>>,
    is_served: AtomicBool,
    /// Starts the thread that serves this desk.
    serve: Py<PyAny>,
}

#[pymethods]
impl CallDesk {
    /// `serve` is called with the desk, once, when the first callback waits.
    #[new]
    fn new(serve: Py<PyAny>) -> Self {
        let (give, take) = unbounded();
        Self { give, take, is_served: AtomicBool::new(false), serve }
    }

    /// Waits for futures that have ended. `None` when no more will come.
    fn take(&self, py: Python<'_>) -> Option<Vec<Py<Future>>> {
        leave();
        let mut batch = vec![py.detach(|| self.take.recv()).ok()??];
        while batch.len() < BATCH {
            match self.take.try_recv() {
                Ok(Some(future)) => batch.push(future),
                // What else there is comes with the next batch, and the end after it.
                Ok(None) => {
                    let _ = self.give.send(None);
                    break;
                }
                Err(_) => break,
            }
        }
        enter("a callback of a future");
        Some(batch)
    }

    /// Ends the thread that serves it, once it has done what waits.
    pub(crate) fn close(&self) {
        let _ = self.give.send(None);
    }
}

impl CallDesk {
    /// Has it served, unless it is already.
    pub(crate) fn wanted(desk: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let this = desk.get();
        if !this.is_served.swap(true, Ordering::Relaxed) {
            this.serve.call1(py, (desk.clone_ref(py),))?;
        }
        Ok(())
    }

    /// What tells the desk when a future has ended.
    pub(crate) fn bell(&self, future: Py<Future>) -> Arc<Bell> {
        Arc::new(Bell { give: self.give.clone(), future: parking_lot::Mutex::new(Some(future)) })
    }
}

/// A future's waker.
pub(crate) struct Bell {
    give: Sender<Option<Py<Future>>>,
    future: parking_lot::Mutex<Option<Py<Future>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(future) = self.future.lock().take() {
            let _ = self.give.send(Some(future));
        }
    }
}
