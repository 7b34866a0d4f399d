"""DSRAddressPool: which VIPs there are, and who may use them."""

from __future__ import annotations

from dsr_api.base import ApiStruct, LabelSelector, Metadata


class DSRAddressPoolSpec(ApiStruct, frozen=True):
    """`addresses`: CIDR prefixes ("192.0.2.0/28") or ranges ("192.0.2.10-192.0.2.20").

    A VIP is admitted for a namespace when some pool holds it and that pool's selector (absent:
    every namespace) matches the namespace's labels.
    """

    addresses: tuple[str, ...]
    namespace_selector: LabelSelector = LabelSelector()


class DSRAddressPool(ApiStruct, frozen=True):
    """Cluster-scoped, short name dsrpool."""

    metadata: Metadata
    spec: DSRAddressPoolSpec
