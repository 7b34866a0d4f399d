"""The table fill in C (node-daemon/native/maglev.c), called by ctypes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LIBRARY = Path(__file__).parent.parent / "built" / "libmaglev.so"


def maglev_fill(
    hashes: NDArray[np.uint64], weights: NDArray[np.uint32], size: int
) -> NDArray[np.int32]:
    """The table of these backends: int32[size], an index or -1 where nobody has a weight.

    `hashes` is uint64[n, 2] and `weights` uint32[n] (0 to 65535), both contiguous; `size` is a
    prime. Raises MemoryError, and OSError when the library has not been built.
    """
    table = np.empty(size, dtype=np.int32)
    failure = _library().maglev_fill(
        hashes.ctypes.data, weights.ctypes.data, len(weights), size, table.ctypes.data
    )
    if failure:
        raise MemoryError(f"no memory to fill a table from {len(weights)} backends")
    return table


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise OSError(
            f"cannot load the table fill, build it with `make native`: {error}"
        ) from error
    library.maglev_fill.restype = ctypes.c_int
    library.maglev_fill.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.c_void_p,
    ]
    return library
