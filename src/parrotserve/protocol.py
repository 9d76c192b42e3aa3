"""The wire protocol: pydantic models, shared by SDK and server, of all that programs and a service exchange.

A program is one `Submit`. Ids are made by the client (`parrotserve.ids.new_id`), so that a batch may refer to
itself, and may be sent again safely: a `Submit` whose requests are all known already changes nothing.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from parrotserve.criteria import Criteria, Objective
from parrotserve.errors import ParrotError, from_wire
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, VariableId
from parrotserve.sampling import FinishReason, Sampling, TokenLogprob, ToolCalls, Usage
from parrotserve.segments import Role
from parrotserve.strict import Number, Truth, Whole

PROTOCOL_VERSION = 2
"""Increased whenever a field is added, because both sides refuse unknown fields."""
PROTOCOL_HEADER = "Parrot-Protocol"
"""Both sides send it; other versions are refused with `IncompatibleVersions`."""
DEFAULT_LEASE_SECONDS = 30.0
LONGEST_LEASE_SECONDS = 86_400.0
MOST_SOURCE = 65_536  # characters of a function for the sandbox
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""A list that may be long. Only its first invalid item is reported: reporting thousands takes longer than a step."""
_BY_KIND = Field(discriminator="kind")
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]


class Wire(BaseModel):
    """Base: frozen, and unknown fields are refused, so that a typo is an error and not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # so that logs have no prompts


# --- What a client declares ---------------------------------------------------------------------------------


class WireTransform(Wire):
    name: str
    args: Many[Whole | str] = ()


class TextSegment(Wire):
    kind: Literal["text"] = "text"
    text: str


class TokensSegment(Wire):
    """Constant text as the very tokens that the model is to read."""

    kind: Literal["tokens"] = "tokens"
    tokens: Many[Annotated[Whole, Field(ge=0, lt=2**31)]]


class InputSegment(Wire):
    kind: Literal["input"] = "input"
    variable: Identifier
    transforms: Many[WireTransform] = ()


class OutputSegment(Wire):
    kind: Literal["output"] = "output"
    variable: Identifier
    sampling: Sampling = Sampling()
    calls: ToolCalls | None = None


class RoleSegment(Wire):
    """From here on, this role speaks."""

    kind: Literal["role"] = "role"
    role: Role
    verbatim: Truth = False
    """Keep white space at the ends of the turn, and the turn even if it is empty."""
    name: str | None = None
    tool_calls: Many[dict[str, Any]] = ()
    tool_call_id: str | None = None
    """`name`, `tool_calls` and `tool_call_id` are fields of the message that the model's chat template may read."""


WireSegment = Annotated[TextSegment | TokensSegment | InputSegment | OutputSegment | RoleSegment, _BY_KIND]


class VariableSpec(Wire):
    """A variable of this session. With a value it is READY at once."""

    id: Identifier
    name: str | None = None
    value: str | None = None


class RequestSpec(Wire):
    """One call of a semantic function."""

    id: Identifier
    function: str = ""
    """Its name, for people: errors, graphs and logs show it."""
    model: str | None = None
    """None: the service's default model."""
    chat: Truth = True
    """Use the model's chat template, if it has one."""
    segments: Many[WireSegment]
    tools: Many[dict[str, Any]] = ()
    """Tools that the model may call, as its chat template reads them."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Variables of the model's chat template."""


class VariableArgument(Wire):
    kind: Literal["variable"] = "variable"
    variable: Identifier


class ValueArgument(Wire):
    kind: Literal["value"] = "value"
    value: JsonValue


class ListArgument(Wire):
    kind: Literal["list"] = "list"
    items: Many["Argument"]


class ObjectArgument(Wire):
    kind: Literal["object"] = "object"
    entries: dict[str, "Argument"]


Argument = Annotated[VariableArgument | ValueArgument | ListArgument | ObjectArgument, _BY_KIND]


