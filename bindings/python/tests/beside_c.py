"""A node of the package and one of libraftz.so, in one process: `beside_c.py smoke.py libraftz.so raftz.h`."""

import runpy
import sys

import raftz

sys.argv = sys.argv[1:]
node = raftz.Node(
    raftz.KvStore(),
    node_id=1,
    cluster_id=1,
    founders={1: "127.0.0.1:7001"},
    listener=raftz.Listener(),
)
node.wait_for_leader(60)
store = raftz.Kv(node)
store.set(b"key", b"mine")
runpy.run_path(sys.argv[0], run_name="__main__")
assert store.get(b"key") == b"mine"
node.close()
print("ok")
