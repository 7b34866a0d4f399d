"""What diff() finds to be done, in terms of the maps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from dsr_node.subsystems.xdp.state import Attachment, FrontendKey, Peer, Problem
from dsr_node.subsystems.xdp.tables import TableStep


@dataclass(frozen=True, slots=True)
class BackendWrite:
    """One element of `backends`; with `identity`, of its owner in pool `pool` as well."""

    id: int
    row: tuple[int, int, bytes, int, bytes, int]  # as layout.BACKEND
    pool: int
    identity: bytes | None = None


@dataclass(frozen=True, slots=True)
class PoolWrite:
    """One element of `pools`; with `identity`, of its owner as well."""

    index: int
    row: tuple[int, int, int, int, int, int, int]  # as layout.POOL
    identity: bytes | None = None


@dataclass(frozen=True, slots=True)
class TableWrite:
    """The next table of a plan's pool."""

    plan: str
    pool: int
    step: TableStep


@dataclass(frozen=True, slots=True)
class FrontendWrite:
    """A frontend's index, pool and flags; `new`: it is not in `frontends` yet."""

    key: FrontendKey
    index: int
    pool: int
    flags: int
    new: bool


@dataclass(slots=True)
class Changes:
    """Empty (false) where the maps hold what is desired, `problems` apart.

    `postponed`: there are tables to be filled once these changes are made. `makes_room`: these
    changes may make room for what has not fitted. Nothing is announced anew before.
    """

    backends_in: list[BackendWrite] = field(default_factory=list)
    tables: list[TableWrite] = field(default_factory=list)
    pools_in: list[PoolWrite] = field(default_factory=list)
    frontends_in: list[FrontendWrite] = field(default_factory=list)
    frontends_out: list[FrontendKey] = field(default_factory=list)
    pools_out: list[int] = field(default_factory=list)
    backends_out: list[int] = field(default_factory=list)
    vips_in: list[bytes] = field(default_factory=list)
    vips_out: list[bytes] = field(default_factory=list)
    peers_in: list[Peer] = field(default_factory=list)
    peers_out: list[Peer] = field(default_factory=list)
    interfaces_in: dict[int, bytes] = field(default_factory=dict)
    interfaces_out: list[int] = field(default_factory=list)
    announced_in: dict[bytes, int] = field(default_factory=dict)
    announced_out: list[bytes] = field(default_factory=list)
    attach: list[Attachment] = field(default_factory=list)
    update: list[str] = field(default_factory=list)
    detach: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    postponed: bool = False
    makes_room: bool = False

    def __bool__(self) -> bool:
        told = ("problems", "postponed", "makes_room")
        return any(_value(self, f.name) for f in fields(self) if f.name not in told)


def _value(changes: Changes, name: str) -> Any:
    return getattr(changes, name)
