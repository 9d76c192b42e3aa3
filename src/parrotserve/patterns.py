"""Regular expressions of the `regex` transform: RE2, whose time grows with the text and never explodes."""

from typing import Any

import re2

from parrotserve.errors import TransformFailed

LONGEST_PATTERN = 1000
"""Most characters of a pattern."""
_MEMORY = 256 << 10
"""Most bytes of a compiled pattern and its automaton. A pattern that needs more is refused when it is declared."""
_MOST_WORK = 300_000_000
"""Instructions of the pattern times characters of the text: a few seconds at the very worst."""


def check_pattern(pattern: str) -> None:
    """Raises `ValueError` for a pattern that is not valid, is too long, or has more than one group."""
    if not pattern:
        raise ValueError("is empty, and finds nothing in any text")
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"is longer than {LONGEST_PATTERN} characters")
    if "\b" in pattern:
        raise ValueError(r'has a backspace in it; for \b as a pattern, put an r before the docstring: r"""')
    try:
        groups = _compiled(pattern).groups
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is not a valid RE2 pattern: {reason}") from error
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode") from error
    if groups > 1:
        raise ValueError(f"has {groups} capturing groups; at most one is allowed, write (?:...) for the others")


def first_match(text: str, pattern: str) -> str:
    """The text of the pattern's group in the first match, or the whole match if it has no group.

    Raises `TransformFailed`, also for a text that is too long for the pattern.
    """
    compiled = _compiled(pattern)
    if compiled.programsize * len(text) > _MOST_WORK:
        raise TransformFailed(
            f"regex: {len(text):,} characters are too many for a pattern of this size; make the pattern smaller, or "
            "shorten the value with `lines` or `truncate` first."
        )
    match = compiled.search(text)
    found = match[compiled.groups] if match is not None else None
    if found is None:
        what = "the group took no part in the match" if match is not None else "there is no match"
        raise TransformFailed(f"regex: {what} of {pattern!r} in the value's {len(text):,} characters.")
    return found


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    return re2.compile(pattern, options)
