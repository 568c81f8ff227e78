//! What a node tells of itself, as the plain values that the classes in `raftz/status.py` are made of.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use raftz_core::node::{Metrics, PeerMetrics, PeerStatus, Status};
use raftz_core::types::{self, Membership, NodeId, SnapshotTransfer};

type Dict<'py> = Bound<'py, PyDict>;

macro_rules! dict {
    ($py:expr, $($name:ident: $value:expr),* $(,)?) => {{
        let dict = PyDict::new($py);
        $(dict.set_item(stringify!($name), $value)?;)*
        dict
    }};
}

/// Who belongs to the group: addresses by id, and who votes.
pub(crate) fn membership<'py>(py: Python<'py>, of: &Membership) -> PyResult<Dict<'py>> {
    let members = PyDict::new(py);
    for (id, member) in &of.members {
        members.set_item(id.get(), &member.address)?;
    }
    let disks = of.members.values().filter(|member| member.disk_id.is_some()).count();
    let voters: Vec<u64> = of.voters.iter().map(|id| id.get()).collect();
    let outgoing: Vec<u64> = of.outgoing.iter().map(|id| id.get()).collect();
    Ok(dict!(py, members: members, voters: voters, outgoing: outgoing, known_disks: disks))
}

fn transfer<'py>(py: Python<'py>, of: Option<&SnapshotTransfer>) -> PyResult<Option<Dict<'py>>> {
    let Some(of) = of else { return Ok(None) };
    Ok(Some(dict!(py,
        phase: of.phase.to_string(),
        index: of.index.0,
        bytes: of.bytes,
        total_bytes: of.total_bytes,
    )))
}

/// How a node is.
pub(crate) fn status<'py>(py: Python<'py>, of: &Status) -> PyResult<Dict<'py>> {
    let peers = of.peers.iter().map(|peer| peer_status(py, peer)).collect::<PyResult<Vec<_>>>()?;
    Ok(dict!(py,
        node_id: of.node_id.get(),
        cluster_id: of.cluster_id.0,
        disk_id: of.disk_id.to_string(),
        boot: of.boot.0,
        listen_address: &of.listen_address,
        role: of.role.to_string(),
        term: of.term.0,
        leader: of.leader.map(NodeId::get),
        ready: of.ready,
        first_index: of.base.index.0 + 1,
        last_index: of.last.index.0,
        durable_index: of.durable.0,
        commit_index: of.commit.0,
        applied_index: of.applied.0,
        membership: membership(py, &of.membership)?,
        peers: PyList::new(py, peers)?,
        transfer_to: of.transfer.map(NodeId::get),
        waiting: of.waiting,
        calls_in_flight: of.calls_in_flight,
        damaged_from: of.damaged_from.map(|index| index.0),
        events_dropped: of.events_dropped,
        fault: of.fault.as_ref().map(ToString::to_string),
        shut_down: of.shut_down,
        obstacles: of.obstacles(),
    ))
}

fn peer_status<'py>(py: Python<'py>, of: &PeerStatus) -> PyResult<Dict<'py>> {
    Ok(dict!(py,
        node_id: of.id.get(),
        address: &of.address,
        connected: of.connected,
        unreachable: &of.unreachable,
        mode: of.mode,
        match_index: of.matched.map(|index| index.0),
        next_index: of.next.map(|index| index.0),
        in_flight: of.in_flight,
        snapshot: transfer(py, of.transfer.as_ref())?,
    ))
}

/// What it has counted and measured.
pub(crate) fn metrics<'py>(py: Python<'py>, of: &Metrics) -> PyResult<Dict<'py>> {
    let peers = of.peers.iter().map(|peer| peer_metrics(py, peer)).collect::<PyResult<Vec<_>>>()?;
    let named = |pairs: &[(&'static str, u64)]| {
        let dict = PyDict::new(py);
        pairs.iter().try_for_each(|(name, count)| dict.set_item(name, count))?;
        Ok::<_, PyErr>(dict)
    };
    let snapshot_us = PyDict::new(py);
    for (phase, times) in &of.snapshot_us {
        snapshot_us.set_item(phase, Histogram(times.clone()))?;
    }
    Ok(dict!(py,
        leader: of.leader.map(NodeId::get),
        is_leader: of.is_leader,
        term: of.term.0,
        leader_changes: of.leader_changes,
        elections: named(&of.elections)?,
        commit_index: of.commit_index.0,
        applied_index: of.applied_index.0,
        last_index: of.last_index.0,
        first_index: of.first_index.0,
        proposals_pending: of.proposals_pending,
        proposals_committed: of.proposals_committed,
        proposals_failed: named(&of.proposals_failed)?,
        propose_us: Histogram(of.propose_us.clone()),
        commit_us: Histogram(of.commit_us.clone()),
        wal_fsync_us: Histogram(of.wal_fsync_us.clone()),
        apply_batch_us: Histogram(of.apply_batch_us.clone()),
        append_batch_entries: Histogram(of.append_batch_entries.clone()),
        peers: PyList::new(py, peers)?,
        snapshot_us: snapshot_us,
        oldest_log_entry_seconds: of.oldest_log_entry_age.map(|age| age.as_secs_f64()),
        wal_bytes: of.wal_bytes,
        events_dropped: of.events_dropped,
        reads: named(&of.reads)?,
    ))
}

fn peer_metrics<'py>(py: Python<'py>, of: &PeerMetrics) -> PyResult<Dict<'py>> {
    let progress = of.progress.as_ref();
    Ok(dict!(py,
        node_id: of.id.get(),
        state: progress.map(|it| it.state),
        match_index: progress.map(|it| it.match_index.0),
        lag_entries: progress.map(|it| it.lag_entries),
        last_contact_seconds: progress.map(|it| it.last_contact.as_secs_f64()),
        inflight: progress.map(|it| it.inflight),
        rtt_seconds: progress.and_then(|it| it.rtt).map(|rtt| rtt.as_secs_f64()),
        snapshot: transfer(py, of.transfer.as_ref())?,
    ))
}

/// How often values fell into each of some fixed ranges.
#[pyclass(frozen, module = "raftz")]
pub(crate) struct Histogram(types::Histogram);

#[pymethods]
impl Histogram {
    /// How many values were counted.
    #[getter]
    fn count(&self) -> u64 {
        self.0.count()
    }

    /// Their sum.
    #[getter]
    fn sum(&self) -> u64 {
        self.0.sum()
    }

    /// The largest value of each range but the last, and how many fell into it; the last range has no bound.
    #[getter]
    fn ranges(&self) -> Vec<(Option<u64>, u64)> {
        let bounds = self.0.measure().bounds().iter().copied().map(Some).chain([None]);
        bounds.zip(self.0.counts().iter().copied()).collect()
    }

    /// A bound that at least this part of the values does not exceed, 0.99 for the 99th percentile.
    fn at_most(&self, part: f64) -> Option<u64> {
        self.0.at_most(part)
    }

    fn __repr__(&self) -> String {
        let (count, p99) = (self.0.count(), self.0.at_most(0.99));
        p99.map_or_else(
            || format!("Histogram(count={count})"),
            |p99| format!("Histogram(count={count}, p99={p99})"),
        )
    }
}
