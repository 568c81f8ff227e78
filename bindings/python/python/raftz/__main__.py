"""`python -m raftz demo`: a cluster in one process, told line by line. Ends with PASS, or with an error."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

import raftz

_PATIENCE = 60.0


class Counter(raftz.StateMachine):
    """Adds numbers up."""

    def __init__(self) -> None:
        self.n = 0

    def apply(self, entry: raftz.Entry) -> bytes:
        self.n += int(entry.data)
        return b"%d" % self.n

    def capture(self) -> int:
        return self.n

    def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
        out.write(b"%d" % view)

    def restore(self, source: raftz.SnapshotReader) -> None:
        self.n = int(source.read())


class _Teller:
    """Says what has happened, and how long it took."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def say(self, text: str) -> None:
        now = time.monotonic()
        print(f"{(now - self._since) * 1000:8.1f} ms  {text}", flush=True)
        self._since = now


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        sys.exit(f"FAIL: {what}")


def demo() -> None:
    """Elects, writes, reads, snapshots, hands over, loses its leader, and loses nothing."""
    tell = _Teller()
    with (
        tempfile.TemporaryDirectory(prefix="raftz-") as folder,
        raftz.LocalCluster(3, Counter, data_dir=folder) as cluster,
    ):
        tell.say("three nodes run in this process, over TCP, each with a log of its own on disk")
        leader = cluster.wait_for_leader(_PATIENCE)
        tell.say(f"node {leader.node_id} was elected, in term {leader.status().term}")
        done = leader.propose(b"41").result()
        tell.say(f"41 was added: the counter is {done.reply.decode()}, by entry {done.index}")
        other = next(node for node in cluster if node is not leader)
        n = other.read(lambda counter: counter.n)
        _expect(n == 41, f"node {other.node_id} reads {n}")
        tell.say(f"node {other.node_id} follows, and reads {n}: as new as the leader's")
        outcomes = leader.propose_many([b"1"] * 1000).result()
        _expect(all(isinstance(it, raftz.Done) for it in outcomes), "a write was not done")
        tell.say("1000 more, in one batch, each synced by two nodes before it was acknowledged")
        snapshot = leader.snapshot()
        tell.say(f"a snapshot of {snapshot.bytes} bytes stands for {snapshot.index} entries")
        new = cluster[leader.transfer_leadership()]
        tell.say(f"node {leader.node_id} has handed its leadership to node {new.node_id}")
        cluster.stop(new.node_id)
        tell.say(f"node {new.node_id} was stopped")
        leader = cluster.wait_for_leader(_PATIENCE, exclude=new.node_id)
        done = leader.propose(b"1").result()
        tell.say(f"node {leader.node_id} leads, and the counter is {done.reply.decode()}")
        again = cluster.start(new.node_id)
        again.wait_for_applied(done.index, _PATIENCE)
        tell.say(f"node {again.node_id} was started again, and has caught up")
        numbers = [node.read(lambda counter: counter.n) for node in cluster]
        _expect(numbers == [1042] * 3, f"the nodes read {numbers}")
        tell.say(f"all three nodes read {numbers[0]}: nothing was lost, nothing was done twice")
    tell.say("the nodes were stopped")
    print("PASS")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m raftz", description="raftz for Python")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="a cluster in one process, told line by line")
    parser.parse_args()
    demo()


if __name__ == "__main__":
    main()
