"""What every object of the API shares: names, the struct base and the codec.

The models are typed views of the CRDs beside this package (`crds/*.yaml`); a unit test holds the
two together. They carry no behaviour: deciding belongs to `dsr_operator` and `dsr_node`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

GROUP = "dsr-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

WITHDRAWAL_FINALIZER = f"{GROUP}/withdrawal"
"""Held on a DSRService until every node has let go of it."""

WEIGHT_ANNOTATION = f"{GROUP}/weight"
"""On a Node: its weight as a backend (0 to 65535; 0 drains; default 1)."""

UPLINK_ANNOTATION = f"{GROUP}/uplink"
"""On a Node: the name of the uplink interface, where the choice by route is wrong."""

OPERATOR_FIELD_MANAGER = "dsr-operator"
NODE_FIELD_MANAGER = "dsr-node"

LEASE_PREFIX = "dsr-node."
"""A node's liveness Lease is LEASE_PREFIX + node name, in the operator's own namespace."""

LEASE_DURATION = 15
"""Seconds after its last renewal for which a node's Lease is fresh."""

LEASE_RENEWAL = 5
"""Seconds between two renewals of a node's Lease."""


class ApiStruct(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, dict=False
):
    """Base of all models: immutable, comparable by value, camelCase on the wire."""


class OwnerReference(ApiStruct, frozen=True):
    """The part of a metav1.OwnerReference that this project reads."""

    kind: str
    uid: str


class Metadata(ApiStruct, frozen=True):
    """The part of ObjectMeta that this project reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class LabelSelectorRequirement(ApiStruct, frozen=True):
    """One expression of a label selector; operator is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(ApiStruct, frozen=True):
    """A Kubernetes label selector; the empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected.

        The rules are those of Kubernetes labels.Selector: NotIn and DoesNotExist also hold
        where the key is missing. Raises ValueError for an operator that Kubernetes lacks.
        """
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            _requirement_holds(r, labels) for r in self.match_expressions
        )


def _requirement_holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case "DoesNotExist":
            return requirement.key not in labels
        case other:
            raise ValueError(
                f"label selector operator {other!r} is none of In, NotIn, Exists, DoesNotExist"
            )


class Condition(ApiStruct, frozen=True, omit_defaults=False):
    """A metav1.Condition. `status` is True, False or Unknown; times are RFC 3339."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int


T = TypeVar("T", bound=ApiStruct)


def decode(model: type[T], document: Mapping[str, Any]) -> T:
    """A model from a parsed JSON or YAML document.

    Unknown fields are ignored: the API server has already pruned or refused them, and an older
    reader must survive a newer writer. Raises msgspec.ValidationError, whose text names the path.
    """
    return msgspec.convert(document, model, strict=True)


def encode(value: ApiStruct) -> dict[str, Any]:
    """The document of a model, plain dicts and lists; fields at their defaults are left out."""
    document: dict[str, Any] = msgspec.to_builtins(value)
    return document
