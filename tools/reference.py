"""Write the field tables of docs/reference.md from the CRDs: `python tools/reference.py`.

tests/unit/api fails while the page and the CRDs differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
KINDS = ("DSRService", "DSRAddressPool", "DSRPlan", "DSRNode")
BEGIN, END = "<!-- fields of {} -->", "<!-- end -->"

Schema = dict[str, Any]


def tables(kind: str) -> str:
    """The table of all fields of spec and status of one kind, as Markdown."""
    crd = yaml.safe_load((ROOT / "crds" / f"{kind.lower()}s.yaml").read_text())
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    rows = [
        row
        for name in ("spec", "status")
        if name in properties
        for row in _rows(name, properties[name], required=name == "spec")
    ]
    head = ["| field | value | meaning |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows])


def _rows(path: str, schema: Schema, *, required: bool) -> Iterator[str]:
    description = schema["description"].strip().replace("|", "\\|")
    yield f"| `{path}` | {_value(schema, required=required)} | {description} |"
    if _is_selector(schema):
        return
    inner, mark = (schema["items"], "[]") if schema["type"] == "array" else (schema, "")
    for name, field in inner.get("properties", {}).items():
        needed = name in inner.get("required", ())
        yield from _rows(f"{path}{mark}.{name}", field, required=needed)


def _is_selector(schema: Schema) -> bool:
    return {"matchLabels", "matchExpressions"} == set(schema.get("properties", ()))


def _value(schema: Schema, *, required: bool) -> str:
    parts = [_type(schema)]
    if required:
        parts.append("**required**")
    if (default := schema.get("default")) not in (None, {}):
        parts.append(f"default `{default}`")
    return ", ".join(parts)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if _is_selector(schema):
        return "label selector"
    if schema["type"] == "array":
        return f"list{_bounds(schema, 'minItems', 'maxItems')} of {_type(schema['items'])}"
    if schema["type"] == "string":
        return str(schema.get("format", "string"))
    return str(schema["type"]) + _bounds(schema, "minimum", "maximum")


def _bounds(schema: Schema, low: str, high: str) -> str:
    if high not in schema:
        return ""
    return f" ({schema.get(low, 0)} to {schema[high]})"


def filled(page: str) -> str:
    """The page with each table in its place. Raises ValueError if a place is missing."""
    for kind in KINDS:
        begin = BEGIN.format(kind)
        before, mark, rest = page.partition(begin)
        if not mark or END not in rest:
            raise ValueError(f"{PAGE} lacks {begin!r} followed by {END!r}")
        after = rest.partition(END)[2]
        page = f"{before}{begin}\n{tables(kind)}\n{END}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
