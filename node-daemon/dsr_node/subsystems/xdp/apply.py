"""Writing changes into the maps, in an order in which every packet finds a whole answer:
announcements out, frontends out, backends in, tables, pools, frontends in, pools and backends out,
links, announcements in (docs/architecture.md, slot rule 10)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence, Set

import numpy as np
from dsr_api.node import NO_ROOM

from dsr_node.bpf.maps import Map, cpus
from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.changes import (
    BackendWrite,
    Changes,
    FrontendWrite,
    PoolWrite,
    TableWrite,
)
from dsr_node.subsystems.xdp.dataplane import Dataplane
from dsr_node.subsystems.xdp.links import attach_link, detach_link, update_link
from dsr_node.subsystems.xdp.observed import Chunk
from dsr_node.subsystems.xdp.state import Problem
from dsr_node.subsystems.xdp.tables import TableStep
from dsr_node.table.slots import SlotTable
from dsr_node.table.word import MAX_GENERATION


def apply(changes: Changes, dataplane: Dataplane) -> list[Problem]:
    """Carries all of it out; what concerns one plan or interface only comes back as a problem.
    Raises OSError for the rest."""
    maps = dataplane.maps
    _delete(maps["announced"], [*changes.announced_out])
    _delete(maps["frontends"], [layout.pack_frontend(key) for key in changes.frontends_out])
    problems, stuck = _make_room(changes.tables, dataplane)
    _write_backends([write for write in changes.backends_in if write.pool not in stuck], dataplane)
    for write in changes.tables:
        if write.pool not in stuck:
            _write_step(write.step, dataplane)
    _write_pools([write for write in changes.pools_in if write.index not in stuck], dataplane)
    waiting = [write for write in changes.frontends_in if write.pool in stuck]
    _write_frontends([write for write in changes.frontends_in if write not in waiting], dataplane)
    _set(maps["vips"], dict.fromkeys(changes.vips_in, 1), "u4")
    _set(maps["peers"], dict.fromkeys(map(layout.pack_peer, changes.peers_in), 1), "u1")
    still = {int(dataplane.frontend_info[each.index]["pool"]) for each in waiting if not each.new}
    _remove(changes, dataplane, stuck | still)
    problems += _link(changes, dataplane)
    _set(maps["announced"], changes.announced_in, "u8")
    return problems


def renew(announced: Mapping[bytes, int], dataplane: Dataplane) -> None:
    """Sets the ends of leases."""
    _set(dataplane.maps["announced"], announced, "u8")


def write_table(chunk: Chunk, slots: slice, new: SlotTable) -> None:
    """Times first: a packet that finds a slot moved must find when."""
    words, times = chunk.words[slots], chunk.moved_at[slots]
    changed = times != new.moved_at
    times[changed] = new.moved_at[changed]
    changed = words != new.words
    words[changed] = new.words[changed]


def _make_room(
    writes: Sequence[TableWrite], dataplane: Dataplane
) -> tuple[list[Problem], set[int]]:
    """Makes the chunks that tables need; problems, and the pools for which there is none."""
    problems: list[Problem] = []
    stuck: set[int] = set()
    failure: OSError | None = None
    for write in writes:
        try:
            while write.step.chunk >= len(dataplane.chunks) and not failure:
                dataplane.add_chunk()
        except OSError as error:
            failure = error
        if write.step.chunk >= len(dataplane.chunks):
            message = f"there is no room for its table: {failure}; free memory on this node"
            problems.append(Problem(NO_ROOM, message, plan=write.plan))
            stuck.add(write.pool)
    return problems, stuck


def _write_step(step: TableStep, dataplane: Dataplane) -> None:
    chunk = dataplane.chunks[step.chunk]
    old = SlotTable(chunk.words[step.slots].copy(), chunk.moved_at[step.slots].copy())
    write_table(chunk, step.slots, step.next(old, math.ceil(time.monotonic())))


def _write_backends(writes: Sequence[BackendWrite], dataplane: Dataplane) -> None:
    """Row by row in 8-byte stores: generation and ifindex, MAC and flags, source MAC."""
    if not writes:
        return
    new = [write for write in writes if write.identity]
    _zero(dataplane.maps["backend_stats"], [write.id for write in new])
    rows = np.array([write.row for write in writes], layout.BACKEND)
    words = dataplane.backends.view("u8").reshape(len(dataplane.backends), -1)
    words[[write.id for write in writes]] = rows.view("u8").reshape(len(rows), -1)
    owners = np.array([(write.identity, write.pool, 0) for write in new], layout.OWNER)
    dataplane.backend_owners[[write.id for write in new]] = owners


def _write_pools(writes: Sequence[PoolWrite], dataplane: Dataplane) -> None:
    """The owner comes before the row and goes after it: no row is ever without one."""
    for pool in writes:
        if pool.identity:
            dataplane.pool_owners[pool.index] = (pool.identity, 0, 0)
        dataplane.pools[pool.index] = pool.row


def _write_frontends(writes: Sequence[FrontendWrite], dataplane: Dataplane) -> None:
    new = [write for write in writes if write.new]
    _zero(dataplane.maps["frontend_stats"], [write.index for write in new])
    for write in writes:
        dataplane.frontend_info[write.index : write.index + 1].view("u8")[:] = (
            write.pool | write.flags << 32
        )
    entries = {layout.pack_frontend(write.key): write.index for write in new}
    _set(dataplane.maps["frontends"], entries, "u4")


def _remove(changes: Changes, dataplane: Dataplane, used: Set[int]) -> None:
    """A backend's handles are of the past once its generation goes on: before its pool's index can
    be another pool's. `used`: pools that packets still find, with their tables of before."""
    for id_ in changes.backends_out:
        if int(dataplane.backend_owners[id_]["pool"]) in used:
            continue
        generation = (int(dataplane.backends[id_]["generation"]) + 1) & MAX_GENERATION
        row = (generation, 0, bytes(6), layout.BACKEND_DOWN, bytes(6), 0)
        dataplane.backends[id_] = row
        dataplane.backend_owners[id_] = (bytes(16), 0, 0)
    for index in set(changes.pools_out) - used:
        dataplane.pools[index] = np.zeros((), layout.POOL)
        dataplane.pool_owners[index] = (bytes(16), 0, 0)
    _delete(dataplane.maps["vips"], [*changes.vips_out])
    _delete(dataplane.maps["peers"], [layout.pack_peer(peer) for peer in changes.peers_out])


