"""How the node daemon and the operator grow with the number of services.

    python -m bench.scale

The daemon runs with plans from a directory, in a machine of its own that is the only LB node; the
operator on a real API server, with simulated daemons on 2 LB nodes and as many backend nodes as a
service has. Every size starts from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from rich.console import Console

from bench import report, scale_node, scale_operator
from bench.labs import ended_by_sigterm
from bench.scale_node import NodeScale
from bench.scale_operator import OperatorScale
from lab.laboratory import require_built
from lab.progress import ConsoleProgress

SIZES = (250, 500, 1000, 2000)
GOAL = 5.0
"""Seconds of a cold start at the largest size."""

T = TypeVar("T")
Rows = Sequence[tuple[str, Callable[[T], float], str]]
"""Name, value and format of each row."""

NODE_ROWS: Rows[NodeScale] = (
    ("cold start: all plans in the kernel, s", lambda s: s.ready, ".2f"),
    ("CPU time of it, s", lambda s: s.cpu, ".2f"),
    ("cold start: all VIPs announced, s", lambda s: s.announced, ".2f"),
    ("restart, maps pinned, s", lambda s: s.restarted, ".2f"),
    ("idle, % of one CPU", lambda s: s.idle_percent, ".1f"),
    ("memory of its own, MB", lambda s: s.memory.own, ".0f"),
    ("RSS, mapped tables included, MB", lambda s: s.memory.rss, ".0f"),
    ("BPF maps, MB", lambda s: s.maps, ".0f"),
)
OPERATOR_ROWS: Rows[OperatorScale] = (
    ("start with all compiled: each looked at, s", lambda s: s.restarted, ".2f"),
    ("CPU time of it, s", lambda s: s.cpu, ".2f"),
    ("from nothing to all Ready, s", lambda s: s.all_ready, ".1f"),
    ("CPU time of it, s", lambda s: s.all_ready_cpu, ".1f"),
    ("idle, % of one CPU", lambda s: s.idle_percent, ".1f"),
    ("RSS, MB", lambda s: s.memory.rss, ".0f"),
)


def show(title: str, sizes: Sequence[int], results: Sequence[T], rows: Rows[T]) -> None:
    """The table. Its last column is the largest size over the one before: what grows linearly from
    a constant part on grows by no more than the sizes do."""
    grown = f"x {sizes[-1] / sizes[-2]:g} services" if len(sizes) > 1 else ""
    table = report.table(title, "", *(f"{size}" for size in sizes), grown)
    for name, value, style in rows:
        values = [value(result) for result in results]
        factor = f"x {values[-1] / values[-2]:.1f}" if len(values) > 1 and values[-2] else ""
        table.add_row(name, *(f"{each:{style}}" for each in values), factor)
    report.console().print(table)


def goal(name: str, size: int, seconds: float) -> None:
    """The line below a table."""
    what = f"{name} with {size} services < {GOAL:.0f} s"
    report.goal(report.console(), what, f"{seconds:.2f} s", reached=seconds < GOAL)


@click.command()
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True)
@click.option("--backends", default=10, show_default=True, help="backends of each service")
@click.option("--idle", default=20.0, show_default=True, help="seconds for which idling is watched")
@click.option("--only", type=click.Choice(["node", "operator"]), help="one of the two")
def main(sizes: str, backends: int, idle: float, only: str | None) -> None:
    """Start, memory and idle CPU of the two programs, by the number of services."""
    require_built()
    numbers = [int(size) for size in sizes.split(",")]
    progress = ConsoleProgress(Console(stderr=True))

    def each(name: str, measure: Callable[[int, int, float], T]) -> list[T]:
        results = []
        for size in numbers:
            with progress.step(f"{name}, {size} services x {backends} backends"):
                results.append(measure(size, backends, idle))
        return results

    with ended_by_sigterm():
        if only != "operator":
            nodes = each("node daemon", scale_node.measure)
            show(f"Node daemon, services x {backends} backends", numbers, nodes, NODE_ROWS)
            goal("cold start of the daemon", numbers[-1], nodes[-1].ready)
        if only != "node":
            operators = each("operator", scale_operator.measure)
            show(f"Operator, services x {backends} backends", numbers, operators, OPERATOR_ROWS)
            goal("start of the operator", numbers[-1], operators[-1].restarted)


if __name__ == "__main__":
    main()
