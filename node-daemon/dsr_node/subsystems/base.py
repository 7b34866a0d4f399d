"""What subsystems share: the difference of two sets, and a small file that survives a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What to add, and what of ours to remove. Adding comes first, over all subsystems."""

    add: frozenset[T] = frozenset()
    remove: frozenset[T] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def difference(wanted: frozenset[T], held: frozenset[T], ours: frozenset[T]) -> Change[T]:
    """What turns `held` into `wanted`, leaving alone what is not ours."""
    return Change(add=wanted - held, remove=ours - wanted)


class SubsystemError(Exception):
    """Part of a change could not be carried out; the text says what and what to do about it."""


class Record:
    """A small JSON object on disk: what the daemon must know to undo its own doing.

    It is on the disk before the kernel is touched, and written by rename, so that a crash at any
    moment leaves the old or the new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str]:
        """What was written last; empty when nothing was.

        Raises SubsystemError for a damaged file: guessing would lose what was there before us.
        """
        try:
            value = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise SubsystemError(
                f"{self._path} is damaged ({error}); mend it, or remove it if the values it kept "
                "need not be restored"
            ) from error
        return {str(k): str(v) for k, v in value.items()}

    def write(self, value: Mapping[str, str]) -> None:
        """Replaces the record; an empty one removes the file."""
        if not value:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump(value, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
