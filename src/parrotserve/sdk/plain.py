"""Objects as texts: their `str`, except for objects whose `str` nobody means, such as functions."""

import inspect
from collections.abc import Awaitable
from typing import Any, TypeGuard

from parrotserve.sdk.representations import check_no_representation


def is_pending(value: object) -> TypeGuard[Awaitable[Any]]:
    """Whether it has to be awaited to get a text. Variables can be awaited too, but have a text of their own."""
    return inspect.isawaitable(value) and type(value).__str__ is object.__str__


def text_from(value: object, what: str) -> str:
    """The `str` of an object; `what` says in errors which one it is.

    Raises `TypeError` for what somebody forgot to call, to await, to read or to decode, and if the representation of a
    variable is in the text: a prompt must not contain `<function ...>` or `b'...'` by accident.
    """
    if isinstance(value, str):
        return check_no_representation(value, what)
    if is_pending(value):
        raise TypeError(f"{what} is {value!r:.80}, which is not a text; await it, and pass the result.")
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"{what} is {value!r:.80}, which is not a text; pass what it yields, as a list or joined.")
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{what} is {value!r:.80}, which is not a text; decode it: value.decode().")
    if type(value).__str__ is object.__str__:
        if callable(value):
            raise TypeError(f"{what} is {value!r:.80}, which is not a text; call it, and pass the result.")
        if callable(getattr(value, "read", None)):
            raise TypeError(f"{what} is {value!r:.80}, which is not a text; read it, and pass what is in it.")
    return check_no_representation(str(value), what)
