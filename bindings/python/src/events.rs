//! A node's events, as tuples that begin with their kind.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use raftz_core::node::{self, NodeError};
use raftz_core::types::{Event, EventKind, Membership, NodeId};

use crate::callbacks;
use crate::error::of_node;
use crate::fork::Origin;
use crate::loops::{LoopDesk, Nudges};
use crate::told;
use crate::wait;

const KINDS: [EventKind; 17] = [
    EventKind::Role,
    EventKind::Leader,
    EventKind::Ready,
    EventKind::Membership,
    EventKind::PeerUp,
    EventKind::PeerDown,
    EventKind::PeerRefused,
    EventKind::Nonsense,
    EventKind::Healed,
    EventKind::PeerStalled,
    EventKind::StorageTrouble,
    EventKind::NetworkTrouble,
    EventKind::StorageFull,
    EventKind::Faulted,
    EventKind::Snapshot,
    EventKind::Transfer,
    EventKind::Dropped,
];

/// The kind of this number.
pub(crate) fn kind_of(number: u32) -> Option<EventKind> {
    KINDS.into_iter().find(|kind| *kind as u32 == number)
}

/// Events from some moment on.
#[pyclass(frozen, module = "raftz._raftz")]
pub(crate) struct Subscription {
    events: node::Subscription,
    origin: Origin,
    nudges: Arc<Nudges>,
}

#[pymethods]
impl Subscription {
    /// The next event, waited for; None if none came in time. Raises Closed after the last one.
    fn next<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.origin.check(py)?;
        if let Some((_, event)) = self.events.try_next() {
            return shown(py, &event).map(Some);
        }
        callbacks::may_block(py)?;
        let end = wait::after(wait::seconds(py, timeout)?);
        let found = wait::in_slices(py, end, |slice| self.events.next(slice).transpose())?;
        match found {
            Some(Ok((_, event))) => shown(py, &event).map(Some),
            Some(Err(error)) => Err(of_node(py, &error)),
            None => Ok(None),
        }
    }

    /// The next event, if there is one; raises Closed after the last one.
    fn try_next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.origin.check(py)?;
        match self.events.next(Duration::ZERO) {
            Ok(Some((_, event))) => shown(py, &event).map(Some),
            Ok(None) => Ok(None),
            // Nothing is waited for here.
            Err(NodeError::InCallback { .. }) => Ok(None),
            Err(error) => Err(of_node(py, &error)),
        }
    }

    /// Has a loop woken when there may be events.
    fn wake(&self, desk: &LoopDesk) {
        self.nudges.add(desk);
    }

    /// How many events were dropped because nobody took them in time.
    #[getter]
    fn dropped(&self, py: Python<'_>) -> PyResult<u64> {
        self.origin.check(py)?;
        Ok(self.events.dropped())
    }
}

impl Subscription {
    pub(crate) fn new(events: node::Subscription, origin: Origin, nudges: Arc<Nudges>) -> Self {
        Self { events, origin, nudges }
    }
}

/// An event: the number of its kind, and its fields in the order of the class in `raftz/events.py`.
fn shown<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyTuple>> {
    let kind = event.kind() as u32;
    let id = |id: &NodeId| id.get();
    let members = |membership: &Membership| told::membership(py, membership);
    match event {
        Event::Role { role, term } => (kind, role.to_string(), term.0).into_pyobject(py),
        Event::Leader { leader, term } => (kind, leader.as_ref().map(id), term.0).into_pyobject(py),
        Event::Ready { term } => (kind, term.0).into_pyobject(py),
        Event::Membership { index, membership } => {
            (kind, index.0, members(membership)?).into_pyobject(py)
        }
        Event::PeerUp { peer } => (kind, id(peer)).into_pyobject(py),
        Event::PeerDown { peer, reason } => (kind, id(peer), reason).into_pyobject(py),
        Event::PeerRefused { peer, disk, reason } => {
            (kind, id(peer), disk.to_string(), reason).into_pyobject(py)
        }
        Event::Nonsense { from, what } => (kind, id(from), what).into_pyobject(py),
        Event::Healed { upto } => (kind, upto.0).into_pyobject(py),
        Event::PeerStalled { peer, matched, last } => {
            (kind, id(peer), matched.0, last.0).into_pyobject(py)
        }
        Event::StorageTrouble { detail } | Event::NetworkTrouble { detail } => {
            (kind, detail).into_pyobject(py)
        }
        Event::StorageFull { full } => (kind, *full).into_pyobject(py),
        Event::Snapshot { phase, peer, index, bytes, total_bytes } => {
            let peer = peer.as_ref().map(id);
            (kind, phase.to_string(), peer, index.0, *bytes, *total_bytes).into_pyobject(py)
        }
        Event::Transfer { to, phase, detail } => {
            (kind, id(to), phase.to_string(), detail).into_pyobject(py)
        }
        Event::Faulted(reason) => (kind, reason.to_string()).into_pyobject(py),
        Event::Dropped { total } => (kind, *total).into_pyobject(py),
    }
}
