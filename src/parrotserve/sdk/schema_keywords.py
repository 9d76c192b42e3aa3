"""Warns of keywords in JSON schemas that are probably misspelt: JSON Schema allows unknown ones and ignores them."""

import difflib
import warnings
from collections.abc import Iterator
from typing import Any

from parrotserve.sdk.users_place import users_place

_ONE = (
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
"""Keywords whose value is a schema."""
_SEVERAL = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_BY_NAME = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
_DATA = (
    "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$ref",
    "$schema", "$vocabulary", "const", "contentEncoding", "contentMediaType", "default", "dependentRequired",
    "deprecated", "description", "discriminator", "enum", "example", "examples", "exclusiveMaximum",
    "exclusiveMinimum", "externalDocs", "format", "id", "maxContains", "maxItems", "maxLength", "maxProperties",
    "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "nullable", "pattern",
    "readOnly", "required", "title", "type", "uniqueItems", "writeOnly", "x-guidance", "xml",
)  # fmt: skip
"""Keywords without schemas in their values. All of these are of JSON Schema's drafts 4 to 2020-12, or of OpenAPI."""
_KNOWN = {name.lower(): name for name in (*_ONE, *_SEVERAL, *_BY_NAME, *_DATA)}
_LIKENESS = 0.8
"""A name that is so similar to a keyword (1: equal) is probably misspelt, and not a keyword of somebody's own."""


def warn_of_misspelt(schema: dict[str, Any]) -> None:
    """Warn, at the user's line, of names in a schema that are nearly keywords."""
    for place, name, meant in _misspelt(schema):
        where = f" at {'.'.join(place)}" if place else ""
        told = f"The schema has {name!r}{where}, which is not a keyword of JSON Schema and does nothing"
        warnings.warn_explicit(f"{told}; did you mean {meant!r}?", UserWarning, *users_place())


def _misspelt(schema: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The place of each, its name, and the keyword that was probably meant."""
    left: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    while left:
        place, one = left.pop()
        if not isinstance(one, dict):
            continue
        for name, value in one.items():
            if meant := _meant(name):
                yield place, name, meant
            if name in _ONE:
                left.append(((*place, name), value))
            if name in _SEVERAL and isinstance(value, list):
                left += [((*place, f"{name}[{number}]"), item) for number, item in enumerate(value)]
            if name in _BY_NAME and isinstance(value, dict):
                left += [((*place, name, key), item) for key, item in value.items()]


def _meant(name: str) -> str | None:
    """The keyword that a name nearly is; None if it is one itself, or begins with "x-" as people's own keywords do."""
    if _KNOWN.get(name.lower()) == name or name.startswith("x-"):
        return None
    close = difflib.get_close_matches(name.lower().replace("_", ""), _KNOWN, n=1, cutoff=_LIKENESS)
    return _KNOWN[close[0]] if close else None
