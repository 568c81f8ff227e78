"""raftz for asyncio: the same names, to be awaited.

    async with raftz.aio.Node(raftz.KvStore(), node_id=1, cluster_id=1, founders={1: "127.0.0.1:7001"}) as node:
        await node.wait_for_leader()
        done = await node.propose(command)

There is no loop of its own: answers are left for the loop that the node was started in, which is woken once for as
many as there are. What is proposed is a future, so that many can be on their way without a task for each.
To cancel the wait does not take a proposal back: it may still be done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _raftz, node
from ._threads import start
from .errors import Closed, RaftzError
from .events import Event, _event
from .machine import CountingMachine, KvStore, StateMachine
from .node import ReadLevel, Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Any, ParamSpec, Self

    from typing_extensions import Buffer

    from ._raftz import Done
    from .node import Outcome
    from .status import Metrics, Status

    P = ParamSpec("P")

__all__ = ["Events", "Node"]

_T = TypeVar("_T")
_M_co = TypeVar("_M_co", bound=StateMachine | KvStore | CountingMachine, covariant=True)


class Events:
    """Events of a node from some moment on; see `Node.events`. For `async for`, which ends with the node."""

    def __init__(self, native: _raftz.Subscription) -> None:
        self._native: _raftz.Subscription | None = native
        self._dropped = 0
        self._come = asyncio.Event()
        desk, come = _raftz.LoopDesk(), self._come

        def woken(desk: _raftz.LoopDesk) -> None:
            desk.take()
            come.set()

        # The loop holds what it wakes, but not this, so that nobody need close it.
        self._leave = weakref.finalize(self, _watch(desk, woken))
        self._leave.atexit = False
        native.wake(desk)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while self._native is not None:
            self._come.clear()
            try:
                shown = self._native.try_next()
            except Closed:
                break
            if shown is not None:
                return _event(shown)
            await self._come.wait()
        self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        """Lets the events go, and ends whoever iterates over them. Happens by itself when the last event of the node
        was taken, or when nobody holds this any more."""
        if self._native is not None:
            self._dropped = self._native.dropped
            self._native = None
            self._come.set()
            self._leave()

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody took them in time."""
        return self._dropped if self._native is None else self._native.dropped


class _Node(node.Node[_M_co]):
    """The node for threads, which tells the loop that it is closed, whoever has done that."""

    _leave: Callable[[], None] | None = None

    def close(self, timeout: float = 10.0) -> None:
        super().close(timeout)
        if self._leave is not None:
            self._leave()


