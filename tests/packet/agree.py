"""Runs a frame and holds the program to the oracle."""

from __future__ import annotations

from collections import Counter

from tests.packet.harness import Harness
from tests.packet.oracle import Outcome, Scene, expect


def agree(harness: Harness, scene: Scene, frame: bytes) -> Outcome:
    """What the program did, which is what the oracle says."""
    expected = expect(scene, frame)
    harness.new_drops()
    run = harness.run(frame)
    drops = harness.new_drops() - Counter({"flows_full": 1})
    assert (run.verdict, run.frame) == (expected.verdict, expected.frame), frame.hex()
    assert drops == Counter([expected.drop] if expected.drop else []), frame.hex()
    return expected
