"""From what is desired and what is observed to what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from dsr_api.node import NO_ROOM, NO_TABLE
from numpy.typing import NDArray

from dsr_node.subsystems.xdp.allocate import Indices, NoRoomError, Space, more_room
from dsr_node.subsystems.xdp.changes import (
    BackendWrite,
    Changes,
    FrontendWrite,
    PoolWrite,
    TableWrite,
)
from dsr_node.subsystems.xdp.identity import backend_identity, pool_identity
from dsr_node.subsystems.xdp.layout import (
    BACKEND_DOWN,
    BACKEND_DRAINING,
    BACKEND_LOCAL,
    FRONTEND_HOST,
)
from dsr_node.subsystems.xdp.observed import Observed
from dsr_node.subsystems.xdp.possible import check_frontend, check_pool
from dsr_node.subsystems.xdp.state import (
    Backend,
    DirectorState,
    Peer,
    Pool,
    PoolKey,
    Problem,
)
from dsr_node.subsystems.xdp.tables import PostponedError, WantedTables
from dsr_node.table.word import handle

_ANY_ADDRESS = bytes(16)
_NO_MAC = bytes(6)

T = TypeVar("T", bytes, Peer)


def diff(
    desired: DirectorState,
    observed: Observed,
    tables: WantedTables,
    *,
    full: bool = True,
    part: int = 0,
) -> Changes:
    """What turns the one into the other. A plan that does not fit becomes a problem, and a pool
    that is there goes on without those backends for whom there is no room. `full`: also those pools
    are compared whose value has been found in the maps before. `part`: how many have gone before
    in this pass."""
    changes = Changes()
    tables.begin(full=full, part=part)
    pools = _PoolDiff(observed, changes, tables)
    places = {key: pools.place(pool) for key, pool in desired.pools.items()}
    if not changes.postponed:
        pools.remove_others(places.values())
    _frontends(desired, observed, changes, places)
    _sets(desired, observed, changes)
    _links(desired, observed, changes)
    tables.keep(desired.pools)
    if changes.backends_out or changes.pools_out or changes.frontends_out:
        changes.makes_room = any(problem.reason == NO_ROOM for problem in changes.problems)
    if changes.postponed or changes.makes_room:
        renewed = changes.announced_in.keys() & observed.announced.keys()
        changes.announced_in = {vip: changes.announced_in[vip] for vip in renewed}
    return changes


class _PoolDiff:
    """Pools, their backends and their tables."""

    def __init__(self, observed: Observed, changes: Changes, tables: WantedTables) -> None:
        self._observed = observed
        self._changes = changes
        self._tables = tables
        # What an interrupted change has left keeps its index until it is gone.
        self._used_pools = {*observed.pool_index.values(), *observed.cut_short}
        self._used_pools.update(observed.backend_ids)
        self._free_pools = Indices("pools", _mask(observed.limits.pools, self._used_pools))
        self._free_backends = Indices(
            "backends",
            _mask(
                observed.limits.backends,
                (id_ for ids in observed.backend_ids.values() for id_ in ids.values()),
                first=1,
            ),
            observed.backends["generation"],
        )
        rows = observed.pools
        in_use = np.fromiter(observed.pool_index.values(), np.int64, len(observed.pool_index))
        self._space = Space(
            zip(
                rows["chunk"][in_use].tolist(),
                rows["offset"][in_use].tolist(),
                rows["size"][in_use].tolist(),
                strict=True,
            )
        )

    def place(self, pool: Pool) -> int | None:
        """The pool's index, now or after the changes; None where there is no room for it."""
        index = self._observed.pool_index.get(pool_identity(pool))
        if index is not None and self._tables.is_found(pool):
            return index
        try:
            check_pool(pool)
            if index is None:
                return self._add(pool)
            if self._compare(pool, index):
                self._tables.found(pool)
        except PostponedError:
            self._changes.postponed = True
        except NoRoomError as error:
            self._changes.problems.append(Problem(NO_ROOM, str(error), plan=pool.key.plan))
        except (ValueError, MemoryError) as error:  # of check_pool, dsr_node.table
            self._changes.problems.append(Problem(NO_TABLE, str(error), plan=pool.key.plan))
        return index

    def remove_others(self, kept: Iterable[int | None]) -> None:
        """Pools that nobody wants, with their backends."""
        keep = {index for index in kept if index is not None}
        for index in sorted(self._used_pools - keep):
            self._changes.pools_out.append(index)
            self._changes.backends_out += self._observed.backend_ids.get(index, {}).values()

    def _add(self, pool: Pool) -> int:
        (index,) = self._free_pools.take(1)
        chunk, offset = self._space.take(pool.size)
        handles, writes = self._backends(pool, index)
        step = self._tables.first_step(pool, handles, (chunk, offset), self._observed.now_s)
        self._changes.backends_in += writes
        self._changes.tables.append(TableWrite(pool.key.plan, index, step))
        self._changes.pools_in.append(
            PoolWrite(index, _pool_row(pool, chunk, offset), pool_identity(pool))
        )
        return index

    def _compare(self, desired: Pool, index: int) -> bool:
        """Whether the maps hold the pool. What is known of backends does not wait for the table."""
        row = self._observed.pools[index].item()
        pool = self._with_room(desired, index)
        handles, writes = self._backends(pool, index)
        self._changes.backends_in += writes
        chunk, offset = row[1], row[2]
        step = self._tables.next_step(pool, handles, (chunk, offset))
        moves = step.is_needed(self._observed.chunks[chunk].words[step.slots])
        if moves:
            self._changes.tables.append(TableWrite(pool.key.plan, index, step))
        wanted = _pool_row(pool, chunk, offset)
        if row != wanted:
            self._changes.pools_in.append(PoolWrite(index, wanted))
        gone: list[int] = []
        there = self._observed.backend_ids.get(index, {})
        if len(there) + sum(write.identity is not None for write in writes) > len(pool.backends):
            kept = {backend_identity(each.key) for each in pool.backends}
            gone = [there[identity] for identity in sorted(there.keys() - kept)]
            self._changes.backends_out += gone
        return pool is desired and not (writes or moves or row != wanted or gone)

    def _with_room(self, pool: Pool, index: int) -> Pool:
        """The pool with as many newcomers as fit: who fails or leaves must not wait for them."""
        there = self._observed.backend_ids.get(index, {})
        new = [each for each in pool.backends if backend_identity(each.key) not in there]
        left = self._free_backends.left
        if len(new) <= left:
            return pool
        message = (
            f"{len(new) - left} backends are left out, the map of backends is full; "
            f"{more_room('backends')}"
        )
        self._changes.problems.append(Problem(NO_ROOM, message, plan=pool.key.plan))
        out = {each.key for each in new[left:]}
        return replace(pool, backends=tuple(b for b in pool.backends if b.key not in out))

    def _backends(self, pool: Pool, index: int) -> tuple[list[int], list[BackendWrite]]:
        """Handles in the order of the pool's backends, and what is to be written for them."""
        there = self._observed.backend_ids.get(index, {})
        identities = [backend_identity(each.key) for each in pool.backends]
        new = iter(self._free_backends.take(sum(each not in there for each in identities)))
        ids = [there[each] if each in there else next(new) for each in identities]
        rows = self._observed.backends[ids].tolist()
        handles: list[int] = []
        writes: list[BackendWrite] = []
        for backend, identity, id_, row in zip(pool.backends, identities, ids, rows, strict=True):
            wanted = _backend_row(backend, row[0])
            if identity not in there:
                writes.append(BackendWrite(id_, wanted, index, identity))
            elif row != wanted:
                writes.append(BackendWrite(id_, wanted, index))
            handles.append(handle(row[0], id_))
        return handles, writes


