"""The watch's state machine against sequences of events as an API server sends them."""

from __future__ import annotations

import json

import msgspec
import pytest
from dsr_node.api.client import WatchEvent
from dsr_node.api.errors import GoneError
from dsr_node.api.watch import Mirror
from hypothesis import given
from hypothesis import strategies as st


def thing(name: str, version: int, value: int = 0) -> msgspec.Raw:
    metadata = {"resourceVersion": str(version)} | ({"name": name} if name else {})
    return msgspec.Raw(json.dumps({"metadata": metadata, "value": value}).encode())


def event(kind: str, name: str, version: int, value: int = 0) -> WatchEvent:
    return WatchEvent(kind, thing(name, version, value))


def value_of(item: bytes) -> list[int]:
    # A list, so that identity tells whether it was decoded anew.
    return [json.loads(item)["value"]]


def mirror(*items: msgspec.Raw, revision: int = 100) -> Mirror[list[int]]:
    made = Mirror(value_of)
    made.listed(items, revision)
    return made


def test_events_add_change_and_remove() -> None:
    seen = mirror(thing("a", 5, 1))
    assert seen.event(event("ADDED", "b", 101, 2))
    assert seen.event(event("MODIFIED", "a", 102, 3))
    assert seen.objects == {"a": [3], "b": [2]}
    assert seen.event(event("DELETED", "b", 103, 2))
    assert seen.objects == {"a": [3]}
    assert seen.revision == 103


def test_a_bookmark_has_no_name_and_moves_the_revision_alone() -> None:
    seen = mirror(thing("a", 5, 1))
    assert not seen.event(event("BOOKMARK", "", 900))
    assert seen.objects == {"a": [1]}
    assert seen.revision == 900


def test_a_list_removes_what_it_lacks() -> None:
    seen = mirror(thing("a", 5), thing("b", 6))
    assert seen.listed([thing("b", 6)], 200)
    assert set(seen.objects) == {"b"}


def test_a_list_that_says_the_same_changes_nothing_and_decodes_nothing() -> None:
    seen = mirror(thing("a", 5, 1))
    before = seen.objects["a"]
    assert not seen.listed([thing("a", 5, 1)], 200)
    assert seen.objects["a"] is before
    assert seen.revision == 200


def test_deleted_and_made_again_is_there() -> None:
    seen = mirror(thing("a", 5, 1))
    seen.event(event("DELETED", "a", 101))
    seen.event(event("ADDED", "a", 102, 9))
    assert seen.objects == {"a": [9]}


def test_a_revision_that_goes_back_means_list_again_and_a_list_may_go_back() -> None:
    seen = mirror(thing("a", 5))
    with pytest.raises(GoneError, match="went back"):
        seen.event(event("ADDED", "b", 99))
    assert set(seen.objects) == {"a"}
    seen.listed([thing("c", 7)], 50)
    assert seen.revision == 50


NAMES = st.sampled_from("abcd")


@given(st.lists(st.tuples(st.sampled_from(["write", "delete"]), NAMES, st.integers(0, 9))))
def test_watching_ends_where_listing_would(steps: list[tuple[str, str, int]]) -> None:
    truth: dict[str, int] = {}
    watched = mirror(revision=1)
    for version, (what, name, value) in enumerate(steps, start=2):
        if what == "write":
            kind = "MODIFIED" if name in truth else "ADDED"
            truth[name] = value
            watched.event(event(kind, name, version, value))
        elif truth.pop(name, None) is not None:
            watched.event(event("DELETED", name, version))
    assert watched.objects == {name: [value] for name, value in truth.items()}
