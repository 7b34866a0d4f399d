"""What a lab was made with, kept in its directory, and the machines that follow from it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from lab import names, network
from lab.controlplane.files import write_private
from lab.errors import LabError
from lab.names import Home
from lab.namespaces import Namespaces
from lab.node import NamespaceNode


@dataclass(frozen=True)
class Settings:
    """`host_link` is the number of the cable between host and hub, one of its own in each lab."""

    lbs: int
    backends: int
    host_link: int

    @classmethod
    def create(cls, home: Home, lbs: int, backends: int) -> Settings:
        """Choose a cable and write all down. Raises LabError if the lab is there already."""
        names.members(lbs, backends)
        with _all_labs_locked():
            if home.settings.exists():
                raise LabError(f"lab {home.name} is there already: `lab down` removes it")
            settings = cls(lbs, backends, network.free_host_link(_taken_links()))
            write_private(home.settings, json.dumps(asdict(settings)).encode())
        return settings

    @classmethod
    def load(cls, home: Home) -> Settings:
        """Raises LabError if there is no such lab."""
        try:
            return cls(**json.loads(home.settings.read_bytes()))
        except FileNotFoundError:
            raise LabError(f"there is no lab {home.name}: `lab up` makes one") from None

    def hub(self, home: Home) -> Namespaces:
        """The machine in the middle."""
        return Namespaces("hub", home.node("hub"))

    def nodes(self, home: Home) -> tuple[NamespaceNode, ...]:
        """All members but the hub."""
        hub = self.hub(home)
        members = names.members(self.lbs, self.backends)
        return tuple(NamespaceNode(each, home.node(each.name), hub) for each in members)


def lab_names() -> list[str]:
    """All labs of this user."""
    return sorted(each.parent.name for each in names.state_root().glob("*/lab.json"))


def _taken_links() -> set[int]:
    return {Settings.load(Home(each)).host_link for each in lab_names()}


@contextmanager
def _all_labs_locked() -> Iterator[None]:
    """One process at a time chooses a cable."""
    root = names.state_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
