"""Plans from files: one that is no plan is told by name and stops no other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import yaml
from dsr_api.plan import DSRPlan
from dsr_node.source import Snapshot
from dsr_node.source.directory import DirectorySource, PlanFileError, parse

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
    second = await snapshot(snapshots)
    assert set(second.plans) == {"ns.b"}
    assert second.plans["ns.b"] is first.plans["ns.b"], "an unchanged plan is the same object"
    assert second.complete


async def test_a_file_written_again_without_a_change_is_the_same_plan(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    snapshots = DirectorySource(tmp_path).snapshots()
    first = await snapshot(snapshots)
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    assert (await snapshot(snapshots)).plans["ns.a"] is first.plans["ns.a"]


async def test_a_bad_file_keeps_its_last_good_version(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", manifest(plan("ns.a")))
    put(tmp_path / "b.yaml", manifest(plan("ns.b")))
    snapshots = DirectorySource(tmp_path).snapshots()
    await snapshot(snapshots)
    put(tmp_path / "a.yaml", "nonsense: [")
    put(tmp_path / "b.yaml", manifest(plan("ns.b", ports=(81,))))
    second = await snapshot(snapshots)
    assert second.plans["ns.a"] == plan("ns.a")
    assert second.plans["ns.b"].spec.frontends[0].port == 81
    (refused,) = second.refused
    assert (refused.plan, refused.reason) == ("ns.a", "Unreadable")
    assert refused.message.startswith("a.yaml: not YAML")
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
