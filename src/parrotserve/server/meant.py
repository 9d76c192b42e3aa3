"""Which field was meant by one that is not there."""

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter

Place = tuple[str | int, ...]


def meant(adapter: TypeAdapter[Any], place: Place) -> str:
    """The end of a sentence about an unknown field at this place: `, but there is 'segments'` where one of those that
    may be there is close, else nothing."""
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
        yield {"$ref": kinds[part]}  # it names the form that was told by its kind, and is no place in the body
        return
    for form in _forms(schema, whole):
        if isinstance(part, int) and "items" in form:
            yield form["items"]
        elif part in form.get("properties", {}):
            yield form["properties"][part]


def _forms(schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a value of this schema may look like."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not alternatives:
        yield schema
    for one in alternatives:
        yield from _forms(one, whole)
