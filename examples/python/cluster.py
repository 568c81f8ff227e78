"""Three processes, a leader that is killed, and nothing lost.

    python examples/python/cluster.py
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import raftz

PATIENCE = 60.0
WRITES = 200


def serve(id: int, folder: str, addresses: list[str]) -> None:
    """One node: a line in, a line out, until there are no more."""
    with raftz.Node(
        raftz.KvStore(),
        node_id=id,
        cluster_id="5ca1e",
        founders=dict(enumerate(addresses, 1)),
        listen_address=addresses[id - 1],
        data_dir=Path(folder) / f"node-{id}",
        bootstrap=True,
    ) as node:
        store = raftz.Kv(node)
        print("ready", flush=True)
        for line in sys.stdin:
            try:
                match line.split():
                    case ["leader"]:
                        answer: object = node.wait_for_leader(PATIENCE)
                    case ["add"]:
                        answer = store.increment(b"n")
                    case _:
                        answer = (store.get(b"n") or b"0").decode()
            except raftz.RaftzError as error:
                answer = f"{type(error).__name__}: {error}"
            print(json.dumps(answer), flush=True)


class Process:
    """A node in a process of its own."""

    def __init__(self, id: int, folder: str, addresses: list[str]) -> None:
        command = [sys.executable, __file__, str(id), folder, *addresses]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.line()

    def line(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline()

    def ask(self, what: str) -> object:
        assert self.child.stdin is not None
        print(what, file=self.child.stdin, flush=True)
        return json.loads(self.line())

    def kill(self) -> None:
        self.child.kill()
        self.end()

    def end(self) -> None:
        for stream in (self.child.stdin, self.child.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.child.wait(PATIENCE)


def new_leader(processes: dict[int, Process], old: int) -> int:
    """Waits until another node leads."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        leader = next(iter(processes.values())).ask("leader")
        if isinstance(leader, int) and leader != old:
            return leader
        time.sleep(0.02)
    raise SystemExit("FAIL: nobody took over")


def main() -> None:
    listeners = [raftz.Listener() for _ in range(3)]
    addresses = [listener.address for listener in listeners]
    for listener in listeners:
        listener.close()
    with tempfile.TemporaryDirectory() as folder:
        processes = {id: Process(id, folder, addresses) for id in (1, 2, 3)}
        try:
            leader = new_leader(processes, 0)
            print(f"three processes run, and node {leader} leads")
            for _ in range(WRITES):
                processes[leader].ask("add")
            print(f"{WRITES} writes were acknowledged")
            processes.pop(leader).kill()
            begun, old = time.monotonic(), leader
            leader = new_leader(processes, old)
            last = processes[leader].ask("add")
            millis = (time.monotonic() - begun) * 1000
            print(f"node {old} was killed; {millis:.0f} ms later node {leader} wrote: {last}")
            assert last == WRITES + 1, last
            processes[old] = Process(old, folder, addresses)
            seen = [process.ask("get") for process in processes.values()]
            print(f"node {old} is back; the three read {seen}")
            assert seen == [str(WRITES + 1)] * 3, seen
        finally:
            for process in processes.values():
                process.end()
    print("PASS")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
    else:
        main()
