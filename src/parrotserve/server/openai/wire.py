"""Bodies of requests to the OpenAI-compatible API.

Types are strict, as OpenAI's are. `refused` decides which unknown fields are refused and which are ignored.
"""

from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from parrotserve.server.openai.extension import ParrotObject
from parrotserve.server.openai.refused import OF_CHAT, OF_COMPLETIONS, not_served, refuse_what_is_not_there
from parrotserve.server.problems import misfit

MOST_CHOICES = 128
"""Most choices for one prompt."""
MOST_TEXTS = 1024
"""Most choices for all prompts of a request together."""

T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""See `protocol.Many`."""
Token = Annotated[int, Field(ge=0, lt=2**31)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


class Body(BaseModel):
    """Base: frozen, strict, and open to fields of later versions."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class Spelled(Body):
    """Refuses fields that are misspelt, most likely, and those that cannot be honoured."""

    refused: ClassVar[dict[str, str]] = {}
    """Fields that only their neutral values may have, and what to do instead."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_refused(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_what_is_not_there(cast("dict[str, Any]", data), cls.refused, _names_of(cls))
        return data


@cache
def _names_of(body: type[Body]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in body.model_fields.items())


class StreamOptions(Spelled):
    """What a stream has besides text."""

    refused = {"continuous_usage_stats": "usage comes at the end, with include_usage"}

    include_usage: bool | None = None


class Generation(Spelled):
    """What all kinds of request have in common."""

    model: str | None = None
    """A name of `/v1/models`; none is the service's default."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: str | Many[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[TokenKey, Annotated[float, Field(ge=-100, le=100)]] | None = None
    user: str | None = None
    """For OpenAI's own service; not used."""
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """All for -1 and 0. This and the following four are not OpenAI's, but those of other servers that speak its API."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None
    parrot: ParrotObject | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise misfit("stream_options", "it is for streams only: set stream=true")
        if self.parrot is not None and not self.parrot.wait and self.stream:
            raise misfit("stream", "there is nothing to stream where parrot.wait is false")
        return self

    @property
    def choices(self) -> int:
        """Number of answers to each prompt."""
        return 1

    @property
    def texts(self) -> int:
        """Number of answers in all."""
        return self.choices

    @property
    def extension(self) -> ParrotObject:
        """The `parrot` object, or its defaults."""
        return self.parrot or ParrotObject()


class SeveralChoices(Generation):
    """What chats and completions have in common: each prompt may have several answers."""

    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _has_one_text_for_a_name(self) -> Self:
        if self.extension.output is not None and self.choices > 1:
            raise misfit("n", "it must be 1, because a named output is a single text")
        return self

    @property
    def choices(self) -> int:
        """Number of answers to each prompt."""
        return self.n or 1


# --- Chat ---------------------------------------------------------------------------------------------------


class ContentPart(Body):
    """A part of a message; of all kinds, text is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class MessageFunctionCall(Body):
    """What an assistant's message says of the function that it called; `arguments` is JSON."""

    name: str
    arguments: str


class MessageToolCall(Body):
    """A tool call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: MessageFunctionCall


class ChatMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Many[ContentPart] | None = None
    refusal: str | None = None
    """What an assistant's message without content says instead."""
    name: str | None = None
    tool_calls: Many[MessageToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Annotated[Any, AfterValidator(not_served)] = None
    audio: Annotated[Any, AfterValidator(not_served)] = None


class FunctionSpec(Spelled):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


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


class AllowedFunctions(Body):
    """Those of the tools that the model may call, or has to."""

    mode: Literal["auto", "required"]
    tools: Annotated[Many[ChosenTool], Field(min_length=1)]


class AllowedTools(Body):
    """A choice among the tools, of which all are told."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedFunctions


ToolChoice = Annotated[ChosenTool | AllowedTools, Field(discriminator="type")]


class JsonSchema(Spelled):
    """The schema of a `json_schema` response format."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Spelled):
    """What form the answer has."""

    refused = {"schema": "use the type json_schema, and json_schema.schema"}

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.json_schema is not None and self.type != "json_schema":
            raise misfit("json_schema", "it needs the type json_schema")
        return self


class ChatRequest(SeveralChoices):
    """Body of POST /v1/chat/completions."""

    refused = OF_CHAT

    messages: Many[ChatMessage]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[Many[ToolSpec], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    """Variables of the model's chat template. Not OpenAI's, but other servers have it."""
    parallel_tool_calls: bool | None = None
    """False: an answer ends with its first call."""
    modalities: Many[str] | None = None

    @model_validator(mode="after")
    def _is_a_conversation(self) -> Self:
        if not self.messages and self.extension.get is None:
            raise misfit("messages", "it is empty; send at least one message")
        if self.messages and self.extension.get is not None:
            raise misfit("messages", "leave it empty, because parrot.get asks for an output that was declared before")
        if self.top_logprobs is not None and not self.logprobs:
            raise misfit("top_logprobs", "it needs logprobs=true")
        if set(self.modalities or ()) - {"text"}:
            raise misfit("modalities", "text is the only one here")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise misfit("tool_choice", "it needs tools")
        return self


# --- Completions --------------------------------------------------------------------------------------------


class CompletionRequest(SeveralChoices):
    """Body of POST /v1/completions."""

    refused = OF_COMPLETIONS

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
            raise misfit("prompt", "leave it out, because parrot.get asks for an output that was declared before")
        if self.best_of is not None and self.best_of != self.choices:
            raise misfit("best_of", "it must equal n, because this service returns every text that it writes")
        if self.echo and self.logprobs is not None:
            raise misfit("echo", "it is not supported with logprobs, because there are none for a prompt's tokens")
        if not self.prompts and self.extension.get is None:
            raise misfit("prompt", "it is an empty list")
        if self.texts > MOST_TEXTS:
            raise misfit("n", f"n times the number of prompts is above {MOST_TEXTS}")
        if len(self.prompts) > 1 and self.extension.output is not None:
            raise misfit("prompt", "it must be one text, because a named output is a single text")
        return self

    @property
    def texts(self) -> int:
        """Number of answers to all prompts together."""
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
