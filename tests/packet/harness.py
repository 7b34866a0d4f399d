"""A director in a bpffs of its own, with words, flows and leases set by hand, and frames run
through it by BPF_PROG_TEST_RUN. Times can be shifted, for the program reads the real clock (they
wrap below zero on a machine that has just booted, and the program does not mind)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dsr_node.bpf.programs import Run
from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.dataplane import Dataplane
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.state import FOREVER, FrontendKey, Peer
from dsr_node.subsystems.xdp.sweep import sweep
from dsr_node.table.word import backend_id, generation, unpack

from tests.packet.oracle import Backend, Scene

LO = 1
_PAST_BOOT = 1_000_000
SMALL = Limits(frontends=64, pools=8, backends=64, flows=64, vips=64, peers=64)
SEED = 0xFEEDFACE12345678


@dataclass(frozen=True)
class Slot:
    """A slot's word in parts, and how many seconds ago it moved."""

    current: int = 0
    settled: int = 0
    moved: bool = False
    moved_ago: int = 0

    def word(self) -> int:
        return self.current | self.settled << 32 | self.moved << 63


class Harness:
    """One pool (index 0) with the table at the start of chunk 0."""

    def __init__(self, pins: Path, limits: Limits = SMALL) -> None:
        self.dataplane = Dataplane(pins, limits)
        self.dataplane.add_chunk()
        self.maps = self.dataplane.maps
        self._drops = self.drops()

    def close(self) -> None:
        self.dataplane.close()

    def set_scene(self, scene: Scene) -> None:
        """Everything but the table and the flows."""
        self.maps["interfaces"].update(_u32(LO), scene.mac + bytes(2))
        for index, (vip, protocol, port) in enumerate(sorted(scene.frontends)):
            key = FrontendKey(vip, protocol, port)
            self.maps["frontends"].update(layout.pack_frontend(key), _u32(index))
            flags = layout.FRONTEND_HOST * scene.host
            self.dataplane.frontend_info[index] = (0, flags)
        for vip in scene.vips:
            self.maps["vips"].update(vip, _u32(1))
        for vip, seconds in scene.announced.items():
            until = FOREVER if seconds is None else time.monotonic_ns() + seconds * 10**9
            self.maps["announced"].update(vip, until.to_bytes(8, "little"))
        for mac, address in scene.peers:
            self.maps["peers"].update(layout.pack_peer(Peer(mac, address)), b"\1")
            self.maps["peers"].update(layout.pack_peer(Peer(mac, bytes(16))), b"\1")
        self.set_backends(scene.backends)

    def set_backends(self, backends: Mapping[int, Backend]) -> None:
        """By handle. Another generation of an id replaces the one before."""
        for handle, backend in backends.items():
            flags = (
                layout.BACKEND_LOCAL * backend.local
                | layout.BACKEND_DOWN * backend.down
                | layout.BACKEND_DRAINING * backend.draining
            )
            self.dataplane.backends[backend_id(handle)] = (
                generation(handle),
                backend.ifindex,
                backend.mac,
                flags,
                backend.source_mac,
                0,
            )

    def set_table(self, slots: Sequence[Slot], tcp_idle: int = 900, udp_idle: int = 120) -> None:
        chunk, now = self.dataplane.chunks[0], int(time.monotonic())
        for index, slot in enumerate(slots):
            chunk.words[index] = slot.word()
            chunk.moved_at[index] = (now - slot.moved_ago) % 2**32
        self.dataplane.pools[0] = (SEED, 0, 0, len(slots), tcp_idle, udp_idle, 0)

    def run(self, frame: bytes) -> Run:
        return self.dataplane.program.run(frame, ingress_ifindex=LO)

    def drops(self) -> Counter[str]:
        """By reason, since ever; `flows_full` among them."""
        counts = self.maps["drops"].read_percpu("u8").sum(axis=1).tolist()
        names = {**layout.DROP_REASONS, layout.FLOWS_FULL: "flows_full"}
        return Counter({names[reason]: count for reason, count in enumerate(counts) if count})

    def new_drops(self) -> Counter[str]:
        """Since last asked."""
        now = self.drops()
        new, self._drops = now - self._drops, now
        return new

    def traffic(self, name: str, index: int) -> tuple[int, int]:
        """Packets and bytes of a frontend or backend (`frontend_stats`, `backend_stats`)."""
        values = self.maps[name].read_percpu(layout.STATS)[index]
        return int(values["packets"].sum()), int(values["bytes"].sum())

    def flows(self) -> dict[bytes, Any]:
        keys, entries = self.maps["flows"].read_all("V40", layout.FLOW_ENTRY)
        return dict(zip(keys.tolist(), entries, strict=True))

    def forget(self, flows: Iterable[bytes]) -> None:
        for flow in flows:
            self.maps["flows"].delete(flow)

    def sweep(self) -> None:
        """A sweep of the daemon's, which unlike the program minds times below zero."""
        self.age(-_PAST_BOOT)
        sweep(self.dataplane, int(time.monotonic()) + _PAST_BOOT)
        self.age(_PAST_BOOT)

    def slots(self) -> list[tuple[int, int, bool]]:
        """Current, settled, moved."""
        size = int(self.dataplane.pools[0]["size"])
        parts = unpack(self.dataplane.chunks[0].words[:size])
        return [
            (current, settled, moved)
            for current, settled, moved in zip(*(part.tolist() for part in parts), strict=True)
        ]

    def age(self, seconds: int) -> None:
        """Makes everything that has a time that much older."""
        chunk, size = self.dataplane.chunks[0], int(self.dataplane.pools[0]["size"])
        step = np.uint32(seconds % 2**32)
        chunk.moved_at[:size] -= step
        keys, entries = self.maps["flows"].read_all("V40", layout.FLOW_ENTRY)
        entries["last_seen_s"] -= step
        self.maps["flows"].update_many(keys, entries)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
