"""Who may use which VIP and which frontend."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from dsr_api.base import LabelSelector, Metadata
from dsr_api.plan import Frontend
from dsr_api.pool import DSRAddressPool, DSRAddressPoolSpec
from dsr_api.service import Port
from dsr_operator.compile.claims import Claimant, Register, claimant
from dsr_operator.compile.inputs import Standing
from dsr_operator.compile.pools import grantable, parse_pool, unfit
from dsr_operator.compile.verdict import judge
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.model import service


def pool(*addresses: str, selector: LabelSelector | None = None) -> DSRAddressPool:
    spec = DSRAddressPoolSpec(addresses=addresses)
    if selector is not None:
        spec = msgspec.structs.replace(spec, namespace_selector=selector)
    return DSRAddressPool(metadata=Metadata(name="public"), spec=spec)


@pytest.mark.parametrize(
    "vip",
    [
        "224.0.0.1",
        "ff02::1",
        "127.0.0.1",
        "::1",
        "0.0.0.0",  # noqa: S104 - no binding here
        "::",
        "169.254.0.1",
        "fe80::1",
        "255.255.255.255",
        "::ffff:192.0.2.1",
        "2001:DB8::1",
        "2001:db8:0:0::1",
        "fe80::1%eth0",
        "192.0.2.01",
        "192.0.2.1/32",
        "example.org",
        "",
    ],
)
def test_what_cannot_be_a_vip(vip: str) -> None:
    assert unfit(vip)
    assert not grantable(vip, {}, [parse_pool(pool("0.0.0.0/0", "::/0"))])


@pytest.mark.parametrize("vip", ["192.0.2.1", "10.0.0.0", "2001:db8::1", "fd00::1"])
def test_what_can(vip: str) -> None:
    assert unfit(vip) is None


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("192.0.2.0/28", ("192.0.2.0", "192.0.2.15"), ("192.0.2.16", "192.0.1.255")),
        ("192.0.2.10-192.0.2.12", ("192.0.2.10", "192.0.2.12"), ("192.0.2.9", "192.0.2.13")),
        ("2001:db8::/64", ("2001:db8::1",), ("2001:db8:0:1::1", "192.0.2.1")),
        ("192.0.2.7/32", ("192.0.2.7",), ("192.0.2.8", "::c000:207")),
    ],
)
def test_pools_hold_what_they_say(
    entry: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    pools = [parse_pool(pool(entry))]
    assert all(grantable(vip, {}, pools) for vip in inside)
    assert not any(grantable(vip, {}, pools) for vip in outside)


@pytest.mark.parametrize(
    "entry", ["192.0.2.0/33", "192.0.2.9-192.0.2.1", "192.0.2.1-::1", "some", "-", "1.2.3.4-"]
)
def test_a_pool_entry_that_is_nothing_is_named_and_the_others_count(entry: str) -> None:
    parsed = parse_pool(pool("192.0.2.7/32", entry))
    assert len(parsed.ignored) == 1
    assert repr(entry) in parsed.ignored[0]
    assert grantable("192.0.2.7", {}, [parsed])
    assert not grantable("192.0.2.5", {}, [parsed])


def test_a_pool_admits_by_the_labels_of_the_namespace() -> None:
    pools = [parse_pool(pool("192.0.2.0/24", selector=LabelSelector(match_labels={"a": "b"})))]
    assert grantable("192.0.2.1", {"a": "b"}, pools)
    assert not grantable("192.0.2.1", {"a": "c"}, pools)


def claimants(*asked: Claimant) -> Register:
    return Register(lambda vip: (c for c in asked if vip in c.vips), lambda _v, _n: True, {})


def aged(created: str, namespace: str, name: str) -> Claimant:
    meta = Metadata(name=name, namespace=namespace, uid=name, creation_timestamp=created)
    return claimant(msgspec.structs.replace(service(), metadata=meta), None, None)


days = st.sampled_from(("2025-01-01T00:00:00Z", "2025-01-01T00:00:01Z", "2024-12-31T23:59:59Z"))
keys = st.tuples(days, st.sampled_from("ab"), st.sampled_from("xyz"))


@given(st.sets(keys, min_size=1, max_size=4))
def test_ownership_is_total_and_does_not_depend_on_the_order(asked: set[tuple[str, ...]]) -> None:
    everybody = [aged(*key) for key in asked]
    winners = {
        claimants(*order).entitled("192.0.2.1")[0].claim
        for order in itertools.permutations(everybody)
    }
    assert winners == {min(c.claim for c in everybody)}
    unbeaten = [c for c in everybody if free(claimants(*everybody).standing(c))]
    assert [c.claim for c in unbeaten] == [*winners]


def free(standing: Standing) -> bool:
    return not standing.rivals and not standing.conflicts


def test_ties_go_by_namespace_and_name() -> None:
    day = "2025-01-01T00:00:00Z"
    first, second = aged(day, "a", "y"), aged(day, "a", "z")
    register = claimants(aged(day, "b", "a"), second, first)
    assert register.entitled("192.0.2.1")[0] is first
    assert set(register.standing(second).rivals.values()) == {"a/y"}


def test_pools_are_asked_once_for_each_vip_however_many_ports_there_are() -> None:
    vips = tuple(f"192.0.2.{n}" for n in range(16))
    ports = tuple(Port(port=n) for n in range(1, 65))
    who = claimant(service(vips=vips, ports=ports), None, None)
    asked: list[str] = []

    def grants(vip: str, _: str) -> bool:
        asked.append(vip)
        return True

    assert len(who.frontends) == 1024
    assert free(Register(lambda _: [who], grants, {}).standing(who))
    assert sorted(asked) == sorted(vips)


def test_what_is_refused_is_left_out_and_the_rest_is_granted() -> None:
    ports = (Port(port=80), Port(port=443))
    asked = service(vips=("192.0.2.1", "192.0.2.2", "192.0.2.3", "127.0.0.1"), ports=ports)
    lost = Frontend(vip="192.0.2.1", protocol="TCP", port=80)
    standing = Standing(outside={"192.0.2.2"}, rivals={lost: "shop/older"})
    verdict = judge(asked, standing, {"192.0.2.3": "gateway"})
    assert verdict.vips == ("192.0.2.1",)
    assert verdict.frontends == (Frontend(vip="192.0.2.1", protocol="TCP", port=443),)
    assert {p.reason for p in verdict.refusals} == {
        "InvalidVIP",
        "VIPOutsidePools",
        "VIPIsNodeAddress",
        "FrontendConflict",
    }


def test_a_vip_that_has_lost_all_its_ports_is_not_held_at_all() -> None:
    lost = Frontend(vip="192.0.2.1", protocol="TCP", port=80)
    verdict = judge(service(), Standing(rivals={lost: "shop/older"}), {})
    assert verdict.vips == ()
