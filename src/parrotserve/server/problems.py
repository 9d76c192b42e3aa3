"""What is wrong with a body, place by place, in terms of the body as its author wrote it.

For a union of several forms, pydantic reports for each form why the value does not match it, at a location that
contains the name of the form, which is not in the body. Here such locations are turned into places of the body again,
and only the errors that are furthest into the body are kept: those of the forms that the value comes nearest to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import PydanticCustomError

Place = tuple[str | int, ...]
_OURS = "Value error, "
"""What pydantic puts in front of messages raised by our own validators."""
_MISFIT = "misfit"


@dataclass(frozen=True, slots=True)
class Problem:
    """A place in a body, and what is wrong there."""

    place: Place
    what: str


def misfit(field: str, what: str) -> PydanticCustomError:
    """The error that a validator of a whole body raises if one field does not fit the others."""
    return PydanticCustomError(_MISFIT, "{what}", {"field": field, "what": what})


def problems_in(found: Sequence[Mapping[str, Any]], body: object) -> list[Problem]:
    """Pydantic's errors about a body, in their order, with the errors of one union merged into one."""
    problems: dict[Place, Problem] = {}
    nearest: dict[Place, Problem] = {}
    for error in found:
        location = (*error["loc"], error["ctx"]["field"]) if error["type"] == _MISFIT else tuple(error["loc"])
        place, union = _in_body(location, error["type"], body)
        problem = Problem(place, str(error["msg"]).removeprefix(_OURS))
        if union is None:
            problems.setdefault((*place, len(problems)), problem)
            continue
        problems.setdefault(union, problem)
        nearest[union] = _nearer(nearest.get(union), problem)
    return [nearest.get(key, problem) for key, problem in problems.items()]


def _nearer(known: Problem | None, other: Problem) -> Problem:
    """The problem that comes later in the body; if they are at the same place, both merged."""
    if known is None or _later(other.place, known.place):
        return other
    if other.place != known.place or other.what in known.what.split(", or: "):
        return known
    return Problem(known.place, f"{known.what}, or: {other.what}")


def _later(one: Place, other: Place) -> bool:
    """Whether validation met an error at place `one` after one at place `other`."""
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return isinstance(mine, int) and isinstance(theirs, int) and mine > theirs
    return len(one) > len(other)


def _in_body(location: Place, kind: str, body: object) -> tuple[Place, Place | None]:
    """The location as a place in the body, without names of forms, and the place of the outermost union that it is in,
    or None."""
    if not location or location[0] != "body" or body is None:
        return location, None
    place: Place = location[:1]
    union: Place | None = None
    value = body
    for number, part in enumerate(location[1:], start=2):
        missing = kind in ("missing", _MISFIT) and number == len(location)
        if missing or (_holds(value, part) and not _names_a_form(value, part, location[number : number + 1])):
            place = (*place, part)
            value = None if missing else cast("Any", value)[part]
        elif union is None:
            union = place
    return place, union


def _names_a_form(value: Any, part: str | int, following: Place) -> bool:
    """Whether a part that is also the name of a field is the name of a form instead: if the next part is a field beside
    it and cannot be in it."""
    return bool(following) and _holds(value, following[0]) and not isinstance(value[part], dict | list)


def _holds(value: object, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(cast("list[object]", value))
