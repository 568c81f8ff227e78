//! A call in flight, as Python sees it: a future of the library's own.
//!
//! It waits for the node's slot itself, so that between the event loop and a thread that blocks in `result`
//! there is nobody else, and an outcome becomes an object of Python's only when somebody looks at it. A future of
//! `concurrent.futures` takes a lock, a condition and a hand-over to another thread for each call.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use pyo3::exceptions::PyTimeoutError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use raftz_core::node::{NodeError, Pending};
use raftz_core::types::{self, Outcome, Reply};

use crate::callbacks::{self, Calls};
use crate::error;
use crate::fork::Origin;
use crate::machine::ReadCall;
use crate::wait;

/// How long a future outlasts its call's own deadline, by which the node answers.
const GRACE: Duration = Duration::from_millis(500);

/// A command that was committed and applied.
#[pyclass(frozen, module = "raftz", eq)]
#[derive(PartialEq)]
pub(crate) struct Done {
    reply: Bytes,
    /// Index of its entry.
    #[pyo3(get)]
    index: u64,
    /// Term of its entry.
    #[pyo3(get)]
    term: u64,
}

#[pymethods]
impl Done {
    /// What the state machine answered.
    #[getter]
    fn reply<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.reply)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let reply = self.reply(py).repr()?;
        Ok(format!("Done(reply={reply}, index={}, term={})", self.index, self.term))
    }
}

/// A call that is not over.
pub(crate) enum Waiting {
    One(Pending<Outcome>),
    Many(Pending<Vec<Outcome>>),
    Read(Pending<Result<Reply, NodeError>>),
}

/// How it ended.
#[derive(Clone)]
pub(crate) enum Answer {
    One(Outcome),
    Many(Vec<Outcome>),
    Read(Result<Reply, NodeError>),
}

impl Waiting {
    fn try_take(&mut self) -> Option<Answer> {
        match self {
            Self::One(pending) => pending.try_take().map(Answer::One),
            Self::Many(pending) => pending.try_take().map(Answer::Many),
            Self::Read(pending) => pending.try_take().map(Answer::Read),
        }
    }

    fn wait(&mut self, slice: Duration) -> Option<Answer> {
        match self {
            Self::One(pending) => pending.wait_timeout(slice).map(Answer::One),
            Self::Many(pending) => pending.wait_timeout(slice).map(Answer::Many),
            Self::Read(pending) => pending.wait_timeout(slice).map(Answer::Read),
        }
    }

    fn poll(&mut self, waker: &Waker) -> Option<Answer> {
        let mut context = Context::from_waker(waker);
        let answer = match self {
            Self::One(pending) => Pin::new(pending).poll(&mut context).map(Answer::One),
            Self::Many(pending) => Pin::new(pending).poll(&mut context).map(Answer::Many),
            Self::Read(pending) => Pin::new(pending).poll(&mut context).map(Answer::Read),
        };
        match answer {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

/// A call in flight.
#[pyclass(frozen, generic, weakref, module = "raftz")]
pub(crate) struct Future {
    /// Held by whoever waits, a slice at a time, so that nobody may lock it while attached.
    waiting: Mutex<Waiting>,
    /// How it ended, as soon as somebody has looked.
    ended: OnceLock<Answer>,
    /// What is to be called at the end, and was not yet.
    callbacks: Mutex<Vec<Py<PyAny>>>,
    /// What a read calls, and what came of that.
    call: Option<ReadCall>,
    calls: Py<Calls>,
    origin: Origin,
    ends: Instant,
}

#[pymethods]
impl Future {
    /// Waits for the end of the call and gives its result, or raises why there is none.
    ///
    /// Without a timeout it waits for as long as the call has, which is never for ever.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let answer = self.answer(py, timeout)?;
        self.read(py, answer)
    }

    /// Waits for the end of the call and gives the exception that it ended with, or None.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<PyErr>> {
        let answer = self.answer(py, timeout)?;
        Ok(self.read(py, answer).err())
    }

    /// Whether the call has ended. Never blocks.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        self.origin.check(py)?;
        // Whoever holds the lock is waiting.
        let look = |mut waiting: MutexGuard<'_, Waiting>| self.settle(waiting.try_take());
        Ok(self.ended.get().is_some() || self.waiting.try_lock().is_some_and(look))
    }

    /// Calls `callback` with this future when the call has ended, on the node's callback thread.
    fn add_done_callback(this: &Bound<'_, Self>, callback: Py<PyAny>) -> PyResult<()> {
        let (py, me) = (this.py(), this.get());
        me.origin.check(py)?;
        let bell = Waker::from(me.calls.get().bell(this)?);
        me.callbacks.lock().push(callback);
        let has_ended = py.detach(|| {
            let mut waiting = me.waiting.lock();
            me.ended.get().is_some() || me.settle(waiting.poll(&bell))
        });
        if has_ended {
            bell.wake();
        }
        Ok(())
    }

