"""A machine of the lab, whatever it is made of.

Network namespaces today; a user-mode kernel of another version would be a second class here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab import network
from lab.errors import LabError
from lab.names import Member
from lab.namespaces import Namespaces

COMMAND_TIMEOUT = 60.0
"""Seconds for a command that `run` waits for."""


@dataclass(frozen=True)
class Program:
    """Something that runs on a node until it is told to end."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Node(Protocol):
    """What the lab, the demo and the tests do with a machine."""

    @property
    def member(self) -> Member:
        """Its name, role and addresses."""
        ...

    @property
    def running(self) -> bool:
        """Whether it is up."""
        ...

    @property
    def run_directory(self) -> Path:
        """What the node sees as /run, as the lab sees it."""
        ...

    def start(self) -> None:
        """Boot it and plug it in, on the disk it had before. No program is started."""
        ...

    def kill(self) -> None:
        """Cut its cable, then its power; its disk stays. Fine if it is down."""
        ...

    def run(self, argv: Sequence[str], *, check: bool = True) -> str:
        """What a command prints. Raises LabError if it fails, unless told not to check."""
        ...

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command and go on."""
        ...

    def start_program(self, program: Program) -> None:
        """Start a program, unless it runs."""
        ...

    def kill_program(self, name: str) -> None:
        """SIGKILL to one program, and wait for its end; fine if it does not run."""
        ...

    def runs(self, name: str) -> bool:
        """Whether that program runs."""
        ...

    def log(self, name: str) -> Path:
        """The file with all that a program has printed."""
        ...


class NamespaceNode:
    """A node made of namespaces, on a cable to the hub."""

    def __init__(self, member: Member, directory: Path, hub: Namespaces) -> None:
        self._member = member
        self._directory = directory
        self._hub = hub
        self.namespaces = Namespaces(member.name, directory)

    @property
    def member(self) -> Member:
        """Its name, role and addresses."""
        return self._member

    @property
    def running(self) -> bool:
        """Whether it is up."""
        return self.namespaces.pid is not None

    @property
    def run_directory(self) -> Path:
        """What the node sees as /run, as the lab sees it."""
        return self._directory / "run"

    def start(self) -> None:
        """Boot it and plug it in, on the disk it had before. No program is started."""
        if not self.running:
            self.namespaces.start()
            network.plug(self._hub, self.namespaces, self._member)

    def kill(self) -> None:
        """Cut its cable, then its power; its disk stays. Fine if it is down."""
        if self._hub.pid is not None:
            network.unplug(self._hub, self._member)
        self.namespaces.kill()

    def run(self, argv: Sequence[str], *, check: bool = True) -> str:
        """What a command prints. Raises LabError if it fails, unless told not to check."""
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, complaint = process.communicate(timeout=COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LabError(f"{self._member.name}: `{' '.join(argv)}` takes too long") from None
        if check and process.returncode != 0:
            raise LabError(f"{self._member.name}: `{' '.join(argv)}` failed: {complaint or output}")
        return output

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command and go on."""
        return self.namespaces.popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)

    def start_program(self, program: Program) -> None:
        """Start a program, unless it runs."""
        if not self.runs(program.name):
            self.namespaces.start_daemon(program.name, program.argv, program.environment)

    def kill_program(self, name: str) -> None:
        """SIGKILL to one program, and wait for its end; fine if it does not run."""
        self.namespaces.kill_daemon(name)

    def runs(self, name: str) -> bool:
        """Whether that program runs."""
        return self.namespaces.daemon(name).pid() is not None

    def log(self, name: str) -> Path:
        """The file with all that a program has printed."""
        return self.namespaces.daemon(name).log
