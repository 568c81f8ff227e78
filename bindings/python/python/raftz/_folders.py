"""Temporary folders that go with the process at the latest.

Imported before all that has something to close at the end: what is registered first is called last.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile

_folders: set[str] = set()


def make() -> str:
    """Makes a folder."""
    folder = tempfile.mkdtemp(prefix="raftz-")
    _folders.add(folder)
    return folder


def remove(folder: str) -> None:
    """Removes a folder with all that is in it, unless that was done or it is the parent process's."""
    if folder in _folders:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        _folders.discard(folder)


def _remove_all() -> None:
    for folder in list(_folders):
        # A node that did not end in time may write there still.
        shutil.rmtree(folder, ignore_errors=True)


os.register_at_fork(after_in_child=_folders.clear)
atexit.register(_remove_all)
