"""What goes through a child's pipes: bodies of JSON behind their length, in four bytes."""

import struct
from typing import IO

HEADER = struct.Struct(">I")


def frame(body: bytes) -> bytes:
    """A body preceded by its length."""
    return HEADER.pack(len(body)) + body


def write_frame(stream: IO[bytes], *body: bytes) -> None:
    """Write a body, whole or in parts."""
    stream.write(HEADER.pack(sum(map(len, body))))
    for part in body:
        stream.write(part)
    stream.flush()


def read_parts(stream: IO[bytes]) -> str | None:
    """The next text, which comes in parts that an empty frame ends; None at the end of the stream."""
    parts: list[str] = []
    while part := read_frame(stream):
        parts.append(part.decode())
    return None if part is None else "".join(parts)


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next body; None at the end of the stream."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    body = stream.read(length)
    return body if len(body) == length else None
