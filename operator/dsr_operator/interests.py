"""Which services a change of a Node concerns, by what they say of nodes: labels and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from dsr_api.base import LabelSelector
from dsr_api.service import DSRServiceSpec

from dsr_operator.compile.inputs import ServiceKey
from dsr_operator.core import canonical_address
from dsr_operator.index import Index


class Interests:
    """What every service selects. Services mostly share a few selectors: each is matched once."""

    def __init__(self) -> None:
        self._selectors: dict[bytes, LabelSelector] = {}
        self._selecting: Index[bytes, ServiceKey] = Index()
        self._naming: Index[str, ServiceKey] = Index()

    def put(self, key: ServiceKey, spec: DSRServiceSpec | None) -> None:
        """Note what a service selects now; None: it is gone or cannot be read."""
        selectors = _selectors(spec) if spec else {}
        self._selectors.update(selectors)
        for code in self._selecting.put(key, selectors) - selectors.keys():
            if not self._selecting[code]:
                del self._selectors[code]
        named = (spec.backends.addresses or ()) if spec else ()
        canonical = (canonical_address(entry.address) for entry in named)
        self._naming.put(key, (address for address in canonical if address))

    def selecting(self, labels: Iterable[Mapping[str, str]]) -> set[ServiceKey]:
        """Services with a selector that one of these sets of labels matches."""
        every = list(labels)
        codes = (c for c, s in self._selectors.items() if any(_matches(s, one) for one in every))
        return set().union(*(self._selecting[code] for code in codes))

    def naming(self, addresses: Iterable[str]) -> set[ServiceKey]:
        """Services that have one of these addresses in their list of backends."""
        return set().union(*(self._naming[address] for address in addresses))


def _selectors(spec: DSRServiceSpec) -> dict[bytes, LabelSelector]:
    chosen = (spec.load_balancer_nodes.node_selector, spec.backends.node_selector)
    return {msgspec.json.encode(s, order="deterministic"): s for s in chosen if s is not None}


def _matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """An operator that Kubernetes lacks is told only where a node gets as far: it counts as one."""
    try:
        return selector.matches(labels)
    except ValueError:
        return True
