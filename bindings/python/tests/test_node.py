"""Proposals, reads, status: what a node does for its callers."""

from __future__ import annotations

import errno
import logging
import os
import sys
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
        assert f"at index {done.index + 1} " in words
        assert "ArithmeticError: on purpose" in words
        assert f"while entry {done.index + 1} was applied" in words
    with pytest.raises(raftz.Faulted):
        node.propose(b"1").result(PATIENCE)


def test_a_fault_names_the_command_that_failed_and_not_its_batch(start: StartNode) -> None:
    node = start()
    done = node.propose(b"1").result(PATIENCE)
    node.propose_many([b"1", b"1", b"fail", b"1"]).exception(PATIENCE)
    assert f"at index {done.index + 3} " in (node.status().fault or "")


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
    with pytest.raises(raftz.Closed):
        node.campaign()
    list(events)
    with pytest.raises(raftz.Closed):
        events.next(PATIENCE)


def test_wrong_configuration_is_told_with_its_key() -> None:
    with pytest.raises(raftz.ConfigError, match='the nearest is "segment_bytes"'):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, segment_byte=1)  # type: ignore[call-arg]
    with pytest.raises(raftz.ConfigError, match='forward = "maybe"'):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, forward="maybe")  # type: ignore[arg-type]
    for id, words in ((0, "never 0"), (-1, "node_id = -1: a whole"), (1 << 64, r"2\*\*64 - 1")):
        with pytest.raises(raftz.ConfigError, match=words) as told:
            raftz.Node(raftz.KvStore(), node_id=id, cluster_id=1)
        assert told.value.code == -64
    with pytest.raises(TypeError, match="node_id: a whole number is wanted, not float"):
        raftz.Node(raftz.KvStore(), node_id=1.5, cluster_id=1)  # type: ignore[arg-type]
    for words in ("mine", "", "0x10", "c_1", "+1", "-1", "1-", "\N{ARABIC-INDIC DIGIT THREE}", 33 * "1"):
        with pytest.raises(raftz.ConfigError, match="1 to 32 hexadecimal") as told:
            raftz.Node(raftz.KvStore(), node_id=1, cluster_id=words)
        assert told.value.code == -64
    for number in (-1, 1 << 128):
        with pytest.raises(raftz.ConfigError, match=rf"cluster_id = {number}: .*2\*\*128 - 1"):
            raftz.Node(raftz.KvStore(), node_id=1, cluster_id=number)
    with pytest.raises(TypeError, match="founders = .*: addresses by id"):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, founders=[1])  # type: ignore[arg-type]
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
    with pytest.raises(raftz.NetworkError, match=taken.address) as error:
        raftz.Listener(taken.address)
    assert error.value.code == -66 and error.value.errno == errno.EADDRINUSE
    taken.close()
    with pytest.raises(raftz.InvalidArgument, match="listener: it was closed"):
        raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, listener=taken)


def test_an_identity_may_be_written_as_a_uuid(start: StartNode) -> None:
    node = raftz.Node(
        raftz.KvStore(),
        node_id=1,
        cluster_id="00000000-0000-0000-0000-0000000000C1",
        founders={1: "127.0.0.1:7001"},
        listener=raftz.Listener(),
    )
    with node:
        assert node.status().cluster_id == 0xC1


def test_a_number_out_of_range_is_told_with_its_argument(start: StartNode) -> None:
    node = start()
    calls: dict[str, Callable[[], object]] = {
        r"expected_term = -1: a whole number from 0 to 2\*\*64 - 1": lambda: node.propose(
            b"1", expected_term=-1
        ),
        "expected_term = 1844": lambda: node.propose_many([b"1"], expected_term=1 << 64),
        r"at_least\(-1\): a whole number": lambda: raftz.ReadLevel.at_least(-1),
        "index = -1": lambda: node.wait_for_applied(-1),
        "target = -1": lambda: node.transfer_leadership(-1),
        "target = 0: a node id is never 0": lambda: node.transfer_leadership(0),
    }
    for words, call in calls.items():
        with pytest.raises(raftz.InvalidArgument, match=words) as told:
            call()
        assert told.value.code == -97
    level: Any = "linearizable"
    with pytest.raises(TypeError, match="level = 'linearizable': a raftz.ReadLevel is wanted"):
        node.read(lambda counter: counter.n, level=level)
    other: Any = object()
    with pytest.raises(TypeError, match=r"a raftz.Node is wanted.*\.sync"):
        raftz.Kv(other)


def test_a_reason_is_text_or_bytes() -> None:
    number: Any = 404
    with pytest.raises(TypeError):
        raftz.Reject(number)
    view: Any = memoryview(b"no")
    assert raftz.Reject(view).reason == b"no"
    assert raftz.Reject(os.fsdecode(b"caf\xe9")).reason == rb"caf\udce9"


