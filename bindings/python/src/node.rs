//! The node's handle as the Python half sees it: bytes in, futures and plain values out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use raftz_core::machine::{CountingMachine, KvStore, MachineError, StateMachine};
use raftz_core::node::{self, NodeError, ProposeOptions, ReadOptions};
use raftz_core::types::{EventKind, EventKinds, Index, Outcome, ReadLevel, Term};

use crate::callbacks::{self, Calls};
use crate::config::{Config, Listener, node_id_of, number_of};
use crate::error::{self, INVALID_ARG, failure, misuse};
use crate::events::{self, Subscription};
use crate::fork::{self, Living, Origin};
use crate::future::{Answer, Future, Waiting};
use crate::jobs::Jobs;
use crate::logs::Lines;
use crate::loops::{LoopDesk, Nudges};
use crate::machine::{BYTES, PythonMachine, Reads};
use crate::told;
use crate::wait::{self, seconds};

/// The bytes of anything that gives them: copied, for the interpreter may be gone before they are. Where there is no
/// memory for that it is Python's to say so: a vector that grows by itself would end the process.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        let mut copy = room(bytes.as_bytes().len())?;
        copy.extend_from_slice(bytes.as_bytes());
        return Ok(copy.into());
    }
    let buffer = PyBuffer::<u8>::get(object).map_err(|_| {
        let kind = object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        PyTypeError::new_err(format!("bytes, or something like them, are wanted, not {kind}"))
    })?;
    let mut copy = room(buffer.item_count())?;
    copy.resize(buffer.item_count(), 0);
    buffer.copy_to_slice(object.py(), &mut copy)?;
    Ok(copy.into())
}

/// Room for so many bytes.
fn room(bytes: usize) -> PyResult<Vec<u8>> {
    let mut room = Vec::new();
    let reserved = room.try_reserve_exact(bytes);
    let full = |_| PyMemoryError::new_err(format!("no memory for a copy of {bytes} bytes"));
    reserved.map(|()| room).map_err(full)
}

/// A running node.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Node {
    /// There until this object goes.
    node: Option<Arc<node::Node>>,
    origin: Origin,
    calls: Py<Calls>,
    /// Functions on their way to the machine, if that is Python's.
    reads: Option<Reads>,
    nudges: Arc<Nudges>,
    /// Until it is closed.
    living: Mutex<Option<Living>>,
    limits: Limits,
    propose_timeout: Duration,
    read_timeout: Duration,
}

/// What the node takes, so that what it does not take is not copied.
#[derive(Clone, Copy)]
struct Limits {
    command_bytes: u64,
    batch_bytes: u64,
}

#[pymethods]
impl Node {
    /// Starts a node. `machine` is "kv" or "counter", or the two queues of a machine in Python.
    #[new]
    #[pyo3(signature = (config, machine, calls, listener=None))]
    fn new(
        py: Python<'_>,
        config: &Config,
        machine: &Bound<'_, PyAny>,
        calls: Py<Calls>,
        listener: Option<Py<Listener>>,
    ) -> PyResult<Self> {
        fork::may_start(py)?;
        callbacks::may_block(py)?;
        let mut config = config.0.lock().clone();
        let nudges = Arc::new(Nudges::default());
        let theirs = Arc::clone(&nudges);
        config.on_event = Some(Arc::new(move |_, _| theirs.ring()));
        let (make, reads) = machine_of(machine)?;
        let taken = |listener: Py<Listener>| {
            let taken = listener.get().take();
            let message = "listener: it was closed, or given to another node";
            taken.ok_or_else(|| failure(py, INVALID_ARG, message))
        };
        let listener = listener.map(taken).transpose()?;
        let limits =
            Limits { command_bytes: config.entry_bytes_max, batch_bytes: config.calls_bytes_max };
        let propose_timeout = Duration::from_millis(config.propose_timeout_ms);
        let read_timeout = Duration::from_millis(config.read_timeout_ms);
        let living = Living::begin();
        let started = wait::blocking(py, move || {
            let dispatch = tracing::Dispatch::new(Lines);
            let started = tracing::dispatcher::with_default(&dispatch, || match listener {
                Some(listener) => node::Node::start_with_listener(config, listener, make),
                None => node::Node::start(config, make),
            });
            // In this order they go if nobody takes them any more.
            started.map(|node| (node, living))
        })?;
        let (node, living) = started.map_err(|error| error::of_node(py, &error))?;
        let (node, living) = (Some(Arc::new(node)), Mutex::new(Some(living)));
        let origin = Origin::here();
        Ok(Self {
            node,
            origin,
            calls,
            reads,
            nudges,
            living,
            limits,
            propose_timeout,
            read_timeout,
        })
    }

