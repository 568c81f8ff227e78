//! What a node's threads ask of Python, and how it is answered.
//!
//! A thread of the node puts a job into a queue and waits for its answer, holding nothing; a thread of
//! Python's takes it, does it, and answers. If that thread has ended, or lets a job fall, the answer is that it
//! failed. While the node's thread waits it also lends its stream: a snapshot is read and written by that thread
//! alone, piece by piece, as Python asks for.

use std::io::{self, Read, Write};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use raftz_core::machine::{Command, MachineError};
use raftz_core::types::Reply;

use crate::callbacks;
use crate::error::misuse;
use crate::machine::{ReadCall, Reads};
use crate::node::bytes_of;

/// Snapshots pass in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// A command, for a job that may outlive the call in which the node gave it.
pub(crate) struct OwnCommand {
    index: u64,
    term: u64,
    log_time_us: u64,
    payload: Bytes,
}

impl From<&Command<'_>> for OwnCommand {
    fn from(command: &Command<'_>) -> Self {
        let Command { index, term, log_time_us, payload } = *command;
        Self { index: index.0, term: term.0, log_time_us, payload: payload.clone() }
    }
}

/// What there is to do.
pub(crate) enum Task {
    AppliedIndex,
    Apply(Vec<OwnCommand>),
    Query(Bytes),
    Capture,
    /// Somebody hands out the snapshot's pieces.
    Restore(Receiver<Result<Bytes, String>>),
    /// Somebody takes the pieces of what was captured.
    Write(Py<PyAny>, Sender<Bytes>),
}

impl Task {
    /// Its name for Python, and in words.
    const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::AppliedIndex => ("applied_index", "the state machine's applied_index"),
            Self::Apply(_) => ("apply", "the state machine's apply"),
            Self::Query(_) => ("query", "a read of the state machine"),
            Self::Capture => ("capture", "the state machine's capture"),
            Self::Restore(_) => ("restore", "the state machine's restore"),
            Self::Write(..) => ("write_snapshot", "the state machine's write_snapshot"),
        }
    }
}

/// What came of it.
pub(crate) enum Reported {
    Nothing,
    Index(Option<u64>),
    Replies(Vec<Reply>),
    /// So many commands were carried out, and the next one failed.
    Stopped(usize, MachineError),
    Reply(Reply),
    View(Py<PyAny>),
}

type Ended = Result<Reported, MachineError>;

/// A task and who waits for it.
pub(crate) struct Order {
    task: Task,
    answer: Sender<Ended>,
}

/// The node's end of a queue.
#[derive(Clone)]
pub(crate) struct Asker(Sender<Order>);

fn gone() -> MachineError {
    MachineError("the Python thread that serves the state machine has ended".into())
}

impl Asker {
    fn send(&self, task: Task) -> Result<Receiver<Ended>, MachineError> {
        let (answer, ended) = bounded(1);
        self.0.send(Order { task, answer }).map_err(|_| gone())?;
        Ok(ended)
    }

    /// Has a task done.
    pub(crate) fn ask(&self, task: Task) -> Ended {
        self.send(task)?.recv().map_err(|_| gone())?
    }

    /// Has the machine restored from a stream.
    pub(crate) fn restore(&self, from: &mut dyn Read) -> Ended {
        let (give, pieces) = bounded(1);
        let ended = self.send(Task::Restore(pieces))?;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = from.read(&mut piece).map_err(|error| error.to_string());
            let is_last = !matches!(read, Ok(1..));
            let piece = read.map(|count| {
                piece.truncate(count);
                Bytes::from(piece)
            });
            select! {
                // Who has heard enough does not listen.
                send(give, piece) -> sent => if sent.is_err() || is_last { break },
                recv(ended) -> ended => return ended.map_err(|_| gone())?,
            }
        }
        ended.recv().map_err(|_| gone())?
    }

    /// Has what was captured written to a stream.
    pub(crate) fn write(&self, view: Py<PyAny>, out: &mut dyn Write) -> io::Result<()> {
        let (give, pieces) = bounded::<Bytes>(1);
        let ended = self.send(Task::Write(view, give)).map_err(io::Error::other)?;
        let ended = loop {
            select! {
                recv(pieces) -> piece => match piece {
                    Ok(piece) => out.write_all(&piece)?,
                    Err(_) => break ended.recv(),
                },
                // The last piece was handed over before.
                recv(ended) -> ended => {
                    pieces.try_iter().try_for_each(|piece| out.write_all(&piece))?;
                    break ended;
                }
            }
        };
        ended.map_err(|_| gone()).and_then(|ended| ended).map(drop).map_err(io::Error::other)
    }
}

/// Python's end of a queue.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Jobs {
    orders: Receiver<Order>,
    give: Mutex<Option<Sender<Order>>>,
    pub(crate) reads: Reads,
}

