//! What a node is told when it starts, by the keys that all languages share.
#![allow(clippy::disallowed_methods, reason = "a port that is bound before its node starts")]

use std::net::TcpListener;

use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use raftz_core::node::{self, NodeError};
use raftz_core::types::{ClusterId, NodeId};

use crate::error::{INVALID_ARG, failure, of_node};
use crate::wait;

/// A node's configuration.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Config(pub(crate) Mutex<node::Config>);

#[pymethods]
impl Config {
    #[new]
    fn new(py: Python<'_>, node_id: u64, cluster_id: u128) -> PyResult<Self> {
        let node_id = node_id_of(py, node_id)?;
        Ok(Self(Mutex::new(node::Config::new(node_id, ClusterId(cluster_id)))))
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

/// A node's id, which is never 0.
pub(crate) fn node_id_of(py: Python<'_>, id: u64) -> PyResult<NodeId> {
    NodeId::new(id).ok_or_else(|| failure(py, INVALID_ARG, "a node id is never 0; start at 1"))
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
    fn new(address: &str) -> PyResult<Self> {
        let bound = TcpListener::bind(address).and_then(|it| Ok((it.local_addr()?, it)));
        let (local, listener) = bound.map_err(|error| {
            PyOSError::new_err(format!("{address} cannot be listened on: {error}"))
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
