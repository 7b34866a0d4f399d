"""read() -> diff() -> apply() on real maps: what is desired is what packets meet."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from dsr_node.bpf.libbpf import BpfError
from dsr_node.bpf.maps import HASH, Map, Shape
from dsr_node.bpf.objects import IncompatibleMapError
from dsr_node.subsystems.xdp import layout
from dsr_node.subsystems.xdp.changes import Changes
from dsr_node.subsystems.xdp.identity import backend_identity, pool_identity
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.subsystems.xdp.observed import Observed
from dsr_node.subsystems.xdp.state import (
    FOREVER,
    TCP,
    UDP,
    Backend,
    BackendKey,
    DirectorState,
    FrontendKey,
    Peer,
    Pool,
    PoolKey,
    PreviousBackend,
    address16,
)
from dsr_node.subsystems.xdp.subsystem import XdpSubsystem
from dsr_node.table.maglev import wanted
from dsr_node.table.word import handle, unpack

from tests.packet.bpffs import private_bpffs
from tests.packet.frames import MAC, segment
from tests.packet.harness import LO
from tests.packet.oracle import DROP, PASS, TX

LIMITS = Limits(frontends=16, pools=4, backends=16, flows=64, vips=16, peers=16)
SIZE = 251
WEB, DNS = PoolKey("shop.web", 4), PoolKey("infra.dns", 6)
OUR_MAC = bytes.fromhex(MAC.replace(":", ""))
VIP4, VIP6 = address16("192.0.2.10"), address16("2001:db8::10")


def backend(number: int, *, weight: int = 1, failed: bool = False, uid: str = "") -> Backend:
    return Backend(
        BackendKey(address16(f"192.0.2.{100 + number}"), uid or f"uid-{number}"),
        weight=weight,
        ifindex=LO,
        mac=bytes([2, 0, 0, 0, 1, number]),
        source_mac=OUR_MAC,
        failed=failed,
    )


def pool(key: PoolKey, *backends: Backend, **fields: object) -> Pool:
    return replace(Pool(key, seed=99, size=SIZE, backends=backends), **fields)  # type: ignore[arg-type]  # any field


def state(*pools: Pool) -> DirectorState:
    """WEB serves VIP4 80/TCP, any other pool VIP6 53/UDP and TCP."""
    frontends = {FrontendKey(VIP4, TCP, 80): WEB}
    frontends |= {FrontendKey(VIP6, protocol, 80): DNS for protocol in (TCP, UDP)}
    held = {each.key: each for each in pools}
    return DirectorState(
        frontends={key: of for key, of in frontends.items() if of in held},
        pools=held,
        vips=frozenset({VIP4, VIP6}),
        peers=frozenset({Peer(bytes([2, 0, 0, 0, 0, 3]), address16("192.0.2.3"))}),
        announced={VIP4: FOREVER, VIP6: 10**18},
        attachments=(),
    )


THREE = tuple(backend(number) for number in (1, 2, 3))
BASE = state(pool(WEB, *THREE), pool(DNS, backend(1), backend(2)))


class Node:
    """A daemon's subsystem, and a look at what packets meet."""

    def __init__(self, pins: Path, limits: Limits = LIMITS) -> None:
        self.pins = pins
        self.xdp = XdpSubsystem(pins, limits)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.xdp.close()

    def hold(self, desired: DirectorState) -> Changes:
        changes = self.xdp.diff(desired, self.xdp.read())
        problems = self.xdp.apply(changes)
        assert list(problems) == changes.problems
        return changes

    def restarted(self) -> Node:
        return Node(self.pins)

    def observed(self) -> Observed:
        return self.xdp.read()

    def words(self, of: Pool) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        seen = self.observed()
        row = seen.pools[seen.pool_index[pool_identity(of)]]
        first = int(row["offset"])
        return seen.chunks[int(row["chunk"])].words[first : first + int(row["size"])].copy()

    def handles(self, of: Pool) -> list[int]:
        seen = self.observed()
        ids = seen.backend_ids[seen.pool_index[pool_identity(of)]]
        return [
            handle(int(seen.backends[id_]["generation"]), id_)
            for each in of.backends
            for id_ in [ids[backend_identity(each.key)]]
        ]

    def send(self, frame: bytes) -> tuple[int, bytes]:
        """Verdict and destination MAC of a frame that comes in as if attached to lo."""
        assert self.xdp._dataplane is not None
        interfaces = self.xdp._dataplane.maps["interfaces"]
        interfaces.update(LO.to_bytes(4, "little"), OUR_MAC + bytes(2))
        run = self.xdp._dataplane.program.run(frame, ingress_ifindex=LO)
        return run.verdict, run.frame[:6]