#[pymethods]
impl Jobs {
    #[new]
    fn new() -> Self {
        let (give, orders) = unbounded();
        Self { orders, give: Mutex::new(Some(give)), reads: Reads::default() }
    }

    /// Waits for the next job. `None` when there will be no more.
    fn take(&self, py: Python<'_>) -> Option<Job> {
        callbacks::leave();
        let Order { task, answer } = py.detach(|| self.orders.recv()).ok()?;
        let (mut kind, inside) = task.names();
        callbacks::enter(inside);
        let call = match &task {
            Task::Query(request) => self.reads.wanted_by(request),
            Task::AppliedIndex
            | Task::Apply(_)
            | Task::Capture
            | Task::Restore(_)
            | Task::Write(..) => None,
        };
        if call.is_some() {
            kind = "call";
        }
        Some(Job { kind, task: Mutex::new(Some(task)), call, answer: Mutex::new(Some(answer)) })
    }

    /// Ends the wait of whoever takes, if the node was never started.
    fn close(&self) {
        drop(self.asker());
    }
}

impl Jobs {
    /// The node's end; there is one.
    pub(crate) fn asker(&self) -> Option<Asker> {
        self.give.lock().take().map(Asker)
    }
}

/// One committed command, in log order.
#[pyclass(frozen, get_all, module = "raftz")]
pub(crate) struct Entry {
    /// Index of its entry. Indexes grow but have gaps: not every entry is a command.
    index: u64,
    /// Term of its entry.
    term: u64,
    /// The cluster's clock when it was appended, in microseconds; never decreases.
    log_time_us: u64,
    /// The bytes that were proposed.
    data: Py<PyBytes>,
}

#[pymethods]
impl Entry {
    /// An entry, for tests of state machines.
    #[new]
    #[pyo3(signature = (index, data, term=1, log_time_us=0))]
    fn new(index: u64, data: Py<PyBytes>, term: u64, log_time_us: u64) -> Self {
        Self { index, term, log_time_us, data }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Self { index, term, log_time_us, data } = self;
        let data = data.bind(py).repr()?;
        Ok(format!("Entry(index={index}, data={data}, term={term}, log_time_us={log_time_us})"))
    }
}

/// Something to do for a node.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Job {
    /// What it is.
    #[pyo3(get)]
    kind: &'static str,
    task: Mutex<Option<Task>>,
    /// What to call, if it is a read of that kind.
    call: Option<ReadCall>,
    answer: Mutex<Option<Sender<Ended>>>,
}

#[pymethods]
impl Job {
    /// What it is about: entries, a request, a function of the asker's, a reader, a view and a writer.
    fn subject(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(call) = &self.call {
            return call.function();
        }
        let task = self.task.lock().take();
        match task {
            Some(Task::Apply(commands)) => {
                let entry = |command: OwnCommand| Entry {
                    index: command.index,
                    term: command.term,
                    log_time_us: command.log_time_us,
                    data: PyBytes::new(py, &command.payload).unbind(),
                };
                let entries = commands.into_iter().map(|command| Py::new(py, entry(command)));
                let entries = entries.collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, entries)?.into_any().unbind())
            }
            Some(Task::Query(request)) => {
                Ok(PyBytes::new(py, request.get(1..).unwrap_or_default()).into_any().unbind())
            }
            Some(Task::Restore(pieces)) => {
                let state = Mutex::new((Bytes::new(), false));
                Ok(Py::new(py, SnapshotReader { pieces, state })?.into_any())
            }
            Some(Task::Write(view, give)) => {
                let state = Mutex::new((Vec::new(), Some(give)));
                let writer = Py::new(py, SnapshotWriter { state })?;
                Ok((view, writer).into_pyobject(py)?.into_any().unbind())
            }
            Some(Task::AppliedIndex | Task::Capture) | None => Ok(py.None()),
        }
    }

    /// Gives its asker what the function returned.
    fn returned(&self, value: Py<PyAny>) -> PyResult<()> {
        self.called(|call| call.returned(value))
    }

    /// Gives its asker what the function raised.
    fn raised(&self, error: Py<PyAny>) -> PyResult<()> {
        self.called(|call| call.raised(error))
    }

    /// Answers it.
    fn done(&self, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        let answer = match self.kind {
            "apply" => {
                let mut replies = Vec::new();
                for each in answer.try_iter()? {
                    replies.push(reply(&each?, "apply")?);
                }
                Reported::Replies(replies)
            }
            "query" => Reported::Reply(reply(answer, "query")?),
            "capture" => Reported::View(answer.clone().unbind()),
            "applied_index" => Reported::Index(answer.extract()?),
            _ => Reported::Nothing,
        };
        self.end(Ok(answer));
        Ok(())
    }

    /// Says that it failed, and why; of commands, after how many that were carried out.
    #[pyo3(signature = (why, answered=0))]
    fn fail(&self, why: String, answered: usize) {
        let why = MachineError(why);
        self.end(if self.kind == "apply" {
            Ok(Reported::Stopped(answered, why))
        } else {
            Err(why)
        });
    }
}

