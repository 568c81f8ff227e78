"""Proposals, reads, status: what a node does for its callers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, Counter

import raftz

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    StartNode = Callable[..., raftz.Node[Any]]


def test_a_write_is_answered_by_the_machine_and_seen_by_reads(start: StartNode) -> None:
    node = start()
    first, second = node.propose(b"41"), node.propose(b"1")
    assert first.result(PATIENCE).reply == b"41"
    done = second.result(PATIENCE)
    assert done.reply == b"42" and done.index > first.result().index and done.term >= 1
    assert done == second.result() and "reply=b'42'" in repr(done)
    levels = [
        raftz.ReadLevel.LINEARIZABLE,
        raftz.ReadLevel.LEASE,
        raftz.ReadLevel.STALE,
        raftz.ReadLevel.at_least(done.index),
        raftz.ReadLevel.bounded(5),
    ]
    for level in levels:
        assert node.read(lambda counter: counter.n, level=level) == 42
        assert node.query(b"n", level=level) == b"n=42"


def test_any_buffer_is_a_command_and_anything_else_is_refused(start: StartNode) -> None:
    node = start()
    for command in (b"1", bytearray(b"1"), memoryview(b"21")[1:]):
        node.propose(command).result(PATIENCE)
    assert node.read(lambda counter: counter.n) == 3
    for wrong in ("1", 1, None):
        with pytest.raises(TypeError, match="are wanted, not"):
            node.propose(wrong)  # type: ignore[arg-type]
    with pytest.raises(raftz.InvalidArgument, match="timeout = -1"):
        node.propose(b"1", timeout=-1)
    with pytest.raises(raftz.TooLarge) as refused:
        node.propose(bytes(5 << 20)).result(PATIENCE)
    assert refused.value.code == -5 and not refused.value.retriable


def test_a_batch_has_an_outcome_for_each_command_in_order(start: StartNode) -> None:
    node = start()
    outcomes = node.propose_many([b"1", b"no", b"2", bytes(5 << 20)]).result(PATIENCE)
    one, rejected, two, large = outcomes
    assert isinstance(one, raftz.Done) and isinstance(two, raftz.Done)
    assert (one.reply, two.reply) == (b"1", b"3")
    assert isinstance(rejected, raftz.Reject) and rejected.reason == b"not that"
    assert rejected.index is not None and one.index < rejected.index < two.index
    assert isinstance(large, raftz.TooLarge)
    assert node.propose_many([]).result(PATIENCE) == []


def test_a_rejection_is_raised_for_who_asked_and_changes_nothing(start: StartNode) -> None:
    node = start()
    with pytest.raises(raftz.Reject, match="not that"):
        node.propose(b"no").result(PATIENCE)
    with pytest.raises(raftz.Reject, match="not that either"):
        node.query(b"no")
    assert isinstance(node.propose(b"no").exception(PATIENCE), raftz.Reject)
    assert node.propose(b"1").result(PATIENCE).reply == b"1"


def test_what_a_read_raises_is_its_askers(start: StartNode) -> None:
    node = start()
    with pytest.raises(ZeroDivisionError):
        node.read(lambda counter: 1 // counter.n)
    with pytest.raises(raftz.ReadFailed, match="ArithmeticError: on purpose, again"):
        node.query(b"fail")
    assert node.status().fault is None


def test_an_exception_in_apply_stops_the_replica_and_says_so(start: StartNode) -> None:
    node = start()
    told = node.events(raftz.events.Faulted)
    done = node.propose(b"1").result(PATIENCE)
    with pytest.raises((raftz.Faulted, raftz.UnknownOutcome)) as ended:
        node.propose(b"fail").result(PATIENCE)
    assert ended.value.code in (-8, -35)
    event = told.next(PATIENCE)
    assert isinstance(event, raftz.events.Faulted)
    for words in (event.reason, node.status().fault or ""):
        assert "ArithmeticError: on purpose" in words
        assert f"while entry {done.index + 1} was applied" in words
    with pytest.raises(raftz.Faulted):
        node.propose(b"1").result(PATIENCE)


def test_an_answer_that_is_no_bytes_stops_the_replica(start: StartNode) -> None:
    class Wrong(raftz.StateMachine):
        def apply(self, entry: raftz.Entry) -> bytes:
            return 7  # type: ignore[return-value]

    node = start(Wrong())
    assert node.propose(b"1").exception(PATIENCE) is not None
    assert "apply returned int; bytes or None are wanted" in (node.status().fault or "")


def test_a_callback_is_called_once_on_the_nodes_own_thread(start: StartNode) -> None:
    node = start()
    called: list[tuple[str, bytes]] = []
    all_called = threading.Event()

    def callback(future: raftz.Future[raftz.Done]) -> None:
        called.append((threading.current_thread().name, future.result().reply))
        if len(called) == 200:
            all_called.set()

    for _ in range(100):
        future = node.propose(b"1")
        future.add_done_callback(callback)
        future.add_done_callback(callback)
    assert all_called.wait(PATIENCE)
    assert sorted(int(reply) for _, reply in called) == sorted(2 * list(range(1, 101)))
    assert {name for name, _ in called} <= {"raftz-1-call", threading.current_thread().name}


def test_a_callback_may_ask_for_the_result_while_others_wait_for_it(start: StartNode) -> None:
    node = start()
    replies: list[bytes] = []
    for _ in range(200):
        future = node.propose(b"1")
        future.add_done_callback(lambda it: replies.append(it.result().reply))
        future.result(PATIENCE)
        assert future.done()
    node.close(PATIENCE)
    assert sorted(int(reply) for reply in replies) == list(range(1, 201))


def test_many_threads_may_wait_for_one_future(start: StartNode) -> None:
    gate = threading.Event()

    class Slow(Counter):
        def apply(self, entry: raftz.Entry) -> bytes:
            gate.wait(PATIENCE)
            return super().apply(entry)

    node = start(Slow())
    future = node.propose(b"7", timeout=PATIENCE)
    with pytest.raises(TimeoutError, match="it goes on"):
        future.result(0.05)
    assert not future.done()
    replies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: replies.append(future.result(PATIENCE).reply))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert replies == [b"7"] * 8 and future.done()


def test_a_node_keeps_its_log_and_goes_on_after_a_restart(
    start: StartNode, tmp_path: Path
) -> None:
    assert not raftz.Node.is_formatted(tmp_path)
    node = start(data_dir=tmp_path)
    assert raftz.Node.is_formatted(tmp_path)
    node.propose(b"41").result(PATIENCE)
    snapshot = node.snapshot(PATIENCE)
    assert snapshot.bytes > 0 and snapshot.index > 0
    node.propose(b"1").result(PATIENCE)
    node.close(PATIENCE)
    again = start(data_dir=tmp_path)
    assert again.read(lambda counter: counter.n, timeout=PATIENCE) == 42
    assert again.status().first_index == snapshot.index + 1 or again.status().first_index >= 1


def test_a_machine_serves_one_node(start: StartNode) -> None:
    machine = Counter()
    start(machine)
    with pytest.raises(raftz.ConfigError, match="has served a node already"):
        start(machine)


def test_status_and_metrics_tell_how_a_node_is(start: StartNode) -> None:
    node = start()
    node.propose(b"1").result(PATIENCE)
    status, metrics = node.status(), node.metrics()
    assert status.role == "leader" and status.leader == 1 and status.ready
    assert status.membership.voters == [1] and status.commit_index <= status.last_index
    assert status.cluster_id == 0xC1 and status.fault is None
    assert metrics.is_leader and metrics.elections["won"] == 1
    assert metrics.propose_us.count == 1 and metrics.propose_us.at_most(0.99)
    assert "raftz_has_leader" in node.metrics_text()
    node.wait_for_applied(status.applied_index, 1)
    with pytest.raises(raftz.ApplyTimeout, match=r"was not applied within 50 ms"):
        node.wait_for_applied(status.last_index + 10, 0.05)


def test_a_closed_node_says_so(start: StartNode) -> None:
    node = start()
    events = node.events()
    node.close(PATIENCE)
    node.close()
    assert node.closed and node.status().shut_down
    with pytest.raises(raftz.Closed):
        node.propose(b"1").result(PATIENCE)
    with pytest.raises(raftz.Closed):
        node.read(lambda counter: counter.n)
    with pytest.raises(raftz.Closed):
        node.wait_for_leader(1)
    list(events)
    with pytest.raises(raftz.Closed):
        events.next(PATIENCE)


def test_wrong_configuration_is_told_with_its_key() -> None:
    with pytest.raises(raftz.ConfigError, match='the nearest is "segment_bytes"'):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, segment_byte=1)  # type: ignore[call-arg]
    with pytest.raises(raftz.ConfigError, match='forward = "maybe"'):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, forward="maybe")  # type: ignore[arg-type]
    with pytest.raises(raftz.InvalidArgument, match="never 0"):
        raftz.Node(raftz.KvStore(), node_id=0, cluster_id=1)
    with pytest.raises(raftz.ConfigError, match="hexadecimal"):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id="mine")
    taken = raftz.Listener()
    with pytest.raises(raftz.NetworkError) as error:
        raftz.Node(
            raftz.KvStore(),
            node_id=1,
            cluster_id=1,
            founders={1: taken.address},
            listen_address=taken.address,
        )
    assert error.value.code == -66 and error.value.errno is not None


def test_what_is_no_machine_no_age_or_no_name_is_told(start: StartNode, tmp_path: Path) -> None:
    for wrong in (None, Counter, "kv"):
        with pytest.raises(TypeError, match="is no state machine"):
            raftz.Node(wrong, node_id=1, cluster_id=1)  # type: ignore[type-var]
    for age in (-1.0, float("nan")):
        with pytest.raises(raftz.InvalidArgument, match="a number of seconds") as told:
            raftz.ReadLevel.bounded(age)
        assert told.value.code == -97
    # A name in bytes is the same name.
    node = start(data_dir=bytes(tmp_path / "node"))
    assert raftz.Node.is_formatted(tmp_path / "node")
    longest = raftz.ReadLevel.bounded(float("inf"))
    assert node.read(lambda counter: counter.n, level=longest, timeout=PATIENCE) == 0


def test_every_key_of_the_core_is_typed() -> None:
    # The last is for stores of a program's own, which Python does not have.
    own = {"node_id", "cluster_id", "founders", "storage", "snapshot_directory"}
    assert set(raftz.Keys.__annotations__) == set(raftz._raftz.config_keys()) - own


def test_codes_are_those_of_the_header() -> None:
    assert raftz.errors._CLASSES[-3] is raftz.Busy
    for code, kind in raftz.errors._CLASSES.items():
        error = raftz._raftz.failure(code, "words", 3)
        assert type(error) is kind and error.code == code and str(error) == "words"
        assert error.leader == 3
    for code in range(-36, -31):
        unknown = raftz._raftz.failure(code, "")
        assert isinstance(unknown, raftz.UnknownOutcome) and not unknown.retriable
    for code in range(-84, -79):
        assert isinstance(raftz._raftz.failure(code, ""), raftz.TransferError)
    assert type(raftz._raftz.failure(-1000, "of a later version")) is raftz.RaftzError
    full = raftz._raftz.failure(-65, "no space", None, 28)
    assert isinstance(full, OSError) and full.errno == 28
