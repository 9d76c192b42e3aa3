"""Semantic functions: prompts with placeholders, called like functions."""

import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, Unpack, overload

from parrotserve.errors import DeclarationError
from parrotserve.ids import new_id
from parrotserve.names import check_names, closest
from parrotserve.protocol import (
    InputSegment,
    RequestSpec,
    RoleSegment,
    TextSegment,
    WireSegment,
    WireTransform,
)
from parrotserve.sampling import Sampling
from parrotserve.sdk.annotations import Output, Parameters, read_parameters
from parrotserve.sdk.arguments import bind, produced_in, shown, variables_of
from parrotserve.sdk.blame import Blame
from parrotserve.sdk.declaring import Declaring
from parrotserve.sdk.options import SAMPLING_FIELDS, FunctionOptions, check_model, sampling_from, template_kwargs
from parrotserve.sdk.session import session_for
from parrotserve.sdk.template import InputPart, OutputPart, Part, RolePart, TextPart, parse_template
from parrotserve.sdk.variable import SemanticVariable

ITEM_SEPARATOR = "\n\n"
"""Separates the items of a list that is passed for one input."""

_OWN_OPTIONS = frozenset({"model", "chat", "chat_template_kwargs", "outputs"})


class SemanticFunction:
    """Makes a semantic function: the docstring is the template of a prompt, and the body never runs.

        @P.SemanticFunction(temperature=0.7, max_tokens=64)
        def Joke(topic):
            \"""Tell me a joke about {{input:topic}}: {{output:joke}}\"""

    A call returns at once: a `SemanticVariable`, or a named tuple of them if the template has several outputs. An
    argument may be a variable, a list or tuple that contains variables (its items follow one another, with blank lines
    between them), or anything else, whose `str` becomes the value. `parrotserve.sdk.template` describes templates.

    Options: `model` (None: the service's default), `chat` (False: the raw text, without the model's chat template),
    `chat_template_kwargs` (values for variables of that template), every field of `Sampling` for all outputs, and
    `outputs`, a dict that gives single outputs a `Sampling` or an `Output` of their own instead. `schema` may also be a
    type; then `get` returns an object of it. A mistake raises `DeclarationError`, or a subclass of it, where the
    function is declared rather than where it is called.
    """

    @overload
    def __new__(cls, function: Callable[..., Any], /, **options: Unpack[FunctionOptions]) -> Self: ...
    @overload
    def __new__(
        cls, function: None = None, /, **options: Unpack[FunctionOptions]
    ) -> Callable[[Callable[..., Any]], Self]: ...
    def __new__(cls, function: Callable[..., Any] | None = None, /, **options: Unpack[FunctionOptions]) -> Any:
        check_names(options, SAMPLING_FIELDS | _OWN_OPTIONS, "SemanticFunction")
        if function is None:
            return functools.partial(cls, **options)
        if isinstance(function, staticmethod | classmethod):
            raise DeclarationError(
                "SemanticFunction decorates a function: write @staticmethod above @SemanticFunction, and not below; "
                "class methods are not supported."
            )
        if not inspect.isfunction(function):
            raise DeclarationError(
                f"SemanticFunction decorates a function, not {function!r}; its options are keywords."
            )
        self = super().__new__(cls)
        self._read(function, options)
        return self

    def _read(self, function: Callable[..., Any], options: FunctionOptions) -> None:
        functools.update_wrapper(self, function)
        blame = Blame(function)
        parameters = read_parameters(function, blame)
        if not (function.__doc__ or "").strip():
            raise blame.error(
                "it has no docstring to use as template (an f-string is not a docstring, and `python -OO` drops them)."
            )
        self.template = parse_template(
            function.__doc__ or "", inputs=parameters.inputs, outputs=tuple(parameters.outputs), blame=blame
        )
        self.samplings = _samplings(self.template.outputs, options, parameters, blame)
        self.model, self.chat = _model(options, blame), _chat(options, blame)
        self.chat_template_kwargs = _template_kwargs(options, blame)
        self.__signature__ = parameters.signature
        self.name = function.__name__
        outputs = self.template.outputs
        self._result = _result_type(self.name, outputs) if len(outputs) > 1 else None

    def __repr__(self) -> str:
        return f"<SemanticFunction {shown(self.name, self.__signature__)} -> {', '.join(self.template.outputs)}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Declare a request and return its outputs. Raises `TypeError` for arguments that do not fit, `ForeignVariable`
        for variables of another session, and `Cancelled` if the session has ended.
        """
        arguments = bind(self.__signature__, self.name, args, kwargs)
        inputs = {name: variables_of(argument, name) for name, argument in arguments.items()}
        variables = [variable for group in inputs.values() for variable in group]
        session = session_for(produced_in(variables))
        with session.declaring:
            call = Declaring(session, variables)
            segments = tuple(segment for part in self.template.parts for segment in self._segments(part, inputs, call))
            call.declare(
                RequestSpec(
                    id=new_id("r"),
                    function=self.name,
                    model=self.model,
                    chat=self.chat,
                    segments=segments,
                    chat_template_kwargs=self.chat_template_kwargs,
                )
            )
        return self._result(*call.outputs) if self._result is not None else call.outputs[0]

    def _segments(
        self, part: Part, inputs: Mapping[str, tuple[SemanticVariable, ...]], call: Declaring
    ) -> Iterator[WireSegment]:
        match part:
            case TextPart(text):
                yield TextSegment(text=text)
            case RolePart(role):
                yield RoleSegment(role=role)
            case OutputPart(name):
                yield call.written(name, self.samplings[name])
            case InputPart(name, transforms):
                wire = tuple(WireTransform(name=each.name, args=each.args) for each in transforms)
                for number, variable in enumerate(inputs[name]):
                    if number:
                        yield TextSegment(text=ITEM_SEPARATOR)
                    yield InputSegment(variable=call.input(variable), transforms=wire)


def _result_type(function: str, outputs: tuple[str, ...]) -> Callable[..., tuple[SemanticVariable, ...]]:
    base: Any = namedtuple(f"{function}Outputs", outputs)  # pyright: ignore[reportUntypedNamedTuple] - of a docstring

    def missing(self: tuple[SemanticVariable, ...], name: str) -> Any:
        told = f"{function}() has no output {name!r}{closest(name, outputs)} There are: {', '.join(outputs)}."
        if hasattr(SemanticVariable, name):
            told = f"{function}() has several outputs, each with a {name!r} of its own: take one, as in .{outputs[0]}."
        raise AttributeError(told, name=name, obj=self)

    return type(base.__name__, (base,), {"__slots__": (), "__getattr__": missing})


def _model(options: FunctionOptions, blame: Blame) -> str | None:
    model = options.get("model")
    with blame.of_mistakes():
        check_model(model)
    return model


def _chat(options: FunctionOptions, blame: Blame) -> bool:
    chat = options.get("chat", True)
    if not isinstance(chat, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
        raise blame.error(f"chat={chat!r}: chat is True or False.", kind=DeclarationError)
    return chat


def _template_kwargs(options: FunctionOptions, blame: Blame) -> dict[str, Any]:
    with blame.of_mistakes():
        kwargs = template_kwargs(options.get("chat_template_kwargs"))
    if kwargs and not options.get("chat", True):
        raise blame.error(
            "chat=False, so that no chat template reads chat_template_kwargs: leave one of the two out.",
            kind=DeclarationError,
        )
    return kwargs


def _samplings(
    outputs: tuple[str, ...], options: FunctionOptions, parameters: Parameters, blame: Blame
) -> dict[str, Sampling]:
    """The sampling of every output: from its annotation, else from `outputs=`, else from the function's options."""
    shared = {name: value for name, value in options.items() if name in SAMPLING_FIELDS}
    default = _blamed(shared, None, blame) or Sampling()
    given = options.get("outputs") or {}
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
        raise blame.error(f"outputs={given!r}: outputs is a dict, {{name: P.Sampling(...)}}.")
    own = {name: _own(one) for name, one in given.items()}
    for name, sampling in own.items():
        if name not in outputs:
            raise blame.error(f"outputs= names {name!r}, which is not an output{closest(name, outputs)}")
        if parameters.outputs.get(name) is not None:
            raise blame.error(f"the output {name!r} has a sampling in its annotation and another in outputs=.")
        if not isinstance(sampling, Sampling):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
            raise blame.error(f"outputs={{{name!r}: ...}} must be a P.Sampling(...), not {sampling!r}.")
    chosen = {name: parameters.outputs.get(name) or own.get(name) or default for name in outputs}
    return {name: _normal(sampling, blame) for name, sampling in chosen.items()}


def _own(given: Sampling | Output) -> Sampling:
    """The sampling that an item of `outputs=` stands for."""
    return given.sampling or Sampling() if isinstance(given, Output) else given


def _normal(sampling: Sampling, blame: Blame) -> Sampling:
    """Bring `stop` and `schema` into the form that options get, which they may lack in a `Sampling` made by hand."""
    return _blamed({"stop": sampling.stop, "schema": sampling.schema}, sampling, blame) or sampling


def _blamed(options: Mapping[str, Any], base: Sampling | None, blame: Blame) -> Sampling | None:
    with blame.of_mistakes():
        return sampling_from(options, base=base)
