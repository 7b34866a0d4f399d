"""The C functions and structs of libbpf that this package calls (libbpf 1.1, bpf/bpf.h, libbpf.h).

libbpf 1.x returns negative error numbers, or NULL with errno set; `check` and `check_pointer` turn
both into BpfError.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import POINTER, Structure, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64
from ctypes import c_void_p as pointer_t
from typing import Any

_MESSAGES_KEPT = 40


class BpfError(OSError):
    """A call of libbpf or the kernel failed; `errno` tells how."""


class CreateMapOpts(Structure):
    """struct bpf_map_create_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    ]


class BatchOpts(Structure):
    """struct bpf_map_batch_opts."""

    _fields_ = [("sz", c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64)]


class LinkCreateOpts(Structure):
    """struct bpf_link_create_opts; the union after target_btf_id is not ours."""

    _fields_ = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", pointer_t),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("union", c_uint64 * 8),
    ]


class XdpQueryOpts(Structure):
    """struct bpf_xdp_query_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", c_uint8),
    ]


class TestRunOpts(Structure):
    """struct bpf_test_run_opts."""

    _fields_ = [
        ("sz", c_size_t),
        ("data_in", pointer_t),
        ("data_out", pointer_t),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", pointer_t),
        ("ctx_out", pointer_t),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class MapInfo(Structure):
    """The head of struct bpf_map_info (linux/bpf.h)."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
    ]


class ProgInfo(Structure):
    """The head of struct bpf_prog_info (linux/bpf.h)."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
    ]


class LinkInfo(Structure):
    """struct bpf_link_info of an XDP link (linux/bpf.h); the union has 8-byte alignment."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("pad", c_uint32),
        ("ifindex", c_uint32),
        ("rest", c_uint32 * 9),
    ]


_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
_messages: list[str] = []

_libc = ctypes.CDLL(None)
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, pointer_t)


def _keep_message(level: int, text: bytes, arguments: int) -> int:
    if level <= 1:  # LIBBPF_WARN, LIBBPF_INFO
        buffer = ctypes.create_string_buffer(65536)
        _libc.vsnprintf(buffer, c_size_t(len(buffer)), text, pointer_t(arguments))
        _messages.extend(buffer.value.decode(errors="replace").splitlines())
        del _messages[:-_MESSAGES_KEPT]
    return 0


_lib.libbpf_set_print.argtypes = [_PRINT]
_lib.libbpf_set_print.restype = pointer_t
_callback = _PRINT(_keep_message)  # held: libbpf keeps only the pointer
_lib.libbpf_set_print(_callback)


def declare(name: str, *arguments: Any, result: Any = c_int) -> Any:
    """A function of libbpf with its argument and result types."""
    function = getattr(_lib, name)
    function.argtypes = arguments
    function.restype = result
    return function


fd_t = c_int
object_open = declare("bpf_object__open_file", c_char_p, pointer_t, result=pointer_t)
object_load = declare("bpf_object__load", pointer_t)
object_close = declare("bpf_object__close", pointer_t, result=None)
object_next_map = declare("bpf_object__next_map", pointer_t, pointer_t, result=pointer_t)
object_find_program = declare(
    "bpf_object__find_program_by_name", pointer_t, c_char_p, result=pointer_t
)
map_name = declare("bpf_map__name", pointer_t, result=c_char_p)
map_fd = declare("bpf_map__fd", pointer_t)
map_type = declare("bpf_map__type", pointer_t)
map_key_size = declare("bpf_map__key_size", pointer_t, result=c_uint32)
map_value_size = declare("bpf_map__value_size", pointer_t, result=c_uint32)
map_max_entries = declare("bpf_map__max_entries", pointer_t, result=c_uint32)
map_flags = declare("bpf_map__map_flags", pointer_t, result=c_uint32)
map_set_max_entries = declare("bpf_map__set_max_entries", pointer_t, c_uint32)
map_reuse_fd = declare("bpf_map__reuse_fd", pointer_t, fd_t)
program_fd = declare("bpf_program__fd", pointer_t)

prog_by_id = declare("bpf_prog_get_fd_by_id", c_uint32)
obj_pin = declare("bpf_obj_pin", fd_t, c_char_p)
obj_get = declare("bpf_obj_get", c_char_p)
obj_info = declare("bpf_obj_get_info_by_fd", fd_t, pointer_t, POINTER(c_uint32))
map_create = declare(
    "bpf_map_create", c_int, c_char_p, c_uint32, c_uint32, c_uint32, POINTER(CreateMapOpts)
)
map_lookup = declare("bpf_map_lookup_elem", fd_t, pointer_t, pointer_t)
map_update = declare("bpf_map_update_elem", fd_t, pointer_t, pointer_t, c_uint64)
map_delete = declare("bpf_map_delete_elem", fd_t, pointer_t)
_BATCH = POINTER(BatchOpts)
_COUNT = POINTER(c_uint32)
map_lookup_batch = declare(
    "bpf_map_lookup_batch", fd_t, pointer_t, pointer_t, pointer_t, pointer_t, _COUNT, _BATCH
)
map_update_batch = declare("bpf_map_update_batch", fd_t, pointer_t, pointer_t, _COUNT, _BATCH)
map_delete_batch = declare("bpf_map_delete_batch", fd_t, pointer_t, _COUNT, _BATCH)
link_create = declare("bpf_link_create", fd_t, c_int, c_int, POINTER(LinkCreateOpts))
link_update = declare("bpf_link_update", fd_t, fd_t, pointer_t)
link_detach = declare("bpf_link_detach", fd_t)
xdp_query = declare("bpf_xdp_query", c_int, c_int, POINTER(XdpQueryOpts))
prog_test_run = declare("bpf_prog_test_run_opts", fd_t, POINTER(TestRunOpts))
num_possible_cpus = declare("libbpf_num_possible_cpus")


def sized(opts: Any) -> Any:
    """An options struct with the size that tells libbpf how much of it we know."""
    opts.sz = ctypes.sizeof(opts)
    return opts


def said() -> str:
    """What libbpf has said since last asked (warnings, the end of a verifier's log)."""
    text = "\n".join(_messages)
    _messages.clear()
    return text


def check(result: int, what: str) -> int:
    """The result of a call, or BpfError where it is negative."""
    if result < 0:
        raise BpfError(-result, f"{what}: {os.strerror(-result)}")
    return result


def check_pointer(result: int | None, what: str) -> int:
    """A pointer from libbpf, or BpfError where it is NULL."""
    if not result:
        number = ctypes.get_errno() or errno.EINVAL
        raise BpfError(number, f"{what}: {os.strerror(number)}")
    return result


def info_of(fd: int, info: Any) -> Any:
    """Fills a bpf_*_info struct from a descriptor."""
    length = c_uint32(ctypes.sizeof(info))
    check(obj_info(fd, ctypes.byref(info), ctypes.byref(length)), "bpf_obj_get_info_by_fd")
    return info
