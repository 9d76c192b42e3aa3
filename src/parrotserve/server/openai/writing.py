"""Writing answers, from finished choices or from pieces of unfinished ones: one writer for each of the two APIs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from parrotserve.protocol import Delta, Value
from parrotserve.sampling import FinishReason, Usage
from parrotserve.server.openai.answers import (
    Answer,
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    FunctionCallAnswer,
    ParrotAnswer,
    ToolCallAnswer,
    UsageAnswer,
)
from parrotserve.server.openai.logprobs import Offsets, chat_logprobs, completion_logprobs
from parrotserve.server.openai.reading import Reading, read
from parrotserve.server.openai.submissions import Submission
from parrotserve.server.openai.tools import ToolCall, tool_call_id
from parrotserve.server.openai.wire import ChatRequest, CompletionRequest


class Writer(ABC):
    """Writes the answer to one submission."""

    def __init__(
        self,
        submission: Submission,
        *,
        prefix: str,
        include_usage: bool,
        tell_parrot: bool,
        created_field: str = "created",
        created: int | None = None,
    ) -> None:
        self.submission = submission
        self.include_usage = include_usage
        """Whether a stream reports usage."""
        self._told = [0] * len(submission.variables)
        """Number of tokens of each choice whose log-probabilities were streamed."""
        # All chunks of an answer, and answers to repetitions of the request, have the same id.
        self._head: dict[str, Any] = {
            "id": f"{prefix}{submission.origin.base}",
            created_field: int(time.time()) if created is None else created,
            "model": submission.asked.model.name,
        }
        if tell_parrot:
            self._head["parrot"] = ParrotAnswer(
                session=submission.origin.session,
                request=next(iter(submission.requests), None),
                output=submission.output,
                variable=submission.variables[0],
            )

    def usage(self, used: Sequence[Usage]) -> UsageAnswer:
        """The usage of the submission."""
        return UsageAnswer.of(list(used), choices=self.submission.choices)

    @abstractmethod
    def whole(self, values: Sequence[Value], used: Sequence[Usage]) -> Answer:
        """The answer in one piece; without choices if it is not waited for."""

    @abstractmethod
    def begin(self, choice: int) -> list[Answer]:
        """The first chunks of a streamed choice."""

    @abstractmethod
    def grow(self, choice: int, delta: Delta) -> list[Answer]:
        """The chunks for new text of a streamed choice."""

    @abstractmethod
    def finish(self, choice: int, value: Value) -> list[Answer]:
        """The last chunks of a streamed choice, which is complete."""

    @abstractmethod
    def total(self, used: Sequence[Usage]) -> list[Answer]:
        """The last chunks of the stream."""

    def fail(self, error: Exception) -> list[Answer]:
        """The last chunks of a stream that an error ends; none if the form has no chunks for that."""
        return []

    def _untold(self, choice: int, value: Value) -> Value:
        """A complete choice with only those log-probabilities that were not streamed yet: all of them if it was
        complete before anybody streamed it."""
        return value.model_copy(update={"logprobs": value.logprobs[self._told[choice] :]})

    def _chunk(self, *, usage: UsageAnswer | None = None) -> dict[str, Any]:
        """The common fields of a chunk. If usage is asked for, chunks without it have null there."""
        return self._head | ({"usage": usage} if self.include_usage else {})


class ChatWriter(Writer):
    """Writes answers of `/v1/chat/completions`."""

    def __init__(self, submission: Submission, body: ChatRequest) -> None:
        super().__init__(
            submission, prefix="chatcmpl-", include_usage=_wants_usage(body), tell_parrot=body.parrot is not None
        )
        self._logprobs = bool(body.logprobs)
        self._readings = [Reading(submission.tools) for _ in submission.variables]

    def whole(self, values: Sequence[Value], used: Sequence[Usage]) -> ChatCompletion:
        """The next message of the conversation, in each choice."""
        choices = [self._choice(index, value) for index, value in enumerate(values)]
        return ChatCompletion(**self._head, object="chat.completion", choices=choices, usage=self.usage(used))

    def begin(self, choice: int) -> list[Answer]:
        """The role."""
        return [self._piece(choice, ChatDelta(role="assistant", content=""))]

    def grow(self, choice: int, delta: Delta) -> list[Answer]:
        """More of the message, as far as it cannot turn out to be a tool call."""
        self._told[choice] += len(delta.logprobs)
        new = self._readings[choice].grow(delta.text)
        logprobs = self._logprobs_of(delta)
        return [self._piece(choice, ChatDelta(content=new), logprobs=logprobs)] if new or logprobs else []

    def finish(self, choice: int, value: Value) -> list[Answer]:
        """The text that was held back, tool calls, and the finish reason."""
        rest, calls = self._readings[choice].finish(value.value)
        pieces: list[Answer] = []
        untold = self._untold(choice, value)
        if rest or untold.logprobs:
            pieces.append(self._piece(choice, ChatDelta(content=rest), logprobs=self._logprobs_of(untold)))
        if calls:
            told = self._tool_calls(choice, calls, numbered=True)
            pieces.append(self._piece(choice, ChatDelta(tool_calls=told)))
        pieces.append(self._piece(choice, ChatDelta(), reason=_reason(value, calls)))
        return pieces

    def total(self, used: Sequence[Usage]) -> list[Answer]:
        """The usage, if that was asked for."""
        if not self.include_usage:
            return []
        frame = self._chunk(usage=self.usage(used))
        return [ChatCompletionChunk(**frame, object="chat.completion.chunk", choices=[])]

    def _choice(self, index: int, value: Value) -> ChatChoice:
        content, calls = read(value.value, self.submission.tools)
        fields: dict[str, Any] = {"tool_calls": self._tool_calls(index, calls)} if calls else {}
        message = AssistantMessage(role="assistant", content=content, refusal=None, **fields)
        logprobs = self._logprobs_of(value)
        return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=_reason(value, calls))

    def _tool_calls(self, choice: int, calls: Sequence[ToolCall], *, numbered: bool = False) -> list[ToolCallAnswer]:
        return [
            ToolCallAnswer(
                id=tool_call_id(self.submission.origin.base, choice, number),
                type="function",
                function=FunctionCallAnswer(name=call.name, arguments=call.arguments),
                **({"index": number} if numbered else {}),
            )
            for number, call in enumerate(calls)
        ]

    def _logprobs_of(self, told: Delta | Value) -> ChatLogprobs | None:
        return chat_logprobs(told.logprobs, self.submission.asked.tokenizer) if self._logprobs else None

    def _piece(
        self, choice: int, delta: ChatDelta, *, logprobs: ChatLogprobs | None = None, reason: str | None = None
    ) -> ChatCompletionChunk:
        new = ChatChunkChoice(index=choice, delta=delta, logprobs=logprobs, finish_reason=reason)
        return ChatCompletionChunk(**self._chunk(), object="chat.completion.chunk", choices=[new])


class CompletionWriter(Writer):
    """Writes answers of `/v1/completions`."""

    def __init__(self, submission: Submission, body: CompletionRequest) -> None:
        super().__init__(
            submission, prefix="cmpl-", include_usage=_wants_usage(body), tell_parrot=body.parrot is not None
        )
        self._top = body.logprobs
        self._offsets = [Offsets() for _ in submission.variables]

    def whole(self, values: Sequence[Value], used: Sequence[Usage]) -> Completion:
        """The text of each choice."""
        choices = [self._choice(index, value) for index, value in enumerate(values)]
        return Completion(**self._head, object="text_completion", choices=choices, usage=self.usage(used))

    def begin(self, choice: int) -> list[Answer]:
        """The prompt, if it is to be repeated."""
        return [self._piece(choice, self.submission.prompts[choice])] if self.submission.prompts else []

    def grow(self, choice: int, delta: Delta) -> list[Answer]:
        """More of the text."""
        self._told[choice] += len(delta.logprobs)
        logprobs = self._logprobs_of(delta, self._offsets[choice])
        return [self._piece(choice, delta.text, logprobs=logprobs)]

    def finish(self, choice: int, value: Value) -> list[Answer]:
        """The finish reason."""
        untold = self._untold(choice, value)
        logprobs = self._logprobs_of(untold, self._offsets[choice]) if untold.logprobs else None
        return [self._piece(choice, "", logprobs=logprobs, reason=_reason(value))]

    def total(self, used: Sequence[Usage]) -> list[Answer]:
        """The usage, if that was asked for."""
        if not self.include_usage:
            return []
        return [Completion(**self._chunk(usage=self.usage(used)), object="text_completion", choices=[])]

    def _choice(self, index: int, value: Value) -> CompletionChoice:
        prompt = self.submission.prompts[index] if self.submission.prompts else ""
        return CompletionChoice(
            index=index,
            text=prompt + value.value,
            logprobs=self._logprobs_of(value, Offsets()),
            finish_reason=_reason(value),
        )

    def _logprobs_of(self, told: Delta | Value, offsets: Offsets) -> CompletionLogprobs | None:
        if self._top is None:
            return None
        return completion_logprobs(told.logprobs, self.submission.asked.tokenizer, offsets=offsets, top=self._top > 0)

    def _piece(
        self, choice: int, text: str, *, logprobs: CompletionLogprobs | None = None, reason: str | None = None
    ) -> Completion:
        new = CompletionChoice(index=choice, text=text, logprobs=logprobs, finish_reason=reason)
        return Completion(**self._chunk(), object="text_completion", choices=[new])


def _wants_usage(body: ChatRequest | CompletionRequest) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _reason(value: Value, calls: Sequence[ToolCall] = ()) -> Literal["stop", "length", "tool_calls"]:
    if value.reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if calls else "stop"
