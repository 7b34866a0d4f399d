"""XDP on an interface, held by a bpf_link: attached until detached, or its last pin is gone."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsr_node.bpf import libbpf
from dsr_node.bpf.libbpf import BpfError, check

Mode = Literal["Native", "Generic"]

_BPF_XDP = 37  # enum bpf_attach_type
_FLAG_GENERIC, _FLAG_NATIVE = 1 << 1, 1 << 2  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE


class XdpBusyError(Exception):
    """Another XDP program is on the interface."""

    def __init__(self, ifindex: int, program_id: int) -> None:
        self.program_id = program_id
        super().__init__(
            f"another XDP program (id {program_id}) is on interface {ifindex}; it is left alone. "
            f"`bpftool prog show id {program_id}` tells what it is; take it off (`ip link set dev "
            "... xdp off`) or choose another uplink"
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """What runs on an interface: the program's id, and in which mode."""

    program_id: int
    mode: Mode


class XdpLink:
    """Owns the descriptor of one link. `ifindex` is 0 once its interface is gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = libbpf.info_of(fd, libbpf.LinkInfo())
        self.program_id: int = info.prog_id
        self.ifindex: int = info.ifindex

    def __enter__(self) -> XdpLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open(cls, path: Path) -> XdpLink:
        """A pinned link. Raises BpfError."""
        return cls(check(libbpf.obj_get(bytes(path)), f"open {path}"))

    def pin(self, path: Path) -> None:
        """Makes the attachment outlive this process."""
        check(libbpf.obj_pin(self.fd, bytes(path)), f"pin {path}")

    def update(self, program_fd: int) -> None:
        """Swaps the program; every packet meets the old one or the new one."""
        check(libbpf.link_update(self.fd, program_fd, None), "update the XDP link")

    def detach(self) -> None:
        """Takes the program off the interface, pinned or not."""
        result = libbpf.link_detach(self.fd)
        if result != -errno.ENOLINK:  # the interface went first
            check(result, "detach the XDP link")

    def close(self) -> None:
        """Without a pin this detaches."""
        os.close(self.fd)


def query(ifindex: int) -> Attached | None:
    """The XDP program on an interface of this network namespace."""
    opts = libbpf.sized(libbpf.XdpQueryOpts())
    check(libbpf.xdp_query(ifindex, 0, ctypes.byref(opts)), f"ask for XDP on {ifindex}")
    if opts.drv_prog_id:
        return Attached(opts.drv_prog_id, "Native")
    if opts.skb_prog_id:
        return Attached(opts.skb_prog_id, "Generic")
    return None


def attach(program_fd: int, ifindex: int) -> tuple[XdpLink, str]:
    """Attaches, natively where the driver can, else generically.

    Returns the link, and "" or why it is not native. Raises XdpBusyError where another program
    is on the interface, BpfError where neither way works.
    """
    try:
        return _create(program_fd, ifindex, _FLAG_NATIVE), ""
    except BpfError as native:
        link = _create(program_fd, ifindex, _FLAG_GENERIC)
        return link, f"the driver refused native XDP: {os.strerror(native.errno or 0)}"


def _create(program_fd: int, ifindex: int, flags: int) -> XdpLink:
    opts = libbpf.sized(libbpf.LinkCreateOpts(flags=flags))
    result = libbpf.link_create(program_fd, ifindex, _BPF_XDP, ctypes.byref(opts))
    if result in (-errno.EBUSY, -errno.EEXIST):
        there = query(ifindex)
        raise XdpBusyError(ifindex, there.program_id if there else 0)
    return XdpLink(check(result, f"attach XDP to interface {ifindex}"))