impl Job {
    fn called(&self, end: impl FnOnce(&ReadCall)) -> PyResult<()> {
        end(self.call.as_ref().ok_or_else(|| misuse("the job is no call"))?);
        self.end(Ok(Reported::Reply(Reply::Ok(Bytes::new()))));
        Ok(())
    }

    fn end(&self, ended: Ended) {
        if let Some(answer) = self.answer.lock().take() {
            let _ = answer.send(ended);
        }
    }
}

/// What a machine answered: bytes, nothing, or the exception that turns a command down.
fn reply(answer: &Bound<'_, PyAny>, what: &str) -> PyResult<Reply> {
    if answer.is_none() {
        return Ok(Reply::Ok(Bytes::new()));
    }
    if let Ok(bytes) = answer.cast::<PyBytes>() {
        return Ok(Reply::Ok(Bytes::copy_from_slice(bytes.as_bytes())));
    }
    if crate::error::is_rejection(answer)? {
        return Ok(Reply::Rejected(bytes_of(&answer.getattr("reason")?)?));
    }
    bytes_of(answer).map(Reply::Ok).map_err(|_| {
        let kind = answer.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "{what} returned {kind}; bytes or None are wanted, alike on every node"
        ))
    })
}

/// The bytes of a snapshot, from the front.
#[pyclass(frozen, module = "raftz")]
pub(crate) struct SnapshotReader {
    pieces: Receiver<Result<Bytes, String>>,
    /// What was not read yet of the latest piece, and whether there are no more.
    state: Mutex<(Bytes, bool)>,
}

#[pymethods]
impl SnapshotReader {
    /// Reads at most `size` bytes, or all that is left; fewer only at the end.
    #[pyo3(signature = (size=-1))]
    fn read<'py>(&self, py: Python<'py>, size: isize) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = usize::try_from(size).unwrap_or(usize::MAX);
        let read = py.detach(|| {
            let mut state = self.state.lock();
            let mut all = Vec::new();
            while all.len() < wanted {
                if state.0.is_empty() {
                    if state.1 {
                        break;
                    }
                    match self.pieces.recv() {
                        Ok(Ok(piece)) if !piece.is_empty() => state.0 = piece,
                        Ok(Ok(_)) => state.1 = true,
                        Ok(Err(error)) => return Err(error),
                        Err(_) => return Err("nobody waits for it any more".to_owned()),
                    }
                    continue;
                }
                let count = state.0.len().min(wanted - all.len());
                all.extend_from_slice(&state.0.split_to(count));
            }
            Ok(all)
        });
        let all = read
            .map_err(|error| PyOSError::new_err(format!("the snapshot cannot be read: {error}")))?;
        Ok(PyBytes::new(py, &all))
    }
}

/// Takes the bytes of a snapshot.
#[pyclass(frozen, module = "raftz")]
pub(crate) struct SnapshotWriter {
    /// What was not handed over yet, and to whom.
    state: Mutex<(Vec<u8>, Option<Sender<Bytes>>)>,
}

#[pymethods]
impl SnapshotWriter {
    /// Writes bytes, all of them.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let bytes = bytes_of(data)?;
        py.detach(|| {
            let mut state = self.state.lock();
            if state.0.len() + bytes.len() < PIECE_BYTES {
                state.0.extend_from_slice(&bytes);
                return Ok(());
            }
            // What is large already is not copied again.
            Self::hand_over(&mut state)?;
            Self::give(&state, bytes.clone())
        })
        .map_err(|()| {
            PyOSError::new_err("the snapshot is not wanted any more, or the disk failed")
        })?;
        Ok(bytes.len())
    }

    /// Hands over what is left, and ends.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let mut state = self.state.lock();
            let handed = Self::hand_over(&mut state);
            state.1 = None;
            handed
        })
        .map_err(|()| PyOSError::new_err("the snapshot is not wanted any more, or the disk failed"))
    }
}

impl SnapshotWriter {
    fn hand_over(state: &mut (Vec<u8>, Option<Sender<Bytes>>)) -> Result<(), ()> {
        let piece = Bytes::from(std::mem::take(&mut state.0));
        Self::give(state, piece)
    }

    fn give(state: &(Vec<u8>, Option<Sender<Bytes>>), piece: Bytes) -> Result<(), ()> {
        if piece.is_empty() {
            return Ok(());
        }
        state.1.as_ref().ok_or(())?.send(piece).map_err(|_| ())
    }
}
