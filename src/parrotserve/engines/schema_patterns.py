"""How many patterns of a JSON schema one text would have to match at once.

The library that compiles schemas makes one regular expression of them, in time and memory that grow exponentially with
their number, whatever limits it is given. They are counted before it sees them, by what they are of: the text itself,
or the value under the name of a property, wherever that is. So too many may be counted, where values at different
places have the same name, but never too few.
"""

from collections.abc import Iterable
from typing import Any

from parrotserve.engines.schema_references import References, objects
from parrotserve.errors import InvalidSchema

MOST_PATTERNS = 4
"""Formats included. The worst four that were found took four milliseconds; every further one, up to thrice as much."""
_MOST_NAMES = 64
"""Patterns for the names of properties, in one object: the library compares every two, and does worse with what is left
of other names. 64 take some ten milliseconds, 400 six seconds."""
_MOST_ROUNDS = 16
"""Of looking at what refers to itself, until nothing new is found: two or three do."""
_MOST_MERGED = 200_000
"""Names, each counted at all places above it: half a second. Sixty types that refer to one another, with forty names,
come to a fifth."""

_ITSELF, _ELEMENT, _ANY_NAME, _NAMES = " itself", " element", " any name", " names"
"""What patterns are of, beside properties by their name; these begin in a way that properties' own names, which get a
`.` in front, do not."""

_Found = dict[str, frozenset[object]]
"""What patterns are of -> those that may meet there, the same text being the same pattern."""


def check_patterns(schema: dict[str, Any]) -> None:
    """Raises `InvalidSchema` if more patterns could meet than is sensible. The schema has passed `check_bounds`."""
    counting = _Counting(schema)
    if not any(not counting.round() for _ in range(_MOST_ROUNDS)):
        raise _too_involved()
    if counting.elsewhere:
        _check_all(schema)


class _Counting:
    """All of a schema, in rounds: what a reference leads back to is taken to be as the round before found it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._references = References(schema)
        self._referred: dict[str, _Found] = {}
        self._seen: set[str] = set()
        self._merged = 0
        self.elsewhere = False
        """Whether a reference is no place in the schema."""

    def round(self) -> bool:
        """Looks at all once; whether that found anything else at a reference than was known."""
        before = dict(self._referred)
        self._seen.clear()
        self._all(self._schema)
        return self._referred != before

    def _all(self, node: Any) -> _Found:
        """What a schema says, the targets of its references included."""
        if not isinstance(node, dict):
            return {}
        parts = [_own(node), self._reference(node.get("$ref")), self._inner(node)]
        parts += map(self._all, _list(node.get("allOf")))
        for word in ("anyOf", "oneOf"):
            parts.append(_most(map(self._all, _list(node.get(word))), (id(node), word)))
        self._merged += sum(map(len, parts))
        if self._merged > _MOST_MERGED:
            raise _too_involved()
        found = _together(parts)
        any_name = found.get(_ANY_NAME, frozenset())
        for of, patterns in found.items():
            _check_count(of, len(patterns | any_name if of.startswith(".") else patterns))
        return found

    def _inner(self, node: dict[str, Any]) -> _Found:
        """What is said of the parts of objects and lists."""
        named, patterned = (_object(node.get(word)) for word in ("properties", "patternProperties"))
        listed = [child for word in ("items", "prefixItems", "additionalItems") for child in _each(node.get(word))]
        places = [*(f".{name}" for name in named), *(_ELEMENT for _ in listed)]
        parts = list(map(_inside, places, map(self._all, (*named.values(), *listed))))
        any_name = (*patterned.values(), node.get("additionalProperties"))
        others = list(map(_inside, (_ANY_NAME for _ in any_name), map(self._all, any_name)))
        if patterned:
            others.append({_NAMES: frozenset(patterned)})
        return _most([*parts, *others], (id(node), "inner"))

    def _reference(self, reference: object) -> _Found:
        if not isinstance(reference, str):
            return {}
        if reference not in self._seen:
            self._seen.add(reference)
            target = self._references.target(reference)
            self.elsewhere |= target is None
            self._referred[reference] = self._all(target)
        return self._referred.get(reference, {})


def _own(node: dict[str, Any]) -> _Found:
    own = frozenset((word, node[word]) for word in ("pattern", "format") if isinstance(node.get(word), str))
    return {_ITSELF: own} if own else {}


def _inside(place: str, found: _Found) -> _Found:
    """What is found in a part, seen from the whole: what is of the part itself is of its name."""
    return {place if of == _ITSELF else of: patterns for of, patterns in found.items()}


def _together(parts: Iterable[_Found]) -> _Found:
    """What all of these say of the same value."""
    whole: _Found = {}
    for part in parts:
        for of, patterns in part.items():
            whole[of] = whole.get(of, frozenset()) | patterns
    return whole


def _most(parts: Iterable[_Found], where: object) -> _Found:
    """What one of these at a time says: as many patterns as any has, and which if the others have no different ones."""
    whole: dict[str, list[frozenset[object]]] = {}
    for part in parts:
        for of, patterns in part.items():
            whole.setdefault(of, []).append(patterns)
    most: _Found = {}
    for of, found in whole.items():
        largest = max(found, key=len)
        same = all(patterns <= largest for patterns in found)
        most[of] = largest if same else frozenset((where, of, place) for place in range(len(largest)))
    return most


def _check_all(schema: dict[str, Any]) -> None:
    """Takes all patterns to meet, as they may where it is not known what references lead to."""
    patterns = frozenset[object]().union(*(_own(node).get(_ITSELF, ()) for node in objects(schema)))
    names = frozenset[str]().union(*(_object(node.get("patternProperties")) for node in objects(schema)))
    if len(patterns) > MOST_PATTERNS or len(names) > _MOST_NAMES:
        raise InvalidSchema(
            f"A JSON schema with references that are not plain paths such as #/$defs/NAME may have {MOST_PATTERNS} "
            f"patterns and formats and {_MOST_NAMES} patternProperties; write the references so, without % and without "
            "$id in parts."
        )


def _check_count(of: str, count: int) -> None:
    if of == _NAMES and count > _MOST_NAMES:
        raise InvalidSchema(f"An object in a JSON schema may have {_MOST_NAMES} patternProperties at most.")
    if of != _NAMES and count > MOST_PATTERNS:
        raise InvalidSchema(
            f"In a JSON schema, {MOST_PATTERNS} patterns and formats may apply to one text, including those from allOf "
            f"and $ref; write them as one, or check the others in your program."
        )


def _too_involved() -> InvalidSchema:
    return InvalidSchema("The JSON schema is too involved: its references lead to too much, or around too often.")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _each(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
