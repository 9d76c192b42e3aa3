"""Errors of the user's program, shown with the user's own frames and none of Parrot's."""

import contextlib
import io
import sys
import sysconfig
import traceback
from collections.abc import Generator, Iterable
from pathlib import Path

import typer

import parrotserve
from parrotserve.cli.console import complain, harmless, standard_error
from parrotserve.errors import NativeCallFailed, ParrotError

_PACKAGE = Path(parrotserve.__file__).parent
_OURS = (str(_PACKAGE), str(_PACKAGE.parent / "Parrot"))
_HINT = ". Did you mean: "
_LIBRARIES = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@contextlib.contextmanager
def users_errors() -> Generator[None]:
    """A context for the user's code: if an exception leaves it, show that and exit with 1.

    A `ParrotError` is shown in one line that names the user's line, any other exception as Python does, but without
    Parrot's frames. If a native function raised an exception, that is shown before the error that it led to.
    """
    try:
        yield
    except typer.BadParameter:
        raise
    except ParrotError as error:
        if isinstance(error, NativeCallFailed) and error.__cause__ is not None:
            _show(error.__cause__)
        place = place_of(error)
        complain(error.message + (f" ({place})" if place else ""))
        raise typer.Exit(1) from error
    except Exception as error:
        _show(error)
        raise typer.Exit(1) from error


def format_error(error: BaseException) -> str:
    """Python's traceback, chained errors included, without the frames of Parrot and of the import machinery."""
    report = traceback.TracebackException.from_exception(error, compact=True)
    _strip(report)
    # No frame of the user's may be left, as for a syntax error: a "Traceback" line with nothing below would mislead.
    lines = report.format() if report.stack else report.format_exception_only()
    return "".join(_with_hints(lines, error)).rstrip()


def place_of(error: BaseException) -> str:
    """The user's innermost line that an error passed: `write_snake_game.py, line 26`. Empty if it passed none."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_theirs(frame.filename) and not frame.filename.startswith(_LIBRARIES)
    ]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _show(error: BaseException) -> None:
    standard_error().print(harmless(format_error(error)), style="red", soft_wrap=True)


def _with_hints(lines: Iterable[str], error: BaseException) -> Iterable[str]:
    """The lines with what Python takes misspelt names for. Up to 3.11 only the interpreter itself knows, and says so
    where it shows the error: this is how IDLE hears of it (`idlelib.run.get_message_lines`)."""
    if sys.version_info >= (3, 12):
        return lines
    with contextlib.redirect_stderr(io.StringIO()) as said:
        sys.__excepthook__(type(error), error, error.__traceback__)
    return [_with_hint(line, said.getvalue()) for line in lines]


def _with_hint(line: str, said: str) -> str:
    told = line.rstrip("\n") + _HINT
    _, found, rest = said.partition(f"\n{told}")
    meant, end, _ = rest.partition("\n")
    return f"{told}{meant}{end}" if found else line


def _is_theirs(filename: str) -> bool:
    return not filename.startswith((*_OURS, "<frozen "))


def _strip(report: traceback.TracebackException) -> None:
    report.stack[:] = [frame for frame in report.stack if _is_theirs(frame.filename)]
    for chained in (report.__cause__, report.__context__):
        if chained is not None:
            _strip(chained)
