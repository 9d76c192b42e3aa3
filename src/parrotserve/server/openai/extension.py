"""The `parrot` object: how a request to the OpenAI-compatible API takes part in a program."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, cast

from pydantic import Field, model_validator

from parrotserve.criteria import Criteria
from parrotserve.errors import DeclarationError
from parrotserve.placeholders import input_placeholders
from parrotserve.protocol import (
    DEFAULT_LEASE_SECONDS,
    LONGEST_LEASE_SECONDS,
    Identifier,
    InputSegment,
    TextSegment,
    VariableSpec,
    Wire,
    WireTransform,
)
from parrotserve.server.openai.refused import refuse_what_is_not_there
from parrotserve.strict import Number, Truth
from parrotserve.transforms import parse_transform

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,31}$")]

_LONGEST_ID = 64


class ById(Wire):
    """A variable by its id, as `/v1/submit` has it."""

    variable: Identifier


class ByValue(Wire):
    """A text."""

    value: str


class ParrotObject(Wire):
    """How a request takes part in a program of several: all of it is optional."""

    session: Identifier | None = None
    """The session that it belongs to, created if absent. Without one, the request is a session of its own."""
    inputs: Mapping[Name, Name | ById | ByValue] = Field(default_factory=dict)
    """What stands for `{{input:name}}` in messages and prompts: the name that an earlier request of the session gave
    its output, another variable by its id, or a text."""
    output: Name | None = None
    """The name of what this request produces, for later requests of the session."""
    get: Name | None = None
    """Ask for an output that was named before, instead of declaring a request."""
    criteria: Criteria | None = None
    """What the answer is awaited for."""
    wait: Truth = True
    """False: answer at once, with ids and without choices, while the request runs or waits for its inputs."""
    lease_seconds: Annotated[Number, Field(gt=0, le=LONGEST_LEASE_SECONDS)] = DEFAULT_LEASE_SECONDS
    """How long the session lives without contact."""

    @model_validator(mode="before")
    @classmethod
    def _no_field_is_misspelt(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_what_is_not_there(cast("Mapping[str, Any]", data), {}, cls.model_fields)
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.get is not None:
            if self.session is None:
                raise ValueError("to get an output, name its session")
            if self.output is not None or self.inputs or not self.wait:
                raise ValueError("get asks for an output; inputs, output and wait are for declaring one")
        return self

    @property
    def keeps_session(self) -> bool:
        """Whether its session outlives the answer."""
        return self.session is not None or self.output is not None or not self.wait


def variable_id(session: str, name: str) -> str:
    """The id of the variable with a name in a session. Raises `DeclarationError` if it is too long."""
    identity = f"{session}:{name}"
    if len(identity) > _LONGEST_ID:
        raise DeclarationError(
            f"The session and the name {name!r} are {len(identity)} characters together, and may be {_LONGEST_ID - 1}: "
            "choose shorter ones.",
            param="parrot",
        )
    return identity


@dataclass(slots=True)
class Inputs:
    """The inputs of one request, and which of them its texts have used."""

    session: str
    base: str
    """Prefix of the ids of texts that are given as inputs."""
    given: Mapping[str, str | ById | ByValue]
    variables: list[VariableSpec] = field(default_factory=list[VariableSpec])
    """Variables to declare for texts that are given as inputs."""
    _used: dict[str, str] = field(default_factory=dict[str, str])

    def split(self, text: str) -> Iterator[TextSegment | InputSegment]:
        """Split a text at its placeholders. One whose name is not an input is ordinary text."""
        at = 0
        for found in input_placeholders(text) if self.given else ():
            if found.name not in self.given:
                continue
            if found.start > at:
                yield TextSegment(text=text[at : found.start])
            yield InputSegment(variable=self._variable(found.name), transforms=tuple(map(_transform, found.transforms)))
            at = found.end
        if at < len(text) or not text:
            yield TextSegment(text=text[at:])

    def check_used(self) -> None:
        """Raises `DeclarationError` for an input that no text uses: most likely its name is misspelt here or there."""
        for name in self.given:
            if name not in self._used:
                raise DeclarationError(
                    f"No message or prompt uses the input {name!r}: write {{{{input:{name}}}}} in one.",
                    param=f"parrot.inputs.{name}",
                )

    def _variable(self, name: str) -> str:
        if name not in self._used:
            given = self.given[name]
            match given:
                case str():
                    self._used[name] = variable_id(self.session, given)
                case ById():
                    self._used[name] = given.variable
                case ByValue():
                    self._used[name] = f"{self.base}.{len(self._used)}.in"
                    self.variables.append(VariableSpec(id=self._used[name], name=name, value=given.value))
        return self._used[name]


def _transform(written: str) -> WireTransform:
    transform = parse_transform(written)
    return WireTransform(name=transform.name, args=transform.args)