@pytest.fixture
def bpffs() -> Iterator[Path]:
    with private_bpffs() as root:
        yield root


@pytest.fixture
def node(bpffs: Path) -> Iterator[Node]:
    with Node(bpffs / "dsr") as node:
        yield node


def wanted_handles(node: Node, of: Pool) -> list[int]:
    table = wanted(
        [bytes(each.key) for each in of.backends],
        [each.weight for each in of.backends],
        [number for number, each in enumerate(of.backends) if each.failed],
        of.seed,
        of.size,
    )
    known = [*node.handles(of), 0]
    return [known[number] for number in table.tolist()]


def test_a_node_that_directs_nothing_makes_nothing(node: Node) -> None:
    assert not node.hold(DirectorState())
    assert node.xdp.modes() == {}
    assert node.xdp.sweep(time.monotonic()).flows == 0
    node.xdp.remove_all()
    assert not node.pins.exists()


def test_tables_hold_what_the_plan_wants_and_are_settled(node: Node) -> None:
    node.hold(BASE)
    for of in BASE.pools.values():
        current, settled, moved = unpack(node.words(of))
        assert current.tolist() == settled.tolist() == wanted_handles(node, of)
        assert not moved.any()


def test_holding_it_again_changes_nothing_also_after_a_restart(node: Node) -> None:
    node.hold(BASE)
    before = {key: node.words(of).tolist() for key, of in BASE.pools.items()}
    assert not node.hold(BASE)
    with node.restarted() as again:
        assert not again.hold(BASE)
        assert {key: again.words(of).tolist() for key, of in BASE.pools.items()} == before


def test_a_failed_backend_loses_exactly_its_slots(node: Node) -> None:
    node.hold(BASE)
    before = unpack(node.words(BASE.pools[WEB])).current
    failing = pool(WEB, backend(1), backend(2, failed=True), backend(3))
    node.hold(state(failing, BASE.pools[DNS]))
    current, settled, moved = unpack(node.words(failing))
    lost = before == node.handles(failing)[1]
    assert lost.any()
    assert moved.tolist() == lost.tolist()
    assert (current[~lost] == before[~lost]).all()
    assert (settled == current).all(), "what was settled on the dead one takes current"
    assert not node.hold(state(failing, BASE.pools[DNS]))


def test_a_draining_backend_keeps_its_flows(node: Node) -> None:
    node.hold(BASE)
    draining = pool(WEB, backend(1), backend(2, weight=0), backend(3))
    node.hold(state(draining))
    handles = node.handles(draining)
    current, settled, moved = unpack(node.words(draining))
    assert handles[1] not in current
    assert (settled[moved] != current[moved]).all()
    assert handles[1] in settled[moved]


def test_what_is_settled_on_a_backend_that_fails_takes_current(node: Node) -> None:
    node.hold(BASE)
    draining = (backend(1), backend(2, weight=0), backend(3))
    node.hold(state(pool(WEB, *draining)))
    before = unpack(node.words(BASE.pools[WEB]))
    failed = pool(WEB, backend(1), backend(2, weight=0, failed=True), backend(3))
    assert node.hold(state(failed))
    current, settled, moved = unpack(node.words(failed))
    assert (current == before.current).all(), "nobody wants another backend"
    lost = before.settled == node.handles(failed)[1]
    assert lost.any()
    assert (settled == np.where(lost, current, before.settled)).all()
    assert (moved == before.moved).all(), "the memory may know other backends"


