"""A Node wakes those whose outcome it changes, and not everybody."""

from __future__ import annotations

from typing import Any

from dsr_operator import kinds
from dsr_operator.compile import compile_service
from dsr_operator.compile.inputs import Outcome, ServiceKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.test_cache import CLOCK, Told

Json = dict[str, Any]

NODES = ("a", "b", "c")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "192.0.2.2")
"""Some of them are named by services, as backends and as VIPs."""


def by_role(role: str, operator: str = "In") -> Json:
    expression = {"key": "role", "operator": operator, "values": [role]}
    return {"nodeSelector": {"matchExpressions": [expression]}}


def cluster() -> Told:
    """Services with every way to name a node."""
    told = Told()
    told.put(kinds.NAMESPACE, "shop")
    told.put(kinds.POOL, "public", spec={"addresses": ["192.0.2.0/24"]})
    told.put(kinds.CORE_SERVICE, "web", "shop")
    told.put(
        kinds.SLICE,
        "web-1",
        "shop",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        endpoints=[{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.3"]}],
    )
    x = {"loadBalancerNodes": by_role("x")}
    told.service("all", loadBalancerNodes={}, ports=[{"port": 80}])
    told.service("roles", backends=by_role("y", "NotIn"), ports=[{"port": 81}], **x)
    told.service("web", backends={"service": {"name": "web"}}, ports=[{"port": 82}], **x)
    listed = {"addresses": [{"address": "10.0.0.2"}, {"address": "10.0.0.9"}]}
    told.service("listed", backends=listed, vips=["192.0.2.2"], **x)
    told.service("odd", backends=by_role("x", "Odd"), ports=[{"port": 83}], **x)
    told.service("planned", backends=by_role("z"), ports=[{"port": 84}], **x)
    spec = {
        "service": {"namespace": "shop", "name": "planned"},
        "vips": ["192.0.2.1"],
        "hosts": ["a"],
        "directors": [{"node": "b"}],
        "formerDirectors": ["c"],
        "backends": [{"address": "10.0.0.1", "node": "a", "nodeUID": "first"}],
    }
    told.put(kinds.PLAN, "shop.planned", spec=spec)
    orphan = {"service": {"namespace": "shop", "name": "orphan"}, "directors": [{"node": "b"}]}
    told.put(kinds.PLAN, "shop.orphan", spec=orphan)
    told.cache.set_live(NODES)
    return told


def outcomes(told: Told) -> dict[ServiceKey, Outcome]:
    every = told.cache.keys()
    made = {key: compile_service(told.cache.inputs(key, CLOCK)) for key in every}
    for key, outcome in made.items():
        told.cache.note(key, outcome.awaits)
    return made


changes = st.tuples(
    st.sampled_from(NODES),
    st.sampled_from(("x", "y", "z", None)),
    st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True),
    st.sampled_from(("first", "second", "gone")),
    st.sampled_from(("0", "7")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, min_size=1, max_size=6))
def test_who_is_not_woken_has_the_same_outcome(history: list[Any]) -> None:
    told = cluster()
    before = outcomes(told)
    for name, role, addresses, uid, weight in history:
        if uid == "gone":
            woken = told.drop(kinds.NODE, name, uid="first") | told.drop(
                kinds.NODE, name, uid="second"
            )
        else:
            meta = {
                "labels": {"role": role} if role else {},
                "annotations": {"dsr-operator.io/weight": weight},
            }
            listed = [{"type": "InternalIP", "address": a} for a in addresses]
            woken = told.put(kinds.NODE, name, uid=uid, metadata=meta, status={"addresses": listed})
        after = outcomes(told)
        changed = {key[1] for key in after if after[key] != before[key]}
        assert changed <= woken
        before = after


def test_a_node_wakes_nobody_who_has_nothing_to_do_with_it() -> None:
    told = cluster()
    role = {"labels": {"role": "other"}}
    assert told.put(kinds.NODE, "d", metadata=role) == {"all", "roles", "odd"}
    told.drop(kinds.SERVICE, "all", "shop")
    told.drop(kinds.SERVICE, "odd", "shop")
    y = {"labels": {"role": "y"}}
    assert told.put(kinds.NODE, "e", metadata=y) == set()
