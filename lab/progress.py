"""Tells a person what is being done, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console


class Progress(Protocol):
    """Something to tell steps to."""

    def step(self, what: str) -> AbstractContextManager[None]:
        """Used as `with progress.step("nodes"):`; the end of the block is the end of the step."""
        ...


class ConsoleProgress:
    """A spinner while a step goes on, and a line when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step; a step that fails is marked as such."""
        started = time.monotonic()
        try:
            with self._console.status(what):
                yield
        except BaseException:
            self._console.print(f"  [red]✗[/red] {what}")
            raise
        took = f"{time.monotonic() - started:.1f} s"
        self._console.print(f"  [green]✓[/green] {what} [dim]{took}[/dim]")


class Silence:
    """For tests."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:  # noqa: ARG002  the protocol's signature
        """Nothing but the step."""
        yield
