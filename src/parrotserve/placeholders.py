"""The grammar of placeholders such as `{{input:x | strip}}`, in docstrings and in texts sent over HTTP.

Errors are left to the callers: a docstring with a bad placeholder is refused, while in a message whatever is not a
placeholder is ordinary text.
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
    """An input placeholder in a text."""

    name: str
    transforms: tuple[str, ...]
    """The sources of its transforms, for `parse_transform`, without empty ones."""
    start: int
    end: int
    """Index of the first character behind it."""


def source_at(text: str, at: int) -> str | None:
    """The text between the braces of the placeholder (of any kind) that begins at `at`; None if it is not closed on its
    line."""
    match = _ANY.match(text, at)
    return match[1] if match else None


def at_bars(source: str) -> list[str]:
    """Split the text between braces at the bars outside quotes: first what is meant, then the transforms."""
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
    """Everything that is written as an input, whatever its name, in time linear in the text's length.

    No placeholder reaches past the beginning of the next one. Otherwise the rest of the text would be searched for each
    of many that are never closed, while the service stands still.
    """
    starts = [match.start() for match in _BEGINNING.finditer(text)]
    for start, end in pairwise((*starts, len(text))):
        match = _INPUT.match(text, start, end)
        if match is not None:
            transforms = tuple(piece for piece in at_bars(match[2]) if piece)
            yield InputPlaceholder(match[1], transforms, match.start(), match.end())
