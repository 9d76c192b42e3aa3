"""Bounds on the cost of enforcing a JSON schema: on its depth and width, and on the states that its numbers need.

The library that compiles schemas recurses natively, so that a chain of a thousand references ends the process, and it
has a state for every remainder of a `multipleOf`, whatever limits it is given. Both are bounded before it sees them. So
is the number of properties of which any may come next: the library compiles them in quadratic time, and gives up only
when such an object is written.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from typing import Any

from parrotserve.engines.schema_references import References
from parrotserve.errors import InvalidSchema

_MOST_LEVELS = 256
"""Most levels of nested objects and lists, with references followed: a usual stack has room for many times that."""
_MOST_REMAINDERS = 100_000
"""Most remainders of numbers, which take a tenth of a second and some megabytes."""
_MOST_NEXT = 480
"""Most properties of an object of which any may come next: each takes four of at most 2,000 items in the library."""
_MOST_ELSEWHERE = 64
"""Most references of which it cannot be told where in the schema they lead, so that they may form a chain."""
_MOST_LEVELS_ELSEWHERE = 512
"""Most levels of such a chain if all of its references led to the top: a fifth of what the library was seen to take."""


def check_bounds(schema: dict[str, Any]) -> None:
    """Raises `InvalidSchema` for a schema that would cost too much, or that refers to itself without end."""
    walk = _Walk(schema)
    height = walk.height(schema, 1)
    if walk.remainders > _MOST_REMAINDERS:
        raise InvalidSchema(
            f"The multipleOf of a JSON schema's numbers may come to {_MOST_REMAINDERS} in all (their least common "
            f"multiple); check larger ones in your program."
        )
    if walk.next > _MOST_NEXT:
        raise InvalidSchema(
            f"In an object of a JSON schema, {_MOST_NEXT} properties in a row may be left out; make more of them "
            "required, or put some into objects of their own."
        )
    elsewhere = walk.elsewhere * walk.references.bases
    if elsewhere > _MOST_ELSEWHERE or (elsewhere + 1) * height > _MOST_LEVELS_ELSEWHERE:
        raise InvalidSchema(
            f"A JSON schema may have {_MOST_ELSEWHERE} references that are not plain paths such as #/$defs/NAME, fewer "
            f"the deeper it is or the more parts of it have an $id; write them so, without % and without $id in parts."
        )
    try:
        TopologicalSorter(walk.leads).prepare()
    except CycleError as error:
        raise InvalidSchema(
            f"The JSON schema refers to itself without end: {' leads to '.join(error.args[1])}."
        ) from error


class _Walk:
    """A walk through a whole schema, which follows each reference once."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.references = References(schema)
        self._heights: dict[str, int] = {}
        self.remainders = 1
        self.elsewhere = 0
        self.next = 0
        """The largest number of properties of one object of which any may come next."""
        self.leads: dict[str, set[str]] = {"#": _at_once(schema)}
        """For each reference, the references that its target leads to at once (see `_at_once`)."""

    def height(self, node: Any, level: int) -> int:
        """Number of levels from this node, which is at `level`, downwards."""
        if level > _MOST_LEVELS:
            raise _too_deep()
        if not isinstance(node, dict | list):
            return 0
        found = max((self.height(child, level + 1) for child in _children(node)), default=0)
        if isinstance(node, dict):
            self._note_multiple(node.get("multipleOf"))
            self.next = max(self.next, _optional_in_a_row(node))
            if isinstance(node.get("$ref"), str):
                found = max(found, self._referred(node["$ref"], level + 1))
        return found + 1

    def _referred(self, reference: str, level: int) -> int:
        if reference not in self._heights:
            target = self.references.target(reference)
            self.elsewhere += target is None
            self._heights[reference] = 0  # for references from within back to it, which go no deeper
            self.leads.setdefault(reference, _at_once(target))
            self._heights[reference] = self.height(target, level)
        elif level + self._heights[reference] > _MOST_LEVELS:
            raise _too_deep()
        return self._heights[reference]

    def _note_multiple(self, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not value:
            return
        number = Decimal(str(value)).normalize().as_tuple()
        digits = int("".join(map(str, number.digits)))
        assert isinstance(number.exponent, int)
        whole = digits * 10 ** min(max(number.exponent, 0), 9)  # larger ones are above the bound anyway
        self.remainders = min(math.lcm(self.remainders, whole), _MOST_REMAINDERS + 1)


def _too_deep() -> InvalidSchema:
    return InvalidSchema(
        f"The JSON schema is nested too deeply: {_MOST_LEVELS} objects and lists may be inside one another, with those "
        "that it refers to."
    )


def _children(node: dict[str, Any] | list[Any]) -> Iterator[Any]:
    yield from node.values() if isinstance(node, dict) else node


def _optional_in_a_row(node: dict[str, Any]) -> int:
    """The most properties of which any may come next; 0 if they are few. Values have their properties in the schema's
    order, so a required one ends the run of those that may come next."""
    properties, required = node.get("properties"), node.get("required")
    if not isinstance(properties, dict) or len(properties) <= _MOST_NEXT:
        return 0
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set[str]()
    runs = groupby(properties, key=needed.__contains__)
    return max((sum(1 for _ in names) for is_needed, names in runs if not is_needed), default=0)


def _at_once(node: Any) -> set[str]:
    """References that apply to the very value that the schema is about: its own, and those in its `allOf`."""
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
    parts = node.get("allOf")
    return own.union(*map(_at_once, parts if isinstance(parts, list) else ()))
