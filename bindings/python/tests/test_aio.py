"""asyncio: the same calls, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


def test_a_node_closes_while_asyncios_pool_is_full() -> None:
    async def program() -> None:
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        released = threading.Event()
        it = node()
        # It starts without the pool, too.
        pool.submit(released.wait, PATIENCE)
        await it.start()
        await it.close(PATIENCE)
        assert not released.is_set() and it.sync.closed
        released.set()

    run(program())


def watched() -> int:
    """How many descriptors the loop watches."""
    loop: Any = asyncio.get_running_loop()
    return len(loop._selector.get_map())


def open_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_events_that_nobody_holds_any_more_leave_no_descriptor() -> None:
    async def program() -> None:
        async with node() as it:
            await it.wait_for_leader()
            before, opened = watched(), open_now()
            for _ in range(100):
                events = it.events(raftz.events.Leader)
                waiting = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
                del events, waiting
            # The step of the loop that woke this still holds the last ones.
            await asyncio.sleep(0)
            gc.collect()
            await asyncio.sleep(0)
            assert watched() == before and open_now() < opened + 50

    run(program())


def test_events_end_when_they_are_closed_for_who_waits_and_who_comes_later() -> None:
    async def program() -> None:
        async with node() as it:
            await it.wait_for_leader()
            before = watched()
            events = it.events(raftz.events.Faulted)

            async def watch() -> list[raftz.events.Event]:
                return [event async for event in events]

            watching = [asyncio.create_task(watch()) for _ in range(2)]
            await asyncio.sleep(0)
            events.close()
            assert await asyncio.gather(*watching) == [[], []]
            assert await watch() == [] and events.dropped == 0
            events.close()
            assert watched() == before

    run(program())


def test_of_two_starts_at_once_one_is_refused() -> None:
    async def program() -> None:
        keys: dict[str, Any] = {"node_id": 1, "cluster_id": 1, "founders": {1: "127.0.0.1:7001"}}
        it = raftz.aio.Node(raftz.KvStore(), listen_address="127.0.0.1:0", **keys)
        started = await asyncio.gather(it.start(), it.start(), return_exceptions=True)
        assert started[0] is it and "started already" in str(started[1]), started
        await it.close(PATIENCE)
        with pytest.raises(RuntimeError, match="already"):
            await it.start()

    run(program())


def test_a_start_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "node"
    place.write_text("no folder")

    async def program() -> None:
        keys: dict[str, Any] = {"node_id": 1, "cluster_id": 1, "founders": {1: "127.0.0.1:7001"}}
        it = raftz.aio.Node(
            raftz.KvStore(), data_dir=place, bootstrap=True, listen_address="127.0.0.1:0", **keys
        )
        before = watched()
        with pytest.raises(raftz.StorageError):
            await it.start()
        await asyncio.sleep(0)
        assert watched() == before
        place.unlink()
        async with it:
            await it.wait_for_leader(PATIENCE)

    run(program())


def test_without_a_descriptor_for_the_loop_no_node_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left() -> None:
        raise OSError("no descriptor")

    async def program() -> None:
        with pytest.raises(OSError, match="no descriptor"):
            await node().start()
        assert not any(thread.name.startswith("raftz-1-") for thread in threading.enumerate())

    monkeypatch.setattr(raftz._raftz, "LoopDesk", none_left)
    run(program())


def is_watched(it: raftz.aio.Node[Any]) -> bool:
    """Whether its loop still watches for its answers. Ends that."""
    assert it._desk is not None
    return asyncio.get_running_loop().remove_reader(it._desk.fileno())


def test_the_loop_watches_a_node_no_more_whoever_has_closed_it() -> None:
    async def program() -> None:
        one = await node().start()
        await one.close(PATIENCE)
        assert not is_watched(one)

        other = await node().start()
        await other.wait_for_leader()
        waiting = other.propose(b"1")
        await asyncio.to_thread(other.sync.close, PATIENCE)
        assert not is_watched(other)
        assert waiting.done()
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(raftz.Closed):
            await other.propose(b"1")

        third = await node().start()
        closing = asyncio.create_task(third.close(PATIENCE))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        while not third.sync.closed:
            await asyncio.sleep(0.01)
        await third.close()
        assert not is_watched(third)

    run(program())


def test_a_start_that_the_loop_does_not_wait_for_leaves_no_node_behind() -> None:
    program = """
        import asyncio
        warnings.simplefilter("always")
        may_start = threading.Event()
        async def main():
            node = raftz.aio.Node(raftz.KvStore(), node_id=1, cluster_id=1,
                founders={1: "127.0.0.1:7001"}, listener=raftz.Listener())
            make = node._make
            def later():
                may_start.wait()
                return make()
            node._make = later
            asyncio.create_task(node.start())
            await asyncio.sleep(0)
        asyncio.run(main())
        may_start.set()
        for thread in threading.enumerate():
            if thread.name.startswith("raftz-") and thread.name != "raftz-log":
                thread.join(60)
        print("over")
    """
    assert says(program) == "over\n"
