"""Paths into JSON values, for the `json` transform: `a.b[0]`, `items[-1].name`, `["a name"]`."""

import json
import re
from typing import Any, NoReturn

from parrotserve.errors import TransformFailed

Path = tuple[str | int, ...]

_STEP = re.compile(r"""\.?(?P<name>[^\s.\[\]"']+)|\[(?P<index>-?\d{1,9})\]|\[(?P<quoted>"[^"]*"|'[^']*')\]""")
_MOST_SHOWN = 8
"""Most names that a message lists."""


def parse_path(path: str) -> Path:
    """The names and indexes of a path. Raises `ValueError`."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        # Names are separated by dots, and no dot comes before the first.
        if match is None or (match["name"] and (path[at] == ".") == (at == 0)):
            raise ValueError(f"cannot be read from {path[at:]!r} on; write names and indexes such as 'a.b[0]'")
        name, index, quoted = match.group("name", "index", "quoted")
        steps.append(name if name is not None else int(index) if index is not None else quoted[1:-1])
        at = match.end()
    if not steps:
        raise ValueError("names nothing; write names and indexes such as 'a.b[0]'")
    return tuple(steps)


def at_path(text: str, path: str) -> str:
    """The value at a path in a JSON text: a string as it is, everything else as JSON. Raises `TransformFailed`."""
    value = _parsed(text)
    done: Path = ()
    for step in parse_path(path):
        value = _step(value, step, done)
        done = (*done, step)
    try:
        found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        found.encode()
    except ValueError as error:
        raise TransformFailed(f"json: {_shown(done)} is neither a number nor a text that JSON has.") from error
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = (
            f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
            if text.strip()
            else "it is empty"
        )
        raise TransformFailed(
            f"json: the value is not JSON: {where}. Where the model writes something around it, `code_block` or "
            "`regex` before this one may take it out; a JSON schema on the output keeps it from doing so."
        ) from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TransformFailed(f"json: the value is not JSON that can be read: {why}.") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _step(value: Any, step: str | int, done: Path) -> Any:
    if isinstance(value, dict):
        if isinstance(step, int):
            raise TransformFailed(f"json: {_shown(done)} is an object, which has no [{step}]; write a name.")
        if step in value:
            return value[step]
        names = [repr(name) for name in list(value)[:_MOST_SHOWN]] + ["…"] * (len(value) > _MOST_SHOWN)
        raise TransformFailed(f"json: {_shown(done)} has no {step!r}; it has: {', '.join(names) or 'nothing'}.")
    if isinstance(value, list):
        if not isinstance(step, int):
            raise TransformFailed(f"json: {_shown(done)} is a list, which has no {step!r}; write an index such as [0].")
        if not -len(value) <= step < len(value):
            raise TransformFailed(f"json: {_shown(done)} has {len(value)} items, so there is no [{step}].")
        return value[step]
    kind = {str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    raise TransformFailed(f"json: {_shown(done)} is {kind}, and has nothing within it.")


def _shown(path: Path) -> str:
    if not path:
        return "the value"
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return f"'{''.join(steps).removeprefix('.')}'"
