"""The endpoint, asked by HTTP, and the metrics, parsed as Prometheus does."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from dsr_api.base import Metadata
from dsr_api.node import PlanNotApplied
from dsr_api.plan import DSRPlan, DSRPlanSpec, PlanService
from dsr_node.api.report import Identity
from dsr_node.api.watch import Health
from dsr_node.observe.endpoint import Endpoint
from dsr_node.observe.sight import ApiSight, Passes, Sight
from dsr_node.observe.view import STALE, health
from dsr_node.state.report import Report
from dsr_node.state.types import NodeState
from dsr_node.subsystems.xdp.state import (
    TCP,
    Backend,
    BackendKey,
    DirectorState,
    FrontendKey,
    Pool,
    PoolKey,
    address16,
)
from dsr_node.subsystems.xdp.stats import Stats, Traffic
from dsr_node.subsystems.xdp.sweep import Swept
from prometheus_client.parser import text_string_to_metric_families

VIP = address16("192.0.2.1")
FRONTEND = FrontendKey(VIP, TCP, 80)
POOL = PoolKey("shop.web", 4)
OLD, NEW = (BackendKey(address16("10.0.0.2"), uid) for uid in ("u-1", "u-2"))
ME = Identity(kernel="6.1.0", boot_id="b", daemon_version="1.2.3")
PLAN = DSRPlan(
    metadata=Metadata(name="shop.web", resource_version="7"),
    spec=DSRPlanSpec(
        service=PlanService("shop", "web"), vips=("192.0.2.1",), hash_seed="5eed5eed5eed5eed"
    ),
)
STATE = NodeState(
    addresses=frozenset({"192.0.2.1"}),
    director=DirectorState(
        frontends={FRONTEND: POOL},
        pools={
            POOL: Pool(
                key=POOL,
                seed=1,
                size=13,
                backends=(
                    Backend(NEW, ifindex=2, mac=b"\x02\0\0\0\0\x01"),
                    Backend(BackendKey(address16("10.0.0.3")), failed=True),
                    Backend(BackendKey(address16("10.0.0.4")), weight=0, mac=bytes(6)),
                ),
            )
        },
        announced={VIP: 2**64 - 1},
    ),
)
STATS = Stats(
    frontends={FRONTEND: Traffic(10, 640)},
    backends={(POOL, OLD): Traffic(3, 192), (POOL, NEW): Traffic(7, 448)},
    drops={"no_backend": 2},
    unremembered=5,
)
REPORT = Report(
    revision=7,
    plans=3,
    problems=(PlanNotApplied("shop.api", "NoUplink", "m", "192.0.2.2"),) * 2,
    announcing=frozenset({"192.0.2.1"}),
    repairs={"addresses": 4},
    pass_seconds=0.02,
)

Http = TestClient[Request, Application]


class Engine:
    """What an engine looks like from outside."""

    def __init__(self) -> None:
        self.plans = {"shop.web": PLAN}
        self.state = STATE
        self.swept = Swept(9, 1, 4, 2)

    async def stats(self) -> Stats:
        return STATS


class Broken(Engine):
    async def stats(self) -> Stats:
        raise OSError("no such map")


def api() -> ApiSight:
    watches = {"dsrplans": Health("", 1.0, time.monotonic()), "leases": Health("403", 1.0, None)}
    return ApiSight(lambda: watches, lambda: "", lambda: time.monotonic() - 1)


@pytest.fixture
def passes() -> Passes:
    return Passes()


@pytest_asyncio.fixture
async def http(passes: Passes) -> AsyncIterator[Http]:
    async with served(Sight("lb1", ME, Engine(), passes, api())) as client:
        yield client


def served(sight: Sight) -> Http:
    return TestClient(TestServer(Endpoint(sight).app()))


async def samples(http: Http) -> dict[tuple[str, ...], float]:
    answer = await http.get("/metrics")
    assert answer.status == 200
    families = text_string_to_metric_families(await answer.text())
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_before_the_first_pass(http: Http) -> None:
    seen = await samples(http)
    assert seen["dsr_node_info", "kernel=6.1.0", "version=1.2.3"] == 1
    assert not any(name[0] == "dsr_node_plans" for name in seen)


async def test_metrics(passes: Passes, http: Http) -> None:
    passes.report(REPORT)
    seen = await samples(http)
    frontend = ("plan=shop.web", "port=80", "protocol=TCP", "vip=192.0.2.1")
    assert seen["dsr_node_frontend_packets_total", *frontend] == 10
    assert seen["dsr_node_frontend_bytes_total", *frontend] == 640
    # Both machines that had the address, in one series.
    assert seen["dsr_node_backend_packets_total", "backend=10.0.0.2", "plan=shop.web"] == 10
    assert seen["dsr_node_drops_total", "reason=no_backend"] == 2
    assert seen["dsr_node_unremembered_packets_total",] == 5
    assert seen["dsr_node_flows",] == 9
    assert seen["dsr_node_moved_slots",] == 4
    assert seen["dsr_node_plans", "state=applied"] == 2
    assert seen["dsr_node_plans", "state=not_applied"] == 1
    assert seen["dsr_node_problems", "reason=NoUplink"] == 2
    assert seen["dsr_node_drift_repairs_total", "subsystem=addresses"] == 4
    assert seen["dsr_node_announced_vips",] == 1
    assert seen["dsr_node_pass_duration_seconds_count",] == 1
    assert seen["dsr_node_watch_up", "resource=dsrplans"] == 1
    assert seen["dsr_node_watch_up", "resource=leases"] == 0
    assert 0 <= seen["dsr_node_watch_age_seconds", "resource=dsrplans"] < 60
    assert ("dsr_node_watch_age_seconds", "resource=leases") not in seen
    assert 0 <= seen["dsr_node_lease_age_seconds",] < 60
    assert "process_resident_memory_bytes" in {name[0] for name in seen}


async def test_counters_that_cannot_be_read_take_no_other_metric_along() -> None:
    passes = Passes()
    passes.report(REPORT)
    async with served(Sight("lb1", ME, Broken(), passes)) as http:
        seen = await samples(http)
    assert seen["dsr_node_counters_readable",] == 0
    assert seen["dsr_node_applied_revision",] == 7
    assert ("dsr_node_flows",) not in seen


async def test_ready_means_carried_out_whether_the_api_is_there_or_not(
    passes: Passes, http: Http
) -> None:
    answer = await http.get("/readyz")
    assert answer.status == 503
    assert "no pass" in await answer.text()
    passes.report(REPORT)
    answer = await http.get("/readyz")
    assert answer.status == 200
    text = await answer.text()
    assert "leases cannot be read: 403" in text
    assert "; not carried out: 2, the first: shop.api 192.0.2.2: m (NoUplink);" in text
    passes.report(Report(errors={"xdp": "another program is on eth0"}))
    answer = await http.get("/readyz")
    assert answer.status == 503
    assert "xdp: another program is on eth0" in await answer.text()


async def test_healthy_means_that_passes_end(http: Http) -> None:
    assert (await http.get("/healthz")).status == 200
    assert health(STALE)[0]
    assert not health(STALE + 1)[0]


async def test_state(passes: Passes, http: Http) -> None:
    passes.report(REPORT)
    answer = await http.get("/state")
    assert answer.content_type == "application/json"
    state = await answer.json()
    assert "5eed" not in await answer.text(), "who knows the seed can choose his backend"
    assert state["plans"]["shop.web"]["revision"] == "7"
    assert state["report"]["problems"][0]["reason"] == "NoUplink"
    assert state["kernel"]["frontends"] == {"192.0.2.1 80/TCP": "shop.web IPv4"}
    backends = state["kernel"]["pools"]["shop.web IPv4"]["backends"]
    assert [(b["address"], b["mac"], b["health"]) for b in backends] == [
        ("10.0.0.2", "02:00:00:00:00:01", "good"),
        ("10.0.0.3", "", "failed"),
        ("10.0.0.4", "00:00:00:00:00:00", "draining"),
    ]
    assert state["api"]["watches"]["leases"]["problem"] == "403"


class Counting(Engine):
    reads = 0

    async def stats(self) -> Stats:
        self.reads += 1
        await asyncio.sleep(0)
        return STATS


async def test_whoever_asks_often_is_told_the_same_counters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Counting()
    async with served(Sight("lb1", ME, engine, Passes())) as http:
        await asyncio.gather(*(http.get("/metrics") for _ in range(5)))
        assert engine.reads == 1
        monkeypatch.setattr("dsr_node.observe.endpoint.COUNTERS_AGE", 0.0)
        await http.get("/metrics")
        assert engine.reads == 2


async def test_without_an_api_server() -> None:
    passes = Passes()
    passes.report(REPORT)
    async with served(Sight("lb1", ME, Engine(), passes)) as http:
        assert "api" not in await (await http.get("/state")).json()
        assert (await http.get("/readyz")).status == 200
        assert (await http.get("/metrics")).status == 200


async def test_where_it_cannot_listen_it_says_so_and_listens_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsr_node.observe.endpoint.RETRY", 0.01)
    caplog.set_level("INFO")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    task = asyncio.create_task(
        Endpoint(Sight("lb1", ME, Engine(), Passes())).run("127.0.0.1", port)
    )
    await said(caplog, "--listen-address")
    taken.close()
    await said(caplog, f"metrics and health on 127.0.0.1 port {port}")
    async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/healthz") as answer:
        assert answer.status == 200
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(5):
        while text not in caplog.text:  # noqa: ASYNC110 - a log sets no event
            await asyncio.sleep(0.01)
