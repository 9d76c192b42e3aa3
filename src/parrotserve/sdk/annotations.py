"""`Input` and `Output`: annotations that tell the inputs of a semantic function from its outputs.

    @P.SemanticFunction
    def TellJoke(topic: P.Input, joke: P.Output(temperature=0.5), explanation: P.Output):
        \"""Tell a joke about {{topic}}: {{joke}} Explain it: {{explanation}}\"""

Outputs are not passed by the caller. Where a type checker reads the annotations, write
`Annotated[P.Output, P.Sampling(temperature=0.5)]`, which means the same.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Unpack, get_args, get_origin

from parrotserve.errors import DeclarationError
from parrotserve.names import check_names
from parrotserve.sampling import Sampling
from parrotserve.sdk.blame import Blame
from parrotserve.sdk.options import SAMPLING_FIELDS, SamplingOptions, sampling_from


class Input:
    """Marks a parameter of a semantic function as an input, as all are that are not outputs."""


class Output:
    """Marks a parameter of a semantic function as an output, which callers do not pass.

        @P.SemanticFunction
        def TellJoke(topic: P.Input, joke: P.Output(temperature=0.5), explanation: P.Output):
            \"""Tell a joke about {{topic}}: {{joke}} Explain it: {{explanation}}\"""

    It may have sampling parameters of its own: a `Sampling`, fields of `Sampling` by name, or both.
    """

    __slots__ = ("sampling",)

    def __init__(self, sampling: Sampling | None = None, /, **options: Unpack[SamplingOptions]) -> None:
        check_names(options, SAMPLING_FIELDS, "Output")
        if not isinstance(sampling, Sampling | None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
            raise DeclarationError(f"Output takes a P.Sampling, or its fields by name, not {sampling!r:.80}.")
        self.sampling = sampling_from(options, base=sampling)

    def __repr__(self) -> str:
        return f"Output({self.sampling or ''})"


@dataclass(frozen=True, slots=True)
class Parameters:
    """A function's parameters, divided into inputs and outputs."""

    signature: inspect.Signature
    """The function's signature for callers, without the outputs."""
    outputs: dict[str, Sampling | None]
    """Parameters annotated as outputs, with their own sampling if they have one."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the parameters that callers pass."""
        return tuple(self.signature.parameters)


def read_parameters(function: Callable[..., Any], blame: Blame) -> Parameters:
    """Tell inputs from outputs. Raises `TemplateError` for `*args` and `**kwargs`."""
    signature = inspect.signature(function)
    outputs: dict[str, Sampling | None] = {}
    inputs: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise blame.error(f"{parameter} cannot be filled in a prompt; name the parameters.")
        with blame.of_mistakes():
            marker = output_marker(_evaluated(parameter.annotation, function))
        if marker is None:
            inputs.append(parameter)
        else:
            outputs[name] = marker.sampling
    return Parameters(signature.replace(parameters=inputs), outputs)


def output_marker(annotation: Any) -> Output | None:
    """The `Output` that an annotation is or holds, if any."""
    if isinstance(annotation, Output):
        return annotation
    if annotation is Output:
        return Output()
    if get_origin(annotation) is Annotated:
        marked, *extras = get_args(annotation)
        markers = [extra for extra in (marked, *extras) if output_marker(extra) is not None]
        if markers:
            sampling = next((extra for extra in extras if isinstance(extra, Sampling)), None)
            marker = output_marker(markers[0])
            return Output(sampling) if sampling is not None else marker
    return None


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """The annotation, evaluated if `from __future__ import annotations` has left its source text."""
    if not isinstance(annotation, str):
        return annotation
    closure = inspect.getclosurevars(function).nonlocals
    try:
        return eval(annotation, getattr(function, "__globals__", {}), dict(closure))
    except DeclarationError:
        raise  # an `Output` that is wrong
    except Exception:
        # A name that only type checkers import: certainly not one of the markers.
        return annotation
