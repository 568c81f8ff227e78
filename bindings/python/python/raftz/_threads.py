"""The package's own threads: daemons with names, which show in debuggers. And the line to `logging`."""

from __future__ import annotations

import _thread
import functools
import logging
import sys
import threading
from typing import TYPE_CHECKING

from . import _raftz

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec

    from ._raftz import CallQueue

    P = ParamSpec("P")

_LOGGER = logging.getLogger("raftz")
_LOGGER.addHandler(logging.NullHandler())
logging.addLevelName(5, "TRACE")

_lock = threading.Lock()
_log_thread: threading.Thread | None = None


def start(name: str, body: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
    """Starts a thread of the package's."""
    thread = threading.Thread(target=body, name=name, args=args, kwargs=kwargs, daemon=True)
    thread.start()
    return thread


def forked() -> None:
    """In a child: the thread is the parent's, and the lock may be held by another one of its threads."""
    global _lock, _log_thread
    _lock, _log_thread = threading.Lock(), None


def start_logs() -> None:
    """Has the nodes' lines go to the logger "raftz", from now on."""
    global _log_thread
    _raftz.log_level(_LOGGER.getEffectiveLevel())
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


def _log() -> None:
    while (lines := _raftz.log_take()) is not None:
        for level, text in lines:
            _LOGGER.log(level, "%s", text)
        _raftz.log_level(_LOGGER.getEffectiveLevel())


def serve_calls(name: str) -> Callable[[tuple[CallQueue]], int]:
    """What starts the thread on which callbacks of futures run: by way of a bare one, since a start waits.

    The native half calls it, so no line of Python may run before the new thread.
    """

    def serve(queue: CallQueue) -> None:
        start(name, _call, queue)

    return functools.partial(_thread.start_new_thread, serve)


def _call(queue: CallQueue) -> None:
    while (futures := queue.take()) is not None:
        futures.reverse()
        while futures:
            future = futures.pop()
            for callback in future._ended():
                try:
                    callback(future)
                except BaseException:
                    threading.excepthook(
                        threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
                    )
            del future
