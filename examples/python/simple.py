"""One node: write, read, restart, still there. To be pasted and changed.

    python examples/python/simple.py
"""

import tempfile

import raftz


class Counter(raftz.StateMachine):
    """What the cluster keeps one copy of on every node."""

    def __init__(self) -> None:
        self.n = 0

    def apply(self, entry: raftz.Entry) -> bytes:
        if not entry.data.isdigit():
            raise raftz.Reject(b"not a number")
        self.n += int(entry.data)
        return b"%d" % self.n


def start(folder: str) -> raftz.Node[Counter]:
    """The node, with its data in a folder; founded there the first time."""
    node = raftz.Node(
        Counter(),
        node_id=1,
        cluster_id="c1a5",
        founders={1: "127.0.0.1:7001"},
        listener=raftz.Listener(),
        data_dir=folder,
        bootstrap=True,
    )
    node.wait_for_leader()
    return node


with tempfile.TemporaryDirectory() as folder:
    with start(folder) as node:
        done = node.propose(b"41").result()
        print(f"written by entry {done.index}: the counter is {done.reply.decode()}")
        try:
            node.propose(b"many").result()
        except raftz.Reject as reject:
            print(f"turned down by the state machine: {reject}")
    print("stopped")
    with start(folder) as node:
        n = node.read(lambda counter: counter.n)
        print(f"started again: the counter is {n}")
        assert n == 41, n
print("PASS")
