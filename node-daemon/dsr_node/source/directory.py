"""Plans from DSRPlan files in a directory: a node without a cluster, and every kernel test."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml
from dsr_api.base import API_VERSION, decode
from dsr_api.node import PlanNotApplied
from dsr_api.plan import DSRPlan

from dsr_node.source import Snapshot
from dsr_node.source.validity import InvalidPlanError, checked, unknown_field

POLL = 0.2
"""Seconds between two looks at the directory; 1,000 files cost about 2 ms."""

SUFFIXES = frozenset({".yaml", ".yml", ".json"})

UNREADABLE = "Unreadable"
"""Reason of a file that is no plan."""

_Place = tuple[int, int]
"""Device and inode of a directory: of another one that is mounted or renamed there they differ."""

_Stamp = tuple[_Place, int, int, int]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

log = logging.getLogger(__name__)


class PlanFileError(Exception):
    """A file is no DSRPlan; the text says why, without the file's name."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as last read. `plan` is its last good version."""

    stamp: _Stamp
    plan: DSRPlan | None
    error: str = ""


def parse(text: str | bytes) -> DSRPlan:
    """The plan in a YAML or JSON document. Raises PlanFileError."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - the safe loader, written in C
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanFileError(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, Mapping):
        raise PlanFileError("not one YAML mapping; put one DSRPlan into each file")
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind != (API_VERSION, "DSRPlan"):
        raise PlanFileError(
            f"apiVersion {kind[0]!r}, kind {kind[1]!r}; this daemon reads {API_VERSION} DSRPlan"
        )
    if field := unknown_field(document):
        raise PlanFileError(field)
    try:
        return checked(decode(DSRPlan, document))
    except (msgspec.ValidationError, InvalidPlanError) as error:
        raise PlanFileError(str(error)) from error


class DirectorySource:
    """A Source. Each file with a suffix of SUFFIXES, not hidden, holds one plan.

    A file that is no plan is refused by name, keeps its last good version in force, and stops no
    other one. A directory that cannot be read yields nothing.

    A file that is missing at two looks in a row (an editor that saves takes it away for a moment)
    is gone. If it was seen in this same directory, somebody has deleted it: its plan is emptied
    before it goes, as the operator does, so that a last one may go at once. If it was seen in a
    directory that has been replaced, it is just lost, and the engine may hold its plan.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._missing: set[str] = set()
        self._deleted: dict[str, DSRPlan] = {}
        self._trouble = ""

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """See Source."""
        first = True
        while True:
            if self._look() or (first and not self._trouble):
                first = False
                snapshot = self._snapshot()
                if deleted := self._deleted.keys() - snapshot.plans.keys():
                    emptied = {name: _emptied(self._deleted[name]) for name in deleted}
                    yield replace(snapshot, plans={**snapshot.plans, **emptied})
                yield snapshot
            await asyncio.sleep(POLL)

    def _look(self) -> bool:
        """Reads what has changed; whether anything has."""
        try:
            place = _place(self._directory)
            entries = [entry for entry in os.scandir(self._directory) if _is_plan(entry)]
            stamps = {entry.name: _stamp(entry, place) for entry in entries}
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("cannot read the plans: %s; the former ones stay in force", error)
            self._trouble = str(error)
            return False
        self._trouble = ""
        gone = self._gone(stamps.keys(), place)
        changed = [name for name, stamp in stamps.items() if self._stamp_of(name) != stamp]
        for name in changed:
            self._read(name, stamps[name])
        return bool(gone or changed)

    def _gone(self, there: Set[str], place: _Place) -> set[str]:
        missing = self._files.keys() - there
        gone, self._missing = missing & self._missing, missing - self._missing
        files = [self._files.pop(name) for name in gone]
        self._deleted = {
            file.plan.metadata.name: file.plan
            for file in files
            if file.plan and file.stamp[0] == place
        }
        return gone

    def _stamp_of(self, name: str) -> _Stamp | None:
        return self._files[name].stamp if name in self._files else None

    def _read(self, name: str, stamp: _Stamp) -> None:
        last = self._files[name].plan if name in self._files else None
        try:
            plan = parse((self._directory / name).read_bytes())
        except (OSError, PlanFileError) as error:
            log.warning("%s: %s", self._directory / name, error)
            self._files[name] = _File(stamp, last, f"{name}: {error}")
            return
        self._files[name] = _File(stamp, last if last == plan else plan)

    def _snapshot(self) -> Snapshot:
        plans: dict[str, DSRPlan] = {}
        refused = []
        holders: dict[str, str] = {}
        for name, file in sorted(self._files.items()):
            plan = file.plan.metadata.name if file.plan else Path(name).stem
            error = file.error
            if file.plan and plan in holders:
                error = error or f"{name}: {holders[plan]} has a plan named {plan} already"
            elif file.plan:
                plans[plan], holders[plan] = file.plan, name
            if error:
                refused.append(PlanNotApplied(plan=plan, reason=UNREADABLE, message=error))
        return Snapshot(plans, refused=tuple(refused))


def _is_plan(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix in SUFFIXES and not entry.name.startswith(".")


def _emptied(plan: DSRPlan) -> DSRPlan:
    return msgspec.structs.replace(
        plan, spec=msgspec.structs.replace(plan.spec, vips=(), frontends=())
    )


def _place(directory: Path) -> _Place:
    stat = directory.stat()
    return (stat.st_dev, stat.st_ino)


def _stamp(entry: os.DirEntry[str], place: _Place) -> _Stamp:
    """Follows links, as a mounted ConfigMap consists of them. A dangling one has no stamp."""
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return (place, 0, 0, 0)
    return (place, stat.st_mtime_ns, stat.st_size, stat.st_ino)
