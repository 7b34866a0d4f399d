"""What the types of a plan do not say. Pure.

A source asks this, so that no plan with an impossible value takes the place of its last good one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches

from dsr_api.plan import TABLE_VERSION, DSRPlan, DSRPlanSpec, PlanBackend
from msgspec import inspect

from dsr_node.table import MAX_WEIGHT, fill

_SECONDS = 2**31 - 1


class InvalidPlanError(ValueError):
    """A plan with an impossible value; the text names the field by its path."""


def checked(plan: DSRPlan) -> DSRPlan:
    """The plan, if its values are possible. Raises InvalidPlanError for the first that is not."""
    for fault in _faults(plan.spec):
        raise InvalidPlanError(fault)
    return plan


def _faults(spec: DSRPlanSpec) -> Iterator[str]:
    for i, vip in enumerate(spec.vips):
        yield from _address(f"spec.vips[{i}]", vip)
    for i, frontend in enumerate(spec.frontends):
        yield from _address(f"spec.frontends[{i}].vip", frontend.vip)
        yield from _range(f"spec.frontends[{i}].port", frontend.port, 1, 65535)
    for i, director in enumerate(spec.directors):
        for j, address in enumerate(director.addresses):
            yield from _address(f"spec.directors[{i}].addresses[{j}]", address)
    yield from _backends("spec.backends", spec.backends)
    yield from _backends("spec.previousBackends", spec.previous_backends)
    if spec.backends_changed_at is not None:
        yield from _time("spec.backendsChangedAt", spec.backends_changed_at)
    if len(spec.hash_seed) != 16 or not set(spec.hash_seed.lower()) <= set("0123456789abcdef"):
        yield f"spec.hashSeed: {spec.hash_seed!r} is not 16 hex digits"
    if spec.table_version == TABLE_VERSION:  # of another one only the version is told
        yield from _table_size("spec.tableSize", spec.table_size)
    idle = spec.flow_idle_timeout
    yield from _range("spec.flowIdleTimeout.tcpSeconds", idle.tcp_seconds, 1, _SECONDS)
    yield from _range("spec.flowIdleTimeout.udpSeconds", idle.udp_seconds, 1, _SECONDS)


def _backends(path: str, backends: Sequence[PlanBackend]) -> Iterator[str]:
    for i, backend in enumerate(backends):
        yield from _address(f"{path}[{i}].address", backend.address)
        yield from _range(f"{path}[{i}].weight", backend.weight, 0, MAX_WEIGHT)


def _address(path: str, text: str) -> Iterator[str]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        yield f"{path}: {text!r} is no IP address"


def _range(path: str, number: int, low: int, high: int) -> Iterator[str]:
    if not low <= number <= high:
        yield f"{path}: {number} is not in {low} to {high}"


def _table_size(path: str, size: int) -> Iterator[str]:
    try:
        fill((), (), 0, size)
    except ValueError as error:
        yield f"{path}: {error}"


def _time(path: str, text: str) -> Iterator[str]:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        yield f"{path}: {text!r} is no RFC 3339 time"


def unknown_field(document: Mapping[str, object]) -> str:
    """The first field of a plan's spec that no plan has, with the one probably meant; "" if none.

    For files that people write. What an API server hands out it has pruned itself, and an older
    daemon must live with the fields of a newer operator.
    """
    spec = document.get("spec", {})
    return next(_unknown(spec, inspect.type_info(DSRPlanSpec), "spec"), "")


def _unknown(value: object, model: inspect.Type, path: str) -> Iterator[str]:
    if isinstance(model, inspect.StructType) and isinstance(value, Mapping):
        known = {field.encode_name: field.type for field in model.fields}
        for key, inner in value.items():
            if key in known:
                yield from _unknown(inner, known[key], f"{path}.{key}")
                continue
            meant = get_close_matches(str(key), known, n=1)
            yield f"{path}.{key}: no such field" + (f"; {meant[0]!r} is meant?" if meant else "")
    elif isinstance(model, inspect.VarTupleType) and isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _unknown(inner, model.item_type, f"{path}[{i}]")
