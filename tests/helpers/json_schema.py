"""The part of JSON Schema that `soup schema` prints, checked in plain lines: what a value breaks, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KNOWN = {
    "$defs",
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "items",
    "pattern",
}
KNOWN |= {"properties", "required", "title", "type"}


def broken(schema: dict[str, Any], value: Any, defs: dict[str, Any], place: str = "") -> Iterator[str]:
    """A line for each rule of `schema` that `value` breaks."""
    assert set(schema) <= KNOWN, f"this check does not know {set(schema) - KNOWN}"
    if "$ref" in schema:
        yield from broken(defs[schema["$ref"].rpartition("/")[2]], value, defs, place)
    if "anyOf" in schema and all(list(broken(option, value, defs, place)) for option in schema["anyOf"]):
        yield f"{place}: {value!r} is none of {schema['anyOf']}"
    if not _is_of_type(schema.get("type"), value):
        yield f"{place}: {value!r} is no {schema['type']}"
        return
    if value != schema.get("const", value):
        yield f"{place}: {value!r} is not {schema['const']!r}"
    if value not in schema.get("enum", [value]):
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if not re.search(schema.get("pattern", ""), str(value)):
        yield f"{place}: {value!r} does not match {schema['pattern']}"
    yield from _broken_inside(schema, value, defs, place)


def _is_of_type(name: str | None, value: Any) -> bool:
    return name is None or (isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)))


def _broken_inside(schema: dict[str, Any], value: Any, defs: dict[str, Any], place: str) -> Iterator[str]:
    items: dict[Any, Any] = value if isinstance(value, dict) else {}
    yield from (f"{place}: lacks {key}" for key in schema.get("required", ()) if key not in items)
    for key, item in items.items():
        rule = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
        if rule is False:
            yield f"{place}.{key}: not allowed"
        elif isinstance(rule, dict):
            yield from broken(rule, item, defs, f"{place}.{key}")
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from broken(schema.get("items", {}), item, defs, f"{place}[{index}]")
