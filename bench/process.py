"""What a process uses, from /proc."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Memory:
    """Megabytes. `rss` counts pages of shared mappings, such as BPF maps, too; `own` does not."""

    rss: float
    own: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since it began. Raises OSError if it is gone."""
    # The name in parentheses may hold anything; the fields after it are numbers (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def idle_percent(pid: int, seconds: float) -> float:
    """Share of one CPU that a process takes in the next so many seconds."""
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - began)


def memory(pid: int) -> Memory:
    """What it takes now. Raises OSError if it is gone."""
    text = Path(f"/proc/{pid}/status").read_text()
    sizes = {name: int(size) * 1024 / MEGABYTE for name, size in _KILOBYTES.findall(text)}
    return Memory(sizes["VmRSS"], sizes["RssAnon"])


_KILOBYTES = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
