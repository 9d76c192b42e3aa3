"""What variables look like in other objects' texts, remembered so that no prompt gets it by accident.

`f"{[variable]}"`, and the `str` of an object that holds one, are made by Python from the variable's `repr`, which must
not fail, for debuggers and notebooks ask for it too. What was given out is found again where a text is taken for a
prompt, or for a value. Texts that merely speak of variables pass: the errors of this package are no such text, nor is
what another process wrote.
"""

from collections import deque

_MARK = "<SemanticVariable"
_REMEMBERED = 1000
_given: deque[str] = deque(maxlen=_REMEMBERED)
"""Beginnings of representations: what follows may have been escaped since."""


def beginning(name: str | None, state: str) -> str:
    """How the representation of a variable begins."""
    return f"{_MARK} {name} {state}" if name else f"{_MARK} {state}"


def remember(start: str) -> None:
    """A representation that begins so was given to somebody."""
    _given.append(start)


def check_no_representation(text: str, what: str) -> str:
    """The text. Raises `TypeError` where the representation of a variable is in it."""
    found = _MARK in text and next((start for start in tuple(_given) if start in text), None)
    if found:
        raise TypeError(
            f"{what}: there is a variable's representation in its text, {found}>: pass the variable itself, a list of "
            "variables, or what get() returns."
        )
    return text
