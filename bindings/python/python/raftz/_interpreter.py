"""Refuses the import in any interpreter of the process but the main one.

The native half has its classes and its threads once for the process. Another interpreter would get exceptions that are
not its own, and its end would abort the process.
"""

from __future__ import annotations

import importlib
import sys

_MODULE = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"

try:
    _interpreters = importlib.import_module(_MODULE)
except ImportError:
    # Nobody here makes others.
    pass
else:
    if _interpreters.get_current() != _interpreters.get_main():
        message = (
            "raftz works in the main interpreter of a process only, and this is a subinterpreter; use processes or"
            " threads instead, and under mod_wsgi 'WSGIApplicationGroup %{GLOBAL}'"
        )
        raise ImportError(message, name="raftz")
