"""Why calls fail.

Every error of raftz is a :class:`RaftzError` and has the number that ``raftz.h`` gives it, ``code``. What a
proposal can end with besides being done is told apart by class:

* :class:`Refused`: the command is certainly not in the log, now or ever. To repeat it is safe.
* :class:`UnknownOutcome`: it may be in the log. To repeat it is safe only if doing it twice is as good as once.
* :class:`Reject`: it is done, and the state machine turned it down, alike on every node. No error of raftz.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ApplyTimeout",
    "Busy",
    "Closed",
    "ConfigError",
    "Faulted",
    "ForkedProcess",
    "InternalError",
    "InvalidArgument",
    "LeaderTimeout",
    "MachineError",
    "NetworkError",
    "NoLeader",
    "NotLeader",
    "Overwritten",
    "RaftzError",
    "ReadFailed",
    "ReadTimeout",
    "ReentrantCall",
    "Refused",
    "Reject",
    "SnapshotError",
    "StillRunning",
    "StorageError",
    "StorageFull",
    "TermMismatch",
    "ThreadError",
    "TooLarge",
    "TransferError",
    "UnknownOutcome",
]


class Reject(Exception):
    """Raised by a state machine that turns a command or a query down, and by the future of who asked.

    It is an ordinary answer, and must be the same on every node. ``index`` and ``term`` are those of the command's
    entry, for who proposed it.

    >>> try:
    ...     node.propose(b"no").result()
    ... except raftz.Reject as reject:
    ...     print(reject)
    not that
    """

    def __init__(
        self, reason: bytes | str = b"", *, index: int | None = None, term: int | None = None
    ) -> None:
        # Not bytes(reason): of a number that is so many zeros. A text may hold what no UTF-8 does.
        self.reason = (
            reason.encode(errors="backslashreplace")
            if isinstance(reason, str)
            else bytes(memoryview(reason))
        )
        self.index = index
        self.term = term
        super().__init__(self.reason)

    def __str__(self) -> str:
        return self.reason.decode(errors="replace")


class RaftzError(Exception):
    """What raftz raises.

    >>> try:
    ...     node.propose(bytes(5 << 20)).result()
    ... except raftz.Refused as why:
    ...     print(type(why).__name__, why.code, why.retriable)
    TooLarge -5 False
    """

    code: int = 0
    """The number, the same in every language."""
    leader: int | None = None
    """Who leads, where the error can tell."""
    _RETRIABLE: ClassVar[frozenset[int]] = frozenset(
        (-1, -2, -3, -4, -6, -69, -70, -71, -72, -81, -82, -83)
    )

    @property
    def retriable(self) -> bool:
        """Whether the same call may well succeed a little later, and has certainly had no effect yet."""
        return self.code in self._RETRIABLE


class Refused(RaftzError):
    """The command is certainly not in the log, now or ever."""


class NotLeader(Refused):
    """Another node leads: ``leader``, if it is known."""


class NoLeader(Refused):
    """No leader appeared before the deadline; the message says who is out of reach and why."""


class Busy(Refused):
    """A bound on what is in flight is reached; retry after a short wait."""


class StorageFull(Refused):
    """The leader's disk is below its reserve of free space, or those of a quorum are."""


class TooLarge(Refused, ValueError):
    """The command exceeds the cluster's limit."""


class Overwritten(Refused):
    """A later leader committed another entry in its place."""


class Closed(Refused):
    """The node is shut down, or about to be."""


class Faulted(Refused):
    """The node has stopped because of a fault, which the message names."""


class ReentrantCall(Refused, RuntimeError):
    """A blocking call inside a callback of a node, which would wait for itself."""


class TermMismatch(Refused):
    """This node does not lead in the term that was asked for."""


class UnknownOutcome(RaftzError):
    """The command may be in the log, and may still commit."""


class ConfigError(RaftzError, ValueError):
    """The configuration is wrong or contradicts itself."""


class StorageError(RaftzError, OSError):
    """The data directory cannot be used."""


class NetworkError(RaftzError, OSError):
    """The network cannot be used: a port is taken, an address is not this machine's."""


class MachineError(RaftzError):
    """The state machine cannot be used, or its own storage does not belong to this log."""


class ThreadError(RaftzError, OSError):
    """The system gave no thread or no descriptor."""


class LeaderTimeout(RaftzError, TimeoutError):
    """No leader became known in time; the message says who is out of reach and why."""


class ApplyTimeout(RaftzError, TimeoutError):
    """The node did not apply far enough in time."""


class ReadTimeout(RaftzError, TimeoutError):
    """A read had no answer in time."""


class StillRunning(RaftzError, TimeoutError):
    """Some threads did not end in time, because a callback does not return."""


class ReadFailed(RaftzError):
    """The state machine could not answer a query; the node goes on."""


class SnapshotError(RaftzError):
    """There is no snapshot: none could be taken, or not in time."""


class TransferError(RaftzError):
    """Leadership was not handed over; the message says why."""


class InvalidArgument(RaftzError, ValueError):
    """An argument has a value that it cannot have."""


class ForkedProcess(RaftzError, RuntimeError):
    """The process was forked while a node ran in it: the child has none of its threads, and starts none of its own."""


class InternalError(RaftzError, RuntimeError):
    """A failure inside raftz: please report it."""


# What the native half raises, by number; 0 stands for those that have no class of their own.
_CLASSES: dict[int, type[RaftzError]] = {
    0: RaftzError,
    -1: NotLeader,
    -2: NoLeader,
    -3: Busy,
    -4: StorageFull,
    -5: TooLarge,
    -6: Overwritten,
    -7: Closed,
    -8: Faulted,
    -9: ReentrantCall,
    -10: TermMismatch,
    -64: ConfigError,
    -65: StorageError,
    -66: NetworkError,
    -67: MachineError,
    -68: ThreadError,
    -69: LeaderTimeout,
    -70: ApplyTimeout,
    -71: ReadTimeout,
    -72: StillRunning,
    -73: ReadFailed,
    -74: SnapshotError,
    -97: InvalidArgument,
    -101: InternalError,
    -102: ForkedProcess,
}
_CLASSES.update(dict.fromkeys(range(-63, -31), UnknownOutcome))
_CLASSES.update(dict.fromkeys(range(-95, -79), TransferError))