def test_a_folder_is_what_it_is_called(start: StartNode, tmp_path: Path) -> None:
    start(data_dir=f"{tmp_path}/node ")
    assert raftz.Node.is_formatted(tmp_path / "node ") and not (tmp_path / "node").exists()
    with pytest.raises(raftz.ConfigError, match="data_dir is empty"):
        raftz.Node.is_formatted("")


def test_a_machine_whose_node_did_not_start_may_be_given_to_another(start: StartNode) -> None:
    machine, taken = Counter(), raftz.Listener()
    keys: dict[str, Any] = {"node_id": 1, "cluster_id": 1, "founders": {1: taken.address}}
    with pytest.raises(raftz.NetworkError):
        raftz.Node(machine, listen_address=taken.address, **keys)
    start(machine).propose(b"1").result(PATIENCE)
    with pytest.raises(raftz.ConfigError, match="has served a node already") as told:
        raftz.Node(machine, listener=taken, **keys)
    assert told.value.code == -64


def test_a_machine_that_was_restored_in_vain_is_not_taken_again(
    start: StartNode, tmp_path: Path
) -> None:
    class Forgetful(Counter):
        def restore(self, source: raftz.SnapshotReader) -> None:
            super().restore(source)
            raise ArithmeticError("on purpose")

    node = start(data_dir=tmp_path)
    node.propose(b"1").result(PATIENCE)
    node.snapshot(PATIENCE)
    node.close(PATIENCE)
    machine = Forgetful()
    with pytest.raises(raftz.MachineError, match="on purpose"):
        start(machine, data_dir=tmp_path)
    with pytest.raises(raftz.ConfigError, match="has served a node already"):
        start(machine)


def test_a_command_that_is_too_large_is_not_copied(start: StartNode) -> None:
    node = start(calls_bytes_max="8m")
    large = bytes(64 << 20)
    before = sys.getrefcount(large)
    future = node.propose(large)
    assert isinstance(future.exception(PATIENCE), raftz.TooLarge)
    assert sys.getrefcount(large) == before, "it was kept"
    assert isinstance(node.propose(bytearray(large)).exception(PATIENCE), raftz.TooLarge)
    outcomes = node.propose_many([b"1", *[bytes(3 << 20)] * 4]).result(PATIENCE)
    assert [type(outcome) for outcome in outcomes] == [raftz.Busy] * 5
    assert node.metrics().proposals_failed["too_large"] == 2
    assert node.propose(b"1").result(PATIENCE).reply == b"1"

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
    own = {"node_id", "cluster_id", "founders", *raftz.node._ELSEWHERE}
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


class Wordless(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


NOT_UTF8 = ValueError("no such file: " + os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("error", [Wordless(), NOT_UTF8])
def test_an_exception_that_cannot_be_shown_fails_its_query_alone(
    start: StartNode, error: Exception
) -> None:
    class Asked(Counter):
        def query(self, request: bytes) -> bytes:
            if request == b"fail":
                raise error
            return super().query(request)

    node = start(Asked())
    with pytest.raises(raftz.ReadFailed, match=type(error).__name__):
        node.query(b"fail", timeout=PATIENCE)
    assert node.query(b"n", timeout=PATIENCE) == b"n=0"


@pytest.mark.parametrize("error", [Wordless(), NOT_UTF8])
def test_an_exception_that_cannot_be_shown_gives_up_its_snapshot_alone(
    start: StartNode, error: Exception
) -> None:
    class Written(Counter):
        def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
            if view == 1:
                raise error
            super().write_snapshot(view, out)

    node = start(Written())
    node.propose(b"1").result(PATIENCE)
    with pytest.raises(raftz.SnapshotError, match=type(error).__name__):
        node.snapshot(PATIENCE)
    node.propose(b"1").result(PATIENCE)
    assert node.snapshot(PATIENCE).bytes > 0


def test_an_exception_that_cannot_be_shown_stops_its_replica_with_a_reason(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(raftz.StateMachine):
        def apply(self, entry: raftz.Entry) -> bytes:
            raise NOT_UTF8

    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("a handler's own")

    handler = Handler()
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    logging.getLogger("raftz").addHandler(handler)
    try:
        node = start(Broken())
        assert node.propose(b"1").exception(PATIENCE) is not None
        assert r"no such file: caf\udce9" in (node.status().fault or "")
    finally:
        logging.getLogger("raftz").removeHandler(handler)


def test_keys_that_the_arguments_stand_for_are_refused(tmp_path: Path) -> None:
    for key in ("storage", "snapshot_directory"):
        keys: dict[str, Any] = {key: "memory"}
        with pytest.raises(raftz.ConfigError, match='the nearest is "data_dir"') as told:
            raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, data_dir=tmp_path / "node", **keys)
        assert told.value.code == -64 and key in str(told.value)
    assert not raftz.Node.is_formatted(tmp_path / "node")
