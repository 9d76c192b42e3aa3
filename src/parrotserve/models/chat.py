"""Flattening a request's segments into the prompt that a model reads, by rendering its chat template.

The template is rendered once, with a mark in place of every segment: constant text, inputs and outputs alike.
Splitting the result at the marks separates what the template wrote, where special tokens count, from what the program
or its users wrote, where they are plain text. The values of inputs need not be known for this.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from parrotserve.errors import TemplateError
from parrotserve.models.chat_template import ChatTemplate, Message, bad_kwargs, load_chat_template
from parrotserve.segments import Input, Output, Role, RoleSwitch, Segment, Text

__all__ = ["ChatTemplate", "Flat", "load_chat_template", "render"]

Flat = Text | Input | Output
"""A segment that is not a role marker."""

_SECRET = secrets.token_hex(8)
"""New in each process, because the template also reads what clients wrote (names, tools and calls of tools), which
must not contain a mark."""
_MARK = f"x{_SECRET}x{{}}x"
_MARKED = re.compile(rf"x{_SECRET}x(\d+)x")


@dataclass(slots=True)
class _Turn:
    role: Role
    explicit: bool
    """Whether a role marker opened it; such a turn stays open after an output."""
    pieces: list[Flat] = field(default_factory=list[Flat])
    verbatim: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


def render(
    segments: Sequence[Segment],
    *,
    template: ChatTemplate | None,
    chat: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Flat, ...]:
    """The segments as the model is to read them, up to the last output; what follows it has no effect.

    Without role markers, text and inputs before an output are a turn of the user, and the output is one of the
    assistant. Markers switch roles; an output in a turn of another role opens one of the assistant. White space of
    constant text is stripped at both ends of a turn that is not verbatim. With `chat` False, or without a template, the
    raw text is the prompt and role markers are ignored. `chat_template_kwargs` are variables of the template.

    Raises `TemplateError` if the model's template does not allow such a conversation or does not read such variables.
    """
    if tools and not (chat and template is not None and template.takes_tools):
        raise TemplateError(
            "The model's chat template does not support tools: leave them out, or use a model that does."
        )
    if chat_template_kwargs:
        if template is None or not chat:
            raise bad_kwargs(
                "There is no chat template that would read chat_template_kwargs: leave them out, or use a model that "
                "has one."
            )
        template.check_kwargs(chat_template_kwargs)
    needed = _up_to_last_output(segments)
    if template is None or not chat:
        return tuple(segment for segment in needed if not isinstance(segment, RoleSwitch))
    turns = [turn for turn in map(_stripped, _turns(needed)) if turn.pieces or turn.verbatim]
    opening = _opening(turns)
    marks: list[Flat] = []
    messages = [_message(turn, marks) for turn in turns]
    opens = opening is not None
    write = partial(template.render, messages, tools=tools, chat_template_kwargs=chat_template_kwargs)
    rendered = write(add_generation_prompt=opens)
    if answers := _answers(turns):
        closed = write(add_generation_prompt=False)
        rendered = _opened(rendered, answers, rendered[len(closed) :] if rendered.startswith(closed) else "")
    told = _split(rendered, marks)
    if tools or chat_template_kwargs or any(turn.extra for turn in turns):
        told = _private(told, _without_extras(template, messages, marks, add_generation_prompt=opens))
    return (*told, *(opening or ()))


def _up_to_last_output(segments: Sequence[Segment]) -> Sequence[Segment]:
    outputs = [index for index, segment in enumerate(segments) if isinstance(segment, Output)]
    return segments[: outputs[-1] + 1] if outputs else segments


def _turns(segments: Sequence[Segment]) -> Iterator[_Turn]:
    turn = _Turn(Role.USER, explicit=False)
    for segment in segments:
        if isinstance(segment, RoleSwitch):
            yield turn
            turn = _Turn(segment.role, explicit=True, verbatim=segment.verbatim, extra=segment.extra)
            continue
        if isinstance(segment, Output):
            if turn.role is not Role.ASSISTANT or _answered(turn):
                yield turn
                turn = _Turn(Role.ASSISTANT, explicit=False)
        elif _answered(turn):
            yield turn
            turn = _Turn(Role.USER, explicit=False)
        turn.pieces.append(segment)
    yield turn


def _answered(turn: _Turn) -> bool:
    """Whether it is an assistant's turn that an output opened and therefore also ended."""
    return not turn.explicit and turn.role is Role.ASSISTANT


