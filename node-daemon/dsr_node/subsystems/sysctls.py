"""Values below /proc/sys/net that a node with VIPs needs, and their way back.

The value found before our first write is recorded first, and restored when no plan needs ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsr_node.subsystems.base import Change, Record, SubsystemError


@dataclass(frozen=True, slots=True)
class Held:
    """Values in the kernel now, and the values from before us, both by path; a key whose interface
    has gone is in neither."""

    now: Mapping[str, int] = field(default_factory=dict)
    former: Mapping[str, int] = field(default_factory=dict)


class Sysctls:
    """Paths are relative to `root` (/proc/sys/net): "ipv4/conf/all/arp_ignore"."""

    name = "sysctls"

    def __init__(self, root: Path, state_dir: Path) -> None:
        self._root = root
        self._record = Record(state_dir / "sysctls.json")

    def read(self, wanted: Iterable[str]) -> Held:
        """What the kernel has for the wanted keys and for those we have changed."""
        former = {key: int(value) for key, value in self._record.read().items()}
        now = {}
        for key in {*wanted, *former}:
            try:
                now[key] = int((self._root / key).read_text())
            except FileNotFoundError:
                former.pop(key, None)
        return Held(now, former)

    def diff(self, wanted: Mapping[str, int], held: Held) -> Change[tuple[str, int]]:
        """Raises what is lower than wanted; restores what is no longer wanted.

        A wanted value is a least value, as the kernel takes the maximum of "all" and the interface
        (Documentation/networking/ip-sysctl.rst): an administrator's stricter one stays.
        """
        raised = {(k, v) for k, v in wanted.items() if held.now.get(k, v) < v}
        restored = {(k, v) for k, v in held.former.items() if k not in wanted}
        return Change(frozenset(raised), frozenset(restored))

    def add(self, values: Iterable[tuple[str, int]]) -> None:
        """Sets values, the former ones being recorded before. Raises SubsystemError."""
        record = self._record.read()
        todo = sorted(values)
        known = dict(record)
        for key, _ in todo:
            known.setdefault(key, (self._root / key).read_text().strip())
        if known != record:
            self._record.write(known)
        for key, value in todo:
            self._write(key, value)

    def remove(self, values: Iterable[tuple[str, int]]) -> None:
        """Sets former values and forgets them, and those of interfaces that have gone: another one
        that comes by that name has its own. Raises SubsystemError."""
        todo = dict(values)
        for key, value in sorted(todo.items()):
            self._write(key, value)
        record = self._record.read()
        kept = {k: v for k, v in record.items() if k not in todo and (self._root / k).exists()}
        if kept != record:
            self._record.write(kept)

    def _write(self, key: str, value: int) -> None:
        try:
            (self._root / key).write_text(str(value))
        except OSError as error:
            raise SubsystemError(
                f"cannot set {self._root / key} to {value}: {error.strerror}; the daemon needs "
                "write access to it (in a pod: a hostPath of /proc/sys/net and NET_ADMIN)"
            ) from error
