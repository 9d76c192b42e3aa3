"""What is wrong with a body, place by place, as whoever wrote it sees it.

Where one of several forms is expected, pydantic tells for each of them why the value has not that form, at a place that
names the form and is not in the body. Here such places are those of the body again, and of the forms only those are
left that the value is nearest to: those whose first fault comes last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import PydanticCustomError

Place = tuple[str | int, ...]
_OURS = "Value error, "
"""What pydantic puts before sentences of our own."""
_MISFIT = "misfit"


@dataclass(frozen=True, slots=True)
class Problem:
    """One place, and what is wrong there."""

    place: Place
    what: str


def misfit(field: str, what: str) -> PydanticCustomError:
    """What a validator of a whole body raises where one field does not fit the others."""
    return PydanticCustomError(_MISFIT, "{what}", {"field": field, "what": what})


def problems_in(found: Sequence[Mapping[str, Any]], body: object) -> list[Problem]:
    """Pydantic's errors about a body, in their order; each place once."""
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
    """Whichever comes later in the body; of one place, both."""
    if known is None or _later(other.place, known.place):
        return other
    if other.place != known.place or other.what in known.what.split(", or: "):
        return known
    return Problem(known.place, f"{known.what}, or: {other.what}")


def _later(one: Place, other: Place) -> bool:
    """Whether a fault there was met after one at the other place."""
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return isinstance(mine, int) and isinstance(theirs, int) and mine > theirs
    return len(one) > len(other)


def _in_body(location: Place, kind: str, body: object) -> tuple[Place, Place | None]:
    """The place without what names a form, and where several forms are possible, if it is within such."""
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
    """Whether a part that is a field, too, names a form after all: what follows is beside it, and cannot be in it."""
    return bool(following) and _holds(value, following[0]) and not isinstance(value[part], dict | list)


def _holds(value: object, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(cast("list[object]", value))
