"""The packet tests once more on the oldest kernel we promise: 6.1, without BTF, without JIT, and
with a verifier that minds alignment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from lab import uml

ROOT = Path(__file__).parents[2]
NEED_VETH = ("test_native_where_the_driver_can", "test_an_interface_that_is_gone_and_back")
"""A module there, and no driver built in knows native XDP."""


@pytest.mark.timeout(280)
def test_the_packet_tests_pass_on_linux_6_1(tmp_path: Path) -> None:
    pytest_inside = [sys.executable, "-m", "pytest", "tests/packet", "-q", "-p", "no:cacheprovider"]
    pytest_inside += ["--ignore", __file__, "--basetemp", str(tmp_path / "inside")]
    pytest_inside += [f"--deselect=tests/packet/test_attach.py::{name}" for name in NEED_VETH]
    finished = uml.run(
        ["sh", "-c", f"uname -r; exec {' '.join(pytest_inside)}"],
        directory=ROOT,
        timeout=270,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert finished.output.startswith("6.1."), finished.output
    assert finished.status == 0, finished.output
    assert re.search(r"\d{3} passed", finished.output), finished.output
    assert "skipped" not in finished.output
