"""The package's own threads: daemons with names, which show in debuggers. And the line to `logging`."""

from __future__ import annotations

import _thread
import contextlib
import functools
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from . import _raftz
from .errors import ThreadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec

    from ._raftz import CallQueue, Calls, Future

    P = ParamSpec("P")

_LOGGER = logging.getLogger("raftz")
_LOGGER.addHandler(logging.NullHandler())
logging.addLevelName(5, "TRACE")

_lock = threading.Lock()
_log_thread: threading.Thread | None = None


def start(name: str, body: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
    """Starts a thread of the package's. Raises `ThreadError`."""
    thread = threading.Thread(target=body, name=name, args=args, kwargs=kwargs, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        message = f"no thread {name}: {error}; raise the limit on threads and retry"
        raise _raftz.failure(-68, message) from None
    return thread


class Threads:
    """The threads of Python's that one node has, for its end to wait for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._all: list[threading.Thread] = []
        self._serves_calls = threading.Event()

    def start(self, role: str, body: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Starts another one. Raises `ThreadError`."""
        thread = start(f"{self._name}-{role}", body, *args, **kwargs)
        with self._lock:
            self._all = [*(it for it in self._all if it.is_alive()), thread]

    def serve_calls(self) -> Callable[[tuple[CallQueue]], int]:
        """What starts the thread on which callbacks of futures run: by way of a bare one, since a start waits.

        The native half calls it, so no line of Python may run before the new thread.
        """

        def serve(queue: CallQueue) -> None:
            try:
                if queue.is_nodes:
                    self.start("call", _call, queue)
                    self._serves_calls.set()
                else:
                    # For one that came after the end of the node, which does not wait for it.
                    start(f"{self._name}-call", _call, queue)
            except ThreadError:
                # Its futures were taken on, so that this one has to do.
                if queue.is_nodes:
                    self._serves_calls.set()
                _call(queue)

        return functools.partial(_thread.start_new_thread, serve)

    def join(self, end: float, calls: Calls) -> list[str]:
        """Waits until all have ended that a stopped node has, until `end` at the latest. The names of those that have
        not."""
        while calls.is_served and not self._serves_calls.wait(0.05):
            if time.monotonic() >= end:
                return [f"{self._name}-call"]
        me = threading.current_thread()
        while True:
            with self._lock:
                # The first may have started another one.
                thread = next((it for it in self._all if it.is_alive() and it is not me), None)
                names = [it.name for it in self._all if it.is_alive()]
            if thread is None:
                return []
            thread.join(min(max(0.0, end - time.monotonic()), threading.TIMEOUT_MAX))
            if thread.is_alive():
                return names


def forked() -> None:
    """In a child: the thread is the parent's, and the lock may be held by another one of its threads."""
    global _lock, _log_thread
    _lock, _log_thread = threading.Lock(), None


def start_logs() -> None:
    """Has the nodes' lines go to the logger "raftz", from now on."""
    global _log_thread
    _heed_level()
    with _lock:
        if _log_thread is None or not _log_thread.is_alive():
            _log_thread = start("raftz-log", _log)


def stop_logs(timeout: float) -> None:
    """Hands on what lines there are, and ends."""
    with _lock:
        thread = _log_thread
    if thread is not None and thread.is_alive():
        _raftz.log_stop()
        thread.join(timeout)


def _heed_level() -> None:
    """Has the nodes leave out lines that nobody wants. Levels of logging may be below 0, where all are wanted."""
    _raftz.log_level(max(0, _LOGGER.getEffectiveLevel()))


def _log() -> None:
    while (lines := _raftz.log_take()) is not None:
        for level, text in lines:
            try:
                _LOGGER.log(level, "%s", text)
            except BaseException:  # A handler's, and the next line may well reach the others.
                _report()
        _heed_level()


def _report() -> None:
    """Hands what a user's function has raised to `threading.excepthook`, and goes on whatever that raises: it writes to
    `sys.stderr`, which may be closed."""
    with contextlib.suppress(BaseException):
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _call(queue: CallQueue) -> None:
    while (futures := queue.take()) is not None:
        futures.reverse()
        while futures:
            _end(futures.pop())


def _end(future: Future[Any]) -> None:
    """Calls a future's callbacks. A function, so that a thread that waits keeps none of them alive."""
    for callback in future._ended():
        try:
            callback(future)
        except BaseException:
            _report()
