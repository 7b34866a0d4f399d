"""What the director costs a packet, in ns over a floor program that parses and bounces.

    python -m bench.xdp_ns

Both run in the same process by turns (BPF_PROG_TEST_RUN), on 64-byte TCP frames, with one flow and
with 65,536. Medians of the rounds.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import machine

from dsr_node.bpf.objects import Object
from dsr_node.bpf.programs import Program
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.state import TCP as TCP_PROTOCOL
from dsr_node.subsystems.xdp.state import (
    Backend,
    BackendKey,
    DirectorState,
    FrontendKey,
    Pool,
    PoolKey,
    address16,
)
from dsr_node.subsystems.xdp.subsystem import XdpSubsystem
from rich.console import Console
from rich.table import Table
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.packet.bpffs import private_bpffs

ROUNDS, REPEAT = 9, 500_000
XDP_TX = 3
LO = 1
OUR_MAC, SENDER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:99"
VIPS = {4: "192.0.2.1", 6: "2001:db8::1"}
CLIENTS = {4: "198.51.100.7", 6: "2001:db8:1::7"}
GOAL = 50.0

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    family: int
    flows: int
    moved: bool = False

    def __str__(self) -> str:
        return f"IPv{self.family}{', slots moved' if self.moved else ''}"

    def frame(self) -> bytes:
        """A segment without payload, padded."""
        ip = IP if self.family == 4 else IPv6
        packet = Ether(dst=OUR_MAC, src=SENDER_MAC) / ip(
            src=CLIENTS[self.family], dst=VIPS[self.family]
        )
        return bytes(packet / TCP(dport=80, flags="A")).ljust(64, b"\0")


def main() -> None:
    """Prints the table."""
    table = Table(title="XDP director, ns a packet (64-byte TCP, L2)")
    for column in ("packets", "flows", "floor", "director", "above floor"):
        table.add_column(column, justify="left" if column == "packets" else "right")
    for case in (Case(f, n, m) for m in (False, True) for f in (4, 6) for n in (1, 65536)):
        floor, director = measure(case)
        over = director - floor
        colour = "green" if over <= GOAL or case.moved else "red"
        table.add_row(
            str(case),
            f"{case.flows:,}",
            f"{floor:.0f}",
            f"{director:.0f}",
            f"[{colour}]{over:.0f}[/]",
        )
    table.caption = (
        f"goal: at most {GOAL:.0f} above the floor in settled slots, for 65,536 flows as for one"
    )
    Console().print(table)


def measure(case: Case) -> tuple[float, float]:
    """Floor and director, ns a packet."""
    with programs(case) as (floor, director):
        times: dict[str, list[int]] = {"floor": [], "director": []}
        for _ in range(ROUNDS):
            for name, program in (("floor", floor), ("director", director)):
                run = program.run(case.frame(), repeat=REPEAT)
                assert run.verdict == XDP_TX, f"{name} gave {run.verdict} for {case}"
                times[name].append(run.duration_ns)
    return statistics.median(times["floor"]), statistics.median(times["director"])


@contextmanager
def programs(case: Case) -> Iterator[tuple[Program, Program]]:
    """Both programs on maps that a real subsystem has filled."""
    with private_bpffs() as root, tempfile.TemporaryDirectory() as scratch:
        pins = root / "bench"
        subsystem = XdpSubsystem(pins)
        for moves in (False, True) if case.moved else (False,):
            problems = subsystem.apply(
                subsystem.diff(state(case.family, moves=moves), subsystem.read())
            )
            assert not problems, problems
        with Object(compiled(Path(scratch)), Limits().sizes(), pins) as built:
            built.maps["interfaces"].update(struct.pack("<I", LO), mac(OUR_MAC) + bytes(2))
            built.maps["variation"].update(bytes(4), struct.pack("<II", case.flows - 1, 0))
            yield built.program("floor_program"), built.program("director_program")


def state(family: int, *, moves: bool) -> DirectorState:
    """One service of ten backends; `moves`: they drain, and ten others take all slots.

    A backend's MAC is our own, and what we send is from another's, so that a frame that was sent is
    one to us again.
    """
    key = PoolKey("bench.web", family)
    weights = [0] * 10 + [1] * 10 if moves else [1] * 10
    backends = tuple(
        Backend(
            BackendKey(address16(f"{VIPS[family]}{i}")),
            weight=weight,
            ifindex=LO,
            mac=mac(OUR_MAC),
            source_mac=mac(SENDER_MAC),
        )
        for i, weight in enumerate(weights, start=1)
    )
    pool = Pool(key, seed=0x1234567890ABCDEF, size=4093, backends=backends)
    vip = address16(VIPS[family])
    return DirectorState({FrontendKey(vip, TCP_PROTOCOL, 80): key}, {key: pool}, frozenset({vip}))


def compiled(into: Path) -> Path:
    """bench/xdp_ns.bpf.c, built as node-daemon/bpf/Makefile builds the director."""
    out = into / "xdp_ns.bpf.o"
    system = f"-I/usr/include/{machine()}-linux-gnu"
    options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", system, f"-I{_ROOT}/node-daemon/bpf"]
    subprocess.run(["clang", *options, "-c", f"{_ROOT}/bench/xdp_ns.bpf.c", "-o", out], check=True)
    return out


def mac(text: str) -> bytes:
    """Six bytes."""
    return bytes.fromhex(text.replace(":", ""))


if __name__ == "__main__":
    main()
