//! Why a call failed, on its way to Python. The classes are Python's own (`raftz/errors.py`), chosen by the number,
//! which is that of raftz.h.
//!
//! They are made without a line of Python being run: see the chapter "Exit" of ARCHITECTURE.md.

use std::io;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use raftz_core::node::NodeError;
use raftz_core::types::{Done, Index, NodeId, Refusal, Term, TransferFailure, Unknown};

/// `RAFTZ_INVALID_ARG`: an argument has a value that it cannot have.
pub(crate) const INVALID_ARG: i32 = -97;
/// `RAFTZ_CONFIG`: the configuration is wrong or contradicts itself.
pub(crate) const CONFIG: i32 = -64;
/// `RAFTZ_NETWORK`: the network cannot be used.
pub(crate) const NETWORK: i32 = -66;
/// `RAFTZ_FORKED`: the process was forked after the node was started.
pub(crate) const FORKED: i32 = -102;
/// `RAFTZ_PANIC`: the library failed inside.
pub(crate) const PANIC: i32 = -101;
/// `RAFTZ_IN_CALLBACK`: a blocking call inside a callback.
pub(crate) const IN_CALLBACK: i32 = -9;
/// `RAFTZ_THREAD`: the system gave no thread or no descriptor.
pub(crate) const THREAD: i32 = -68;

/// A name of `raftz.errors`, looked up once.
fn imported<'py>(
    py: Python<'py>,
    place: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found = place.get_or_try_init(py, || {
        Ok::<_, PyErr>(py.import("raftz.errors")?.getattr(name)?.unbind())
    })?;
    Ok(found.bind(py))
}

fn made(
    py: Python<'_>,
    code: i32,
    message: &str,
    leader: Option<NodeId>,
    os_error: Option<i32>,
) -> PyErr {
    static CLASSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = || {
        let classes = imported(py, &CLASSES, "_CLASSES")?.cast::<PyDict>()?;
        let class = classes.get_item(code)?.or(classes.get_item(0)?);
        let error =
            class.ok_or_else(|| misuse("raftz.errors has no classes"))?.call1((message,))?;
        error.setattr("code", code)?;
        error.setattr("leader", leader.map(NodeId::get))?;
        if let Some(number) = os_error
            && error.is_instance_of::<PyOSError>()
        {
            error.setattr("errno", number)?;
        }
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error: PyErr| error)
}

/// The same, for what Python's half raises.
#[pyfunction]
#[pyo3(name = "failure", signature = (code, message, leader=None, os_error=None))]
pub(crate) fn failure_of_python(
    py: Python<'_>,
    code: i32,
    message: &str,
    leader: Option<u64>,
    os_error: Option<i32>,
) -> PyErr {
    made(py, code, message, leader.and_then(NodeId::new), os_error)
}

/// The error of this number.
pub(crate) fn failure(py: Python<'_>, code: i32, message: &str) -> PyErr {
    made(py, code, message, None, None)
}

/// The error of this number, with the system's own.
pub(crate) fn failure_of_system(py: Python<'_>, code: i32, what: &str, why: &io::Error) -> PyErr {
    made(py, code, &format!("{what}: {why}"), None, why.raw_os_error())
}

/// A node's error.
pub(crate) fn of_node(py: Python<'_>, error: &NodeError) -> PyErr {
    let leader = if let NodeError::Transfer(TransferFailure::NotLeader { hint: Some(leader) })
    | NodeError::Transfer(TransferFailure::Overtaken { leader }) = error
    {
        Some(*leader)
    } else {
        None
    };
    made(py, error.code(), &error.to_string(), leader, error.os_error())
}

/// A refusal.
pub(crate) fn of_refusal(py: Python<'_>, refusal: &Refusal) -> PyErr {
    let leader = if let Refusal::NotLeader { hint } = refusal { *hint } else { None };
    made(py, refusal.code(), &refusal.to_string(), leader, None)
}

/// An unknown outcome.
pub(crate) fn of_unknown(py: Python<'_>, unknown: &Unknown) -> PyErr {
    made(py, unknown.code(), &unknown.to_string(), None, None)
}

/// What the state machine turned down: the exception that it raised, for who proposed.
pub(crate) fn of_rejection(py: Python<'_>, reason: &[u8], place: Option<(Index, Term)>) -> PyErr {
    static REJECT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = || {
        let (class, reason) = (imported(py, &REJECT, "Reject")?, PyBytes::new(py, reason));
        let error = class.call_method1("__new__", (class, &reason))?;
        error.setattr("reason", reason)?;
        error.setattr("index", place.map(|(index, _)| index.0))?;
        error.setattr("term", place.map(|(_, term)| term.0))?;
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error: PyErr| error)
}

/// Whether this is what a state machine turns a command down with.
pub(crate) fn is_rejection(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    object.is_instance(imported(object.py(), &CLASS, "Reject")?)
}

/// A rejected command's.
pub(crate) fn of_rejected(py: Python<'_>, done: &Done) -> PyErr {
    of_rejection(py, done.reply.bytes(), Some((done.index, done.term)))
}

/// What the native half does not expect of its Python half.
pub(crate) fn misuse(what: &str) -> PyErr {
    PyRuntimeError::new_err(what.to_owned())
}
