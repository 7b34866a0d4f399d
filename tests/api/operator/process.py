"""An operator in a process of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp


class OperatorProcess:
    """`dsr-operator run`; its log is a file. Started again it is the same candidate."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path) -> None:
        self._command = [
            sys.executable,
            "-m",
            "dsr_operator.main",
            "run",
            f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}",
            f"--identity={log.stem}",
            "--listen=127.0.0.1:0",
        ]
        self._path = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self._path.open("wb") as file:
            self._process = subprocess.Popen(self._command, stderr=file, stdout=file)

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._path.read_text()

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM and wait; the exit code. Fine if it has ended already."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    async def wait(self, seconds: float) -> int:
        """Wait for it to end by itself; the exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, seconds)

    async def printed(self, text: str, seconds: float = 30.0) -> str:
        """Wait until the log has a match of the pattern."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(text, self.log):
                return found.group(found.lastindex or 0)
            assert self._process is not None
            assert self._process.poll() is None, self.log
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {text}\n{self.log}")

    async def ready(self) -> None:
        """Wait until it leads and knows everything."""
        await self.printed("reconciling: ")

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages."""
        port = await self.printed(r"listening on port (\d+)")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}") as answer,
        ):
            return answer.status, await answer.text()
