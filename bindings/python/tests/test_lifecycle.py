"""The contract of threads: exits, forks, Ctrl-C, garbage, calls out of callbacks, a GIL that is held."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import signal
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, Counter, run, says

import raftz

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    StartNode = Callable[..., raftz.Node[Any]]

SLOW = """
    gate = threading.Event()
    class Slow(raftz.StateMachine):
        def apply(self, entry):
            gate.wait(60)
            return b""
"""


def test_a_process_with_live_nodes_ends_well() -> None:
    program = """
        class Counter(raftz.StateMachine):
            n = 0
            def apply(self, entry):
                self.n += 1
                return b""
            def capture(self):
                return self.n
            def write_snapshot(self, view, out):
                out.write(b"%d" % view)
        node = start(Counter())
        futures = [node.propose(b"x") for _ in range(100)]
        futures[-1].add_done_callback(lambda future: future.result())
        futures[-1].result(60)
        if sys.argv[1] == "snapshot":
            node.snapshot(60)
        # Some are still on their way.
        more = [node.propose(b"x") for _ in range(100)]
        print("over")
    """
    for at in range(20):
        assert says(program, "snapshot" if at % 2 else "none") == "over\n"


def test_a_process_ends_well_whatever_its_daemons_are_doing_with_a_node() -> None:
    """Such threads are ended where they want the interpreter back, which no frame of Rust would survive."""
    program = """
        import raftz.node
        raftz.node._EXIT_SECONDS = 0.3
        class Machine(raftz.StateMachine):
            def apply(self, entry):
                if sys.argv[1] == "stuck":
                    time.sleep(1000)
                return b""
        def again(call):
            while True:
                try:
                    call()
                except raftz.RaftzError:
                    pass
        node = start(Machine())
        events = node.events()
        def call_back():
            for future in [node.propose(b"x") for _ in range(20)]:
                future.add_done_callback(lambda future: future.exception())
        for call in (
            lambda: node.propose(b"x").result(),
            lambda: node.propose_many(b"x" for _ in range(20)).result(),
            lambda: node.read(lambda machine: 1),
            lambda: node.wait_for_applied(1 << 40, 60),
            lambda: events.next(60),
            call_back,
            node.status,
            lambda: node.snapshot(5),
        ):
            threading.Thread(target=again, args=(call,), daemon=True).start()
        time.sleep(0.1)
        print("over")
    """
    for machine in ["free", "stuck"] * 3:
        ended = run(program, machine)
        assert ended.returncode == 0 and ended.stdout == "over\n", (machine, ended)


@pytest.mark.parametrize("stuck", ["machine", "callback"])
def test_a_process_whose_code_never_returns_ends_all_the_same(stuck: str) -> None:
    program = """
        import raftz.node
        raftz.node._EXIT_SECONDS = 0.3
        class Stuck(raftz.StateMachine):
            def apply(self, entry):
                if sys.argv[1] == "machine":
                    time.sleep(1000)
        node = start(Stuck())
        future = node.propose(b"x")
        if sys.argv[1] == "callback":
            begun = threading.Event()
            future.add_done_callback(lambda _: (begun.set(), time.sleep(1000)))
            begun.wait(60)
        print("over")
    """
    ended = run(program, stuck)
    assert ended.returncode == 0 and ended.stdout == "over\n", ended
    assert "Fatal" not in ended.stderr and "panicked" not in ended.stderr, ended.stderr


@pytest.mark.parametrize(
    "call",
    [
        'node.propose(b"x", timeout=60).result()',
        'node.propose(b"x", timeout=60).exception(60)',
        'node.propose_many([b"x"], timeout=60).result(60)',
        "node.read(lambda machine: 1, timeout=60)",
        'node.query(b"x", timeout=60)',
        "node.wait_for_applied(1000, 60)",
        "raftz.Node(raftz.KvStore(), node_id=2, cluster_id=1, founders={1: '127.0.0.1:7001', "
        "2: '127.0.0.1:7002'}, listener=raftz.Listener()).wait_for_leader(60)",
        "node.snapshot(60)",
        "node.close(60)",
        "node.events(raftz.events.Snapshot).next(60)",
        "list(node.events(raftz.events.Snapshot, timeout=60))",
    ],
)
def test_ctrl_c_ends_every_wait(call: str) -> None:
    program = (
        SLOW
        + f"""
    node = start(Slow())
    node.propose(b"x", timeout=60)
    begun = time.monotonic()
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        {call}
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted" if time.monotonic() - begun < 20 else "late")
    gate.set()
    """
    )
    ended = run(program)
    assert ended.stdout == "interrupted\n", ended
    assert ended.returncode == 0, ended


def test_a_child_of_a_fork_is_told_and_ends_well() -> None:
    program = """
        import asyncio
        node = start(raftz.KvStore())
        future, events = node.propose(raftz._raftz.kv_set(b"a", b"b")), node.events()
        pid = os.fork()
        if pid == 0:
            calls = [
                lambda: node.propose(b"x"), lambda: node.propose_many([b"x"]), lambda: node.query(b"x"),
                future.result, future.done, lambda: future.add_done_callback(print), node.status,
                node.metrics, node.close, lambda: node.wait_for_leader(1), lambda: events.next(1),
                lambda: node.snapshot(1), node.step_down, node.campaign, node.events,
            ]
            for call in calls:
                try:
                    call()
                    os._exit(3)
                except raftz.ForkedProcess as error:
                    assert error.code == -102 and "spawn" in str(error)
            def refused(call):
                try:
                    call()
                    os._exit(4)
                except raftz.ForkedProcess as error:
                    assert error.code == -102 and "processes that run none" in str(error)
            refused(lambda: start(raftz.KvStore()))
            refused(lambda: raftz.LocalCluster(1, raftz.KvStore))
            refused(lambda: asyncio.run(raftz.aio.Node(raftz.KvStore(), node_id=1, cluster_id=1).start()))
            del node, future, events, calls, call
            # Nor in the child's own child.
            pid = os.fork()
            if pid == 0:
                refused(lambda: start(raftz.KvStore()))
                sys.exit(0)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert raftz.Kv(node).get(b"a") == b"b"
        print("over")
    """
    assert says(program) == "over\n"


@pytest.mark.parametrize("before", ["none", "closed", "failed"])
def test_children_of_a_process_that_runs_no_node_may_have_their_own(before: str) -> None:
    program = """
        if sys.argv[1] == "closed":
            start(raftz.KvStore()).close()
        if sys.argv[1] == "failed":
            taken = raftz.Listener()
            try:
                raftz.Node(raftz.KvStore(), node_id=1, cluster_id=1, founders={1: "127.0.0.1:7001"},
                    listen_address=taken.address)
                print("started")
            except raftz.NetworkError:
                pass
        pid = os.fork()
        if pid == 0:
            node = start(raftz.KvStore())
            raftz.Kv(node).set(b"c", b"d")
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))
    """
    assert says(program, before) == "0\n"


def test_a_child_of_a_fork_keeps_neither_the_directory_nor_the_links_of_a_node_that_was_closed() -> None:
    program = """
        import tempfile
        folder = tempfile.TemporaryDirectory()
        kept = {"data_dir": os.path.join(folder.name, "node"), "bootstrap": True}
        cluster = raftz.LocalCluster(3, raftz.KvStore)
        cluster.wait_for_leader(60)
        node = start(raftz.KvStore(), **kept)
        hold, let_go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(let_go)
            os.read(hold, 1)
            os._exit(0)
        node.close()
        start(raftz.KvStore(), **kept).close()
        print("the directory is free")
        cluster.stop(3)
        # A link on which nothing is heard would be given up after six seconds.
        end = time.monotonic() + 4
        def linked():
            peers = [peer for node in cluster for peer in node.status().peers]
            return any(peer.connected for peer in peers if peer.node_id == 3)
        while linked() and time.monotonic() < end:
            time.sleep(0.01)
        print("still linked" if linked() else "the links have ended")
        cluster.close()
        os.close(let_go)
        os.waitpid(child, 0)
        folder.cleanup()
    """
    assert says(program) == "the directory is free\nthe links have ended\n"


def test_a_node_that_is_collected_warns_and_stops_without_being_waited_for() -> None:
    gate = threading.Event()

    class Slow(Counter):
        def apply(self, entry: raftz.Entry) -> bytes:
            gate.wait(PATIENCE)
            return b""

    machine: raftz.StateMachine = Slow()
    gone = weakref.ref(machine)
    node = raftz.Node(
        machine,
        node_id=7,
        cluster_id=1,
        founders={7: "127.0.0.1:7001"},
        listener=raftz.Listener(),
    )
    node.wait_for_leader(PATIENCE)
    # Its machine is busy for a minute.
    future = node.propose(b"1", timeout=1)
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del node, machine
        gc.collect()
        warned = [(warning.category, str(warning.message)) for warning in caught]
        begun = time.monotonic()
        # They keep what they warn of until here.
        caught.clear()
        took = time.monotonic() - begun
    assert took < 1.5, "somebody waited, as a node in Rust does for two seconds when it is dropped"
    assert [kind for kind, _ in warned] == [ResourceWarning] and "raftz.Node 7" in warned[0][1]
    assert isinstance(future.exception(PATIENCE), raftz.RaftzError)
    assert called.wait(PATIENCE)
    gate.set()
    del future
    end = time.monotonic() + PATIENCE
    while gone() is not None or any(it.name.startswith("raftz-7") for it in threading.enumerate()):
        assert time.monotonic() < end, "its threads go on"
        time.sleep(0.01)


def test_a_closed_node_has_no_thread_left(start: StartNode) -> None:
    called: list[int] = []
    for at in range(20):
        node = start()
        future = node.propose(b"1")
        # Two threads are just being started.
        future.add_done_callback(lambda _: called.append(1))
        if at % 2:
            node.snapshot(PATIENCE)
        node.close(PATIENCE)
        assert [it.name for it in threading.enumerate() if it.name.startswith("raftz-1")] == []
        assert len(called) == at + 1


def test_a_callback_that_does_not_return_is_still_running(start: StartNode) -> None:
    gate, begun = threading.Event(), threading.Event()

    def callback(_: object) -> None:
        begun.set()
        gate.wait(PATIENCE)

    node = start()
    node.propose(b"1").add_done_callback(callback)
    assert begun.wait(PATIENCE)
    for _ in range(2):
        with pytest.raises(raftz.StillRunning, match="raftz-1-call") as told:
            node.close(0.5)
        assert told.value.code == -72 and not node.closed
    # Nobody waits for those that come after the end.
    begun.clear()
    node.propose(b"1").add_done_callback(callback)
    assert begun.wait(PATIENCE)
    with pytest.raises(raftz.StillRunning) as told:
        node.close(0.1)
    assert str(told.value).count("raftz-1-call") == 1
    gate.set()
    node.close(PATIENCE)
    assert node.closed
    # Whatever the time.
    node = start()
    node.close(float("inf"))
    assert node.closed


def test_what_a_read_raised_goes_with_its_future(start: StartNode) -> None:
    """The exception has the traceback, that the frame, and that the future."""
    node = start()

    def ask() -> weakref.ref[Any]:
        future = node.read_future(lambda counter: 1 // counter.n)
        future.add_done_callback(lambda _: future)
        with pytest.raises(ZeroDivisionError):
            future.result(PATIENCE)
        return weakref.ref(future)

    # What the machine's thread and the callbacks' have of it, they let go before these.
    gone = [ask() for _ in range(100)]
    node.read(lambda counter: counter.n, timeout=PATIENCE)
    end = time.monotonic() + PATIENCE
    while any(future() is not None for future in gone):
        gc.collect()
        assert time.monotonic() < end, "they are kept"
        time.sleep(0.01)


def number_of(_: object, counter: Counter) -> int:
    return counter.n


def test_a_function_that_was_called_is_kept_by_nobody(start: StartNode) -> None:
    node = start()

    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    future = node.read_future(functools.partial(number_of, thing))
    del thing
    assert future.result(PATIENCE) == 0
    node.read(lambda counter: None, timeout=PATIENCE)
    assert gone() is None and future.result(PATIENCE) == 0


def test_without_memory_a_command_is_refused_and_the_process_goes_on() -> None:
    program = """
        import resource
        node = start(raftz.KvStore())
        large, fixed = bytearray(300 << 20), bytes(300 << 20)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), most))
        for call in (
            lambda: node.propose(large),
            lambda: node.propose(memoryview(large)),
            lambda: node.propose_many([large]),
            lambda: node.query(fixed),
            lambda: node.query(large),
            lambda: raftz.kv.get(large),
        ):
            try:
                call()
                print("taken")
            except MemoryError:
                pass
        print(raftz.Kv(node).set(b"a", b"b") > 0)
    """
    assert says(program) == "True\n"


def test_without_descriptors_the_system_is_named() -> None:
    program = """
        import errno, resource
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
        for make, kind in ((raftz.Listener, raftz.NetworkError), (raftz._raftz.LoopDesk, raftz.ThreadError)):
            try:
                make()
            except raftz.RaftzError as error:
                assert type(error) is kind and error.errno == errno.EMFILE, repr(error)
                print(error.code)
    """
    assert says(program) == "-66\n-68\n"


def test_without_threads_nodes_and_callbacks_are_refused_in_words() -> None:
    program = """
        import _thread
        node = start(raftz.KvStore())
        def none(*_):
            raise RuntimeError("can't start new thread")
        threading._start_new_thread = none
        class M(raftz.StateMachine):
            pass
        machine = M()
        for _ in range(2):
            try:
                start(machine)
            except raftz.ThreadError as error:
                assert error.code == -68 and "raise the limit on threads" in str(error), error
                print("no thread")
        # The thread that starts the callbacks' serves them itself.
        called = _thread.allocate_lock()
        called.acquire()
        future = node.propose(raftz.kv.set(b"a", b"b"))
        future.add_done_callback(lambda _: called.release())
        called.acquire(timeout=60)
        future.result()
        node.close()
        print("over")
    """
    assert says(program) == "no thread\nno thread\nover\n"


def test_blocking_calls_inside_callbacks_are_refused(start: StartNode) -> None:
    refused: list[str] = []
    all_done = threading.Event()
    nodes: list[raftz.Node[Any]] = []

    def try_all() -> None:
        node = nodes[0]
        for call in (
            lambda: node.propose(b"1").result(1),
            lambda: node.read(lambda counter: counter.n),
            lambda: node.wait_for_leader(1),
            lambda: node.wait_for_applied(10**9, 1),
            lambda: node.snapshot(1),
            lambda: node.close(1),
            lambda: node.step_down(1),
            lambda: node.events(raftz.events.Snapshot).next(1),
        ):
            begun = time.monotonic()
            try:
                call()
            except raftz.ReentrantCall as error:
                assert error.code == -9
                refused.append(str(error))
            assert time.monotonic() - begun < 0.9, "it waited"

    class Calling(Counter):
        def apply(self, entry: raftz.Entry) -> bytes:
            if nodes and entry.data == b"0":
                try_all()
            return super().apply(entry)

        def write_snapshot(self, view: int, out: raftz.SnapshotWriter) -> None:
            try_all()
            super().write_snapshot(view, out)

    nodes.append(start(Calling()))
    node = nodes[0]
    node.propose(b"0", timeout=PATIENCE).result(PATIENCE)
    assert len(refused) == 8 and "inside the state machine's apply" in refused[0]
    node.read(lambda counter: try_all(), timeout=PATIENCE)
    assert len(refused) == 16 and "inside a read of the state machine" in refused[8]
    node.snapshot(PATIENCE)
    assert len(refused) == 24 and "write_snapshot" in refused[16]

    def callback(_: object) -> None:
        try_all()
        all_done.set()

    # Something that is not over yet.
    node.read_future(lambda counter: time.sleep(0.05)).add_done_callback(callback)
    assert all_done.wait(PATIENCE)
    assert len(refused) == 32 and "a callback of a future" in refused[24]
    # Once outside, everything works; what was proposed inside has gone on.
    assert node.propose(b"5").result(PATIENCE).reply == b"9"


def test_a_callback_that_raises_is_reported_and_stops_nothing(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    told = threading.Event()

    def hook(raised: Any) -> None:
        reported.append(raised.exc_value)

    monkeypatch.setattr("threading.excepthook", hook)
    node = start()
    future = node.read_future(lambda counter: time.sleep(0.05))
    future.add_done_callback(lambda _: 1 // 0)
    future.add_done_callback(lambda _: told.set())
    assert told.wait(PATIENCE)
    assert [type(error) for error in reported] == [ZeroDivisionError]
    reported.clear()


def told_by(told: threading.Event, _: object) -> None:
    told.set()


def test_a_hook_that_raises_stops_no_callback(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(_: object) -> None:
        raise OSError("sys.stderr is closed")

    monkeypatch.setattr("threading.excepthook", hook)
    node = start()
    for _ in range(2):
        told = threading.Event()
        future = node.propose(b"1")
        future.add_done_callback(lambda _: 1 // 0)
        future.add_done_callback(functools.partial(told_by, told))
        assert told.wait(PATIENCE)


def test_a_log_handler_that_raises_loses_its_own_lines_alone(
    start: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr("threading.excepthook", lambda raised: reported.append(raised.exc_type))
    lines: list[str] = []
    leads = threading.Event()

    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            lines.append(record.getMessage())
            if len(lines) == 1:
                raise ArithmeticError("on purpose")
            if "node 1 leads" in lines[-1]:
                leads.set()
            return True

    logger, handler = logging.getLogger("raftz"), Handler()
    before = logger.level
    # Below 0 are all levels.
    logger.setLevel(-1)
    logger.addHandler(handler)
    try:
        start()
        assert leads.wait(PATIENCE)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert reported == [ArithmeticError]


def test_a_thread_that_keeps_the_interpreter_moves_no_leadership() -> None:
    """Busy threads, and one long call that never lets the interpreter go, for five election timeouts and more."""
    with raftz.LocalCluster(
        3, Counter, election_timeout_min_ms=400, election_timeout_max_ms=800
    ) as cluster:
        leader = cluster.wait_for_leader(PATIENCE)
        leader.propose(b"1").result(PATIENCE)
        before = [(node.status().term, node.status().leader) for node in cluster]
        end = time.monotonic() + 2.0

        def keep_busy() -> None:
            while time.monotonic() < end:
                pow(3, 10_000)

        threads = [threading.Thread(target=keep_busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A function of such a library is called with the interpreter held.
        ctypes.PyDLL(None).usleep(4_000_000)
        after = [(node.status().term, node.status().leader) for node in cluster]
        assert before == after
        assert [node.metrics().leader_changes for node in cluster] == [1, 1, 1]
        leader.propose(b"1").result(PATIENCE)


def test_signals_reach_the_program_while_a_node_runs(start: StartNode) -> None:
    start()
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        for _ in range(20):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == [signal.SIGUSR1] * 20


def test_log_lines_come_from_a_thread_of_their_own(
    start: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="raftz"):
        start()
        end = time.monotonic() + PATIENCE
        while not any("node 1 leads" in record.getMessage() for record in caplog.records):
            assert time.monotonic() < end, caplog.text
            time.sleep(0.01)
        line = next(it for it in caplog.records if "node 1 leads" in it.getMessage())
        assert line.threadName == "raftz-log" and "node=1" in line.getMessage()