class Node(Generic[_M_co]):
    """A running node, for one event loop: start it with `async with`, or await `start` and `close`.

    The arguments, and what is raised, are those of `raftz.Node`, which is there as `sync`, for other threads. Calls are
    for the loop's own thread, and never block it.

    >>> import asyncio
    >>> async def main():
    ...     keys = {"node_id": 1, "cluster_id": "c1", "founders": {1: "127.0.0.1:7001"}}
    ...     async with raftz.aio.Node(raftz.KvStore(), **keys) as alone:
    ...         await alone.wait_for_leader()
    ...         await alone.propose(raftz.kv.set(b"city", b"Torino"))
    ...         return raftz.kv.value(await alone.query(raftz.kv.get(b"city")))
    >>> asyncio.run(main())
    b'Torino'
    """

    def __init__(self, machine: _M_co, **keys: Any) -> None:
        self._make: Callable[[], _Node[_M_co]] = lambda: _Node(machine, **keys)
        self._sync: _Node[_M_co] | None = None
        self._desk: _raftz.LoopDesk | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> Self:
        """Starts the node. Its calls belong to the loop that runs this."""
        if self._loop is not None:
            raise RuntimeError("the node was started already")
        self._loop = asyncio.get_running_loop()
        leave: Callable[[], None] | None = None
        try:
            # What can fail comes before the node, which nobody would close then.
            desk = _raftz.LoopDesk()
            leave = _watch(desk, _drain)
            # A start that nobody waits for any more is not one that nobody closes.
            sync = await _apart("raftz-start", self._make, unwanted=_abandon)
        except BaseException:
            self._loop = None
            if leave is not None:
                leave()
            raise
        self._desk, self._sync = desk, sync
        sync._leave = leave
        return self

    @property
    def sync(self) -> node.Node[_M_co]:
        """The node for threads, whose calls block."""
        if self._sync is None:
            raise RuntimeError("the node is not started; use 'async with', or await start()")
        return self._sync

    def _future(self) -> tuple[_raftz.Node, _raftz.LoopDesk, asyncio.Future[Any]]:
        native = self.sync._native
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._desk is None:
            raise RuntimeError("the node belongs to another event loop; start one in this loop")
        return native, self._desk, loop.create_future()

    def propose(
        self,
        command: Buffer,
        *,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> asyncio.Future[Done]:
        """As `raftz.Node.propose`. On its way already before it is awaited; to cancel the wait takes nothing back."""
        native, desk, future = self._future()
        if not native.propose_to(desk, future, command, timeout, forward, expected_term):
            _drain(desk)
        return future

    def propose_many(
        self,
        commands: Iterable[Buffer],
        *,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> asyncio.Future[list[Outcome]]:
        """As `raftz.Node.propose_many`."""
        native, desk, future = self._future()
        if not native.propose_many_to(desk, future, node._listed(commands), timeout, forward, expected_term):
            _drain(desk)
        return future

    def read(
        self,
        function: Callable[[_M_co], _T],
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> asyncio.Future[_T]:
        """As `raftz.Node.read`: the function runs on the machine's thread, not in the loop."""
        native, desk, future = self._future()
        if not native.read_to(desk, future, function, True, *node._asked(level), timeout):
            _drain(desk)
        return future

    def query(
        self,
        request: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> asyncio.Future[bytes]:
        """As `raftz.Node.query`."""
        native, desk, future = self._future()
        if not native.read_to(desk, future, request, False, *node._asked(level), timeout):
            _drain(desk)
        return future

    def status(self) -> Status:
        """As `raftz.Node.status`; does not wait."""
        return self.sync.status()

    def metrics(self) -> Metrics:
        """As `raftz.Node.metrics`."""
        return self.sync.metrics()

    def metrics_text(self) -> str:
        """As `raftz.Node.metrics_text`."""
        return self.sync.metrics_text()

    def events(self, *kinds: type[Event]) -> Events:
        """The node's events from now on: of these classes of `raftz.events`, or all."""
        return Events(self.sync._native.subscribe([kind.KIND for kind in kinds]))

    def wait_for_leader(self, timeout: float = 10.0) -> Awaitable[int]:
        """As `raftz.Node.wait_for_leader`. This and the next ones wait on a thread of asyncio's pool."""
        return asyncio.to_thread(self.sync.wait_for_leader, timeout)

    def wait_for_applied(self, index: int, timeout: float = 10.0) -> Awaitable[None]:
        """As `raftz.Node.wait_for_applied`."""
        return asyncio.to_thread(self.sync.wait_for_applied, index, timeout)

    def snapshot(self, timeout: float = 60.0) -> Awaitable[Snapshot]:
        """As `raftz.Node.snapshot`."""
        return asyncio.to_thread(self.sync.snapshot, timeout)

    def transfer_leadership(
        self, target: int | None = None, timeout: float = 10.0
    ) -> Awaitable[int]:
        """As `raftz.Node.transfer_leadership`."""
        return asyncio.to_thread(self.sync.transfer_leadership, target, timeout)

    def step_down(self, timeout: float = 10.0) -> Awaitable[int]:
        """As `raftz.Node.step_down`."""
        return asyncio.to_thread(self.sync.step_down, timeout)

    async def close(self, timeout: float = 10.0) -> None:
        """Stops the node, as `raftz.Node.close`. Calls in flight have their answers then. To cancel the wait does not
        keep it from stopping."""
        if self._sync is not None and not self._sync.closed:
            await _apart("raftz-close", functools.partial(self._sync.close, timeout))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _watch(desk: _raftz.LoopDesk, woken: Callable[[_raftz.LoopDesk], None]) -> Callable[[], None]:
    """Has the running loop call `woken` when there is something on the desk. Gives what ends that, from any thread."""
    loop = asyncio.get_running_loop()
    loop.add_reader(desk.fileno(), woken, desk)

    def left() -> None:
        loop.remove_reader(desk.fileno())
        woken(desk)

    def leave() -> None:
        # A loop that was closed watches nothing. The desk, and with it the descriptor's number, lasts until then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(left)

    return leave


def _drain(desk: _raftz.LoopDesk) -> None:
    """Ends the futures whose answers are there, but for those that were cancelled."""
    for future, value, error in desk.take():
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            # No future takes one: it would end the generator that waits.
            replaced = RuntimeError("the function raised StopIteration")
            replaced.__cause__ = error
            future.set_exception(replaced)
        else:
            future.set_exception(error)


async def _apart(
    name: str, call: Callable[[], _T], unwanted: Callable[[_T], object] | None = None
) -> _T:
    """Has a thread of its own make a blocking call: asyncio's pool may be full of calls that take longer. If nobody
    waits any more, because the wait was cancelled or the loop closed, `unwanted` has what it gives."""
    loop, come = asyncio.get_running_loop(), asyncio.Event()
    ended: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:
            ended.set_exception(error)
        # A loop that was closed meanwhile waits for nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(come.set)

    def let_go() -> None:
        if unwanted is not None and ended.exception() is None:
            unwanted(ended.result())

    start(name, run)
    try:
        await come.wait()
    except BaseException:
        ended.add_done_callback(lambda _: start(name, let_go))
        raise
    return ended.result()


def _abandon(started: node.Node[Any]) -> None:
    """Closes what was started for somebody who did not wait."""
    # What does not end in time ends by itself later.
    with contextlib.suppress(RaftzError):
        started.close()
