"""The last plans on disk: what a daemon starts with when the API server cannot be reached."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from dsr_api.base import API_VERSION
from dsr_api.plan import DSRPlan

DEBOUNCE = 0.1
"""Seconds from a change to its being written; all changes of that time go together. A daemon killed
in that time that finds no API server begins with plans that are older than the pinned maps."""

SUFFIX = ".json"
REVISION = "revision"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """Plans by name, and a revision that they are not older than (0: unknown)."""

    plans: Mapping[str, DSRPlan] = field(default_factory=dict)
    revision: int = 0


class PlanFiles:
    """One file a plan, in the form of a DSRPlan manifest, so that a change writes only its own.

    Each file is replaced as a whole (written beside, fsync, rename): after a crash it is the old
    or the new one. The revision is written last, so that no plan is older than it says.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stored: Mapping[str, DSRPlan] = {}

    def load(self) -> Saved:
        """What is there; a file that cannot be read is told in the log and left out."""
        plans: dict[str, DSRPlan] = {}
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            try:
                plan = msgspec.json.decode(path.read_bytes(), type=DSRPlan)
            except (OSError, msgspec.DecodeError) as error:
                log.warning(
                    "%s: ignored, as it cannot be read (%s); it is written anew when the "
                    "API server answers",
                    path,
                    error,
                )
                continue
            plans[plan.metadata.name] = plan
        self._stored = plans
        return Saved(plans, self._load_revision())

    def store(self, plans: Mapping[str, DSRPlan], revision: int) -> None:
        """Make the directory hold exactly this. Raises OSError; a later call goes on from there."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        expected = {_file_name(name) for name in plans}
        for name, plan in plans.items():
            if self._stored.get(name) != plan or not (self._directory / _file_name(name)).exists():
                self._write(_file_name(name), _manifest(plan))
        for path in self._directory.iterdir():
            if path.name not in expected and path.name != REVISION:
                path.unlink()
        self._write(REVISION, str(revision).encode())
        _sync(self._directory)
        self._stored = dict(plans)

    def _load_revision(self) -> int:
        try:
            return int((self._directory / REVISION).read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): taken as 0", self._directory / REVISION, error)
            return 0

    def _write(self, name: str, content: bytes) -> None:
        replace_file(self._directory / name, content)


def replace_file(path: Path, content: bytes) -> None:
    """After a crash it is the old file or the new one. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


class Saver:
    """Writes the last plans it was given, DEBOUNCE seconds after a change, off the event loop."""

    def __init__(self, files: PlanFiles) -> None:
        self._files = files
        self._latest: Saved | None = None
        self._given = asyncio.Event()

    def save(self, plans: Mapping[str, DSRPlan], revision: int) -> None:
        """These are the plans now. Returns at once."""
        self._latest = Saved(plans, revision)
        self._given.set()

    async def run(self) -> None:
        """Endless; what is not yet written when it is cancelled is written then."""
        try:
            while True:
                await self._given.wait()
                await asyncio.sleep(DEBOUNCE)
                self._given.clear()
                await asyncio.to_thread(self._write)
        finally:
            if self._given.is_set():
                self._write()

    def _write(self) -> None:
        if self._latest is None:
            return
        try:
            self._files.store(self._latest.plans, self._latest.revision)
        except OSError as error:
            log.warning(
                "the last plans cannot be kept on disk: %s. Make room, or this node starts "
                "with older plans when the API server is away",
                error,
            )


def _file_name(plan: str) -> str:
    # A plan's name may be longer than a file's (253 against 255 less suffix and ".new").
    return f"{plan[:200]}-{hashlib.blake2b(plan.encode(), digest_size=8).hexdigest()}{SUFFIX}"


def _manifest(plan: DSRPlan) -> bytes:
    document = {"apiVersion": API_VERSION, "kind": "DSRPlan", **msgspec.to_builtins(plan)}
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
