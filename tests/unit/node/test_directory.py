"""Plans from files: one that is no plan is told by name and stops no other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import yaml
from dsr_api.plan import DSRPlan, PlanBackend
from dsr_api.service import FlowIdleTimeout
from dsr_node.source import Snapshot
from dsr_node.source.directory import POLL, DirectorySource, PlanFileError, parse
from dsr_node.state.loss import Plans, taken

from lab.names import members
from tests.unit.node.worlds import plan


def manifest(each: DSRPlan) -> str:
    document = {"apiVersion": "dsr-operator.io/v1alpha1", "kind": "DSRPlan"}
    return yaml.safe_dump({**document, **msgspec.to_builtins(each)})


def put(path: Path, text: str) -> None:
    """As a whole, as `kubectl`, editors and configuration management do."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


async def snapshot(snapshots: AsyncIterator[Snapshot]) -> Snapshot:
    return await anext(snapshots)


def test_what_is_written_is_read() -> None:
    each = plan(vips=("10.0.9.1", "fd00::9:1"))
    assert parse(manifest(each)) == each


def test_the_example_is_a_plan_of_the_lab() -> None:
    each = parse((Path(__file__).parents[3] / "examples" / "plan.yaml").read_bytes())
    assert {frontend.vip for frontend in each.spec.frontends} == set(each.spec.vips)
    lab = {name for member in members(1, 2) for name in (member.ipv4, member.ipv6)}
    used = {address for director in each.spec.directors for address in director.addresses}
    assert used | {backend.address for backend in each.spec.backends} <= lab


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not YAML"),
        ("a: [", "not YAML"),
        ("", "not one YAML mapping"),
        ("- a\n- b\n", "not one YAML mapping"),
        (manifest(plan()) + "---\n" + manifest(plan()), "not YAML"),
        ("apiVersion: v1\nkind: Pod\n", "apiVersion 'v1', kind 'Pod'"),
        (manifest(plan()).replace("v1alpha1", "v2"), "dsr-operator.io/v2"),
        (
            manifest(plan()).replace("port: 80", "port: eighty"),
            r"\$\.spec\.frontends\[0\]\.port",
        ),
        (manifest(plan()).replace("TCP", "SCTP"), "protocol"),
        (manifest(plan()).replace("10.0.1.1", "10.0.1.300"), r"spec\.backends\[0\]\.address"),
        (manifest(plan(vips=("10.0.9",))), r"spec\.vips\[0\]: '10\.0\.9' is no IP address"),
        (manifest(plan(ports=(80, 65536))), r"spec\.frontends\[1\]\.port: 65536 is not in"),
        (manifest(plan(hash_seed="xyz")), r"spec\.hashSeed: 'xyz'"),
        (manifest(plan(backends_changed_at="yesterday")), r"spec\.backendsChangedAt"),
        (manifest(plan(table_size=4094)), r"spec\.tableSize: .* prime"),
        (
            manifest(plan(flow_idle_timeout=FlowIdleTimeout(tcp_seconds=0))),
            r"spec\.flowIdleTimeout\.tcpSeconds: 0 is not in",
        ),
        (manifest(plan()).replace("backends:", "backend:"), r"spec\.backend: no .* 'backends'"),
        (manifest(plan()).replace("port:", "prot:"), r"spec\.frontends\[0\]\.prot: no such field"),
    ],
)
def test_what_is_no_plan(text: str, reason: str) -> None:
    with pytest.raises(PlanFileError, match=reason):
        parse(text)