class SandboxSpec(Wire):
    """A source in Starlark, the function in it that the service calls, and that one's arguments by parameter."""

    source: Annotated[str, Field(max_length=MOST_SOURCE)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    file: Annotated[str, Field(max_length=255)] = ""
    line: Annotated[Whole, Field(ge=1, le=10_000_000)] = 1
    """The line of the file at which the source begins, for errors."""
    arguments: dict[str, Argument] = {}


class CallSpec(Wire):
    """One native call, run by the client that is connected to the session's `/calls`, or in the service's sandbox."""

    id: Identifier
    function: str
    inputs: Many[Identifier]
    """Variables that it waits for; for the sandbox, all that are among its arguments."""
    output: Identifier
    timeout: Number | None = None
    """Seconds from hand-out to result, after which it fails. In the sandbox a lower limit of the service applies."""
    sandbox: SandboxSpec | None = None


class WaitSpec(Wire):
    """Ask for a variable. Its value, or its failure, comes on the answer to this submit."""

    variable: Identifier
    criteria: Criteria = Criteria.LATENCY
    timeout: Annotated[Number, Field(ge=0)] | None = None
    """Seconds. A timeout cancels nothing."""
    stream: Truth = False
    """Send `delta` events as the text grows."""


class Submit(Wire):
    """Declare a batch, whole or not at all; the session is created if absent."""

    session: Identifier
    lease_seconds: Annotated[Number, Field(gt=0, le=LONGEST_LEASE_SECONDS)] = DEFAULT_LEASE_SECONDS
    """A session without contact for so long is cancelled. Only the submit that creates the session sets this."""
    variables: Many[VariableSpec] = ()
    requests: Many[RequestSpec] = ()
    calls: Many[CallSpec] = ()
    wait: Many[WaitSpec] = ()


class SetValue(Wire):
    """Body of PUT on a variable."""

    value: str


class CallResult(Wire):
    """Body of PUT on a native call: its value, or why it failed."""

    value: str | None = None
    error: str | None = None


# --- What the service answers -------------------------------------------------------------------------------


class ErrorBody(Wire):
    """The one JSON shape of every error."""

    code: str
    message: str
    details: dict[str, str] = {}

    @classmethod
    def of(cls, error: ParrotError) -> "ErrorBody":
        return cls(code=error.code, message=error.message, details=error.details)

    def to_error(self) -> ParrotError:
        return from_wire(self.code, self.message, self.details)


class ErrorAnswer(Wire):
    error: ErrorBody


class Accepted(Wire):
    """First event of the answer to a submit (the whole answer where nothing is waited for)."""

    event: Literal["accepted"] = "accepted"
    session: SessionId


class Delta(Wire):
    """Text that a streamed variable grew by, after `offset` characters; `logprobs` of its tokens if asked for."""

    event: Literal["delta"] = "delta"
    variable: VariableId
    offset: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Value(Wire):
    """A variable is READY."""

    event: Literal["value"] = "value"
    variable: VariableId
    value: str
    reason: FinishReason | None = None
    """Why the output ended; None for values that were set."""
    logprobs: tuple[TokenLogprob, ...] = ()


class Failure(Wire):
    """A variable is FAILED or CANCELLED, or the wait for it timed out (`code` "get_timeout")."""

    event: Literal["failure"] = "failure"
    variable: VariableId
    error: ErrorBody


VariableEvent = Annotated[Accepted | Delta | Value | Failure, Field(discriminator="event")]


class CallOffer(Wire):
    """A native call whose inputs are ready, handed to this client. `attempt` goes up with every retry."""

    event: Literal["call"] = "call"
    id: CallId
    function: str
    inputs: tuple[str, ...]
    attempt: int = 1


class CallState(Wire):
    """What a native call is in after its client told a result, whether that was taken or came too late: "done", and it
    is never offered again, or a state from which it may be."""

    state: str


class VariableView(Wire):
    id: VariableId
    name: str | None
    state: str
    producer: str | None
    """The request or native call that produces it."""
    value: str | None
    error: ErrorBody | None


class Timings(Wire):
    """Seconds on the service's clock since the session began; None: not yet."""

    submitted: float
    ready: float | None = None
    """All inputs known."""
    started: float | None = None
    """First handed to an engine."""
    ended: float | None = None


class BecauseView(Wire):
    """Why a request has its objective: somebody waits for a variable."""

    result: VariableId
    criteria: Criteria
    stages: int
    """Stages of requests between the request and that variable's producer; 0: it produces it."""
    group: int | None
    """Members of its task group; None: it is serial."""


class ConsideredView(Wire):
    """An engine that was looked at for a request, and what was predicted."""

    engine: EngineId
    seconds: float | None  # until the request ends there; None if it could not begin
    lacks: str | None = None
    """What prevented it from beginning there: room, kept, tenant."""
    cached_tokens: int  # of its prompt, estimated to be resident there
    harm: float
    """Seconds that other requests there lose."""


class PlacementView(Wire):
    """Why a request runs where it does; its `prompt_tokens` are estimated."""

    by: str
    """What decided: arrival, group, sharers, resident, harm, ahead, alone."""
    prompt_tokens: int
    chosen: ConsideredView
    others: tuple[ConsideredView, ...]


class RequestView(Wire):
    id: RequestId
    function: str
    model: str
    state: str
    inputs: tuple[VariableId, ...]
    outputs: tuple[VariableId, ...]
    objective: Objective
    engine: EngineId | None
    epoch: int
    timings: Timings
    usage: Usage
    error: ErrorBody | None
    because: BecauseView | None = None
    """None: nobody waits for what it leads to."""
    placement: PlacementView | None = None
    """None: it has not run yet."""


class CallView(Wire):
    id: CallId
    function: str
    state: str
    inputs: tuple[VariableId, ...]
    output: VariableId
    timings: Timings
    error: ErrorBody | None


class SessionView(Wire):
    """A session's graph with states and timings."""

    id: SessionId
    lease_seconds: float
    usage: Usage = Usage()
    """Usage of its requests together."""
    variables: tuple[VariableView, ...]
    requests: tuple[RequestView, ...]
    calls: tuple[CallView, ...]


class ModelView(Wire):
    """A model, as OpenAI's clients read it and with what else there is to say; `created` is in seconds since 1970."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["parrot"] = "parrot"
    name: str
    default: bool
    context_length: int


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: tuple[ModelView, ...]
