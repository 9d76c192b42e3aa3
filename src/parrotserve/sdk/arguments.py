"""Arguments of calls: bound to parameters, and turned into variables."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

from parrotserve.names import closest
from parrotserve.sdk.plain import text_from
from parrotserve.sdk.session import Session
from parrotserve.sdk.variable import SemanticVariable


def bind(signature: inspect.Signature, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every parameter's argument, defaults included. Raises `TypeError` as any call does, naming the function."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{shown(function, signature)}: {_misfit(signature, kwargs) or error}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def shown(function: str, signature: inspect.Signature) -> str:
    """A function with the names of its parameters, for messages."""
    return f"{function}({', '.join(signature.parameters)})"


def variables_of(argument: Any, name: str) -> tuple[SemanticVariable, ...]:
    """The variables that an argument is or contains, else a new one with its text. Raises `TypeError` for what
    `text_of` refuses."""
    if isinstance(argument, SemanticVariable):
        return (argument,)
    if isinstance(argument, list | tuple) and _holds_variables(argument):
        return tuple(variable for item in argument for variable in variables_of(item, name))
    return (SemanticVariable(text_of(argument, name), name=name),)


def text_of(argument: Any, name: str) -> str:
    """The text of an argument that is not a variable: its `str`.

    Raises `TypeError` if it contains a variable, for None (probably a forgotten `return`), and for what `text_from`
    refuses.
    """
    if argument is None:
        raise TypeError(f"{name} is None, not a text; pass a text ('' for an empty one) or a semantic variable.")
    if _holds_variables(argument):
        kind = type(argument).__name__
        advice = "pass one of them" if isinstance(argument, list | tuple) else "pass a list of them"
        raise TypeError(f"{name}: a {kind} with semantic variables in it is not a text; {advice}.")
    return text_from(argument, name)


def _holds_variables(argument: Any) -> bool:
    """Whether it contains variables, at any depth."""
    if not isinstance(argument, list | tuple | Mapping | set | frozenset):
        return False
    items = cast("Iterable[Any]", argument.values() if isinstance(argument, Mapping) else argument)
    return any(isinstance(item, SemanticVariable) or _holds_variables(item) for item in items)


def _misfit(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str | None:
    """A message that names an unknown keyword, if there is one: if it is misspelt, Python may only report that the
    parameter that was meant is missing."""
    names = list(signature.parameters)
    unknown = [name for name in kwargs if name not in names]
    if not unknown or any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        return None
    return f"there is no parameter {unknown[0]!r}{closest(unknown[0], names)}"


def produced_in(variables: Iterable[SemanticVariable]) -> list[Session]:
    """The sessions that produce these variables."""
    return [variable.session for variable in variables if variable.session is not None]