def test_a_backend_that_left_is_of_the_past_and_its_id_comes_back_last(node: Node) -> None:
    node.hold(BASE)
    left = node.handles(BASE.pools[WEB])[0]
    less = state(pool(WEB, *THREE[1:]), BASE.pools[DNS])
    node.hold(less)
    assert left not in unpack(node.words(less.pools[WEB])).current
    back = node.hold(BASE)
    again = node.handles(BASE.pools[WEB])[0]
    assert again != left
    assert len(back.backends_in) == 1
    used = {again & 0xFFFFF}
    for number in range(20):  # as many ids as there are, and more
        machine = backend(1, uid=f"machine-{number}")
        one = pool(WEB, machine, *THREE[1:])
        node.hold(state(one, BASE.pools[DNS]))
        used.add(node.handles(one)[0] & 0xFFFFF)
    assert len(used) == LIMITS.backends - 1 - 4, "all but id 0 and those of the others"


def test_a_new_machine_on_an_old_address_is_another_backend(node: Node) -> None:
    node.hold(BASE)
    old = node.handles(BASE.pools[WEB])
    replaced = pool(WEB, backend(1, uid="another"), *THREE[1:])
    node.hold(state(replaced, BASE.pools[DNS]))
    assert node.handles(replaced)[0] != old[0]
    assert node.handles(replaced)[1:] == old[1:]


def test_without_pins_a_node_starts_from_what_was_settled_before(node: Node) -> None:
    previous = tuple(PreviousBackend(each.key, 1) for each in (*THREE, backend(9)))
    now = int(time.monotonic())
    young = pool(WEB, *THREE, backend(4), previous=previous, moved_at=now)
    node.hold(state(young))
    current, settled, moved = unpack(node.words(young))
    before = wanted([bytes(each.key) for each in previous], [1] * 4, [], 99, SIZE)
    handles = [*node.handles(young)[:3], 0]
    expected = [handles[number] for number in before.tolist()]
    assert current.tolist() == wanted_handles(node, young)
    assert settled.tolist() == [
        was or now_ for was, now_ in zip(expected, current.tolist(), strict=True)
    ]
    assert moved.tolist() == [was != now_ for was, now_ in zip(expected, current, strict=True)]


def test_what_moved_long_ago_is_settled_without_pins(node: Node) -> None:
    previous = (PreviousBackend(backend(9).key, 1),)
    long_ago = int(time.monotonic()) - 901
    node.hold(state(pool(WEB, *THREE, previous=previous, moved_at=long_ago)))
    assert not unpack(node.words(BASE.pools[WEB])).moved.any()


def test_another_seed_is_another_table(node: Node) -> None:
    node.hold(BASE)
    other = replace(BASE.pools[WEB], seed=100)
    changes = node.hold(state(other, BASE.pools[DNS]))
    assert len(changes.pools_out) == 1
    assert len(changes.frontends_in) == 1
    assert not changes.frontends_in[0].new, "the frontend keeps its index"
    assert not unpack(node.words(other)).moved.any()
    assert not node.hold(state(other, BASE.pools[DNS]))


def test_nothing_desired_leaves_empty_maps(node: Node) -> None:
    node.hold(BASE)
    node.hold(DirectorState())
    seen = node.observed()
    for held in (seen.frontends, seen.pool_index, seen.backend_ids, seen.vips, seen.peers):
        assert not held
    assert not seen.announced
    assert not node.hold(DirectorState())


def changed_mac(of: DirectorState) -> DirectorState:
    moved = replace(THREE[0], mac=bytes([2, 0, 0, 0, 9, 9]))
    return state(pool(WEB, moved, *THREE[1:]), of.pools[DNS])


@pytest.mark.parametrize(
    "change",
    [
        changed_mac,
        lambda of: state(replace(of.pools[WEB], host=True), of.pools[DNS]),
        lambda of: state(replace(of.pools[WEB], tcp_idle_s=60), of.pools[DNS]),
        lambda of: replace(of, vips=frozenset({VIP4})),
        lambda of: replace(of, peers=frozenset()),
        lambda of: replace(of, announced={VIP4: 5}),
        lambda of: replace(of, frontends={}),
    ],
    ids=["mac", "host", "idle", "vips", "peers", "announced", "frontends"],
)
def test_any_change_is_made_once(
    node: Node, change: Callable[[DirectorState], DirectorState]
) -> None:
    node.hold(BASE)
    desired = change(BASE)
    assert node.hold(desired)
    assert not node.hold(desired)
    with node.restarted() as again:
        assert not again.hold(desired)
    assert node.hold(BASE)


