"""Output that all commands share: the two consoles, tables and errors."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from parrotserve.errors import DeclarationError, ParrotError

if TYPE_CHECKING:
    from rich.table import Table

CUT = "cut at max_tokens"
"""The note on an output that ended because of its token limit."""

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 + SIGINT."""

_BOUNDLESS = 10_000
"""Columns of a pipe, so that lines are not folded: that is up to its reader."""

# A terminal acts on control characters; replaced by Unicode's pictures of them they do no harm.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}


def standard_output() -> Console:
    """A console on the current stdout that prints text unchanged, without markup or highlighting."""
    return _console(sys.stdout)


def standard_error() -> Console:
    """Such a console on stderr."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _BOUNDLESS
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def harmless(text: str) -> str:
    """The text with control characters made visible, except for line feeds and tabs."""
    return text.translate(_PICTURES)


def complain(message: str) -> None:
    """Print an error as one red line on stderr."""
    line = " ".join(harmless(message).split())
    standard_error().print(Text.assemble(("Error: ", "bold red"), (line, "red")))


def show_table(table: "Table", none: str) -> None:
    """Print a table on stdout; if it has no rows, print `none` on stderr instead."""
    if table.row_count:
        standard_output().print(table)
    else:
        standard_error().print(none)


Command = Callable[..., None]


def guarded(command: Command) -> Command:
    """The command, but with errors reported in one line and Ctrl-C in one word, never with a traceback.

    Exit codes: 1 for an error, 2 for wrong usage and settings, 130 for Ctrl-C.
    """

    @functools.wraps(command)
    def guard(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ParrotError as error:
            complain(error.message)
            raise typer.Exit(2 if isinstance(error, DeclarationError) else 1) from error
        except BrokenPipeError:
            raise  # the reader of the output has closed it; click exits quietly
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror
            complain(f"{what or error}.")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            standard_error().print("Interrupted.", style="yellow")
            raise typer.Exit(INTERRUPTED) from interrupt

    guard.__doc__ = _flowing(inspect.cleandoc(command.__doc__ or ""))
    return guard


def _flowing(text: str) -> str:
    """The text without line breaks inside paragraphs, which typer wraps, except for those that begin with \\b."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(one if one.startswith("\b") else one.replace("\n", " ") for one in paragraphs)
