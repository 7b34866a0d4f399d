"""Bad input that needs several objects to see: a condition with a reason, and the rest goes on."""

from __future__ import annotations

import pytest
from dsr_operator import kinds

from tests.api.operator.world import World

pytestmark = pytest.mark.usefixtures("operator")


async def test_of_two_services_the_older_one_keeps_the_frontend(world: World) -> None:
    await world.service("older")
    await world.until_condition("Ready", "True", name="older")
    await world.service("younger", ports=[{"port": 80}, {"port": 81}])
    message = await world.until_condition("Accepted", "False", "FrontendConflict", name="younger")
    assert f"{world.namespace}/older" in message
    plan = await world.until_plan(lambda p: p.get("frontends"), name="younger")
    assert [f["port"] for f in plan["frontends"]] == [81]
    await world.until_condition("Ready", "True", name="older")

    await world.delete(kinds.SERVICE, "older", world.namespace)
    await world.until_plan(lambda p: len(p.get("frontends", [])) == 2, name="younger")
    await world.until_condition("Ready", "True", name="younger")


async def test_a_frontend_changes_hands_without_two_plans_having_it(world: World) -> None:
    await world.service("older")
    await world.service("younger")
    await world.until_condition("Ready", "True", name="older")
    world.acking.clear()
    await world.delete(kinds.SERVICE, "older", world.namespace)
    await world.until_plan(lambda p: not p["frontends"], name="older")
    assert await world.plan("younger") is None
    world.acking |= set(world.nodes)
    await world.until_condition("Ready", "True", name="younger")


async def test_who_comes_later_to_a_vip_with_other_lb_nodes_is_refused(world: World) -> None:
    await world.service()
    await world.until_condition("Ready", "True")
    await world.service("two", ports=[{"port": 81}], loadBalancerNodes=world.selector("rs"))
    message = await world.until_condition("Accepted", "False", "VIPConflict", name="two")
    assert f"{world.namespace}/web" in message
    assert "loadBalancerNodes" in message
    assert await world.plan("two") is None
    patch = {"spec": {"loadBalancerNodes": world.selector("lb")}}
    await world.merge(kinds.SERVICE, "two", patch, world.namespace)
    await world.until_condition("Ready", "True", name="two")


async def test_a_vip_in_use_outlives_its_pool_until_the_spec_changes(world: World) -> None:
    await world.service(drainTimeoutSeconds=1)
    await world.until_condition("Ready", "True")
    elsewhere = {"spec": {"addresses": ["203.0.113.0/24"]}}
    await world.merge(kinds.POOL, world.namespace, elsewhere)
    message = await world.until_condition("Accepted", "False", "VIPOutsidePools")
    assert "no longer granted" in message
    plan = await world.plan()
    assert plan is not None
    assert plan["frontends"]
    changed = {"spec": {"drainTimeoutSeconds": 2}}
    await world.merge(kinds.SERVICE, "web", changed, world.namespace)
    await world.until_plan(lambda p: not p.get("frontends"))


async def test_a_vip_outside_the_pools_is_refused_until_one_admits_it(world: World) -> None:
    outside = f"{world.net}.100"
    await world.service(vips=[outside])
    message = await world.until_condition("Accepted", "False", "VIPOutsidePools")
    assert outside in message
    assert world.namespace in message
    assert await world.plan() is None
    await world.merge(
        kinds.POOL, world.namespace, {"spec": {"addresses": [f"{outside}-{outside}"]}}
    )
    await world.until_condition("Ready", "True")


async def test_a_pool_of_another_namespace_does_not_help(world: World) -> None:
    await world.create(kinds.NAMESPACE, {"metadata": {"name": f"{world.namespace}-b"}})
    document = {"metadata": {"name": "thief"}, "spec": world.spec()}
    await world.create(kinds.SERVICE, document, f"{world.namespace}-b")
    await world.service()
    await world.until_condition("Ready", "True")
    found = await world.until(
        lambda: world.get(kinds.SERVICE, "thief", f"{world.namespace}-b"),
        lambda d: d.get("status"),
    )
    reasons = {c["reason"] for c in found["status"]["conditions"]}
    assert "VIPOutsidePools" in reasons


