"""One loaded program: its identity, and running it on a given frame."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsr_node.bpf import libbpf
from dsr_node.bpf.libbpf import check

_ROOM = 512  # bytes by which a program may lengthen a frame


@dataclass(frozen=True, slots=True)
class Run:
    """Return value, the frame afterwards, and the mean time of a run in ns."""

    verdict: int
    frame: bytes
    duration_ns: int


class Program:
    """A program's descriptor; whoever gave it keeps it open.

    `tag` is a hash of the instructions: the same for the same code, whatever its maps.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = libbpf.info_of(fd, libbpf.ProgInfo())
        self.id: int = info.id
        self.tag = bytes(info.tag)

    @classmethod
    @contextmanager
    def by_id(cls, program_id: int) -> Iterator[Program]:
        """A program that somebody has loaded. Raises BpfError where it is gone."""
        fd = check(libbpf.prog_by_id(program_id), f"open program {program_id}")
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    def map_ids(self) -> frozenset[int]:
        """The ids of the maps it uses."""
        count = libbpf.info_of(self.fd, libbpf.ProgInfo()).nr_map_ids
        ids = (ctypes.c_uint32 * count)()
        info = libbpf.ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids))
        libbpf.info_of(self.fd, info)
        return frozenset(ids)

    def run(self, frame: bytes, *, ingress_ifindex: int | None = None, repeat: int = 1) -> Run:
        """Runs an XDP program on a frame of at least 14 bytes (BPF_PROG_TEST_RUN).

        `ingress_ifindex` (Linux 5.15) is an interface of this network namespace; the default is
        lo. With `repeat` each run gets what the one before has left.
        """
        out = ctypes.create_string_buffer(len(frame) + _ROOM)
        opts = libbpf.sized(libbpf.TestRunOpts(repeat=repeat))
        data = ctypes.create_string_buffer(frame, len(frame))
        opts.data_in, opts.data_size_in = ctypes.addressof(data), len(frame)
        opts.data_out, opts.data_size_out = ctypes.addressof(out), len(out)
        if ingress_ifindex is not None:
            # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx queue, egress ifindex
            context = struct.pack("=6I", 0, len(frame), 0, ingress_ifindex, 0, 0)
            held = ctypes.create_string_buffer(context, len(context))
            opts.ctx_in, opts.ctx_size_in = ctypes.addressof(held), len(context)
        check(libbpf.prog_test_run(self.fd, ctypes.byref(opts)), "BPF_PROG_TEST_RUN")
        return Run(opts.retval, out.raw[: opts.data_size_out], opts.duration)
