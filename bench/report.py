"""How results are shown: distributions and ratios, with the goal and the verdict beside them."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def verdict(reached: bool) -> str:  # noqa: FBT001  the result itself
    """What stands beside a goal."""
    return "[green]reached[/green]" if reached else "[bold red]missed[/bold red]"


def goal(out: Console, what: str, found: str, *, reached: bool) -> None:
    """A line with a goal and what was found."""
    out.print(f"Goal {what}. Found {found}: {verdict(reached)}")


def table(title: str, *columns: str) -> Table:
    """An empty table: names on the left, numbers to the right, and below it where they are from."""
    made = Table(title=title, title_justify="left", caption=machine(), caption_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def machine() -> str:
    """What was measured on, and how busy it is: the first thing to look at in a bad result."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} CPUs, load average {load:.1f}, Linux {platform.release()}"


def console() -> Console:
    """Where results go. Wide enough for every table, also into a file."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=120)
