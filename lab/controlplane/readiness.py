"""When a part of the control plane does its work."""

from __future__ import annotations

import http
import re

from lab.controlplane import probe, programs
from lab.controlplane.errors import ControlPlaneError
from lab.controlplane.layout import Layout
from lab.controlplane.process import Daemon, poll
from lab.controlplane.state import State

TIMEOUT = 60.0
"""Seconds for one part to become ready; a second or two is usual."""
INTERVAL = 0.02
"""Seconds between two questions."""
LOG_LINES = 20
"""How much of the log an error shows."""


class Readiness:
    """Asks the parts of one control plane."""

    def __init__(self, layout: Layout, state: State, host: str) -> None:
        """`host` is where the API server is reached; the layout's certificates must be there."""
        self._ports = state.ports
        self._host = host
        self._tls = probe.client_context(
            layout.ca_certificate, layout.admin_certificate, layout.admin_key
        )
        self._questions = {
            "etcd": self._etcd,
            "apiserver": self._apiserver,
            "controller-manager": self._controller_manager,
        }

    def wait(self, part: str, daemon: Daemon) -> None:
        """Return as soon as the part is ready.

        Raises ControlPlaneError, with the end of the log, if it ends or takes longer than TIMEOUT.
        """
        obstacle: str | None = None
        for _ in poll(INTERVAL, TIMEOUT):
            if daemon.pid() is None:
                raise ControlPlaneError(
                    f"{part} ended while it was starting. {_last_words(daemon)}"
                )
            obstacle = self._questions[part]()
            if obstacle is None:
                return
        raise ControlPlaneError(
            f"{part} is not ready after {TIMEOUT:.0f} s: {obstacle}. {_last_words(daemon)}"
        )

    def _etcd(self) -> str | None:
        return _obstacle(probe.get(programs.LOOPBACK, self._ports.etcd, "/readyz"))

    def _apiserver(self) -> str | None:
        return _obstacle(self._ask_apiserver("/readyz"))

    def _controller_manager(self) -> str | None:
        answer = probe.get(
            programs.LOOPBACK, self._ports.controller_manager, "/healthz?verbose", tls=self._tls
        )
        obstacle = _obstacle(answer)
        if obstacle is not None:
            return obstacle
        # A controller has a line here from the moment it is started.
        running = set(re.findall(r"^\[\+\](\S+) ok$", answer.body, re.MULTILINE))
        missing = set(programs.CONTROLLERS) - running
        if missing:
            return f"not started yet: {', '.join(sorted(missing))}"
        # Started is not yet at work. At the very first start this is the proof; and without this
        # account no pod can be created.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        return _obstacle(self._ask_apiserver(account))

    def _ask_apiserver(self, path: str) -> probe.Answer:
        return probe.get(self._host, self._ports.apiserver, path, tls=self._tls)


def _obstacle(answer: probe.Answer) -> str | None:
    if answer.status == http.HTTPStatus.OK:
        return None
    return f"status {answer.status}, {answer.body.strip()}" if answer.status else answer.body


def _last_words(daemon: Daemon) -> str:
    return f"The end of {daemon.log}:\n{daemon.tail(LOG_LINES)}"
