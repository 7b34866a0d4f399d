"""The one exception type of this package."""

from __future__ import annotations


class ControlPlaneError(Exception):
    """Something the caller can act upon went wrong; the message says what to do."""
