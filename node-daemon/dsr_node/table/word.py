"""The words of the maps: a backend's handle (31 bits) and a slot (one u64).

Their bits are those of docs/architecture.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ID_BITS = 20
GENERATION_BITS = 11
MAX_ID = (1 << ID_BITS) - 1
MAX_GENERATION = (1 << GENERATION_BITS) - 1
NO_HANDLE = 0
"""The handle of nobody. Id 0 is never given to a backend."""

_HANDLE_MASK = 0x7FFFFFFF
_SETTLED_SHIFT = 32
_MOVED_SHIFT = 63


class Words(NamedTuple):
    """Slots taken apart: arrays of one length."""

    current: NDArray[np.uint32]
    settled: NDArray[np.uint32]
    moved: NDArray[np.bool_]


def handle(generation: int, backend_id: int) -> int:
    """The handle of a backend. Raises ValueError where a part does not fit."""
    if not (0 <= generation <= MAX_GENERATION and 0 < backend_id <= MAX_ID):
        raise ValueError(
            f"generation {generation}, id {backend_id}: a generation is at most {MAX_GENERATION},"
            f" an id from 1 to {MAX_ID}"
        )
    return generation << ID_BITS | backend_id


def backend_id(of: int) -> int:
    """The id in a handle: the index in the map `backends`."""
    return of & MAX_ID


def generation(of: int) -> int:
    """The generation in a handle."""
    return of >> ID_BITS


def pack(
    current: NDArray[np.uint32], settled: NDArray[np.uint32], moved: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """Slots from their parts."""
    words: NDArray[np.uint64] = current.astype(np.uint64)
    words |= settled.astype(np.uint64) << np.uint64(_SETTLED_SHIFT)
    words |= moved.astype(np.uint64) << np.uint64(_MOVED_SHIFT)
    return words


def unpack(words: NDArray[np.uint64]) -> Words:
    """Slots taken apart."""
    return Words(
        current=(words & np.uint64(_HANDLE_MASK)).astype(np.uint32),
        settled=(words >> np.uint64(_SETTLED_SHIFT) & np.uint64(_HANDLE_MASK)).astype(np.uint32),
        moved=words >> np.uint64(_MOVED_SHIFT) != 0,
    )
