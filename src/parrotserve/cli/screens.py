"""Showing variables while the model writes them: panels on a terminal, prefixed lines in a pipe."""

import contextlib
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from parrotserve.cli.console import CUT, harmless
from parrotserve.cli.prints import ProgramOutput
from parrotserve.cli.watch import Screen, Watched
from parrotserve.errors import ServiceUnavailable
from parrotserve.sampling import FinishReason

_PANEL_FRAME = 2
"""Lines of a panel's frame."""
_REFRESH_PER_SECOND = 12
_STARTING = "Starting ..."


class RunScreen(Screen, Protocol):
    """A screen that is used in a `with` block."""

    lost: OSError | None
    """Why nothing can be shown any more, if so: its reader has left (`parrot run ... | head`), or the disk is full. The
    program is interrupted then."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SilentScreen:
    """Shows nothing."""

    lost: OSError | None = None

    def starting(self) -> None:
        """Nothing."""

    def declared(self, watched: Watched) -> None:
        """Nothing."""

    def grew(self, watched: Watched, text: str) -> None:
        """Nothing."""

    def settled(self, watched: Watched) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing."""


def ending(watched: Watched) -> str:
    """The note on how an output ended; empty if it is complete."""
    if isinstance(watched.error, ServiceUnavailable):
        return watched.error.code  # all outputs fail so at once: the command says once what to do about it
    if watched.error is not None:
        return f"{watched.error.code}: {watched.error.message}"
    return CUT if watched.reason is FinishReason.LENGTH else ""


class LineScreen:
    """Prints whole lines as soon as they are complete, each after the variable's title."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self._unfinished: dict[int, tuple[Watched, str]] = {}
        self._open = 0
        self._lock = threading.Lock()
        self._mid_line = False
        self._down = False
        self._stack = contextlib.ExitStack()

    def starting(self) -> None:
        """Print nothing: a pipe is for results."""

    def declared(self, watched: Watched) -> None:
        """Count it; nothing is printed yet."""
        self._open += 1

    def grew(self, watched: Watched, text: str) -> None:
        """Print the lines that `text` completes."""
        _, pending = self._unfinished.get(id(watched), (watched, ""))
        *lines, rest = (pending + text).split("\n")
        self._unfinished[id(watched)] = (watched, rest)
        for line in lines:
            self._line(watched, "|", line)

    def settled(self, watched: Watched) -> None:
        """Print the rest of its text, and a note if it is not complete."""
        _, rest = self._unfinished.pop(id(watched), (watched, ""))
        if rest or not (watched.text or watched.error):
            self._line(watched, "|", rest)
        if note := ending(watched):
            self._line(watched, "!" if watched.error else "-", note)
        self._open -= 1

    def __enter__(self) -> Self:
        prints = ProgramOutput(sys.stdout, emit=self._emit, busy=lambda: self._open > 0, terminal=sys.stdout.isatty())
        self._stack.callback(prints.finish)
        self._stack.enter_context(contextlib.redirect_stdout(prints))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print the lines that are not complete as far as they came; text that comes later is not shown."""
        self._stack.close()
        for watched, rest in tuple(self._unfinished.values()):  # text may still come, on another thread
            if rest:
                self._line(watched, "|", rest)
        self._down = True

    def _line(self, watched: Watched, mark: str, text: str) -> None:
        if self._down:
            return
        line = f"{watched.title} {mark} {harmless(text)}".rstrip() + "\n"
        self._emit("\n" + line if self._mid_line else line)

    def _emit(self, text: str) -> None:
        with self._lock:
            if self.lost is not None:
                return
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError as error:
                self.lost = error
                interrupt_main()
            self._mid_line = not text.endswith("\n")


