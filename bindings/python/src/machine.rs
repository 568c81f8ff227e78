//! A state machine written in Python, behind the trait, and reads that call functions of their asker's.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use raftz_core::machine::{Command, MachineError, SnapshotView, StateMachine};
use raftz_core::types::{Index, Reply};

use crate::error::misuse;
use crate::jobs::{Asker, OwnCommand, Reported, Task};

/// The first byte of a request that is the user's own.
pub(crate) const BYTES: u8 = 1;
/// The first byte of a request that stands for a function.
const CALL: u8 = 0;

fn unexpected(what: &str) -> MachineError {
    MachineError(format!("{what} gave an answer to something else; please report this"))
}

/// The machine as its node sees it. Commands go to one thread of Python's, snapshots that are written to another.
pub(crate) struct PythonMachine {
    pub(crate) commands: Asker,
    pub(crate) snapshots: Asker,
}

impl StateMachine for PythonMachine {
    fn apply(&mut self, batch: &[Command], replies: &mut Vec<Reply>) -> Result<(), MachineError> {
        match self.commands.ask(Task::Apply(batch.iter().map(OwnCommand::from).collect()))? {
            Reported::Replies(mut given) => {
                replies.append(&mut given);
                Ok(())
            }
            Reported::Stopped(answered, why) => {
                // Nobody is told of them: their number says where it stopped.
                replies.resize(answered.min(batch.len()), Reply::Ok(Bytes::new()));
                Err(why)
            }
            Reported::Reply(_) | Reported::View(_) | Reported::Index(_) | Reported::Nothing => {
                Err(unexpected("apply"))
            }
        }
    }

    fn query(&self, request: &[u8]) -> Result<Reply, MachineError> {
        let request = Bytes::copy_from_slice(request);
        let Reported::Reply(reply) = self.commands.ask(Task::Query(request))? else {
            return Err(unexpected("query"));
        };
        Ok(reply)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotView>, MachineError> {
        let Reported::View(view) = self.commands.ask(Task::Capture)? else {
            return Err(unexpected("capture"));
        };
        Ok(Box::new(View { view: Some(view), snapshots: self.snapshots.clone() }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> Result<(), MachineError> {
        self.commands.restore(from).map(drop)
    }

    fn applied_index(&mut self) -> Result<Option<Index>, MachineError> {
        let Reported::Index(index) = self.commands.ask(Task::AppliedIndex)? else {
            return Err(unexpected("applied_index"));
        };
        Ok(index.map(Index))
    }
}

/// What was captured. Given back to Python to be written, and dropped there.
struct View {
    view: Option<Py<PyAny>>,
    snapshots: Asker,
}

impl SnapshotView for View {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let view = self.view.take();
        let view = view.ok_or_else(|| io::Error::other("what was captured was written already"))?;
        self.snapshots.write(view, out)
    }
}

/// Functions that were sent to the machine and have not been called. A node's reads go to its own machine, so
/// that a number stands for them on the way.
#[derive(Clone, Default)]
pub(crate) struct Reads(Arc<Registry>);

#[derive(Default)]
struct Registry {
    calls: Mutex<BTreeMap<u64, Weak<Call>>>,
    latest: AtomicU64,
}

/// A function that is to be called with the machine, and what came of it.
#[derive(Clone)]
pub(crate) struct ReadCall(Arc<Call>);

struct Call {
    /// Until it is called.
    function: Mutex<Option<Py<PyAny>>>,
    value: Mutex<Option<Value>>,
    number: u64,
    registry: Arc<Registry>,
}

enum Value {
    Returned(Py<PyAny>),
    Raised(Py<PyAny>),
}

impl Drop for Call {
    fn drop(&mut self) {
        self.registry.calls.lock().remove(&self.number);
    }
}

impl Reads {
    /// A function to be called, and the request that stands for it. Nobody's once it is dropped.
    pub(crate) fn add(&self, function: Py<PyAny>) -> (ReadCall, Bytes) {
        let number = self.0.latest.fetch_add(1, Ordering::Relaxed) + 1;
        let registry = Arc::clone(&self.0);
        let function = Mutex::new(Some(function));
        let call = Arc::new(Call { function, value: Mutex::new(None), number, registry });
        self.0.calls.lock().insert(number, Arc::downgrade(&call));
        let mut request = BytesMut::with_capacity(9);
        request.put_u8(CALL);
        request.put_u64_le(number);
        (ReadCall(call), request.freeze())
    }

    /// The function that a request stands for.
    pub(crate) fn wanted_by(&self, request: &[u8]) -> Option<ReadCall> {
        let (&CALL, number) = request.split_first()? else { return None };
        let number = u64::from_le_bytes(number.try_into().ok()?);
        let call = self.0.calls.lock().remove(&number)?;
        call.upgrade().map(ReadCall)
    }
}

impl ReadCall {
    /// The function, once: what it has in its cells need not outlast it.
    pub(crate) fn function(&self) -> PyResult<Py<PyAny>> {
        self.0.function.lock().take().ok_or_else(|| misuse("the function was called already"))
    }

    /// Keeps what it returned.
    pub(crate) fn returned(&self, value: Py<PyAny>) {
        self.end(Value::Returned(value));
    }

    /// Keeps what it raised.
    pub(crate) fn raised(&self, error: Py<PyAny>) {
        self.end(Value::Raised(error));
    }

    fn end(&self, value: Value) {
        let before = self.0.value.lock().replace(value);
        drop(before);
    }

    /// What it returned, or raised.
    pub(crate) fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let value = match &*self.0.value.lock() {
            Some(Value::Returned(value)) => Ok(value.clone_ref(py)),
            Some(Value::Raised(error)) => Err(error.clone_ref(py)),
            None => return Err(misuse("the function was not called")),
        };
        value.map_err(|error| PyErr::from_value(error.into_bound(py)))
    }

    /// Shows the garbage collector what this holds, for the only one who has it: what a job has, too, is needed.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if Arc::strong_count(&self.0) > 1 {
            return Ok(());
        }
        if let Some(function) = self.0.function.try_lock() {
            visit.call(&*function)?;
        }
        match self.0.value.try_lock().as_deref() {
            Some(Some(Value::Returned(value) | Value::Raised(value))) => visit.call(value),
            Some(None) | None => Ok(()),
        }
    }

    /// Lets it go, for the same.
    pub(crate) fn clear(&self) {
        if Arc::strong_count(&self.0) > 1 {
            return;
        }
        let function = self.0.function.try_lock().and_then(|mut it| it.take());
        let value = self.0.value.try_lock().and_then(|mut it| it.take());
        // With no lock held: what goes may run code of Python's.
        drop((function, value));
    }
}
