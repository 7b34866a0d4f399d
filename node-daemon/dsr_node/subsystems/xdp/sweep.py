"""The memory of flows: what has expired goes, and slots settle that no old flow holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.apply import write_table
from dsr_node.subsystems.xdp.dataplane import Dataplane
from dsr_node.subsystems.xdp.state import TCP
from dsr_node.table.slots import SlotTable, next_table
from dsr_node.table.word import ID_BITS, MAX_ID, NO_HANDLE, unpack

_ID = np.uint32(MAX_ID)


@dataclass(frozen=True, slots=True)
class Swept:
    """Flows remembered now, flows forgotten, slots moved still, slots settled."""

    flows: int = 0
    forgotten: int = 0
    moved: int = 0
    settled: int = 0


def sweep(dataplane: Dataplane, now_s: int) -> Swept:
    """One sweep (docs/architecture.md, slot rules 5 to 7). `now_s`: CLOCK_MONOTONIC."""
    keys, entries = dataplane.maps["flows"].read_all(layout.FLOW, layout.FLOW_ENTRY)
    gone = is_expired(keys, entries, dataplane.pools, now_s)
    gone |= ~is_of_today(entries["handle"], dataplane.backends)
    gone |= dataplane.backend_owners["pool"][entries["handle"] & _ID] != entries["pool"]
    dataplane.maps["flows"].delete_many(keys[gone])
    moved, settled = _settle(dataplane, entries[~gone], now_s)
    return Swept(len(keys) - int(gone.sum()), int(gone.sum()), moved, settled)


def is_expired(
    keys: NDArray[Any], entries: NDArray[Any], pools: NDArray[Any], now_s: int
) -> NDArray[np.bool_]:
    """Entries of flows idle for longer than they are kept, or of a slot that their pool has not:
    they were made for an earlier pool of that index."""
    pool = pools[entries["pool"]]
    idle = np.where(keys["protocol"] == TCP, pool["tcp_idle_s"], pool["udp_idle_s"])
    closing = entries["flags"] & layout.FLOW_CLOSING != 0
    kept = np.where(closing, np.minimum(layout.CLOSING_S, idle), idle).astype(np.int64)
    idled = now_s - entries["last_seen_s"].astype(np.int64)
    expired: NDArray[np.bool_] = (idled > kept) | (entries["slot"] >= pool["size"])
    return expired


def is_of_today(handles: NDArray[np.uint32], backends: NDArray[Any]) -> NDArray[np.bool_]:
    """Handles whose generation is their backend's (docs/architecture.md, slot rule 8)."""
    generation = handles >> np.uint32(ID_BITS)
    same: NDArray[np.bool_] = backends["generation"][handles & _ID] == generation
    return same


def _settle(dataplane: Dataplane, entries: NDArray[Any], now_s: int) -> tuple[int, int]:
    """Steps every table that has moved slots; slots that are still moved, and slots settled."""
    moved = settled = 0
    entries = entries[np.argsort(entries["pool"], kind="stable")]
    for index in np.flatnonzero(dataplane.pools["size"]).tolist():
        pool = dataplane.pools[index]
        chunk = dataplane.chunks[pool["chunk"]]
        slots = slice(int(pool["offset"]), int(pool["offset"]) + int(pool["size"]))
        if not _has_moved(chunk.words[slots]):
            continue
        first, last = np.searchsorted(entries["pool"], [index, index + 1])
        old = SlotTable(chunk.words[slots].copy(), chunk.moved_at[slots].copy())
        new = _next(old, entries[first:last], pool, dataplane.backends, now_s)
        write_table(chunk, slots, new)
        moved += new.unsettled()
        settled += old.unsettled() - new.unsettled()
    return moved, settled


def _has_moved(words: NDArray[np.uint64]) -> bool:
    return bool(words.view(np.int64).min() < 0)  # the flag is the highest bit


def _next(
    old: SlotTable, entries: NDArray[Any], pool: Any, backends: NDArray[Any], now_s: int
) -> SlotTable:
    current, settled, _ = unpack(old.words)
    handles = np.unique(np.concatenate([current, settled]))
    up = backends["flags"][handles & _ID] & layout.BACKEND_DOWN == 0
    living = handles[up & is_of_today(handles, backends) & (handles != NO_HANDLE)]
    idle = int(max(pool["tcp_idle_s"], pool["udp_idle_s"]))
    return next_table(old, current, living.tolist(), busy_slots(entries, current), now_s, idle)


def busy_slots(entries: NDArray[Any], current: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Slots with a flow on another backend than current."""
    busy = np.zeros(len(current), bool)
    elsewhere = entries["handle"] != current[entries["slot"]]
    busy[entries["slot"][elsewhere]] = True
    return busy
