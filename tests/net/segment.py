"""A small network of namespaces: a switch, and machines with one cable each.

Names carry the pid of the test process, so that runs side by side do not meet, and so that the
next run can clear away what a killed one has left.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lab.network import WIRE

PREFIX = "dsrnet-"
BPFFS = Path("/sys/fs/bpf")


def run(*command: str, check: bool = True) -> str:
    """A command's standard output. Its error is part of the exception."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


PATIENCE = 30.0
"""Seconds for what has no promised time: a machine may be busy with other things."""


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
    """Waits for a condition; how long that took. An assertion fails with what was waited for."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin


@cache
def wire() -> Path:
    """A program that passes every packet, built."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    atexit.register(shutil.rmtree, directory)
    built = directory / "wire.o"
    run("clang", "-O2", "-target", "bpf", "-c", str(WIRE), "-o", str(built))
    return built


class Machine:
    """A network namespace and a mount namespace, held by a process that does nothing else, so that
    what is pinned in the bpffs outlives a daemon."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        run("ip", "netns", "add", namespace)
        ready = "mount --make-rprivate / && mount -t bpf bpf /sys/fs/bpf && echo ready && exec cat"
        self._holder = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "unshare", "-m", "sh", "-c", ready],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command: str) -> list[str]:
        """A command that runs here."""
        return ["nsenter", "-t", str(self._holder.pid), "-n", "-m", *command]

    def run(self, *command: str, check: bool = True) -> str:
        return run(*self.command(*command), check=check)

    def addresses(self, device: str = "lo") -> set[str]:
        """The single addresses on a device."""
        shown = json.loads(self.run("ip", "-j", "address", "show", "dev", device))
        return {
            info["local"]
            for info in shown[0]["addr_info"]
            if info["prefixlen"] in {32, 128} and info["local"] != "::1"
        }

    def mac(self, device: str = "eth0") -> str:
        return str(json.loads(self.run("ip", "-j", "link", "show", device))[0]["address"])

    def program(self, device: str = "eth0") -> int:
        """The id of the XDP program on a device, 0 for none."""
        shown = json.loads(self.run("ip", "-j", "-d", "link", "show", device))[0]
        return int(shown.get("xdp", {}).get("prog", {}).get("id", 0))

    def sysctl(self, key: str) -> int:
        return int(self.run("cat", f"/proc/sys/net/{key}"))

    def received(self, device: str = "eth0") -> int:
        """Bytes."""
        shown = json.loads(self.run("ip", "-j", "-s", "link", "show", device))
        return int(shown[0]["stats64"]["rx"]["bytes"])

    def close(self) -> None:
        for pid in run("ip", "netns", "pids", self.namespace, check=False).split():
            os.kill(int(pid), signal.SIGKILL)
        self._holder.wait()
        run("ip", "netns", "delete", self.namespace)


class Lan:
    """One broadcast domain, 10.77.0.0/16 and fd77::/64; a machine's number is its address."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.machines: list[Machine] = []
        self.switch = Machine("switch", f"{prefix}switch")
        # No snooping: a bridge without a querier would hold back what nobody has asked for by MLD.
        self.switch.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self.switch.run("ip", "link", "set", "br0", "up")

    def machine(self, name: str, number: int) -> Machine:
        """A new machine, plugged in."""
        machine = Machine(name, f"{self._prefix}{name}")
        self.machines.append(machine)
        port = f"port{number}"
        run(
            *("ip", "link", "add", port, "netns", self.switch.namespace, "type", "veth"),
            *("peer", "name", "eth0", "netns", machine.namespace),
        )
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        # XDP_TX into a veth needs a program at its other end, and checksums that are filled in.
        self.switch.run("ip", "link", "set", port, "xdp", "object", str(wire()), "section", "xdp")
        self.switch.run("ethtool", "-K", port, "tx", "off")
        machine.run("ethtool", "-K", "eth0", "tx", "off")
        machine.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run("ip", "address", "add", f"10.77.0.{number}/16", "dev", "eth0")
        machine.run("ip", "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        return machine

    def close(self) -> None:
        for machine in (*self.machines, self.switch):
            machine.close()


@contextmanager
def lan() -> Iterator[Lan]:
    """A network of this test's own, gone when the block ends."""
    remove_leftovers()
    network = Lan(f"{PREFIX}{os.getpid()}-{secrets.token_hex(2)}-")
    try:
        yield network
    finally:
        network.close()


def remove_leftovers() -> None:
    """Removes the namespaces of test processes that are no more."""
    for line in run("ip", "netns", "list").splitlines():
        found = re.match(rf"({PREFIX}(\d+)-\S+)", line)
        if found and not Path(f"/proc/{found[2]}").exists():
            for pid in run("ip", "netns", "pids", found[1], check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "delete", found[1], check=False)
