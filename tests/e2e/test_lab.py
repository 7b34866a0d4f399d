"""The lab itself: it leaves nothing behind, and two of them do not see each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import network
from lab.errors import LabError
from lab.laboratory import Lab
from lab.names import Home
from lab.progress import Silence
from lab.settings import lab_names
from tests.e2e.labs import new_lab


def _left_on_the_host(name: str) -> list[str]:
    """What a lab could leave behind: links, mounts, processes, files."""
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    left = [each["ifname"] for each in links if each["ifname"] == network.host_link_name(name)]
    directory = str(Home(name).directory)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left += [each for each in mounts if directory in each]
    left += [directory] if Path(directory).exists() else []
    return left + _processes(name)


def _processes(name: str) -> list[str]:
    """Command lines that name the lab's directory."""
    needle = str(Home(name).directory).encode()
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes()
        except OSError:
            continue  # it has ended since
        if needle in line and str(os.getpid()) not in each.parts:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def test_two_labs_side_by_side_and_nothing_is_left_of_them() -> None:
    first, second = new_lab(lbs=1, backends=1), new_lab(lbs=1, backends=2)
    try:
        first.up(Silence())
        second.up(Silence())
        for lab, nodes in ((first, 2), (second, 3)):
            assert len(lab.api.get("/api/v1/nodes")["items"]) == nodes
            assert lab.nodes["client"].run(["curl", "-s", "http://10.77.0.21/"]) == "rs1\n"
        with pytest.raises(LabError):
            first.nodes["client"].run(["ping", "-c1", "-W1", "10.77.0.22"])
        assert second.nodes["client"].run(["ping", "-c1", "-W1", "10.77.0.22"])
    finally:
        first.down()
        second.down()
    for lab in (first, second):
        assert not _left_on_the_host(lab.home.name)


@pytest.mark.parametrize("part", ["operator", "etcd", "lb1", "keeper"])
def test_down_after_parts_have_died(part: str) -> None:
    lab = new_lab(lbs=1, backends=1)
    try:
        lab.up(Silence())
        lab.kill_part(part)
    finally:
        lab.down()
    assert not _left_on_the_host(lab.home.name)


def test_down_after_up_was_killed_half_way() -> None:
    name = new_lab(lbs=1, backends=1).home.name
    script = (
        "from lab.laboratory import Lab; from lab.progress import Silence; "
        f"Lab.open({name!r}).up(Silence())"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    started = time.monotonic()
    while not (Home(name).control_plane / "state.json").exists():
        assert process.poll() is None
        assert time.monotonic() < started + 30
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    Lab.open(name).down()
    assert name not in lab_names()
    assert not _left_on_the_host(name)


def test_a_part_that_is_not_there_is_told_with_those_that_are() -> None:
    lab = new_lab(lbs=1, backends=1)
    try:
        with pytest.raises(LabError, match=r"no part 'rs9'.*rs1/web"):
            lab.kill_part("rs9")
        with pytest.raises(LabError, match="lab down"):
            Lab.create(lab.home.name, lbs=1, backends=1)
    finally:
        lab.down()
