"""Loads the library as any language does: constants from the header, functions by name."""

import ctypes
import re
import sys

library, header = ctypes.CDLL(sys.argv[1]), open(sys.argv[2], encoding="utf-8").read()
numbers = {
    name: int(value)
    for name, value in re.findall(r"^#define (RAFTZ_\w+) (-?\d+)(?:ull)?$", header, re.MULTILINE)
}


class Slice(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("len", ctypes.c_size_t)]

    def bytes(self):
        return ctypes.string_at(self.data, self.len) if self.len else b""


class Reply(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("index", ctypes.c_uint64),
        ("term", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("bytes", ctypes.c_void_p),
    ]


class ReadOpts(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("level", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_uint32),
        ("index", ctypes.c_uint64),
        ("max_age_ms", ctypes.c_uint64),
    ]


class KvReplyInfo(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("kind", ctypes.c_uint32),
        ("is_on", ctypes.c_uint32),
        ("number", ctypes.c_int64),
        ("count", ctypes.c_uint64),
        ("value", Slice),
    ]


class StartOpts(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("builtin", ctypes.c_uint32),
        ("listen_fd", ctypes.c_int32),
        ("network", ctypes.c_void_p),
    ]


library.raftz_error_message.restype = ctypes.c_char_p
library.raftz_error_message.argtypes = [ctypes.c_void_p]
library.raftz_error_free.argtypes = [ctypes.c_void_p]
library.raftz_version_text.restype = ctypes.c_char_p
library.raftz_bytes_slice.restype = Slice
library.raftz_bytes_slice.argtypes = [ctypes.c_void_p]


def slice_of(data):
    buffer = ctypes.create_string_buffer(data, len(data))
    slice_ = Slice(ctypes.addressof(buffer), len(data))
    # As long as the slice lives, what it points to does.
    slice_.buffer = buffer
    return slice_


def call(name, *arguments):
    """Calls a function whose last argument is the error, and raises what it says."""
    error = ctypes.c_void_p()
    status = getattr(library, name)(*arguments, ctypes.byref(error))
    if status != numbers["RAFTZ_OK"]:
        words = library.raftz_error_message(error).decode()
        library.raftz_error_free(error)
        raise RuntimeError(f"{name}: {status}: {words}")


def made(name, *arguments):
    """Calls a function that makes an object."""
    out = ctypes.c_void_p()
    call(name, *arguments, ctypes.byref(out))
    return out


def free(kind, pointer):
    getattr(library, f"raftz_{kind}_free")(pointer)


assert library.raftz_version() == numbers["RAFTZ_VERSION"]
assert library.raftz_version_text().count(b".") == 2
config = made("raftz_config_new", ctypes.c_uint64(1), b"c1")
call("raftz_config_add_founder", config, ctypes.c_uint64(1), b"127.0.0.1:7001")
network = made("raftz_network_new")
opts = StartOpts(ctypes.sizeof(StartOpts), numbers["RAFTZ_BUILTIN_KV"], 0, network)
node = made("raftz_node_start", config, None, ctypes.byref(opts))
call("raftz_node_wait_for_leader", node, ctypes.c_uint32(30000), None)

command = made("raftz_kv_set", slice_of(b"key"), slice_of(b"value"))
reply = Reply(size=ctypes.sizeof(Reply))
call("raftz_propose_wait", node, library.raftz_bytes_slice(command), None, ctypes.byref(reply))
assert reply.index > 0 and reply.term > 0 and reply.flags == 0
free("bytes", command)
free("bytes", ctypes.c_void_p(reply.bytes))

request = made("raftz_kv_get", slice_of(b"key"))
how = ReadOpts(ctypes.sizeof(ReadOpts), numbers["RAFTZ_READ_STALE"], 30000, 0, 0)
reply = Reply(size=ctypes.sizeof(Reply))
asked = library.raftz_bytes_slice(request)
call("raftz_read_wait", node, asked, ctypes.byref(how), ctypes.byref(reply))
free("bytes", request)
answer_bytes = ctypes.c_void_p(reply.bytes)
flags = ctypes.c_uint32(reply.flags)
answer = made("raftz_kv_reply_read", library.raftz_bytes_slice(answer_bytes), flags)
info = KvReplyInfo(size=ctypes.sizeof(KvReplyInfo))
call("raftz_kv_reply_get", answer, ctypes.byref(info))
assert info.kind == numbers["RAFTZ_KV_VALUE"] and info.is_on == 1
assert info.value.bytes() == b"value"
free("kv_reply", answer)
free("bytes", answer_bytes)

try:
    call("raftz_config_set", config, b"no_such_key", b"1")
    raise SystemExit("an unknown key was taken")
except RuntimeError as error:
    assert str(numbers["RAFTZ_CONFIG"]) in str(error), error

call("raftz_node_stop", node, ctypes.c_uint32(30000))
free("node", node)
free("network", network)
free("config", config)
print("ok")
