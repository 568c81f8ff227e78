"""Who may import the package."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import PATIENCE, says

INTERPRETERS = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
pytest.importorskip(INTERPRETERS)

SUB = f"""
import {INTERPRETERS} as interpreters
interpreters.run_string(interpreters.create(), '''
try:
    import raftz
except ImportError as error:
    print(error, flush=True)
''')
"""


def test_in_another_interpreter_than_the_main_one_the_import_says_why_it_fails() -> None:
    words = "main interpreter"
    first = [sys.executable, "-X", "faulthandler", "-c", SUB + "import raftz"]
    ended = subprocess.run(first, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0 and words in ended.stdout and ended.stderr == "", ended
    # After the main one has it, which goes on.
    later = f"{SUB}\nnode = start(raftz.KvStore())\nnode.close()\nprint('over')"
    said = says(later)
    assert words in said and said.endswith("over\n"), said


def test_a_python_that_has_no_such_interpreters_does_not_mind() -> None:
    program = f"import sys; sys.modules['{INTERPRETERS}'] = None; import raftz"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 0 and ended.stderr == "", ended
