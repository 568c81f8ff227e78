"""Raft consensus as a library: one copy of your state machine on every node of a cluster, and nothing lost that was
acknowledged while a majority of the disks survives.

    import raftz

    class Counter(raftz.StateMachine):
        def __init__(self):
            self.n = 0

        def apply(self, entry):
            self.n += int(entry.data)
            return b"%d" % self.n

    with raftz.LocalCluster(3, Counter) as cluster:
        leader = cluster.wait_for_leader()
        print(leader.propose(b"41").result().reply)
        print(cluster[2].read(lambda counter: counter.n))

Threads, in ten rules:

1. A node's own threads never touch the interpreter: however long Python is busy, elections and heartbeats go on.
2. A state machine's methods, and the functions that `Node.read` is given, run on one thread a node, a batch at a
   time; `write_snapshot` on another; callbacks of futures on a third. All have names, and are daemons.
3. None of them needs a lock, with a GIL or without.
4. Calls that block let other threads run, end in time, and notice Ctrl-C within 50 ms.
5. A blocking call inside a callback raises `ReentrantCall` at once.
6. A node that is collected without being closed stops by itself, with a `ResourceWarning`; nobody waits for it. One
   that its own machine refers to is never collected: close it.
7. Nodes that are still open when the process ends are closed first. What does not return, a callback or a state machine,
   holds that up for ten seconds at most.
8. After a fork a node is of no use in the child: calls raise `ForkedProcess`, and no future ends. Nor can the child, or a
   child of its own, start a node if one ran at the fork, which raises the same; one that was collected without being
   closed counts as running. Fork before there is one, or after `close`.
9. Log lines go to the logger "raftz", from a thread of their own. A handler that raises loses that line, and no other.
10. `raftz.aio` has no loop of its own, and does not mind one that was closed.
"""

from . import _interpreter as _interpreter  # before everything else
from . import _folders as _folders  # before what closes nodes at the end
from . import aio, events, kv
from ._raftz import Done, Entry, Future, Histogram, Listener, SnapshotReader, SnapshotWriter
from .cluster import LocalCluster
from .errors import (
    ApplyTimeout,
    Busy,
    Closed,
    ConfigError,
    Faulted,
    ForkedProcess,
    InternalError,
    InvalidArgument,
    LeaderTimeout,
    MachineError,
    NetworkError,
    NoLeader,
    NotLeader,
    Overwritten,
    RaftzError,
    ReadFailed,
    ReadTimeout,
    ReentrantCall,
    Refused,
    Reject,
    SnapshotError,
    StillRunning,
    StorageError,
    StorageFull,
    TermMismatch,
    ThreadError,
    TooLarge,
    TransferError,
    UnknownOutcome,
)
from .kv import Digest, Kv
from .machine import CountingMachine, KvStore, StateMachine
from .node import Events, Keys, Node, ReadLevel, Snapshot
from .status import Membership, Metrics, PeerMetrics, PeerStatus, SnapshotTransfer, Status

__all__ = [
    "ApplyTimeout",
    "Busy",
    "Closed",
    "ConfigError",
    "CountingMachine",
    "Digest",
    "Done",
    "Entry",
    "Events",
    "Faulted",
    "ForkedProcess",
    "Future",
    "Histogram",
    "InternalError",
    "InvalidArgument",
    "Keys",
    "Kv",
    "KvStore",
    "LeaderTimeout",
    "Listener",
    "LocalCluster",
    "MachineError",
    "Membership",
    "Metrics",
    "NetworkError",
    "NoLeader",
    "Node",
    "NotLeader",
    "Overwritten",
    "PeerMetrics",
    "PeerStatus",
    "RaftzError",
    "ReadFailed",
    "ReadLevel",
    "ReadTimeout",
    "ReentrantCall",
    "Refused",
    "Reject",
    "Snapshot",
    "SnapshotError",
    "SnapshotReader",
    "SnapshotTransfer",
    "SnapshotWriter",
    "StateMachine",
    "Status",
    "StillRunning",
    "StorageError",
    "StorageFull",
    "TermMismatch",
    "ThreadError",
    "TooLarge",
    "TransferError",
    "UnknownOutcome",
    "aio",
    "events",
    "kv",
]
