"""What the native half gives to the Python half. Not for users, but for the classes that `raftz` names."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, final

from typing_extensions import Buffer, Self

from .errors import RaftzError

__all__ = [
    "CallQueue",
    "Calls",
    "leave",
    "Config",
    "Listener",
    "config_keys",
    "failure",
    "Subscription",
    "forked",
    "may_start",
    "Done",
    "Future",
    "Entry",
    "Job",
    "Jobs",
    "SnapshotReader",
    "SnapshotWriter",
    "kv_compare_and_set",
    "kv_delete",
    "kv_digest",
    "kv_get",
    "kv_increment",
    "kv_reply",
    "kv_scan",
    "kv_set",
    "log_level",
    "log_stop",
    "log_take",
    "LoopDesk",
    "Node",
    "Histogram",
]

_T_co = TypeVar("_T_co", covariant=True)

@final
class Done:
    """A command that was committed and applied."""

    @property
    def reply(self) -> bytes:
        """What the state machine answered."""
    @property
    def index(self) -> int:
        """Index of its entry."""
    @property
    def term(self) -> int:
        """Term of its entry."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Future(Generic[_T_co]):
    """A call in flight, which ends by its deadline in any case.

    It has the methods of `concurrent.futures.Future` that make sense for it, but is none: `concurrent.futures.wait`
    and `asyncio.wrap_future` do not know it, and what was proposed cannot be cancelled.
    """

    def result(self, timeout: float | None = None) -> _T_co:
        """Waits for the end of the call and gives its result, or raises why there is none. Without a timeout it waits for
        as long as the call has. TimeoutError says that it goes on, and can be waited for again."""
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the end of the call and gives the exception that it ended with, or None."""
    def done(self) -> bool:
        """Whether the call has ended. Never blocks. Raises `ForkedProcess` in a child, where nothing ends."""
    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Calls `callback` with this future when the call has ended, or as soon as that can be if it has, on the node's
        callback thread. What it raises goes to `threading.excepthook`, and no further. Raises `ThreadError` if there is
        no thread to be had, and keeps nothing then."""
    def _ended(self) -> list[Callable[[Self], object]]: ...
    def __class_getitem__(cls, key: Any) -> Any: ...

@final
class Entry:
    """One committed command, in log order."""

    def __new__(cls, index: int, data: bytes, term: int = 1, log_time_us: int = 0) -> Self:
        """An entry, for tests of state machines."""
    @property
    def index(self) -> int:
        """Index of its entry. Indexes grow but have gaps: not every entry is a command."""
    @property
    def term(self) -> int:
        """Term of its entry."""
    @property
    def log_time_us(self) -> int:
        """The cluster's clock when it was appended, in microseconds; never decreases."""
    @property
    def data(self) -> bytes:
        """The bytes that were proposed."""

@final
class SnapshotReader:
    """The bytes of a snapshot, from the front."""

    def read(self, size: int = ...) -> bytes:
        """Reads at most `size` bytes, or all that is left; fewer only at the end."""

@final
class SnapshotWriter:
    """Takes the bytes of a snapshot."""

    def write(self, data: Buffer) -> int:
        """Writes bytes, all of them."""
    def close(self) -> None:
        """Hands over what is left, and ends. The package does so after `write_snapshot`."""

@final
class Histogram:
    """How often values fell into each of some fixed ranges."""

    @property
    def count(self) -> int:
        """How many values were counted."""
    @property
    def sum(self) -> int:
        """Their sum."""
    @property
    def ranges(self) -> list[tuple[int | None, int]]:
        """The largest value of each range but the last, and how many fell into it; the last range has no bound."""
    def at_most(self, part: float) -> int | None:
        """A bound that at least this part of the values does not exceed, 0.99 for the 99th percentile."""

@final
class Listener:
    """A port that is taken already, so that nodes can learn each other's before any of them starts."""

    def __new__(cls, address: str = "127.0.0.1:0") -> Self:
        """Takes a port; 0 lets the system choose. Raises `NetworkError`."""
    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
    def close(self) -> None:
        """Gives the port up."""

@final
class Config:
    def __new__(cls, node_id: int, cluster_id: int) -> Self: ...
    def set(self, key: str, value: str) -> None: ...
    def directory(self, path: str) -> None: ...
    def entries(self) -> list[tuple[str, str]]: ...
    def found(self) -> None: ...
    def is_formatted(self) -> bool: ...

