"""The one exception type of the lab."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can act upon went wrong; the message says what to do."""
