"""Parsing of JSON bodies, and the form in which the process that parses big ones hands them to the service.

Long lists are handed over in chunks that are unpickled one by one, so that the service never stops for a whole list.
"""

import json
import pickle
from typing import Any, Literal, NamedTuple, cast

CHUNK = 100
"""Items of a list that are pickled, unpickled or checked in one go."""


class Parsed(NamedTuple):
    """The value of a body. If that is an object, its long lists are in `lists` instead, by name, in pickled chunks."""

    value: Any
    lists: dict[str, list[bytes]]


class Malformed(NamedTuple):
    """What is wrong with a body, and at which character, if the error has a position."""

    why: str
    position: int | None = None


TooMany = Literal["too many"]
"""The body holds more values than it may."""


def parse(body: bytes, *, most_values: int) -> Parsed | Malformed | TooMany:
    """The value of a JSON body with its long lists separate, or what is wrong with it."""
    read = parse_whole(body, most_values=most_values)
    if not isinstance(read, Parsed) or not isinstance(read.value, dict):
        return read
    fields = cast("dict[str, Any]", read.value)
    lists: dict[str, list[bytes]] = {}
    for name in [name for name, field in fields.items() if isinstance(field, list) and len(field) > CHUNK]:
        items = fields.pop(name)
        lists[name] = [pickle.dumps(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
    return Parsed(fields, lists)


def parse_whole(body: bytes, *, most_values: int) -> Parsed | Malformed | TooMany:
    """The whole value of a JSON body, or what is wrong with it.

    Values are counted first, by commas and brackets, since parsing may need a hundred times the memory of the text.
    Commas and brackets in strings count too, but a text with so many is longer than any prompt can be.
    """
    if max(body.count(b","), body.count(b"["), body.count(b"{")) > most_values:
        return "too many"
    try:
        return Parsed(json.loads(body), {})
    except json.JSONDecodeError as error:
        return Malformed(error.msg, error.pos)
    except UnicodeDecodeError:
        return Malformed("it is not UTF-8")
    except RecursionError:
        return Malformed("it is nested too deeply")
    except ValueError:  # the only other cause: Python refuses numbers of so many digits, which take quadratic time
        return Malformed("it holds a number of too many digits")


def join(parsed: Parsed) -> Any:
    """The value with its long lists put back, which are unpickled a chunk at a time."""
    if not parsed.lists:
        return parsed.value
    fields = dict(parsed.value)
    for name, chunks in parsed.lists.items():
        fields[name] = [item for chunk in chunks for item in pickle.loads(chunk)]
    return fields
