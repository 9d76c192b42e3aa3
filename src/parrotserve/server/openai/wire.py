"""Bodies of requests to the OpenAI-compatible API.

Types are strict, as OpenAI's are. Fields that are not known here are ignored, because clients send such that only
concern OpenAI's own service (`store`, `metadata`, `service_tier`, ...); what would change the answer and cannot be
honoured is refused, not ignored.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from parrotserve.server.openai.extension import ParrotObject
from parrotserve.server.problems import misfit

MOST_CHOICES = 128
"""Of one prompt."""
MOST_TEXTS = 1024
"""Of one request: choices of all its prompts."""

T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""See `protocol.Many`."""
Token = Annotated[int, Field(ge=0, lt=2**31)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


_BY_SCHEMA = "use response_format of /v1/chat/completions, with a json_schema"
_REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "structured_outputs",
            "json_schema",
            "grammar",
            "regex",
            "ebnf",
        ),
        _BY_SCHEMA,
    ),
    "stop_token_ids": "use stop, with texts",
    "include_stop_str_in_output": "a text ends before what it stopped at",
    "bad_words": "use logit_bias",
    "allowed_token_ids": "use logit_bias",
    "logits_processors": "use logit_bias",
    "prompt_logprobs": "there are log-probabilities of what is written only",
    "truncate_prompt_tokens": "shorten the prompt",
    "repeat_penalty": "use repetition_penalty",
    "use_beam_search": "use n, and a temperature above 0",
    "length_penalty": "it is for beam search; use n, and a temperature above 0",
}
"""Of other servers that speak OpenAI's API."""
_NEUTRAL: dict[str, Any] = {
    "length_penalty": 1,
    "repeat_penalty": 1,
    "truncate_prompt_tokens": -1,
    "response_format": {"type": "text"},
}
"""What changes nothing, where that is not nothing."""


class Body(BaseModel):
    """Base: frozen, strict, and open to fields of later versions."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class StreamOptions(Body):
    """What a stream has besides text."""

    include_usage: bool | None = None


class Generation(Body):
    """What both kinds of request have in common."""

    refused: ClassVar[dict[str, str]] = _REFUSED
    """Fields that only their neutral values may have, and what to do instead."""

    model: str | None = None
    """A name of `/v1/models`; none is the service's default."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | Many[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[TokenKey, Annotated[float, Field(ge=-100, le=100)]] | None = None
    user: str | None = None
    """For OpenAI's own service; not used."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """This and the following four are not OpenAI's, but those of other servers that speak its API."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    parrot: ParrotObject | None = None

    @model_validator(mode="before")
    @classmethod
    def _nothing_refused(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, why in cls.refused.items():
                if data.get(name) not in (None, [], {}, False, "", "none", _NEUTRAL.get(name)):
                    raise misfit(name, f"it is not supported: {why}")
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise misfit("stream_options", "it is for streams only: set stream=true")
        if self.parrot is not None and self.parrot.output is not None and (self.n or 1) > 1:
            raise misfit("n", "it must be 1, for a named output is one text")
        if self.parrot is not None and not self.parrot.wait and self.stream:
            raise misfit("stream", "there is nothing to stream where parrot.wait is false")
        return self

    @property
    def choices(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    @property
    def texts(self) -> int:
        """How many answers in all."""
        return self.choices

    @property
    def extension(self) -> ParrotObject:
        """The `parrot` object, or what its absence means."""
        return self.parrot or ParrotObject()


# --- Chat ---------------------------------------------------------------------------------------------------


class ContentPart(Body):
    """A part of a message; of all kinds, text is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Body):
    """What an assistant's message says of a call that it made; `arguments` is JSON."""

    name: str
    arguments: str


class CalledTool(Body):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Many[ContentPart] | None = None
    refusal: str | None = None
    """What an assistant's message without content says instead."""
    name: str | None = None
    tool_calls: Many[CalledTool] | None = None
    tool_call_id: str | None = None


class FunctionSpec(Body):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(Body):
    """A tool that the model may call; of all kinds, functions are served."""

    type: Literal["function"]
    function: FunctionSpec


class ChosenFunction(Body):
    """The function of a `ChosenTool`."""

    name: str


class ChosenTool(Body):
    """The tool that the model has to call."""

    type: Literal["function"]
    function: ChosenFunction


class JsonSchema(Body):
    """The schema of a `json_schema` response format."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Body):
    """What form the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Generation):
    """Body of POST /v1/chat/completions."""

    refused = {
        **_REFUSED,
        "functions": "use tools",
        "function_call": "use tool_choice",
        "audio": "this service writes text only",
        "web_search_options": "this service does not search the web",
        "continue_final_message": "the answer is a turn of its own; use /v1/completions to go on with a text",
        "chat_template": "the model's own is used",
        "chat_template_kwargs": "the model's chat template is used as it is",
        "documents": "put them into messages",
    }

    messages: Many[ChatMessage]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[Many[ToolSpec], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    """False: an answer ends with its first call."""
    modalities: Many[str] | None = None

    @model_validator(mode="after")
    def _is_a_conversation(self) -> Self:
        if not self.messages and self.extension.get is None:
            raise misfit("messages", "there is none; a conversation has at least one")
        if self.messages and self.extension.get is not None:
            raise misfit("messages", "leave it empty, for parrot.get asks for an output that was declared before")
        if self.top_logprobs is not None and not self.logprobs:
            raise misfit("top_logprobs", "it needs logprobs=true")
        if set(self.modalities or ()) - {"text"}:
            raise misfit("modalities", "text is the only one here")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise misfit("tool_choice", "it needs tools")
        return self


# --- Completions --------------------------------------------------------------------------------------------


class CompletionRequest(Generation):
    """Body of POST /v1/completions."""

    refused = {
        **_REFUSED,
        "suffix": "models here write on from a prompt, and cannot fill in",
        "response_format": "use /v1/chat/completions",
    }

    prompt: str | Many[str] | Many[Token] | Many[Many[Token]] | None = None
    """Texts, or tokens of the model as they are."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _can_be_completed(self) -> Self:
        if self.prompt is None and self.extension.get is None:
            raise misfit("prompt", "Field required")
        if self.prompt is not None and self.extension.get is not None:
            raise misfit("prompt", "leave it out, for parrot.get asks for an output that was declared before")
        if self.best_of is not None and self.best_of != self.choices:
            raise misfit("best_of", "it must equal n, for this service gives every text that it writes")
        if self.echo and self.logprobs is not None:
            raise misfit("echo", "it is not supported with logprobs, for there are none of a prompt's tokens")
        if not self.prompts and self.extension.get is None:
            raise misfit("prompt", "it is an empty list")
        if self.texts > MOST_TEXTS:
            raise misfit("n", f"n times the number of prompts is above {MOST_TEXTS}")
        if len(self.prompts) > 1 and self.extension.output is not None:
            raise misfit("prompt", "it must be one text, for a named output is one")
        return self

    @property
    def texts(self) -> int:
        """How many answers in all: to each prompt so many."""
        return len(self.prompts) * self.choices

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one."""
        prompt = self.prompt
        if prompt is None:
            return []
        if isinstance(prompt, str):
            return [prompt]
        tokens = [item for item in prompt if isinstance(item, int)]
        return [tokens] if tokens else [item for item in prompt if not isinstance(item, int)]
