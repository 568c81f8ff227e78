"""How a node is, and what it has counted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._raftz import Histogram

__all__ = [
    "Histogram",
    "Membership",
    "Metrics",
    "PeerMetrics",
    "PeerStatus",
    "SnapshotTransfer",
    "Status",
]


@dataclass(frozen=True, slots=True)
class Membership:
    """Who belongs to the cluster, and who among them votes."""

    members: dict[int, str]
    """Addresses by id."""
    voters: list[int]
    outgoing: list[int]
    """Voters of the outgoing half while the membership changes, else empty."""
    known_disks: int
    """Members whose data directory the cluster knows."""


@dataclass(frozen=True, slots=True)
class SnapshotTransfer:
    """A snapshot on its way to or from a peer."""

    phase: str
    index: int
    bytes: int
    total_bytes: int


def _transfer(shown: dict[str, Any]) -> dict[str, Any]:
    snapshot = shown["snapshot"]
    return {**shown, "snapshot": snapshot and SnapshotTransfer(**snapshot)}


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another member, as this node sees it. What only a leader knows is None elsewhere."""

    node_id: int
    address: str
    connected: bool
    unreachable: str | None
    """Why there is no link, in words."""
    mode: str | None
    """probe, replicate or snapshot."""
    match_index: int | None
    next_index: int | None
    in_flight: int | None
    snapshot: SnapshotTransfer | None


@dataclass(frozen=True, slots=True)
class Status:
    """How a node is and what it knows."""

    node_id: int
    cluster_id: int
    disk_id: str
    boot: int
    listen_address: str | None
    role: str
    """follower, pre-candidate, candidate or leader."""
    term: int
    leader: int | None
    ready: bool
    """Whether it leads and has committed an entry of its own term."""
    first_index: int
    last_index: int
    durable_index: int
    commit_index: int
    applied_index: int
    membership: Membership
    peers: list[PeerStatus]
    transfer_to: int | None
    """Whom it is handing its leadership to."""
    waiting: int
    calls_in_flight: int
    damaged_from: int | None
    events_dropped: int
    fault: str | None
    """Why the node stopped, if it did."""
    shut_down: bool
    obstacles: str
    """Why there may be no leader: who cannot be reached and why, in one line."""


@dataclass(frozen=True, slots=True)
class PeerMetrics:
    """What is known of another member. What only a leader knows is None elsewhere."""

    node_id: int
    state: str | None
    match_index: int | None
    lag_entries: int | None
    last_contact_seconds: float | None
    inflight: int | None
    rtt_seconds: float | None
    snapshot: SnapshotTransfer | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a node has counted and measured since its start. Times in histograms are microseconds."""

    leader: int | None
    is_leader: bool
    term: int
    leader_changes: int
    elections: dict[str, int]
    commit_index: int
    applied_index: int
    last_index: int
    first_index: int
    proposals_pending: int
    proposals_committed: int
    proposals_failed: dict[str, int]
    propose_us: Histogram
    commit_us: Histogram
    wal_fsync_us: Histogram
    apply_batch_us: Histogram
    append_batch_entries: Histogram
    peers: list[PeerMetrics]
    snapshot_us: dict[str, Histogram]
    oldest_log_entry_seconds: float | None
    wal_bytes: int | None
    events_dropped: int
    reads: dict[str, int]


def _status(shown: dict[str, Any]) -> Status:
    """What the native half gives, as a status."""
    peers = [PeerStatus(**_transfer(peer)) for peer in shown["peers"]]
    return Status(**{**shown, "peers": peers, "membership": Membership(**shown["membership"])})


def _metrics(shown: dict[str, Any]) -> Metrics:
    """The same, as metrics."""
    return Metrics(**{**shown, "peers": [PeerMetrics(**_transfer(it)) for it in shown["peers"]]})
