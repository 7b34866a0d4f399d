from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from dsr_api.base import Metadata
from dsr_api.plan import DSRPlan, DSRPlanSpec, PlanService
from dsr_node.source import disk
from dsr_node.source.disk import PlanFiles, Saver


def plan(name: str, version: int = 1) -> DSRPlan:
    return DSRPlan(
        metadata=Metadata(name=name, resource_version=str(version)),
        spec=DSRPlanSpec(service=PlanService("shop", name), vips=("192.0.2.1",)),
    )


def by_name(*plans: DSRPlan) -> dict[str, DSRPlan]:
    return {each.metadata.name: each for each in plans}


def files(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.iterdir()}


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    plans = by_name(plan("shop.web"), plan("shop.api"), plan("a." + "x" * 251))
    PlanFiles(tmp_path / "plans").store(plans, 17)
    saved = PlanFiles(tmp_path / "plans").load()
    assert (saved.plans, saved.revision) == (plans, 17)


def test_nothing_there(tmp_path: Path) -> None:
    saved = PlanFiles(tmp_path / "none").load()
    assert (saved.plans, saved.revision) == ({}, 0)


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    kept = PlanFiles(tmp_path)
    kept.store(by_name(plan("shop.a"), plan("shop.b"), plan("shop.c")), 1)
    before = files(tmp_path)
    kept.store(by_name(plan("shop.a"), plan("shop.b", 2)), 2)
    after = files(tmp_path)
    same = {name for name in before if after.get(name) == before[name]}
    assert len(same) == 1
    assert next(iter(same)).startswith("shop.a")
    assert not any(name.startswith("shop.c") for name in after)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 300, b"{}", b'{"metadata": {"name": 5}}', b"\xff"]
)
def test_a_damaged_file_is_told_and_left_out_and_mended_later(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    plans = by_name(plan("shop.a"), plan("shop.b"))
    PlanFiles(tmp_path).store(plans, 5)
    damaged = next(tmp_path.glob("shop.a*"))
    damaged.write_bytes(content)
    kept = PlanFiles(tmp_path)
    assert set(kept.load().plans) == {"shop.b"}
    assert str(damaged) in caplog.text
    kept.store(plans, 6)
    assert PlanFiles(tmp_path).load().plans == plans


def test_a_damaged_revision_is_none(tmp_path: Path) -> None:
    PlanFiles(tmp_path).store(by_name(plan("shop.a")), 5)
    (tmp_path / "revision").write_text("?")
    assert PlanFiles(tmp_path).load().revision == 0


def test_a_file_half_written_by_a_crash_is_swept(tmp_path: Path) -> None:
    (tmp_path / "shop.a-0.json.new").write_bytes(b"{")
    kept = PlanFiles(tmp_path)
    assert kept.load().plans == {}
    kept.store({}, 1)
    assert set(files(tmp_path)) == {"revision"}


async def test_changes_are_written_together_and_the_last_ones_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "DEBOUNCE", 0.05)
    stores: list[int] = []

    class Counted(PlanFiles):
        def store(self, plans: object, revision: int) -> None:
            stores.append(revision)

    saver = Saver(Counted(tmp_path))
    task = asyncio.create_task(saver.run())
    for revision in range(5):
        saver.save({}, revision)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not stores:  # noqa: ASYNC110 - written by a thread
            await asyncio.sleep(0.01)
    saver.save({}, 9)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stores == [4, 9]


async def test_a_full_disk_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(disk, "DEBOUNCE", 0.0)
    (tmp_path / "file").write_text("in the way")
    saver = Saver(PlanFiles(tmp_path / "file"))
    task = asyncio.create_task(saver.run())
    saver.save(by_name(plan("shop.a")), 1)
    async with asyncio.timeout(5):
        while "cannot be kept" not in caplog.text:  # noqa: ASYNC110 - a log sets no event
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
