"""What the tests share: small machines, and nodes that are closed whatever happens."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

import raftz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# How long anything that should happen may take on a busy machine.
PATIENCE = 60.0


class Counter(raftz.StateMachine):
    """Adds numbers up. Turns "no" down, and fails at "fail"."""

    def __init__(self) -> None:
        self.n = 0

    def apply(self, entry: raftz.Entry) -> bytes:
        if entry.data == b"no":
            raise raftz.Reject(b"not that")
        if entry.data == b"fail":
            raise ArithmeticError("on purpose")
        self.n += int(entry.data)
        return b"%d" % self.n

    def query(self, request: bytes) -> bytes:
        if request == b"no":
            raise raftz.Reject(b"not that either")
        if request == b"fail":
            raise ArithmeticError("on purpose, again")
        return request + b"=%d" % self.n

    def capture(self) -> int:
        return self.n

    def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
        out.write(b"%d" % view)

    def restore(self, source: raftz.SnapshotReader) -> None:
        self.n = int(source.read())


Start = "Callable[..., raftz.Node[Any]]"


@pytest.fixture
def start() -> Iterator[Callable[..., raftz.Node[Any]]]:
    """Starts nodes of clusters of one, in memory unless they are given a folder."""
    nodes: list[raftz.Node[Any]] = []

    def start(machine: Any = None, **keys: Any) -> raftz.Node[Any]:
        node = raftz.Node(
            Counter() if machine is None else machine,
            node_id=1,
            cluster_id="c1",
            founders={1: "127.0.0.1:7001"},
            bootstrap=True,
            listener=raftz.Listener(),
            **keys,
        )
        nodes.append(node)
        node.wait_for_leader(PATIENCE)
        return node

    yield start
    for node in nodes:
        node.close(PATIENCE)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own, after the lines that all of these need."""
    head = """
        import os, signal, sys, threading, time, warnings
        import raftz
        # What runs in a shell's background inherits that Ctrl-C is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def start(machine, **keys):
            node = raftz.Node(machine, node_id=1, cluster_id=1, founders={1: "127.0.0.1:7001"},
                listener=raftz.Listener(), **keys)
            node.wait_for_leader(60)
            return node
    """
    text = textwrap.dedent(head) + textwrap.dedent(program)
    command = [sys.executable, "-X", "faulthandler", "-c", text, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def says(program: str, *arguments: str) -> str:
    """What such a program says, which must end well and say nothing that is wrong."""
    ended = run(program, *arguments)
    assert ended.returncode == 0, (ended.returncode, ended.stdout, ended.stderr)
    assert ended.stderr == "", ended.stderr
    return ended.stdout
