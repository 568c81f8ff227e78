//! Callbacks: which one this thread is in, and the thread on which those of futures run.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::error::{IN_CALLBACK, THREAD, failure};
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
    /// Until the node is closed.
    give: Mutex<Option<Sender<Py<Future>>>>,
    take: Receiver<Py<Future>>,
    is_served: AtomicBool,
    /// Starts the thread that takes them.
    serve: Py<PyAny>,
}

#[pymethods]
impl Calls {
    /// `serve` is called with a tuple of their queue, once, for the first callback. It runs no code of Python's itself.
    #[new]
    fn new(serve: Py<PyAny>) -> Self {
        let (give, take) = unbounded();
        Self { give: Mutex::new(Some(give)), take, is_served: AtomicBool::new(false), serve }
    }

    /// Whether the thread is there, or about to be. Once the node is closed it no longer changes to that.
    #[getter]
    fn is_served(&self) -> bool {
        let _open = self.give.lock();
        self.is_served.load(Ordering::Relaxed)
    }
}

impl Calls {
    /// What tells a thread, which is started if need be, that a future has ended. Once the node is closed each has a
    /// thread of its own.
    pub(crate) fn bell(&self, future: &Bound<'_, Future>) -> PyResult<Arc<Bell>> {
        let py = future.py();
        let (open, is_served) = {
            let open = self.give.lock();
            (open.clone(), open.is_some() && self.is_served.swap(true, Ordering::Relaxed))
        };
        let was_open = open.is_some();
        let (give, take) = open.map_or_else(unbounded, |give| (give, self.take.clone()));
        if !is_served {
            let queue = CallQueue { futures: take, is_nodes: was_open };
            self.serve.call1(py, ((queue,),)).map_err(|error| {
                if was_open {
                    self.is_served.store(false, Ordering::Relaxed);
                }
                let message = format!(
                    "no thread for callbacks of futures: {error}; raise the limit on threads and retry"
                );
                failure(py, THREAD, &message)
            })?;
        }
        Ok(Arc::new(Bell { give, future: Mutex::new(Some(future.clone().unbind())) }))
    }

    /// Ends the thread, once the last bell has rung.
    pub(crate) fn close(&self) {
        *self.give.lock() = None;
    }
}

/// The other end, for the thread.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct CallQueue {
    futures: Receiver<Py<Future>>,
    /// Whether it is for all the futures of the node, and not for one whose callback came after its end.
    #[pyo3(get)]
    is_nodes: bool,
}

#[pymethods]
impl CallQueue {
    /// Waits for futures that have ended. `None` when no more will come.
    fn take(&self, py: Python<'_>) -> Option<Vec<Py<Future>>> {
        leave();
        let mut batch = vec![py.detach(|| self.futures.recv()).ok()?];
        batch.extend(self.futures.try_iter().take(BATCH - 1));
        enter("a callback of a future");
        Some(batch)
    }
}

/// A future's waker. It rings once.
pub(crate) struct Bell {
    give: Sender<Py<Future>>,
    future: Mutex<Option<Py<Future>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(future) = self.future.lock().take() {
            let _ = self.give.send(future);
        }
    }
}
