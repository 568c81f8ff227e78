"""The Python side of the benchmark `ratio`: three durable nodes in this process, and a load on their leader whenever a
line asks for one. `load.py FOLDER`; then `future 256`, `many 256` or `aio 64` with seconds, answered by writes a second.
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


def future(node: raftz.Node[raftz.CountingMachine], outstanding: int, seconds: float) -> float:
    """A future for each write, so many of them on their way."""
    propose, waiting = node.propose, deque[raftz.Future[raftz.Done]]()
    count, begun = 0, time.perf_counter()
    for _ in range(outstanding):
        waiting.append(propose(PAYLOAD))
    while time.perf_counter() - begun < seconds:
        for _ in range(outstanding):
            waiting.popleft().result()
            waiting.append(propose(PAYLOAD))
        count += outstanding
    took = time.perf_counter() - begun
    for each in waiting:
        each.result()
    return count / took


def many(node: raftz.Node[raftz.CountingMachine], outstanding: int, seconds: float) -> float:
    """A future for each batch."""
    commands = [PAYLOAD] * BATCH
    waiting = deque(node.propose_many(commands) for _ in range(outstanding // BATCH))
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        outcomes = waiting.popleft().result()
        waiting.append(node.propose_many(commands))
        count += sum(type(outcome) is raftz.Done for outcome in outcomes)
    took = time.perf_counter() - begun
    for each in waiting:
        each.result()
    return count / took


async def aio(node: raftz.aio.Node[raftz.CountingMachine], outstanding: int, seconds: float) -> float:
    """A task for each client, with one write on its way."""
    count, begun = 0, time.perf_counter()

    async def client() -> None:
        nonlocal count
        while time.perf_counter() - begun < seconds:
            await node.propose(PAYLOAD)
            count += 1

    await asyncio.gather(*(client() for _ in range(outstanding)))
    return count / (time.perf_counter() - begun)


async def main(folder: str) -> None:
    listeners = {id: raftz.Listener() for id in (1, 2, 3)}
    nodes = {
        id: await raftz.aio.Node(
            raftz.CountingMachine(),
            node_id=id,
            cluster_id="be7c",
            founders={id: listener.address for id, listener in listeners.items()},
            data_dir=f"{folder}/node-{id}",
            bootstrap=True,
            listener=listeners[id],
        ).start()
        for id in listeners
    }
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        kind, outstanding, seconds = line.split()
        node = nodes[await nodes[1].wait_for_leader(60)]
        load = {"future": future, "many": many}.get(kind)
        if load is None:
            rate = await aio(node, int(outstanding), float(seconds))
        else:
            rate = load(node.sync, int(outstanding), float(seconds))
        print(f"{rate:.1f}", flush=True)
    for node in nodes.values():
        await node.close()


asyncio.run(main(sys.argv[1]))