    /// Proposes a command.
    #[pyo3(signature = (command, timeout=None, forward=None, expected_term=None))]
    fn propose(
        &self,
        py: Python<'_>,
        command: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        forward: Option<bool>,
        expected_term: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Future> {
        let (options, limit) = self.options(py, timeout, forward, expected_term)?;
        let pending = self.node(py)?.propose_opt(self.limits.command(command)?, options);
        Ok(self.future(py, Waiting::One(pending), None, limit))
    }

    /// Proposes commands, in this order.
    #[pyo3(signature = (commands, timeout=None, forward=None, expected_term=None))]
    fn propose_many(
        &self,
        py: Python<'_>,
        commands: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        forward: Option<bool>,
        expected_term: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Future> {
        let (options, limit) = self.options(py, timeout, forward, expected_term)?;
        let commands = self.limits.batch(commands)?;
        let pending = self.node(py)?.propose_batch(commands, options);
        Ok(self.future(py, Waiting::Many(pending), None, limit))
    }

    /// Asks the machine.
    #[pyo3(signature = (request, level="linearizable", bound=0, timeout=None))]
    fn query(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyAny>,
        level: &str,
        bound: u64,
        timeout: Option<f64>,
    ) -> PyResult<Future> {
        let (options, limit) = self.read_options(py, level, bound, timeout)?;
        let pending = self.node(py)?.read(self.request(request)?, options);
        Ok(self.future(py, Waiting::Read(pending), None, limit))
    }

    /// Has a function called with the machine.
    #[pyo3(signature = (function, level="linearizable", bound=0, timeout=None))]
    fn read(
        &self,
        py: Python<'_>,
        function: Py<PyAny>,
        level: &str,
        bound: u64,
        timeout: Option<f64>,
    ) -> PyResult<Future> {
        let (options, limit) = self.read_options(py, level, bound, timeout)?;
        let (call, request) = self.reads()?.add(function);
        let pending = self.node(py)?.read(request, options);
        Ok(self.future(py, Waiting::Read(pending), Some(call), limit))
    }

    /// As `propose`, for a future of asyncio. Whether the node took it; else the answer is on the desk.
    #[pyo3(signature = (desk, future, command, timeout=None, forward=None, expected_term=None))]
    #[expect(clippy::too_many_arguments, reason = "as the caller has them")]
    fn propose_to(
        &self,
        py: Python<'_>,
        desk: &LoopDesk,
        future: Py<PyAny>,
        command: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        forward: Option<bool>,
        expected_term: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let (options, _) = self.options(py, timeout, forward, expected_term)?;
        let seat = desk.seat(future, None);
        let done = seat.clone();
        let accepted =
            self.node(py)?.propose_with(self.limits.command(command)?, options, move |outcome| {
                done.give(Answer::One(outcome));
            });
        Ok(match accepted {
            Ok(()) => true,
            Err(refusal) => {
                seat.give(Answer::One(Outcome::Refused(refusal)));
                false
            }
        })
    }

    /// As `propose_many`, for a future of asyncio.
    #[pyo3(signature = (desk, future, commands, timeout=None, forward=None, expected_term=None))]
    #[expect(clippy::too_many_arguments, reason = "as the caller has them")]
    fn propose_many_to(
        &self,
        py: Python<'_>,
        desk: &LoopDesk,
        future: Py<PyAny>,
        commands: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        forward: Option<bool>,
        expected_term: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let (options, _) = self.options(py, timeout, forward, expected_term)?;
        let commands = self.limits.batch(commands)?;
        let count = commands.len();
        let seat = desk.seat(future, None);
        let done = seat.clone();
        let accepted = self.node(py)?.propose_batch_with(commands, options, move |outcomes| {
            done.give(Answer::Many(outcomes));
        });
        Ok(match accepted {
            Ok(()) => true,
            Err(refusal) => {
                seat.give(Answer::Many(vec![Outcome::Refused(refusal); count]));
                false
            }
        })
    }

    /// As `query` (`is_call` false) or `read`, for a future of asyncio.
    #[pyo3(signature = (desk, future, what, is_call, level="linearizable", bound=0, timeout=None))]
    #[expect(clippy::too_many_arguments, reason = "as the caller has them")]
    fn read_to(
        &self,
        py: Python<'_>,
        desk: &LoopDesk,
        future: Py<PyAny>,
        what: &Bound<'_, PyAny>,
        is_call: bool,
        level: &str,
        bound: u64,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let (options, _) = self.read_options(py, level, bound, timeout)?;
        let (call, request) = if is_call {
            let (call, request) = self.reads()?.add(what.clone().unbind());
            (Some(call), request)
        } else {
            (None, self.request(what)?)
        };
        let seat = desk.seat(future, call);
        let done = seat.clone();
        let accepted = self.node(py)?.read_with(request, options, move |answer| {
            done.give(Answer::Read(answer));
        });
        Ok(match accepted {
            Ok(()) => true,
            Err(error) => {
                seat.give(Answer::Read(Err(error)));
                false
            }
        })
    }

    /// How the node is.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let node = self.node(py)?;
        let status = py.detach(|| node.status());
        told::status(py, &status)
    }

    /// What it has counted and measured.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        told::metrics(py, &self.node(py)?.metrics())
    }

