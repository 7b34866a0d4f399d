"""Unix seconds to and from RFC 3339 texts of whole seconds, as the Kubernetes API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def to_rfc3339(seconds: float) -> str:
    """For example "2025-01-31T12:00:00Z"; a fraction is cut off."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> float:
    """Raises ValueError for any other text."""
    return datetime.fromisoformat(text).timestamp()
