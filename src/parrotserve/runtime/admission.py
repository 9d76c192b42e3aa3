"""Admission: checks a batch from the wire, and turns it into an event for the machine."""

import json
import secrets
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, cast

import msgspec

from parrotserve.engines.schema import check_schema
from parrotserve.errors import DeclarationError, InvalidGraph, InvalidSampling, InvalidSchema
from parrotserve.graph.events import NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.ids import CallId, RequestId, SessionId, TenantId, VariableId, owned
from parrotserve.native_calls import SandboxedCall, Slot
from parrotserve.protocol import (
    Argument,
    CallSpec,
    InputSegment,
    ListArgument,
    ObjectArgument,
    OutputSegment,
    RequestSpec,
    RoleSegment,
    SandboxSpec,
    Submit,
    TextSegment,
    TokensSegment,
    ValueArgument,
    VariableArgument,
    VariableSpec,
    Wire,
    WireSegment,
)
from parrotserve.runtime.catalog import Models, ServedModel
from parrotserve.runtime.claims import most_of_texts
from parrotserve.runtime.render import LONG_TEXT, published_pieces
from parrotserve.sampling import Sampling, ToolCalls
from parrotserve.segments import Input, Output, RoleSwitch, Segment, Text
from parrotserve.texts import check_name, check_text
from parrotserve.transforms import Transform

_MANY_SEGMENTS = 2_000
_LENGTH_OF_VALUE = 5
"""Characters of JSON that a value counts for, beside those of its texts."""
_MOST_MEANT = 2**63 - 1


def has_schema(body: Submit) -> bool:
    """Whether an output or its calls have a JSON schema: it may take seconds to check that it can be enforced."""
    outputs = (segment for spec in body.requests for segment in spec.segments if isinstance(segment, OutputSegment))
    return any(output.sampling.schema is not None or output.calls is not None for output in outputs)


def is_big(body: Submit) -> bool:
    """Whether admitting the batch may take so long that it must be done in a thread."""
    length, count = 0, len(body.variables) + len(body.wait)
    for call in body.calls:
        length += 0 if call.sandbox is None else _length_of(call.sandbox.arguments)
    for spec in body.requests:
        count += len(spec.segments)
        length += _length_of(spec.tools) + _length_of(spec.chat_template_kwargs)
        for segment in spec.segments:
            if isinstance(segment, TextSegment):
                length += len(segment.text)
            elif isinstance(segment, TokensSegment):
                length += len(segment.tokens)
            elif isinstance(segment, RoleSegment):
                length += _length_of(segment.tool_calls)
    return length > LONG_TEXT or count > _MANY_SEGMENTS


def _length_of(value: Any) -> int:
    """The approximate length of a value's JSON, in characters. Stops counting beyond `LONG_TEXT`."""
    length, rest = 0, [value] if value else []
    while rest and length <= LONG_TEXT:
        item = rest.pop()
        length += _LENGTH_OF_VALUE
        match item:
            case str():
                length += len(item)
            case Wire():
                rest += (content for _, content in item)
            case Mapping():
                entries = cast("Mapping[str, Any]", item)
                length += sum(map(len, entries))
                rest += entries.values()
            case list() | tuple():
                rest += cast("Sequence[Any]", item)
            case _:
                pass
    return length


def admit(
    body: Submit,
    *,
    tenant: TenantId,
    models: Models,
    longest_lease: float,
    count: bool = False,
    published: Collection[str] = (),
) -> Submitted:
    """The batch for the machine: ids owned by the tenant, chat templates applied, every seed drawn.

    `models` are those that the batch names. With `count`, tokens of constant texts are counted, for limits on tokens.
    `published` are the texts that all tenants share. Raises `InvalidTransform`, `InvalidSampling`, `InvalidSchema`,
    `InvalidGraph` and the errors of the chat template.
    """
    waits = _waits(body, tenant)
    return Submitted(
        session=owned(tenant, SessionId(body.session)),
        tenant=tenant,
        lease_seconds=min(body.lease_seconds, longest_lease),
        variables=tuple(_variable(spec, tenant) for spec in body.variables),
        requests=tuple(
            _request(spec, models[spec.model], tenant, count=count, published=published) for spec in body.requests
        ),
        calls=tuple(_call(spec, tenant) for spec in body.calls),
        waits=waits,
    )


def _waits(body: Submit, tenant: TenantId) -> tuple[Wait, ...]:
    """The batch's waits. Raises `InvalidGraph` if one variable is waited for more than once: every token of it would be
    sent that many times, while nobody else is served."""
    waits = {spec.variable: Wait(_of(spec.variable, tenant), spec.criteria, spec.stream) for spec in body.wait}
    if len(waits) < len(body.wait):
        twice = Counter(spec.variable for spec in body.wait).most_common(1)[0][0]
        raise InvalidGraph(
            f"The variable {twice!r} is waited for more than once; wait for it once, with the strictest criteria.",
            variable=twice,
        )
    return tuple(waits.values())


def _of(variable: str, tenant: TenantId) -> VariableId:
    return owned(tenant, VariableId(variable))


def _variable(spec: VariableSpec, tenant: TenantId) -> NewVariable:
    name = None if spec.name is None else check_name(spec.name, "A variable's name")
    value = None if spec.value is None else check_text(spec.value, f"The value of {spec.id}")
    return NewVariable(_of(spec.id, tenant), name, value)


