"""Bad requests for responses: each a clear refusal in OpenAI's shape that names the place in the body."""

import json
from typing import Any

import openai
import pytest
from api_here import TOOL_CALLS, Begin

from parrotserve.engines.fake import Faults

JSON = {"content-type": "application/json"}
MESSAGE: dict[str, Any] = {"role": "user", "content": "Hi"}
LOOK: dict[str, Any] = {"type": "function", "name": "look"}
CALL: dict[str, Any] = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}


def without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": 5}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": [5]}, "input.0"),
        ({"input": [MESSAGE, {"content": "Hi"}]}, "input.1.role"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input.0.role"),
        ({"input": [{"role": "tool", "content": "Hi"}]}, "input.0.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [MESSAGE | {"content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input.0.content.0"),
        ({"input": [MESSAGE | {"content": [{"type": "input_text"}]}]}, "input.0.content.0"),
        ({"input": [MESSAGE | {"content": [{"text": "Hi"}]}]}, "input.0.content.0.type"),
        ({"input": [MESSAGE | {"content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.0.type"),
        ({"input": [CALL | {"arguments": "["}]}, "input.0.arguments"),
        ({"input": [CALL | {"arguments": "[1]"}]}, "input.0.arguments"),
        ({"input": [CALL | {"arguments": "[" * 5000}]}, "input.0.arguments"),
        ({"input": [without(CALL, "arguments")]}, "input.0.arguments"),
        ({"input": [without(CALL, "name")]}, "input.0.name"),
        ({"input": [without(CALL, "call_id")]}, "input.0.call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0.output"),
        ({"input": [{"type": "function_call_output", "output": "42"}]}, "input.0.call_id"),
        ({"input": [MESSAGE, CALL]}, "input.1"),
        ({"instructions": 5}, "instructions"),
        ({"input": "\ud800"}, None),
        ({"instructions": "\ud800"}, None),
        ({"metadata": {"a": "\ud800"}}, "metadata.a"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"max_output_token": 5}, "max_output_token"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "high"}, "top_p"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"include": ["everything"]}, "include.0"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "what"}}}}, "text.format"),
        ({"text": {"type": "json_object"}}, "text.type"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"messages": [MESSAGE]}, "messages"),
        ({"tools": [LOOK]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools.0.name"),
        ({"tools": [LOOK, {"type": "web_search"}, {"type": "mcp", "server_label": "a"}]}, "tools"),
        ({"tools": [{"type": "custom", "name": "a"}]}, "tools"),
        ({"tools": [5]}, "tools.0"),
        ({"tools": "look"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "omni"}}, "moderation"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"metadata": {"a": 5}}, "metadata.a"),
        ({"metadata": {str(number): "a" for number in range(17)}}, "metadata"),
        ({"reasoning": "high"}, "reasoning"),
        ({"store": "yes"}, "store"),
        ({"store": True, "parrot": {"session": "s"}}, "store"),
        ({"parrot": {"sesion": "s"}}, "parrot.sesion"),
        ({"parrot": {"session": "s", "get": "it"}}, "input"),
        ({"stream": True, "parrot": {"output": "it", "wait": False}}, "stream"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_request_that_makes_no_sense(begin: Begin, body: dict[str, Any], param: str | None):
    api = await begin()
    answer = await api.http.post("/v1/responses", content=json.dumps({"input": "Hi"} | body), headers=JSON)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert error["code"]
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


async def test_all_kinds_of_tools_that_are_not_served_are_named_at_once(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    tools: Any = [LOOK, {"type": "web_search"}, {"type": "file_search", "vector_store_ids": []}, {"type": "web_search"}]
    with pytest.raises(openai.BadRequestError, match="'web_search', 'file_search' are not served") as refused:
        await api.client.responses.create(model="fake", input="Hi", tools=tools)
    assert refused.value.param == "tools"


async def test_a_tool_that_is_chosen_has_to_be_there(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    choice: Any = {"type": "function", "name": "leap"}
    with pytest.raises(openai.BadRequestError, match="'leap'") as refused:
        await api.client.responses.create(model="fake", input="Hi", tools=[LOOK], tool_choice=choice)
    assert refused.value.param == "tool_choice"


async def test_what_is_wrong_with_the_parameters_of_a_tool_is_told_of_the_tools(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    tools: Any = [LOOK | {"parameters": {"type": "what"}}]
    with pytest.raises(openai.BadRequestError) as refused:
        await api.client.responses.create(model="fake", input="Hi", tools=tools)
    assert (refused.value.code, refused.value.param) == ("invalid_schema", "tools")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_beyond_the_context(begin: Begin, stream: bool):
    api = await begin(context_length=20)
    with pytest.raises(openai.BadRequestError) as refused:
        await api.client.responses.create(model="fake", input="word " * 20, stream=stream)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_before_any_text(begin: Begin, stream: bool):
    api = await begin(faults=Faults(fail_prompts=("Hi",)))
    with pytest.raises(openai.InternalServerError, match="told to fail") as failed:
        await api.client.responses.create(model="fake", input="Hi", stream=stream)
    assert (failed.value.status_code, failed.value.code) == (502, "engine_failed")
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


async def test_a_model_that_is_not_served(begin: Begin):
    api = await begin()
    with pytest.raises(openai.NotFoundError) as missing:
        await api.client.responses.create(model="gpt-5", input="Hi")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"user": "\ud800"},
        {"prompt_cache_key": "\ud800"},
        {"tools": [LOOK | {"description": "\ud800"}]},
        {"tools": [LOOK | {"parameters": {"type": "object", "title": "\ud800"}}], "tool_choice": "none"},
        {"input": [MESSAGE | {"id": "\ud800"}]},
        {"input": [{"type": "\ud800"}]},
        {"text": {"format": {"type": "json_schema", "schema": {"type": "object", "title": "\ud800"}}}},
    ],
    ids=str,
)
async def test_what_is_no_character_is_no_fault_wherever_it_is(begin: Begin, body: dict[str, Any], stream: bool):
    api = await begin(template=TOOL_CALLS)
    content = json.dumps({"input": "Hi", "stream": stream, "max_output_tokens": 9} | body)
    answer = await api.http.post("/v1/responses", content=content, headers=JSON)
    assert answer.status_code in {200, 400}, answer.text
    assert "internal_error" not in answer.text
    if answer.status_code == 200 and not stream:
        for path in ("", "/input_items"):
            again = await api.http.get(f"/v1/responses/{answer.json()['id']}{path}")
            assert again.status_code == 200, again.text


@pytest.mark.parametrize("depth", [50, 300, 900])
@pytest.mark.parametrize(
    "field",
    [
        '"text": {"format": {"type": "json_schema", "schema": %s}}',
        '"tools": [{"type": "function", "name": "f", "parameters": %s}]',
        '"input": [%s]',
        '"reasoning": %s',
        '"parrot": %s',
    ],
    ids=lambda field: field[1:6],
)
async def test_deep_nests_are_no_faults(begin: Begin, field: str, depth: int):
    api = await begin(template="{{ tools }}{% for message in messages %}{{ message.content }}{% endfor %}")
    nest = '{"type": "object", "properties": {"a": ' * depth + '{"type": "object"}' + "}}" * depth
    body = '{"input": "Hi", "max_output_tokens": 5, ' + field % nest + "}"
    answer = await api.http.post("/v1/responses", content=body, headers=JSON)
    assert answer.status_code in {200, 400}, answer.text
