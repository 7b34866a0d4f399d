"""compile_service() answers for whatever objects the API server may hold."""

from __future__ import annotations

import re

import msgspec
from dsr_api.base import LabelSelector, LabelSelectorRequirement, Metadata
from dsr_api.node import DSRNodeStatus, PlanNotApplied, PlansNotApplied
from dsr_api.plan import DSRPlan, DSRPlanSpec, Frontend
from dsr_api.service import (
    BackendAddress,
    BackendSource,
    DSRService,
    DSRServiceSpec,
    LoadBalancerNodes,
    Port,
    ServiceReference,
)
from dsr_operator.compile import compile_service
from dsr_operator.compile.history import History, advance
from dsr_operator.compile.inputs import Clock, CoreService, Inputs, Standing, World
from dsr_operator.core import Endpoint, EndpointConditions, EndpointPort, EndpointSlice, NodeView
from hypothesis import given, settings
from hypothesis import strategies as st

texts = st.text(max_size=5)
addresses = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(
        ("10.0.0.1", "10.0.0.2", "fd00::1", "192.0.2.1", "2001:db8::1", "::ffff:1.2.3.4")
    ),
    texts,
)
names = st.sampled_from(("a", "b", "c"))
labels = st.dictionaries(st.sampled_from(("k", "l")), st.sampled_from(("v", "w")), max_size=2)
requirements = st.builds(
    LabelSelectorRequirement,
    key=st.sampled_from(("k", "l")),
    operator=st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist", "Near")),
    values=st.lists(st.sampled_from(("v", "w"))).map(tuple),
)
selectors = st.builds(
    LabelSelector,
    match_labels=labels,
    match_expressions=st.lists(requirements, max_size=2).map(tuple),
)
sources = st.one_of(
    st.builds(BackendSource, node_selector=selectors),
    st.builds(BackendSource, service=st.builds(ServiceReference, name=names)),
    st.builds(
        BackendSource,
        addresses=st.lists(
            st.builds(BackendAddress, address=addresses, weight=st.integers(-5, 70000))
        ).map(tuple),
    ),
    st.just(BackendSource()),
)
ports = st.builds(Port, port=st.integers(1, 65535), protocol=st.sampled_from(("TCP", "UDP")))
specs = st.builds(
    DSRServiceSpec,
    vips=st.lists(addresses, max_size=4).map(tuple),
    ports=st.lists(ports, max_size=6).map(tuple),
    backends=sources,
    load_balancer_nodes=st.builds(LoadBalancerNodes, node_selector=selectors),
    drain_timeout_seconds=st.integers(0, 3600),
)
metas = st.builds(
    Metadata,
    name=st.just("web"),
    namespace=st.just("shop"),
    uid=st.just("u"),
    generation=st.integers(1, 3),
    deletion_timestamp=st.sampled_from((None, None, "2025-01-01T00:00:00Z")),
)
views = st.builds(
    NodeView,
    name=names,
    uid=names,
    labels=labels,
    internal=st.lists(st.ip_addresses().map(str), max_size=3).map(tuple),
    weight=st.one_of(st.none(), texts),
)
conditions = st.builds(
    EndpointConditions,
    ready=st.sampled_from((None, True, False)),
    serving=st.sampled_from((None, True, False)),
    terminating=st.sampled_from((None, True, False)),
)
slices = st.builds(
    EndpointSlice,
    metadata=st.just(Metadata(name="s")),
    address_type=st.sampled_from(("IPv4", "IPv6", "FQDN")),
    endpoints=st.one_of(
        st.none(),
        st.lists(
            st.builds(
                Endpoint,
                addresses=st.lists(addresses, max_size=2).map(tuple),
                conditions=conditions,
            )
        ).map(tuple),
    ),
    ports=st.one_of(
        st.none(), st.lists(st.builds(EndpointPort, port=st.integers(1, 99))).map(tuple)
    ),
)
complaints = st.builds(
    PlansNotApplied,
    items=st.lists(
        st.builds(PlanNotApplied, plan=st.just("shop.web"), reason=texts, message=texts), max_size=2
    ).map(tuple),
    more=st.integers(0, 2),
)
reports = st.dictionaries(
    names,
    st.builds(DSRNodeStatus, applied_revision=st.integers(0, 20), plans_not_applied=complaints),
)


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    nodes = {n.name: n for n in draw(st.lists(views, max_size=3))}
    owners = {a: n.name for n in nodes.values() for a in n.internal}
    service = DSRService(metadata=draw(metas), spec=draw(specs))
    return Inputs(
        service=draw(st.sampled_from((service, service, service, None))),
        plan=None,
        history=History(),
        world=World(nodes, owners, draw(reports), draw(st.frozensets(names))),
        standing=Standing(
            outside=draw(st.frozensets(st.sampled_from(service.spec.vips or ("x",))))
        ),
        core_service=CoreService(draw(st.booleans()), tuple(draw(st.lists(slices, max_size=2)))),
        clock=Clock(1_700_000_000.5, 100.0),
    )


@settings(max_examples=300, deadline=None)
@given(inputs())
def test_it_never_raises_and_comes_to_rest(asked: Inputs) -> None:
    plan_spec: DSRPlanSpec | None = None
    for revision in range(1, 12):
        outcome = compile_service(asked)
        if asked.service is not None:
            assert outcome.status is not None
            asked = replace(
                asked, service=msgspec.structs.replace(asked.service, status=outcome.status)
            )
        if outcome.spec is None:
            break
        history = advance(asked.history, plan_spec, outcome.spec, revision, 100.0)
        plan_spec = outcome.spec
        meta = Metadata(name="shop.web", resource_version=str(revision), uid="p")
        asked = replace(asked, history=history, plan=DSRPlan(metadata=meta, spec=plan_spec))
    else:
        raise AssertionError("it never comes to rest")
    follows_the_conventions(asked)
    again = compile_service(asked)
    assert (again.spec, again.status) == (None, outcome.status)


def replace(asked: Inputs, **changes: object) -> Inputs:
    fields = {name: getattr(asked, name) for name in Inputs.__dataclass_fields__}
    return Inputs(**{**fields, **changes})


def follows_the_conventions(asked: Inputs) -> None:
    if asked.service is None:
        return
    seen = asked.service.status
    types = [c.type for c in seen.conditions]
    assert len(types) == len(set(types))
    assert "Ready" in types
    assert seen.observed_generation == asked.service.metadata.generation
    for condition in seen.conditions:
        assert condition.status in ("True", "False")
        assert condition.observed_generation == seen.observed_generation
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", condition.last_transition_time)
        assert 0 < len(condition.message) <= 1024


@settings(max_examples=100, deadline=None)
@given(inputs(), st.data())
def test_a_frontend_that_belongs_to_another_is_never_in_the_plan(
    asked: Inputs, data: st.DataObject
) -> None:
    if asked.service is None or not asked.service.spec.vips or not asked.service.spec.ports:
        return
    port = data.draw(st.sampled_from(asked.service.spec.ports))
    lost = Frontend(vip=asked.service.spec.vips[0], protocol=port.protocol, port=port.port)
    outcome = compile_service(replace(asked, standing=Standing(rivals={lost: "shop/older"})))
    assert outcome.spec is None or lost not in outcome.spec.frontends
