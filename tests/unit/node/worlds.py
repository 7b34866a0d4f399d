"""Plans and facts to decide about: builders, and hypothesis strategies for random ones."""

from __future__ import annotations

from dataclasses import replace

from dsr_api.base import Metadata
from dsr_api.plan import Director, DSRPlan, DSRPlanSpec, Frontend, PlanBackend, PlanService
from dsr_node.state.types import Facts, Link, Neighbour, Network, Target
from hypothesis import strategies as st

ETH0 = Link("eth0", 2, "02:00:00:00:00:01", kind="veth", addresses=("10.0.0.1/16", "fd00::1/64"))
POD = Link("cali1234", 3, "ee:ee:ee:ee:ee:ee", kind="veth", addresses=("10.0.0.200/16",))
NETWORK = Network((ETH0, POD), default_ipv4=2, default_ipv6=2)
DIRECTORS = {
    f"lb{i}": Director(node=f"lb{i}", addresses=(f"10.0.0.{i}", f"fd00::{i}")) for i in range(1, 5)
}


def mac(number: int) -> str:
    return f"02:00:00:00:01:{number:02x}"


def plan(
    name: str = "shop.web",
    *,
    vips: tuple[str, ...] = ("10.0.9.1",),
    backends: tuple[PlanBackend, ...] = (PlanBackend(address="10.0.1.1"),),
    directors: tuple[str, ...] = ("lb1",),
    hosts: tuple[str, ...] = ("rs1",),
    ports: tuple[int, ...] = (80,),
    **spec: object,
) -> DSRPlan:
    namespace, _, service = name.partition(".")
    return DSRPlan(
        metadata=Metadata(name=name),
        spec=DSRPlanSpec(
            service=PlanService(namespace=namespace, name=service),
            vips=vips,
            frontends=tuple(
                Frontend(vip=vip, protocol="TCP", port=port) for vip in vips for port in ports
            ),
            directors=tuple(DIRECTORS[node] for node in directors),
            hosts=hosts,
            backends=backends,
            **spec,  # type: ignore[arg-type] # the tests name fields of the spec
        ),
    )


def named(*plans: DSRPlan) -> dict[str, DSRPlan]:
    return {each.metadata.name: each for each in plans}


def facts(**changes: object) -> Facts:
    """lb1 of a quiet segment: backends and directors answer, nobody has the VIPs."""
    alive = {Target(f"10.0.1.{i}", 2): Neighbour(mac(i), alive=True) for i in range(1, 20)}
    alive |= {Target(f"fd00::1:{i}", 2): Neighbour(mac(i), alive=True) for i in range(1, 20)}
    for i in range(2, 5):
        for address in (f"10.0.0.{i}", f"fd00::{i}"):
            alive[Target(address, 2)] = Neighbour(mac(100 + i), alive=True)
    answers = {f"10.0.9.{i}": "" for i in range(1, 40)} | {f"fd00::9:{i}": "" for i in range(1, 40)}
    quiet = Facts("lb1", NETWORK, neighbours=alive, answers=answers, epoch=1_700_000_000)
    return replace(quiet, **changes)  # type: ignore[arg-type] # the tests name fields of Facts


_vips = st.one_of(
    st.integers(1, 30).map(lambda i: f"10.0.9.{i}"),
    st.integers(1, 30).map(lambda i: f"fd00::9:{i}"),
)
_backends = st.builds(
    PlanBackend,
    address=st.one_of(
        st.integers(1, 15).map(lambda i: f"10.0.1.{i}"),
        st.integers(1, 15).map(lambda i: f"fd00::1:{i}"),
        st.sampled_from(["172.16.0.1", "10.0.0.1", "2001:db8::1"]),
    ),
    weight=st.integers(0, 3),
    node_uid=st.sampled_from(["", "u1"]),
)
_nodes = st.lists(st.sampled_from(sorted(DIRECTORS)), unique=True, max_size=4)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, DSRPlan]:
    """Up to six plans, good and bad ones, of which some do not concern lb1."""
    found = []
    for number in range(draw(st.integers(0, 6))):
        vips = draw(st.lists(_vips, unique=True, min_size=1, max_size=3))
        vips += draw(st.sampled_from([[], [], [], ["not an address"], ["10.0.0.1"], ["192.0.2.1"]]))
        found.append(
            plan(
                f"ns.s{number}",
                vips=tuple(vips),
                backends=tuple(draw(st.lists(_backends, max_size=5))),
                directors=tuple(sorted(draw(_nodes))),
                hosts=tuple(draw(_nodes)),
                ports=draw(st.sampled_from([(), (80,), (80, 443)])),
                announcement=draw(st.sampled_from(["L2", "None"])),
                table_version=draw(st.sampled_from([1, 1, 1, 2])),
            )
        )
    return named(*found)


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """lb1 with silent neighbours, stale peers, VIPs not yet asked for or held by others."""
    quiet = facts()
    neighbours = dict(quiet.neighbours)
    for target in draw(st.lists(st.sampled_from(sorted(neighbours, key=str)), max_size=12)):
        neighbours[target] = draw(
            st.sampled_from(
                [Neighbour(), Neighbour(mac(77), alive=False), Neighbour(mac(78), True)]
            )
        )
    answers = dict(quiet.answers)
    for vip in draw(st.lists(st.sampled_from(sorted(answers)), max_size=12)):
        answer = draw(st.sampled_from([None, mac(102), mac(3), "0a:00:00:00:00:99"]))
        if answer is None:
            answers.pop(vip, None)
        else:
            answers[vip] = answer
    return replace(
        quiet,
        neighbours=neighbours,
        answers=answers,
        stale_peers=frozenset(draw(st.sets(st.sampled_from(["lb2", "lb3", "lb4"])))),
        xdp_errors=draw(st.sampled_from([{}, {}, {"eth0": "NotOurs: another program"}])),
        lease_until=draw(st.sampled_from([10**9, 2 * 10**9])),
    )
