"""Which pool and which backend an index in the maps stands for: 16 bytes that survive a restart."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from dsr_node.subsystems.xdp.state import BackendKey, Pool


def pool_identity(pool: Pool) -> bytes:
    """What decides which slot a flow falls into is part of it: a change makes another pool."""
    return _pool_identity(pool.key.plan, pool.key.family, pool.seed, pool.size, pool.table_version)


@lru_cache(maxsize=1 << 15)
def _pool_identity(plan: str, family: int, seed: int, size: int, version: int) -> bytes:
    parts = repr((plan, family, seed, size, version)).encode()
    return blake2b(parts, digest_size=16, person=b"dsr pool").digest()


@lru_cache(maxsize=1 << 17)
def backend_identity(key: BackendKey) -> bytes:
    """Of a backend within its pool."""
    return blake2b(bytes(key), digest_size=16, person=b"dsr backend").digest()
