"""One node of a test cluster in a process of its own, in Python. It speaks the lines of
tests/src/bin/raftz-testnode.rs, as far as the tests with kills need them:

    testnode PLACE ROOT ADDRESS,ADDRESS,… [key=value …]
        keys of the configuration, and machine=kv or python

    load TAG CLIENTS  clients that write keys of their own  -> ack …
    stop              ends all clients                      -> stopped
    status | dump
"""

import json
import os
import sys
import threading
import time
from typing import Any

import raftz

PATIENCE = 30.0

_lock = threading.Lock()


def say(line: str) -> None:
    """Prints one line as a whole and at once: what was acknowledged must be known even if this process dies now."""
    with _lock:
        os.write(1, line.encode() + b"\n")


class Store(raftz.StateMachine):
    """A store in Python, with the commands of the one in Rust; those of the tests only set."""

    def __init__(self) -> None:
        self.map: dict[str, str] = {}

    def apply(self, entry: raftz.Entry) -> bytes:
        data = entry.data
        if data[0] != 1:
            raise raftz.Reject("only set")
        end = 5 + int.from_bytes(data[1:5], "little")
        key, value = data[5:end].decode(), data[end + 4 :].decode()
        self.map[key] = value
        return b"\x01"

    def capture(self) -> dict[str, str]:
        return self.map.copy()

    def write_snapshot(self, view: dict[str, str], out: raftz.SnapshotWriter) -> None:
        out.write(json.dumps(view).encode())

    def restore(self, source: raftz.SnapshotReader) -> None:
        self.map = json.loads(source.read())


Node = raftz.Node[Any]


def value_of(key: str) -> str:
    hash = 0xCBF29CE484222325
    for byte in key.encode():
        hash = (hash ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{hash:016x}-{len(key)}"


def write_until(node: Node, tag: str, stop: threading.Event) -> None:
    n = 0
    while not stop.is_set():
        key = f"{tag}.{n}"
        command = raftz._raftz.kv_set(key.encode(), value_of(key).encode())
        try:
            node.propose(command).result()
            say(f"ack {key}")
        except raftz.UnknownOutcome:
            # It may be there or not; the next key is another write.
            say(f"unknown {key}")
        except raftz.Refused:
            time.sleep(0.002)
            continue
        n += 1


def status(node: Node) -> None:
    seen = node.status()
    for peer in seen.peers:
        words = "linked" if peer.connected else peer.unreachable or "not connected yet"
        say(f"peer {peer.node_id} {words}")
    if seen.damaged_from is not None:
        say(f"damaged {seen.damaged_from}")
    say(
        f"status {seen.term} {seen.leader or 0} {seen.commit_index} {seen.applied_index} "
        f"{seen.membership.known_disks} {seen.fault or ''}"
    )


def dump(node: Node, is_python: bool) -> None:
    stale = raftz.ReadLevel.STALE
    if is_python:
        pairs = node.read(lambda store: sorted(store.map.items()), level=stale, timeout=PATIENCE)
    else:
        scan = raftz.Kv(node).scan(level=stale, timeout=PATIENCE)
        pairs = [(key.decode(), value.decode()) for key, value in scan]
    for key, value in pairs:
        say(f"holds {key} {value}")
    say("end")


def main() -> None:
    place, root, addresses, *options = sys.argv[1:]
    id = int(place) + 1
    founders = dict(enumerate(addresses.split(","), 1))
    # So few that logs are shortened all the time, and who was away for a moment needs a snapshot.
    keys: dict[str, Any] = {
        "listen_address": founders[id],
        "snapshot_log_entries": "500",
        "snapshot_retain_bytes": "20000",
    }
    keys.update(dict(option.split("=", 1) for option in options))
    is_python = keys.pop("machine", "kv") == "python"
    node: Node = raftz.Node(
        Store() if is_python else raftz.KvStore(),
        node_id=id,
        cluster_id="5eed",
        founders=founders,
        data_dir=f"{root}/node-{id}",
        bootstrap=True,
        **keys,
    )
    say("ready")
    stop, lives = threading.Event(), 0
    clients: list[threading.Thread] = []
    for line in sys.stdin:
        match line.split():
            case ["load", tag, count]:
                for at in range(int(count)):
                    arguments = (node, f"{tag}.{lives}.{at}", stop)
                    clients.append(threading.Thread(target=write_until, args=arguments))
                    clients[-1].start()
                lives += 1
            case ["stop"]:
                stop.set()
                for client in clients:
                    client.join()
                stop, clients = threading.Event(), []
                say("stopped")
            case ["status"]:
                status(node)
            case ["dump"]:
                dump(node, is_python)
            case _:
                raise SystemExit(f"failed unknown request {line!r}")
    stop.set()
    node.close()


if __name__ == "__main__":
    try:
        main()
    except raftz.RaftzError as error:
        say(f"failed {error}")
        raise SystemExit(1) from error
