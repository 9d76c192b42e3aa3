"""Typed access to a model file's metadata: GGUF key-values or a Hugging Face `config.json`."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from parrotserve.errors import MalformedModel

_TOO_LARGE = 1 << 63
"""JSON allows whole numbers of any size; no number in a model's metadata is so large."""


_POINTER = b"version https://git-lfs.github.com/spec/"


class Metadata:
    """Key-values of one file. A missing or mistyped one raises `MalformedModel`, which names file and key."""

    __slots__ = ("_values", "path")

    def __init__(self, values: Mapping[str, object], path: Path) -> None:
        self._values = values
        self.path = path

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def raw(self, key: str) -> object:
        """The value as it is in the file; None if absent or null."""
        return self._values.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.malformed(f"{key} must be a whole number, not {value!r:.80}")
        if abs(value) >= _TOO_LARGE:
            raise self.malformed(f"{key} is {value!r:.80}, more than there can be")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.malformed(f"{key} must be a number, not {value!r:.80}")
        try:
            number = float(value)
        except OverflowError:  # digits enough for more than a float holds
            number = math.inf
        if not math.isfinite(number):
            raise self.malformed(f"{key} must be a finite number, not {value!r:.80}")
        return number

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._required(key, default)
        if not isinstance(value, bool):
            raise self.malformed(f"{key} must be true or false, not {value!r:.80}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self._required(key, default)
        if not isinstance(value, str):
            raise self.malformed(f"{key} must be a text, not {value!r:.80}")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        return cast("list[str]", self._list(key, str))

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers."""
        return cast("list[int]", self._list(key, int))

    def token(self, key: str, vocabulary: int) -> int | None:
        """The id of a token, below `vocabulary`; None if absent or null."""
        return self._token(key, self.integer(key), vocabulary) if key in self else None

    def tokens(self, key: str, vocabulary: int) -> list[int]:
        """Ids of tokens, below `vocabulary`, from a list, a single id, or nothing."""
        ids = self.integers(key) if isinstance(self.raw(key), list) else [self.integer(key)] if key in self else []
        return [self._token(key, one, vocabulary) for one in ids]

    def section(self, key: str) -> "Metadata | None":
        """A nested object, such as `rope_scaling`; None if absent or null."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.malformed(f"{key} must be an object, not {value!r:.80}")
        return Metadata(cast("dict[str, object]", value), self.path)

    def malformed(self, what: str) -> MalformedModel:
        """The error for something wrong in this file."""
        return malformed(self.path, what)

    def _token(self, key: str, value: int, vocabulary: int) -> int:
        if not 0 <= value < vocabulary:
            raise self.malformed(f"{key} is {value!r:.80}, but there are {vocabulary} tokens")
        return value

    def _required(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.malformed(f"{key} is missing")
        return value

    def _list(self, key: str, kind: type) -> list[object]:
        value = self._required(key, None)
        if not isinstance(value, list):
            raise self.malformed(f"{key} must be a list, not {value!r:.80}")
        items = cast("list[object]", value)
        if not all(type(item) is kind for item in items):
            raise self.malformed(f"{key} must hold only {kind.__name__} values")
        return items


def malformed(path: Path, what: str) -> MalformedModel:
    """The error for a model file that cannot be read."""
    if _is_pointer(path):
        what = "it only says where the file is (Git LFS): run `git lfs pull` in its folder"
    return MalformedModel(f"Cannot use the model file {path}: {what}.", path=str(path))


def _is_pointer(path: Path) -> bool:
    """Whether it is the Git LFS pointer that a clone has in place of a large file not fetched."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER
    return False


def read_json(path: Path) -> Metadata:
    """The JSON object in a file. Raises `MalformedModel` if it cannot be read or is something else."""
    try:
        value: object = json.loads(path.read_bytes())
    except OSError as error:
        raise malformed(path, f"it cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise malformed(path, f"it is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise malformed(path, "it does not hold a JSON object")
    return Metadata(cast("dict[str, object]", value), path)