async def test_files_become_plans_and_go_again(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    put(tmp_path / "b.yaml", manifest(plan("ns.b")))
    (tmp_path / ".hidden.yaml").write_text("nonsense: [")
    (tmp_path / "notes.txt").write_text("nonsense: [")
    snapshots = DirectorySource(tmp_path).snapshots()
    first = await snapshot(snapshots)
    assert first == Snapshot({"ns.a": plan("ns.a"), "ns.b": plan("ns.b")})
    (tmp_path / "a.yaml").unlink()
    emptied = await snapshot(snapshots)
    spec = emptied.plans["ns.a"].spec
    assert (spec.vips, spec.frontends) == ((), ())
    second = await snapshot(snapshots)
    assert set(second.plans) == {"ns.b"}
    assert second.plans["ns.b"] is first.plans["ns.b"], "an unchanged plan is the same object"
    assert second.complete


async def in_force(snapshots: AsyncIterator[Snapshot]) -> Plans:
    """What the engine would take over after a few changes."""
    plans = Plans()
    with suppress(TimeoutError):
        async with asyncio.timeout(5 * POLL):
            async for each in snapshots:
                plans = taken(plans, each, 0)
    return plans


async def after(tmp_path: Path, change: Callable[[Path], object]) -> Plans:
    """The plans in force when one file has been there, and then something has happened."""
    directory = tmp_path / "plans"
    directory.mkdir()
    put(directory / "a.yaml", manifest(plan("ns.a")))
    task = asyncio.create_task(in_force(DirectorySource(directory).snapshots()))
    await asyncio.sleep(0)
    change(directory)
    return await task


async def test_a_deleted_file_goes_at_once_also_the_last_one(tmp_path: Path) -> None:
    assert await after(tmp_path, lambda at: (at / "a.yaml").unlink()) == Plans()


async def test_a_directory_that_is_replaced_by_an_empty_one_has_lost_its_plans(
    tmp_path: Path,
) -> None:
    def swap(directory: Path) -> None:
        directory.rename(tmp_path / "away")
        directory.mkdir()

    plans = await after(tmp_path, swap)
    assert plans.held == plans.in_force.keys() == {"ns.a"}


async def test_a_file_may_move_and_keeps_its_plan(tmp_path: Path) -> None:
    plans = await after(tmp_path, lambda at: (at / "a.yaml").rename(at / "b.yaml"))
    assert plans == Plans({"ns.a": plan("ns.a")})


def test_a_file_missing_for_a_moment_is_not_gone(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    source = DirectorySource(tmp_path)
    assert source._look()
    (tmp_path / "a.yaml").rename(tmp_path / "a.yaml~")
    assert not source._look()
    put(tmp_path / "a.yaml", manifest(plan("ns.a", ports=(81,))))
    assert source._look()
    assert source._snapshot().plans["ns.a"].spec.frontends[0].port == 81
    assert not source._deleted


async def test_a_file_written_again_without_a_change_is_the_same_plan(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    snapshots = DirectorySource(tmp_path).snapshots()
    first = await snapshot(snapshots)
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    assert (await snapshot(snapshots)).plans["ns.a"] is first.plans["ns.a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense: [", "a.yaml: not YAML"),
        (
            manifest(plan("ns.a", backends=(PlanBackend(address="10.77.0.300"),))),
            "a.yaml: spec.backends[0].address: '10.77.0.300' is no IP address",
        ),
        (
            manifest(plan("ns.a")).replace("backends:", "backend:"),
            "a.yaml: spec.backend: no such field; 'backends' is meant?",
        ),
    ],
)
async def test_a_bad_file_keeps_its_last_good_version(
    tmp_path: Path, text: str, message: str
) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    put(tmp_path / "b.yaml", manifest(plan("ns.b")))
    snapshots = DirectorySource(tmp_path).snapshots()
    await snapshot(snapshots)
    put(tmp_path / "a.yaml", text)
    put(tmp_path / "b.yaml", manifest(plan("ns.b", ports=(81,))))
    second = await snapshot(snapshots)
    assert second.plans["ns.a"] == plan("ns.a")
    assert second.plans["ns.b"].spec.frontends[0].port == 81
    (refused,) = second.refused
    assert (refused.plan, refused.reason) == ("ns.a", "Unreadable")
    assert refused.message.startswith(message)
    put(tmp_path / "a.yaml", manifest(plan("ns.a", ports=(82,))))
    third = await snapshot(snapshots)
    assert not third.refused
    assert third.plans["ns.a"].spec.frontends[0].port == 82


async def test_two_files_with_one_plan(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    put(tmp_path / "b.yaml", manifest(plan("ns.a", ports=(81,))))
    first = await snapshot(DirectorySource(tmp_path).snapshots())
    assert first.plans["ns.a"].spec.frontends[0].port == 80
    assert first.refused[0].message == "b.yaml: a.yaml has a plan named ns.a already"


async def test_a_file_never_readable_is_named_by_its_stem(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").symlink_to(tmp_path / "nowhere")
    first = await snapshot(DirectorySource(tmp_path).snapshots())
    assert first.refused[0].plan == "web"
    assert "No such file" in first.refused[0].message


async def test_an_empty_directory_is_a_snapshot(tmp_path: Path) -> None:
    assert await snapshot(DirectorySource(tmp_path).snapshots()) == Snapshot()


async def test_a_directory_that_has_gone_yields_nothing(tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    put(plans / "a.yaml", manifest(plan("ns.a")))
    source = DirectorySource(plans)
    snapshots = source.snapshots()
    await snapshot(snapshots)
    os.rename(plans, tmp_path / "away")  # noqa: PTH104 - the file descriptor's view is meant
    assert not source._look()
    (tmp_path / "away").rename(plans)
    put(plans / "b.yaml", manifest(plan("ns.b")))
    assert set((await snapshot(snapshots)).plans) == {"ns.a", "ns.b"}
