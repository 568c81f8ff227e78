"""Several nodes: the key-value store, events, transfers, failover, snapshots on their way."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, Counter, says

import raftz

if TYPE_CHECKING:
    from typing import Any


def test_the_store_does_what_it_says_from_every_node() -> None:
    with raftz.LocalCluster(3, raftz.KvStore) as cluster:
        cluster.wait_for_leader(PATIENCE)
        stores = [raftz.Kv(node) for node in cluster]
        index = stores[0].set(b"city", b"Torino")
        assert [store.get(b"city") for store in stores] == [b"Torino"] * 3
        assert stores[1].get(b"city", level=raftz.ReadLevel.at_least(index)) == b"Torino"
        assert stores[1].get(b"none") is None
        assert stores[1].delete(b"city") and not stores[2].delete(b"city")
        assert stores[2].compare_and_set(b"lock", None, b"mine")
        assert not stores[0].compare_and_set(b"lock", None, b"mine too")
        assert stores[0].increment(b"n") == 1 and stores[1].increment(b"n", -5) == -4
        with pytest.raises(raftz.Reject, match="not a decimal integer"):
            stores[0].increment(b"lock")
        with pytest.raises(raftz.Reject, match="empty"):
            stores[0].set(b"", b"x")
        with pytest.raises(raftz.Reject, match="empty"):
            stores[0].get(b"")
        assert list(stores[1].scan()) == [(b"lock", b"mine"), (b"n", b"-4")]
        assert list(stores[1].scan(b"l")) == [(b"lock", b"mine")]
        assert len({store.digest() for store in stores}) == 1
        with pytest.raises(TypeError, match="not Python's"):
            cluster[1].read(lambda machine: 1)


def test_a_scan_goes_on_over_many_pages() -> None:
    with raftz.LocalCluster(1, raftz.KvStore) as cluster:
        node = cluster.wait_for_leader(PATIENCE)
        keys = [b"%05d" % n for n in range(2500)]
        node.propose_many(raftz._raftz.kv_set(key, b"v") for key in keys).result(PATIENCE)
        assert [key for key, _ in raftz.Kv(node).scan()] == keys


def test_leadership_moves_and_events_tell() -> None:
    with raftz.LocalCluster(3, Counter) as cluster:
        leader = cluster.wait_for_leader(PATIENCE)
        target = next(node.node_id for node in cluster if node is not leader)
        told = leader.events(raftz.events.Transfer, raftz.events.Leader)
        assert leader.transfer_leadership(target, PATIENCE) == target
        new = cluster.wait_for_leader(PATIENCE, exclude=leader.node_id)
        assert new.node_id == target
        seen = []
        while (event := told.next(PATIENCE)) is not None:
            seen.append(event)
            if isinstance(event, raftz.events.Leader) and event.leader == target:
                break
        assert any(isinstance(event, raftz.events.Transfer) for event in seen)
        with pytest.raises(raftz.NotLeader) as refused:
            leader.transfer_leadership(None, PATIENCE)
        assert refused.value.leader == target and refused.value.retriable
        with pytest.raises(raftz.NotLeader):
            leader.propose(b"1", forward=False).result(PATIENCE)
        with pytest.raises(raftz.TermMismatch):
            leader.propose(b"1", expected_term=1).result(PATIENCE)
        with pytest.raises(raftz.TransferError, match="no member"):
            new.transfer_leadership(99, PATIENCE)
        assert new.step_down(PATIENCE) != target


def test_writes_go_on_without_the_leader_and_it_catches_up(tmp_path: Path) -> None:
    keys: raftz.Keys = {"snapshot_log_entries": 100, "snapshot_retain_bytes": 0}
    with raftz.LocalCluster(3, Counter, data_dir=tmp_path, **keys) as cluster:
        leader = cluster.wait_for_leader(PATIENCE)
        leader.propose_many([b"1"] * 50).result(PATIENCE)
        cluster.stop(leader.node_id, PATIENCE)
        other = cluster.wait_for_leader(PATIENCE)
        for _ in range(5):
            other.propose_many([b"1"] * 100).result(PATIENCE)
        other.snapshot(PATIENCE)
        again = cluster.start(leader.node_id)
        index = other.propose(b"1").result(PATIENCE).index
        again.wait_for_applied(index, PATIENCE)
        stale = raftz.ReadLevel.STALE
        assert [node.read(lambda it: it.n, level=stale) for node in cluster][-1] == 551
        assert again.read(lambda counter: counter.n, timeout=PATIENCE) == 551


def test_a_large_snapshot_passes_in_pieces_and_comes_back(tmp_path: Path) -> None:
    blob = bytes(range(256)) * 20_000

    class Large(Counter):
        blob = b""

        def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
            for at in range(0, len(blob), 100_000):
                out.write(memoryview(blob)[at : at + 100_000])

        def restore(self, source: raftz.SnapshotReader) -> None:
            start = source.read(10)
            middle = [source.read(300_000) for _ in range(3)]
            self.blob = start + b"".join(middle) + source.read()
            assert source.read() == b"" and source.read(5) == b""

    keys = {"data_dir": tmp_path, "node_id": 1, "cluster_id": 1, "founders": {1: "127.0.0.1:7001"}}
    with raftz.Node(Large(), bootstrap=True, listener=raftz.Listener(), **keys) as node:  # type: ignore[arg-type]
        node.wait_for_leader(PATIENCE)
        node.propose(b"1").result(PATIENCE)
        assert node.snapshot(PATIENCE).bytes > len(blob)
    with raftz.Node(Large(), listener=raftz.Listener(), **keys) as node:  # type: ignore[arg-type]
        node.wait_for_leader(PATIENCE)
        assert node.read(lambda machine: machine.blob == blob, timeout=PATIENCE)


def test_a_machine_that_makes_no_snapshots_or_fails_to_says_so() -> None:
    class Without(raftz.StateMachine):
        def apply(self, entry: raftz.Entry) -> None:
            return None

    class Failing(Counter):
        def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
            out.write(b"some of it")
            raise ArithmeticError("half way")

    for machine, words in ((Without, "has no capture"), (Failing, "half way")):
        with raftz.LocalCluster(1, machine) as cluster:
            node = cluster.wait_for_leader(PATIENCE)
            node.propose(b"1").result(PATIENCE)
            with pytest.raises(raftz.SnapshotError, match=words):
                node.snapshot(PATIENCE)
            assert node.status().fault is None
            assert isinstance(node.propose(b"1").result(PATIENCE), raftz.Done)


def test_without_a_quorum_calls_end_in_time_and_say_who_is_missing() -> None:
    with raftz.LocalCluster(3, Counter) as cluster:
        leader = cluster.wait_for_leader(PATIENCE)
        for node in cluster:
            if node is not leader:
                cluster.stop(node.node_id, PATIENCE)
        end = time.monotonic() + PATIENCE
        while leader.status().leader is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises((raftz.NoLeader, raftz.UnknownOutcome)):
            leader.propose(b"1", timeout=0.3).result()
        with pytest.raises(raftz.LeaderTimeout, match="refused"):
            leader.wait_for_leader(0.3)
        with pytest.raises(raftz.LeaderTimeout, match="refused"):
            leader.read(lambda counter: counter.n, timeout=0.3)
        with pytest.raises(raftz.LeaderTimeout, match="no leader within"):
            cluster.wait_for_leader(0.1)


def test_a_read_that_ends_too_late_says_what_it_waited_for() -> None:
    goes_on, entered = threading.Event(), threading.Event()

    def keep() -> None:
        entered.set()
        goes_on.wait(PATIENCE)

    class Slow(Counter):
        def apply(self, entry: raftz.Entry) -> bytes:
            keep()
            return super().apply(entry)

    with raftz.LocalCluster(1, Slow) as cluster:
        node = cluster.wait_for_leader(PATIENCE)
        for wait, missing in (
            (lambda: node.propose(b"1", timeout=PATIENCE), raftz.ApplyTimeout),
            (lambda: node.read_future(lambda _: keep(), timeout=PATIENCE), raftz.ReadTimeout),
        ):
            entered.clear()
            goes_on.clear()
            future = wait()
            try:
                assert entered.wait(PATIENCE)
                with pytest.raises(missing):
                    node.read(lambda counter: counter.n, timeout=0.1)
            finally:
                goes_on.set()
            assert future.exception(PATIENCE) is None


def test_events_can_be_iterated_over_from_another_thread() -> None:
    with raftz.LocalCluster(1, Counter) as cluster:
        node = cluster.wait_for_leader(PATIENCE)
        events = node.events(timeout=PATIENCE)
        seen: list[raftz.events.Event] = []
        thread = threading.Thread(target=lambda: seen.extend(events))
        thread.start()
        node.propose(b"1").result(PATIENCE)
        node.snapshot(PATIENCE)
        cluster.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        kinds = {type(event) for event in seen}
        assert raftz.events.Snapshot in kinds, seen


def test_what_cannot_be_a_cluster_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for size in (0, -1):
        with pytest.raises(raftz.InvalidArgument, match=f"size = {size}: "):
            raftz.LocalCluster(size, raftz.KvStore)
    with pytest.raises(raftz.ConfigError, match="listen_address") as refused:
        raftz.LocalCluster(1, raftz.KvStore, listen_address="127.0.0.1:7001")
    assert refused.value.code == -64
    with pytest.raises(ZeroDivisionError):
        raftz.LocalCluster(2, lambda: 1 // 0)  # type: ignore[type-var]

    def none_left() -> Any:
        raise OSError("no descriptor")

    monkeypatch.setattr(raftz._raftz, "Listener", none_left)
    with pytest.raises(OSError, match="no descriptor"):
        raftz.LocalCluster(1, raftz.KvStore)
    assert list(tmp_path.iterdir()) == []


def test_a_wait_for_a_leader_takes_no_time_that_is_none() -> None:
    with raftz.LocalCluster(1, Counter) as cluster:
        cluster.wait_for_leader(PATIENCE)
        for timeout in (float("nan"), -1.0):
            with pytest.raises(raftz.InvalidArgument, match="timeout"):
                cluster.wait_for_leader(timeout)
        assert cluster.wait_for_leader(0.0) is cluster[1]


def test_a_cluster_waits_for_nobody_in_a_callback() -> None:
    with raftz.LocalCluster(1, Counter) as cluster:
        node = cluster.wait_for_leader(PATIENCE)
        raised: list[type[BaseException]] = []
        called = threading.Event()

        def callback(_: object) -> None:
            for wait in (cluster.wait_for_leader, lambda: cluster.stop(1), cluster.close):
                try:
                    wait()
                except BaseException as error:
                    raised.append(type(error))
            called.set()

        node.propose(b"1").add_done_callback(callback)
        assert called.wait(PATIENCE)
        assert raised == [raftz.ReentrantCall] * 3
        assert cluster.wait_for_leader() is node


def test_a_node_that_did_not_stop_in_time_is_not_forgotten() -> None:
    goes_on, entered = threading.Event(), threading.Event()

    class Slow(Counter):
        def apply(self, entry: raftz.Entry) -> bytes:
            entered.set()
            goes_on.wait(PATIENCE)
            return super().apply(entry)

    with raftz.LocalCluster(1, Slow) as cluster:
        node = cluster.wait_for_leader(PATIENCE)
        node.propose(b"1")
        assert entered.wait(PATIENCE)
        try:
            with pytest.raises(raftz.StillRunning):
                cluster.stop(1, 0.1)
            assert cluster[1] is node
            # It is about to end, and leads nobody.
            with pytest.raises(raftz.LeaderTimeout):
                cluster.wait_for_leader(0.0)
        finally:
            goes_on.set()
        cluster.stop(1, PATIENCE)
        assert node.closed and cluster.nodes == {}


def test_a_cluster_that_is_never_closed_takes_its_folder_along(tmp_path: Path) -> None:
    program = """
        import tempfile
        tempfile.tempdir = sys.argv[1]
        kept = raftz.LocalCluster(2, raftz.KvStore)
        stopped = raftz.LocalCluster(1, raftz.KvStore)
        stopped.stop(1)
        pid = os.fork()
        if pid == 0:
            # A child's end is not the parent's, nor is what it closes.
            stopped.close()
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        print(len(os.listdir(sys.argv[1])))
    """
    assert says(program, str(tmp_path)) == "2\n"
    assert list(tmp_path.iterdir()) == []
