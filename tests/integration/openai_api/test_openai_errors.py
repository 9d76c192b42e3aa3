"""Bad requests: each a clear refusal in OpenAI's shape."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from api_here import TOOL_CALLS, Begin, user

from parrotserve.engines.fake import Faults
from parrotserve.ids import LOCAL_TENANT
from parrotserve.protocol import PROTOCOL_HEADER
from parrotserve.server.openai.answers import OpenAIError

JSON = {"content-type": "application/json"}
LOOK = {"type": "function", "function": {"name": "look"}}


def nest(depth: int) -> str:
    return "[" * depth + "]" * depth


def schema_nest(depth: int) -> str:
    return '{"type": "object", "properties": {"a": ' * depth + '{"type": "object"}' + "}}" * depth


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": user([{"type": "image_url", "image_url": {"url": "data:,"}}])}, "messages.0.content.0"),
        ({"messages": user([{"type": "input_audio"}])}, "messages.0.content.0"),
        ({"messages": user([{"type": "text"}])}, "messages.0.content.0"),
        ({"messages": [{"role": "tool", "content": "42", "tool_call_id": "c"}]}, "messages.0"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"max_completion_tokens": 10**30}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.5}, "top_p"),
        ({"stop": 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stop": "x" * 1001}, "stop"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"seed": 2**63}, "seed"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logprobs": 5}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "what"}}}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
        ({"stop_token_ids": [5]}, "stop_token_ids"),
        ({"length_penalty": 0.5}, "length_penalty"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
        ({"enable_thinking": False}, "enable_thinking"),
        ({"messages": user("\ud800")}, None),
        ({"parrot": {"sesion": "s"}}, "parrot.sesion"),
        ({"parrot": "s"}, "parrot"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_chat_request_that_makes_no_sense(begin: Begin, body: dict[str, Any], param: str | None):
    api = await begin()
    content = json.dumps({"messages": user("Hi")} | body)
    answer = await api.http.post("/v1/chat/completions", content=content, headers=JSON)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image_url"}]}, "content.1"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": "Hi", "name": 5}, "name"),
    ],
    ids=["part", "none", "wrong type"],
)
async def test_what_is_wrong_with_a_message_names_it(begin: Begin, message: dict[str, Any], place: str):
    api = await begin()
    body = {"messages": [*user("Hi"), {"role": "assistant", "content": "Yes?"}, message]}
    error = (await api.http.post("/v1/chat/completions", json=body)).json()["error"]
    assert error["param"] == f"messages.2.{place}"
    assert error["message"].startswith(f"body.messages.2.{place}: ")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": []},
        {"prompt": 5},
        {"prompt": [5, "five"]},
        {"prompt": [-1]},
        {"prompt": [300]},
        {"prompt": [[1, 2], [3, 2**31]]},
        {"prompt": ["a"] * 1025},
        {"prompt": ["a"] * 20, "n": 100},
        {"prompt": "a", "best_of": 3},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "guided_choice": ["a"]},
        {"prompt": "a", "prompt_logprobs": 1},
        {"prompt": "a", "response_format": {"type": "json_object"}},
        {"prompt": "a", "echo": True, "logprobs": 1},
        {"prompt": "a", "logprobs": True},
        {"prompt": ["a", "b"], "parrot": {"output": "text"}},
        {"prompt": "a", "n": 2, "parrot": {"output": "text"}},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_a_completion_request_that_makes_no_sense(begin: Begin, body: dict[str, Any]):
    api = await begin()
    answer = await api.http.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_what_other_servers_take_may_be_there_where_it_changes_nothing(begin: Begin):
    api = await begin()
    neutral: dict[str, Any] = {
        "length_penalty": 1.0,
        "stop_token_ids": [],
        "guided_json": None,
        "use_beam_search": False,
    }
    answer = await api.complete("Hi", **neutral, response_format={"type": "text"}, prompt_logprobs=None)
    assert answer.status_code == 200, answer.text
    assert (await api.chat(user("Hi"), **neutral, truncate_prompt_tokens=-1)).status_code == 200


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", b"\xff", '"text"', nest(10_000), f'{{"messages": {nest(10_000)}}}', f'{{"input": {nest(10_000)}}}'],
    ids=lambda body: body[:20],
)
async def test_a_body_that_is_no_request(begin: Begin, content: str | bytes):
    api = await begin()
    for path in ("/v1/chat/completions", "/v1/responses"):
        answer = await api.http.post(path, content=content, headers=JSON)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("depth", [50, 300, 900])
@pytest.mark.parametrize(
    "field",
    [
        '"response_format": {"type": "json_schema", "json_schema": {"schema": %s}}',
        '"tools": [{"type": "function", "function": {"name": "f", "parameters": %s}}], "tool_choice": "required"',
        '"messages": [%s]',
        '"parrot": %s',
    ],
    ids=lambda field: field[1:6],
)
async def test_deep_nests_are_no_faults(begin: Begin, field: str, depth: int):
    api = await begin(template="{{ tools }}{% for message in messages %}{{ message.content }}{% endfor %}")
    body = '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, ' + field % schema_nest(depth) + "}"
    answer = await api.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert answer.status_code in {200, 400}, answer.text


async def test_a_model_that_is_not_served(begin: Begin):
    api = await begin()
    with pytest.raises(openai.NotFoundError, match="does not serve 'gpt-5'") as missing:
        await api.client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Hi"}])
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_beyond_the_context(begin: Begin, stream: bool):
    api = await begin(context_length=20)
    with pytest.raises(openai.BadRequestError, match="Shorten the prompt") as refused:
        await api.client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "x" * 50}], stream=stream
        )
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as refused:
        await api.client.completions.create(model="fake", prompt="x" * 50, stream=stream)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


async def test_whose_prompt_is_too_long(begin: Begin):
    api = await begin(context_length=20)
    named: dict[str, Any] = {"session": "s", "output": "first", "wait": False}
    assert (await api.chat(user("x" * 50), parrot=named)).status_code == 200
    asked: dict[str, Any] = {"session": "s", "get": "first"}
    for other in (
        await api.chat([], parrot=asked),
        await api.chat(user("{{input:first}}"), parrot={"session": "s", "inputs": {"first": "first"}}),
    ):
        error = other.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", None), "another request's is"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_token_that_the_model_lacks_reaches_no_engine(begin: Begin, stream: bool):
    api = await begin()
    with pytest.raises(openai.BadRequestError, match="Token 50000 of a prompt is not in the vocabulary of 'fake'"):
        await api.client.completions.create(model="fake", prompt=[72, 50_000], stream=stream)
    with pytest.raises(openai.BadRequestError, match="logit_bias names token 50000, which is not in the vocabulary of"):
        await api.client.completions.create(model="fake", prompt=[72], logit_bias={"72": 1, "50000": 1}, stream=stream)
    assert api.prompts == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails(begin: Begin, stream: bool):
    api = await begin(faults=Faults(fail_prompts=("Hi",)))
    with pytest.raises(openai.InternalServerError, match="told to fail") as failed:
        await api.client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
    assert (failed.value.status_code, failed.value.code) == (502, "engine_failed")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_would_fail_again_is_not_asked_again(begin: Begin, stream: bool):
    api = await begin(faults=Faults(fail_prompts=("Hi",)))
    asked: list[httpx.Request] = []

    async def count(request: httpx.Request) -> None:
        asked.append(request)

    api.http.event_hooks["request"].append(count)
    with pytest.raises(openai.InternalServerError, match="told to fail"):
        await api.client.with_options(max_retries=2).completions.create(model="fake", prompt="Hi", stream=stream)
    assert len(asked) == 1


async def test_a_stream_that_breaks_off_says_why(begin: Begin):
    api = await begin(script=lambda _: "x" * 50, ticking=True)
    stream = api.client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "Hi"}], stream=True, n=2
    )

    async def read() -> int:
        return len([chunk async for chunk in await stream])

    reading = asyncio.create_task(read())
    for _ in range(40):
        await api.engines[0].tick()
        await asyncio.sleep(0)
    api.service.end_exchanges()
    with pytest.raises(openai.APIError, match="shutting down"):
        await reading


async def test_models_in_openai_s_shape(begin: Begin):
    api = await begin()
    models = [model async for model in api.client.models.list()]
    assert [(model.id, model.object, model.owned_by) for model in models] == [("fake", "model", "parrot")]
    assert models[0].created > 0
    assert (await api.client.models.retrieve("fake")).id == "fake"
    with pytest.raises(openai.NotFoundError) as missing:
        await api.client.models.retrieve("a/b")
    assert (missing.value.code, missing.value.type) == ("model_not_found", "invalid_request_error")


async def test_what_is_refused_before_a_route_sees_it(begin: Begin):
    api = await begin()
    large = b"1" * (api.service.most_bytes(LOCAL_TENANT) + 1)
    for asked, status in (
        (api.http.post("/v1/completions", content=large, headers=JSON), 413),
        (api.http.post("/v1/chat/completions", headers=JSON | {PROTOCOL_HEADER: "0"}), 426),
        (api.http.delete("/v1/models"), 405),
    ):
        answer = await asked
        assert answer.status_code == status
        error = OpenAIError.model_validate_json(answer.content).error
        assert error.type == "invalid_request_error"
    answer = await api.http.get("/v1/models", headers={"Host": "attacker.example"})
    assert answer.status_code == 403
    error = OpenAIError.model_validate_json(answer.content).error
    assert (error.type, error.code) == ("permission_error", "forbidden")


@pytest.mark.parametrize("base", ["", "/v1/v1", "/openai"])
async def test_a_wrong_base_url_is_told_the_right_one(begin: Begin, base: str):
    api = await begin()
    client = api.client.with_options(base_url=f"http://parrot.localhost{base}")
    for asked in (
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "Hi"}]),
        client.completions.create(model="fake", prompt="Hi"),
        client.responses.create(model="fake", input="Hi"),
        client.models.retrieve("fake"),
    ):
        with pytest.raises(openai.NotFoundError, match="the base URL of OpenAI's clients ends in /v1 here"):
            await asked


async def test_what_openai_has_and_we_do_not(begin: Begin):
    api = await begin()
    for asked in (
        api.client.embeddings.create(model="fake", input="Hi"),
        api.client.moderations.create(input="Hi"),
        api.client.audio.speech.create(model="fake", voice="alloy", input="Hi"),
        api.client.files.retrieve("file-1"),
    ):
        with pytest.raises(openai.NotFoundError) as missing:
            await asked
        assert isinstance(missing.value.body, dict)
        assert missing.value.body["message"].startswith("There is nothing at ")
        assert "/v1/responses, /v1/chat/completions, /v1/completions and /v1/models" in missing.value.body["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"parrot": {"inputs": {"a": "other"}}}, "parrot.inputs.a"),
        ({"parrot": {"session": "s", "get": "nothing"}, "messages": []}, None),
    ],
)
async def test_nothing_is_fetched_for_what_is_refused(begin: Begin, body: dict[str, Any], param: str | None):
    api = await begin(config={"on_demand": True})
    answer = await api.http.post("/v1/chat/completions", json={"messages": user("Hi"), "model": "smollm2-135m"} | body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["param"] == param
    assert [model.name for model in api.service.models()] == ["fake"]
    fine = await api.chat(user("Hi"), model="smollm2-135m")
    assert fine.json()["model"] == "smollm2-135m"
    assert [model.name for model in api.service.models()] == ["fake", "smollm2-135m"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_model_whose_name_is_no_unicode_is_not_found(begin: Begin, path: str):
    api = await begin()
    if path == "/v1/completions":
        body = b'{"model": "\\udc00", "prompt": "Hi"}'
    else:
        body = b'{"model": "\\udc00", "messages": [{"role": "user", "content": "Hi"}]}'
    answer = await api.http.post(path, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_misspelt_field_of_the_parrot_object_is_told_which_was_meant(begin: Begin):
    api = await begin()
    answer = await api.chat(user("Hi"), parrot={"sesion": "s"})
    assert "there is no such field, but there is 'session'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools.0.function.name"),
    ],
)
async def test_tools_that_make_no_sense_are_refused(begin: Begin, body: dict[str, Any], param: str):
    api = await begin(template=TOOL_CALLS)
    answer = await api.chat(user("Hello"), **{"tools": [LOOK]} | body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
