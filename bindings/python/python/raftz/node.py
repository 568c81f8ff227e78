"""A node: one member of one cluster, with its storage, its network and its state machine."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import time
import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypedDict, TypeVar

from . import _raftz
from ._threads import forked, serve_calls, start, start_logs, stop_logs
from .errors import Closed, ConfigError, RaftzError
from .events import Event, _event
from .machine import CountingMachine, KvStore, StateMachine, _serve
from .status import Metrics, Status, _metrics, _status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self, TypeAlias, Unpack

    from typing_extensions import Buffer

    from ._raftz import Done, Future, Listener
    from .errors import Refused, Reject, UnknownOutcome

    Machine: TypeAlias = StateMachine | KvStore | CountingMachine
    Outcome: TypeAlias = Done | Reject | Refused | UnknownOutcome

__all__ = ["Events", "Keys", "Node", "ReadLevel", "Snapshot"]

_LOGGER = logging.getLogger("raftz")
_T = TypeVar("_T")
_M_co = TypeVar("_M_co", bound="StateMachine | KvStore | CountingMachine", covariant=True)

# How long the end of the process waits for nodes that nobody has closed.
_EXIT_SECONDS = 10.0


class Keys(TypedDict, total=False):
    """Keys of a node's configuration, as in every language; what they mean is said at `raftz_config_set` in
    raftz.h and at `raftz_core::node::Config`. Sizes may be text such as "64m"."""

    listen_address: str
    insecure_plaintext: bool
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    heartbeat_interval_ms: int
    election_priority: int
    disk_stall_timeout_ms: int
    propose_timeout_ms: int
    read_timeout_ms: int
    lease_reads: bool
    lease_drift_percent: int
    forward: bool
    entry_bytes_max: int | str
    append_bytes_max: int | str
    window_bytes: int | str
    window_messages: int
    uncommitted_bytes_max: int | str
    unapplied_bytes_max: int | str
    cache_bytes_max: int | str
    held_bytes_max: int | str
    apply_bytes_max: int | str
    calls_max: int
    calls_bytes_max: int | str
    link_queue_bytes_max: int | str
    segment_bytes: int | str
    reserve_bytes: int | str
    snapshot_log_bytes: int | str
    snapshot_log_entries: int
    snapshot_retain_bytes: int | str
    snapshots_kept: int
    snapshot_write_bytes_per_s: int | str
    snapshot_send_bytes_per_s: int | str
    snapshot_stall_timeout_ms: int
    snapshot_scrub_interval_ms: int
    metrics: bool
    seed: int | str


@dataclass(frozen=True, slots=True)
class ReadLevel:
    """How new the answer to a read must be."""

    kind: str
    bound: int = 0

    LINEARIZABLE: ClassVar[ReadLevel]
    """All that was acknowledged anywhere before the read began. The default."""
    LEASE: ClassVar[ReadLevel]
    """The same, as long as clocks keep the promise of `lease_drift_percent`; needs `lease_reads` on all nodes."""
    STALE: ClassVar[ReadLevel]
    """Whatever this node has applied, which may be old."""

    @staticmethod
    def at_least(index: int) -> ReadLevel:
        """What the entry at `index` did, and so one's own writes: `Done.index`."""
        return ReadLevel("at_least", index)

    @staticmethod
    def bounded(seconds: float) -> ReadLevel:
        """All that was acknowledged longer ago than that."""
        return ReadLevel("bounded", int(seconds * 1_000_000))