    /// The same for Prometheus.
    fn metrics_text(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.node(py)?.metrics_text())
    }

    /// Where it listens.
    fn listen_address(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.node(py)?.listen_address())
    }

    /// Waits until a leader is known.
    fn wait_for_leader(&self, py: Python<'_>, timeout: f64) -> PyResult<u64> {
        let timeout = seconds(py, timeout)?;
        Ok(self.blocking(py, move |node| node.wait_for_leader(timeout))?.get())
    }

    /// Waits until its machine has applied everything up to an index.
    fn wait_for_applied(
        &self,
        py: Python<'_>,
        index: &Bound<'_, PyAny>,
        timeout: f64,
    ) -> PyResult<()> {
        let (index, timeout) = (Index(number_of(index, "index")?), seconds(py, timeout)?);
        self.blocking(py, move |node| node.wait_for_applied(index, timeout))
    }

    /// Takes a snapshot: its last index, its term, its bytes.
    fn snapshot(&self, py: Python<'_>, timeout: f64) -> PyResult<(u64, u64, u64)> {
        let timeout = seconds(py, timeout)?;
        let taken = self.blocking(py, move |node| node.snapshot(timeout))?;
        Ok((taken.id.last.index.0, taken.id.last.term.0, taken.id.bytes))
    }

    /// Has another node lead.
    #[pyo3(signature = (target, timeout))]
    fn transfer_leadership(
        &self,
        py: Python<'_>,
        target: Option<&Bound<'_, PyAny>>,
        timeout: f64,
    ) -> PyResult<u64> {
        let timeout = seconds(py, timeout)?;
        let target = target.map(|id| node_id_of(id, "target", INVALID_ARG)).transpose()?;
        Ok(self.blocking(py, move |node| node.transfer_leadership(target, timeout))?.get())
    }

    /// Has the best of the others lead.
    fn step_down(&self, py: Python<'_>, timeout: f64) -> PyResult<u64> {
        let timeout = seconds(py, timeout)?;
        Ok(self.blocking(py, move |node| node.step_down(timeout))?.get())
    }

    /// Makes it stand for election now.
    fn campaign(&self, py: Python<'_>) -> PyResult<()> {
        let node = self.node(py)?;
        let status = py.detach(|| node.status());
        let over = match status.fault {
            Some(fault) => NodeError::Faulted { reason: fault.to_string() },
            None if status.shut_down => NodeError::ShutDown,
            None => {
                node.campaign();
                return Ok(());
            }
        };
        Err(error::of_node(py, &over))
    }

    /// Stops it.
    fn close(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let timeout = seconds(py, timeout)?;
        let ended = self.blocking(py, move |node| node.shutdown(timeout));
        self.nudges.ring();
        ended?;
        drop(self.living.lock().take());
        self.calls.get().close();
        Ok(())
    }

    /// Its events of these kinds from now on, by number; of all kinds if there are none.
    fn subscribe(&self, py: Python<'_>, kinds: Vec<u32>) -> PyResult<Subscription> {
        let kinds = if kinds.is_empty() {
            EventKinds::ALL
        } else {
            EventKinds::of(
                &kinds.into_iter().filter_map(events::kind_of).collect::<Vec<EventKind>>(),
            )
        };
        let subscription = self.node(py)?.subscribe(kinds);
        Ok(Subscription::new(subscription, self.origin, Arc::clone(&self.nudges)))
    }

    /// Whether this is a child of the process that started it.
    #[getter]
    fn is_elsewhere(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

impl Node {
    fn node(&self, py: Python<'_>) -> PyResult<&Arc<node::Node>> {
        self.origin.check(py)?;
        self.node.as_ref().ok_or_else(|| misuse("the node is gone"))
    }

    fn reads(&self) -> PyResult<&Reads> {
        self.reads.as_ref().ok_or_else(|| {
            PyTypeError::new_err(
                "this node's machine is not Python's, so no function can look at it; use query, or raftz.Kv for the key-value store",
            )
        })
    }

    /// A request of the user's own.
    fn request(&self, request: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let bytes = bytes_of(request)?;
        if self.reads.is_none() {
            return Ok(bytes);
        }
        let mut tagged = room(bytes.len() + 1)?;
        tagged.push(BYTES);
        tagged.extend_from_slice(&bytes);
        Ok(tagged.into())
    }

    fn future(
        &self,
        py: Python<'_>,
        waiting: Waiting,
        call: Option<crate::machine::ReadCall>,
        limit: Duration,
    ) -> Future {
        Future::new(waiting, call, self.calls.clone_ref(py), self.origin, limit)
    }

    fn blocking<T: Send + 'static>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&node::Node) -> Result<T, NodeError> + Send + 'static,
    ) -> PyResult<T> {
        let node = Arc::clone(self.node(py)?);
        callbacks::may_block(py)?;
        let ended = wait::blocking(py, move || {
            let ended = call(&node);
            // If this is the last to have it.
            node::run_callback("the end of a wait", || drop(node));
            ended
        })?;
        ended.map_err(|error| error::of_node(py, &error))
    }

    fn options(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        forward: Option<bool>,
        expected_term: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(ProposeOptions, Duration)> {
        let timeout = timeout.map(|timeout| seconds(py, timeout)).transpose()?;
        let term = |term| number_of(term, "expected_term").map(Term);
        let expected_term = expected_term.map(term).transpose()?;
        let options = ProposeOptions { timeout, forward, expected_term, session: None };
        Ok((options, timeout.unwrap_or(self.propose_timeout)))
    }

    fn read_options(
        &self,
        py: Python<'_>,
        level: &str,
        bound: u64,
        timeout: Option<f64>,
    ) -> PyResult<(ReadOptions, Duration)> {
        let timeout = timeout.map(|timeout| seconds(py, timeout)).transpose()?;
        let level = match level {
            "linearizable" => ReadLevel::Linearizable,
            "lease" => ReadLevel::Lease,
            "at_least" => ReadLevel::AtLeast(Index(bound)),
            "bounded" => ReadLevel::Bounded(Duration::from_micros(bound)),
            "stale" => ReadLevel::Stale,
            other => {
                let message = format!("no read level is called {other:?}; see raftz.ReadLevel");
                return Err(failure(py, INVALID_ARG, &message));
            }
        };
        Ok((ReadOptions { level, timeout }, timeout.unwrap_or(self.read_timeout)))
    }
}

impl Drop for Node {
    /// Asks the node to stop, and waits for nobody: the interpreter may be held here, and what is waited for might
    /// want it. In a child nothing is touched: locks there belong to threads that do not exist.
    fn drop(&mut self) {
        // Nobody sees when it ends.
        std::mem::forget(self.living.lock().take());
        let Some(node) = self.node.take() else { return };
        if self.origin.is_elsewhere() {
            std::mem::forget(node);
        } else {
            node::run_callback("the garbage collector", || drop(node));
        }
    }
}

impl Limits {
    /// A command. One that is too large is only lent: the node refuses it before this call returns, and keeps nothing.
    fn command(self, command: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        match command.cast::<PyBytes>() {
            Ok(bytes) if bytes.as_bytes().len() as u64 > self.command_bytes => {
                Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())))
            }
            Ok(_) | Err(_) => bytes_of(command),
        }
    }

    /// Commands. Those beyond what the node takes at once are not copied, since it refuses all of them then.
    fn batch(self, commands: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
        let mut bytes = 0;
        let each = commands.try_iter()?.map(|command| {
            let command = command?;
            if bytes > self.batch_bytes {
                return Ok(Bytes::new());
            }
            let command = self.command(&command)?;
            bytes += command.len() as u64;
            Ok(command)
        });
        each.collect()
    }
}

type Machine = Box<dyn StateMachine>;
type Make = Box<dyn FnOnce() -> Result<Machine, MachineError> + Send>;

/// How the machine is made that was named, and the functions that it can be asked to call.
fn machine_of(machine: &Bound<'_, PyAny>) -> PyResult<(Make, Option<Reads>)> {
    if let Ok(name) = machine.extract::<String>() {
        let machine: Machine = match name.as_str() {
            "kv" => Box::new(KvStore::new()),
            "counter" => Box::<CountingMachine>::default(),
            _ => return Err(misuse("no machine has this name")),
        };
        return Ok((Box::new(move || Ok(machine)), None));
    }
    let (commands, snapshots) = machine.extract::<(Py<Jobs>, Py<Jobs>)>()?;
    let taken = |jobs: &Py<Jobs>| {
        jobs.get().asker().ok_or_else(|| misuse("these queues belong to another node"))
    };
    let reads = commands.get().reads.clone();
    let machine = PythonMachine { commands: taken(&commands)?, snapshots: taken(&snapshots)? };
    Ok((Box::new(move || Ok(Box::new(machine) as Machine)), Some(reads)))
}
