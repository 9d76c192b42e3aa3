"""A decorated function's source as Starlark: read from its file, without decorators and annotations, and tried out.

What Starlark cannot express is refused where the function is declared, in Python's terms.
"""

import ast
import inspect
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrotserve.errors import DeclarationError, NativeCallFailed
from parrotserve.protocol import MOST_SOURCE
from parrotserve.sdk.blame import Blame

Place = tuple[int, int]
"""A line number, from 1, and the offset of a byte in that line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarlarkSource:
    """A function for the sandbox: its text, and the file and line where that begins."""

    name: str
    text: str
    file: str
    line: int


_NO_IMPORTS = "it reaches nothing outside of itself"
_NO_EXCEPTIONS = "it has no exceptions; an error ends the call, and fail(...) is one"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.While: ("while", "write `for _ in range(...)` with a `break`"),
    ast.Import: ("import", _NO_IMPORTS),
    ast.ImportFrom: ("import", _NO_IMPORTS),
    ast.Try: ("try", _NO_EXCEPTIONS),
    ast.TryStar: ("try", _NO_EXCEPTIONS),
    ast.Raise: ("raise", _NO_EXCEPTIONS),
    ast.Assert: ("assert", _NO_EXCEPTIONS),
    ast.With: ("with", "there is nothing to open or to lock"),
    ast.ClassDef: ("class", "use dicts, lists and functions"),
    ast.Yield: ("yield", "build a list"),
    ast.YieldFrom: ("yield", "build a list"),
    ast.GeneratorExp: ("a generator", "build a list: [...]"),
    ast.Global: ("global", "there is nothing outside of the function"),
    ast.Nonlocal: ("nonlocal", "return the value, or change a list or dict"),
    ast.Delete: ("del", "use the methods of lists and dicts"),
    ast.Is: ("is", "use =="),
    ast.IsNot: ("is not", "use !="),
    ast.Pow: ("**", "multiply"),
    ast.MatMult: ("@", "multiply"),
    ast.Set: ("a set", "use a dict or a list"),
    ast.SetComp: ("a set", "use a dict or a list"),
    ast.NamedExpr: (":=", "assign in a line of its own"),
    ast.Match: ("match", "use if and elif"),
    ast.AsyncFunctionDef: ("async", "there is nothing to wait for"),
    ast.Await: ("await", "there is nothing to wait for"),
}


def starlark_source(function: Callable[..., Any]) -> StarlarkSource:
    """The function's source for the sandbox. Raises `DeclarationError`, which names the function and the line."""
    blame = Blame(function)
    text, first = _source(function, blame)
    definition = _definition(text, blame)
    for node, (what, instead) in _refused_in(definition):
        line = first + getattr(node, "lineno", definition.lineno) - 1
        raise _error(blame, f"in line {line}: Starlark has no {what}; {instead}.")
    _check_parameters(definition, blame)
    source = StarlarkSource(
        name=definition.name,
        text=_without_annotations(text, definition),
        file=Path(inspect.getsourcefile(function) or "").name,
        line=first + definition.lineno - 1,
    )
    if len(source.text) > MOST_SOURCE:
        raise _error(blame, f"its source has {len(source.text):,} characters; at most {MOST_SOURCE:,} are taken.")
    _try(source, blame)
    return source


def _try(source: StarlarkSource, blame: Blame) -> None:
    # Imported here: few programs have such functions.
    from parrotserve.starlark_functions import define

    try:
        define(source.text, source.name, file=source.file, line=source.line)
    except NativeCallFailed as error:
        hint = ""
        if "not found" in str(error):
            hint = " It sees its parameters, Starlark's built-in functions, and nothing of the program around it."
        raise _error(blame, f"it is not Starlark: {error}.{hint}") from error