ReadLevel.LINEARIZABLE = ReadLevel("linearizable")
ReadLevel.LEASE = ReadLevel("lease")
ReadLevel.STALE = ReadLevel("stale")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was taken: the last entry that it covers, and its size."""

    index: int
    term: int
    bytes: int


class Events:
    """Events of a node from some moment on; see `Node.events`. To be iterated over, or asked one by one."""

    def __init__(self, native: _raftz.Subscription, timeout: float) -> None:
        self._native = native
        self._timeout = timeout

    def next(self, timeout: float = 10.0) -> Event | None:
        """Waits for the next event; None if none came in time. Raises `Closed` after the node's last one."""
        shown = self._native.next(timeout)
        return None if shown is None else _event(shown)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            event = self.next(self._timeout)
        except Closed:
            event = None
        if event is None:
            raise StopIteration
        return event

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody took them in time."""
        return self._native.dropped


def _text(value: object) -> str:
    """A key's value as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _configured(
    node_id: int,
    cluster_id: int | str,
    founders: Mapping[int, str] | None,
    data_dir: str | os.PathLike[str] | None,
    keys: Mapping[str, object],
) -> _raftz.Config:
    if isinstance(cluster_id, str):
        try:
            cluster_id = int(cluster_id.replace("-", ""), 16)
        except ValueError:
            message = f"cluster_id = {cluster_id!r}: 1 to 32 hexadecimal digits are wanted"
            raise ConfigError(message) from None
    config = _raftz.Config(node_id, cluster_id)
    if founders:
        config.set("founders", ",".join(f"{id}={address}" for id, address in founders.items()))
    if data_dir is not None:
        config.set("storage", f"directory:{os.fspath(data_dir)}")
    for key, value in keys.items():
        config.set(key, _text(value))
    return config


_live: weakref.WeakSet[Node[Any]] = weakref.WeakSet()


