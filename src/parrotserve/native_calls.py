"""Arguments of native calls, with slots for the values of variables that are not known yet."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parrotserve.ids import VariableId


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for the value of a variable among the arguments of a native call."""

    variable: VariableId


Template = tuple[str | Slot, ...]
"""JSON in parts, with slots where the values of variables are to be inserted as strings."""
_PIECE = 1 << 16
"""Most characters of a piece that `written` yields, before escaping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxedCall:
    """A native call that the service runs itself: a function in Starlark, and its arguments."""

    name: str
    source: str
    file: str
    line: int
    """The line of the file at which the source begins."""
    arguments: Template
    """A JSON object of the arguments by parameter."""
    seconds: float | None = None
    """The longest time that it may take, if less than the service allows."""


def fill(argument: Any, values: Mapping[VariableId, str]) -> Any:
    """The argument with values in place of its slots; an object without slots is returned as it is, not copied."""
    if isinstance(argument, Slot):
        return values[argument.variable]
    if isinstance(argument, list | tuple | dict) and _has_slots(argument):
        if isinstance(argument, dict):
            return {key: fill(item, values) for key, item in argument.items()}
        return remade(argument, [fill(item, values) for item in argument])
    return argument


def remade(sequence: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    """A sequence of the same type with these items."""
    if isinstance(sequence, list):
        return items
    return getattr(sequence, "_make", tuple)(items)  # named tuples have `_make`


def slots_in(arguments: Template) -> Iterator[VariableId]:
    """The variables of the slots, in order, each as often as it occurs."""
    return (part.variable for part in arguments if isinstance(part, Slot))


def written(arguments: Template, values: Mapping[VariableId, str]) -> Iterator[str]:
    """The JSON with values in place of its slots, in pieces that are made one by one: making a long one at once would
    hold up everything else in the process."""
    for part in arguments:
        text = values[part.variable] if isinstance(part, Slot) else part
        pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        if isinstance(part, Slot):
            yield '"'
            yield from (json.dumps(piece, ensure_ascii=False)[1:-1] for piece in pieces)
            yield '"'
        else:
            yield from pieces


def _has_slots(argument: Any) -> bool:
    if isinstance(argument, list | tuple | dict):
        return any(_has_slots(item) for item in (argument.values() if isinstance(argument, dict) else argument))
    return isinstance(argument, Slot)
