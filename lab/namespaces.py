"""A small machine: one process's network, mount, host-name and PID namespaces.

The process is init there. It holds the namespaces (and the bpffs mounted in them) for as long as it
lives, whatever ends beside it; when it is killed, the kernel kills everything that runs inside and
takes all namespaces, mounts and links away. So there is one pid to know, and nothing to forget.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.controlplane.process import Daemon, poll
from lab.errors import LabError

CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

BOOT_TIMEOUT = 10.0
"""Seconds for init to mount a handful of file systems."""
KILL_TIMEOUT = 10.0
"""Seconds for the kernel to end a killed process, and for the host's init to reap it."""

INIT = """
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount --bind "$1/var-lib" /var/lib
mount --bind "$1/run" /run
hostname "$2"
ip link set lo up
: >"$1/booted"
while :; do sleep 3600 & wait; done
"""
"""What init does; the loop reaps orphans. $1: the member's directory, $2: its name."""

_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """The namespaces of one member. Everything known about them is in `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self._init = Daemon(directory / "init.json", directory / "log" / "init.log")
        self._children: list[subprocess.Popen[str]] = []

    @property
    def pid(self) -> int | None:
        """The pid of init, as the host sees it; None when it is down."""
        pid = self._init.pid()
        # A dying init gives its namespaces up, then waits until the last zombie has been reaped.
        return pid if pid is not None and _has_namespaces(pid) else None

    def start(self) -> None:
        """Boot it. Raises LabError if init fails, with what it said."""
        for each in ("var-lib", "run"):
            (self._directory / each).mkdir(parents=True, exist_ok=True)
        booted = self._directory / "booted"
        booted.unlink(missing_ok=True)
        argv = [program("unshare"), "--net", "--mount", "--uts", "--"]
        argv += ["/bin/sh", "-ec", INIT, "init", str(self._directory), self.name]
        with _pid_namespace(None):
            self._init.start(argv, environment())
        for _ in poll(0.005, BOOT_TIMEOUT):
            if booted.exists():
                return
            if self._init.pid() is None:
                break
        raise LabError(f"{self.name} did not boot: {self._init.tail(5)}")

    def kill(self) -> None:
        """End everything inside at once, as a power cut does; fine if it is down already."""
        self._init.send(signal.SIGKILL)
        daemons = [self.daemon(name) for name in self.daemons()]
        for _ in poll(0.005, KILL_TIMEOUT):
            if self.pid is None and all(each.wait(0) for each in daemons):
                return
        raise LabError(f"{self.name} (pid {self.pid}) does not end even by SIGKILL")

    def await_end(self) -> None:
        """After `kill`: wait until no trace of a process is left."""
        for _ in poll(0.005, KILL_TIMEOUT):
            for child in self._children:
                child.poll()
            if self._init.wait(0):
                return
        raise LabError(f"{self.name}: something that was started in it is never reaped")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """A command line that does `argv` inside, PID namespace apart. Raises LabError if down."""
        pid = self._require_pid()
        return [program("nsenter"), f"--target={pid}", "--net", "--mount", "--uts", "--", *argv]

    def enter_all(self, argv: Sequence[str]) -> list[str]:
        """A command line that does `argv` inside, as a child of nsenter."""
        pid = self._require_pid()
        return [program("nsenter"), f"--target={pid}", "--all", "--", *argv]

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command inside; its pid is the one the host knows it by."""
        entered = self.enter(argv)
        with _pid_namespace(self._require_pid()):
            child = subprocess.Popen(
                entered, stdin=stdin, stdout=stdout, stderr=stderr, text=True, env=environment()
            )
        self._children.append(child)
        return child

    def daemon(self, name: str) -> Daemon:
        """One of the programs that run on inside, running or not."""
        log = self._directory / "log" / f"{name}.log"
        return Daemon(self._directory / "daemons" / f"{name}.json", log)

    def daemons(self) -> list[str]:
        """The names of all that were started and not seen to end."""
        return sorted(each.stem for each in (self._directory / "daemons").glob("*.json"))

    def start_daemon(self, name: str, argv: Sequence[str], extra: Mapping[str, str]) -> None:
        """Start one; it must not run already. `extra` is added to its environment."""
        entered = self.enter(argv)
        with _pid_namespace(self._require_pid()):
            self.daemon(name).start(entered, environment() | dict(extra))

    def kill_daemon(self, name: str) -> None:
        """SIGKILL to one, and wait for its end; fine if it does not run."""
        daemon = self.daemon(name)
        daemon.send(signal.SIGKILL)
        if not daemon.wait(KILL_TIMEOUT):
            raise LabError(f"{name} on {self.name} does not end even by SIGKILL")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the network of the member; what it starts, lives and dies there."""
        pid = self._require_pid()
        own, there = _open("/proc/thread-self/ns/net"), _open(f"/proc/{pid}/ns/net")
        try:
            _setns(there, CLONE_NEWNET)
            try:
                with _pid_namespace(pid):
                    yield
            finally:
                _setns(own, CLONE_NEWNET)
        finally:
            os.close(own)
            os.close(there)

    def _require_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} is down; `lab restart {self.name}` boots it")
        return pid


def _has_namespaces(pid: int) -> bool:
    try:
        Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return False
    return True


def program(name: str) -> str:
    """The absolute path of a program. Raises LabError if it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is not installed: `make packages` installs what the lab needs")
    return path


def environment() -> dict[str, str]:
    """That of everything inside. Nothing of a proxy or a kubeconfig of the caller's.

    The entry points are in the PATH, as in the image; here they are beside the interpreter.
    """
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    path = f"{path}:{Path(sys.executable).parent}"
    kept = {each: os.environ[each] for each in ("TERM", "LANG") if each in os.environ}
    return {"PATH": path, "HOME": "/root", "PYTHONUNBUFFERED": "1"} | kept


@contextmanager
def _pid_namespace(pid: int | None) -> Iterator[None]:
    """What this thread starts is in the PID namespace of `pid`; None: init of a new one."""
    own = _open("/proc/self/ns/pid")
    try:
        if pid is None:
            _check(_libc.unshare(CLONE_NEWPID))
        else:
            there = _open(f"/proc/{pid}/ns/pid")
            try:
                _setns(there, CLONE_NEWPID)
            finally:
                os.close(there)
        try:
            yield
        finally:
            _setns(own, CLONE_NEWPID)
    finally:
        os.close(own)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise LabError(f"cannot change namespaces ({os.strerror(number)}): the lab needs root")
