"""What a program returned and what it used, as text of a few lines."""

from collections.abc import Iterable, Mapping
from typing import Any

from parrotserve.cli.watch import Figures, Watched
from parrotserve.sdk.variable import SemanticVariable

_SHORT = 60
"""A result of at most so many characters is shown as it is, even if its texts were shown before."""
_NEWLINE = repr("\n")[1:-1]
_WORD = 20
"""A text of at most so many characters is never replaced by its title, which says less and takes as much room."""


def resolved(result: Any) -> Any:
    """The result with its variables replaced by their values, in lists, tuples and dicts too. Raises `ParrotError`."""
    if isinstance(result, SemanticVariable):
        return result.get()
    if isinstance(result, tuple | list):
        return type(result)(map(resolved, result)) if type(result) in (tuple, list) else tuple(map(resolved, result))
    if isinstance(result, dict):
        return {key: resolved(value) for key, value in result.items()}
    return result


def told(result: Any, shown: Iterable[Watched]) -> str:
    """The text after "returned", for a reader who has seen the variables `shown`: their long texts are replaced by
    their titles."""
    if result is None:
        return " nothing"
    titles = {watched.value: watched.title for watched in shown if watched.value is not None}
    whole = _told(result, {})
    return f": {whole if len(whole) <= _SHORT and _NEWLINE not in whole else _told(result, titles)}"


def raw(result: Any) -> str:
    """The bare result, for a pipe: the text itself; several are separated by blank lines."""
    if result is None:
        return ""
    if isinstance(result, Mapping):
        return "\n\n".join(f"{key}:\n{raw(value)}" for key, value in result.items())
    if isinstance(result, tuple | list):
        return "\n\n".join(map(raw, result))
    return str(result)


def figures_line(figures: Figures, seconds: float) -> str:
    """One line: requests, tokens, seconds."""
    parts = [_count(figures.requests, "request")]
    if figures.native_calls:
        parts.append(_count(figures.native_calls, "native call"))
    cached = f" ({figures.cached_tokens:,} from the cache)" if figures.cached_tokens else ""
    parts.append(f"{figures.prompt_tokens:,} tokens read{cached}, {figures.output_tokens:,} written")
    parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)


def _told(result: Any, titles: Mapping[str, str]) -> str:
    if isinstance(result, str):
        is_long = len(result) > _WORD or "\n" in result
        return titles[result] if is_long and result in titles else repr(result)
    if isinstance(result, Mapping):
        return "{" + ", ".join(f"{key!r}: {_told(value, titles)}" for key, value in result.items()) + "}"
    if isinstance(result, tuple | list):
        inside = ", ".join(_told(value, titles) for value in result)
        return f"[{inside}]" if isinstance(result, list) else f"({inside})"
    return repr(result)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
