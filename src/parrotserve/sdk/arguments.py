"""Arguments of calls: bound to parameters, and turned into variables."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from parrotserve.sdk.session import Session
from parrotserve.sdk.variable import SemanticVariable


def bind(signature: inspect.Signature, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every parameter's argument, defaults included. Raises `TypeError` as any call does, naming the function."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{shown(function, signature)}: {error}") from error
    bound.apply_defaults()
    return dict(bound.arguments)


def shown(function: str, signature: inspect.Signature) -> str:
    """A function with the names of its parameters, for people."""
    return f"{function}({', '.join(signature.parameters)})"


def holds_variables(argument: Any) -> bool:
    """Whether it is a list or tuple with variables in it."""
    return isinstance(argument, list | tuple) and any(isinstance(item, SemanticVariable) for item in argument)


def variables_of(argument: Any, name: str) -> tuple[SemanticVariable, ...]:
    """The variables that an argument is, or becomes. Raises `TypeError` where one hides where none can
    be, and for None: a result that somebody forgot to return must not become the word "None" in a prompt.
    """
    if argument is None:
        raise TypeError(f"{name} is None, which has no text; pass a text ('' for none) or a semantic variable.")
    if isinstance(argument, SemanticVariable):
        return (argument,)
    if holds_variables(argument):
        return tuple(variable for item in argument for variable in variables_of(item, name))
    if isinstance(argument, Mapping | set | frozenset):
        values: Iterable[Any] = argument.values() if isinstance(argument, Mapping) else argument
        if any(isinstance(value, SemanticVariable) for value in values):
            kind = type(argument).__name__
            raise TypeError(f"{name}: a {kind} with semantic variables in it has no text; pass a list of them.")
    return (SemanticVariable(argument if isinstance(argument, str) else str(argument), name=name),)


def produced_in(variables: Iterable[SemanticVariable]) -> list[Session]:
    """The sessions that produce these variables."""
    return [variable.session for variable in variables if variable.session is not None]
