"""Representations of variables that were given out, remembered so that none gets into a prompt by accident.

Python makes `f"{[variable]}"`, and the `str` of an object that holds a variable, from the variable's `repr`, which must
not fail, because debuggers and notebooks use it too. So representations are remembered when they are given out, and
looked for in every text that becomes a prompt or a value. Texts that merely speak of variables pass: those in errors of
this package are not remembered, nor is what another process wrote.
"""

from collections import deque

_MARK = "<SemanticVariable"
_REMEMBERED = 1000
_given: deque[str] = deque(maxlen=_REMEMBERED)
"""Beginnings of representations only, because what follows may have been escaped since."""


def beginning(name: str | None, state: str) -> str:
    """How the representation of a variable begins."""
    return f"{_MARK} {name} {state}" if name else f"{_MARK} {state}"


def remember(start: str) -> None:
    """Note that a representation with this beginning was given out."""
    _given.append(start)


def check_no_representation(text: str, what: str) -> str:
    """Return the text. Raises `TypeError` if the representation of a variable is in it."""
    found = _MARK in text and next((start for start in tuple(_given) if start in text), None)
    if found:
        raise TypeError(
            f"{what}: there is a variable's representation in its text, {found}>: pass the variable itself, a list of "
            "variables, or what get() returns."
        )
    return text
