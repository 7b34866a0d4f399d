"""One control plane: its processes started, found ready, killed and stopped."""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import signal
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from lab.controlplane import credentials, kubeconfig, programs
from lab.controlplane.build import Binaries, Progress, ensure_binaries
from lab.controlplane.errors import ControlPlaneError
from lab.controlplane.layout import Layout
from lab.controlplane.pki import Authority
from lab.controlplane.process import Daemon
from lab.controlplane.readiness import Readiness
from lab.controlplane.state import State, choose_ports

Part = Literal["etcd", "apiserver", "controller-manager"]
PARTS: tuple[Part, ...] = get_args(Part)
"""In the order of starting."""

GRACE = 5.0
"""Seconds from the polite signal to the other one."""
KILL_TIMEOUT = 10.0
"""Seconds for the kernel to end a killed process."""
COMMANDS: dict[Part, Callable[[Binaries, Layout, State], list[str]]] = {
    "etcd": programs.etcd,
    "apiserver": programs.apiserver,
    "controller-manager": programs.controller_manager,
}


def say(line: str) -> None:
    """Progress for people: a line on standard error."""
    print(line, file=sys.stderr, flush=True)


class ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager of one lab or test, in one directory.

    The processes outlive the Python process that started them; any other one may `open` the
    directory and go on. All objects survive `stop` and `start`; to forget them, remove the
    directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bind: str = "127.0.0.1",
        extra_sans: Sequence[str] = (),
        progress: Progress = say,
    ) -> None:
        """Take over `directory`, which need not exist; nothing is written before `start`.

        `bind` is the address of this machine on which the API server listens; 0.0.0.0 and :: mean
        all of them. Its certificate names `bind`, `extra_sans` (addresses or DNS names) and the
        usual local names. `progress` gets the lines of a build.

        Raises ControlPlaneError if `bind` is no address, or if the directory's control plane was
        made with another `bind` or other `extra_sans`.
        """
        try:
            ipaddress.ip_address(bind)
        except ValueError as error:
            raise ControlPlaneError(f"bind is {bind!r}; it must be an IP address") from error
        self._layout = Layout(directory.absolute())
        self._bind = bind
        self._extra_sans = tuple(extra_sans)
        self._progress = progress
        self._daemons = {
            part: Daemon(self._layout.pid_file(part), self._layout.log(part)) for part in PARTS
        }
        self._state = State.load(self._layout.state)
        if self._state and (self._state.bind, self._state.extra_sans) != (bind, self._extra_sans):
            raise ControlPlaneError(
                f"{directory} has a control plane with bind {self._state.bind} and extra_sans "
                f"{list(self._state.extra_sans)}: use ControlPlane.open, or stop it and remove the "
                "directory"
            )

    @classmethod
    def open(cls, directory: Path, *, progress: Progress = say) -> ControlPlane:
        """The control plane that somebody has started in `directory`, running or not.

        Raises ControlPlaneError if there is none.
        """
        state = State.load(Layout(directory.absolute()).state)
        if state is None:
            raise ControlPlaneError(f"no control plane was ever started in {directory}")
        return cls(directory, bind=state.bind, extra_sans=state.extra_sans, progress=progress)

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `open` would find one."""
        return Layout(directory.absolute()).state.exists()

    # What it is

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (group system:masters); it exists after `start`."""
        return self._layout.kubeconfig

    @property
    def server(self) -> str:
        """The API server's URL. Raises ControlPlaneError before the first `start`."""
        return f"https://{_url_host(self._host)}:{self._require_state().ports.apiserver}"

    @property
    def ca_pem(self) -> bytes:
        """The CA certificate. Raises ControlPlaneError before the first `start`."""
        return self._authority().pem

    def log(self, part: Part) -> Path:
        """The file with all that the part printed; it exists after the part's first start."""
        return self._layout.log(part)

    def running(self, part: Part) -> bool:
        """Whether its process is alive, which does not yet mean that it is ready."""
        return self._daemons[part].pid() is not None

    def kubeconfig_for(
        self, user: str, groups: Sequence[str] = (), *, server: str | None = None
    ) -> Path:
        """A kubeconfig for `user` with a client certificate, for `server` if given.

        Raises ControlPlaneError before the first `start`.
        """
        name = _file_name(user, *groups, server or "")
        path = self._layout.user_kubeconfig(name)
        authority = self._authority()
        pair = authority.client(user, groups)
        kubeconfig.write_with_certificate(path, server or self.server, authority.pem, user, pair)
        return path

    def token_kubeconfig(self, name: str, token: str, server: str | None = None) -> Path:
        """A kubeconfig that shows `token`; `name` names the file, and a new token replaces it.

        Raises ControlPlaneError before the first `start`.
        """
        path = self._layout.user_kubeconfig(_file_name(name))
        kubeconfig.write_with_token(path, server or self.server, self.ca_pem, name, token)
        return path

    # What it does

    def start(self) -> None:
        """Start what does not run and return when all is ready: about three seconds.

        Ready means that /readyz is ok and that every controller runs, the one that makes service
        accounts seen at its work.

        Raises ControlPlaneError, with the end of the log, if a part ends or is not ready in time;
        what this call has started is stopped again.
        """
        binaries = ensure_binaries(self._progress)
        self._layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            self._prepare()
            self._bring_up(PARTS, binaries)

    def stop(self) -> None:
        """End all processes and wait for their ends; fine if there are none."""
        # Without a state nothing was ever started: leave no lock in a folder of somebody else's.
        if self.exists(self._layout.directory):
            with self._locked():
                self._end(PARTS)

    def kill(self, part: Part) -> None:
        """SIGKILL one part, if it runs, and wait for its end; the others go on.

        Raises ControlPlaneError before the first `start`.
        """
        self._require_state()
        with self._locked():
            self._daemons[part].send(signal.SIGKILL)
            self._await_end(part)

    def restart(self, part: Part) -> None:
        """Stop one part if it runs, start it and wait until it is ready.

        Raises ControlPlaneError as `start` does, and before the first `start`.
        """
        self._require_state()
        binaries = ensure_binaries(self._progress)
        with self._locked():
            self._end([part])
            self._bring_up([part], binaries)

    # How

    @property
    def _host(self) -> str:
        """Where this machine reaches the API server."""
        if programs.is_unspecified(self._bind):
            return "::1" if ":" in self._bind else programs.LOOPBACK
        return self._bind

    def _require_state(self) -> State:
        # Read again while there is none: another process may have made it since.
        self._state = self._state or State.load(self._layout.state)
        if self._state is None:
            raise ControlPlaneError(
                f"the control plane in {self._layout.directory} was never started: call start first"
            )
        return self._state

    def _authority(self) -> Authority:
        self._require_state()
        return Authority.load(self._layout.ca_certificate, self._layout.ca_key)

    def _prepare(self) -> None:
        """At the first start choose ports and make credentials."""
        self._state = State.load(self._layout.state)
        if self._state is not None:
            return
        self._state = State(self._bind, self._extra_sans, choose_ports(self._bind))
        credentials.create(self._layout, self.server, [self._host, *self._extra_sans])
        # Last, so that a directory with a state is complete.
        self._state.save(self._layout.state)

    def _bring_up(self, parts: Sequence[Part], binaries: Binaries) -> None:
        """Start what does not run of `parts`, each when the one before is ready.

        On failure those started here are ended again.
        """
        state = self._require_state()
        readiness = Readiness(self._layout, state, self._host)
        started: list[Part] = []
        try:
            for part in parts:
                if not self.running(part):
                    argv = COMMANDS[part](binaries, self._layout, state)
                    started.append(part)
                    self._daemons[part].start(argv, self._environment())
                readiness.wait(part, self._daemons[part])
        except BaseException:
            self._end(started)
            raise

    def _environment(self) -> dict[str, str]:
        # Nothing of the caller's: etcd takes each ETCD_* as a flag, and a proxy would come between
        # the controllers and the API server.
        return {"PATH": os.defpath, "HOME": str(self._layout.directory)}

    def _end(self, parts: Sequence[Part]) -> None:
        for part in reversed(parts):
            daemon = self._daemons[part]
            daemon.send(signal.SIGTERM)
            if not daemon.wait(GRACE):
                # Nothing is lost: all that matters is in etcd, which ends at once.
                daemon.send(signal.SIGKILL)
                self._await_end(part)

    def _await_end(self, part: Part) -> None:
        """Wait for a process that was sent SIGKILL."""
        daemon = self._daemons[part]
        if not daemon.wait(KILL_TIMEOUT):
            raise ControlPlaneError(
                f"{part} (pid {daemon.pid()}) does not end even by SIGKILL: look for a hung disk"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time starts or stops things here."""
        with self._layout.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _file_name(*words: str) -> str:
    """A file name for a user, readable, and another one for each other set of words."""
    readable = urllib.parse.quote(words[0], safe="")[:100]
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
    return f"{readable}-{digest}"
