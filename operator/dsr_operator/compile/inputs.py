"""What compile_service() is given and what it gives: frozen values, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from dsr_api.base import LabelSelector
from dsr_api.node import DSRNodeStatus
from dsr_api.plan import DSRPlan, DSRPlanSpec, Frontend
from dsr_api.service import DSRService, DSRServiceStatus

from dsr_operator.compile.history import History
from dsr_operator.core import EndpointSlice, NodeView

ServiceKey = tuple[str, str]
"""(namespace, name) of a DSRService."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Now. `wall`: Unix seconds, for what is written down; `steady`: monotonic, for patience."""

    wall: float
    steady: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person should know: a CamelCase reason and a message that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class World:
    """What all services share.

    `owners`: which node has an address (canonical text), of whatever type. `reports`: those that
    count. `live`: nodes whose Lease is fresh. `outdated`: nodes whose report is from before their
    last boot, or another machine's of that name.
    """

    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, DSRNodeStatus] = field(default_factory=dict)
    live: Set[str] = frozenset()
    outdated: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CoreService:
    """The core Service that a DSRService refers to: whether it exists, and its EndpointSlices."""

    exists: bool = False
    slices: tuple[EndpointSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What services that share a VIP have in common: one set of nodes announces and directs it.

    `directors` selects the load balancer nodes, `announcement` is the mode.
    """

    namespace: str
    directors: LabelSelector
    announcement: str


@dataclass(frozen=True, slots=True)
class Dissent:
    """A VIP for which the terms of another service ("namespace/name") count."""

    vip: str
    holder: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Standing:
    """What this service may have.

    - `outside`: VIPs that no pool grants to its namespace; `ignored`: entries of pools that admit
      it which cannot be read.
    - `in_use`: VIPs of which its plan has a frontend; `edited`: its spec is not the one that its
      plan was compiled from.
    - `conflicts`: VIPs whose terms are not its own; `follows`: the terms it has taken over from
      one with whom it holds a VIP.
    - `rivals`: frontends to which another service has the better claim; `held`: frontends that
      another service's plan, or a node that has not followed it yet, still has. Both name that
      service as "namespace/name".
    - `awaits`, `deadlines`: nodes whose report, and steady seconds, that may end being `held`.
    """

    outside: Set[str] = frozenset()
    ignored: tuple[str, ...] = ()
    in_use: Set[str] = frozenset()
    edited: bool = False
    conflicts: Mapping[str, Dissent] = field(default_factory=dict)
    follows: Dissent | None = None
    rivals: Mapping[Frontend, str] = field(default_factory=dict)
    held: Mapping[Frontend, str] = field(default_factory=dict)
    awaits: Set[str] = frozenset()
    deadlines: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that the decision about one service rests on.

    `service` None: there is a plan, but its DSRService is gone. `plan` is the plan as the API
    server has it, `history` what this process has seen of it.
    """

    service: DSRService | None
    plan: DSRPlan | None
    history: History
    world: World
    standing: Standing
    core_service: CoreService
    clock: Clock


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do for one service now, and when to look again.

    - `spec`: the plan to write, None if the plan shall stay as it is (or not exist).
    - `withdrawn`: every node has let go; the plan may be deleted and the finalizer removed.
    - `status`: what the DSRService's status shall be; None if there is no DSRService.
    - `awaits`: nodes whose next report may change the outcome.
    - `wake_at`: steady seconds at which time alone may change the outcome.
    """

    spec: DSRPlanSpec | None = None
    withdrawn: bool = False
    status: DSRServiceStatus | None = None
    awaits: frozenset[str] = frozenset()
    wake_at: float | None = None
