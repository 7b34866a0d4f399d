"""Daemons that outlive the command that started them, found again by a pid file.

A pid alone may belong to somebody else by the time it is read. The file therefore holds the start
time and the boot too, and signals go through a pidfd, which cannot be reused under our hands.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.controlplane.files import write_private


@dataclass(frozen=True)
class Identity:
    """What makes a process this one and no later one."""

    pid: int
    started: int
    """Clock ticks since boot."""
    boot: str


class Daemon:
    """One long-running program; all it knows is in `pid_file`, so any process can take it over."""

    def __init__(self, pid_file: Path, log: Path) -> None:
        self.pid_file = pid_file
        self.log = log

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, output appended to the log; it must not run already."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # posix_spawn, not subprocess: a Popen object complains when it is dropped before the end
        # of its process, and this one is meant to live on.
        with _signals_held():
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                dict(environment),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log), append, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
            )
            # The child stays at least a zombie until we wait for it, so /proc has it.
            identity = Identity(pid, _start_time(pid), _boot())
            write_private(self.pid_file, json.dumps(asdict(identity)).encode())

    def pid(self) -> int | None:
        """The pid if it runs; a zombie does not."""
        with self._pidfd() as found:
            return found[0] if found else None

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens if it does not run."""
        with self._pidfd() as found:
            if found:
                _send(found[1], signum)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; false if it still runs then."""
        with self._pidfd() as found:
            if found:
                pid, pidfd = found
                if not _has_ended(pidfd, timeout):
                    return False
                _reap(pid)
        self.pid_file.unlink(missing_ok=True)
        return True

    def tail(self, lines: int) -> str:
        """The last lines of the log, for an error message."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 500 * lines))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    @contextmanager
    def _pidfd(self) -> Iterator[tuple[int, int] | None]:
        """The pid and a pidfd of the process, if it runs."""
        try:
            identity = Identity(**json.loads(self.pid_file.read_bytes()))
            pidfd = os.pidfd_open(identity.pid)
        except (FileNotFoundError, ProcessLookupError):
            yield None
            return
        try:
            # Compared after the pidfd is open: from here on the pid cannot change its owner.
            if identity != _identity(identity.pid):
                yield None
            elif _has_ended(pidfd, 0):
                _reap(identity.pid)
                yield None
            else:
                yield identity.pid, pidfd
        finally:
            os.close(pidfd)


def _identity(pid: int) -> Identity | None:
    try:
        return Identity(pid, _start_time(pid), _boot())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _start_time(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    # Field 22, counted behind the name in parentheses, which may hold anything.
    return int(stat.rpartition(")")[2].split()[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _has_ended(pidfd: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds; a pidfd becomes readable when its process is a zombie."""
    # poll, for select fails on descriptors from 1,024 up.
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _send(pidfd: int, signum: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return  # it ended by itself, which is what whoever signals it wants


def _reap(pid: int) -> None:
    """Take the exit status, if the process is a child of ours; init does it for the others."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


@contextmanager
def _signals_held() -> Iterator[None]:
    """Between the birth of a process and its pid file no Ctrl-C may come: nobody would know it."""
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def poll(interval: float, timeout: float) -> Iterator[None]:
    """Yield each `interval` seconds until `timeout` seconds have passed."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        yield
        time.sleep(interval)
