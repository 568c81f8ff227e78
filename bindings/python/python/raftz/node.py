"""A node: one member of one cluster, with its storage, its network and its state machine."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import re
import time
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypedDict, TypeVar

from . import _raftz
from ._threads import Threads, forked, start_logs, stop_logs
from .errors import Closed, RaftzError
from .events import Event, _event
from .machine import CountingMachine, KvStore, StateMachine, _Claim, _serve
from .status import Metrics, Status, _metrics, _status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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
# An age is counted in microseconds, in 64 bits; longer is as good as this.
_LONGEST_SECONDS = 1e9
# Hyphens may stand between digits, as in a UUID.
_CLUSTER_ID = re.compile(r"[0-9a-fA-F](-*[0-9a-fA-F]){0,31}")
# Keys of the core that an argument of a node in Python stands for, or that only a store of a program's own has.
_ELSEWHERE = {"storage": "data_dir", "snapshot_directory": "data_dir"}


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
    """How new the answer to a read must be.

    >>> raftz.ReadLevel.at_least(7)
    ReadLevel(kind='at_least', bound=7)
    """

    kind: str
    bound: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bound < 1 << 64:
            message = f"{self.kind}({self.bound}): a whole number from 0 to 2**64 - 1 is wanted"
            raise _raftz.failure(-97, message)

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
        """All that was acknowledged longer ago than so many seconds."""
        if not seconds >= 0:
            message = f"bounded({seconds}): a number of seconds of 0 or more is wanted"
            raise _raftz.failure(-97, message)
        return ReadLevel("bounded", int(min(seconds, _LONGEST_SECONDS) * 1_000_000))


ReadLevel.LINEARIZABLE = ReadLevel("linearizable")
ReadLevel.LEASE = ReadLevel("lease")
ReadLevel.STALE = ReadLevel("stale")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that was taken: the last entry that it covers, and its size. It is on the disk, synced."""

    index: int
    term: int
    bytes: int


class Events:
    """Events of a node from some moment on; see `Node.events`. To be iterated over, or asked one by one."""

    def __init__(self, native: _raftz.Subscription, timeout: float) -> None:
        self._native = native
        self._timeout = timeout

    def next(self, timeout: float = 10.0) -> Event | None:
        """Waits for the next event, so many seconds at most; None if none came. Raises `Closed` after the node's last one."""
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
        if not _CLUSTER_ID.fullmatch(cluster_id):
            message = f"cluster_id = {cluster_id!r}: 1 to 32 hexadecimal digits are wanted"
            raise _raftz.failure(-64, message)
        cluster_id = int(cluster_id.replace("-", ""), 16)
    config = _raftz.Config(node_id, cluster_id)
    if founders:
        if not isinstance(founders, Mapping):
            message = f"founders = {founders!r}: addresses by id are wanted, such as {{1: '127.0.0.1:7001'}}"
            raise TypeError(message)
        config.set("founders", ",".join(f"{id}={address}" for id, address in founders.items()))
    if data_dir is not None:
        config.directory(os.fsdecode(data_dir))
    for key, value in keys.items():
        if key in _ELSEWHERE:
            # It would contradict the argument, and nobody could tell which of them counts.
            message = f"{key} = {value!r}: a node in Python has no such key; the nearest is \"{_ELSEWHERE[key]}\""
            raise _raftz.failure(-64, message)
        config.set(key, _text(value))
    return config


_live: weakref.WeakSet[Node[Any]] = weakref.WeakSet()


