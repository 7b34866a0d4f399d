"""The CRDs and the typed models say the same, field for field, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import yaml
from dsr_api.base import API_VERSION, GROUP, VERSION, ApiStruct, decode, encode
from dsr_api.node import LIST_CAP, DSRNode
from dsr_api.plan import DSRPlan
from dsr_api.pool import DSRAddressPool
from dsr_api.service import DSRService

ROOT = Path(__file__).resolve().parents[3]
MODELS: tuple[type[ApiStruct], ...] = (DSRService, DSRAddressPool, DSRPlan, DSRNode)
SHORT_NAMES = {
    "DSRService": "dsr",
    "DSRAddressPool": "dsrpool",
    "DSRPlan": "dsrplan",
    "DSRNode": "dsrnode",
}
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

Schema = dict[str, Any]


def crd(model: type[ApiStruct]) -> dict[str, Any]:
    path = ROOT / "crds" / f"{model.__name__.lower()}s.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def schema(model: type[ApiStruct]) -> Schema:
    found: Schema = crd(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def without_none(annotation: Any) -> Any:
    """X of "X | None"."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [a for a in get_args(annotation) if a is not NoneType]
    return annotation


def differences(annotation: Any, found: Schema, path: str) -> Iterator[str]:
    """Where the schema does not describe values of this type, as sentences."""
    annotation = without_none(annotation)
    arguments = get_args(annotation)
    match get_origin(annotation) or annotation:
        case origin if origin is Literal:
            yield from differs(path, "enum", set(found.get("enum", [])), set(arguments))
        case origin if origin is tuple:
            yield from differs(path, "type", found["type"], "array")
            yield from differences(arguments[0], found["items"], f"{path}[]")
        case origin if origin is dict:
            yield from differs(path, "type", found["type"], "object")
            yield from differences(arguments[1], found["additionalProperties"], f"{path}{{}}")
        case origin if issubclass(origin, ApiStruct):
            yield from struct_differences(origin, found, path)
        case origin:
            names = {str: "string", int: "integer", bool: "boolean"}
            yield from differs(path, "type", found["type"], names[origin])


def differs(path: str, what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{path}: {what} is {found} in the CRD, {wanted} in the model"


def struct_differences(model: type[ApiStruct], found: Schema, path: str) -> Iterator[str]:
    if found["type"] != "object":
        yield f"{path}: {found['type']} in the CRD, an object in the model"
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    hints = get_type_hints(model)
    yield from differs(path, "the set of fields", set(found["properties"]), set(fields))
    required = {name for name, field in fields.items() if field.required}
    yield from differs(path, "the required set", set(found.get("required", [])), required)
    for name in fields.keys() & found["properties"].keys():
        inner = found["properties"][name]
        yield from default_differences(fields[name], inner, f"{path}.{name}")
        yield from differences(hints[fields[name].name], inner, f"{path}.{name}")


def default_differences(field: Any, found: Schema, path: str) -> Iterator[str]:
    """A default of the CRD is the model's; one of the model that says something is the CRD's.

    In the status only what is there is told, so it needs no defaults in the CRD.
    """
    if field.required:
        return
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    wanted = encode(default) if isinstance(default, ApiStruct) else msgspec.to_builtins(default)
    if "default" in found:
        given = found["default"]
        if isinstance(default, ApiStruct):
            given = encode(msgspec.convert(given, type(default)))
        yield from differs(path, "default", given, wanted)
    elif wanted and not path.startswith("status"):
        yield f"{path}: the model's default {wanted!r} is missing in the CRD"


def body(model: type[ApiStruct]) -> Iterator[tuple[str, Any, Schema]]:
    """spec and status: name, type in the model, schema."""
    hints = get_type_hints(model)
    for name, found in schema(model)["properties"].items():
        if name in ("spec", "status"):
            yield name, hints[name], found


@pytest.mark.parametrize("model", MODELS)
def test_fields_types_enums_and_defaults(model: type[ApiStruct]) -> None:
    told = [d for name, hint, found in body(model) for d in differences(hint, found, name)]
    assert told == []
    assert {name for name, _, _ in body(model)} == set(get_type_hints(model)) - {"metadata"}


def nodes(found: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, found
    for name, inner in found.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in found:
            yield from nodes(found[key], f"{path}[]")


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described(model: type[ApiStruct]) -> None:
    # The API server describes metadata itself and takes no description of ours.
    described = [
        (path, node.get("description", ""))
        for path, node in nodes(schema(model), model.__name__)
        if not path.startswith(f"{model.__name__}.metadata")
    ]
    assert [path for path, text in described if not text.strip().endswith(".")] == []


@pytest.mark.parametrize("model", MODELS)
def test_lists_say_how_they_merge(model: type[ApiStruct]) -> None:
    # Without a list type server-side apply takes a list as atomic; here that is said, not assumed.
    lists = [(path, node) for path, node in nodes(schema(model), "") if node["type"] == "array"]
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []


@pytest.mark.parametrize("model", [DSRService, DSRAddressPool])
def test_what_users_write_is_bounded(model: type[ApiStruct]) -> None:
    spec = schema(model)["properties"]["spec"]
    bounds = {"array": "maxItems", "string": "maxLength", "integer": "maximum"}
    unbounded = [
        path
        for path, node in nodes(spec, "spec")
        if node["type"] in bounds and bounds[node["type"]] not in node and "enum" not in node
    ]
    assert unbounded == []


@pytest.mark.parametrize("model", MODELS)
def test_names(model: type[ApiStruct]) -> None:
    document = crd(model)
    plural = f"{model.__name__.lower()}s"
    assert document["metadata"]["name"] == f"{plural}.{GROUP}"
    assert document["spec"]["group"] == GROUP
    assert [version["name"] for version in document["spec"]["versions"]] == [VERSION]
    names = document["spec"]["names"]
    assert (names["kind"], names["plural"]) == (model.__name__, plural)
    assert names["shortNames"] == [SHORT_NAMES[model.__name__]]
    assert names["categories"] == ["dsr-operator"]
    assert document["spec"]["scope"] == ("Namespaced" if model is DSRService else "Cluster")


def test_the_cap_of_lists_is_the_crds() -> None:
    status = schema(DSRNode)["properties"]["status"]["properties"]
    for name in ("plansNotApplied", "unhealthyBackends"):
        assert status[name]["properties"]["items"]["maxItems"] == LIST_CAP


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_decode(path: Path) -> None:
    kinds = {model.__name__: model for model in MODELS}
    ours = [
        document
        for document in yaml.safe_load_all(path.read_text())
        if document["apiVersion"] == API_VERSION
    ]
    assert ours
    for document in ours:
        model = kinds[document["kind"]]
        value = decode(model, document)
        assert decode(model, encode(value)) == value


def test_the_designs_example_decodes() -> None:
    document = yaml.safe_load(
        """
        metadata: {name: web, namespace: shop}
        spec:
          vips: ["192.0.2.10", "2001:db8::10"]
          ports: [{name: http, protocol: TCP, port: 80}]
          backends: {nodeSelector: {matchLabels: {role: web}}}
          dataplane: XDP
          forwarding: {method: L2}
          scheduler: Maglev
          loadBalancerNodes: {nodeSelector: {matchLabels: {role: lb}}}
          announcement: {mode: L2}
        """
    )
    service = decode(DSRService, document)
    assert service.spec.load_balancer_nodes.node_selector.matches({"role": "lb"})
    assert not service.spec.load_balancer_nodes.node_selector.matches({"role": "web"})
