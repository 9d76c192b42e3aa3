"""Errors of wrong declarations, which name the function, the file and line, and the placeholder."""

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrotserve.errors import DeclarationError, TemplateError


@dataclass(frozen=True, slots=True)
class Blame:
    """Makes the errors of one function's declaration."""

    function: Callable[..., Any]

    def error(
        self,
        what: str,
        *,
        line: int | None = None,
        placeholder: str | None = None,
        kind: type[DeclarationError] = TemplateError,
    ) -> DeclarationError:
        """An error of this kind about line `line` (from 0) of the docstring, or about the function as a whole."""
        name = getattr(self.function, "__qualname__", repr(self.function)).rpartition("<locals>.")[2]
        file, first = _first_line(self.function)
        details = {"function": name, "file": file, "line": str(first)}
        place = f"{Path(file).name}:{first}"
        if line is not None:
            start = _docstring_line(self.function)
            details["line"] = str(line + 1 if start is None else start + line)
            place = (
                f"{place}, line {line + 1} of the docstring" if start is None else f"{Path(file).name}:{start + line}"
            )
        shown = ""
        if placeholder is not None:
            details["placeholder"] = placeholder
            shown = f" {placeholder}:"
        return kind(f"{name} ({place}):{shown} {what}", **details)

    @contextlib.contextmanager
    def of_mistakes(self) -> Generator[None]:
        """Make a `DeclarationError` that is raised in the block say which function it is about."""
        try:
            yield
        except DeclarationError as error:
            raise self.error(error.message, kind=type(error)) from error


def method_advice(decorator: str, receiver: str) -> str:
    """What to do about a method: what these decorators make of it is no method, so it does not get its `receiver`."""
    return (
        f"methods are not supported, so nothing is passed as {receiver!r}: leave it out and write @staticmethod above "
        f"@{decorator}, or move the function out of the class."
    )


def receiver_of(function: Callable[..., Any]) -> str | None:
    """The parameter of a method that takes its instance or class; None if the function is not a method."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    first = next(iter(inspect.signature(function).parameters), None)
    return first if owner and not owner.endswith("<locals>") and first in ("self", "cls") else None


def _first_line(function: Callable[..., Any]) -> tuple[str, int]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("<unknown>", 0)


def _docstring_line(function: Callable[..., Any]) -> int | None:
    """The line of the file where the docstring starts; None if the source is not available."""
    try:
        lines, first = inspect.getsourcelines(function)
        definition = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    body = getattr(definition, "body", [])
    return first + body[0].lineno - 1 if body else None
