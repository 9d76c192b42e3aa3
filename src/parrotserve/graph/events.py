"""What happens to the machine: the arguments of `Machine.handle`, plain data."""

from dataclasses import dataclass, field

from parrotserve.criteria import Criteria
from parrotserve.errors import ParrotError
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
    """A request in the flat form: chat template applied, every sampling with its seed."""

    id: RequestId
    function: str
    model: str
    segments: tuple[Text | Input | Output, ...]
    published: int = field(default=0, compare=False)
    """How many leading segments are constant text that an operator has published: tenants share these. It may be
    another number when the request is sent again."""
    text_tokens: int | None = field(default=None, compare=False)
    """The most tokens that its constant texts make; None: nobody has counted them. Not a part of what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCall:
    """A native call, for the session's own client or for the service's sandbox."""

    id: CallId
    function: str
    inputs: tuple[VariableId, ...]
    output: VariableId
    timeout: float | None = None
    """Seconds that the client has; the sandbox keeps its own time."""
    sandboxed: SandboxedCall | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody asks for a variable; `stream` wants its text as it grows."""

    variable: VariableId
    criteria: Criteria
    stream: bool = False


# --- From clients; refused by raising `RequestRefused`, and then nothing has changed --------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A batch, whole or not at all. Requests, calls and variables that the session has already are skipped."""

    session: SessionId
    tenant: TenantId
    lease_seconds: float
    variables: tuple[NewVariable, ...] = ()
    requests: tuple[NewRequest, ...] = ()
    calls: tuple[NewCall, ...] = ()
    waits: tuple[Wait, ...] = ()


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
    """Cancel the producer of a variable, and producers upstream that nothing else needs."""

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
    """Contact: the session's lease starts anew. While clients are attached it does not run."""

    session: SessionId
    tenant: TenantId
    attached: int
    """How many of its clients' exchanges are open now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReturned:
    """A native call's value, or its error."""

    session: SessionId
    tenant: TenantId
    call: CallId
    attempt: int | None = None
    """What it is the result of; None: the last attempt."""
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
    """Requests that one step runs at most; 0: as many as there are credits."""
    pauses: bool = False
    """It can pause requests and resume them."""
    retains: bool = False
    """It can be asked to evict a prefix last."""
    late: bool = False
    """It takes requests of which a part is still unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLost:
    """It died or hung. Its requests go back to the queue; two such deaths make a suspect."""

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
    """Log-probabilities that are kept with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request's sequence ended: with an error, cancelled, or else done."""

    request: RequestId
    epoch: int
    usage: Usage | None = Usage()
    """None: it ends before its engine has let go of it, which will tell what it used."""
    error: ParrotError | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsRun:
    """Steps of an engine held so much, summed, and took so long."""

    engine: EngineId
    steps: int
    prefill_tokens: int
    decode_rows: int
    kv_tokens: int
    """Whose KV was read; what several requests share, once."""
    attended: int
    """Pairs of a row and a token that it attends to."""
    seconds: float


# --- From the runtime ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continued:
    """The machine has work left of earlier events (`Machine.unfinished`): a part of it is done."""


# --- From the operator --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TenantWeighed:
    """From now on a tenant's share of the engines is proportional to this; 1 until then."""

    tenant: TenantId
    weight: float


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed: leases and native calls' timeouts are looked at."""


FromClient = Submitted | Waited | ValueSet | Retried | Withdrawn | SessionEnded | SessionTouched | CallReturned
"""Of a session; whoever sends it is there to be told what is wrong with it."""

Event = (
    FromClient
    | CallRan
    | EngineJoined
    | EngineLost
    | OutputProduced
    | RequestEnded
    | StepsRun
    | Continued
    | TenantWeighed
    | Ticked
)
