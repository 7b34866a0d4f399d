"""The pinned maps of the director and its program, opened, and what they hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dsr_node.bpf.maps import ARRAY, MMAPABLE, Array, Map, Shape
from dsr_node.bpf.objects import Object
from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.links import read_links
from dsr_node.subsystems.xdp.observed import Chunk, Observed

OBJECT = Path(__file__).parents[2] / "built" / "dsr_xdp.bpf.o"
PROGRAM = "dsr_xdp"

_WORDS = Shape(ARRAY, 4, 8, layout.CHUNK_SLOTS, MMAPABLE)
_TIMES = Shape(ARRAY, 4, 4, layout.CHUNK_SLOTS, MMAPABLE)

_log = logging.getLogger(__name__)


class Dataplane:
    """Maps by name, arrays as memory. Made once a process: pinned maps are taken over, with the
    sizes they have."""

    def __init__(self, pins: Path, limits: Limits) -> None:
        """Raises IncompatibleMapError, BpfError; OSError where `pins` cannot be made."""
        _make_directory(pins)
        self.pins = pins
        self._object = Object(OBJECT, limits.sizes(), pins)
        self._pinned = dict(self._object.maps)
        try:
            self._open(limits)
        except BaseException:
            self.close()
            raise

    def _open(self, wanted: Limits) -> None:
        self.maps = self._object.maps
        held = {name: each.shape.max_entries for name, each in self.maps.items()}
        self.limits = Limits.of(held)
        if self.limits != wanted:
            _log.warning(
                "the pinned maps keep their sizes: %s instead of %s; for other sizes run "
                "`dsr-node --cleanup` on this node, which forgets the flows, and start again",
                self.limits,
                wanted,
            )
        self.program = self._object.program(PROGRAM)
        self.frontend_info = self.maps["frontend_info"].mapped(layout.FRONTEND_INFO, writable=True)
        self.pools = self.maps["pools"].mapped(layout.POOL, writable=True)
        self.backends = self.maps["backends"].mapped(layout.BACKEND, writable=True)
        self.pool_owners = self.maps["pool_owners"].mapped(layout.OWNER, writable=True)
        self.backend_owners = self.maps["backend_owners"].mapped(layout.OWNER, writable=True)
        self.chunks: list[Chunk] = []
        used = self.pools["chunk"][self.pools["size"] != 0].tolist()
        while len(self.chunks) <= max(used, default=-1):
            self.add_chunk()

    def close(self) -> None:
        """Lets go of maps and program; what is pinned stays."""
        for name in self._pinned.keys() - self._object.maps.keys():
            self._pinned[name].close()
        self._pinned.clear()
        self._object.close()

    def pin_again(self) -> None:
        """Pins what somebody has unpinned: a daemon that starts would find its tables empty, and
        connections in moved slots would break. Raises OSError."""
        lost = [name for name in self._pinned if not (self.pins / name).exists()]
        if not lost:
            return
        _log.warning("somebody has removed %s from %s; pinned again", ", ".join(lost), self.pins)
        _make_directory(self.pins)
        for name in lost:
            self._pinned[name].pin(self.pins / name)

    def add_chunk(self) -> None:
        """Room for CHUNK_SLOTS more slots. Waits for RCU, 10 ms each."""
        number = len(self.chunks)
        words = self._inner("slots", number, _WORDS, "u8")
        times = self._inner("moved_at", number, _TIMES, "u4")
        self.chunks.append(Chunk(words, times))

    def observe(self) -> Observed:
        """What is there now. Raises OSError."""
        self.pin_again()
        keys, indices = self.maps["frontends"].read_all(layout.FRONTEND_KEY, "u4")
        announced, until = self.maps["announced"].read_all(layout.ADDRESS, "u8")
        interfaces, macs = self.maps["interfaces"].read_all("u4", layout.INTERFACE)
        owned = {identity: index for index, identity, _ in self._owned(self.pool_owners)}
        whole = {identity: index for identity, index in owned.items() if self.pools[index]["size"]}
        return Observed(
            now_s=int(time.monotonic()),
            limits=self.limits,
            frontend_info=self.frontend_info,
            pools=self.pools,
            backends=self.backends,
            frontends=dict(
                zip(layout.unpack_frontends(keys.tobytes()), indices.tolist(), strict=True)
            ),
            pool_index=whole,
            cut_short=frozenset(owned.values()) - frozenset(whole.values()),
            backend_ids=self._backend_ids(),
            chunks=self.chunks,
            vips=frozenset(self.maps["vips"].read_all(layout.ADDRESS, "u4")[0].tolist()),
            peers=frozenset(
                layout.unpack_peers(self.maps["peers"].read_all(layout.PEER, "u1")[0].tobytes())
            ),
            announced=dict(zip(announced.tolist(), until.tolist(), strict=True)),
            interfaces=dict(zip(interfaces.tolist(), macs["mac"].tolist(), strict=True)),
            links=read_links(self.pins, self.program),
        )

    def _backend_ids(self) -> dict[int, dict[bytes, int]]:
        ids: dict[int, dict[bytes, int]] = {}
        for id_, identity, pool in self._owned(self.backend_owners):
            ids.setdefault(pool, {})[identity] = id_
        return ids

    @staticmethod
    def _owned(owners: np.ndarray) -> Iterable[tuple[int, bytes, int]]:
        """Index, identity and pool of what is in use."""
        halves = owners.view("u8").reshape(len(owners), -1)
        used = np.flatnonzero(halves[:, 0] | halves[:, 1])
        rows = owners[used]
        return zip(used.tolist(), rows["identity"].tolist(), rows["pool"].tolist(), strict=True)

    def _inner(self, outer: str, number: int, shape: Shape, item: str) -> Array:
        """The map of a chunk as memory; made, pinned and put into the outer map if need be."""
        name = f"{outer}_{number}"
        path = self.pins / name
        there = path.exists()
        inner = Map.open(path) if there else Map.create(name, shape)
        try:
            if not there:
                inner.pin(path)
            key = number.to_bytes(4, "little")
            if self.maps[outer].lookup(key) != inner.id.to_bytes(4, "little"):
                self.maps[outer].update(key, inner.fd.to_bytes(4, "little"))
            memory = inner.mapped(item, writable=True)
        except BaseException:
            inner.close()
            raise
        if name in self._pinned:
            self._pinned[name].close()
        self._pinned[name] = inner
        return memory


def _make_directory(pins: Path) -> None:
    try:
        pins.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot make {pins} ({error.strerror}); is a bpffs mounted there? "
            "`mount -t bpf bpf /sys/fs/bpf` does it",
        ) from error
