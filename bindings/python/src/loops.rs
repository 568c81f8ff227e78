//! Answers on their way to an event loop of asyncio.
//!
//! The node's callback thread leaves an answer on the loop's desk and, if the desk was empty, wakes the loop
//! through a descriptor that it watches: one write for as many answers as come until the loop runs, and no
//! interpreter on the way. A loop that was closed meanwhile watches nothing, and nobody minds.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use crate::error::{THREAD, failure_of_system};
use crate::fork::Origin;
use crate::future::{Answer, told};
use crate::machine::ReadCall;

/// A future, what it calls if it is a read of that kind, and how its call ended.
type Answered = (Py<PyAny>, Option<ReadCall>, Answer);

/// The same as Python ends it: the future, its result, or the exception instead.
type Told = (Py<PyAny>, Option<Py<PyAny>>, Option<Py<PyAny>>);

struct Desk {
    bell: OwnedFd,
    answers: Mutex<Vec<Answered>>,
}

impl Desk {
    fn ring(&self) {
        // A bell that has been rung as often as it can be still rings.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// The answers for the futures of one loop.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct LoopDesk {
    desk: Arc<Desk>,
    origin: Origin,
}

#[pymethods]
impl LoopDesk {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            let what = "no descriptor to wake an event loop with; raise the limit on open files";
            failure_of_system(py, THREAD, what, &error.into())
        })?;
        let desk = Arc::new(Desk { bell, answers: Mutex::default() });
        Ok(Self { desk, origin: Origin::here() })
    }

    /// What the loop is to watch for reading.
    fn fileno(&self) -> i32 {
        self.desk.bell.as_raw_fd()
    }

    /// The futures whose answers are there. Called by the loop, which ends them.
    fn take(&self, py: Python<'_>) -> Vec<Told> {
        if self.origin.is_elsewhere() {
            return Vec::new();
        }
        let _ = read(&self.desk.bell, &mut [0_u8; 8]);
        let answers = std::mem::take(&mut *self.desk.answers.lock());
        let shown = answers.into_iter().map(|(future, call, answer)| {
            let told = match (answer, call) {
                (Answer::Read(Ok(_)), Some(call)) => call.value(py),
                (answer, _) => told(py, answer),
            };
            match told {
                Ok(value) => (future, Some(value), None),
                Err(error) => (future, None, Some(error.into_value(py).into_any())),
            }
        });
        shown.collect()
    }
}

/// Where the answer for one future goes. The node has it, and whoever asks the node, who needs it if that refuses.
#[derive(Clone)]
pub(crate) struct Seat {
    desk: Arc<Desk>,
    future: Arc<Mutex<Option<Py<PyAny>>>>,
    call: Option<ReadCall>,
}

impl LoopDesk {
    pub(crate) fn seat(&self, future: Py<PyAny>, call: Option<ReadCall>) -> Seat {
        let future = Arc::new(Mutex::new(Some(future)));
        Seat { desk: Arc::clone(&self.desk), future, call }
    }
}

impl Seat {
    /// Leaves the answer on the desk, unless there was one. Without the interpreter.
    pub(crate) fn give(self, answer: Answer) {
        let Some(future) = self.future.lock().take() else { return };
        let mut answers = self.desk.answers.lock();
        let was_empty = answers.is_empty();
        answers.push((future, self.call, answer));
        drop(answers);
        if was_empty {
            self.desk.ring();
        }
    }
}

/// Loops that want to know when there may be events.
#[derive(Default)]
pub(crate) struct Nudges {
    count: AtomicUsize,
    desks: Mutex<Vec<Weak<Desk>>>,
}

impl Nudges {
    /// Wakes them.
    pub(crate) fn ring(&self) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut desks = self.desks.lock();
        desks.retain(|desk| {
            desk.upgrade().is_some_and(|desk| {
                desk.ring();
                true
            })
        });
        self.count.store(desks.len(), Ordering::Release);
    }

    /// Another one.
    pub(crate) fn add(&self, desk: &LoopDesk) {
        let mut desks = self.desks.lock();
        desks.push(Arc::downgrade(&desk.desk));
        self.count.store(desks.len(), Ordering::Release);
    }
}