    /// The callbacks that are to be called now.
    fn _ended(this: &Bound<'_, Self>) -> Vec<Py<PyAny>> {
        let me = this.get();
        // Whoever waits is about to find the answer, too, and the callbacks must not come before that.
        this.py().detach(|| {
            let mut waiting = me.waiting.lock();
            me.settle(waiting.try_take())
        });
        std::mem::take(&mut *me.callbacks.lock())
    }

    /// What a read raised has a traceback, which may have the frame that has this future.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.calls)?;
        if let Some(callbacks) = self.callbacks.try_lock() {
            callbacks.iter().try_for_each(|callback| visit.call(callback))?;
        }
        self.call.as_ref().map_or(Ok(()), |call| call.traverse(&visit))
    }

    fn __clear__(&self) {
        let callbacks = self.callbacks.try_lock().map(|mut it| std::mem::take(&mut *it));
        // With no lock held: what goes may run code of Python's.
        drop(callbacks);
        if let Some(call) = &self.call {
            call.clear();
        }
    }
}

impl Future {
    pub(crate) fn new(
        waiting: Waiting,
        call: Option<ReadCall>,
        calls: Py<Calls>,
        origin: Origin,
        timeout: Duration,
    ) -> Self {
        let (waiting, callbacks) = (Mutex::new(waiting), Mutex::default());
        let ends = wait::after(timeout.saturating_add(GRACE));
        Self { waiting, ended: OnceLock::new(), callbacks, call, calls, origin, ends }
    }

    /// How the call ended, as soon as it has.
    fn answer(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Answer> {
        self.origin.check(py)?;
        if let Some(answer) = self.look(Duration::ZERO) {
            return Ok(answer);
        }
        callbacks::may_block(py)?;
        let end = match timeout {
            Some(timeout) => wait::after(wait::seconds(py, timeout)?).min(self.ends),
            None => self.ends,
        };
        if let Some(answer) = wait::in_slices(py, end, |slice| self.look(slice))? {
            return Ok(answer);
        }
        let message = match timeout {
            Some(timeout) if end < self.ends => format!(
                "the call has not ended within {timeout} s; it goes on, and can be waited for again"
            ),
            Some(_) | None => {
                "the node gave no answer by the call's deadline; its event loop does not run"
                    .to_owned()
            }
        };
        Err(PyTimeoutError::new_err(message))
    }

    /// Keeps an answer that was found, with `waiting` locked. Whether the call has ended.
    fn settle(&self, answer: Option<Answer>) -> bool {
        if let Some(answer) = answer {
            // Found once: whoever takes it from the node is alone.
            let _ = self.ended.set(answer);
        }
        self.ended.get().is_some()
    }

    /// The answer, if there is one within a slice.
    fn look(&self, slice: Duration) -> Option<Answer> {
        if self.ended.get().is_none() {
            let mut waiting = self.waiting.try_lock_for(slice)?;
            if !self.settle(waiting.try_take()) && !slice.is_zero() {
                self.settle(waiting.wait(slice));
            }
        }
        self.ended.get().cloned()
    }

    fn read(&self, py: Python<'_>, answer: Answer) -> PyResult<Py<PyAny>> {
        match (answer, &self.call) {
            (Answer::Read(Ok(_)), Some(call)) => call.value(py),
            (answer, _) => told(py, answer),
        }
    }
}

/// An answer as an object, or the exception that it stands for.
pub(crate) fn told(py: Python<'_>, answer: Answer) -> PyResult<Py<PyAny>> {
    match answer {
        Answer::One(outcome) => Ok(done(py, outcome)?.into_any()),
        Answer::Many(outcomes) => {
            let each = outcomes.into_iter().map(|outcome| match done(py, outcome) {
                Ok(done) => done.into_any(),
                Err(error) => error.into_value(py).into_any(),
            });
            Ok(PyList::new(py, each.collect::<Vec<_>>())?.into_any().unbind())
        }
        Answer::Read(Ok(Reply::Ok(bytes))) => Ok(PyBytes::new(py, &bytes).into_any().unbind()),
        Answer::Read(Ok(Reply::Rejected(reason))) => Err(error::of_rejection(py, &reason, None)),
        Answer::Read(Err(error)) => Err(error::of_node(py, &error)),
    }
}

fn done(py: Python<'_>, outcome: Outcome) -> PyResult<Py<Done>> {
    match outcome {
        Outcome::Done(types::Done { index, term, reply: Reply::Ok(reply) }) => {
            Py::new(py, Done { reply, index: index.0, term: term.0 })
        }
        Outcome::Done(rejected) => Err(error::of_rejected(py, &rejected)),
        Outcome::Refused(refusal) => Err(error::of_refusal(py, &refusal)),
        Outcome::Unknown(unknown) => Err(error::of_unknown(py, &unknown)),
    }
}
