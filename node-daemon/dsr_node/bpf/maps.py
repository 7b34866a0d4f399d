"""One map: elements as bytes, many of them as numpy arrays, arrays mapped into memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsr_node.bpf import libbpf
from dsr_node.bpf.libbpf import BpfError, check

Array = npt.NDArray[Any]

HASH, ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS = 1, 2, 6, 12
MMAPABLE = 1 << 10

_BATCH = 16384
_PATIENCE, _REFILL_S = 50, 0.002


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes two maps interchangeable."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


def cpus() -> int:
    """Possible CPUs of this machine: the values of one element of a per-CPU map."""
    return check(libbpf.num_possible_cpus(), "libbpf_num_possible_cpus")


def _address(array: Array) -> int:
    return int(array.ctypes.data)


class Map:
    """Owns a descriptor. Keys and values of single elements are bytes of the map's sizes; those of
    many are contiguous arrays whose items have these sizes."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        info = libbpf.info_of(fd, libbpf.MapInfo())
        self.shape = Shape(
            info.type, info.key_size, info.value_size, info.max_entries, info.map_flags
        )
        self.id: int = info.id

    @classmethod
    def open(cls, path: Path) -> Map:
        """A pinned map. Raises BpfError, errno ENOENT where there is none."""
        return cls(check(libbpf.obj_get(bytes(path)), f"open {path}"), path.name)

    @classmethod
    def create(cls, name: str, shape: Shape) -> Map:
        """A new map, not pinned."""
        opts = libbpf.sized(libbpf.CreateMapOpts(map_flags=shape.flags))
        fd = libbpf.map_create(
            shape.type,
            name[:15].encode(),
            shape.key_size,
            shape.value_size,
            shape.max_entries,
            ctypes.byref(opts),
        )
        return cls(check(fd, f"create map {name}"), name)

    def pin(self, path: Path) -> None:
        """Makes the map outlive this process."""
        check(libbpf.obj_pin(self.fd, bytes(path)), f"pin {path} (it must be on a bpffs)")

    def close(self) -> None:
        """Gives the descriptor back; memory mapped by `mapped` stays valid."""
        os.close(self.fd)

    def lookup(self, key: bytes) -> bytes | None:
        """The value; of a per-CPU map those of all CPUs, each padded to 8 bytes."""
        value = ctypes.create_string_buffer(self._value_bytes())
        result = libbpf.map_lookup(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        check(result, f"look up in map {self.name}")
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Sets one element. BpfError E2BIG: the map is full."""
        check(libbpf.map_update(self.fd, key, value, 0), f"write to map {self.name}")

    def delete(self, key: bytes) -> bool:
        """Whether the element was there."""
        result = libbpf.map_delete(self.fd, key)
        if result == -errno.ENOENT:
            return False
        check(result, f"take out of map {self.name}")
        return True

    def read_all(self, key: npt.DTypeLike, value: npt.DTypeLike) -> tuple[Array, Array]:
        """All elements, as arrays of these item types; a per-CPU value is an item for each CPU, one
        behind the other. Of a map that changes meanwhile an element may be missing or twice."""
        size = min(_BATCH, self.shape.max_entries)
        keys: list[Array] = []
        values: list[Array] = []
        token = ctypes.create_string_buffer(max(8, self.shape.key_size))
        position = None
        while True:
            some_keys = np.empty(size, f"V{self.shape.key_size}")
            some_values = np.empty(size, f"V{self._value_bytes()}")
            count = ctypes.c_uint32(size)
            result = libbpf.map_lookup_batch(
                self.fd,
                position,
                token,
                _address(some_keys),
                _address(some_values),
                ctypes.byref(count),
                ctypes.byref(libbpf.sized(libbpf.BatchOpts())),
            )
            if result == -errno.ENOSPC:  # a hash bucket longer than our room
                size *= 2
                continue
            if result not in (0, -errno.ENOENT):
                check(result, f"read map {self.name}")
            keys.append(some_keys[: count.value])
            values.append(some_values[: count.value])
            if result:
                return np.concatenate(keys).view(key), np.concatenate(values).view(value)
            position = token

    def update_many(self, keys: Array, values: Array) -> None:
        """Sets elements in order. BpfError E2BIG: the map is full, those before are in."""
        self._expect(keys, values)
        done, patience = 0, _PATIENCE
        while done < len(keys):
            count = ctypes.c_uint32(len(keys) - done)
            result = libbpf.map_update_batch(
                self.fd,
                _address(keys[done:]),
                _address(values[done:]),
                ctypes.byref(count),
                ctypes.byref(libbpf.sized(libbpf.BatchOpts())),
            )
            done += count.value
            # Elements come from a small store that an interrupt refills (Linux 6.1,
            # kernel/bpf/memalloc.c): a batch may be faster.
            if result == -errno.ENOMEM and (count.value or patience):
                patience = _PATIENCE if count.value else patience - 1
                time.sleep(_REFILL_S)
                continue
            check(result, f"write to map {self.name}")

    def delete_many(self, keys: Array) -> None:
        """Deletes elements; those that are not there any more are no error."""
        keys = np.ascontiguousarray(keys)
        done = 0
        while done < len(keys):
            count = ctypes.c_uint32(len(keys) - done)
            result = libbpf.map_delete_batch(
                self.fd,
                _address(keys[done:]),
                ctypes.byref(count),
                ctypes.byref(libbpf.sized(libbpf.BatchOpts())),
            )
            done += count.value
            if result == -errno.ENOENT:
                done += 1  # the one after the count
            else:
                check(result, f"take out of map {self.name}")

    def read_percpu(self, value: npt.DTypeLike) -> Array:
        """All elements of a per-CPU array, [index, cpu]; items are a multiple of 8 bytes."""
        return self.read_all("u4", value)[1].reshape(-1, cpus())

    def mapped(self, value: npt.DTypeLike, *, writable: bool = False) -> Array:
        """An array map (flag MMAPABLE) as memory. Aligned items of up to 8 bytes are read and
        written in one access each."""
        item = np.dtype(value)
        if item.itemsize != self.shape.value_size:
            raise ValueError(f"map {self.name} has {self.shape.value_size} bytes an element")
        stride = (item.itemsize + 7) // 8 * 8
        memory = mmap.mmap(
            self.fd,
            -(-stride * self.shape.max_entries // mmap.PAGESIZE) * mmap.PAGESIZE,
            flags=mmap.MAP_SHARED,
            prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0),
        )
        return np.ndarray((self.shape.max_entries,), item, memory, strides=(stride,))

    def _value_bytes(self) -> int:
        if self.shape.type == PERCPU_ARRAY:
            return (self.shape.value_size + 7) // 8 * 8 * cpus()
        return self.shape.value_size

    def _expect(self, keys: Array, values: Array) -> None:
        found = (keys.itemsize, values[:1].nbytes if len(values) else self._value_bytes())
        if found != (self.shape.key_size, self._value_bytes()):
            raise ValueError(f"map {self.name}: items of {found} bytes do not fit {self.shape}")
        if not (keys.flags.c_contiguous and values.flags.c_contiguous):
            raise ValueError(f"map {self.name}: keys and values must be contiguous")


__all__ = ["Array", "BpfError", "Map", "Shape", "cpus"]