def test_drift_in_the_maps_is_repaired(node: Node) -> None:
    node.hold(BASE)
    seen = node.observed()
    seen.backends[1]["mac"] = bytes(6)
    seen.chunks[0].words[7] = 0
    seen.frontend_info[0] = (3, 0)
    assert node.hold(BASE)
    assert not node.hold(BASE)
    assert unpack(node.words(BASE.pools[WEB])).current.tolist() == wanted_handles(
        node, BASE.pools[WEB]
    )


def test_what_does_not_fit_is_that_plans_problem_alone(node: Node) -> None:
    crowd = tuple(backend(number) for number in range(20, 40))
    desired = state(pool(DNS, *crowd), pool(WEB, *THREE))
    changes = node.hold(desired)
    assert [(each.plan, each.reason) for each in changes.problems] == [("infra.dns", "NoRoom")]
    assert set(node.observed().frontends) == {FrontendKey(VIP4, TCP, 80)}
    bad = state(pool(DNS, backend(1), backend(1)), pool(WEB, *THREE))
    assert [each.reason for each in node.hold(bad).problems] == ["NoTable"]


def held(node: Node, desired: DirectorState) -> Changes:
    """As the kernel's pass does it: until nothing waits for what leaves."""
    while (changes := node.hold(desired)).makes_room:
        assert changes
    return changes


def test_a_plan_that_grows_too_large_leaves_out_those_who_do_not_fit(node: Node) -> None:
    node.hold(BASE)
    crowd = pool(DNS, *(backend(number) for number in range(20, 40)))
    desired = state(pool(WEB, *THREE), crowd)
    changes = held(node, desired)
    (problem,) = changes.problems
    assert problem.plan == "infra.dns"
    assert "8 backends are left out" in problem.message
    assert "--max-backends" in problem.message
    assert not node.hold(desired)
    for _ in range(3):
        assert node.xdp.hold(desired) == ((problem,), False)
    fitting = replace(crowd, backends=crowd.backends[:12])
    assert unpack(node.words(fitting)).current.tolist() == wanted_handles(node, fitting)


def test_in_a_full_map_backends_fail_and_leave_as_ever(bpffs: Path) -> None:
    with Node(bpffs / "dsr", replace(LIMITS, backends=4)) as node:
        node.hold(state(pool(WEB, *THREE)))
        failed = replace(backend(1), failed=True)
        new = pool(WEB, failed, backend(2), backend(4))
        desired = replace(state(new), announced={VIP4: FOREVER, address16("192.0.2.11"): 5})
        first = node.hold(desired)
        assert first.makes_room
        less = pool(WEB, failed, backend(2))
        assert unpack(node.words(less)).current.tolist() == wanted_handles(node, less)
        assert node.observed().announced == {VIP4: FOREVER}
        assert not node.hold(desired).problems
        assert not node.hold(desired)
        assert unpack(node.words(new)).current.tolist() == wanted_handles(node, new)
        assert node.observed().announced == desired.announced


def test_packets_are_forwarded_and_counted(node: Node) -> None:
    desired = state(pool(WEB, *THREE))
    node.hold(desired)
    macs = {each.mac for each in THREE}
    for port in range(50):
        verdict, mac = node.send(segment(4, sport=1000 + port))
        assert verdict == TX
        assert mac in macs
    assert node.send(segment(6))[0] == PASS
    stats = node.xdp.stats(desired)
    assert stats.frontends[FrontendKey(VIP4, TCP, 80)].packets == 50
    by_backend = [stats.backends[WEB, each.key].packets for each in THREE]
    assert sum(by_backend) == 50
    assert all(by_backend)
    node.hold(state(pool(WEB, *(replace(each, failed=True) for each in THREE))))
    assert node.send(segment(4))[0] == DROP
    assert node.xdp.stats(desired).drops["no_backend"] == 1


