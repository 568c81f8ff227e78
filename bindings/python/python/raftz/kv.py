"""The key-value store: keys and values are bytes, in the order of the keys' bytes.

`Kv` speaks to a node and waits. Who wants futures, or asyncio, makes commands (`set`, `delete`, `compare_and_set`,
`increment`) for `propose` and requests (`get`, `scan`, `digest`) for `query`, and reads the answer to `get` by `value`.

>>> store.set(b"city", b"Torino") > 0
True
>>> store.compare_and_set(b"city", b"Milano", b"Roma")
False
>>> store.increment(b"visits", 3)
3
>>> list(store.scan())
[(b'city', b'Torino'), (b'visits', b'3')]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import _raftz
from .node import Node, ReadLevel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from typing_extensions import Buffer

    from .machine import KvStore

__all__ = [
    "Digest",
    "Kv",
    "compare_and_set",
    "delete",
    "digest",
    "get",
    "increment",
    "scan",
    "set",
    "value",
]

# Keys of one answer to a scan.
_PAGE = 1000


class Digest(NamedTuple):
    """How many keys have a value, and a number that is equal for equal contents."""

    entries: int
    digest: int


def _answer(reply: bytes, kind: str) -> tuple[Any, ...]:
    """The fields of an answer that must be of this kind."""
    found, *fields = _raftz.kv_reply(reply)
    if found != kind:
        raise AssertionError(f"the store answered {found}, not {kind}")
    return tuple(fields)


def set(key: Buffer, value: Buffer) -> bytes:
    """The command that gives `key` the value `value`."""
    return _raftz.kv_set(key, value)


def delete(key: Buffer) -> bytes:
    """The command that takes `key` out."""
    return _raftz.kv_delete(key)


def compare_and_set(key: Buffer, expected: Buffer | None, value: Buffer | None) -> bytes:
    """The command that writes `value` if the present value is `expected`; None is an absent key."""
    return _raftz.kv_compare_and_set(key, expected, value)


def increment(key: Buffer, by: int = 1) -> bytes:
    """The command that adds `by` to the decimal number under `key`."""
    return _raftz.kv_increment(key, by)


def get(key: Buffer) -> bytes:
    """The request for the value under `key`."""
    return _raftz.kv_get(key)


def scan(prefix: Buffer = b"", after: Buffer | None = None, limit: int = _PAGE) -> bytes:
    """The request for keys that begin with `prefix`, beyond `after`."""
    return _raftz.kv_scan(prefix, after, limit)


def digest() -> bytes:
    """The request for size and digest."""
    return _raftz.kv_digest()


def value(reply: bytes) -> bytes | None:
    """What the answer to `get` holds."""
    found: bytes | None = _answer(reply, "value")[0]
    return found


class Kv:
    """Speaks to a node whose machine is `KvStore`. Writes go to the leader, whichever node this is.

    Each call blocks until the store has answered, `timeout` seconds at most; what it raises is what the futures of
    `Node.propose`, and `Node.query`, raise. When a write returns, a majority has synced it. The store rejects an empty
    key, and an increment of what is no number (`Reject`).

    >>> store.set(b"city", b"Torino") > 0
    True
    >>> store.get(b"city")
    b'Torino'
    >>> store.delete(b"city"), store.get(b"city")
    (True, None)
    """

    def __init__(self, node: Node[KvStore]) -> None:
        if not isinstance(node, Node):
            message = f"a raftz.Node is wanted, not {node!r}; of a node of raftz.aio that is .sync, whose calls block"
            raise TypeError(message)
        self._node = node

    def set(self, key: Buffer, value: Buffer, *, timeout: float | None = None) -> int:
        """Gives `key` the value `value`. The index of the entry, for `ReadLevel.at_least`."""
        return self._node.propose(_raftz.kv_set(key, value), timeout=timeout).result().index

    def delete(self, key: Buffer, *, timeout: float | None = None) -> bool:
        """Takes `key` out. Whether it had a value."""
        done = self._node.propose(_raftz.kv_delete(key), timeout=timeout).result()
        existed: bool = _answer(done.reply, "deleted")[0]
        return existed

    def compare_and_set(
        self,
        key: Buffer,
        expected: Buffer | None,
        value: Buffer | None,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Writes `value` if the present value is `expected`; None is an absent key. Whether it was."""
        command = _raftz.kv_compare_and_set(key, expected, value)
        done = self._node.propose(command, timeout=timeout).result()
        return bool(_raftz.kv_reply(done.reply)[0] == "swapped")

    def increment(self, key: Buffer, by: int = 1, *, timeout: float | None = None) -> int:
        """Adds `by` to the decimal number under `key`, 0 if it is absent. The sum."""
        done = self._node.propose(_raftz.kv_increment(key, by), timeout=timeout).result()
        number: int = _answer(done.reply, "number")[0]
        return number

    def get(
        self,
        key: Buffer,
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> bytes | None:
        """The value under `key`, or None."""
        reply = self._node.query(_raftz.kv_get(key), level=level, timeout=timeout)
        value: bytes | None = _answer(reply, "value")[0]
        return value

    def scan(
        self,
        prefix: Buffer = b"",
        *,
        level: ReadLevel = ReadLevel.LINEARIZABLE,
        timeout: float | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with `prefix`, and their values, in order. Asks page by page, so that what changes
        meanwhile may be seen."""
        after: bytes | None = None
        while True:
            request = _raftz.kv_scan(prefix, after, _PAGE)
            entries, more = _answer(self._node.query(request, level=level, timeout=timeout), "scanned")
            yield from entries
            if not more:
                return
            after = entries[-1][0]

    def digest(
        self, *, level: ReadLevel = ReadLevel.LINEARIZABLE, timeout: float | None = None
    ) -> Digest:
        """Size and digest of the whole store: equal on nodes that hold the same."""
        reply = self._node.query(_raftz.kv_digest(), level=level, timeout=timeout)
        return Digest(*_answer(reply, "digest"))
