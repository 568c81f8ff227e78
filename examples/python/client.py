"""Clients of three nodes at once, in threads and in asyncio, and each kind of outcome.

    python examples/python/client.py
"""

import asyncio
import threading

import raftz

CLIENTS, WRITES = 6, 50


def write(node: raftz.Node[raftz.KvStore], client: int) -> None:
    """Adds to one counter through one node; again only where that is safe."""
    store = raftz.Kv(node)
    for _ in range(WRITES):
        while True:
            try:
                store.increment(b"threads")
                break
            except raftz.Refused as refused:
                # Certainly not done. Whether to try again is said, too.
                if not refused.retriable:
                    raise
            except raftz.UnknownOutcome as unknown:
                # Perhaps done: to add once more might be wrong, so this client gives up.
                raise SystemExit(f"client {client}: {unknown}") from unknown


async def write_async() -> int:
    """The same in a loop, with all writes on their way at once."""
    node = raftz.aio.Node(
        raftz.KvStore(),
        node_id=1,
        cluster_id=7,
        founders={1: "127.0.0.1:7001"},
        listener=raftz.Listener(),
    )
    async with node:
        await node.wait_for_leader()
        commands = [raftz.kv.increment(b"loop") for _ in range(CLIENTS * WRITES)]
        await asyncio.gather(*(node.propose(command) for command in commands))
        reply = await node.query(raftz.kv.get(b"loop"))
        return int(raftz.kv.value(reply) or b"0")


with raftz.LocalCluster(3, raftz.KvStore) as cluster:
    leader = cluster.wait_for_leader()
    follower = next(node for node in cluster if node is not leader)
    threads = [
        threading.Thread(target=write, args=(cluster[1 + client % 3], client))
        for client in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = raftz.Kv(follower).get(b"threads")
    print(f"{CLIENTS} clients on three nodes added up to {total!r}")
    assert total == b"%d" % (CLIENTS * WRITES), total

    try:
        follower.propose(raftz.kv.set(b"a", b"b"), forward=False).result()
        raise SystemExit("a follower wrote by itself")
    except raftz.NotLeader as refused:
        print(f"refused: {refused}")
    try:
        leader.propose(raftz.kv.increment(b"a", 1 << 62)).result()
        leader.propose(raftz.kv.increment(b"a", 1 << 62)).result()
        raise SystemExit("a number of more than 64 bits")
    except raftz.Reject as rejection:
        print(f"rejected: {rejection}")
    for node in cluster:
        if node is not leader:
            cluster.stop(node.node_id)
    outcome = leader.propose(raftz.kv.set(b"a", b"b"), timeout=0.5).exception()
    print(f"without the others: {type(outcome).__name__}: {outcome}")
    assert isinstance(outcome, (raftz.UnknownOutcome, raftz.Refused)), outcome

total_async = asyncio.run(write_async())
print(f"in asyncio they added up to {total_async}")
assert total_async == CLIENTS * WRITES, total_async
print("PASS")
