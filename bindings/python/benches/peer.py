"""PySyncObj beside the benchmark `overhead`, for the same lines as `load.py`: three processes, the log of each in memory,
and the load on their leader. With an argument its periods are so many seconds, else what it comes with.
"""

import socket
import subprocess
import sys
import threading
import time

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

PAYLOAD = bytes([7]) * 64
# How long an election may take on a busy machine.
PATIENCE = 60.0


class Counter(SyncObj):  # type: ignore[misc]
    """Counts its commands."""

    def __init__(self, own: str, others: list[str], periods: dict[str, float]) -> None:
        super().__init__(own, others, SyncObjConf(**periods))
        self.count = 0

    @replicated  # type: ignore[untyped-decorator]
    def add(self, payload: bytes) -> int:
        self.count += 1
        return self.count


def run(counter: Counter, outstanding: int, seconds: float) -> float:
    """Writes per second of a closed loop, whose next write begins in the callback of one before it."""
    left, ended = outstanding, threading.Event()
    begun = time.perf_counter() + seconds / 4
    end = begun + seconds
    done = 0

    def called(_: object, error: int) -> None:
        nonlocal done, left
        assert error == FAIL_REASON.SUCCESS, error
        now = time.perf_counter()
        if now < end:
            done += now >= begun
            counter.add(PAYLOAD, callback=called)
        else:
            left -= 1
            if left == 0:
                ended.set()

    for _ in range(outstanding):
        counter.add(PAYLOAD, callback=called)
    assert ended.wait(seconds + PATIENCE)
    return done / seconds


def member(period: str, own: str, *others: str) -> None:
    """One process: tells whether it leads, and runs loads."""
    names = ("autoTickPeriod", "appendEntriesPeriod") if period else ()
    counter = Counter(own, list(others), dict.fromkeys(names, float(period or 0)))
    for line in sys.stdin:
        load, *numbers = line.split()
        if load == "leads":
            print(counter.isReady() and counter._isLeader(), flush=True)
        else:
            print(f"{run(counter, int(numbers[0]), float(numbers[1])):.1f}", flush=True)
    counter.destroy()


def main(period: str = "") -> None:
    """Starts three of those, and hands on what is asked to the one that leads."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for listener in sockets:
        listener.close()
    nodes = []
    for own in addresses:
        others = [address for address in addresses if address != own]
        nodes.append(
            subprocess.Popen(
                [sys.executable, __file__, period, own, *others],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def ask(node: subprocess.Popen[str], line: str) -> str:
        assert node.stdin is not None and node.stdout is not None
        node.stdin.write(line)
        node.stdin.flush()
        return node.stdout.readline()

    end = time.monotonic() + PATIENCE
    while not (leaders := [node for node in nodes if ask(node, "leads\n") == "True\n"]):
        assert time.monotonic() < end, "no leader"
        time.sleep(0.05)
    print("ready", flush=True)
    for line in sys.stdin:
        print(ask(leaders[0], line), end="", flush=True)
    for node in nodes:
        node.communicate(timeout=PATIENCE)


if len(sys.argv) > 2:
    member(*sys.argv[1:])
else:
    main(*sys.argv[1:])
