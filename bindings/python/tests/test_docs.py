"""What the documentation shows, and the examples, do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE

PACKAGE = Path(__file__).parent.parent
EXAMPLES = PACKAGE.parent.parent / "examples" / "python"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (PACKAGE / "README.md").read_text(), re.M | re.S)


def ends_well(*arguments: str) -> str:
    command = [sys.executable, "-X", "faulthandler", "-W", "error", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0 and ended.stderr == "", ended
    return ended.stdout


def test_the_program_of_the_repositorys_readme_runs() -> None:
    text = (PACKAGE.parent.parent / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    said = ends_well("-c", program)
    assert said.startswith("line 1: entry ") and said.endswith("\n[b'Torino']\n")


def test_every_program_of_the_readme_runs(tmp_path: Path) -> None:
    said = [
        ends_well("-c", block.replace("/tmp/raftz-readme", str(tmp_path))) for block in BLOCKS
    ]
    counter, store, loop = said
    assert counter.startswith("the counter is 41") and counter.endswith("\n41\n")
    assert store.startswith("b'Torino'\nb'Torino'\nleader ")
    assert loop == "b'100'\n"


@pytest.mark.parametrize("name", ["simple", "client", "cluster"])
def test_the_example_passes(name: str) -> None:
    assert ends_well(str(EXAMPLES / f"{name}.py")).endswith("\nPASS\n")


def test_the_demo_passes() -> None:
    assert ends_well("-m", "raftz", "demo").endswith("\nPASS\n")


def test_the_program_of_the_package_itself_runs() -> None:
    import raftz

    assert raftz.__doc__ is not None
    lines = raftz.__doc__.split("    import raftz\n")[1].split("\nThreads,")[0]
    program = "import raftz\n" + "".join(line.removeprefix("    ") + "\n" for line in lines.split("\n"))
    assert ends_well("-c", program) == "b'41'\n41\n"


def test_the_readme_and_the_package_have_one_contract_of_threads() -> None:
    import raftz

    def contract(text: str) -> list[str]:
        flat = re.sub(r"\s+", " ", text.replace("`", ""))
        return re.findall(r"(?<= )(\d+\. .*?)(?= \d+\. |$| ## )", flat)

    threads = (PACKAGE / "README.md").read_text().split("## Threads")[1].split("## Examples")[0]
    assert raftz.__doc__ is not None
    package = raftz.__doc__.split("in ten rules:")[1].replace('"raftz"', "raftz")
    assert contract(threads) == contract(package) and len(contract(package)) == 10
