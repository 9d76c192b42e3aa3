"""Turning the items of a conversation into the messages of a chat."""

import json
from collections.abc import Iterable, Sequence

from parrotserve.errors import DeclarationError
from parrotserve.server.openai.messages import wrong_at
from parrotserve.server.openai.responses.wire import Item, Part
from parrotserve.server.openai.wire import ChatMessage, ContentPart, MessageFunctionCall, MessageToolCall

_TEXTS = ("input_text", "output_text", "text")


def messages_of(items: Iterable[tuple[str, Item]]) -> tuple[list[ChatMessage], list[str]]:
    """The messages that items, each with its place in the body, stand for, and the place of each message.

    What an assistant said and the calls that follow it are one message, as the model wrote them. Reasoning is left out,
    as it is in a chat. Raises `DeclarationError`, which names the place.
    """
    messages: list[ChatMessage] = []
    places: list[str] = []
    for place, item in items:
        if item.type == "reasoning":
            continue
        if item.type == "function_call" and messages and messages[-1].role == "assistant":
            messages[-1] = _with_call(messages[-1], _call(item, place))
        else:
            messages.append(_message(item, place))
            places.append(place)
    return messages, places


def _message(item: Item, place: str) -> ChatMessage:
    match item.type or "message":
        case "message":
            if item.role is None:
                raise wrong_at(f"{place}.role", "Field required")
            return ChatMessage(role=item.role, content=_content(item.content, f"{place}.content"))
        case "function_call":
            return ChatMessage(role="assistant", tool_calls=[_call(item, place)])
        case "function_call_output":
            output = _content(item.output, f"{place}.output")
            return ChatMessage(role="tool", content=output, tool_call_id=_needed(item.call_id, f"{place}.call_id"))
        case "item_reference":
            raise wrong_at(place, "references to items are not served; send the item, or use previous_response_id")
        case other:
            what = "this service reads items of type 'message', 'function_call', 'function_call_output', 'reasoning'"
            raise wrong_at(f"{place}.type", f"{what}; this one is of type {other[:40]!r}")


def _with_call(message: ChatMessage, call: MessageToolCall) -> ChatMessage:
    if message.tool_calls is None:
        return message.model_copy(update={"tool_calls": [call]})
    message.tool_calls.append(call)
    return message


def _call(item: Item, place: str) -> MessageToolCall:
    name = _needed(item.name, f"{place}.name")
    arguments = _needed(item.arguments, f"{place}.arguments")
    try:
        is_object = isinstance(json.loads(arguments or "{}"), dict | None)
    except (ValueError, RecursionError) as error:
        raise _no_object(name, place) from error
    if not is_object:
        raise _no_object(name, place)
    function = MessageFunctionCall(name=name, arguments=arguments)
    return MessageToolCall(id=_needed(item.call_id, f"{place}.call_id"), function=function)


def _no_object(name: str, place: str) -> DeclarationError:
    return wrong_at(f"{place}.arguments", f"the arguments of a call to {name[:64]!r} are not a JSON object")


def _needed(value: str | None, place: str) -> str:
    if value is None:
        raise wrong_at(place, "Field required")
    return value


def _content(content: str | Sequence[Part] | None, place: str) -> str | list[ContentPart]:
    """A text as it is, and also if it is the only part, as most answers are that come back."""
    if content is None:
        raise wrong_at(place, "Field required")
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{place}.{number}") for number, part in enumerate(content)]
    only = parts[0].text if len(parts) == 1 else None
    return only if only is not None else parts


def _part(part: Part, place: str) -> ContentPart:
    if part.type in _TEXTS and part.text is not None:
        return ContentPart(type="text", text=part.text)
    if part.type == "refusal" and part.refusal is not None:
        return ContentPart(type="refusal", refusal=part.refusal)
    what = "this service reads parts of type 'input_text' and 'output_text' with a text"
    raise wrong_at(place, f"{what}; this one is of type {part.type[:40]!r}")