async def test_a_vip_that_is_a_nodes_address_is_refused(world: World) -> None:
    vip = world.vip()
    status = {
        "addresses": [
            {"type": "InternalIP", "address": world.address("lb1")},
            {"type": "ExternalIP", "address": vip},
        ]
    }
    await world.merge(kinds.NODE, world.name("lb1"), {"status": status}, subresource="status")
    await world.service()
    message = await world.until_condition("Accepted", "False", "VIPIsNodeAddress")
    assert world.name("lb1") in message


async def test_selectors_that_match_nothing(world: World) -> None:
    nothing = {"nodeSelector": {"matchLabels": {"role": "nothing"}}}
    await world.service("no-backend", backends=nothing)
    await world.until_condition(
        "ResolvedRefs", "False", "NodeSelectorMatchesNothing", name="no-backend"
    )
    await world.until_condition("Ready", "False", name="no-backend")
    await world.service("no-lb", ports=[{"port": 81}], loadBalancerNodes=nothing)
    await world.until_condition("ResolvedRefs", "False", "NoLoadBalancerNode", name="no-lb")


async def test_vips_of_a_family_that_no_backend_has(world: World) -> None:
    await world.service(vips=[world.vip(), "2001:db8::77"])
    message = await world.until_condition("ResolvedRefs", "False", "NoBackendOfFamily")
    assert "IPv6" in message
    plan = await world.until_plan(lambda p: p.get("frontends"))
    assert {f["vip"] for f in plan["frontends"]} == {world.vip()}


async def test_backend_addresses_of_a_family_whose_vips_are_refused(world: World) -> None:
    addresses = [{"address": "198.51.100.9"}, {"address": "2001:db8:1::9"}]
    await world.service(backends={"addresses": addresses}, vips=[world.vip(), "2001:db8:ffff::1"])
    await world.until_condition("Accepted", "False", "VIPOutsidePools")
    message = await world.until_condition("ResolvedRefs", "False", "WrongAddressFamily")
    assert "2001:db8:1::9" in message
    plan = await world.until_plan(lambda p: p.get("frontends"))
    assert [b["address"] for b in plan["backends"]] == ["198.51.100.9"]
    assert [f["vip"] for f in plan["frontends"]] == [world.vip()]


async def test_backends_from_a_service_of_host_network_pods(world: World) -> None:
    await world.service(backends={"service": {"name": "web"}}, drainTimeoutSeconds=1)
    await world.until_condition("ResolvedRefs", "False", "ServiceNotFound")
    core = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "clusterIP": "None"}}
    await world.create(kinds.CORE_SERVICE, core, world.namespace)
    await world.until_condition("ResolvedRefs", "False", "ServiceWithoutEndpoints")

    def endpoint(address: str, **conditions: bool) -> dict[str, object]:
        return {"addresses": [address], "conditions": conditions}

    rs1, rs2 = world.address("rs1"), world.address("rs2")
    piece = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [endpoint(rs1, ready=True), endpoint("10.244.0.5", ready=True)],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }
    await world.create(kinds.SLICE, piece, world.namespace)
    message = await world.until_condition("ResolvedRefs", "False", "EndpointIsNotANode")
    assert "10.244.0.5" in message
    await world.until_plan(lambda p: [b["address"] for b in p.get("backends", [])] == [rs1])

    going = endpoint(rs1, ready=False, serving=True, terminating=True)
    patch = {"endpoints": [going, endpoint(rs2, ready=True)]}
    await world.merge(kinds.SLICE, "web-1", patch, world.namespace)
    await world.until_condition("ResolvedRefs", "True")
    await world.until_plan(
        lambda p: {b["address"]: b["weight"] for b in p["backends"]} == {rs1: 0, rs2: 1}
    )
    await world.merge(
        kinds.SLICE, "web-1", {"ports": [{"port": 8080, "protocol": "TCP"}]}, world.namespace
    )
    message = await world.until_condition("ResolvedRefs", "False", "PortNotServed")
    assert "80/TCP" in message
