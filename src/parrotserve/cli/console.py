"""What all commands say in the same way: errors, and the two consoles."""

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
"""How an output ended that was not at its end."""

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 + SIGINT."""

_BOUNDLESS = 10_000
"""Columns of a pipe: whoever reads it folds lines, or does not."""

# A terminal acts on control characters; shown as pictures they do no harm.
_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}


def standard_output() -> Console:
    """A console on stdout as it is now, which leaves text as it is: no markup, no highlighting."""
    return _console(sys.stdout)


def standard_error() -> Console:
    """The same on stderr."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _BOUNDLESS
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def harmless(text: str) -> str:
    """The text with control characters made visible, lines and tabs aside."""
    return text.translate(_PICTURES)


def complain(message: str) -> None:
    """One red line on stderr."""
    line = " ".join(harmless(message).split())
    standard_error().print(Text.assemble(("Error: ", "bold red"), (line, "red")))


def show_table(table: "Table", none: str) -> None:
    """A table on stdout; where it has no rows, `none` on stderr."""
    if table.row_count:
        standard_output().print(table)
    else:
        standard_error().print(none)


Command = Callable[..., None]


def guarded(command: Command) -> Command:
    """The command with errors said in one line and Ctrl-C in one word, never with a traceback.

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
            raise  # who read the output has had enough; click ends quietly
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
    """Its paragraphs, but for those that begin with \\b, without line breaks of their own: typer wraps them."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(one if one.startswith("\b") else one.replace("\n", " ") for one in paragraphs)
