"""A whole cluster in one process: for trying things out, and for tests."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _folders, _raftz
from .errors import ApplyTimeout, Closed, Faulted, RaftzError
from .machine import CountingMachine, KvStore, StateMachine
from .node import Node

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self, Unpack

    from .node import Keys

__all__ = ["LocalCluster"]

_M = TypeVar("_M", bound=StateMachine | KvStore | CountingMachine)


class LocalCluster(Generic[_M]):
    """Nodes 1 to `size` of one cluster in this process, over real sockets and with their logs on disk.

    `machine` makes the state machine of a node: a class will do. The logs are in folders of `data_dir`, or without one
    in a temporary one, which goes with the cluster, or with the process if nobody closes that. Other keys are those of
    `Keys`, for all nodes, but for `listen_address`: the system chooses where they listen. May be used from all threads,
    but for `start`, `stop` and `close`, which are one thread's.

    >>> with raftz.LocalCluster(3, raftz.KvStore) as cluster:
    ...     leader = cluster.wait_for_leader()
    ...     index = raftz.Kv(leader).set(b"city", b"Torino")
    ...     cluster.stop(leader.node_id)
    ...     raftz.Kv(cluster.wait_for_leader()).get(b"city")
    b'Torino'
    """

    def __init__(
        self,
        size: int,
        machine: Callable[[], _M],
        *,
        data_dir: str | os.PathLike[str] | None = None,
        cluster_id: int | str = 0x10CA1,
        **keys: Unpack[Keys],
    ) -> None:
        if size < 1:
            raise _raftz.failure(-97, f"size = {size}: a number of nodes of 1 or more is wanted")
        if "listen_address" in keys:
            message = "listen_address: the nodes of a LocalCluster listen where the system lets them; see addresses"
            raise _raftz.failure(-64, message)
        self._machine = machine
        self._cluster_id = cluster_id
        self._keys = keys
        self.nodes: dict[int, Node[_M]] = {}
        """The nodes that run, by id."""
        self.addresses: dict[int, str] = {}
        """Where the nodes are, by id."""
        self._temporary = None if data_dir is not None else _folders.make()
        self._folder = Path(data_dir if data_dir is not None else self._temporary or "")
        try:
            listeners = {id: _raftz.Listener() for id in range(1, size + 1)}
            self.addresses.update((id, listener.address) for id, listener in listeners.items())
            for id, listener in listeners.items():
                self._start(id, listener)
        except BaseException:
            self.close()
            raise

    def _start(self, id: int, listener: _raftz.Listener | None) -> Node[_M]:
        keys = self._keys.copy()
        keys["listen_address"] = self.addresses[id]
        node = Node(
            self._machine(),
            node_id=id,
            cluster_id=self._cluster_id,
            founders=self.addresses,
            data_dir=self._folder / f"node-{id}",
            bootstrap=True,
            listener=listener,
            **keys,
        )
        self.nodes[id] = node
        return node

    def __getitem__(self, id: int) -> Node[_M]:
        return self.nodes[id]

    def __iter__(self) -> Iterator[Node[_M]]:
        return iter(list(self.nodes.values()))

    def wait_for_leader(self, timeout: float = 10.0, *, exclude: int | None = None) -> Node[_M]:
        """Waits until a running node, other than `exclude`, leads and has committed an entry of its own term, and gives
        it. Raises `LeaderTimeout` after `timeout` seconds, which says what each node misses."""
        if not timeout >= 0:
            message = f"timeout = {timeout}: a number of seconds of 0 or more is wanted"
            raise _raftz.failure(-97, message)
        self._may_block()
        end = time.monotonic() + timeout
        while True:
            for node in self:
                status = node.status()
                if status.ready and not status.shut_down and status.node_id != exclude:
                    return node
            if time.monotonic() >= end:
                seen = "; ".join(f"node {node.node_id}: {node.status().obstacles}" for node in self)
                message = f"no leader within {timeout} s: {seen or 'no node runs'}"
                raise _raftz.failure(-69, message)
            time.sleep(0.01)

    def stop(self, id: int, timeout: float = 10.0) -> None:
        """Stops a node; what it has written stays where it is. After `StillRunning` it is still one of the cluster's,
        to be stopped again."""
        self.nodes[id].close(timeout)
        del self.nodes[id]

    def start(self, id: int) -> Node[_M]:
        """Starts a node that was stopped, with a new state machine."""
        if id in self.nodes:
            raise ValueError(f"node {id} runs already")
        return self._start(id, None)

    def close(self, timeout: float = 10.0) -> None:
        """Stops all nodes. May be called again."""
        failed: RaftzError | None = None
        for id in list(self.nodes):
            try:
                self.nodes[id].close(timeout)
                del self.nodes[id]
            except RaftzError as error:
                failed = error
        if failed is not None:
            raise failed
        if self._temporary is not None:
            _folders.remove(self._temporary)

    def _may_block(self) -> None:
        """Raises `ReentrantCall` in a callback, as a node does that waits."""
        for node in self:
            # Whatever it is told there, it is not made to wait.
            with contextlib.suppress(ApplyTimeout, Closed, Faulted):
                node.wait_for_applied(0, 0.0)
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
