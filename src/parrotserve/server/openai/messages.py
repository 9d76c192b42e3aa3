"""Turning the messages of a conversation into segments, with a boundary at every message as at role markers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parrotserve.errors import DeclarationError
from parrotserve.models.chat_template import ChatTemplate
from parrotserve.protocol import RoleSegment, TextSegment, WireSegment
from parrotserve.segments import Role
from parrotserve.server.openai.extension import Inputs
from parrotserve.server.openai.tools import taken_call_id
from parrotserve.server.openai.wire import ChatMessage, ContentPart, MessageToolCall

_REASONED = "</think>"
_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


def segments_of(
    messages: Sequence[ChatMessage],
    inputs: Inputs,
    template: ChatTemplate | None,
    *,
    chat_template_kwargs: Mapping[str, Any],
    places: Sequence[str] | None = None,
) -> tuple[WireSegment, ...]:
    """The conversation up to the model's answer. Raises `DeclarationError`, with the message's place in `param`: one of
    `places`, if the messages were made of something else."""
    without_reasoning = template is not None and template.leaves_out_reasoning(chat_template_kwargs)
    asked = max((number for number, message in enumerate(messages) if message.role == "user"), default=0)
    said = [
        _without_reasoning(message) if without_reasoning and number < asked else message
        for number, message in enumerate(messages)
    ]
    return tuple(
        segment
        for number, message in enumerate(said)
        for segment in _message(message, places[number] if places else f"messages.{number}", inputs, template)
    )


def _without_reasoning(message: ChatMessage) -> ChatMessage:
    """An earlier answer without its reasoning, as the template would render it. (It has to be removed here, because
    templates are given marks in place of contents.)"""
    if message.role != "assistant" or not isinstance(message.content, str):
        return message
    return message.model_copy(update={"content": message.content.rpartition(_REASONED)[2].lstrip("\n")})


def _message(message: ChatMessage, place: str, inputs: Inputs, template: ChatTemplate | None) -> Iterator[WireSegment]:
    calls = message.tool_calls or []
    about_tools = bool(calls) or message.role == "tool"
    if about_tools and not (template is not None and template.takes_tools):
        raise wrong_at(place, "the model's chat template supports neither tools nor messages about them")
    if calls and message.role != "assistant":
        raise wrong_at(f"{place}.tool_calls", "only an assistant's message has calls")
    answered = message.tool_call_id
    yield RoleSegment(
        role=_ROLES[message.role],
        verbatim=True,
        name=message.name,
        tool_calls=tuple(_tool_call(call, f"{place}.tool_calls", template) for call in calls),
        tool_call_id=answered if answered is None or template is None else taken_call_id(answered, template),
    )
    content = message.content
    if content is None and message.role == "assistant":
        content = message.refusal
    if content is None:
        if not calls:
            raise wrong_at(f"{place}.content", f"the {message.role}'s message has no content")
    elif isinstance(content, str):
        yield from inputs.split(content)
    else:
        yield from _parts(content, f"{place}.content", inputs)


def _parts(parts: Sequence[ContentPart], place: str, inputs: Inputs) -> Iterator[WireSegment]:
    for number, part in enumerate(parts):
        text = {"text": part.text, "refusal": part.refusal}.get(part.type)
        if text is None:
            what = f"this service reads parts of type 'text' with a text; this one is of type {part.type[:40]!r}"
            raise wrong_at(f"{place}.{number}", what)
        if number:
            yield TextSegment(text="\n")
        yield from inputs.split(text)


def _tool_call(call: MessageToolCall, place: str, template: ChatTemplate | None) -> dict[str, Any]:
    """A call as chat templates read it, with its arguments as an object."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise wrong_at(place, f"the arguments of a call to {call.function.name!r} are not valid JSON") from error
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise wrong_at(place, f"the arguments of a call to {call.function.name!r} are not a JSON object")
    identity = call.id if template is None else taken_call_id(call.id, template)
    return {"id": identity, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def wrong_at(place: str, what: str) -> DeclarationError:
    """An error in the form of other errors about bodies, with its place, because conversations have many messages."""
    return DeclarationError(f"body.{place}: {what}.", param=place)
