"""Transforms inside placeholders, applied by the service to a variable's value.

Written as in `{{input:code | code_block}}`; several are applied from left to right. They are pure functions of text;
only `truncate` needs a model's tokenizer, which is passed in.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from parrotserve.errors import InvalidTransform
from parrotserve.json_path import at_path, parse_path
from parrotserve.names import closest
from parrotserve.patterns import check_pattern, first_match


class TruncatesTokens(Protocol):
    """What `truncate` needs of a tokenizer."""

    def truncate(self, text: str, tokens: int) -> str:
        """The longest beginning of `text` that has at most `tokens` tokens, cut between characters."""
        ...


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform by name with its literal arguments, such as `lines(1, 10)`."""

    name: str
    args: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        signature = _SIGNATURES.get(self.name)
        if signature is None:
            known = sorted(_SIGNATURES)
            raise InvalidTransform(
                f"There is no transform {self.name!r}{closest(self.name, known)} There are: {', '.join(known)}."
            )
        if tuple(type(arg) for arg in self.args) != signature:
            wants = ", ".join(kind.__name__ for kind in signature) or "no arguments"
            raise InvalidTransform(f"Transform {self.name!r} takes ({wants}), not {self.args!r}.")
        if any(isinstance(arg, int) and arg < 0 for arg in self.args):
            raise InvalidTransform(f"Transform {self} must not have negative arguments.")
        try:
            _CHECKS.get(self.name, _anything)(*self.args)
        except ValueError as error:
            raise InvalidTransform(f"Transform {self}: its argument {error}.") from error

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_written, self.args))})" if self.args else self.name


_SIGNATURES: dict[str, tuple[type, ...]] = {
    "strip": (),
    "code_block": (),
    "lines": (int, int),
    "truncate": (int,),
    "json": (str,),
    "regex": (str,),
}

WHOLE_VALUE = frozenset({"strip", "code_block", "truncate", "json", "regex"})
"""Transforms whose result may change until the whole value is known."""

_MOST_SHOWN = 80
"""Most characters of an invalid transform that its error repeats."""
_CALL = re.compile(r"([A-Za-z_]\w*)\s*(?:\((.*)\))?", re.DOTALL)
_TEXT = re.compile(r"""(?<!\w)(?:("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|["'](?s:.*))""")
"""A quoted text, or everything behind a quote that is never closed: else that would be searched from every quote."""
_FENCE = re.compile(r"^[ ]{0,3}```[^\n`]*\n(.*?)(?:^[ ]{0,3}```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def parse_transform(source: str) -> Transform:
    """Read one transform as written in a placeholder. Raises `InvalidTransform`."""
    match = _CALL.fullmatch(source.strip())
    shown = f"{source.strip():.{_MOST_SHOWN}}"
    if match is None:
        raise InvalidTransform(f"{shown!r} is not a transform; write `strip` or `lines(1, 10)`.")
    name, args = match.groups()
    if args is None:
        return Transform(name)
    # Texts are read as raw strings, because a backslash in them belongs to the pattern.
    args = _TEXT.sub(lambda match: f"r{match[0]}" if match[1] else match[0], args)
    try:
        values = ast.literal_eval(f"({args},)") if args.strip() else ()
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # the last two: too complex for Python
        raise InvalidTransform(f"The arguments of {shown!r} must be literal numbers or texts.") from error
    return Transform(name, values)


def apply_transforms(transforms: tuple[Transform, ...], value: str, tokenizer: TruncatesTokens) -> str:
    """The value after all transforms, from left to right. Raises `TransformFailed` if one does not fit it."""
    for transform in transforms:
        if transform.name == "truncate":
            (tokens,) = transform.args
            value = tokenizer.truncate(value, int(tokens))
        else:
            value = _PURE[transform.name](value, *transform.args)
    return value


def _strip(value: str) -> str:
    return value.strip()


def _code_block(value: str) -> str:
    """The content of the first fenced code block; the stripped value if there is none."""
    match = _FENCE.search(value)
    return match.group(1).rstrip() if match else value.strip()


def _lines(value: str, start: int, end: int) -> str:
    """Lines `start` up to and including `end`, counted from 1."""
    return "\n".join(value.splitlines()[start - 1 : end])


def _check_lines(start: int, end: int) -> None:
    if start < 1:
        raise ValueError(f"{start} is not a line number; lines count from 1")
    if end < start:
        raise ValueError(f"{end} comes before {start}, so that no line is left")


def _check_tokens(tokens: int) -> None:
    if tokens < 1:
        raise ValueError(f"{tokens} must be at least 1")


def _written(arg: int | str) -> str:
    return repr(arg) if isinstance(arg, int) or '"' in arg else f'"{arg}"'


def _anything(*_: int | str) -> None:
    pass


_PURE: dict[str, Callable[..., str]] = {
    "strip": _strip,
    "code_block": _code_block,
    "lines": _lines,
    "json": at_path,
    "regex": first_match,
}

_CHECKS: dict[str, Callable[..., object]] = {
    "lines": _check_lines,
    "truncate": _check_tokens,
    "json": parse_path,
    "regex": check_pattern,
}
"""Checks of arguments beyond their types."""
