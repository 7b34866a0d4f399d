"""A world with daemons, and an operator that runs as its Deployment wants it to."""

from __future__ import annotations

from tests.api.operator.conftest import operator, own_plane, world

__all__ = ["operator", "own_plane", "world"]
