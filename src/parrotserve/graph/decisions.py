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
    """What `OpenSequence` and `CompleteSequence` have in common: a request is to run on an engine."""

    request: RequestId
    engine: EngineId
    epoch: int
    objective: Objective
    precedence: Precedence = NO_PRECEDENCE
    stream: frozenset[VariableId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSequence(Beginning):
    """Run this request on this engine: all of its inputs are known, or it runs `ahead` of some that are not.

    In a rerun, outputs that are READY already are given to the engine as delivered.
    """

    ahead: bool = False
    """Prefill what is known of the prompt, and inputs as they are written, up to where later text could still change
    the tokens; the last part is held back until `CompleteSequence`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteSequence(Beginning):
    """Run a request on the engine where it runs ahead: all of its inputs are known now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSequence:
    """A running request has a new objective and precedence, or outputs that are now streamed to a client, or followed
    by a request that runs ahead."""

    request: RequestId
    engine: EngineId
    epoch: int
    objective: Objective | None = None
    precedence: Precedence | None = None
    stream: frozenset[VariableId] = frozenset()
    follow: frozenset[VariableId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSequence:
    """Pause a running request to make room for others: it makes no progress until it is resumed."""

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
    """Requests that are still to run, this one among them, share the prefix up to the end of its first `segments`
    segments: the engine is to evict that prefix last."""

    engine: EngineId
    key: str
    request: RequestId
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePrefix:
    """No request that is still to run has that prefix any more; `request` was the last one."""

    engine: EngineId
    key: str
    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishValue:
    """A variable is READY: tell those that wait for it."""

    variable: VariableId
    value: str
    reason: FinishReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailure:
    """A variable is FAILED or CANCELLED (then `error` is `Cancelled`): tell those that wait for it."""

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
    """The values of its inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeCall:
    """A native call that was offered to the client or runs in the sandbox is no longer wanted."""

    session: SessionId
    call: CallId


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A request will never run again: drop what is kept for reruns of it."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """A request FAILED or was CANCELLED, and runs again only if it is retried: settle its claim on the tenant's limits.
    `ForgetRequest` settles it too."""

    request: RequestId


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """A session has ended: drop everything that is kept for it and for these variables."""

    session: SessionId
    variables: tuple[VariableId, ...]


EngineDecision = (
    CompleteSequence | UpdateSequence | PauseSequence | ResumeSequence | CancelSequence | RetainPrefix | ReleasePrefix
)
"""Decisions that concern what an engine already has; each names the engine."""

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
