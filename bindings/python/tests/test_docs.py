"""What the documentation shows, and the examples, do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, Counter

import raftz

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(__file__).parent.parent
REPOSITORY = PACKAGE.parent.parent
MODULES = [
    importlib.import_module(f"raftz.{it.name}")
    for it in pkgutil.iter_modules(raftz.__path__)
    if it.name not in ("__main__", "_raftz")
]


def programs(readme: Path) -> list[str]:
    """The programs in Python that a text shows."""
    return re.findall(r"^```python\n(.*?)^```", readme.read_text(), re.M | re.S)


def says(folder: Path, *arguments: str) -> str:
    """What a program says that ends well, with nothing to complain about."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=folder
    )
    assert ended.returncode == 0 and ended.stderr == "", (arguments, ended)
    return ended.stdout


def shown(folder: Path, program: str) -> str:
    """What such a program says, at a port of its own."""
    listener = raftz.Listener()
    address = listener.address
    listener.close()
    return says(folder, "-c", program.replace("127.0.0.1:7001", address))


README = {
    "Ten lines to a cluster": r"b'Torino'\nb'Torino'\n",
    "A state machine of your own": r"ada has 100, by entry \d+ of term \d+\nturned down: ada has only 100\n100\n",
    "A node in a process of its own": r"stored by entry \d+\n",
    "Outcomes and retries": r"b'Torino' True\n100\n",
    "Reads": r"b'Torino'\nb'Torino'\nb'Torino'\n",
    "asyncio": r"b'100'\n",
    "Watching": r"Leader\(leader=\d, term=\d+\)\n(leader|follower) True True\n"
    r"99 of 100 commits took at most (\d+|None) microseconds\n# .*\n",
    "Determinism": r"True True\n",
}


@pytest.mark.parametrize("title", README)
def test_the_readmes_program_does_what_it_says(title: str, tmp_path: Path) -> None:
    chapters = dict(
        re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (PACKAGE / "README.md").read_text(), re.M | re.S)
    )
    program = re.search(r"^```python\n(.*?)^```", chapters[title], re.M | re.S)
    assert program is not None
    said = shown(tmp_path, program[1])
    assert re.fullmatch(README[title], said), said


def test_every_program_of_the_readme_is_run() -> None:
    assert len(programs(PACKAGE / "README.md")) == len(README)


def test_the_program_of_the_first_page_does_what_it_says_and_again(tmp_path: Path) -> None:
    page = (REPOSITORY / "README.md").read_text()
    (program,) = programs(REPOSITORY / "README.md")
    assert f"{program}```" in page.split("## The same in Python\n")[1].split("\n## ")[0]
    for _ in range(2):
        # It finds its log again.
        assert re.fullmatch(r"done: entry \d+ of term \d+\n", shown(tmp_path, program))


def test_the_readme_tells_every_error() -> None:
    errors = (PACKAGE / "README.md").read_text().split("\n## Errors")[1]
    for name in raftz.errors.__all__:
        assert f"`{name}`" in errors, name


@pytest.mark.parametrize("name", ["simple", "client", "cluster"])
def test_the_example_passes(name: str, tmp_path: Path) -> None:
    example = REPOSITORY / "examples" / "python" / f"{name}.py"
    assert says(tmp_path, str(example)).endswith("\nPASS\n")


def test_the_demo_passes(tmp_path: Path) -> None:
    assert says(tmp_path, "-m", "raftz", "demo").endswith("\nPASS\n")


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in (raftz, *MODULES) for test in finder.find(module)]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_the_example_of_the_docstring_is_true(
    example: doctest.DocTest, start: Callable[..., raftz.Node[Any]]
) -> None:
    """They may use `node`, whose machine adds numbers up, and `store`, a key-value store."""
    text = example.docstring or ""
    example.globs = {"raftz": raftz}
    if re.search(r"\bnode\b", text):
        example.globs["node"] = start(Counter())
    if re.search(r"\bstore\b", text):
        example.globs["store"] = raftz.Kv(start(raftz.KvStore()))
    words: list[str] = []
    ended = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=words.append)
    assert ended.failed == 0, "".join(words)


def documented() -> list[tuple[str, Any]]:
    """All that is public: classes and functions, and what they have."""
    things: list[tuple[str, Any]] = []
    for module in (raftz, raftz.aio, raftz.events, raftz.kv):
        for name in module.__all__:
            thing = getattr(module, name)
            things.append((f"{module.__name__}.{name}", thing))
            if isinstance(thing, type):
                things += [
                    (f"{module.__name__}.{name}.{own}", value)
                    for own, value in vars(thing).items()
                    if not own.startswith("_") and (callable(value) or isinstance(value, property))
                ]
    return things


def test_everything_public_is_documented() -> None:
    without = [name for name, thing in documented() if not (thing.__doc__ or "").strip()]
    assert without == []


def test_the_readme_and_the_package_have_one_contract_of_threads() -> None:
    def contract(text: str) -> list[str]:
        flat = re.sub(r"\s+", " ", text.replace("`", ""))
        return re.findall(r"(?<= )(\d+\. .*?)(?= \d+\. |$| ## )", flat)

    threads = (PACKAGE / "README.md").read_text().split("## Threads")[1].split("\n## ")[0]
    assert raftz.__doc__ is not None
    package = raftz.__doc__.split("in ten rules:")[1].replace('"raftz"', "raftz")
    assert contract(threads) == contract(package) and len(contract(package)) == 10
