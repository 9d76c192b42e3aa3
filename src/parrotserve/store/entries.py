"""The entries of the journal as data, and their form in bytes (MessagePack).

Fields that a later version adds have defaults, and fields that it no longer knows are skipped, so that a service can
read what an earlier version wrote.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, TypeVar, cast

import msgspec

from parrotserve.errors import from_wire
from parrotserve.graph.causes import Cause
from parrotserve.graph.events import KnownFailure, NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.ids import EngineId, RequestId, SessionId, TenantId
from parrotserve.sampling import FinishReason, TokenLogprob
from parrotserve.segments import Input, Output, Text

T = TypeVar("T")


class Kind(StrEnum):
    """What an entry is about."""

    BATCH = "batch"
    """A batch that was accepted. Its key is the empty text."""
    VALUE = "value"
    """A variable's value; its key is the variable."""
    FAILURE = "failure"
    """Why a variable has no value; its key is the variable."""
    PIECE = "piece"
    """Text that was streamed of a variable before it had its value; its key is the variable."""
    USAGE = "usage"
    """What a request used; its key is the request."""
    ATTEMPT = "attempt"
    """The number of the current attempt at a native call that was retried; its key is the call."""


class ValueEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variable's value."""

    value: str
    reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: tuple[int, ...] = ()
    """The tokens that it was written as, if its request has other outputs, which a rerun goes on to write after it."""


class FailureEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a variable has no value: the fields of its `Cause`, and of `KnownFailure`."""

    code: str
    message: str
    details: dict[str, str]
    sentence: str
    became: str
    origin: str | None = None
    engine: EngineId | None = None
    cancelled: bool = False
    by_input: bool = False

    @classmethod
    def of(cls, failure: KnownFailure) -> "FailureEntry":
        """The entry of a failure."""
        cause = failure.cause
        return cls(
            code=cause.error.code,
            message=cause.error.message,
            details=cause.error.details,
            sentence=cause.sentence,
            became=cause.became,
            origin=cause.origin,
            engine=cause.engine,
            cancelled=failure.cancelled,
            by_input=failure.by_input,
        )

    def failure(self) -> KnownFailure:
        """The failure."""
        cause = Cause(
            error=from_wire(self.code, self.message, self.details),
            sentence=self.sentence,
            became=self.became,
            origin=self.origin,
            engine=self.engine,
        )
        return KnownFailure(cause=cause, cancelled=self.cancelled, by_input=self.by_input)


class PieceEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """New tokens of a streamed output, and what they added to the text that readers see."""

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class _Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of these."""

    text: Text | None = None
    input: Input | None = None
    output: Output | None = None


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    id: RequestId
    function: str
    model: str
    segments: tuple[_Segment, ...]
    published: int = 0
    text_tokens: int | None = None


class _Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    session: SessionId
    tenant: TenantId
    lease_seconds: float
    variables: tuple[NewVariable, ...] = ()
    requests: tuple[_Request, ...] = ()
    calls: tuple[NewCall, ...] = ()
    waits: tuple[Wait, ...] = ()


_encoder = msgspec.msgpack.Encoder()


def encoded(entry: Any) -> bytes:
    """The body of an entry."""
    return _encoder.encode(entry)


def decoded(body: bytes, kind: type[T]) -> T:
    """What an entry's body says. Raises `msgspec.DecodeError` if it says nothing of this kind."""
    return msgspec.msgpack.decode(body, type=kind)


def encoded_batch(batch: Submitted) -> bytes:
    """The body of a batch's entry."""
    requests = tuple(
        _Request(one.id, one.function, one.model, _wrapped(one.segments), one.published, one.text_tokens)
        for one in batch.requests
    )
    return encoded(
        _Batch(batch.session, batch.tenant, batch.lease_seconds, batch.variables, requests, batch.calls, batch.waits)
    )


def decoded_batch(body: bytes) -> Submitted:
    """The batch that an entry's body says. Raises `msgspec.DecodeError` if it says none."""
    batch = decoded(body, _Batch)
    return Submitted(
        session=batch.session,
        tenant=batch.tenant,
        lease_seconds=batch.lease_seconds,
        variables=batch.variables,
        requests=tuple(
            NewRequest(
                id=one.id,
                function=one.function,
                model=one.model,
                segments=tuple(_unwrapped(one.segments)),
                published=one.published,
                text_tokens=one.text_tokens,
            )
            for one in batch.requests
        ),
        calls=batch.calls,
        waits=batch.waits,
    )


def _wrapped(segments: Iterable[Text | Input | Output]) -> tuple[_Segment, ...]:
    return tuple(
        _Segment(text=one)
        if isinstance(one, Text)
        else _Segment(input=one)
        if isinstance(one, Input)
        else _Segment(output=one)
        for one in segments
    )


def _unwrapped(segments: Iterable[_Segment]) -> Iterator[Text | Input | Output]:
    return (cast("Text | Input | Output", one.text or one.input or one.output) for one in segments)
