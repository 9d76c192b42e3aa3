"""What native calls are given: arguments with places for the values of variables that are not known yet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from parrotserve.ids import VariableId


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for the value of a variable among the arguments of a native call."""

    variable: VariableId


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxedCall:
    """A call that the service runs itself: a function in Starlark, and its arguments."""

    name: str
    source: str
    file: str
    line: int
    """Where the source begins in its file."""
    arguments: Mapping[str, Any]
    """By parameter: what JSON has, and `Slot`s."""
    seconds: float | None = None
    """The most that it may take, if less than the service allows."""


def fill(argument: Any, values: Mapping[VariableId, str]) -> Any:
    """The argument with texts for its slots; what has none is the caller's own and passes untouched."""
    if isinstance(argument, Slot):
        return values[argument.variable]
    if isinstance(argument, list | tuple | dict) and _has_slots(argument):
        if isinstance(argument, dict):
            return {key: fill(item, values) for key, item in argument.items()}
        return [fill(item, values) for item in argument]
    return argument


def slots_in(argument: Any) -> Iterator[VariableId]:
    """The variables that have places in an argument, each as often as it has."""
    if isinstance(argument, Slot):
        yield argument.variable
    elif isinstance(argument, Mapping):
        for item in cast("Mapping[str, Any]", argument).values():
            yield from slots_in(item)
    elif isinstance(argument, list | tuple):
        for item in cast("Sequence[Any]", argument):
            yield from slots_in(item)


def _has_slots(argument: Any) -> bool:
    if isinstance(argument, list | tuple | dict):
        return any(_has_slots(item) for item in (argument.values() if isinstance(argument, dict) else argument))
    return isinstance(argument, Slot)
