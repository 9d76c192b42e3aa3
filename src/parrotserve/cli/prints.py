"""What a program prints while its variables are shown: whole lines, so that the two never mix within one."""

import io
import threading
from collections.abc import Callable
from typing import TextIO

_ALIVE: list["ProgramOutput"] = []
"""`print` only borrows `sys.stdout` (https://github.com/python/cpython/issues/130163): a thread that is printing while
its stream is replaced and freed would crash the process. So none is freed."""


class ProgramOutput(io.TextIOBase):
    """Stands for a standard stream. Lines go to `emit` when they are complete.

    The beginning of a line that the program flushes, such as the prompt of `input()`, goes at once unless `busy`:
    then something else is on the screen that it would mix with.
    """

    def __init__(
        self, stream: TextIO, *, emit: Callable[[str], None], busy: Callable[[], bool], terminal: bool
    ) -> None:
        self._stream = stream
        self._emit = emit
        self._busy = busy
        self._terminal = terminal
        self._pending = ""
        self._lock = threading.Lock()
        _ALIVE.append(self)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - as io.TextIOWrapper has it
        """Of the stream behind."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Print what lines this completes."""
        with self._lock:
            lines, newline, self._pending = (self._pending + text).rpartition("\n")
        if newline:
            self._emit(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Print the beginning of a line, unless it would mix with something else."""
        if not self._busy():
            self.finish()
        self._stream.flush()

    def finish(self) -> None:
        """Print the beginning of a line in any case."""
        with self._lock:
            rest, self._pending = self._pending, ""
        if rest:
            self._emit(rest)

    def isatty(self) -> bool:
        """Whether a program may draw on it."""
        return self._terminal

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Of the stream behind: what a child process writes there does not pass through here."""
        return self._stream.fileno()