def _link(changes: Changes, dataplane: Dataplane) -> list[Problem]:
    maps, pins, program = dataplane.maps, dataplane.pins, dataplane.program
    problems = [detach_link(pins, name) for name in changes.detach]
    _delete(
        maps["interfaces"], [ifindex.to_bytes(4, "little") for ifindex in changes.interfaces_out]
    )
    for ifindex, mac in changes.interfaces_in.items():
        maps["interfaces"].update(ifindex.to_bytes(4, "little"), mac + bytes(2))
    problems += [update_link(pins, program, name) for name in changes.update]
    problems += [attach_link(pins, program, each) for each in changes.attach]
    return [problem for problem in problems if problem]


def _set(target: Map, entries: Mapping[bytes, int], value: str) -> None:
    if entries:
        keys = np.frombuffer(b"".join(entries), f"V{target.shape.key_size}")
        target.update_many(keys, np.fromiter(entries.values(), value, len(entries)))


def _delete(target: Map, keys: Sequence[bytes]) -> None:
    if keys:
        target.delete_many(np.frombuffer(b"".join(keys), f"V{target.shape.key_size}"))


def _zero(target: Map, indices: Sequence[int]) -> None:
    if indices:
        zeros = np.zeros((len(indices), cpus()), layout.STATS)
        target.update_many(np.array(indices, "u4"), zeros)
