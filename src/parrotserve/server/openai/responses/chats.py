"""The chat that a request for a response stands for, and its submission."""

from collections.abc import Sequence
from typing import Literal

from parrotserve.server.openai.responses.items import messages_of
from parrotserve.server.openai.responses.kept import Record
from parrotserve.server.openai.responses.wire import (
    AllowedFunctionTools,
    ChosenFunctionTool,
    FunctionTool,
    Item,
    ResponsesRequest,
)
from parrotserve.server.openai.submissions import Asked, Origin, Places, Submission, chat_submission
from parrotserve.server.openai.wire import (
    AllowedFunctions,
    AllowedTools,
    ChatMessage,
    ChatRequest,
    ChosenFunction,
    ChosenTool,
    FunctionSpec,
    Generation,
    JsonSchema,
    ResponseFormat,
    ToolSpec,
)

Mode = Literal["none", "auto", "required"]


def response_submission(body: ResponsesRequest, earlier: Sequence[Item], *, asked: Asked, origin: Origin) -> Submission:
    """The call of a request that continues a conversation of `earlier` items. If the response is kept, so is what it
    was made of. Raises `DeclarationError`, which names the field."""
    chat, places = chat_of(body, earlier)
    submission = chat_submission(chat, asked=asked, origin=origin, places=places)
    return submission.noting(Record(body=body, earlier=list(earlier)).to_json()) if origin.kept else submission


def chat_of(body: ResponsesRequest, earlier: Sequence[Item]) -> tuple[ChatRequest, Places]:
    """The chat request, and what its fields are called in the body. Raises `DeclarationError`."""
    items = [("previous_response_id", item) for item in earlier]
    if isinstance(body.input, str):
        items.append(("input", Item(role="user", content=body.input)))
    else:
        items += [(f"input.{number}", item) for number, item in enumerate(body.input or ())]
    messages, places = messages_of(items)
    if body.instructions:
        messages.insert(0, ChatMessage(role="system", content=body.instructions))
        places.insert(0, "instructions")
    common = {name: getattr(body, name) for name in Generation.model_fields if name in body.model_fields_set}
    chat = ChatRequest(
        **common,
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        logprobs=body.wants_logprobs,
        top_logprobs=(body.top_logprobs or 0) if body.wants_logprobs else None,
        response_format=_format(body),
        tools=[_tool(tool) for tool in body.tools] if body.tools is not None else None,
        tool_choice=_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        chat_template_kwargs=body.chat_template_kwargs,
    )
    return chat, Places(messages=places, prompt="input", most="max_output_tokens", form="text.format")


def _tool(tool: FunctionTool) -> ToolSpec:
    function = FunctionSpec(
        name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.is_strict
    )
    return ToolSpec(type="function", function=function)


def _choice(
    choice: Mode | ChosenFunctionTool | AllowedFunctionTools | None,
) -> Mode | ChosenTool | AllowedTools | None:
    match choice:
        case ChosenFunctionTool():
            return _chosen(choice)
        case AllowedFunctionTools():
            allowed = AllowedFunctions(mode=choice.mode, tools=[_chosen(tool) for tool in choice.tools])
            return AllowedTools(type="allowed_tools", allowed_tools=allowed)
        case _:
            return choice


def _chosen(tool: ChosenFunctionTool) -> ChosenTool:
    return ChosenTool(type="function", function=ChosenFunction(name=tool.name))


def _format(body: ResponsesRequest) -> ResponseFormat | None:
    form = body.text.format if body.text is not None else None
    if form is None:
        return None
    schema = JsonSchema.model_validate({"schema": form.schema_}) if form.type == "json_schema" else None
    return ResponseFormat(type=form.type, json_schema=schema)