def test_a_reused_index_starts_counting_anew(bpffs: Path) -> None:
    desired = state(pool(WEB, *THREE))
    with Node(bpffs / "dsr", replace(LIMITS, frontends=1, backends=4)) as node:
        node.hold(desired)
        for port in range(50):
            node.send(segment(4, sport=1000 + port))
        for expected in (50, 0):
            stats = node.xdp.stats(desired)
            assert sum(each.packets for each in stats.frontends.values()) == expected
            assert sum(each.packets for each in stats.backends.values()) == expected
            node.hold(DirectorState())
            node.hold(desired)


def test_leases_are_renewed_alone(node: Node) -> None:
    node.hold(BASE)
    node.xdp.renew({VIP4: 77})
    assert node.observed().announced == {VIP4: 77, VIP6: 10**18}


def test_who_yields_a_vip_has_repaired_nothing(node: Node) -> None:
    node.hold(BASE)
    _, changed = node.xdp.hold(replace(BASE, announced={VIP4: FOREVER}))
    assert not changed
    assert node.observed().announced == {VIP4: FOREVER}
    _, changed = node.xdp.hold(replace(BASE, vips=frozenset({VIP4})))
    assert changed


@pytest.mark.parametrize("factor", [2, 0.5])
def test_pinned_maps_keep_their_sizes_and_it_is_told(
    node: Node, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    node.hold(BASE)
    other = {each.name: int(getattr(LIMITS, each.name) * factor) for each in fields(LIMITS)}
    with Node(node.pins, Limits(**other)) as again:
        assert not again.hold(BASE)
        assert again.observed().limits == LIMITS
        assert "keep their sizes" in caplog.text
        assert "--cleanup" in caplog.text
        again.xdp.remove_all()
        again.hold(BASE)
        assert again.observed().limits == Limits(**other)


def test_a_pinned_map_of_another_version_is_an_error_that_helps(node: Node) -> None:
    node.pins.mkdir()
    in_the_way(node.pins / "flows")
    with pytest.raises(IncompatibleMapError, match=r"flows.*--cleanup"):
        node.observed()
    node.xdp.remove_all()
    assert not node.pins.exists()


def test_a_table_may_lie_in_another_chunk(node: Node) -> None:
    large = [pool(PoolKey(f"big.n{n}", 4), backend(n), size=524287) for n in range(3)]
    desired = DirectorState(pools={each.key: each for each in large})
    assert node.xdp.hold(desired) == ((), True)  # in parts, where filling it takes long
    assert len(node.observed().chunks) == 2
    with node.restarted() as again:
        assert again.xdp.hold(desired) == ((), False)
    for each in large:
        assert set(node.words(each).tolist()) == {node.handles(each)[0] * (1 + 2**32)}


def test_what_is_remembered_for_an_earlier_pool_of_an_index_is_forgotten(node: Node) -> None:
    node.hold(state(pool(WEB, *THREE, size=251), pool(DNS, backend(1))))
    node.hold(state(pool(WEB, backend(1, weight=0), *THREE[1:]), pool(DNS, backend(1))))
    seen, (mine, _, _) = node.observed(), node.handles(BASE.pools[WEB])
    index = seen.pool_index[pool_identity(BASE.pools[WEB])]
    other = seen.pool_index[pool_identity(pool(DNS, backend(1)))]
    now = int(time.monotonic())
    kept, beyond, foreign = (mine, index, 3, now, 0), (mine, index, 251, now, 0), (mine, other, 3)
    entries = np.array([kept, beyond, (*foreign, now, 0)], layout.FLOW_ENTRY)
    keys = np.zeros(3, layout.FLOW)
    keys["source_port"], keys["protocol"] = [1, 2, 3], TCP
    assert node.xdp._dataplane is not None
    node.xdp._dataplane.maps["flows"].update_many(keys, entries)
    swept = node.xdp.sweep(now)
    assert (swept.flows, swept.forgotten) == (1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1 << 64},
        {"seed": -1},
        {"size": 1 << 40},
        {"size": -61},
        {"tcp_idle_s": 1 << 32},
        {"udp_idle_s": -1},
        {"backends": (backend(1, weight=65536),)},
    ],
)
def test_an_impossible_value_is_its_plans_problem_alone(
    node: Node, fields: dict[str, object]
) -> None:
    desired = state(pool(DNS, backend(1), **fields), pool(WEB, *THREE))
    changes = node.hold(desired)
    assert [(each.plan, each.reason) for each in changes.problems] == [("infra.dns", "NoTable")]
    assert node.send(segment(4))[0] == TX
    assert node.xdp.stats(desired).frontends.keys() == {FrontendKey(VIP4, TCP, 80)}


