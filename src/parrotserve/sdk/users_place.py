"""Finds the user's own code on the stack, for warnings and tracebacks."""

import asyncio
import contextlib
import sys
from pathlib import Path
from types import TracebackType

import parrotserve

_NOT_THE_USERS = (str(Path(parrotserve.__file__).parent), str(Path(asyncio.__file__).parent), contextlib.__file__)


def users_place() -> tuple[str, int]:
    """The file and the line that the user's code is at."""
    frame = sys._getframe()  # pyright: ignore[reportPrivateUsage] - as `warnings` does; `inspect.stack` reads files
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins with the user's own code; all of it if that does not occur."""
    theirs = trace
    while theirs is not None and theirs.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        theirs = theirs.tb_next
    return theirs or trace
