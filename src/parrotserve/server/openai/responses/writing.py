"""Writing responses, from a finished answer or from pieces of an unfinished one."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from parrotserve.errors import Cancelled, ParrotError, RequestFailed
from parrotserve.protocol import Delta, ErrorBody, Value
from parrotserve.sampling import FinishReason, TokenLogprob, Usage
from parrotserve.server.errors import internal_error
from parrotserve.server.openai.answers import Answer, TokenLogprobAnswer
from parrotserve.server.openai.errors import in_openais_words
from parrotserve.server.openai.logprobs import chat_logprobs
from parrotserve.server.openai.reading import Reading, read
from parrotserve.server.openai.responses.answers import (
    FunctionCallItem,
    IncompleteDetails,
    MessageItem,
    OutputItem,
    OutputText,
    ResponseAnswer,
    ResponseError,
    ResponseEvent,
    ResponseUsage,
    Status,
)
from parrotserve.server.openai.responses.kept import PREFIX
from parrotserve.server.openai.responses.wire import ResponsesRequest
from parrotserve.server.openai.submissions import Submission
from parrotserve.server.openai.tools import ToolCall, tool_call_id
from parrotserve.server.openai.writing import Writer


class ResponseWriter(Writer):
    """Writes answers of `/v1/responses`."""

    def __init__(
        self,
        submission: Submission,
        body: ResponsesRequest,
        *,
        created: int | None = None,
        completed: Callable[[], None] | None = None,
    ) -> None:
        """`completed` is called when the answer is complete."""
        super().__init__(
            submission,
            prefix=PREFIX,
            include_usage=True,
            tell_parrot=body.parrot is not None,
            created_field="created_at",
            created=created,
        )
        self._completed = completed
        self._head |= _echoed(body, kept=submission.origin.kept)
        self._logprobs = body.wants_logprobs
        self._numbers = count()
        self._reading = Reading(submission.tools)
        self._message: str | None = None
        """The text of the message so far; None: no message has begun."""
        self._held: list[TokenLogprob] = []
        """Log-probabilities that are told with the text that comes next."""
        self._ended: dict[str, Any] = {}
        """Fields of the finished response."""

    # --- In one piece ----------------------------------------------------------------------------------------

    def whole(self, values: Sequence[Value], used: Sequence[Usage]) -> ResponseAnswer:
        """The response; in progress if it is not waited for."""
        for value in values:
            content, calls = read(value.value, self.submission.tools)
            items = self._items(content, calls, value)
            return self._complete({**_end_of(value), "output": items}, used)
        return self._response(status="in_progress", output=[])

    def failed(self, error: ParrotError) -> ResponseAnswer:
        """The response to a request that failed."""
        code = "invalid_prompt" if error.status < 500 and isinstance(error, RequestFailed) else "server_error"
        return self._response(status="failed", output=[], error=ResponseError(code=code, message=error.message))

    # --- In pieces -------------------------------------------------------------------------------------------

    def begin(self, choice: int) -> list[Answer]:
        """The response without its answer."""
        begun = self._response(status="in_progress", output=[])
        return [self._event("response.created", response=begun), self._event("response.in_progress", response=begun)]

    def grow(self, choice: int, delta: Delta) -> list[Answer]:
        """More of the message, as far as it cannot turn out to be a function call."""
        self._told[choice] += len(delta.logprobs)
        self._held += delta.logprobs
        new = self._reading.grow(delta.text)
        return self._more(new) if new else []

    def finish(self, choice: int, value: Value) -> list[Answer]:
        """The end of the message, and function calls."""
        self._held += self._untold(choice, value).logprobs
        rest, calls = self._reading.finish(value.value)
        items = self._items((self._message or "") + rest, calls, value)
        self._ended = {**_end_of(value), "output": items}
        events: list[Answer] = []
        for index, item in enumerate(items):
            if isinstance(item, FunctionCallItem):
                events += self._called(index, item)
            else:
                events += self._more(rest)
                events += self._said(item)
        return events

    def total(self, used: Sequence[Usage]) -> list[Answer]:
        """The finished response."""
        whole = self._complete(self._ended, used)
        return [self._event(f"response.{whole.status}", response=whole)]

    def fail(self, error: Exception) -> list[Answer]:
        """What went wrong: with the request, as its response; with the service, as an event of its own."""
        if isinstance(error, RequestFailed | Cancelled):
            return [self._event("response.failed", response=self.failed(error))]
        known = isinstance(error, ParrotError)
        body, status = (ErrorBody.of(error), error.status) if known else (internal_error(error), 500)
        told = in_openais_words(body, status=status).error
        return [self._event("error", code=told.code, message=told.message, param=told.param)]

    def _more(self, text: str) -> list[Answer]:
        """Events of more text, if it is more; if no message has begun, it begins one."""
        events: list[Answer] = []
        place: dict[str, Any] = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        if self._message is None:
            self._message = ""
            item = MessageItem(id=self._message_id, type="message", status="in_progress", role="assistant", content=[])
            events.append(self._event("response.output_item.added", output_index=0, item=item))
            events.append(self._event("response.content_part.added", **place, part=_text("", [])))
        self._message += text
        logprobs = self._logprobs_of(self._held)
        self._held = []
        if text or logprobs:
            events.append(self._event("response.output_text.delta", **place, delta=text, logprobs=logprobs))
        return events

    def _said(self, item: MessageItem) -> list[Answer]:
        """Events of a complete message."""
        (part,) = item.content
        place: dict[str, Any] = {"item_id": item.id, "output_index": 0, "content_index": 0}
        return [
            self._event("response.output_text.done", **place, text=part.text, logprobs=part.logprobs),
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=0, item=item),
        ]

    def _called(self, index: int, item: FunctionCallItem) -> list[Answer]:
        """Events of a function call."""
        place: dict[str, Any] = {"item_id": item.id, "output_index": index}
        begun = item.model_copy(update={"status": "in_progress", "arguments": ""})
        done = {"name": item.name, "arguments": item.arguments}
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.function_call_arguments.delta", **place, delta=item.arguments),
            self._event("response.function_call_arguments.done", **place, **done),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    # --- Parts -----------------------------------------------------------------------------------------------

    @property
    def _message_id(self) -> str:
        return f"msg_{self.submission.origin.base}"

    def _items(self, content: str | None, calls: Sequence[ToolCall], value: Value) -> list[OutputItem]:
        """The message, which is left out if there are only calls, and the calls."""
        items: list[OutputItem] = []
        if content or not calls:
            part = _text(content or "", self._logprobs_of(value.logprobs))
            status = _end_of(value)["status"]
            items.append(
                MessageItem(id=self._message_id, type="message", status=status, role="assistant", content=[part])
            )
        for number, call in enumerate(calls):
            identity = tool_call_id(self.submission.origin.base, 0, number)
            items.append(
                FunctionCallItem(
                    id=f"fc_{identity}",
                    type="function_call",
                    status="completed",
                    call_id=identity,
                    name=call.name,
                    arguments=call.arguments,
                )
            )
        return items

    def _logprobs_of(self, tokens: Sequence[TokenLogprob]) -> list[TokenLogprobAnswer]:
        return chat_logprobs(tokens, self.submission.asked.tokenizer).content if self._logprobs else []

    def _complete(self, ended: dict[str, Any], used: Sequence[Usage]) -> ResponseAnswer:
        if self._completed is not None:
            self._completed()
        return self._response(**ended, usage=ResponseUsage.of(self.usage(used)))

    def _response(self, **fields: Any) -> ResponseAnswer:
        return ResponseAnswer(**_UNSAID | self._head | fields)

    def _event(self, kind: str, **fields: Any) -> ResponseEvent:
        return ResponseEvent(type=kind, sequence_number=next(self._numbers), **fields)


_UNSAID: dict[str, Any] = {
    "object": "response",
    "background": False,
    "error": None,
    "incomplete_details": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "truncation": "disabled",
    "usage": None,
}
"""Fields that most responses have alike. They are set, because fields that are left unset are not told."""


def _end_of(value: Value) -> dict[str, Any]:
    """The status of a response with this answer."""
    cut_off = value.reason is FinishReason.LENGTH
    status: Status = "incomplete" if cut_off else "completed"
    return {"status": status, "incomplete_details": IncompleteDetails(reason="max_output_tokens") if cut_off else None}


def _text(text: str, logprobs: list[TokenLogprobAnswer]) -> OutputText:
    return OutputText(type="output_text", text=text, annotations=[], logprobs=logprobs)


def _echoed(body: ResponsesRequest, *, kept: bool) -> dict[str, Any]:
    """What a response repeats of its request, with defaults."""
    given = body.model_dump(include={"tool_choice", "text"}, exclude_none=True, by_alias=True)
    tools = [
        {"description": None, "parameters": None} | tool.model_dump(exclude_none=True) | {"strict": tool.is_strict}
        for tool in body.tools or ()
    ]
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "safety_identifier": body.safety_identifier,
        "store": kept,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"}} | given.get("text", {}),
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": tools,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "user": body.user,
    }
