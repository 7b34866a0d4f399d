"""Labs for the tests: one a module, of its own name, gone when the module is done."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab.diagnosis import diagnosis
from lab.laboratory import Lab
from lab.progress import Silence
from lab.settings import lab_names
from tests.e2e.labs import heal, new_lab


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> None:
    """Take away the labs of runs that have crashed."""
    for name in lab_names():
        made_by = re.fullmatch(r"t([0-9a-f]+)-\d+", name)
        if made_by and not Path(f"/proc/{int(made_by[1], 16)}").exists():
            Lab.open(name).down()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab without any service."""
    made = new_lab()
    try:
        made.up(Silence())
        yield made
    finally:
        made.down()


@pytest.fixture
def web(lab: Lab) -> Iterator[Lab]:
    """A lab in which all parts run and examples/web.yaml is served by all backends."""
    heal(lab)
    yield lab
    heal(lab)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the lab has to say beside a failure."""
    report = yield
    made = getattr(item, "funcargs", {}).get("lab")
    if call.excinfo and isinstance(made, Lab):
        report.sections += diagnosis(made)
    return report