class Node(Generic[_M_co]):
    """A running node.

    It may be used from all threads at once. Calls that block are bounded in time, let other threads run, notice
    Ctrl-C, and are refused inside callbacks (`ReentrantCall`). Close it, or use it in a `with` statement.

    The machine is a `StateMachine` of your own, a new one for each node and each start, or `KvStore()`. `founders`
    are the founding members, addresses by id, the same on every node. The log is in `data_dir`, or without one in
    memory. `bootstrap` founds the cluster on this node if its directory holds nothing yet: say so on the founders'
    first start. Other keys are those of `Keys`.
    """

    def __init__(
        self,
        machine: _M_co,
        *,
        node_id: int,
        cluster_id: int | str,
        founders: Mapping[int, str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        bootstrap: bool = False,
        listener: Listener | None = None,
        **keys: Unpack[Keys],
    ) -> None:
        self._closed = True
        self.node_id = node_id
        config = _configured(node_id, cluster_id, founders, data_dir, keys)
        if bootstrap and data_dir is not None:
            config.found()
        start_logs()
        name = f"raftz-{node_id}"
        calls = _raftz.Calls(functools.partial(serve_calls, f"{name}-call"))
        if isinstance(machine, StateMachine):
            commands, snapshots = _raftz.Jobs(), _raftz.Jobs()
            _claim(machine)
            start(f"{name}-apply", _serve, commands, snapshots, machine, name)
            try:
                self._native = _raftz.Node(config, (commands, snapshots), calls, listener)
            except BaseException:
                commands.close()
                raise
        else:
            self._native = _raftz.Node(config, machine._native, calls, listener)
        self._closed = False
        _live.add(self)

    @staticmethod
    def is_formatted(data_dir: str | os.PathLike[str]) -> bool:
        """Whether a directory holds a node's data."""
        return _configured(1, 1, None, data_dir, {}).is_formatted()

    def propose(
        self,
        command: Buffer,
        *,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> Future[Done]:
        """Proposes a command. Never blocks.

        The future's result is what the state machine answered, and where the entry is. It raises `Reject` if the
        machine turned the command down, a `Refused` if it is certainly not in the log, and `UnknownOutcome` if
        nobody can tell. `timeout` is `propose_timeout_ms` without a value of its own.
        """
        return self._native.propose(command, timeout, forward, expected_term)

    def propose_many(
        self,
        commands: Iterable[Buffer],
        *,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> Future[list[Outcome]]:
        """Proposes commands that reach the log in this order, though other callers' may stand between them.

        The result is a list of what became of each: a `Done`, or the exception that its own future would raise.
        Never blocks.
        """
        return self._native.propose_many(commands, timeout, forward, expected_term)

    def read(
        self,
        function: Callable[[_M_co], _T],
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> _T:
        """Calls a function with this node's state machine, once it is as new as `level` asks, and gives what it returns.

        It runs between two commands on the machine's thread: it needs no lock, must change nothing, and must return
        nothing that later commands change.
        """
        return self.read_future(function, level=level, timeout=timeout).result()

    def read_future(
        self,
        function: Callable[[_M_co], _T],
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> Future[_T]:
        """As `read`, without blocking."""
        return self._native.read(function, level.kind, level.bound, timeout)

    def query(
        self,
        request: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> bytes:
        """Asks the machine in bytes: `StateMachine.query`, or a query of the key-value store."""
        return self.query_future(request, level=level, timeout=timeout).result()

    def query_future(
        self,
        request: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> Future[bytes]:
        """As `query`, without blocking."""
        return self._native.query(request, level.kind, level.bound, timeout)

    def status(self) -> Status:
        """How the node is: a matter of microseconds, whatever its machine does."""
        return _status(self._native.status())

    def metrics(self) -> Metrics:
        """What the node has counted and measured. Takes no lock, and waits for nobody."""
        return _metrics(self._native.metrics())

    def metrics_text(self) -> str:
        """The same as Prometheus reads it; serve it where you like, as
        `application/openmetrics-text; version=1.0.0; charset=utf-8`."""
        return self._native.metrics_text()

    @property
    def address(self) -> str | None:
        """Where it listens, with the port that it really got."""
        return self._native.listen_address()

    def wait_for_leader(self, timeout: float = 10.0) -> int:
        """Waits until this node knows a leader, and gives its id."""
        return self._native.wait_for_leader(timeout)

    def wait_for_applied(self, index: int, timeout: float = 10.0) -> None:
        """Waits until this node's machine has applied everything up to `index`."""
        self._native.wait_for_applied(index, timeout)

    def snapshot(self, timeout: float = 60.0) -> Snapshot:
        """Takes a snapshot of everything that is applied now, and waits for it."""
        return Snapshot(*self._native.snapshot(timeout))

    def transfer_leadership(self, target: int | None = None, timeout: float = 10.0) -> int:
        """Has another node lead, `target` or whoever suits best, and gives the new leader. Only a leader can."""
        return self._native.transfer_leadership(target, timeout)

    def step_down(self, timeout: float = 10.0) -> int:
        """Has the best of the others lead, and leaves elections to them for a while. Gives the new leader."""
        return self._native.step_down(timeout)

    def campaign(self) -> None:
        """Makes this node stand for election now. It wins only if the others agree."""
        self._native.campaign()

    def events(self, *kinds: type[Event], timeout: float = 10.0) -> Events:
        """The node's events from now on: of these classes of `raftz.events`, or all.

        To iterate over them ends when the node has ended, or none came for `timeout` seconds.
        """
        return Events(self._native.subscribe([kind.KIND for kind in kinds]), timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Stops the node: refuses new calls, hands over if it leads, answers calls in flight, closes the log, and waits
        until all its threads have ended. May be called again. Raises `StillRunning` if something does not return."""
        if not self._closed:
            self._native.close(timeout)
            self._closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed, and all its threads have ended."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<raftz.Node {self.node_id}{' closed' if self._closed else ''}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # The native half, which goes with this, asks the node to stop, and waits for nobody.
        if not getattr(self, "_closed", True) and not self._native.is_elsewhere:
            _warn(f"{self!r} was never closed; it stops by itself", ResourceWarning, source=self)


def _claim(machine: StateMachine) -> None:
    """Nobody else's machine: what one node has applied would be applied to it again."""
    if getattr(machine, "_serves_a_node", False):
        message = "this state machine has served a node already; give each node, and each start, a new one"
        raise ConfigError(message)
    object.__setattr__(machine, "_serves_a_node", True)


def _forked() -> None:
    _raftz.forked()
    forked()
    _live.clear()


def _close_all() -> None:
    """At the end of the process: as long as the interpreter is there, for nobody may call it later."""
    end = time.monotonic() + _EXIT_SECONDS
    for node in list(_live):
        try:
            node.close(max(0.1, end - time.monotonic()))
        except RaftzError as error:
            _LOGGER.warning("%r was not closed at the end of the process: %s", node, error)
    stop_logs(1.0)


os.register_at_fork(after_in_child=_forked)
atexit.register(_close_all)
