"""Admission: a batch from the wire, checked and in the machine's words."""

import secrets
from collections.abc import Mapping
from dataclasses import replace

from parrotserve.engines.schema import check_schema
from parrotserve.errors import InvalidSchema
from parrotserve.graph.events import NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.ids import CallId, RequestId, SessionId, TenantId, VariableId
from parrotserve.protocol import (
    InputSegment,
    OutputSegment,
    RequestSpec,
    RoleSegment,
    Submit,
    TextSegment,
    WireSegment,
)
from parrotserve.runtime.catalog import ServedModel
from parrotserve.runtime.render import LONG_TEXT
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, RoleSwitch, Segment, Text
from parrotserve.transforms import Transform

_MANY_SEGMENTS = 2_000


def is_big(body: Submit) -> bool:
    """Whether taking it in may take so long that it is to be done in a thread."""
    segments = [segment for spec in body.requests for segment in spec.segments]
    length = sum(len(segment.text) for segment in segments if isinstance(segment, TextSegment))
    has_schema = any(isinstance(one, OutputSegment) and one.sampling.schema is not None for one in segments)
    return length > LONG_TEXT or len(segments) > _MANY_SEGMENTS or has_schema


def admit(
    body: Submit, *, tenant: TenantId, models: Mapping[str | None, ServedModel], longest_lease: float
) -> Submitted:
    """The batch for the machine: chat templates applied, every seed drawn. `models` are those that it names.

    Raises `InvalidTransform`, `InvalidSchema` and what the chat template refuses.
    """
    return Submitted(
        session=SessionId(body.session),
        tenant=tenant,
        lease_seconds=min(body.lease_seconds, longest_lease),
        variables=tuple(NewVariable(VariableId(spec.id), spec.name, spec.value) for spec in body.variables),
        requests=tuple(_request(spec, models[spec.model]) for spec in body.requests),
        calls=tuple(
            NewCall(
                id=CallId(spec.id),
                function=spec.function,
                inputs=tuple(VariableId(variable) for variable in spec.inputs),
                output=VariableId(spec.output),
                timeout=spec.timeout,
            )
            for spec in body.calls
        ),
        waits=tuple(Wait(VariableId(spec.variable), spec.criteria, spec.stream) for spec in body.wait),
    )


def _request(spec: RequestSpec, model: ServedModel) -> NewRequest:
    segments = tuple(_segment(segment) for segment in spec.segments)
    return NewRequest(
        id=RequestId(spec.id),
        function=spec.function,
        model=model.name,
        segments=model.renderer.flatten(segments, chat=spec.chat),
    )


def _segment(segment: WireSegment) -> Segment:
    match segment:
        case TextSegment():
            return Text(segment.text)
        case InputSegment():
            transforms = tuple(Transform(one.name, one.args) for one in segment.transforms)
            return Input(VariableId(segment.variable), transforms)
        case OutputSegment():
            return Output(VariableId(segment.variable), _fixed(segment.sampling))
        case RoleSegment():
            return RoleSwitch(segment.role)


def _fixed(sampling: Sampling) -> Sampling:
    """The sampling with a schema that can be enforced and a seed, so that every rerun gives the same text."""
    if sampling.schema is not None:
        try:
            check_schema(sampling.schema)
        except RecursionError as error:
            raise InvalidSchema("The JSON schema is nested too deeply.") from error
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(63))
