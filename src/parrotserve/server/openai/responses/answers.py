"""Responses, and the events of their streams, as OpenAI's clients read them."""

from typing import Any, Literal

from pydantic import JsonValue

from parrotserve.server.openai.answers import Answer, ParrotAnswer, TokenLogprobAnswer, UsageAnswer

Status = Literal["completed", "incomplete", "in_progress", "failed"]


class OutputText(Answer):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[JsonValue]
    """Always empty: there are no files and no web pages to cite."""
    logprobs: list[TokenLogprobAnswer]


class MessageItem(Answer):
    """What the model said."""

    id: str
    type: Literal["message"] = "message"
    status: Status
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class FunctionCallItem(Answer):
    """A function call that the model wants made; `arguments` is JSON."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = MessageItem | FunctionCallItem


class InputTokensDetails(Answer):
    """Of the input's tokens, those whose KV was in the cache already, and those for which it was computed."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Answer):
    """Reasoning is part of the text here, and not counted apart."""

    reasoning_tokens: int


class ResponseUsage(Answer):
    """What a response used."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, used: UsageAnswer) -> "ResponseUsage":
        """The same in the words of responses."""
        cached = used.prompt_tokens_details.cached_tokens
        return cls(
            input_tokens=used.prompt_tokens,
            input_tokens_details=InputTokensDetails(
                cached_tokens=cached, cache_write_tokens=used.prompt_tokens - cached
            ),
            output_tokens=used.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            total_tokens=used.total_tokens,
        )


class IncompleteDetails(Answer):
    """Why an answer ended early."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(Answer):
    """Why there is no answer."""

    code: Literal["server_error", "invalid_prompt"]
    message: str


class ResponseAnswer(Answer):
    """A response: the answer with what was asked for."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, None]
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    """Whether it can be asked for, and continued."""
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None
    parrot: ParrotAnswer | None = None


class ResponseEvent(Answer):
    """An event of a stream. Which of the fields it has depends on its type."""

    type: str
    sequence_number: int
    response: ResponseAnswer | None = None
    output_index: int | None = None
    content_index: int | None = None
    item_id: str | None = None
    item: OutputItem | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprobAnswer] | None = None
    name: str | None = None
    arguments: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None

    @property
    def event_name(self) -> str | None:
        """See `Answer`."""
        return self.type


class Deletion(Answer):
    """What is told of a response that was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(Answer):
    """A page of the items that a response was made of."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
