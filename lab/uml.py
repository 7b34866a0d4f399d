"""User-mode Linux: the oldest kernel we promise (Debian's 6.1), run as an ordinary process.

It has the machine's own files as its root and runs one command as root. `cc` and the Debian package
user-mode-linux must be installed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BINARY = "linux.uml"

_PRELOADED = Path(__file__).with_name("uml_xstate.c")

_INIT = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
ip link set lo up
cd {directory}
{command} >{scratch}/output 2>&1 </dev/null
echo $? >{scratch}/status
sync
echo o >/proc/sysrq-trigger
sleep 10
"""


@dataclass(frozen=True)
class Finished:
    """What a command inside has given back."""

    status: int
    output: str


class UmlError(Exception):
    """The kernel did not come as far as the end of the command."""


def run(
    command: Sequence[str],
    *,
    directory: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    memory_mb: int = 768,
) -> Finished:
    """Boots a kernel, runs a command in it, and halts it. `timeout`: seconds, with the boot.

    Raises UmlError with the console's last lines when it dies or is too slow.
    """
    settings = [f"{name}={value}" for name, value in (environment or {}).items()]
    with tempfile.TemporaryDirectory(prefix="dsr-uml-") as name:
        scratch = Path(name)
        init = scratch / "init"
        init.write_text(
            _INIT.format(
                directory=shlex.quote(str(directory)),
                command=shlex.join(["env", *settings, *command]),
                scratch=scratch,
            )
        )
        init.chmod(0o755)
        console = _boot(scratch, init, memory_mb, timeout)
        try:
            status = int((scratch / "status").read_text())
        except FileNotFoundError:
            raise UmlError(f"{BINARY} ended without running the command:\n{console}") from None
        return Finished(status, (scratch / "output").read_text(errors="replace"))


def _boot(scratch: Path, init: Path, memory_mb: int, timeout: float) -> str:
    """The end of the console's text, once the kernel has halted."""
    library = scratch / "xstate.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", _PRELOADED, "-o", library], check=True)
    kernel = [BINARY, "rootfstype=hostfs", "rootflags=/", "rw", f"mem={memory_mb}M"]
    log = scratch / "console"
    with log.open("wb") as console:
        process = subprocess.Popen(
            [*kernel, f"init={init}", "con=null", "con0=null,fd:1"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_PRELOAD": str(library), "HOME": str(scratch)},
            start_new_session=True,
        )
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise UmlError(f"not done after {timeout:.0f} s:\n{_end(log)}") from None
        finally:
            _kill_session(process)
    return _end(log)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """The kernel's processes are its session; a crashed one leaves some behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
