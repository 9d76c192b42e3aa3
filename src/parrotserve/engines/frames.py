"""The protocol of the pipes between a service and an engine's process: length-prefixed MessagePack.

The service first sends the engine's settings (one frame, whose form depends on the kind of engine), then lists of
commands. The engine sends `Ready` or `Refused` once, and lists of events; heartbeats come before `Ready`, too.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from parrotserve.engines.base import Command, EngineDescription, Event

_HEADER = struct.Struct(">I")
_MAX_FRAME = 1 << 30


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine is up."""

    description: EngineDescription


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The engine cannot start; code and message are those of a `ParrotError`."""

    code: str
    message: str


class Events(msgspec.Struct, frozen=True, tag="events"):
    """The events of one step."""

    events: list[Event]


WARNING = "WARNING: "
"""Prefix of lines on an engine's standard error that people should see."""

FromEngine = Ready | Refused | Events

_encoder = msgspec.msgpack.Encoder()
_from_engine = msgspec.msgpack.Decoder(FromEngine)
_commands = msgspec.msgpack.Decoder(list[Command])


def encode(message: object) -> bytes:
    """One frame, header included."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


def decode_from_engine(body: bytes) -> FromEngine:
    """Raises `msgspec.MsgspecError` for a body that is no message of an engine."""
    return _from_engine.decode(body)


def decode_commands(body: bytes) -> list[Command]:
    """Raises `msgspec.MsgspecError` for a body that is no list of commands."""
    return _commands.decode(body)


class FrameBuffer:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies of the frames that `data` completes. Raises ValueError for data that cannot be a frame."""
        self._bytes += data
        start = 0
        while len(self._bytes) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._bytes, start)
            if length > _MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes: the stream is corrupt")
            stop = start + _HEADER.size + length
            if len(self._bytes) < stop:
                break
            yield bytes(self._bytes[start + _HEADER.size : stop])
            start = stop
        del self._bytes[:start]


def read_frame(stream: BinaryIO) -> bytes | None:
    """Waits for the next frame; None when the stream has ended."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    body = stream.read(length)
    return body if len(body) == length else None
