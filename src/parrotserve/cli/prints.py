"""What a program prints while its variables are shown: passed on in whole lines, so that no line mixes both."""

import io
import threading
from collections.abc import Callable
from typing import TextIO

_ALIVE: list["ProgramOutput"] = []
"""All outputs, so that none is ever freed. `print` holds no reference to `sys.stdout`
(https://github.com/python/cpython/issues/130163): if the stream is replaced and freed while a thread prints to it, the
process crashes."""


class ProgramOutput(io.TextIOBase):
    """Replaces a standard stream. Lines are passed to `emit` when they are complete.

    A partial line that the program flushes, such as the prompt of `input()`, is passed on at once, unless `busy`: then
    it would mix with something else on the screen.
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
        """The encoding of the replaced stream."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Print the lines that `text` completes."""
        with self._lock:
            lines, newline, self._pending = (self._pending + text).rpartition("\n")
        if newline:
            self._emit(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Print a partial line, unless it would mix with something else."""
        if not self._busy():
            self.finish()
        self._stream.flush()

    def finish(self) -> None:
        """Print a partial line in any case."""
        with self._lock:
            rest, self._pending = self._pending, ""
        if rest:
            self._emit(rest)

    def isatty(self) -> bool:
        """Whether a program may treat the stream as a terminal."""
        return self._terminal

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor of the replaced stream. What a child process writes to it does not pass through here."""
        return self._stream.fileno()
