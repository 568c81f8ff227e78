"""The Python side of the benchmark `overhead`: `load.py FOLDER` runs three durable nodes. Lines say which load to put on
their leader, `future 256 0.7`, and each is answered with the writes per second of that time.
"""

import asyncio
import gc
import sys
import time
from collections import deque

import raftz

PAYLOAD = bytes([7]) * 64
# Commands of one batch.
BATCH = 64

Node = raftz.Node[raftz.CountingMachine]


class Clock:
    """Counts what is done, after a first quarter that warms up."""

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter() + seconds / 4
        self.end = self.begun + seconds
        self.done = 0
        self.before = 0

    def goes_on(self, done: int) -> bool:
        """Counts so many writes; whether there is time for more."""
        self.done += done
        now = time.perf_counter()
        if not self.before and now >= self.begun:
            self.begun, self.before = now, self.done
        if now < self.end:
            return True
        self.end = now
        return False

    def rate(self) -> float:
        return (self.done - self.before) / (self.end - self.begun)


def future(node: Node, outstanding: int, clock: Clock) -> None:
    """A future for each write, so many of them on their way."""
    waiting = deque(node.propose(PAYLOAD) for _ in range(outstanding))
    goes_on = True
    while goes_on:
        for _ in range(BATCH):
            waiting.popleft().result()
            waiting.append(node.propose(PAYLOAD))
        goes_on = clock.goes_on(BATCH)
    for each in waiting:
        each.result()


def many(node: Node, outstanding: int, clock: Clock) -> None:
    """A future for each batch."""
    commands = [PAYLOAD] * BATCH
    waiting = deque(node.propose_many(commands) for _ in range(outstanding // BATCH))
    goes_on = True
    while goes_on:
        outcomes = waiting.popleft().result()
        waiting.append(node.propose_many(commands))
        assert all(type(outcome) is raftz.Done for outcome in outcomes)
        goes_on = clock.goes_on(len(outcomes))
    for each in waiting:
        each.result()


async def aio(
    node: raftz.aio.Node[raftz.CountingMachine], outstanding: int, clock: Clock
) -> None:
    """A task for each client, with one write on its way."""
    end = clock.end

    async def client() -> None:
        while time.perf_counter() < end:
            await node.propose(PAYLOAD)
            clock.goes_on(1)

    await asyncio.gather(*(client() for _ in range(outstanding)))


async def main(folder: str) -> None:
    listeners = {id: raftz.Listener() for id in (1, 2, 3)}
    nodes = {
        id: await raftz.aio.Node(
            raftz.CountingMachine(),
            node_id=id,
            cluster_id="be7c",
            founders={id: listener.address for id, listener in listeners.items()},
            data_dir=f"{folder}/python-{id}",
            bootstrap=True,
            listener=listeners[id],
        ).start()
        for id in listeners
    }
    print("ready", flush=True)
    for line in sys.stdin:
        load, outstanding, seconds = line.split()
        node = nodes[await nodes[1].wait_for_leader(60)]
        gc.collect()
        clock = Clock(float(seconds))
        if load == "aio":
            await aio(node, int(outstanding), clock)
        else:
            {"future": future, "many": many}[load](node.sync, int(outstanding), clock)
        print(f"{clock.rate():.1f}", flush=True)
    for node in nodes.values():
        await node.close()


asyncio.run(main(sys.argv[1]))
