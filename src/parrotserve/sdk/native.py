"""Native functions: ordinary Python between prompts, run in this process when its inputs are ready."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self, TypedDict, Unpack, overload

from parrotserve.errors import DeclarationError
from parrotserve.ids import new_id
from parrotserve.protocol import CallSpec
from parrotserve.sdk.arguments import bind, produced_in, shown
from parrotserve.sdk.declaring import Declaring
from parrotserve.sdk.natives import BoundCall, Slot
from parrotserve.sdk.options import check_names
from parrotserve.sdk.session import session_for
from parrotserve.sdk.variable import SemanticVariable


class NativeOptions(TypedDict, total=False):
    """Keyword arguments of `NativeFunction`."""

    timeout: float | None


class NativeFunction:
    """Makes an ordinary function one whose arguments may be semantic variables, and whose result is one.

        @P.NativeFunction(timeout=10)
        def Evaluate(expression: str) -> str:
            return str(simplify(expression))

    A call returns at once. When the variables among its arguments (in lists, tuples and dicts too) are READY, the
    function runs in a thread of this process with their texts in their place; other arguments are passed as they
    are. The result's `str` is the value. A coroutine function runs in an event loop of its own.

    Where it raises, returns None, or takes longer than `timeout` seconds, the value fails with `NativeCallFailed`,
    chained to the exception. A function that never returns keeps its thread, but neither the program nor its exit.
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
        if timeout is not None and not timeout > 0:
            raise DeclarationError(f"timeout={timeout!r}: timeout must be above 0 seconds, or None.")
        if function is None:
            return functools.partial(cls, **options)
        if not callable(function):
            raise DeclarationError(f"NativeFunction decorates a function, not {function!r}; its options are keywords.")
        self = super().__new__(cls)
        self._read(function, options)
        return self

    def _read(self, function: Callable[..., Any], options: NativeOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.timeout = options.get("timeout")
        self.signature = inspect.signature(function)

    def __repr__(self) -> str:
        return f"<NativeFunction {shown(self.name, self.signature)}>"

    def __call__(self, *args: Any, **kwargs: Any) -> SemanticVariable:
        """Declare a native call. Raises `TypeError` for arguments that do not fit, `ForeignVariable`, and `Cancelled`
        where the session has ended.
        """
        arguments = bind(self.signature, self.name, args, kwargs)
        variables = [variable for argument in arguments.values() for variable in _variables_in(argument)]
        session = session_for(produced_in(variables))
        with session.declaring:
            call = Declaring(session, variables)
            output = call.output(self.name)
            bound = BoundCall(
                function=self.function,
                name=self.name,
                arguments={name: _slotted(argument, call) for name, argument in arguments.items()},
                inputs=call.inputs,
                output=output,
                timeout=self.timeout,
            )
            call.declare(
                CallSpec(
                    id=new_id("c"), function=self.name, inputs=call.inputs, output=output.id, timeout=self.timeout
                ),
                native=bound,
            )
        return call.outputs[0]


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
        # The caller's own object, whatever it is.
        return argument
    if isinstance(argument, dict):
        return {key: _slotted(item, call) for key, item in argument.items()}
    return [_slotted(item, call) for item in argument]
