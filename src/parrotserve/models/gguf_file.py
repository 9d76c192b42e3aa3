"""Reading GGUF files: header, key-values and the place of every tensor, with every offset checked.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own reader makes a
NumPy array of every string, which takes seconds for a vocabulary, and raises whatever error NumPy happens to raise for
a damaged file. So the header is parsed here, and the package is used only for its table of quantisations and for
dequantising.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parrotserve.errors import MalformedModel
from parrotserve.models.metadata import Metadata, malformed

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_MAX_NESTING = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32 = _SCALARS[4]
_U64 = _SCALARS[10]


_FOUR_BIT_WEIGHTS = 32
_Q4_0_BYTES, _Q4_1_BYTES = 18, 20
_FOUR_BIT = {2: _Q4_0_BYTES, 3: _Q4_1_BYTES}
"""Bytes per block, by type."""


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in its file."""

    shape: tuple[int, ...]
    """In NumPy's order: the last dimension is contiguous."""
    quantisation: int
    offset: int
    """Bytes from the start of the tensor data."""


class GgufFile:
    """One memory-mapped GGUF file. Raises `MalformedModel` if it is truncated or malformed."""

    __slots__ = ("_data", "_data_start", "metadata", "path", "places")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _map(path)
        reader = _Reader(self._data, path)
        tensor_count, pair_count = reader.header()
        values: dict[str, object] = {}
        for _ in range(pair_count):
            key = reader.string()
            values[key] = reader.value(reader.u32())
        self.metadata = Metadata(values, path)
        self.places: dict[str, TensorPlace] = {}
        for _ in range(tensor_count):
            name, place = reader.tensor_place()
            if name in self.places:
                raise malformed(path, f"tensor {name} appears twice")
            self.places[name] = place
        alignment = self.metadata.integer("general.alignment", _DEFAULT_ALIGNMENT)
        if alignment <= 0:
            raise malformed(path, f"general.alignment is {alignment}")
        self._data_start = -(-reader.position // alignment) * alignment

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The tensor's values, dequantised, in float32."""
        from gguf import constants, quants  # a third of a second to import, and only weights need it

        place = self._place(name)
        try:
            kind = constants.GGMLQuantizationType(place.quantisation)
            block, block_bytes = constants.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError) as error:
            raise malformed(self.path, f"tensor {name} has unknown type {place.quantisation}") from error
        rows = self._rows(name, place, block, block_bytes)
        try:
            with np.errstate(invalid="ignore", over="ignore"):  # damaged scales make values that are not finite
                values = quants.dequantize(rows, kind)
        except NotImplementedError as error:
            raise malformed(self.path, f"tensor {name} has the type {kind.name}, not supported") from error
        return np.ascontiguousarray(values.reshape(place.shape), dtype=np.float32)

    def four_bit(self, name: str) -> NDArray[np.uint8] | None:
        """The tensor as blocks of Q4_1, [..., blocks, 20]: as stored, or converted from Q4_0. None for other types, and
        if a scale is too large to convert.

        The twenty bytes of a block hold 32 weights d * q + m: d and m in fp16, then the q of the first sixteen in the
        low halves of bytes, and of the second sixteen in the high ones. Q4_0 has d * (q - 8).
        """
        place = self._place(name)
        block_bytes = _FOUR_BIT.get(place.quantisation)
        if block_bytes is None:
            return None
        rows = self._rows(name, place, _FOUR_BIT_WEIGHTS, block_bytes)
        blocks = rows.reshape(*rows.shape[:-1], -1, block_bytes)
        return blocks if block_bytes == _Q4_1_BYTES else _with_least(blocks)

    def _place(self, name: str) -> TensorPlace:
        place = self.places.get(name)
        if place is None:
            raise malformed(self.path, f"tensor {name} is missing")
        return place

    def _rows(self, name: str, place: TensorPlace, block: int, block_bytes: int) -> NDArray[np.uint8]:
        """The tensor's raw bytes, [..., bytes of its last dimension]."""
        width = place.shape[-1]
        if width % block:
            raise malformed(self.path, f"tensor {name} has rows of {width}, no multiple of {block}")
        row_bytes = width // block * block_bytes
        size = prod(place.shape[:-1]) * row_bytes
        start = self._data_start + place.offset
        if start + size > len(self._data):
            end = f"tensor {name} ends at byte {start + size} of {len(self._data)}"
            raise malformed(self.path, f"it is truncated: {end}; fetch it again")
        raw = np.frombuffer(self._data, dtype=np.uint8, count=size, offset=start)
        return raw.reshape(*place.shape[:-1], row_bytes)