class Node(Generic[_M_co]):
    """A running node.

    It may be used from all threads at once. Times are in seconds. Calls that block are bounded in time, let other
    threads run, notice Ctrl-C, and are refused inside callbacks (`ReentrantCall`). After `close` calls raise, or end
    with, `Closed`; after a fault `Faulted`; in a child of a fork `ForkedProcess`. Close it, or use it in a `with`
    statement.

    The machine is a `StateMachine` of your own, a new one for each node and each start, or `KvStore()`. `founders`
    are the founding members, addresses by id, the same on every node. The log is in `data_dir`, synced before
    anything is acknowledged, or without one in memory, and gone with the process. `bootstrap` founds the cluster on
    this node if its directory holds nothing yet: say so on the founders' first start. Other keys are those of `Keys`.

    To make one starts it, which reads the log and takes as long as that. Raises `ConfigError` for what cannot be or
    contradicts itself, `StorageError` for a directory that cannot be used, `NetworkError` for an address,
    `MachineError` for a machine that cannot be restored, `ThreadError` where the system's limits are too low,
    `ForkedProcess` in a child of a process that ran a node when it was forked.

    >>> with raftz.Node(raftz.KvStore(), node_id=1, cluster_id="c1", founders={1: "127.0.0.1:7001"}) as alone:
    ...     alone.wait_for_leader()
    1
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
        _raftz.may_start()
        self.node_id = node_id
        config = _configured(node_id, cluster_id, founders, data_dir, keys)
        if bootstrap and data_dir is not None:
            config.found()
        start_logs()
        self._threads = threads = Threads(f"raftz-{node_id}")
        self._calls = calls = _raftz.Calls(threads.serve_calls())
        if isinstance(machine, StateMachine):
            commands, snapshots = _raftz.Jobs(), _raftz.Jobs()
            claim = _claim(machine)
            try:
                threads.start("apply", _serve, commands, snapshots, machine, claim, threads)
                self._native = _raftz.Node(config, (commands, snapshots), calls, listener)
            except BaseException as error:
                commands.close()
                # What a signal has interrupted goes on for a while, and may yet come to the machine.
                if isinstance(error, RaftzError) and not claim.has_changed:
                    object.__setattr__(machine, "_serves_a_node", None)
                raise
        elif isinstance(machine, (KvStore, CountingMachine)):
            self._native = _raftz.Node(config, machine._native, calls, listener)
        else:
            message = f"{machine!r} is no state machine: an object of a class of raftz.StateMachine's, or raftz.KvStore()"
            raise TypeError(message)
        self._closed = False
        _live.add(self)

    @staticmethod
    def is_formatted(data_dir: str | os.PathLike[str]) -> bool:
        """Whether a directory holds a node's data. Opens nothing, and changes nothing."""
        return _configured(1, 1, None, data_dir, {}).is_formatted()

    def propose(
        self,
        command: Buffer,
        *,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> Future[Done]:
        """Proposes a command, whose bytes are copied. Never blocks; any node will do, which asks the leader.

        The future's result is what the state machine answered, and where the entry is: then a majority has synced it.
        It raises `Reject` if the machine turned the command down, a `Refused` if it is certainly not in the log, and
        `UnknownOutcome` if nobody can tell. One of these it is after `timeout` seconds at the latest, or without a
        value of its own after `propose_timeout_ms`. With `forward=False` a follower answers `NotLeader`; with an
        `expected_term` nobody takes the command in another term (`TermMismatch`).

        >>> node.propose(b"41").result().reply
        b'41'
        >>> futures = [node.propose(b"1") for _ in range(3)]  # all on their way at once
        >>> [future.result().reply for future in futures]
        [b'42', b'43', b'44']
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
        Never blocks. It costs much less than a future for each; the rest is as `propose`.

        >>> [outcome.reply for outcome in node.propose_many([b"1", b"2"]).result()]
        [b'1', b'3']
        """
        return self._native.propose_many(_listed(commands), timeout, forward, expected_term)

    def read(
        self,
        function: Callable[[_M_co], _T],
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> _T:
        """Calls a function with this node's state machine, once it is as new as `level` asks, and gives what it returns.

        It runs between two commands on the machine's thread: it needs no lock, must change nothing, and must return
        nothing that later commands change. What it raises is raised here. Blocks for `timeout` seconds at most, or
        without a value of its own for `read_timeout_ms`. Then it raises `LeaderTimeout` if no leader has confirmed that
        the answer would be new enough, `ApplyTimeout` if this node's machine has not come so far, and `ReadTimeout` if
        it has, but had no time for the function. A read that fails has changed nothing and may be tried again.

        >>> index = node.propose(b"41").result().index
        >>> node.read(lambda counter: counter.n)
        41
        >>> node.read(lambda counter: counter.n, level=raftz.ReadLevel.at_least(index))
        41
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
        return self._native.read(function, *_asked(level), timeout)

    def query(
        self,
        request: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> bytes:
        """Asks the machine in bytes: `StateMachine.query`, or a query of the key-value store.

        As `read`; besides it raises `Reject` if the machine turned the question down, and `ReadFailed` if it raised
        something else, which harms nobody else.
        """
        return self.query_future(request, level=level, timeout=timeout).result()

    def query_future(
        self,
        request: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> Future[bytes]:
        """As `query`, without blocking."""
        return self._native.query(request, *_asked(level), timeout)

    def status(self) -> Status:
        """How the node is: a matter of microseconds, whatever its machine does. Works anywhere, also in callbacks.

        >>> node.status().role
        'leader'
        """
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
        """Waits until this node knows a leader, and gives its id. Raises `LeaderTimeout`, which says who is missing.

        >>> node.wait_for_leader(timeout=5)
        1
        """
        return self._native.wait_for_leader(timeout)

    def wait_for_applied(self, index: int, timeout: float = 10.0) -> None:
        """Waits until this node's machine has applied everything up to `index`; raises `ApplyTimeout`."""
        self._native.wait_for_applied(index, timeout)

    def snapshot(self, timeout: float = 60.0) -> Snapshot:
        """Takes a snapshot of everything that is applied now, and waits until it is synced. Raises `SnapshotError`."""
        return Snapshot(*self._native.snapshot(timeout))

    def transfer_leadership(self, target: int | None = None, timeout: float = 10.0) -> int:
        """Has another node lead, `target` or whoever suits best, and gives the new leader. Raises `NotLeader` on a node
        that does not lead, which names who does if it knows, and `TransferError`, which says why it stayed."""
        return self._native.transfer_leadership(target, timeout)

    def step_down(self, timeout: float = 10.0) -> int:
        """Has the best of the others lead, and leaves elections to them for a while. Gives the new leader, or raises as
        `transfer_leadership` does."""
        return self._native.step_down(timeout)

    def campaign(self) -> None:
        """Makes this node stand for election now. It wins only if the others agree. Does not wait."""
        self._native.campaign()

    def events(self, *kinds: type[Event], timeout: float = 10.0) -> Events:
        """The node's events from now on: of these classes of `raftz.events`, or all.

        To iterate over them ends when the node has ended, or none came for `timeout` seconds. Whoever is slow misses
        no latest state, and is told how much else was dropped (`raftz.events.Dropped`).

        >>> events = node.events(raftz.events.Snapshot)
        >>> index = node.propose(b"1").result().index
        >>> node.snapshot().index == index
        True
        >>> events.next(timeout=5).phase
        'built'
        """
        return Events(self._native.subscribe([kind.KIND for kind in kinds]), timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Stops the node: refuses new calls, hands over if it leads, answers calls in flight, closes the log, and waits
        until all its threads have ended, those on which the machine and callbacks of futures run among them. May be
        called again. Raises `StillRunning`, which names the threads, if something does not return within `timeout`
        seconds; it ends by itself when that returns."""
        if self._closed:
            return
        end = time.monotonic() + timeout
        self._native.close(timeout)
        left = self._threads.join(end, self._calls)
        if left:
            message = (
                f"still running after {timeout} s: {', '.join(left)}; a callback of a future, or the state machine, "
                "does not return"
            )
            raise _raftz.failure(-72, message)
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


def _listed(commands: Iterable[Buffer]) -> list[Buffer] | tuple[Buffer, ...]:
    """What there is to iterate over without running anybody's code."""
    return commands if isinstance(commands, (list, tuple)) else list(commands)


def _asked(level: ReadLevel) -> tuple[str, int]:
    """A level as the native half takes it."""
    try:
        return level.kind, level.bound
    except AttributeError:
        message = f"level = {level!r}: a raftz.ReadLevel is wanted, such as raftz.ReadLevel.LINEARIZABLE"
        raise TypeError(message) from None


def _claim(machine: StateMachine) -> _Claim:
    """Nobody else's machine, nor a copy of it: what one node has applied would be applied to it again."""
    if getattr(machine, "_serves_a_node", None) is not None:
        message = "this state machine, or what it was copied from, has served a node already; give each node, and each start, a new one"
        raise _raftz.failure(-64, message)
    claim = _Claim()
    object.__setattr__(machine, "_serves_a_node", claim)
    return claim


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
