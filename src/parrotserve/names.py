"""Errors about unknown names, which suggest the name that was probably meant."""

import difflib
import functools
import inspect
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from parrotserve.errors import DeclarationError

T = TypeVar("T")


def closest(name: str, known: Collection[str]) -> str:
    """The end of a sentence: `; did you mean 'task'?` if a known name is close, else a full stop."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else "."


def near(name: str, known: Iterable[str], *, alike: str = "") -> str:
    """A sentence: which of the known names may be meant, or all of them if none is close. `alike`: a prefix that all of
    them have, and which is not compared."""
    rests = sorted(one.removeprefix(alike) for one in known)
    rest = name.removeprefix(alike)
    close = difflib.get_close_matches(rest, rests, n=2)
    equally = [alike + one for one in close if _likeness(one, rest) == _likeness(close[0], rest)]
    return (
        f"Did you mean {' or '.join(equally)}?" if close else f"There are: {', '.join(alike + one for one in rests)}."
    )


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def check_names(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises `DeclarationError` for a keyword that `what` does not have."""
    for name in given:
        if name not in known:
            names = sorted(known)
            raise DeclarationError(
                f"{what} has no option {name!r}{closest(name, names)} There are: {', '.join(names)}.", option=name
            )


def takes_names(kind: type[T]) -> type[T]:
    """Decorates a class whose constructor takes keywords only. For other arguments it raises a `DeclarationError` that
    lists those that exist, instead of Python's `TypeError`."""
    init: Any = kind.__init__
    parameters = list(inspect.signature(init).parameters.values())[1:]
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    checks_itself = any(each.kind is each.VAR_KEYWORD for each in parameters)

    @functools.wraps(init)
    def checked(self: T, *values: Any, **options: Any) -> None:
        if values:
            raise DeclarationError(
                f"{kind.__name__} takes options by name, such as {known[0]}=; not {values[0]!r:.80}."
            )
        if not checks_itself:
            check_names(options, known, kind.__name__)
        init(self, **options)

    kind.__init__ = checked
    return kind
