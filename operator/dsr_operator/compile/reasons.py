"""The types and reasons of a DSRService's conditions, and of its Events. Part of the API."""

from __future__ import annotations

ACCEPTED = "Accepted"
RESOLVED_REFS = "ResolvedRefs"
PROGRAMMED = "Programmed"
BACKENDS_HEALTHY = "BackendsHealthy"
DEGRADED = "Degraded"
READY = "Ready"

# Accepted
INVALID_SPEC = "InvalidSpec"
INVALID_VIP = "InvalidVIP"
VIP_IS_NODE_ADDRESS = "VIPIsNodeAddress"
VIP_OUTSIDE_POOLS = "VIPOutsidePools"
VIP_CONFLICT = "VIPConflict"
FRONTEND_CONFLICT = "FrontendConflict"

# ResolvedRefs
RESOLVED = "Resolved"
NODE_SELECTOR_EMPTY = "NodeSelectorMatchesNothing"
INVALID_SELECTOR = "InvalidSelector"
SERVICE_NOT_FOUND = "ServiceNotFound"
SERVICE_WITHOUT_ENDPOINTS = "ServiceWithoutEndpoints"
ENDPOINT_NOT_A_NODE = "EndpointIsNotANode"
PORT_NOT_SERVED = "PortNotServed"
INVALID_ADDRESS = "InvalidBackendAddress"
WRONG_FAMILY = "WrongAddressFamily"
NO_BACKEND_OF_FAMILY = "NoBackendOfFamily"
NO_LB_NODE = "NoLoadBalancerNode"

# Programmed
PENDING = "Pending"
WAITING_FOR_OTHER_SERVICE = "WaitingForOtherService"
WAITING_FOR_BACKENDS = "WaitingForBackends"
NOTHING_TO_PROGRAM = "NothingToProgram"
NODE_LAGS = "NodeLags"
NO_LIVE_LB_NODE = "NoLiveLoadBalancerNode"
WITHDRAWING = "Withdrawing"
PLAN_UNREADABLE = "PlanUnreadable"

# BackendsHealthy
ALL_HEALTHY = "AllHealthy"
SOME_UNHEALTHY = "SomeUnhealthy"
NONE_HEALTHY = "NoneHealthy"
NO_BACKENDS = "NoBackends"

# Degraded
AS_EXPECTED = "AsExpected"
INVALID_WEIGHT = "InvalidWeight"
NODE_DOWN = "NodeDown"
BACKEND_UNHEALTHY = "BackendUnhealthy"

# Ready, and Events
READY_REASON = "Ready"
WITHDRAWN = "Withdrawn"
RECONCILE_ERROR = "ReconcileError"
