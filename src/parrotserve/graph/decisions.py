"""What the machine decides: plain data that the runtime carries out, in order."""

from collections.abc import Mapping
from dataclasses import dataclass

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.errors import ParrotError
from parrotserve.ids import CallId, EngineId, RequestId, SessionId, TenantId, VariableId
from parrotserve.native_calls import SandboxedCall
from parrotserve.sampling import FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A request is to run on an engine."""

    request: RequestId
    engine: EngineId
    epoch: int
    objective: Objective
    precedence: Precedence = NO_PRECEDENCE
    stream: frozenset[VariableId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSequence(Beginning):
    """Run this request on this engine: all of its inputs are known, or it runs `ahead` of some that are not.

    Outputs that were READY before (a rerun) are given to the engine as delivered.
    """

    ahead: bool = False
    """Let the engine read what is known, and inputs as they are written, as far as no later text can change it; the
    last of it is kept back until `CompleteSequence`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteSequence(Beginning):
    """A request that runs ahead on this engine is to run there: all of its inputs are known now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSequence:
    """A running request has a new objective, and precedence with it, or outputs that somebody now streams, or follows
    to read ahead."""

    request: RequestId
    engine: EngineId
    epoch: int
    objective: Objective | None = None
    precedence: Precedence | None = None
    stream: frozenset[VariableId] = frozenset()
    follow: frozenset[VariableId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSequence:
    """A running request makes room for others, and no progress until it is resumed."""

    request: RequestId
    engine: EngineId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeSequence:
    request: RequestId
    engine: EngineId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSequence:
    request: RequestId
    engine: EngineId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainPrefix:
    """Queued requests begin as this one does, up to so many segments: its engine is to evict that last."""

    engine: EngineId
    key: str
    request: RequestId
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePrefix:
    """No queued request begins so any more."""

    engine: EngineId
    key: str
    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishValue:
    """A variable is READY: tell whoever waits."""

    variable: VariableId
    value: str
    reason: FinishReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailure:
    """A variable is FAILED or CANCELLED (then `error` is `Cancelled`): tell whoever waits."""

    variable: VariableId
    error: ParrotError


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferCall:
    """A native call's inputs are known: hand it to the session's client."""

    session: SessionId
    call: CallId
    function: str
    inputs: tuple[str, ...]
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """A native call's inputs are known: run it in the sandbox."""

    session: SessionId
    tenant: TenantId
    call: CallId
    sandboxed: SandboxedCall
    values: Mapping[VariableId, str]
    """Of its inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeCall:
    """A native call that was offered or is in the sandbox is no longer wanted."""

    session: SessionId
    call: CallId


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A request is over for good: drop what is kept to run it again."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """A request fell, and does not run unless it is retried: settle its account. `ForgetRequest` does so, too."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """A session is over: drop all that is kept for it, its variables included."""

    session: SessionId
    variables: tuple[VariableId, ...]


EngineDecision = (
    CompleteSequence | UpdateSequence | PauseSequence | ResumeSequence | CancelSequence | RetainPrefix | ReleasePrefix
)
"""What an engine is told of what it has; each names the engine."""

Decision = (
    OpenSequence
    | EngineDecision
    | PublishValue
    | PublishFailure
    | OfferCall
    | RunCall
    | RevokeCall
    | ForgetRequest
    | SettleRequest
    | ForgetSession
)
