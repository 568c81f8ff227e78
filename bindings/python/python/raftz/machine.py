"""State machines: what the cluster keeps one copy of on every node."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from . import _raftz
from .errors import Reject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._raftz import Entry, Jobs, SnapshotReader, SnapshotWriter
    from ._threads import Threads

__all__ = ["CountingMachine", "KvStore", "StateMachine"]

_LOGGER = logging.getLogger("raftz")


class StateMachine:
    """A deterministic state machine. Only `apply` must be written.

    Everything that it does must follow from the commands alone: no clock, no randomness, no order of a `set` or of
    `hash(str)`, no `id()`, nothing of the machine it runs on. Time and seeds come with each entry:
    `entry.log_time_us`, `entry.index`.

    All methods but `write_snapshot` run on one thread, one at a time, and so do the functions that
    `Node.read` is given: none of them needs a lock. `write_snapshot` runs beside them on a thread of its own. They may
    take their time; elections and heartbeats do not wait for them. Blocking calls of raftz are refused in them
    (`ReentrantCall`). What they keep is lost with the process: at a start it is restored from the latest snapshot, and what
    was committed since is applied again, unless `applied_index` says otherwise.

    An exception out of `apply` or `restore`, other than `Reject`, stops this replica: an event, `Status.fault` and a line
    in the log tell of it, its callers are told that it is faulted, and the process goes on. There is no other
    policy, for a half-applied command would make the replicas differ.

    It needs no node to be tested:

    >>> class Counter(raftz.StateMachine):
    ...     n = 0
    ...     def apply(self, entry):
    ...         if not entry.data.isdigit():
    ...             raise raftz.Reject("not a number")
    ...         self.n += int(entry.data)
    ...         return b"%d" % self.n
    >>> Counter().apply_batch([raftz.Entry(1, b"41"), raftz.Entry(2, b"many"), raftz.Entry(3, b"1")])
    [b'41', Reject(b'not a number'), b'42']
    """

    def apply(self, entry: Entry) -> bytes | None:
        """Carries out one command, which is committed, and answers it: bytes, alike on every node, or None for none.
        Raise `Reject` to turn it down."""
        raise NotImplementedError(f"{type(self).__name__} has no apply")

    def apply_batch(self, entries: Sequence[Entry]) -> Sequence[bytes | Reject | None]:
        """Carries out commands in order, with one answer for each. Calls `apply` for each."""
        apply = self.apply
        replies: list[bytes | Reject | None] = []
        for entry in entries:
            try:
                replies.append(apply(entry))
            except Reject as rejection:
                replies.append(rejection)
            except BaseException as error:
                error.add_note(f"while entry {entry.index} was applied")
                with contextlib.suppress(AttributeError):
                    error._raftz_answered = len(replies)  # type: ignore[attr-defined]
                raise
        return replies

    def query(self, request: bytes) -> bytes | None:
        """Answers a question in bytes from the present state, without changing it; see `Node.query`. Raise `Reject` to
        turn it down; anything else that it raises fails this one query (`ReadFailed`)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no query; ask with a function, by Node.read"
        )

    def capture(self) -> Any:
        """Freezes the present state, quickly: `write_snapshot` is given what this returns, while commands go on.

        Without `capture`, `write_snapshot` and `restore` there are no snapshots, and the log grows.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no capture, so that no snapshot can be taken"
        )

    def write_snapshot(self, view: Any, out: SnapshotWriter) -> None:
        """Writes what was captured, with `out.write(bytes)`, as often as you like. The package closes `out`. An exception
        gives this snapshot up, and the next one is tried."""
        raise NotImplementedError(f"{type(self).__name__} has no write_snapshot")

    def restore(self, source: SnapshotReader) -> None:
        """Replaces the whole state by what `write_snapshot` wrote, from `source.read()`. May be called again."""
        raise NotImplementedError(f"{type(self).__name__} has no restore")

    def applied_index(self) -> int | None:
        """For a machine that persists itself: the index of the last command in its own storage, stored there at once
        with what the command did; 0 while there is none. Commands up to there are not applied again. None, the
        default: the machine is rebuilt at every start."""
        return None


class KvStore:
    """The built-in key-value store, in Rust: for `Node(KvStore(), …)`. Speak to it by `raftz.Kv`."""

    _native = "kv"


class CountingMachine:
    """A built-in machine, in Rust, that counts and folds its commands: for tests and measurements."""

    _native = "counter"


def _words(error: BaseException) -> str:
    """An exception in one line. Raises nothing, or the thread that says why something failed would end of it."""
    words = kind = type(error).__name__
    try:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        words = f"{kind}: {error}{notes}"
    except BaseException as broken:  # Whatever a user's __str__ raises.
        words = f"{kind}, whose words cannot be had: {type(broken).__name__}"
    # A name of a file may hold what no UTF-8 does.
    return words.encode("utf-8", "backslashreplace").decode()


def _tell(kind: str, error: BaseException) -> None:
    """Logs what stops this replica."""
    # Handlers are the user's, and this thread has to say so to the node, too.
    with contextlib.suppress(BaseException):
        _LOGGER.error("%s failed, which stops this replica", kind, exc_info=error)


class _Claim:
    """A node's on its machine."""

    has_changed = False
    """Whether anything was applied to it, or restored into it."""


def _serve(
    commands: Jobs, snapshots: Jobs, machine: StateMachine, claim: _Claim, threads: Threads
) -> None:
    """Does for a node what it asks of its machine, until the node has ended."""
    has_captured = False
    while (job := commands.take()) is not None:
        answer: Any = None
        try:
            if job.kind == "apply":
                claim.has_changed = True
                answer = machine.apply_batch(job.subject())
                if type(answer) is not list:
                    answer = list(answer)
            elif job.kind == "call":
                function = job.subject()
                try:
                    job.returned(function(machine))
                except BaseException as error:
                    job.raised(error)
                finally:
                    del function
                continue
            elif job.kind == "query":
                try:
                    answer = machine.query(job.subject())
                except Reject as rejection:
                    answer = rejection
            elif job.kind == "capture":
                answer = machine.capture()
                if not has_captured:
                    threads.start("snap", _write, snapshots, machine)
                    has_captured = True
            elif job.kind == "restore":
                claim.has_changed = True
                machine.restore(job.subject())
            else:
                answer = machine.applied_index()
            job.done(answer)
        except BaseException as error:
            if job.kind in ("apply", "restore"):
                _tell(job.kind, error)
            job.fail(_words(error), getattr(error, "_raftz_answered", 0))
        finally:
            # Nothing of it is kept alive by a thread that waits.
            del job, answer
    _raftz.leave()


def _write(snapshots: Jobs, machine: StateMachine) -> None:
    """Writes what was captured, until the node has ended."""
    while (job := snapshots.take()) is not None:
        try:
            view, out = job.subject()
            machine.write_snapshot(view, out)
            out.close()
            job.done(None)
        except BaseException as error:
            job.fail(_words(error))
        finally:
            view = out = None
            del job