def _mask(size: int, used: Iterable[int], first: int = 0) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[:first] = True
    mask[np.fromiter(used, np.int64)] = True
    return mask


def _pool_row(pool: Pool, chunk: int, offset: int) -> tuple[int, int, int, int, int, int, int]:
    return (pool.seed, chunk, offset, pool.size, pool.tcp_idle_s, pool.udp_idle_s, 0)


def _backend_row(backend: Backend, generation: int) -> tuple[int, int, bytes, int, bytes, int]:
    flags = (
        BACKEND_LOCAL * backend.local
        | BACKEND_DOWN * backend.down
        | BACKEND_DRAINING * backend.draining
    )
    mac = backend.mac or _NO_MAC
    return (generation, backend.ifindex, mac, flags, backend.source_mac, 0)


def _frontends(
    desired: DirectorState,
    observed: Observed,
    changes: Changes,
    places: Mapping[PoolKey, int | None],
) -> None:
    free = Indices("frontends", _mask(observed.limits.frontends, observed.frontends.values()))
    leaving = set(changes.pools_out)
    for key, pool_key in desired.frontends.items():
        place, index = places[pool_key], observed.frontends.get(key)
        if place is None:
            if index is not None and int(observed.frontend_info[index]["pool"]) in leaving:
                changes.frontends_out.append(key)
            continue
        flags = FRONTEND_HOST * desired.pools[pool_key].host
        if index is not None:
            if observed.frontend_info[index].item() != (place, flags):
                changes.frontends_in.append(FrontendWrite(key, index, place, flags, new=False))
            continue
        try:
            check_frontend(key)
            (index,) = free.take(1)
            changes.frontends_in.append(FrontendWrite(key, index, place, flags, new=True))
        except NoRoomError as error:
            changes.problems.append(Problem(NO_ROOM, str(error), plan=pool_key.plan))
        except ValueError as error:
            changes.problems.append(Problem(NO_TABLE, str(error), plan=pool_key.plan))
    changes.frontends_out += sorted(observed.frontends.keys() - desired.frontends.keys())


