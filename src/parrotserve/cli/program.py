"""Loading a user's program from a file and choosing the function to call."""

import difflib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from parrotserve.sdk.function import SemanticFunction
from parrotserve.sdk.native import NativeFunction

Function = Callable[..., Any]


class UsageError(typer.BadParameter):
    """The command line names a file or function that does not exist or cannot be run."""


def split_target(target: str) -> tuple[Path, str | None]:
    """Split `FILE[:FUNCTION]` into a path and a name. Raises `UsageError` if there is no such file."""
    path, name = Path(target), None
    match = re.fullmatch(r"(.+):(\w+)", target)
    if match is not None and not path.exists():
        path, name = Path(match[1]), match[2]
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file with a Python program in it.")
    if not path.is_file():
        raise UsageError(f"There is no file {path}.{_similar_file(path)}")
    return path, name


def load(path: Path) -> ModuleType:
    """Execute a file as a module that is not `__main__`, with its folder first on the import path."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path)]
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else "parrot_program"
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def choose(module: ModuleType, path: Path, name: str | None, *, ran: bool = False) -> Function:
    """The function `name`, or without a name the only one in the file that can be called without arguments.

    `ran`: the file already called functions of the model while it was loaded. Raises `UsageError` that names the
    functions to choose from.
    """
    callables = [
        each
        for each, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    plain = [each for each in callables if _is_entry(vars(module)[each]) and not each.startswith("_")]
    if name is None:
        return getattr(module, _only(plain, path, ran=ran))
    if name not in vars(module) or not callable(getattr(module, name)):
        close = difflib.get_close_matches(name, callables, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It defines: {', '.join(callables) or 'none'}."
        raise UsageError(f"{path} has no function {name}. {hint}")
    function = getattr(module, name)
    if needed := required_parameters(function):
        raise UsageError(f"{name} needs {', '.join(needed)}; only a function without required arguments can be run.")
    return function


def required_parameters(function: Function) -> list[str]:
    """Names of the parameters that a caller must pass."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in optional
    ]


def _is_entry(value: Any) -> bool:
    if isinstance(value, SemanticFunction | NativeFunction) or inspect.isclass(value):
        return False
    return inspect.isroutine(value) and not required_parameters(value)


def _only(names: list[str], path: Path, *, ran: bool) -> str:
    if not names and ran:
        raise UsageError(
            f"{path} has run its calls while it was loaded, as a script does, and defines no function to call. Run it "
            f"with `python {path}`, or put the calls into a function, such as `def main():`."
        )
    if not names:
        raise UsageError(f"{path} has no function that can be called without arguments; define one to run.")
    if len(names) > 1:
        choices = ", ".join(f"{path}:{name}" for name in names)
        raise UsageError(f"{path} has several functions to run. Name one: {choices}")
    return names[0]


def _similar_file(path: Path) -> str:
    folder = path.parent
    names = [each.name for each in folder.glob("*.py")] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" Did you mean {folder / close[0]}?" if close else ""
