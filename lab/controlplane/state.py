"""What one control plane must remember between commands: a JSON file in its directory."""

from __future__ import annotations

import errno
import fcntl
import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.controlplane.build import user_cache
from lab.controlplane.errors import ControlPlaneError
from lab.controlplane.files import write_private

FORMAT = 1
FIRST_PORT = 20000
LAST_PORT = 32000
"""Below Linux's ephemeral range (32768 and up by default), so that no outgoing connection takes a
port while a control plane is stopped."""


@dataclass(frozen=True)
class Ports:
    """TCP ports, kept for life."""

    apiserver: int
    etcd: int
    controller_manager: int


@dataclass(frozen=True)
class State:
    """Chosen at the first start."""

    bind: str
    extra_sans: tuple[str, ...]
    ports: Ports

    def save(self, path: Path) -> None:
        """Write it in one step."""
        document = {"format": FORMAT, **asdict(self)}
        write_private(path, json.dumps(document, indent=2).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read it; None if there is none.

        Raises ControlPlaneError if another version of this package wrote it.
        """
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        if document.get("format") != FORMAT:
            raise ControlPlaneError(
                f"{path} has format {document.get('format')}, this code reads {FORMAT}: stop that "
                "control plane with the code that started it, then remove its directory"
            )
        ports = Ports(**document["ports"])
        return cls(document["bind"], tuple(document["extra_sans"]), ports)


def choose_ports(bind: str) -> Ports:
    """Three free ports, the API server's on `bind`, which nobody else who asks gets soon.

    Raises ControlPlaneError if `bind` is no address of this machine or if no port is free.
    """
    # A port that is free now may be taken before its server listens. A counter that all control
    # planes of this user share keeps two that start at the same time apart.
    counter = user_cache() / "last-port"
    counter.parent.mkdir(parents=True, exist_ok=True)
    with counter.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or FIRST_PORT)
        chosen: list[int] = []
        for host in (bind, "127.0.0.1", "127.0.0.1"):
            port = _next_free(host, port)
            chosen.append(port)
        file.truncate(0)
        file.write(str(port))
    return Ports(apiserver=chosen[0], etcd=chosen[1], controller_manager=chosen[2])


def _next_free(host: str, port: int) -> int:
    for _ in range(LAST_PORT - FIRST_PORT):
        port = FIRST_PORT if port >= LAST_PORT else port + 1
        if _is_free(host, port):
            return port
    raise ControlPlaneError(f"no TCP port from {FIRST_PORT} to {LAST_PORT} is free on {host}")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ControlPlaneError(
                f"cannot listen on {host} ({error.strerror}): give an address that this machine "
                "has already"
            ) from error
    return True
