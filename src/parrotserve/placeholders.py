"""Placeholders: how `{{input:x | strip}}` is written, in docstrings of semantic functions and in texts sent over HTTP.

Only the grammar is here. What is wrong with a placeholder is for its reader to say: a docstring with a bad one is
refused, while what is no placeholder in a message is text like any other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_QUOTED = r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'"
_ANY = re.compile(rf"\{{\{{((?:{_QUOTED}|[^{{}}\"'\n]|\}}(?!\}}))*)\}}\}}")
_INPUT = re.compile(rf"\{{\{{\s*input\s*:\s*([A-Za-z_][A-Za-z0-9_-]*)\s*((?:\|(?:{_QUOTED}|[^\"'|}}\n])*)*)\}}\}}")
_BEGINNING = re.compile(r"\{\{\s*input\s*:")
_BETWEEN_BARS = re.compile(rf"(?:{_QUOTED}|[^|\"'])*")


@dataclass(frozen=True, slots=True)
class InputPlaceholder:
    """An input as it stands in a text."""

    name: str
    transforms: tuple[str, ...]
    """As they are written, for `parse_transform`; empty ones are left out."""
    start: int
    end: int
    """Where it ends: the index of the first character after it."""


def source_at(text: str, at: int) -> str | None:
    """What stands between the braces of the placeholder of any kind that begins at `at`; None where none is closed on
    its line."""
    match = _ANY.match(text, at)
    return match[1] if match else None


def at_bars(source: str) -> list[str]:
    """What stands between braces, split at the bars that are not within quotes: what is meant, then transforms."""
    pieces: list[str] = []
    at = 0
    while True:
        match = _BETWEEN_BARS.match(source, at)
        end = match.end() if match else at
        pieces.append(source[at:end])
        if end >= len(source):
            return pieces
        at = end + 1


def input_placeholders(text: str) -> Iterator[InputPlaceholder]:
    """What is written as an input, whatever its name, in time that grows with the text and not faster.

    None reaches past the beginning of the next one. Else each of many that are never closed would be looked for up to
    the end of the text, while the service stands still.
    """
    starts = [match.start() for match in _BEGINNING.finditer(text)]
    for start, end in pairwise((*starts, len(text))):
        match = _INPUT.match(text, start, end)
        if match is not None:
            transforms = tuple(piece for piece in at_bars(match[2]) if piece)
            yield InputPlaceholder(match[1], transforms, match.start(), match.end())
