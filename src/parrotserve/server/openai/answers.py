"""Answers of the OpenAI-compatible API, as OpenAI's clients read them.

Fields that are left unset are left out; those that clients expect to be there are set, to null if need be.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from parrotserve.sampling import Usage


class Answer(BaseModel):
    """Base."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @property
    def event_name(self) -> str | None:
        """What an event with it is called in a stream; None if events have no names."""
        return None


class PromptTokensDetails(Answer):
    """Of the prompt's tokens, those whose KV was in the cache already."""

    cached_tokens: int


class UsageAnswer(Answer):
    """What a request used; the tokens of a prompt count once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, used: list[Usage], *, choices: int) -> "UsageAnswer":
        """The sum over prompts; each has the usage of so many consecutive choices."""
        prompts = [used[start : start + choices] for start in range(0, len(used), choices)]
        prompt = sum(max(one.prompt_tokens for one in group) for group in prompts)
        cached = sum(min(one.cached_tokens for one in group) for group in prompts)
        output = sum(one.output_tokens for one in used)
        return cls(
            prompt_tokens=prompt,
            completion_tokens=output,
            total_tokens=prompt + output,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
        )


class ParrotAnswer(Answer):
    """Where the answer is in its session."""

    session: str
    request: str | None = None
    """Of the first choice."""
    output: str | None = None
    """The name of what is produced."""
    variable: str
    """Its id, for `/v1/sessions/{session}/variables/{variable}`."""


class TopLogprob(Answer):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobAnswer(TopLogprob):
    """A token that was chosen."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    """The tokens of an answer."""

    content: list[TokenLogprobAnswer]
    refusal: None = None


class CompletionLogprobs(Answer):
    """The tokens of a completion, field by field."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


# --- Chat ---------------------------------------------------------------------------------------------------


class FunctionCallAnswer(Answer):
    """The function that is called, with its arguments as JSON."""

    name: str
    arguments: str


class ToolCallAnswer(Answer):
    """A tool call that the model wants made."""

    index: int | None = None
    """In chunks only."""
    id: str
    type: Literal["function"] = "function"
    function: FunctionCallAnswer


class AssistantMessage(Answer):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCallAnswer] | None = None


class ChatChoice(Answer):
    """One answer to the conversation."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(Answer):
    """The answer to a chat request."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageAnswer
    parrot: ParrotAnswer | None = None


class ChatDelta(Answer):
    """What is new of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


class ChatChunkChoice(Answer):
    """What is new of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatCompletionChunk(Answer):
    """One event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: UsageAnswer | None = None
    parrot: ParrotAnswer | None = None


# --- Completions --------------------------------------------------------------------------------------------


class CompletionChoice(Answer):
    """One text that goes on from a prompt; of a stream, what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(Answer):
    """The answer to a completion request, or one event of it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageAnswer | None = None
    parrot: ParrotAnswer | None = None


class OpenAIErrorBody(Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str
    details: dict[str, str] = {}


class OpenAIError(Answer):
    """Every answer of this API that is an error."""

    error: OpenAIErrorBody


def as_json(answer: Answer) -> dict[str, Any]:
    """The answer as it is sent."""
    return answer.model_dump(mode="json", exclude_unset=True)


def json_text(value: Any, separators: tuple[str, str] | None = None) -> str:
    """A value as JSON that can be sent and stored."""
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write with an escape and UTF-8 cannot
        return json.dumps(value, separators=separators)
    return text
