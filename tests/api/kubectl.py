"""kubectl as tests use it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.controlplane import ensure_binaries
from lab.controlplane.cluster import say


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints on standard output.

    Raises CalledProcessError, whose `stderr` tells what the API server said.
    """
    command = [str(ensure_binaries(say).kubectl), f"--kubeconfig={kubeconfig}", *arguments]
    try:
        done = subprocess.run(command, input=stdin, check=True, text=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return done.stdout
