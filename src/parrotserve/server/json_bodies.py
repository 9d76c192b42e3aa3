"""Bodies of JSON as a process of their own parses them for the service.

Long lists of a value come in chunks that are unpickled one by one, so that the service never stops for all of them.
"""

import json
import pickle
from typing import Any, Literal, NamedTuple, cast

CHUNK = 100
"""Items of a list that are pickled together."""


class Parsed(NamedTuple):
    """The value of a body. Where that is an object, its long lists are in `lists`, by name, in pickled chunks."""

    value: Any
    lists: dict[str, list[bytes]]


class Malformed(NamedTuple):
    """What is wrong with a body, and the place in it, in bytes."""

    why: str
    position: int = 0


TooMany = Literal["too many"]
"""It holds more values than a body may."""


def parse(body: bytes, *, most_values: int) -> Parsed | Malformed | TooMany:
    """The value of a body of JSON, or what is wrong with it.

    Values are counted first, by their commas and brackets: parsing needs up to a hundred times the memory of its text.
    A text that holds so many is longer than any prompt can be.
    """
    if max(body.count(b","), body.count(b"["), body.count(b"{")) > most_values:
        return "too many"
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        return Malformed(error.msg, error.pos)
    except UnicodeDecodeError:
        return Malformed("it is not UTF-8")
    except RecursionError:
        return Malformed("it is nested too deeply")
    lists: dict[str, list[bytes]] = {}
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        for name in [name for name, field in fields.items() if isinstance(field, list) and len(field) > CHUNK]:
            items = fields.pop(name)
            lists[name] = [pickle.dumps(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
    return Parsed(value, lists)


def join(parsed: Parsed) -> Any:
    """The value with its lists, made a chunk at a time."""
    if not parsed.lists:
        return parsed.value
    fields = dict(parsed.value)
    for name, chunks in parsed.lists.items():
        fields[name] = [item for chunk in chunks for item in pickle.loads(chunk)]
    return fields
