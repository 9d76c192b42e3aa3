"""Bodies of requests for responses."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, JsonValue, model_validator

from parrotserve.server.openai.refused import OF_RESPONSES
from parrotserve.server.openai.wire import Body, FunctionSpec, Generation, JsonSchema, Many, Spelled
from parrotserve.server.problems import misfit

LOGPROBS = "message.output_text.logprobs"
"""What `include` has to name so that the answer has log-probabilities."""

_OURS = "function"
_SHOWN_TYPES = 5

Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class Part(Body):
    """A part of a content; of all kinds, text is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(Body):
    """An item of a conversation. Which of the fields it has depends on its type."""

    type: str | None = None
    """None: a message."""
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Many[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Many[Part] | None = None
    summary: Many[Part] | None = None


class FunctionTool(FunctionSpec):
    """A function that the model may call. If it does not say whether it is `strict`, it is, as with OpenAI."""

    type: Literal["function"]

    @property
    def is_strict(self) -> bool:
        """Whether calls are held to its parameters."""
        return self.strict is not False


class ChosenFunctionTool(Body):
    """The function that the model has to call, or one of those that it may call."""

    type: Literal["function"]
    name: str


class AllowedFunctionTools(Body):
    """Those of the tools that the model may call, or has to."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[Many[ChosenFunctionTool], Field(min_length=1)]


class TextFormat(JsonSchema):
    """What form the answer's text has."""

    type: Literal["text", "json_object", "json_schema"]

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None:
            raise misfit("schema", "Field required")
        if self.type != "json_schema" and self.schema_ is not None:
            raise misfit("schema", "it needs the type json_schema")
        return self


class TextConfig(Spelled):
    """How the answer's text is written."""

    refused: ClassVar[dict[str, str]] = {
        "type": "put it into format",
        "schema": "put it into format, with the type json_schema",
        "json_schema": "put its fields into format, with the type json_schema",
    }

    format: TextFormat | None = None
    verbosity: str | None = None
    """For models that are trained on it; not used."""


class ResponsesRequest(Generation):
    """Body of POST /v1/responses."""

    refused = OF_RESPONSES

    input: str | Many[Item] | None = None
    """A user's message, or items."""
    instructions: str | None = None
    """A system message in front of all others, which responses that continue this one do not inherit."""
    previous_response_id: str | None = None
    """The response whose conversation this one continues."""
    store: bool | None = None
    """False: the response cannot be asked for, nor continued, once it is answered."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    include: Many[Includable] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    tools: Annotated[Many[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: (
        Literal["none", "auto", "required"]
        | Annotated[ChosenFunctionTool | AllowedFunctionTools, Field(discriminator="type")]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    """False: an answer ends with its first call."""
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
    """This and the following two are told again in the response."""
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    reasoning: dict[str, JsonValue] | None = None
    """For models that are trained on it; not used."""
    chat_template_kwargs: dict[str, JsonValue] | None = None
    """See `ChatRequest`."""

    @model_validator(mode="before")
    @classmethod
    def _has_functions_alone(cls, data: Any) -> Any:
        tools = cast("Mapping[str, Any]", data).get("tools") if isinstance(data, Mapping) else None
        if isinstance(tools, list):
            types = [cast("Mapping[str, Any]", one).get("type") for one in cast("list[Any]", tools) if _is_object(one)]
            others = list(Counter(one[:40] for one in types if isinstance(one, str) and one != _OURS))
            if others:
                named = ", ".join(map(repr, others[:_SHOWN_TYPES])) + (", ..." if len(others) > _SHOWN_TYPES else "")
                raise misfit("tools", f"tools of type {named} are not served: of all types, 'function' is")
        return data

    @model_validator(mode="after")
    def _is_a_conversation(self) -> Self:
        got = self.extension.get is not None
        if not self.input and not got:
            raise misfit("input", "Field required" if self.input is None else "it is empty; send a text or items")
        if got and (self.input or self.previous_response_id is not None):
            told = "input" if self.input else "previous_response_id"
            raise misfit(told, "leave it out, because parrot.get asks for an output that was declared before")
        if self.top_logprobs and not self.wants_logprobs:
            raise misfit("top_logprobs", f'it needs include=["{LOGPROBS}"]')
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise misfit("tool_choice", "it needs tools")
        if self.store and self.parrot is not None:
            raise misfit("store", "leave it out beside parrot: what is part of a program is kept in its session")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer is to have log-probabilities."""
        return LOGPROBS in (self.include or ())

    @property
    def may_be_kept(self) -> bool:
        """Whether the response is to be kept, if there is room for it."""
        return self.store is not False and self.parrot is None


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)
