"""Who may use which VIP and which frontend."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from dsr_api.base import LabelSelector, Metadata
from dsr_api.plan import Frontend
from dsr_api.pool import DSRAddressPool, DSRAddressPoolSpec
from dsr_api.service import Port
from dsr_operator.compile.claims import Claim, best, grantable, judge, parse_pool, unfit
from dsr_operator.compile.inputs import Standing
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
def test_a_pool_entry_that_is_nothing_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"is neither a prefix nor a range|is no range"):
        parse_pool(pool(entry))


def test_a_pool_admits_by_the_labels_of_the_namespace() -> None:
    pools = [parse_pool(pool("192.0.2.0/24", selector=LabelSelector(match_labels={"a": "b"})))]
    assert grantable("192.0.2.1", {"a": "b"}, pools)
    assert not grantable("192.0.2.1", {"a": "c"}, pools)


claims = st.builds(
    Claim,
    st.sampled_from(("2025-01-01T00:00:00Z", "2025-01-01T00:00:01Z", "2024-12-31T23:59:59Z")),
    st.sampled_from(("a", "b")),
    st.sampled_from(("x", "y", "z")),
)


@given(st.sets(claims, min_size=1, max_size=4))
def test_ownership_is_total_and_does_not_depend_on_the_order(claimants: set[Claim]) -> None:
    winners = {best(order) for order in itertools.permutations(claimants)}
    assert len(winners) == 1
    winner = winners.pop()
    assert winner is not None
    assert all(winner.created <= other.created for other in claimants)


def test_ties_go_by_namespace_and_name() -> None:
    day = "2025-01-01T00:00:00Z"
    assert best([Claim(day, "b", "a"), Claim(day, "a", "z")]) == Claim(day, "a", "z")


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
