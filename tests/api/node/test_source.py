"""The source of plans against a real API server, in good and in bad times."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from dsr_node.api import watch
from dsr_node.source.api import UNREADABLE

from lab.controlplane import ControlPlane
from tests.api.node.reading import (
    CRDS,
    PLAN_CRD,
    apply,
    plan,
    reading,
    run,
    serve_crds,
    until,
)


async def test_every_change_becomes_a_snapshot_and_what_is_unchanged_stays_the_same_object(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete and set(s.plans) == {"shop.web"})
        first = read.last
        await apply(admin, plan("shop.api", "rs1"))
        await read.until(lambda s: "shop.api" in s.plans)
        second = read.last
        assert second.plans["shop.web"] is first.plans["shop.web"]
        assert second.revision == int(second.plans["shop.api"].metadata.resource_version)
        assert second.revision > first.revision
        await run(admin, "delete", "dsrplan", "shop.api")
        await read.until(lambda s: "shop.api" not in s.plans)
        assert read.last.revision > second.revision


async def test_more_plans_than_a_page(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsr_node.api.client.PAGE", 3)
    names = {f"shop.s{number}" for number in range(8)}
    await apply(plane.kubeconfig, *(plan(name) for name in names))
    async with reading(plane.kubeconfig, tmp_path) as read:
        await read.until(lambda s: s.complete)
        assert set(read.last.plans) == names


async def test_an_expired_revision_leads_to_a_new_list(plane: ControlPlane, tmp_path: Path) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete)
        read.source.watch.mirror.revision = 1
        plane.kill("apiserver")
        await asyncio.to_thread(plane.restart, "apiserver")
        await apply(admin, plan("shop.api"))
        await read.until(lambda s: "shop.api" in s.plans)
        assert set(read.last.plans) == {"shop.web", "shop.api"}


async def test_a_restarted_api_server_is_found_at_once_and_nothing_was_lost_meanwhile(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete)
        before = len(read.snapshots)
        plane.kill("apiserver")
        await until(lambda: read.problem)
        await asyncio.to_thread(plane.restart, "apiserver")
        ready = time.monotonic()
        await until(lambda: not read.problem)
        assert time.monotonic() - ready < 2.5  # CAP_UNREACHABLE, and some for a busy machine
        assert len(read.snapshots) == before
        await apply(admin, plan("shop.api"))
        await read.until(lambda s: "shop.api" in s.plans)
        await run(admin, "delete", "dsrplan", "shop.web")
        await read.until(lambda s: "shop.web" not in s.plans)


async def test_revoked_rights_keep_the_plans(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_SECONDS", (1, 1))
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    await run(
        admin,
        "create",
        "clusterrole",
        "reader",
        "--verb=list,watch",
        "--resource=dsrplans.dsr-operator.io",
    )
    bind = ("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=daemon")
    await run(admin, *bind)
    async with reading(plane.kubeconfig_for("daemon"), tmp_path) as read:
        await read.until(lambda s: s.complete)
        await run(admin, "delete", "clusterrolebinding", "reader")
        await until(lambda: "403" in read.problem)
        await run(admin, "delete", "dsrplan", "shop.web")
        await apply(admin, plan("shop.api"))
        assert set(read.last.plans) == {"shop.web"}
        await run(admin, *bind)
        # The admin's role says nothing of CRDs: whether shop.web is gone cannot be confirmed.
        await read.until(lambda s: set(s.plans) == {"shop.web", "shop.api"})
        assert "403" in read.source.doubt
    await run(admin, "delete", "clusterrole,clusterrolebinding", "reader")


async def test_a_deleted_crd_withdraws_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    admin = plane.kubeconfig
    names = {f"shop.s{number}" for number in range(20)}
    await apply(admin, *(plan(name) for name in names))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete)
        await run(admin, "delete", "crd", PLAN_CRD)
        await until(lambda: "404" in read.problem)
        await until(lambda: "404" in read.source.doubt)
        assert all(set(snapshot.plans) == names for snapshot in read.snapshots)

        await serve_crds(admin)
        await apply(admin, plan("shop.s1", "rs1"))
        await read.until(lambda s: set(s.plans) == {"shop.s1"}, 40)


async def test_an_emptied_plan_may_go_even_when_nothing_can_be_confirmed(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await run(
        admin,
        "create",
        "clusterrole",
        "reader",
        "--verb=list,watch",
        "--resource=dsrplans.dsr-operator.io",
    )
    await run(
        admin, "create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=daemon"
    )
    await apply(admin, plan("shop.web", vips=()))
    async with reading(plane.kubeconfig_for("daemon"), tmp_path) as read:
        await read.until(lambda s: s.complete and s.plans)
        await run(admin, "delete", "dsrplan", "shop.web")
        await read.until(lambda s: not s.plans)
    await run(admin, "delete", "clusterrole,clusterrolebinding", "reader")


async def test_without_an_api_server_the_plans_on_disk_are_used_until_it_answers(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete)
        revision = read.last.revision
    plane.kill("apiserver")
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: "shop.web" in s.plans, 3)
        assert not read.last.complete
        assert read.last.revision == revision
        await asyncio.to_thread(plane.restart, "apiserver")
        await apply(admin, plan("shop.api"))
        await read.until(lambda s: s.complete and set(s.plans) == {"shop.web", "shop.api"})


async def test_what_was_lost_while_the_daemon_was_away_is_shown_to_the_engine(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete)
    await run(admin, "delete", "dsrplan", "shop.web")
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: s.complete and not s.plans)
        assert [set(s.plans) for s in read.snapshots] == [{"shop.web"}, set()]


async def test_a_plan_that_cannot_be_read_is_refused_and_its_last_good_version_kept(
    plane: ControlPlane, tmp_path: Path
) -> None:
    admin = plane.kubeconfig
    await apply(admin, plan("shop.web"), plan("shop.api"))
    async with reading(admin, tmp_path) as read:
        await read.until(lambda s: len(s.plans) == 2)
        good = read.last.plans["shop.web"]
        # A newer CRD admits a method that this daemon does not know.
        newer = (CRDS / "dsrplans.yaml").read_text().replace("[L2]", "[L2, IPIP]", 1)
        await run(admin, "apply", "--server-side", "-f", "-", stdin=newer)
        strange = plan("shop.web")
        strange["spec"]["method"] = "IPIP"
        strange["spec"]["vips"] = []
        await until_accepted(admin, strange)
        await read.until(lambda s: s.refused)
        (refused,) = read.last.refused
        assert (refused.plan, refused.reason) == ("shop.web", UNREADABLE)
        assert "method" in refused.message
        assert read.last.plans["shop.web"] is good
        assert read.last.revision > int(good.metadata.resource_version)


async def until_accepted(kubeconfig: Path, document: dict[str, object]) -> None:
    """A changed CRD is in force some moments after it is written."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await apply(kubeconfig, document)
            except Exception as error:
                if "Unsupported value" not in str(getattr(error, "stderr", "")):
                    raise
                await asyncio.sleep(0.1)
