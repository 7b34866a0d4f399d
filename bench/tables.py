"""Maglev tables: how even, how much moves, how long it takes.

python -m bench.tables [--png CURVE.png] [--simulate SEEDS]
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
from dsr_node.table import backend_key, fill, first_table, handles_of, next_table, wanted
from rich.console import Console
from rich.table import Table

from tests.model.simulation import play

SIZES = (1021, 4093, 16381, 65537)
DEFAULT_SIZE = 4093
COUNTS = (2, 3, 5, 10, 25, 100, 1000)
SEEDS = 5
console = Console()


def backends(count: int) -> tuple[list[bytes], list[int]]:
    """Backends of equal weight."""
    return [backend_key(f"10.{i >> 8}.{i & 255}.1", f"uid-{i}") for i in range(count)], [1] * count


def grid(title: str, cell: Callable[[int, int], str], counts: tuple[int, ...] = COUNTS) -> None:
    """A table of sizes by numbers of backends."""
    table = Table("slots", *(f"n={count}" for count in counts), title=title, title_justify="left")
    for size in SIZES:
        table.add_row(f"{size:,}", *(cell(size, count) for count in counts))
    console.print(table)


def imbalance(size: int, count: int) -> float:
    """How far the fullest backend is above the mean: a share of the mean, worst of the seeds."""
    worst = 0.0
    for seed in range(SEEDS):
        slots = np.bincount(fill(*backends(count), seed, size), minlength=count)
        worst = max(worst, float(slots.max() / slots.mean()) - 1)
    return worst


def disruption(size: int, count: int) -> float:
    """Slots moved when one of `count` leaves the plan, times 1/count; mean of the seeds."""
    keys, weights = backends(count)
    moved = []
    for seed in range(SEEDS):
        before = fill(keys, weights, seed, size)
        after = fill(keys, [0, *weights[1:]], seed, size)
        moved.append(float((before != after).mean()))
    return statistics.mean(moved) * count


def failed_share(size: int, count: int, failures: int) -> tuple[float, float]:
    """Backends fail one after another: slots moved over slots lost, and the imbalance then."""
    keys, weights = backends(count)
    before = fill(keys, weights, 1, size)
    moved = lost = 0
    for failed in range(1, failures + 1):
        after = wanted(keys, weights, range(failed), 1, size)
        moved += int((before != after).sum())
        lost += int((before == failed - 1).sum())
        before = after
    left = np.bincount(before, minlength=count)[failures:]
    return moved / lost, float(left.max() / left.mean()) - 1


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """The median time of one call."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def show_failures() -> None:
    """Whether more than a failed backend's slots move."""
    table = Table(
        "slots",
        "backends",
        "failed, one by one",
        "moved / lost (goal: 1)",
        "imbalance of the rest",
        title="A failed backend loses exactly its share",
        title_justify="left",
    )
    for size, count, failures in ((4093, 10, 1), (4093, 10, 5), (16381, 100, 10), (65537, 100, 10)):
        ratio, uneven = failed_share(size, count, failures)
        table.add_row(f"{size:,}", str(count), str(failures), f"{ratio:.3f}", f"{uneven:.1%}")
    console.print(table)


def show_times() -> None:
    """Fills by size and backends."""
    chance = np.random.default_rng(1)
    floors = {size: seconds(partial(chance.permutation, size)) for size in SIZES}

    def cell(size: int, count: int) -> str:
        keys, weights = backends(count)
        taken = seconds(lambda: fill(keys, weights, 1, size))
        return f"{taken * 1000:.2f} ms ({taken / floors[size]:.1f})"

    grid(
        "Fill time, median; in brackets over the floor, a numpy permutation of the same table"
        " (goal: 65,537 x 1,000 < 100 ms)",
        cell,
        (10, 100, 1000),
    )


def show_whole_node() -> None:
    """What a daemon does at its start, and at a change that concerns every service."""
    keys, weights = backends(10)
    handles = range(1, 11)
    services = 2000
    want = [handles_of(fill(keys, weights, seed, DEFAULT_SIZE), handles) for seed in range(8)]
    tables = [first_table(each, None, 0, 0) for each in want]
    busy = np.zeros(DEFAULT_SIZE, dtype=bool)
    work: dict[str, Callable[[int], object]] = {
        "fill": lambda i: fill(keys, weights, i, DEFAULT_SIZE),
        "wanted, one backend failed": lambda i: wanted(keys, weights, {3}, i, DEFAULT_SIZE),
        "wanted, half of them failed": lambda i: wanted(keys, weights, range(5), i, DEFAULT_SIZE),
        "next_table": lambda i: next_table(tables[i % 8], want[i % 7], handles, busy, 9, 900),
    }
    table = Table("step", "seconds", title="2,000 services x 10 backends, 4,093 slots each")
    for name, step in work.items():
        start = time.perf_counter()
        for service in range(services):
            step(service)
        table.add_row(name, f"{time.perf_counter() - start:.2f}")
    console.print(table)


def show_simulation(seeds: int) -> None:
    """The model of tests/model: which flows broke, and by which allowance of the slot rules."""
    flows, allowed = 0, Counter[str]()
    for seed in range(seeds):
        world = play(seed, room=10**9 if seed % 2 else 40)
        flows += world.counted["flows"]
        allowed += world.allowed
    table = Table("flows broken", "why", title=f"{flows:,} flows of {seeds} random worlds")
    table.add_row("0", "no allowed reason (the simulation stops at the first)")
    for reason, count in allowed.most_common():
        table.add_row(f"{count:,}", reason)
    console.print(table)


def draw(path: Path) -> None:
    """The disruption curve of each size class."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to load, and seldom asked for)

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for size in SIZES:
        axes.plot(COUNTS, [disruption(size, count) for count in COUNTS], "o-", label=f"{size:,}")
    axes.axhline(1.25, color="grey", linestyle=":", label="goal for n <= 10")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="backends n",
        ylabel="slots moved when one leaves, times 1/n",
        title="Disruption of a Maglev table",
    )
    axes.legend(title="slots")
    figure.savefig(path, dpi=120)
    console.print(f"curve drawn: {path}")


@click.command()
@click.option("--png", type=click.Path(path_type=Path), help="Draw the disruption curve there.")
@click.option("--simulate", type=click.IntRange(min=0), default=0, help="Random worlds to play.")
def main(png: Path | None, simulate: int) -> None:
    """Print what the tables of this machine are worth."""
    grid(
        "Imbalance: fullest backend above the mean (goal: < 2 % at 4,093 and n=10)",
        lambda size, count: f"{imbalance(size, count):.2%}",
    )
    grid(
        "Disruption: slots moved when one of n leaves the plan, times 1/n"
        " (goal: <= 1.25 at 4,093 and n <= 10)",
        lambda size, count: f"{disruption(size, count):.2f}",
    )
    show_failures()
    show_times()
    show_whole_node()
    if simulate:
        show_simulation(simulate)
    if png:
        draw(png)


if __name__ == "__main__":
    main()
