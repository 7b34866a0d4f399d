"""Hypothesis by the number of examples, not by the clock: test machines are busy ones."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
