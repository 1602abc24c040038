"""The JSON Schemas of docs/reference/json.md, and the part of JSON Schema that they use."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from docs.examples import ROOT, blocks_of

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip
_KNOWN = {"type", "required", "additionalProperties", "properties", "items", "enum", "description", "$ref"}


@cache
def schemas() -> dict[str, Any]:
    """Return the page's schemas by name."""
    blocks = blocks_of(ROOT / "docs" / "reference" / "json.md")
    return {block.info.partition("schema=")[2]: json.loads(block.text) for block in blocks if "schema=" in block.info}


def faults(value: Any, schema: Any, place: str = "$") -> list[str]:
    """Return what in ``value`` is not as the schema says, each with its place; [] where all is."""
    if "$ref" in schema:
        return faults(value, schemas()[schema["$ref"]], place)
    assert schema.keys() <= _KNOWN, f"the validator does not know {schema.keys() - _KNOWN}"
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value!r} is none of {schema['enum']}")
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, name) for name in names):
            return [f"{place}: {value!r} is no {' or '.join(names)}"]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{place}: lacks {name!r}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{place}: {name!r} is not documented" for name in value if name not in properties]
        for name, item in value.items():
            if name in properties:
                found += faults(item, properties[name], f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += faults(item, schema["items"], f"{place}[{number}]")
    return found


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])
