"""A many-to-many relation that can be asked from the other side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Index(Generic[K, V]):
    """Values, each under any number of keys; `index[key]` are the values under that key."""

    def __init__(self) -> None:
        self._keys: dict[V, frozenset[K]] = {}
        self._values: defaultdict[K, set[V]] = defaultdict(set)

    def put(self, value: V, keys: Iterable[K]) -> frozenset[K]:
        """File a value under `keys` and under no others. Returns the keys it was under or is."""
        new = frozenset(keys)
        old = self._keys.pop(value, frozenset())
        for key in old - new:
            self._values[key].discard(value)
            if not self._values[key]:
                del self._values[key]
        for key in new - old:
            self._values[key].add(value)
        if new:
            self._keys[value] = new
        return old | new

    def keys_of(self, value: V) -> frozenset[K]:
        """The keys of a value."""
        return self._keys.get(value, frozenset())

    def __getitem__(self, key: K) -> Set[V]:
        return frozenset(self._values.get(key, ()))