def _call(spec: CallSpec, tenant: TenantId) -> NewCall:
    if spec.timeout is not None and not spec.timeout > 0:
        raise InvalidGraph(f"The timeout of native call {spec.id!r} must be above 0 seconds.", call=spec.id)
    return NewCall(
        id=owned(tenant, CallId(spec.id)),
        function=check_name(spec.function, "A function's name"),
        inputs=tuple(_of(variable, tenant) for variable in spec.inputs),
        output=_of(spec.output, tenant),
        timeout=spec.timeout,
        sandboxed=None if spec.sandbox is None else _sandboxed(spec, spec.sandbox, tenant),
    )


def _sandboxed(spec: CallSpec, sandbox: SandboxSpec, tenant: TenantId) -> SandboxedCall:
    parts = groupby(_object(sandbox.arguments, spec, tenant), lambda part: isinstance(part, Slot))
    arguments = (group if is_slot else ("".join(map(str, group)),) for is_slot, group in parts)
    for text in (sandbox.source, sandbox.file, *sandbox.arguments):
        check_text(text, f"The function of native call {spec.id!r}")
    return SandboxedCall(
        name=sandbox.name,
        source=sandbox.source,
        file=sandbox.file,
        line=sandbox.line,
        arguments=tuple(chain.from_iterable(arguments)),
        seconds=spec.timeout,
    )


def _argument(argument: Argument, call: CallSpec, tenant: TenantId) -> Iterator[str | Slot]:
    match argument:
        case VariableArgument():
            if argument.variable not in call.inputs:
                what = f"Native call {call.id!r} has the argument {argument.variable!r}, which is none of its inputs."
                raise InvalidGraph(what, call=call.id, variable=argument.variable)
            yield Slot(_of(argument.variable, tenant))
        case ValueArgument():
            yield json.dumps(argument.value)
        case ListArgument():
            yield "["
            for number, item in enumerate(argument.items):
                yield "," if number else ""
                yield from _argument(item, call, tenant)
            yield "]"
        case ObjectArgument():
            yield from _object(argument.entries, call, tenant)


def _object(entries: Mapping[str, Argument], call: CallSpec, tenant: TenantId) -> Iterator[str | Slot]:
    yield "{"
    for number, (name, entry) in enumerate(entries.items()):
        yield f"{',' if number else ''}{json.dumps(name)}:"
        yield from _argument(entry, call, tenant)
    yield "}"


def _request(
    spec: RequestSpec, model: ServedModel, tenant: TenantId, *, count: bool, published: Collection[str]
) -> NewRequest:
    try:
        segments = tuple(_segment(segment, model, tenant) for segment in spec.segments)
    except DeclarationError as error:
        # The message alone would not say which of the batch's requests is meant.
        name = check_name(spec.function, "A function's name")
        label = f"{name!r} ({spec.id})" if name else f"Request {spec.id}"
        raise type(error)(f"{label}: {error.message}", **{**error.details, "request": spec.id}) from error
    flat = model.renderer.flatten(
        segments, chat=spec.chat, tools=spec.tools, chat_template_kwargs=spec.chat_template_kwargs
    )
    for segment in flat:
        if isinstance(segment, Text) and segment.template:
            check_text(segment.text, "What the chat template makes of tools, its variables and messages")
    return NewRequest(
        id=owned(tenant, RequestId(spec.id)),
        function=check_name(spec.function, "A function's name"),
        model=model.name,
        segments=flat,
        published=published_pieces(flat, published) if published else 0,
        text_tokens=most_of_texts(flat, model.renderer) if count else None,
    )


def _segment(segment: WireSegment, model: ServedModel, tenant: TenantId) -> Segment:
    match segment:
        case TextSegment():
            return Text(check_text(segment.text, "A constant text"))
        case TokensSegment():
            return _tokens(segment.tokens, model)
        case InputSegment():
            transforms = tuple(Transform(one.name, tuple(map(_storable, one.args))) for one in segment.transforms)
            return Input(_of(segment.variable, tenant), transforms)
        case OutputSegment():
            return Output(_of(segment.variable, tenant), _fixed(segment.sampling, segment.calls, model), segment.calls)
        case RoleSegment():
            extra = segment.model_dump(include={"name", "tool_calls", "tool_call_id"}, exclude_defaults=True)
            return RoleSwitch(segment.role, segment.verbatim, extra)


def _storable(argument: int | str) -> int | str:
    """A transform's argument, if need be as a smaller number that means the same: no text is that long, and the journal
    could not keep it."""
    return min(argument, _MOST_MEANT) if isinstance(argument, int) else argument


def _tokens(tokens: tuple[int, ...], model: ServedModel) -> Text:
    for token in tokens:
        if token >= model.vocabulary:
            raise DeclarationError(
                f"Token {token} of a prompt is not in the vocabulary of {model.name!r}, whose tokens are numbered from "
                f"0 to {model.vocabulary - 1}. Token ids come from the model's own tokenizer."
            )
    return Text(model.renderer.tokenizer.decode(tokens, special=True), tokens=tokens)


def _fixed(sampling: Sampling, calls: ToolCalls | None, model: ServedModel) -> Sampling:
    """Check a sampling, its schema included, and give it a seed if it has none, so that every rerun gives the same
    text."""
    if sampling.schema is not None or calls is not None:
        try:
            check_schema(sampling.schema, calls)
        except RecursionError as error:
            raise InvalidSchema("The JSON schema is nested too deeply.") from error
    if sampling.logit_bias and max(sampling.logit_bias) >= model.vocabulary:
        raise InvalidSampling(
            f"logit_bias names token {max(sampling.logit_bias)}, which is not in the vocabulary of {model.name!r}, "
            f"whose tokens are numbered from 0 to {model.vocabulary - 1}.",
            param="logit_bias",
        )
    try:
        msgspec.msgpack.encode((sampling, calls))
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidSampling(f"The sampling has a number or a text that no engine could take: {error}.") from error
    return sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbits(63))