def _sets(desired: DirectorState, observed: Observed, changes: Changes) -> None:
    vips = _fitting(desired.vips, observed.limits.vips, "vips", changes)
    changes.vips_in = sorted(vips - observed.vips)
    changes.vips_out = sorted(observed.vips - vips)
    macs = {Peer(peer.mac, _ANY_ADDRESS) for peer in desired.peers}
    peers = _fitting(desired.peers | macs, observed.limits.peers, "peers", changes)
    changes.peers_in = sorted(peers - observed.peers)
    changes.peers_out = sorted(observed.peers - peers)
    announced = _fitting(
        frozenset(desired.announced), observed.limits.vips, "announced VIPs", changes
    )
    changes.announced_in = {
        vip: desired.announced[vip]
        for vip in announced
        if observed.announced.get(vip) != desired.announced[vip]
    }
    changes.announced_out = sorted(observed.announced.keys() - announced)


def _fitting(wanted: frozenset[T], room: int, name: str, changes: Changes) -> frozenset[T]:
    if len(wanted) <= room:
        return wanted
    message = (
        f"{len(wanted)} {name} are wanted, the map holds {room}; "
        f"{more_room('peers' if name == 'peers' else 'vips')}"
    )
    changes.problems.append(Problem(NO_ROOM, message))
    return frozenset(sorted(wanted)[:room])


def _links(desired: DirectorState, observed: Observed, changes: Changes) -> None:
    interfaces = {each.ifindex: each.mac for each in desired.attachments}
    changes.interfaces_in = {
        ifindex: mac
        for ifindex, mac in interfaces.items()
        if observed.interfaces.get(ifindex) != mac
    }
    changes.interfaces_out = sorted(observed.interfaces.keys() - interfaces.keys())
    for each in desired.attachments:
        link = observed.links.get(each.name)
        if link is None or link.ifindex != each.ifindex:
            changes.attach.append(each)
        elif not link.current:
            changes.update.append(each.name)
    names = {each.name for each in desired.attachments}
    changes.detach = sorted(observed.links.keys() - names)
