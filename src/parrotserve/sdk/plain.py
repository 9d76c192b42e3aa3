"""Objects as texts: what `str` makes of them, but for those of which it makes nothing that anybody means."""

import inspect
from collections.abc import Awaitable
from typing import Any, TypeGuard

from parrotserve.sdk.representations import check_no_representation


def is_pending(value: object) -> TypeGuard[Awaitable[Any]]:
    """Whether somebody forgot to await it. Variables can be awaited too, but are texts all the same."""
    return inspect.isawaitable(value) and type(value).__str__ is object.__str__


def text_from(value: object, what: str) -> str:
    """The `str` of an object; `what` says in errors which one it is.

    Raises `TypeError` for what somebody forgot to call, to await, to read or to decode, and where the representation of
    a variable is in the text: a prompt must not contain `<function ...>` or `b'...'` by accident.
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
