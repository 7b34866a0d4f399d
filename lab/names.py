"""What a lab and its members are called, their addresses, and where its files lie. Pure.

Every lab is a segment of its own without a route to any other, so all labs have the same
addresses: what is written down for one (examples/web.yaml, the README) works in each.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.errors import LabError

DEFAULT_NAME = "lab"
IPV4_PREFIX, IPV6_PREFIX = "10.77.0.", "fd77::"
IPV4_LENGTH, IPV6_LENGTH = 24, 64
HUB_HOST = 1
"""The bridge and API server are .1, LB nodes .11 to .20, backends .21 to .50, the client .51."""
MAX_LBS, MAX_BACKENDS = 10, 30
VIPS = ("10.77.0.100", "fd77::100")
"""The VIPs of examples/web.yaml."""

Role = Literal["client", "lb", "web"]


@dataclass(frozen=True)
class Member:
    """One host of the lab's segment; `host` is the last octet of its addresses."""

    name: str
    role: Role
    host: int

    @property
    def ipv4(self) -> str:
        """Its IPv4 address."""
        return f"{IPV4_PREFIX}{self.host}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address; the digits are those of the IPv4 one."""
        return f"{IPV6_PREFIX}{self.host}"

    @property
    def mac(self) -> str:
        """Locally administered, and the same one after a reboot, as a machine's is."""
        return f"02:77:00:00:00:{self.host:02x}"

    @property
    def in_cluster(self) -> bool:
        """Whether it is a Node of the cluster."""
        return self.role != "client"


HUB = Member("hub", "client", HUB_HOST)


def members(lbs: int, backends: int) -> tuple[Member, ...]:
    """All members but the hub. Raises LabError for counts that have no addresses."""
    if not 0 <= lbs <= MAX_LBS or not 0 <= backends <= MAX_BACKENDS:
        raise LabError(f"a lab has at most {MAX_LBS} LB nodes and {MAX_BACKENDS} backends")
    return (
        Member("client", "client", 51),
        *(Member(f"lb{i}", "lb", 10 + i) for i in range(1, lbs + 1)),
        *(Member(f"rs{i}", "web", 20 + i) for i in range(1, backends + 1)),
    )


def check_name(name: str) -> str:
    """The name of a lab, which ends the name of an interface (IFNAMSIZ: 15 characters)."""
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){0,10}", name) or len(name) > 11:
        raise LabError(f"{name!r} is no name for a lab: 1 to 11 of a-z, 0-9 and inner -")
    return name


def state_root() -> Path:
    """Where the labs of this user keep their state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dsr-operator" / "lab"


@dataclass(frozen=True)
class Home:
    """The files of one lab, all below one directory that `down` removes."""

    name: str

    @property
    def directory(self) -> Path:
        """Absolute."""
        return state_root() / self.name

    @property
    def settings(self) -> Path:
        """What the lab was made with; it exists from the first moment of `up` on."""
        return self.directory / "lab.json"

    @property
    def control_plane(self) -> Path:
        """The directory of lab.controlplane."""
        return self.directory / "control-plane"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, usable on the host."""
        return self.directory / "kubeconfig"

    def node(self, name: str) -> Path:
        """All that belongs to one member: its "disk", logs and pid files."""
        return self.directory / "nodes" / name

    def pid_file(self, part: str) -> Path:
        """Of a part that belongs to no member."""
        return self.directory / "run" / f"{part}.json"

    def log(self, part: str) -> Path:
        """Of a part that belongs to no member."""
        return self.directory / "log" / f"{part}.log"
