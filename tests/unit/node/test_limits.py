"""How much the maps hold is an option, and a variable for the chart's `node.env`."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from dsr_node.main import limits_of
from dsr_node.subsystems.xdp.limits import Limits


def said(*arguments: str, **environment: str) -> str:
    @click.command()
    @limits_of
    def command(*, limits: Limits) -> None:
        click.echo(repr(limits))

    output: str = CliRunner().invoke(command, arguments, env=environment).output
    return output.strip()


def test_options_and_variables_set_limits() -> None:
    assert said() == repr(Limits())
    expected = Limits(backends=1 << 20, flows=99)
    assert said("--max-backends", str(1 << 20), DSR_MAX_FLOWS="99") == repr(expected)


@pytest.mark.parametrize("value", ["1", str((1 << 20) + 1), "many"])
def test_what_cannot_be_is_refused(value: str) -> None:
    assert "--max-backends" in said("--max-backends", value)


def test_every_map_of_a_limit_gets_it() -> None:
    limits = Limits(frontends=2, pools=3, backends=4, flows=5, vips=6, peers=7)
    assert set(limits.sizes().values()) == set(range(2, 8))
    assert Limits.of(limits.sizes()) == limits
    assert Limits.of({**limits.sizes(), "backend_owners": 2}).backends == 2
