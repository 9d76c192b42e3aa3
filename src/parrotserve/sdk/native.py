"""Native functions: Python code between prompts, run in this process or in the sandbox when its inputs are ready."""

import functools
import inspect
import json
from collections.abc import Callable
from math import isfinite
from typing import Any, Self, TypedDict, Unpack, overload

from parrotserve.errors import DeclarationError
from parrotserve.ids import new_id
from parrotserve.names import check_names
from parrotserve.native_calls import Slot, remade
from parrotserve.protocol import (
    Argument,
    CallSpec,
    ListArgument,
    ObjectArgument,
    SandboxSpec,
    ValueArgument,
    VariableArgument,
)
from parrotserve.sdk.arguments import bind, produced_in, shown
from parrotserve.sdk.blame import method_advice, receiver_of
from parrotserve.sdk.declaring import Declaring
from parrotserve.sdk.natives import BoundCall
from parrotserve.sdk.options import countable, is_number
from parrotserve.sdk.outbox import Named
from parrotserve.sdk.session import session_for
from parrotserve.sdk.starlark_source import StarlarkSource, starlark_source
from parrotserve.sdk.variable import SemanticVariable


class NativeOptions(TypedDict, total=False):
    """Keyword arguments of `NativeFunction`."""

    timeout: float | None
    server: bool


class NativeFunction:
    """Makes a native function: an ordinary function that may get semantic variables, and whose result is one.

        @P.NativeFunction(timeout=10)
        def Evaluate(expression: str) -> str:
            return str(simplify(expression))

    A call returns a variable at once. When all variables among its arguments (also those inside lists, tuples and
    dicts) are READY, the function runs in a thread of this process and gets their texts; other arguments are passed
    unchanged. The `str` of its result is the value. A coroutine function runs in an event loop of its own.

    If it raises, returns None, or takes longer than `timeout` seconds, the value fails with `NativeCallFailed`, caused
    by the exception. A function that never returns keeps its thread, but holds up neither the program nor its exit.

    With `server=True` the service itself runs it, in a sandbox, as Starlark: a language that looks like Python, without
    imports, classes, exceptions and `while`. Its arguments are texts, numbers, lists, dicts and variables; values do
    not travel to this process and back. What Starlark cannot express is refused with `DeclarationError`, where the
    function is declared.
    """

    @overload
    def __new__(cls, function: Callable[..., Any], /, **options: Unpack[NativeOptions]) -> Self: ...
    @overload
    def __new__(
        cls, function: None = None, /, **options: Unpack[NativeOptions]
    ) -> Callable[[Callable[..., Any]], Self]: ...
    def __new__(cls, function: Callable[..., Any] | None = None, /, **options: Unpack[NativeOptions]) -> Any:
        check_names(options, NativeOptions.__annotations__, "NativeFunction")
        timeout = options.get("timeout")
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise DeclarationError(f"timeout={timeout!r}: timeout is a number of seconds above 0, or None for no end.")
        if not isinstance(server := options.get("server", False), bool):
            raise DeclarationError(f"server={server!r}: server is True or False.")
        if function is None:
            return functools.partial(cls, **options)
        if isinstance(function, classmethod):
            raise DeclarationError("NativeFunction decorates a function: class methods are not supported.")
        if not callable(function):
            raise DeclarationError(f"NativeFunction decorates a function, not {function!r}; its options are keywords.")
        self = super().__new__(cls)
        self._read(function, options)
        return self

    def _read(self, function: Callable[..., Any], options: NativeOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        timeout = options.get("timeout")
        self.timeout = None if timeout is None else countable(timeout)
        self.signature = inspect.signature(function)
        self.starlark = starlark_source(function) if options.get("server") else None
        """The source that the service runs; None if this process runs the function."""

    def __repr__(self) -> str:
        return f"<NativeFunction {shown(self.name, self.signature)}>"

    def __call__(self, *args: Any, **kwargs: Any) -> SemanticVariable:
        """Declare a native call and return its output. Raises `TypeError` for arguments that do not fit,
        `ForeignVariable` for variables of another session, and `Cancelled` if the session has ended.
        """
        try:
            arguments = bind(self.signature, self.name, args, kwargs)
        except TypeError as error:
            if receiver := receiver_of(self.function):
                raise TypeError(f"{error}; {method_advice('NativeFunction', receiver)}") from error
            raise
        if self.starlark is not None:
            for name, argument in arguments.items():
                _check_sendable(argument, f"{shown(self.name, self.signature)}: {name}")
        variables = [variable for argument in arguments.values() for variable in _variables_in(argument)]
        session = session_for(produced_in(variables))
        with session.declaring:
            call = Declaring(session, variables)
            output = call.output(self.name)
            spec = CallSpec(
                id=new_id("c"),
                function=self.name,
                inputs=call.inputs,
                output=output.id,
                timeout=self.timeout,
                sandbox=None if self.starlark is None else _sandboxed(self.starlark, arguments, call),
            )
            call.declare(spec, native=self._bound(arguments, call, output) if self.starlark is None else None)
        return call.outputs[0]

    def _bound(self, arguments: dict[str, Any], call: Declaring, output: Named) -> BoundCall:
        return BoundCall(
            function=self.function,
            name=self.name,
            arguments={name: _slotted(argument, call) for name, argument in arguments.items()},
            inputs=call.inputs,
            output=output,
            timeout=self.timeout,
        )


def _variables_in(argument: Any) -> list[SemanticVariable]:
    if isinstance(argument, SemanticVariable):
        return [argument]
    if isinstance(argument, list | tuple | dict):
        items = argument.values() if isinstance(argument, dict) else argument
        return [variable for item in items for variable in _variables_in(item)]
    return []


def _slotted(argument: Any, call: Declaring) -> Any:
    if isinstance(argument, SemanticVariable):
        return Slot(call.input(argument))
    if not _variables_in(argument):
        # The caller's own object, not a copy.
        return argument
    if isinstance(argument, dict):
        return {key: _slotted(item, call) for key, item in argument.items()}
    return remade(argument, [_slotted(item, call) for item in argument])


def _sandboxed(starlark: StarlarkSource, arguments: dict[str, Any], call: Declaring) -> SandboxSpec:
    return SandboxSpec(
        source=starlark.text,
        name=starlark.name,
        file=starlark.file,
        line=starlark.line,
        arguments={name: _argument(argument, call) for name, argument in arguments.items()},
    )


def _argument(argument: Any, call: Declaring) -> Argument:
    if isinstance(argument, SemanticVariable):
        return VariableArgument(variable=call.input(argument))
    if not _variables_in(argument):
        return ValueArgument(value=json.loads(json.dumps(argument)))  # tuples as lists
    if isinstance(argument, dict):
        return ObjectArgument(entries={key: _argument(item, call) for key, item in argument.items()})
    return ListArgument(items=tuple(_argument(item, call) for item in argument))


def _check_sendable(argument: Any, name: str) -> None:
    """Raise `TypeError` for what JSON cannot express."""
    if isinstance(argument, list | tuple):
        for item in argument:
            _check_sendable(item, name)
    elif isinstance(argument, dict) and all(isinstance(key, str) for key in argument):
        for item in argument.values():
            _check_sendable(item, name)
    elif not (
        argument is None
        or isinstance(argument, SemanticVariable | str | int)
        or (isinstance(argument, float) and isfinite(argument))
    ):
        raise TypeError(
            f"{name}: the sandbox takes texts, numbers, lists, dicts with texts as keys, and semantic variables, not "
            f"{argument!r:.80}."
        )
