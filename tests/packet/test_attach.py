"""The program on interfaces of a network namespace that only one thread is in."""

from __future__ import annotations

import ctypes
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dsr_node.bpf.links import attach, query
from dsr_node.bpf.objects import Object
from dsr_node.subsystems.xdp.dataplane import OBJECT, PROGRAM
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.state import Attachment, DirectorState, Problem
from dsr_node.subsystems.xdp.subsystem import XdpSubsystem

from tests.packet.bpffs import private_bpffs

LIMITS = Limits(frontends=16, pools=4, backends=16, flows=64, vips=16, peers=16)
_CLONE_NEWNET = 0x40000000

Run = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def inside() -> Iterator[Run]:
    """Runs a function in a network namespace of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_new_namespace).result()
        yield lambda work: thread.submit(work).result()


def _new_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    ip("link set lo up")


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


@dataclass
class Daemon:
    """To be used inside."""

    pins: Path

    def __post_init__(self) -> None:
        self.xdp = XdpSubsystem(self.pins, LIMITS)

    def hold(self, *names: str) -> tuple[bool, tuple[Problem, ...]]:
        """Whether anything was to be done, and the problems."""
        attachments = tuple(Attachment(name, index_of(name), bytes(6)) for name in names)
        changes = self.xdp.diff(DirectorState(attachments=attachments), self.xdp.read())
        return bool(changes), self.xdp.apply(changes)

    def restart(self) -> None:
        self.xdp.close()
        self.xdp = XdpSubsystem(self.pins, LIMITS)


def index_of(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 4242


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with private_bpffs() as root:
        daemon = Daemon(root / "dsr")
        yield daemon
        daemon.xdp.close()


def test_native_where_the_driver_can(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        ip("link add dev veth0 type veth peer name veth1")
        assert daemon.hold("veth0") == (True, ())
        assert daemon.xdp.modes() == {"veth0": "Native"}
        there = query(index_of("veth0"))
        daemon.restart()
        assert daemon.hold("veth0") == (False, ())
        assert query(index_of("veth0")) == there, "not even the program is another one"

    inside(body)


def test_generic_where_it_cannot(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        assert daemon.hold("lo") == (True, ())
        assert daemon.xdp.modes() == {"lo": "Generic"}
        assert daemon.hold("lo") == (False, ())
        assert daemon.hold() == (True, ())
        assert daemon.xdp.modes() == {}
        assert query(index_of("lo")) is None

    inside(body)


def test_a_program_of_somebody_else_is_left_alone(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        with Object(OBJECT, LIMITS.sizes()) as other:
            link, _ = attach(other.program(PROGRAM).fd, index_of("lo"))
            with link:
                _, problems = daemon.hold("lo")
                assert [(each.reason, each.interface) for each in problems] == [("XdpBusy", "lo")]
                assert f"id {other.program(PROGRAM).id}" in problems[0].message
                there = query(index_of("lo"))
                assert there is not None
                assert there.program_id == other.program(PROGRAM).id
            assert daemon.hold("lo") == (True, ())

    inside(body)


def test_an_older_program_of_ours_is_swapped_in_its_link(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        daemon.hold("lo")
        ours = query(index_of("lo"))
        path = daemon.pins / "link_lo"
        path.unlink()  # the last one that held it
        with Object(OBJECT, LIMITS.sizes()) as older:
            link, _ = attach(older.program(PROGRAM).fd, index_of("lo"))
            with link:
                link.pin(path)
        assert query(index_of("lo")) != ours
        assert daemon.hold("lo") == (True, ())
        assert query(index_of("lo")) == ours
        assert daemon.hold("lo") == (False, ())

    inside(body)


def test_an_interface_that_is_gone_and_back(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        ip("link add dev veth0 type veth peer name veth1")
        daemon.hold("veth0")
        ip("link del veth0")
        _, problems = daemon.hold("veth0")
        assert [each.reason for each in problems] == ["XdpUnavailable"]
        ip("link add dev veth0 type veth peer name veth1")
        assert daemon.hold("veth0") == (True, ())
        assert daemon.xdp.modes() == {"veth0": "Native"}
        assert daemon.hold("veth0") == (False, ())

    inside(body)


def test_cleaning_up_leaves_nothing(inside: Run, daemon: Daemon) -> None:
    def body() -> None:
        daemon.hold("lo")
        daemon.restart()
        daemon.xdp.remove_all()
        daemon.xdp.remove_all()
        assert query(index_of("lo")) is None
        assert not daemon.pins.exists()

    inside(body)
