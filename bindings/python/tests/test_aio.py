"""asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, Counter, says

import raftz

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


def run(program: Coroutine[Any, Any, None]) -> None:
    """In a loop that gives up in time."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await program

    asyncio.run(bounded(), debug=True)


def node(machine: Any = None) -> raftz.aio.Node[Any]:
    return raftz.aio.Node(
        Counter() if machine is None else machine,
        node_id=1,
        cluster_id=1,
        founders={1: "127.0.0.1:7001"},
        listener=raftz.Listener(),
    )


def test_calls_are_awaited_and_many_are_on_their_way_at_once() -> None:
    async def program() -> None:
        async with node() as it:
            assert await it.wait_for_leader() == 1
            futures = [it.propose(b"1") for _ in range(1000)]
            replies = [done.reply for done in await asyncio.gather(*futures)]
            assert replies == [b"%d" % n for n in range(1, 1001)]
            assert await it.read(lambda counter: counter.n) == 1000
            assert await it.query(b"n", level=raftz.ReadLevel.STALE) == b"n=1000"
            one, rejected = await it.propose_many([b"1", b"no"])
            assert isinstance(one, raftz.Done) and isinstance(rejected, raftz.Reject)
            with pytest.raises(raftz.Reject):
                await it.propose(b"no")
            with pytest.raises(ZeroDivisionError):
                await it.read(lambda counter: 1 // 0)
            with pytest.raises(RuntimeError, match="StopIteration"):
                await it.read(lambda counter: next(iter(())))
            with pytest.raises(raftz.ReadFailed):
                await it.query(b"fail")
            with pytest.raises(raftz.TooLarge):
                await it.propose(bytes(5 << 20))
            assert it.status().ready and it.metrics().is_leader
            assert (await it.snapshot()).index > 0
        with pytest.raises(raftz.Closed):
            await it.propose(b"1")

    run(program())


def test_to_cancel_the_wait_does_not_cancel_the_proposal() -> None:
    async def program() -> None:
        async with node() as it:
            await it.wait_for_leader()
            future = it.propose(b"5")
            future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await future
            assert (await it.propose(b"1")).reply == b"6"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await it.read(lambda counter: time.sleep(0.2))
            assert await it.read(lambda counter: counter.n) == 6

    run(program())


def test_events_are_iterated_over_and_end_with_the_node() -> None:
    async def program() -> None:
        async with node() as it:
            events = it.events()
            seen: list[raftz.events.Event] = []

            async def watch() -> None:
                async for event in events:
                    seen.append(event)

            watching = asyncio.create_task(watch())
            await it.wait_for_leader()
            await it.propose(b"1")
            await it.snapshot()
        await watching
        assert raftz.events.Snapshot in {type(event) for event in seen}

    run(program())


def test_calls_in_flight_are_answered_when_the_node_is_closed() -> None:
    async def program() -> None:
        async with node() as it:
            await it.wait_for_leader()
            futures = [it.propose(b"1") for _ in range(100)]
        ended = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(each, (raftz.Done, raftz.RaftzError)) for each in ended)

    run(program())


def test_a_node_of_another_loop_is_refused() -> None:
    kept: list[raftz.aio.Node[Any]] = []

    async def program() -> None:
        kept.append(await node().start())

    async def other() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            kept[0].propose(b"1")

    run(program())
    run(other())
    kept.pop().sync.close(PATIENCE)


def test_a_loop_that_is_closed_before_its_answers_come_breaks_nothing() -> None:
    program = """
        import asyncio
        class Slow(raftz.StateMachine):
            def apply(self, entry):
                time.sleep(0.2)
                return b""
        kept = []
        async def main():
            node = raftz.aio.Node(Slow(), node_id=1, cluster_id=1, founders={1: "127.0.0.1:7001"},
                listener=raftz.Listener())
            await node.start()
            await node.wait_for_leader()
            kept.append(node)
            kept.append([node.propose(b"x") for _ in range(5)])
            kept.append(node.events())
        asyncio.run(main())
        node = kept[0].sync
        node.propose(b"x").result(60)
        kept.clear()
        node.close()
        print("over")
    """
    assert says(program) == "over\n"


def test_a_node_that_is_never_closed_warns() -> None:
    async def program() -> None:
        it = await node().start()
        await it.wait_for_leader()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(program())
        gc.collect()
    assert ResourceWarning in {warning.category for warning in caught}


def test_a_start_that_is_cancelled_leaves_no_node_behind() -> None:
    async def program() -> None:
        starting = asyncio.create_task(node().start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        while any(thread.name.startswith("raftz-1-") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)

    run(program())
