//! What a node is told when it starts, by the keys that all languages share.
#![allow(clippy::disallowed_methods, reason = "a port that is bound before its node starts")]

use std::net::TcpListener;
use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use raftz_core::node::{self, NodeError, StorageKind};
use raftz_core::types::{ClusterId, NodeId};

use crate::error::{CONFIG, INVALID_ARG, NETWORK, failure, failure_of_system, of_node};
use crate::wait;

/// A node's configuration.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Config(pub(crate) Mutex<node::Config>);

#[pymethods]
impl Config {
    #[new]
    fn new(node_id: &Bound<'_, PyAny>, cluster_id: &Bound<'_, PyAny>) -> PyResult<Self> {
        let node_id = node_id_of(node_id, "node_id", CONFIG)?;
        let cluster_id = ClusterId(whole(cluster_id, "cluster_id", CONFIG)?);
        Ok(Self(Mutex::new(node::Config::new(node_id, cluster_id))))
    }

    /// Keeps the log in this directory, whose name may end with spaces, as no value in text does.
    fn directory(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        if path.as_os_str().is_empty() {
            let message = "data_dir is empty: a directory is wanted, or None for a log in memory";
            return Err(failure(py, CONFIG, message));
        }
        self.0.lock().storage = StorageKind::Directory(path);
        Ok(())
    }

    /// Sets a key to a value in text.
    fn set(&self, py: Python<'_>, key: &str, value: &str) -> PyResult<()> {
        let set = self.0.lock().set(key, value);
        set.map_err(|error| of_node(py, &NodeError::from(error)))
    }

    /// Every key and its value.
    fn entries(&self) -> Vec<(&'static str, String)> {
        self.0.lock().entries()
    }

    /// Formats the directory with the founding members, unless it holds a node's data.
    fn found(&self, py: Python<'_>) -> PyResult<()> {
        let config = self.0.lock().clone();
        let founded = wait::blocking(py, move || {
            if !node::Node::is_formatted(&config)? {
                node::Node::bootstrap(&config)?;
            }
            Ok::<_, NodeError>(())
        })?;
        founded.map_err(|error| of_node(py, &error))
    }

    /// Whether the directory holds a node's data.
    fn is_formatted(&self, py: Python<'_>) -> PyResult<bool> {
        let config = self.0.lock().clone();
        let found = wait::blocking(py, move || node::Node::is_formatted(&config))?;
        found.map_err(|error| of_node(py, &error))
    }
}

/// The names of all keys.
#[pyfunction]
pub(crate) fn config_keys() -> Vec<&'static str> {
    let config = NodeId::new(1).map(|id| node::Config::new(id, ClusterId(0)));
    let entries = config.map(|config| config.entries()).unwrap_or_default();
    entries.into_iter().map(|(key, _)| key).collect()
}

/// A node's id, which is never 0. What is none fails with `code`.
pub(crate) fn node_id_of(id: &Bound<'_, PyAny>, name: &str, code: i32) -> PyResult<NodeId> {
    let none = || failure(id.py(), code, &format!("{name} = 0: a node id is never 0; start at 1"));
    NodeId::new(whole(id, name, code)?).ok_or_else(none)
}

/// An argument that is a number of this many bits. One that does not fit fails with `code`.
fn whole<'py, T>(argument: &Bound<'py, PyAny>, name: &str, code: i32) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    let py = argument.py();
    argument.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(py) {
            // Of an int's own kind: another one's words would be code of Python's.
            let shown = argument.cast_exact::<PyInt>().ok().and_then(|it| it.repr().ok());
            let shown = shown.map_or_else(|| "(a number)".to_owned(), |it| it.to_string());
            let bits = 8 * size_of::<T>();
            let wanted = format!("a whole number from 0 to 2**{bits} - 1 is wanted");
            failure(py, code, &format!("{name} = {shown}: {wanted}"))
        } else if error.is_instance_of::<PyTypeError>(py) {
            let kind = argument.get_type().name();
            let kind = kind.map_or_else(|_| "?".into(), |kind| kind.to_string());
            PyTypeError::new_err(format!("{name}: a whole number is wanted, not {kind}"))
        } else {
            error
        }
    })
}

/// An index or a term that a call is given.
pub(crate) fn number_of(argument: &Bound<'_, PyAny>, name: &str) -> PyResult<u64> {
    whole(argument, name, INVALID_ARG)
}

/// A port that is taken already, so that nodes can learn each other's before any of them starts.
#[pyclass(frozen, module = "raftz")]
pub(crate) struct Listener {
    listener: Mutex<Option<TcpListener>>,
    /// Where it listens, `host:port`.
    #[pyo3(get)]
    address: String,
}

#[pymethods]
impl Listener {
    /// Takes a port; 0 lets the system choose.
    #[new]
    #[pyo3(signature = (address="127.0.0.1:0"))]
    fn new(py: Python<'_>, address: &str) -> PyResult<Self> {
        let bound = TcpListener::bind(address).and_then(|it| Ok((it.local_addr()?, it)));
        let (local, listener) = bound.map_err(|error| {
            failure_of_system(py, NETWORK, &format!("{address} cannot be listened on"), &error)
        })?;
        Ok(Self { listener: Mutex::new(Some(listener)), address: local.to_string() })
    }

    /// Gives the port up.
    fn close(&self) {
        self.listener.lock().take();
    }
}

impl Listener {
    pub(crate) fn take(&self) -> Option<TcpListener> {
        self.listener.lock().take()
    }
}
