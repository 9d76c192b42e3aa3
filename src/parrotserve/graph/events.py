"""What happens to the machine: the arguments of `Machine.handle`, plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from parrotserve.criteria import Criteria
from parrotserve.errors import ParrotError
from parrotserve.graph.causes import Cause
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId
from parrotserve.native_calls import SandboxedCall
from parrotserve.sampling import FinishReason, Usage
from parrotserve.segments import Input, Output, Text


@dataclass(frozen=True, slots=True)
class NewVariable:
    id: VariableId
    name: str | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request in flat form: its chat template is applied, and every sampling has its seed."""

    id: RequestId
    function: str
    model: str
    segments: tuple[Text | Input | Output, ...]
    published: int = field(default=0, compare=False)
    """Number of leading segments that are constant text published by an operator, whose KV tenants share. May differ
    when the same request is sent again."""
    text_tokens: int | None = field(default=None, compare=False)
    """Upper bound on the tokens of its constant texts; None: not counted. Not part of the request's identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCall:
    """A native call, to be run by the session's client or, if `sandboxed`, by the service's sandbox."""

    id: CallId
    function: str
    inputs: tuple[VariableId, ...]
    output: VariableId
    timeout: float | None = None
    """Seconds that the client may take; the sandbox has limits of its own."""
    sandboxed: SandboxedCall | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody waits for a variable; with `stream`, for its text as it grows."""

    variable: VariableId
    criteria: Criteria
    stream: bool = False


# --- From clients; if one is refused (`RequestRefused` is raised), nothing has changed ------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A batch, accepted or refused as a whole. What the session already has of it is skipped."""

    session: SessionId
    tenant: TenantId
    lease_seconds: float
    variables: tuple[NewVariable, ...] = ()
    requests: tuple[NewRequest, ...] = ()
    calls: tuple[NewCall, ...] = ()
    waits: tuple[Wait, ...] = ()
    lasting: bool = True
    """Whether it is to survive a restart of the service. The machine treats both alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    session: SessionId
    tenant: TenantId
    waits: tuple[Wait, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSet:
    session: SessionId
    tenant: TenantId
    variable: VariableId
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Run the failed or cancelled producer of a variable again, and what failed upstream of it."""

    session: SessionId
    tenant: TenantId
    variable: VariableId


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Cancel the producer of a variable, what needs it, and producers upstream that nothing else needs."""

    session: SessionId
    tenant: TenantId
    variable: VariableId


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    session: SessionId
    tenant: TenantId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTouched:
    """A client was in contact: the session's lease starts anew. It does not run while exchanges are open."""

    session: SessionId
    tenant: TenantId
    attached: int
    """Number of its clients' exchanges that are open now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReturned:
    """A native call's value, or its error."""

    session: SessionId
    tenant: TenantId
    call: CallId
    attempt: int | None = None
    """The attempt that it is the result of; None: the latest one."""
    value: str | None = None
    error: str | None = None


# --- From the sandbox, engines and the clock ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRan:
    """The value of a native call in the sandbox, or its error."""

    call: CallId
    value: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJoined:
    engine: EngineId
    model: str
    context_length: int
    cache_tokens: int
    credits: int
    batch: int = 0
    """Most requests that one step runs; 0: as many as there are credits."""
    pauses: bool = False
    """Whether it can pause and resume requests."""
    retains: bool = False
    """Whether it can be asked to evict a prefix last."""
    late: bool = False
    """Whether it accepts requests whose prompts are not known completely (`Capability.LATE_SEGMENTS`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLost:
    """An engine died or hung. Its requests go back to the queue; a request under which two have died is a suspect."""

    engine: EngineId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputProduced:
    """An output of a running request is complete."""

    request: RequestId
    epoch: int
    variable: VariableId
    value: str
    reason: FinishReason
    logprobs: int = 0
    """Number of log-probabilities kept with the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request's sequence ended: with an `error`, `cancelled`, or otherwise done."""

    request: RequestId
    epoch: int
    usage: Usage | None = Usage()
    """None: the engine has not released the sequence yet, and will report its usage later."""
    error: ParrotError | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsRun:
    """What some steps of an engine held, and how long they took, summed over the steps."""

    engine: EngineId
    steps: int
    prefill_tokens: int
    decode_rows: int
    kv_tokens: int
    """Tokens whose KV was read; tokens shared by several requests count once."""
    attended: int
    """Number of pairs of a row and a token that it attends to."""
    seconds: float


# --- From the runtime ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continued:
    """Do a part of the work that is left from earlier events (see `Machine.unfinished`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownValue:
    """A value that a variable had before the service was restarted."""

    value: str
    reason: FinishReason | None = None
    logprobs: int = 0
    """Number of log-probabilities kept with the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailure:
    """Why a variable had FAILED or was CANCELLED before the service was restarted."""

    cause: Cause
    cancelled: bool = False
    by_input: bool = False
    """Whether its producer fell only because an input did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A session from before the service was restarted: all that it had declared, and what had become of that."""

    batch: Submitted
    outcomes: Mapping[VariableId, KnownValue | KnownFailure]
    usages: Mapping[RequestId, Usage] = field(default_factory=dict[RequestId, Usage])
    """What requests had used by then."""
    attempts: Mapping[CallId, int] = field(default_factory=dict[CallId, int])
    """The numbers of the current attempts at native calls that had been retried."""


# --- From the operator --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TenantWeighed:
    """From now on a tenant's share of the engines is proportional to this weight. Tenants start with 1."""

    tenant: TenantId
    weight: float


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed: expired leases and native calls that timed out are ended."""


FromClient = Submitted | Waited | ValueSet | Retried | Withdrawn | SessionEnded | SessionTouched | CallReturned
"""Events of a session that a client sends, and can be told what is wrong with."""

Event = (
    FromClient
    | CallRan
    | EngineJoined
    | EngineLost
    | OutputProduced
    | RequestEnded
    | StepsRun
    | Continued
    | Restored
    | TenantWeighed
    | Ticked
)
