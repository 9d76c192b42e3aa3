"""Counting the patterns of a JSON schema that one text would have to match at once.

The library that compiles schemas makes one regular expression of them, in time and memory that grow exponentially with
their number, whatever limits it is given. They are counted before it sees them, by what they apply to: the text itself,
or the value of a property, known by its name alone, wherever it is. So too many may be counted, if values at different
places have the same name, but never too few.
"""

from collections.abc import Iterable
from typing import Any

from parrotserve.engines.schema_references import References, objects
from parrotserve.errors import InvalidSchema

MOST_PATTERNS = 4
"""Most patterns and formats for one text. The worst four found took four milliseconds; each further one takes up to
three times as long."""
_MOST_NAMES = 64
"""Most patterns for names of properties in one object. The library compares each pair of them, and takes even longer
for the names that match none. 64 take some ten milliseconds, 400 six seconds."""
_MOST_ROUNDS = 16
"""Most rounds through a schema that refers to itself until nothing new is found; two or three are usual."""
_MOST_MERGED = 200_000
"""Most names, each counted at every place above it, which take half a second. Sixty types that refer to one another,
with forty names, come to a fifth of that."""

_ITSELF, _ELEMENT, _ANY_NAME, _NAMES = " itself", " element", " any name", " names"
"""What patterns may apply to besides properties. These begin with a space, and names of properties get a `.` in front,
so that they differ."""

_Found = dict[str, frozenset[object]]
"""What patterns apply to -> the patterns that may apply there at once; equal ones are the same."""


def check_patterns(schema: dict[str, Any]) -> None:
    """Raises `InvalidSchema` if too many patterns may apply to one text. The schema must have passed `check_bounds`."""
    counting = _Counting(schema)
    if not any(not counting.round() for _ in range(_MOST_ROUNDS)):
        raise _too_involved()
    if counting.elsewhere:
        _check_all(schema)


class _Counting:
    """Counts in a whole schema, in rounds: a reference back is taken to have what the previous round found there."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._references = References(schema)
        self._referred: dict[str, _Found] = {}
        self._seen: set[str] = set()
        self._merged = 0
        self.elsewhere = False
        """Whether it cannot be told of some reference where in the schema it leads."""

    def round(self) -> bool:
        """Goes through the schema once. Returns whether it found anything new at a reference."""
        before = dict(self._referred)
        self._seen.clear()
        self._all(self._schema)
        return self._referred != before

    def _all(self, node: Any) -> _Found:
        """The patterns in a schema, with those that its references lead to."""
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
        """The patterns for properties of objects and elements of lists."""
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
    """The patterns in a part as seen from the whole: those for the part itself are for its place."""
    return {place if of == _ITSELF else of: patterns for of, patterns in found.items()}


def _together(parts: Iterable[_Found]) -> _Found:
    """The patterns of parts that apply to a value all at once."""
    whole: _Found = {}
    for part in parts:
        for of, patterns in part.items():
            whole[of] = whole.get(of, frozenset()) | patterns
    return whole


def _most(parts: Iterable[_Found], where: object) -> _Found:
    """The patterns of parts of which one applies at a time: as many as the largest has; its own if those of the others
    are among them, otherwise stand-ins."""
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
    """Checks as if all patterns applied to one text, as they may if it is not known where references lead."""
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
