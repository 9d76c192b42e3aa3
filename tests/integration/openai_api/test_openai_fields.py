"""Fields of OpenAI's API and of other servers that speak it: each is honoured, or refused with what to do."""

import inspect
import json
from typing import Any

import openai
import pytest
from api_here import TOOL_CALLS, Begin, user
from openai.types import CompletionCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from parrotserve.server.openai.refused import OF_CHAT, OF_COMPLETIONS
from parrotserve.server.openai.wire import ChatRequest, CompletionRequest

HELLO = {"Hello": "Hi there."}
IGNORED = {
    "metadata": {"a": "b"},
    "prediction": {"type": "content", "content": "Hi there."},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "safety_identifier": "u-1",
    "service_tier": "flex",
    "store": True,
    "user": "u-1",
    "verbosity": "low",
}
"""What only concerns OpenAI's own service, or asks for nothing that models here could be told."""


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


def allowed(mode: str, *names: str) -> dict[str, Any]:
    named = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def test_every_field_of_openai_s_package_is_known():
    """A new version of the package may bring more: each is to be honoured, refused, or known to change nothing."""
    chat = set(inspect.get_annotations(CompletionCreateParamsNonStreaming)) | set(
        CompletionCreateParamsNonStreaming.__annotations__
    )
    assert {"messages", "stream", "top_p"} <= chat
    assert chat - IGNORED.keys() - OF_CHAT.keys() <= ChatRequest.model_fields.keys()
    whole, _ = CompletionCreateParams.__args__
    assert set(whole.__annotations__) - OF_COMPLETIONS.keys() <= CompletionRequest.model_fields.keys()


async def test_what_concerns_openai_s_own_service_alone_changes_nothing(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.chat(user("Hello"), **IGNORED)
    assert answer.json()["choices"][0]["message"]["content"] == "Hi there."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"response_format": {"type": "json_object", "schema": {"type": "object"}}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_object", "json_schema": {"schema": {"type": "object"}}}},
            "response_format.json_schema",
        ),
        ({"stop_sequences": ["."]}, "stop_sequences"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0.type"),
        ({"tool_choice": allowed("auto", "f")}, "tool_choice"),
        ({"tools": tools("f"), "tool_choice": allowed("auto", "g")}, "tool_choice"),
        ({"tools": tools("f"), "tool_choice": allowed("any", "f")}, "tool_choice.allowed_tools.mode"),
        (
            {"messages": [*user("a"), {"role": "assistant", "content": "", "function_call": {"name": "f"}}]},
            "messages.1.function_call",
        ),
        ({"messages": [*user("a"), {"role": "assistant", "content": "b", "audio": {"id": "1"}}]}, "messages.1.audio"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_what_cannot_be_honoured_is_refused(begin: Begin, body: dict[str, Any], param: str):
    api = await begin(template=TOOL_CALLS)
    answer = await api.chat(**({"messages": user("Hello")} | body))
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"], answer.json()["error"]["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("name", ["messages", "max_completion_tokens", "tools", "top_logprobs"])
async def test_what_only_chats_have_is_refused_of_completions(begin: Begin, name: str):
    api = await begin()
    answer = await api.complete("Hello", **{name: {"messages": user("Hi"), "tools": tools("f")}.get(name, 5)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("responseFormat", "response_format"),
        ("top-p", "top_p"),
        ("tool", "tools"),
        ("stream_option", "stream_options"),
    ],
)
async def test_a_field_that_is_misspelt_is_told_with_the_one_that_there_is(begin: Begin, name: str, meant: str):
    api = await begin()
    with pytest.raises(openai.BadRequestError, match=f"there is no such field, but there is '{meant}'") as refused:
        await api.client.chat.completions.create(model="fake", messages=user("Hello"), extra_body={name: 1})
    assert refused.value.param == name


async def test_misspelt_parameters_of_a_tool_are_told_too(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    tool = {"type": "function", "function": {"name": "f", "parameter": {"type": "object"}}}
    answer = await api.chat(user("Hello"), tools=[tool])
    assert answer.json()["error"]["param"] == "tools.0.function.parameter"


async def test_unknown_fields_by_the_thousand_are_ignored(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.chat(user("Hello"), **{f"temperatur{number}": 1 for number in range(100, 5_000)}, max_tokens=2)
    assert answer.status_code == 200


async def test_messages_go_back_as_the_client_has_them(begin: Begin):
    api = await begin(script=HELLO)
    first = await api.client.chat.completions.create(model="fake", messages=user("Hello"))
    back: Any = first.choices[0].message.model_dump()
    assert back["function_call"] is None
    await api.client.chat.completions.create(model="fake", messages=[*user("Hello"), back, *user("Why?")], max_tokens=1)
    assert api.prompts[-1] == "<|user|>Hello\n<|assistant|>Hi there.\n<|user|>Why?\n<|assistant|>"


async def test_a_nucleus_of_nothing_is_the_likeliest_token(begin: Begin):
    api = await begin(script=HELLO)
    for options in ({"top_p": 0}, {"top_p": 0, "temperature": 1.7}, {"extra_body": {"top_k": -1}}):
        answer: Any = await api.client.chat.completions.create(model="fake", messages=user("Hello"), **options)
        assert answer.choices[0].message.content == "Hi there."


async def test_a_model_may_be_held_to_some_of_the_tools(begin: Begin):
    call = '<tool_call>\n{"name": "%s", "arguments": {}}\n</tool_call>'
    api = await begin(template=TOOL_CALLS, script={"Hello": call % "f", "Howdy": call % "g"})

    async def calls(text: str, choice: dict[str, Any]) -> list[str]:
        answer: Any = await api.client.chat.completions.create(
            model="fake", messages=user(text), tools=tools("e", "f", "g"), tool_choice=choice, max_tokens=200
        )
        return [one.function.name for one in answer.choices[0].message.tool_calls or ()]

    assert await calls("Hello", allowed("auto", "f", "e")) == ["f"]
    assert await calls("Howdy", allowed("auto", "f", "e")) == []
    assert await calls("Howdy", allowed("required", "e")) == ["e"]
    assert all('"g"' in prompt for prompt in api.prompts), "all are told, so that prompts begin alike"


async def test_the_chosen_token_is_among_the_likeliest_that_are_told(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.complete("Hello", max_tokens=9, logprobs=0)
    assert answer.json()["choices"][0]["logprobs"]["top_logprobs"] is None
    answer = await api.complete("Hello", max_tokens=9, logprobs=1)
    told = answer.json()["choices"][0]["logprobs"]
    assert all(token in top for token, top in zip(told["tokens"], told["top_logprobs"], strict=True))


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("POST", "/v1/responses/resp_1/cancel", "see /docs"),
        ("POST", "/v1/embeddings", "models here write text; of OpenAI's API there are"),
        ("GET", "/v1/assistants", "send conversations to /v1/responses"),
        ("GET", "/v1/chat/completions/c-1", "see /docs"),
        ("POST", "/v1/audio/speech", "of OpenAI's API there are"),
        ("POST", "/v1/moderations", "of OpenAI's API there are"),
        ("POST", "/v1/vector_stores/1/files", "of OpenAI's API there are"),
    ],
)
async def test_what_is_not_here_of_openai_s_api_is_told_in_its_words(begin: Begin, method: str, path: str, says: str):
    api = await begin()
    answer = await api.http.request(method, path, content=json.dumps({}), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (404, "invalid_request_error")
    assert says in error["message"]