def _source(function: Callable[..., Any], blame: Blame) -> tuple[str, int]:
    """Its dedented source, decorators included, and the line where that begins."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise _error(blame, "its source cannot be read; define it in a file.") from error
    return textwrap.dedent("".join(lines)), max(first, 1)


def _definition(text: str, blame: Blame) -> ast.FunctionDef:
    try:
        found = ast.parse(text).body[0]
    except (SyntaxError, IndexError) as error:
        raise _error(blame, "its source cannot be read by itself; indent the body further than its def.") from error
    if not isinstance(found, ast.FunctionDef):
        kind = "a coroutine" if isinstance(found, ast.AsyncFunctionDef) else "no function of its own, with def"
        raise _error(blame, f"it is {kind}, which the sandbox cannot run.")
    return found


def _refused_in(definition: ast.FunctionDef) -> Iterator[tuple[ast.AST, tuple[str, str]]]:
    """The nodes that Starlark does not have: what each is called, and what to write instead."""
    for node in _within(definition):
        parts: list[ast.AST] = [node, *getattr(node, "ops", ())]
        if isinstance(node, ast.BinOp | ast.AugAssign):
            parts.append(node.op)
        yield from ((node, _REFUSED[type(part)]) for part in parts if type(part) in _REFUSED)
        match node:
            case ast.Compare(ops=[_, _, *_]):
                yield node, ("comparison of three", "join two by `and`")
            case ast.For(orelse=[_, *_]):
                yield node, ("else of a for", "use a variable")
            case ast.FunctionDef(decorator_list=[_, *_]) if node is not definition:
                yield node, ("decorator", "call the function")
            case ast.FormattedValue(value=value, conversion=conversion, format_spec=spec):
                if not isinstance(value, ast.Name) or spec is not None or conversion != -1:
                    yield (
                        node,
                        ("f-string with more than names in it", 'assign to a name first, or use "{}".format(...)'),
                    )
            case ast.AnnAssign(value=None):
                yield node, ("declaration without a value", "remove it")
            case ast.Constant(value=bytes() | complex()):
                yield node, (type(node.value).__name__, "use texts and numbers")
            case _:
                pass


def _within(definition: ast.FunctionDef) -> Iterator[ast.AST]:
    """All nodes of a function, except its decorators and annotations, which are not sent to the sandbox."""
    pending: list[ast.AST] = [definition]
    while pending:
        node = pending.pop()
        yield node
        outside: list[ast.AST] = list(definition.decorator_list) if node is definition else []
        outside += [part for name in ("annotation", "returns") if (part := getattr(node, name, None)) is not None]
        pending += [child for child in reversed(list(ast.iter_child_nodes(node))) if child not in outside]


def _check_parameters(definition: ast.FunctionDef, blame: Blame) -> None:
    arguments = definition.args
    for kind, given in (
        ("/ among its parameters", arguments.posonlyargs),
        (f"the parameter *{arguments.vararg.arg}" if arguments.vararg else "", arguments.vararg),
        (f"the parameter **{arguments.kwarg.arg}" if arguments.kwarg else "", arguments.kwarg),
    ):
        if given:
            raise _error(blame, f"it has {kind}; a function for the sandbox gets each argument by its name.")


def _without_annotations(text: str, definition: ast.FunctionDef) -> str:
    """The definition's text with every annotation replaced by blanks, because Starlark's types are different."""
    lines = text.encode().split(b"\n")
    for node in ast.walk(definition):
        match node:
            case ast.arg(annotation=annotation) if annotation is not None:
                _blank(lines, (node.lineno, node.col_offset + len(node.arg.encode())), _end(annotation))
            case ast.AnnAssign(target=target, annotation=annotation):
                _blank(lines, _end(target), _end(annotation))
            case ast.FunctionDef(returns=returns) if returns is not None:
                line, column = returns.lineno, returns.col_offset
                while (arrow := lines[line - 1].rfind(b"->", 0, column)) < 0:
                    line -= 1
                    column = len(lines[line - 1])
                _blank(lines, (line, arrow), _end(returns))
            case _:
                pass
    assert definition.end_lineno is not None
    return b"\n".join(lines[definition.lineno - 1 : definition.end_lineno]).decode()


def _end(node: ast.expr) -> Place:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _blank(lines: list[bytes], start: Place, end: Place) -> None:
    (first, from_), (last, to) = start, end
    for number in range(first, last + 1):
        line = lines[number - 1]
        left = from_ if number == first else 0
        right = to if number == last else len(line)
        lines[number - 1] = line[:left] + b" " * (right - left) + line[right:]


def _error(blame: Blame, what: str) -> DeclarationError:
    return blame.error(what, kind=DeclarationError)
