"""A world with daemons, and an operator that runs as its Deployment wants it to."""

from __future__ import annotations

from tests.api.operator.conftest import operator, world

__all__ = ["operator", "world"]
