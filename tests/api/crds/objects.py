"""Asks the API server about objects without storing any, so that tests need not clean up."""

from __future__ import annotations

import json
from typing import Any

import kubernetes
import pytest

from lab.controlplane import ControlPlane


def dry_run(
    plane: ControlPlane, document: dict[str, Any], validation: str = "Strict"
) -> dict[str, Any]:
    """The object as it would be stored.

    `validation` is what becomes of unknown fields: Strict, Warn or Ignore. Raises ApiException.
    """
    place = {
        "group": "dsr-operator.io",
        "version": "v1alpha1",
        "plural": document["kind"].lower() + "s",
        "body": document,
        "dry_run": "All",
        "field_validation": validation,
    }
    with kubernetes.config.new_client_from_config(str(plane.kubeconfig)) as client:
        api = kubernetes.client.CustomObjectsApi(client)
        namespace = document["metadata"].get("namespace")
        created: dict[str, Any] = (
            api.create_namespaced_custom_object(namespace=namespace, **place)
            if namespace
            else api.create_cluster_custom_object(**place)
        )
        return created


def refusal(
    plane: ControlPlane, document: dict[str, Any], validation: str = "Strict"
) -> dict[str, str]:
    """Why the API server refuses this object: message by field, the whole message under ""."""
    with pytest.raises(kubernetes.client.ApiException) as failure:
        dry_run(plane, document, validation)
    status = json.loads(failure.value.body)
    causes = {c["field"]: c["message"] for c in status.get("details", {}).get("causes", [])}
    return {"": status["message"], **causes}
