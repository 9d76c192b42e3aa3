"""Reading the safetensors files of a Hugging Face folder as float32, memory-mapped.

The `safetensors` package checks the header, and that it describes the data exactly. Its NumPy interface does not
support bfloat16, so the tensors are read here.
"""

import json
import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from parrotserve.errors import MalformedModel
from parrotserve.models.metadata import Metadata, malformed, read_json

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_BFLOAT16 = "BF16"
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8"), _BFLOAT16: np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Bytes from the start of the file."""


class SafetensorsFolder:
    """All tensors of a folder, sharded or not. Raises `MalformedModel` naming the file that is wrong."""

    __slots__ = ("_maps", "_places", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._maps: dict[Path, mmap.mmap] = {}
        self._places: dict[str, _Place] = {}
        for file in _weight_files(path):
            self._open(file)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The tensor in float32."""
        place = self._places.get(name)
        if place is None:
            raise malformed(self.path, f"tensor {name} is missing")
        dtype = _DTYPES.get(place.dtype)
        if dtype is None:
            known = ", ".join(_DTYPES)
            raise malformed(place.file, f"tensor {name} has the type {place.dtype}; supported are {known}")
        count = prod(place.shape)
        raw = np.frombuffer(self._maps[place.file], dtype=dtype, count=count, offset=place.start)
        if place.dtype == _BFLOAT16:  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32).reshape(place.shape)
        return raw.astype(np.float32).reshape(place.shape)

    def _open(self, file: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="numpy"):
                pass
            with file.open("rb") as opened:
                mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (SafetensorError, OSError, ValueError) as error:
            raise _unreadable(file, error) from error
        length = int.from_bytes(mapped[:_LENGTH_BYTES], "little")
        header = json.loads(mapped[_LENGTH_BYTES : _LENGTH_BYTES + length])
        header.pop("__metadata__", None)
        self._maps[file] = mapped
        for name, entry in header.items():
            shape = tuple(cast("list[int]", entry["shape"]))
            start = _LENGTH_BYTES + length + cast("int", entry["data_offsets"][0])
            self._places[name] = _Place(file, entry["dtype"], shape, start)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors weights under the usual names."""
    return (folder / _WEIGHTS).is_file() or (folder / _INDEX).is_file()


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = read_json(folder / _INDEX)
    return [_shard(folder, name, index) for name in sorted(set(_weight_map(index).values()))]


def _weight_map(index: Metadata) -> dict[str, str]:
    value = index.raw("weight_map")
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise index.malformed("weight_map must map tensors to files")
    return cast("dict[str, str]", value)


def _shard(folder: Path, name: str, index: Metadata) -> Path:
    """A shard's file, which must be in the folder itself: an index must not cause reads elsewhere."""
    if name in (".", "..") or Path(name).name != name:
        raise index.malformed(f"weight_map names {name!r}, which is not a file of this folder")
    return folder / name


def _unreadable(file: Path, error: Exception) -> MalformedModel:
    return malformed(file, f"it cannot be read as safetensors ({error}); fetch it again if it is truncated")