@final
class Calls:
    def __new__(cls, serve: Callable[[tuple[CallQueue]], int]) -> Self: ...
    @property
    def is_served(self) -> bool: ...

@final
class CallQueue:
    @property
    def is_nodes(self) -> bool: ...
    def take(self) -> list[Future[Any]] | None: ...

@final
class Jobs:
    def __new__(cls) -> Self: ...
    def take(self) -> Job | None: ...
    def close(self) -> None: ...

@final
class Job:
    @property
    def kind(self) -> str: ...
    def subject(self) -> Any: ...
    def returned(self, value: object) -> None: ...
    def raised(self, error: BaseException) -> None: ...
    def done(self, answer: object) -> None: ...
    def fail(self, why: str, answered: int = 0) -> None: ...

@final
class LoopDesk:
    def __new__(cls) -> Self: ...
    def fileno(self) -> int: ...
    def take(self) -> list[tuple[Any, Any, BaseException | None]]: ...

@final
class Subscription:
    def next(self, timeout: float) -> tuple[Any, ...] | None: ...
    def try_next(self) -> tuple[Any, ...] | None: ...
    def wake(self, desk: LoopDesk) -> None: ...
    @property
    def dropped(self) -> int: ...

@final
class Node:
    def __new__(
        cls,
        config: Config,
        machine: str | tuple[Jobs, Jobs],
        calls: Calls,
        listener: Listener | None = None,
    ) -> Self: ...
    def propose(
        self,
        command: Buffer,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> Future[Done]: ...
    def propose_many(
        self,
        commands: Iterable[Buffer],
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> Future[Any]: ...
    def query(
        self,
        request: Buffer,
        level: str = "linearizable",
        bound: int = 0,
        timeout: float | None = None,
    ) -> Future[bytes]: ...
    def read(
        self,
        function: Callable[..., Any],
        level: str = "linearizable",
        bound: int = 0,
        timeout: float | None = None,
    ) -> Future[Any]: ...
    def propose_to(
        self,
        desk: LoopDesk,
        future: object,
        command: Buffer,
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> bool: ...
    def propose_many_to(
        self,
        desk: LoopDesk,
        future: object,
        commands: Iterable[Buffer],
        timeout: float | None = None,
        forward: bool | None = None,
        expected_term: int | None = None,
    ) -> bool: ...
    def read_to(
        self,
        desk: LoopDesk,
        future: object,
        what: object,
        is_call: bool,
        level: str = "linearizable",
        bound: int = 0,
        timeout: float | None = None,
    ) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    def metrics(self) -> dict[str, Any]: ...
    def metrics_text(self) -> str: ...
    def listen_address(self) -> str | None: ...
    def wait_for_leader(self, timeout: float) -> int: ...
    def wait_for_applied(self, index: int, timeout: float) -> None: ...
    def snapshot(self, timeout: float) -> tuple[int, int, int]: ...
    def transfer_leadership(self, target: int | None, timeout: float) -> int: ...
    def step_down(self, timeout: float) -> int: ...
    def campaign(self) -> None: ...
    def close(self, timeout: float) -> None: ...
    def subscribe(self, kinds: list[int]) -> Subscription: ...
    @property
    def is_elsewhere(self) -> bool: ...

def leave() -> None: ...
def failure(
    code: int, message: str, leader: int | None = None, os_error: int | None = None
) -> RaftzError: ...
def forked() -> None: ...
def may_start() -> None: ...
def config_keys() -> list[str]: ...
def log_level(level: int) -> None: ...
def log_take() -> list[tuple[int, str]] | None: ...
def log_stop() -> None: ...
def kv_set(key: Buffer, value: Buffer) -> bytes: ...
def kv_delete(key: Buffer) -> bytes: ...
def kv_compare_and_set(key: Buffer, expected: Buffer | None, value: Buffer | None) -> bytes: ...
def kv_increment(key: Buffer, by: int) -> bytes: ...
def kv_get(key: Buffer) -> bytes: ...
def kv_scan(prefix: Buffer, after: Buffer | None, limit: int) -> bytes: ...
def kv_digest() -> bytes: ...
def kv_reply(answer: Buffer) -> tuple[Any, ...]: ...