def _stripped(turn: _Turn) -> _Turn:
    if turn.verbatim:
        return turn
    pieces = list(turn.pieces)
    while pieces and isinstance(first := pieces[0], Text) and not first.tokens:
        pieces[0] = Text(first.text.lstrip())
        if pieces[0].text:
            break
        pieces.pop(0)
    while pieces and isinstance(last := pieces[-1], Text) and not last.tokens:
        pieces[-1] = Text(last.text.rstrip())
        if pieces[-1].text:
            break
        pieces.pop()
    return replace(turn, pieces=pieces)


def _opening(turns: list[_Turn]) -> list[Flat] | None:
    """Remove the last turn if it ends with an output, for the model to write, and return its pieces."""
    if turns and turns[-1].pieces and isinstance(turns[-1].pieces[-1], Output):
        return turns.pop().pieces
    return None


def _message(turn: _Turn, marks: list[Flat]) -> Message:
    content = ""
    for piece in turn.pieces:
        content += _MARK.format(len(marks))
        marks.append(piece)
    return cast("Message", {"role": turn.role.value, "content": content, **turn.extra})


def _answers(turns: Iterable[_Turn]) -> list[int]:
    """The marks at which turns begin that the model is to write, wholly or in part."""
    starts: list[int] = []
    mark = 0
    for turn in turns:
        if any(isinstance(piece, Output) for piece in turn.pieces):
            starts.append(mark)
        mark += len(turn.pieces)
    return starts


def _opened(rendered: str, answers: Iterable[int], opening: str) -> str:
    """With all that opens an answer before each: of one that was given, as all but the last look to the template, some
    tell less (Qwen3 without thinking, DeepSeek)."""
    for number in answers:
        before, mark, after = rendered.partition(_MARK.format(number))
        begun = next((n for n in range(len(opening), 0, -1) if before.endswith(opening[:n])), 0)
        if opening[:begun].strip():
            rendered = f"{before}{opening[begun:]}{mark}{after}"
    return rendered


def _without_extras(
    template: ChatTemplate, messages: Sequence[Message], marks: list[Flat], *, add_generation_prompt: bool
) -> Sequence[Flat]:
    """What the template makes of the texts alone; nothing, where it makes nothing of them."""
    texts: list[Message] = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return tuple(_split(template.render(texts, add_generation_prompt=add_generation_prompt), marks))
    except TemplateError:
        return ()


def _private(told: Iterable[Flat], plain: Sequence[Flat]) -> Iterator[Flat]:
    """What was told, marked from where it differs from what the template makes of the texts alone."""
    alike = True
    for index, piece in enumerate(told):
        alike = alike and index < len(plain) and piece == plain[index]
        yield replace(piece, private=True) if isinstance(piece, Text) and piece.template and not alike else piece


def _split(rendered: str, marks: list[Flat]) -> Iterator[Flat]:
    """What the template wrote, as `Text(template=True)`, with the pieces in place of their marks."""
    seen: set[int] = set()
    for index, part in enumerate(_MARKED.split(rendered)):
        if index % 2 == 0:
            if part:
                yield Text(part, template=True)
            continue
        number = int(part)
        if number in seen and isinstance(marks[number], Output):
            raise TemplateError("The model's chat template writes an answer twice; use chat=False.")
        seen.add(number)
        yield marks[number]
    if len(seen) < len(marks):
        raise TemplateError(
            "The model's chat template leaves out a part of this conversation; use other roles, or chat=False."
        )
