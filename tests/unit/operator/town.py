"""Several services that want the same VIPs: the real cache and compiler, a simulated API server.

Only what the cache wakes, and what asked to be woken by the clock, is looked at: a wake-up that is
missing shows as a service that would change when asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dsr_api.base import encode
from dsr_api.plan import DSRPlanSpec, Frontend
from dsr_operator import kinds
from dsr_operator.cache import Cache
from dsr_operator.compile import compile_service
from dsr_operator.compile.acks import PATIENCE
from dsr_operator.compile.inputs import Clock, ServiceKey
from dsr_operator.kinds import Kind

Json = dict[str, Any]
NODES = ("a", "b", "c")
VIPS = ("192.0.2.1", "192.0.2.2")
WALL = 1_700_000_000.0
EAST, WEST = ({"matchLabels": {side: "yes"}} for side in ("east", "west"))


def spec(**changes: Any) -> Json:
    """A DSRService's spec whose backends need no acknowledgement."""
    return {
        "vips": [VIPS[0]],
        "ports": [{"port": 80}],
        "backends": {"addresses": [{"address": "198.51.100.7"}]},
        "loadBalancerNodes": {"nodeSelector": EAST},
        **changes,
    }


@dataclass
class Town:
    """`history`: after each write of a plan, its revision, time, and the specs of all plans."""

    now: float = 0.0
    revision: int = 0
    objects: dict[tuple[str, str, str], tuple[Kind, Json]] = field(default_factory=dict)
    queue: set[ServiceKey] = field(default_factory=set)
    due: dict[ServiceKey, float] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    live: set[str] = field(default_factory=lambda: set(NODES))
    excused: set[str] = field(default_factory=set)
    history: list[tuple[int, float, dict[str, DSRPlanSpec]]] = field(
        default_factory=lambda: [(0, 0.0, {})]
    )

    def __post_init__(self) -> None:
        self.cache = Cache(self.queue.update, lambda: self.now)
        for namespace in ("shop", "bank"):
            self.put(kinds.NAMESPACE, namespace)
        self.pool("192.0.2.0/24")
        for name, labels in (("a", ["east"]), ("b", ["east", "west"]), ("c", ["west"])):
            self.node(name, labels)
        self.cache.set_live(self.live)

    # What users do

    def put(self, kind: Kind, name: str, namespace: str = "", **changes: Any) -> None:
        """Create or replace an object; the generation moves with its spec."""
        self.revision += 1
        key = (kind.name, namespace, name)
        before = self.objects[key][1] if key in self.objects else {"metadata": {"generation": 0}}
        meta = {
            "name": name,
            "uid": f"uid-{kind.name}-{namespace}-{name}-{self.revision}",
            "creationTimestamp": f"2025-01-01T00:00:00.{self.revision:09}Z",
            **before["metadata"],
            **changes.pop("metadata", {}),
            "resourceVersion": str(self.revision),
        }
        meta |= {"namespace": namespace} if namespace else {}
        document = {**before, **changes, "metadata": meta}
        if document.get("spec") != before.get("spec"):
            meta["generation"] += 1
        self.objects[key] = kind, document
        self.cache.put(kind, document)

    def drop(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Remove an object, if it is there."""
        if found := self.objects.pop((kind.name, namespace, name), None):
            self.cache.drop(kind, found[1])

    def service(self, name: str, namespace: str = "shop", **changes: Any) -> None:
        """Create or edit a DSRService; what is not named stays."""
        key = (kinds.SERVICE.name, namespace, name)
        before = self.objects[key][1]["spec"] if key in self.objects else spec()
        self.put(kinds.SERVICE, name, namespace, spec={**before, **changes})

    def delete(self, name: str, namespace: str = "shop") -> None:
        """Ask for a DSRService's deletion."""
        if (kinds.SERVICE.name, namespace, name) in self.objects:
            gone = {"deletionTimestamp": "2025-01-02T00:00:00Z"}
            self.put(kinds.SERVICE, name, namespace, metadata=gone)

    def pool(self, *addresses: str) -> None:
        """What the one pool has."""
        self.put(kinds.POOL, "public", spec={"addresses": list(addresses)})

    def node(self, name: str, labels: Iterable[str] | None = None, *more: str) -> None:
        """A Node, its sides (None: as before) and its addresses besides its own."""
        own = f"10.0.0.{NODES.index(name) + 1}"
        addresses = [{"type": "InternalIP", "address": a} for a in (own, *more)]
        meta = {} if labels is None else {"labels": dict.fromkeys(labels, "yes")}
        self.put(kinds.NODE, name, metadata=meta, status={"addresses": addresses})

    # What daemons and the clock do

    def acknowledge(self, node: str) -> None:
        """A live node follows up to the newest plan."""
        if node in self.live:
            self.acked[node] = self.history[-1][0]
            self.excused.discard(node)
            self.put(kinds.REPORT, node, status={"appliedRevision": self.acked[node]})

    def set_live(self, *nodes: str) -> None:
        """Whose Leases are fresh."""
        self.live = set(nodes)
        self.cache.set_live(nodes)

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.queue.update(k for k, at in self.due.items() if at <= self.now)

    def restart(self) -> None:
        """Another operator process takes over."""
        self.queue.clear()
        self.cache = Cache(self.queue.update, lambda: self.now)
        for kind, document in self.objects.values():
            self.cache.put(kind, document)
        self.cache.set_live(self.live)
        self.queue.update(self.cache.keys())

    # What the operator does

    def step(self) -> bool:
        """Look at one service that is due, and write; whether there was one."""
        if not self.queue:
            return False
        key = min(self.queue)
        self.queue.discard(key)
        self.look(key)
        return True

    def settle(self) -> None:
        """Until nobody is due any more."""
        for _ in range(200):
            if not self.step():
                return
        raise AssertionError("the operator never comes to rest")

    def look(self, key: ServiceKey) -> bool:
        """Compile one service and write what comes of it; whether anything did."""
        self._excuse()
        outcome = compile_service(self.cache.inputs(key, Clock(WALL + self.now, self.now)))
        self.cache.note(key, outcome.awaits)
        self.due.pop(key, None)
        if outcome.wake_at is not None:
            self.due[key] = outcome.wake_at
        name = ".".join(key)
        if outcome.spec is not None:
            self.put(kinds.PLAN, name, spec=encode(outcome.spec))
            self._record()
            self.queue.add(key)
        if outcome.withdrawn:
            self.drop(kinds.PLAN, name)
            self.drop(kinds.SERVICE, key[1], key[0])
            self.revision += 1
            self._record()
        service = self.cache.services.get(key)
        if service is None or outcome.status in (None, service.status):
            return outcome.spec is not None
        assert outcome.status is not None
        self.put(kinds.SERVICE, key[1], key[0], status=encode(outcome.status))
        return True

    def _excuse(self) -> None:
        """Nodes that nobody waits for: dead ones, and live ones silent for too long."""
        for node in NODES:
            unseen = [at for r, at, _ in self.history if r > self.acked.get(node, 0)]
            if unseen and (node not in self.live or self.now - unseen[0] >= PATIENCE):
                self.excused.add(node)

    def _record(self) -> None:
        self.history.append((self.revision, self.now, self.plans()))

    # What can be seen

    def plans(self) -> dict[str, DSRPlanSpec]:
        """The plans by "namespace.name"."""
        return {name: plan.spec for name, plan in self.cache.plans.items()}

    def ports(self, name: str, vip: str = VIPS[0]) -> set[int]:
        """What the plan of a service in namespace shop has on a VIP."""
        plan = self.plans().get(f"shop.{name}")
        return {f.port for f in plan.frontends if f.vip == vip} if plan else set()

    def condition(self, kind: str, name: str, namespace: str = "shop") -> tuple[str, str, str]:
        """Status, reason and message of a condition of a service."""
        listed = self.cache.services[namespace, name].status.conditions
        found = next(c for c in listed if c.type == kind)
        return found.status, found.reason, found.message

    def forwarders(self) -> dict[Frontend, set[str]]:
        """Frontend -> the plans by which some node may forward it right now.

        Each node may be at any revision from the one it reported on.
        """
        found: dict[Frontend, set[str]] = {}
        for node in set(NODES) - self.excused:
            acked = self.acked.get(node, 0)
            for plans in (p for revision, _, p in self.history if revision >= acked):
                for name, plan in plans.items():
                    if node in {d.node for d in plan.directors}:
                        for frontend in plan.frontends:
                            found.setdefault(frontend, set()).add(name)
        return found