def test_an_impossible_port_is_its_plans_problem_alone(node: Node) -> None:
    beyond = {FrontendKey(VIP6, TCP, 65536): DNS, FrontendKey(VIP6, TCP, -1): DNS}
    changes = node.hold(replace(BASE, frontends={**beyond, **BASE.frontends}))
    assert [(each.plan, each.reason) for each in changes.problems] == [("infra.dns", "NoTable")] * 2
    assert set(node.observed().frontends) == BASE.frontends.keys()


def in_the_way(path: Path) -> None:
    """A map of another kind, pinned where a chunk of tables should be."""
    other = Map.create("other", Shape(HASH, 4, 4, 1, 0))
    other.pin(path)
    other.close()


def test_a_table_that_cannot_be_written_is_its_plans_problem_alone(node: Node) -> None:
    """Its frontend keeps the pool it has; all others get theirs."""
    node.hold(state(pool(WEB, *THREE)))
    before = node.handles(BASE.pools[WEB])
    in_the_way(node.pins / "slots_1")
    first = pool(PoolKey("big.one", 4), backend(4), size=524287)
    small = pool(DNS, backend(6), size=61)
    wide = state(pool(WEB, *THREE[1:], size=524309), small)
    desired = replace(wide, pools={first.key: first, **wide.pools})
    problems = node.xdp.apply(node.xdp.diff(desired, node.xdp.read()))
    assert [(each.plan, each.reason) for each in problems] == [("shop.web", "NoRoom")]
    assert node.handles(small)
    assert node.send(segment(4))[0] == TX
    assert node.handles(BASE.pools[WEB]) == before
    (node.pins / "slots_1").unlink()
    assert node.hold(desired)
    assert not node.hold(desired)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_maps_that_cannot_be_opened_leave_no_descriptors(node: Node) -> None:
    node.hold(BASE)
    (node.pins / "moved_at_0").unlink()
    in_the_way(node.pins / "moved_at_0")
    with node.restarted() as again:
        counts = []
        for _ in range(3):
            with pytest.raises(BpfError):
                again.observed()
            counts.append(descriptors())
        assert len(set(counts)) == 1


def unpin(node: Node, pattern: str) -> None:
    for path in list(node.pins.glob(pattern)):
        path.unlink()


@pytest.mark.parametrize("pattern", ["*", "slots_0", "flows"])
def test_pins_that_somebody_removes_come_back(
    node: Node, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.hold(BASE)
    before = {path.name for path in node.pins.iterdir()}
    words = node.words(BASE.pools[WEB]).tolist()
    unpin(node, pattern)
    if pattern == "*":
        node.pins.rmdir()
    assert not node.hold(BASE)
    assert "somebody has removed" in caplog.text
    assert {path.name for path in node.pins.iterdir()} == before
    with node.restarted() as again:
        assert not again.hold(BASE)
        assert again.words(BASE.pools[WEB]).tolist() == words


@pytest.mark.parametrize("pattern", ["slots_0", "moved_at_0", "*_0"])
def test_a_daemon_that_starts_without_some_pins_makes_these_anew(node: Node, pattern: str) -> None:
    node.hold(BASE)
    unpin(node, pattern)
    with node.restarted() as again:
        again.observed()
        again.xdp.sweep(time.monotonic())
        again.hold(BASE)
        assert not again.hold(BASE)
        for of in BASE.pools.values():
            assert unpack(again.words(of)).current.tolist() == wanted_handles(again, of)