class PanelScreen:
    """Draws a panel for every variable.

    Those being written are at the bottom, with as much of the ends of their texts as fits the terminal; finished ones
    move up into the terminal's history, in full. While nothing is being produced, nothing is drawn.
    """

    lost: OSError | None = None

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open: list[Watched] = []
        self._began = time.monotonic()
        self._live: Live | None = None
        self._starting = False
        self._down = False
        self._stack = contextlib.ExitStack()

    def starting(self) -> None:
        """Show one line until something else is shown, so that the command does not seem to hang while it loads."""
        self._starting = True
        self._console.print(_STARTING, style="dim", end="\r")

    def declared(self, watched: Watched) -> None:
        """Show its panel from now on."""
        self._erase_starting()
        self._open = [*self._open, watched]
        if self._live is None and not self._down:
            self._live = live = Live(
                console=self._console,
                get_renderable=self._render,
                transient=True,
                refresh_per_second=_REFRESH_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            live.start()

    def grew(self, watched: Watched, text: str) -> None:
        """Do nothing: the next refresh reads the text."""

    def settled(self, watched: Watched) -> None:
        """Move its panel into the history."""
        self._open = [each for each in self._open if each is not watched]
        if not self._open:
            self._stop()
        elif self._live is not None:
            self._live.refresh()  # else it would be shown twice for a moment: in full, and as it was last drawn
        if not self._down:
            self._console.print(_panel(watched, watched.text))

    def __enter__(self) -> Self:
        out = self._prints(sys.stdout, terminal=True)
        self._stack.enter_context(contextlib.redirect_stdout(out))
        if sys.stderr.isatty():
            # The program is not told that this is a terminal: its progress bars would draw over the panels.
            self._stack.enter_context(contextlib.redirect_stderr(self._prints(sys.stderr, terminal=False)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print unfinished variables as far as they came; text that comes later is not shown."""
        self._down = True
        self._erase_starting()
        self._stop()
        for watched in self._open:
            if watched.text:
                self._console.print(_panel(watched, watched.text))
        self._stack.close()

    def _prints(self, stream: TextIO, *, terminal: bool) -> TextIO:
        prints = ProgramOutput(stream, emit=self._above, busy=lambda: self._live is not None, terminal=terminal)
        self._stack.callback(prints.finish)
        return cast("TextIO", prints)

    def _erase_starting(self) -> None:
        starting, self._starting = self._starting, False
        if starting:
            self._console.out(" " * len(_STARTING), end="\r")

    def _above(self, text: str) -> None:
        self._erase_starting()
        self._console.out(text, end="")

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _render(self) -> RenderableType:
        # Runs on rich's thread, which holds rich's lock. We need no lock, since the list is replaced, never changed.
        everything = self._open
        writing = [watched for watched in everything if watched.text]
        waiting = len(everything) - len(writing)
        room = max(self._console.height - 2, _PANEL_FRAME + 1)
        shown = writing[: room // (_PANEL_FRAME + 1)]
        lines = room // max(len(shown), 1) - _PANEL_FRAME
        panels = [_panel(watched, self._tail(watched.text, lines)) for watched in shown]
        return Group(*panels, Text(self._summary(len(writing), waiting), style="dim"))

    def _summary(self, writing: int, waiting: int) -> str:
        parts = [f"{writing} being written"] if writing else []
        if waiting:
            parts.append(f"{waiting} waiting")
        return ", ".join([*parts, f"{time.monotonic() - self._began:.0f} s"])

    def _tail(self, text: str, lines: int) -> str:
        """The last `lines` lines of the text, wrapped as in a panel."""
        width = max(self._console.width - 4, 1)
        wrapped = Text(text[-width * lines :]).wrap(self._console, width)
        return "\n".join(line.plain for line in wrapped[-lines:])


def _panel(watched: Watched, text: str) -> Panel:
    note = ending(watched)
    return Panel(
        Text(harmless(text)),
        title=Text(watched.title, style="bold"),
        title_align="left",
        subtitle=Text(harmless(note)) if note else None,
        subtitle_align="right",
        border_style="red" if watched.error else "green" if watched.settled else "cyan",
    )


def screen_on(console: Console) -> RunScreen:
    """A screen of panels on a terminal, else of lines."""
    return PanelScreen(console) if console.is_terminal else LineScreen(cast("TextIO", console.file))


def interrupt_main() -> None:
    """Interrupt the program as Ctrl-C would. May be called on any thread."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        # Sent to the main thread itself, so that it wakes if it waits for a lock.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