def _with_least(blocks: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Convert blocks of Q4_0 to Q4_1; None if eight times a scale exceeds fp16."""
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")
    with np.errstate(over="ignore"):
        least = scales * np.float16(-8)
    if not np.isfinite(least).all():
        return None
    return np.concatenate((blocks[..., :2], least.view(np.uint8), blocks[..., 2:]), axis=-1)


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise malformed(path, f"it cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # raised by mmap for an empty file
        raise malformed(path, "it is empty; fetch it again") from error


class _Reader:
    """A cursor over the header that never reads beyond the file's end."""

    __slots__ = ("_data", "_path", "position")

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self.position = 0

    def header(self) -> tuple[int, int]:
        """The counts of tensors and of key-values."""
        if self._data[:4] != _MAGIC:
            raise malformed(self._path, "it is not a GGUF file")
        self.position = 4
        version = self.u32()
        if version not in _VERSIONS:
            raise malformed(self._path, f"its GGUF version is {version}; known are {_VERSIONS}")
        return self._count(self.u64(), 24), self._count(self.u64(), 13)

    def u32(self) -> int:
        return self._unpack(_U32)

    def u64(self) -> int:
        return self._unpack(_U64)

    def string(self) -> str:
        length = self.u64()
        start = self.position
        if length > len(self._data) - start:
            raise self._truncated()
        self.position = start + length
        try:
            return self._data[start : self.position].decode("utf-8")
        except UnicodeDecodeError as error:
            raise malformed(self._path, f"the text at byte {start} is not UTF-8") from error

    def value(self, kind: int, nesting: int = 0) -> object:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(nesting + 1)
        return self._unpack(self._scalar(kind))

    def tensor_place(self) -> tuple[str, TensorPlace]:
        name = self.string()
        count = self.u32()
        if not 1 <= count <= _MAX_DIMENSIONS:
            raise malformed(self._path, f"tensor {name} has {count} dimensions")
        shape = tuple(reversed([self.u64() for _ in range(count)]))
        if not all(shape):
            raise malformed(self._path, f"tensor {name} has the empty shape {shape}")
        return name, TensorPlace(shape, self.u32(), self.u64())

    def _array(self, nesting: int) -> list[object]:
        kind = self.u32()
        if nesting > _MAX_NESTING:
            raise malformed(self._path, "its arrays are nested too deeply")
        if kind in (_STRING, _ARRAY):
            count = self._count(self.u64(), 8)
            read: Callable[[], object] = self.string if kind == _STRING else lambda: self._array(nesting + 1)
            return [read() for _ in range(count)]
        scalar = self._scalar(kind)
        count = self._count(self.u64(), scalar.size)
        start = self.position
        self.position = start + count * scalar.size
        return list(struct.unpack_from(f"<{count}{scalar.format[-1]}", self._data, start))

    def _scalar(self, kind: int) -> struct.Struct:
        try:
            return _SCALARS[kind]
        except KeyError as error:
            raise malformed(self._path, f"unknown value type {kind} at byte {self.position}") from error

    def _count(self, count: int, least_bytes: int) -> int:
        """Check a count of items of `least_bytes` or more each: the rest of the file must be able to hold them."""
        if count * least_bytes > len(self._data) - self.position:
            raise self._truncated()
        return count

    def _unpack(self, scalar: struct.Struct) -> int:
        try:
            (value,) = scalar.unpack_from(self._data, self.position)
        except struct.error as error:
            raise self._truncated() from error
        self.position += scalar.size
        return value

    def _truncated(self) -> MalformedModel:
        return malformed(self._path, f"it is truncated or damaged at byte {self.position}; fetch it again")
