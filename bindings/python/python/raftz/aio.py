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
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _raftz, node
from .errors import Closed
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
        self._native = native
        self._loop = asyncio.get_running_loop()
        self._desk = _raftz.LoopDesk()
        self._come = asyncio.Event()
        native.wake(self._desk)
        self._loop.add_reader(self._desk.fileno(), self._woken)

    def _woken(self) -> None:
        self._desk.take()
        self._come.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            self._come.clear()
            try:
                shown = self._native.try_next()
            except Closed:
                self.close()
                raise StopAsyncIteration from None
            if shown is not None:
                return _event(shown)
            await self._come.wait()

    def close(self) -> None:
        """Lets the events go. Happens by itself at the end of the node."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._desk.fileno())

    @property
    def dropped(self) -> int:
        """How many events were dropped because nobody took them in time."""
        return self._native.dropped


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
        self._make: Callable[[], node.Node[_M_co]] = lambda: node.Node(machine, **keys)
        self._sync: node.Node[_M_co] | None = None
        self._desk: _raftz.LoopDesk | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> Self:
        """Starts the node. Its calls belong to the loop that runs this."""
        if self._sync is not None:
            raise RuntimeError("the node was started already")
        self._loop = asyncio.get_running_loop()
        # A start that nobody waits for any more is not one that nobody closes.
        starting = asyncio.ensure_future(asyncio.to_thread(self._make))
        try:
            self._sync = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_abandon)
            raise
        self._desk = _raftz.LoopDesk()
        self._loop.add_reader(self._desk.fileno(), _drain, self._desk)
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
        if not native.read_to(desk, future, function, True, level.kind, level.bound, timeout):
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
        if not native.read_to(desk, future, request, False, level.kind, level.bound, timeout):
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
        """Stops the node, as `raftz.Node.close`. Calls in flight have their answers then."""
        if self._sync is None or self._sync.closed:
            return
        await asyncio.to_thread(self._sync.close, timeout)
        if self._desk is not None and self._loop is not None:
            self._loop.remove_reader(self._desk.fileno())
            _drain(self._desk)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


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


def _abandon(starting: asyncio.Future[node.Node[Any]]) -> None:
    """Closes what was started for somebody who did not wait."""
    if not starting.cancelled() and starting.exception() is None:
        starting.get_loop().run_in_executor(None, starting.result().close)
