"""A compiled object: its maps created or taken over from their pins, its program loaded."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from dsr_node.bpf import libbpf
from dsr_node.bpf.libbpf import BpfError, check, check_pointer
from dsr_node.bpf.maps import Map, Shape
from dsr_node.bpf.programs import Program


class IncompatibleMapError(BpfError):
    """A pinned map was made by another version."""


class Object:
    """Maps by name, programs by name, until `close`; what is pinned or attached stays."""

    def __init__(
        self, path: Path, sizes: Mapping[str, int] | None = None, pins: Path | None = None
    ) -> None:
        """Loads `path`, with the max_entries in `sizes` for the maps named there.

        Maps pinned in `pins` are used as they are, with the sizes they have; the others are created
        and pinned there.
        Raises IncompatibleMapError, or BpfError with the verifier's last words.
        """
        libbpf.said()
        self._object = check_pointer(libbpf.object_open(bytes(path), None), f"open {path}")
        self.maps: dict[str, Map] = {}
        try:
            handles = self._map_handles()
            for name, entries in (sizes or {}).items():
                check(libbpf.map_set_max_entries(handles[name], entries), f"size of {name}")
            reused = self._reuse(handles, pins, sizes or {}) if pins else set()
            self._load(path)
            for name, handle in handles.items():
                self.maps[name] = Map(os.dup(libbpf.map_fd(handle)), name)
                if pins and name not in reused:
                    self.maps[name].pin(pins / name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Object:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of everything that is neither pinned nor attached."""
        for each in self.maps.values():
            each.close()
        self.maps.clear()
        libbpf.object_close(self._object)
        self._object = 0

    def program(self, name: str) -> Program:
        """A program of the object; valid until `close`."""
        what = f"program {name}"
        handle = check_pointer(libbpf.object_find_program(self._object, name.encode()), what)
        return Program(check(libbpf.program_fd(handle), what))

    def _map_handles(self) -> dict[str, int]:
        handles: dict[str, int] = {}
        handle = libbpf.object_next_map(self._object, None)
        while handle:
            name = libbpf.map_name(handle).decode()
            if not name.startswith("."):
                handles[name] = handle
            handle = libbpf.object_next_map(self._object, handle)
        return handles

    def _reuse(self, handles: Mapping[str, int], pins: Path, sizes: Mapping[str, int]) -> set[str]:
        reused = set()
        for name, handle in handles.items():
            path = pins / name
            if not path.exists():
                continue
            pinned = Map.open(path)
            try:
                wanted = _wanted_shape(handle)
                if name in sizes:
                    wanted = replace(wanted, max_entries=pinned.shape.max_entries)
                if pinned.shape != wanted:
                    raise IncompatibleMapError(
                        errno.EEXIST,
                        f"the pinned map {path} is not of this version: it is {pinned.shape}, "
                        f"needed is {wanted}. Run `dsr-node --cleanup` on this node, which forgets "
                        "the flows, and start again",
                    )
                check(libbpf.map_reuse_fd(handle, pinned.fd), f"use pinned map {path}")
            finally:
                pinned.close()
            reused.add(name)
        return reused

    def _load(self, path: Path) -> None:
        result = libbpf.object_load(self._object)
        if result < 0:
            raise BpfError(-result, f"load {path}: {os.strerror(-result)}\n{libbpf.said()}")


def _wanted_shape(handle: int) -> Shape:
    return Shape(
        libbpf.map_type(handle),
        libbpf.map_key_size(handle),
        libbpf.map_value_size(handle),
        libbpf.map_max_entries(handle),
        libbpf.map_flags(handle),
    )
