"""Suggestions for unknown fields: the field that was probably meant."""

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter

Place = tuple[str | int, ...]


def meant(adapter: TypeAdapter[Any], place: Place) -> str:
    """The end of a sentence about an unknown field at this place: `, but there is 'segments'` if the name of a field
    that may be there is similar, else an empty string."""
    *within, name = place
    whole = _schema(adapter)
    there = [whole]
    for part in within:
        there = [inner for one in there for inner in _inside(one, part, whole)]
    known = {field for one in there for form in _forms(one, whole) for field in form.get("properties", {})}
    close = difflib.get_close_matches(str(name), sorted(known), n=1)
    return f", but there is {close[0]!r}" if close else ""


@cache
def _schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    return adapter.json_schema()


def _inside(schema: dict[str, Any], part: str | int, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kinds = schema.get("discriminator", {}).get("mapping", {})
    if part in kinds:
        yield {"$ref": kinds[part]}  # `part` names the union member that the discriminator chose, not a field
        return
    for form in _forms(schema, whole):
        if isinstance(part, int) and "items" in form:
            yield form["items"]
        elif part in form.get("properties", {}):
            yield form["properties"][part]


def _forms(schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas that a value may have: the members of a union, else the schema itself; references are resolved."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not alternatives:
        yield schema
    for one in alternatives:
        yield from _forms(one, whole)
