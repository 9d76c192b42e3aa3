"""Responses that are kept: continued, asked for again, listed, deleted, and gone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from api_here import TOOL_CALLS, Api, Begin

from parrotserve.server.openai.responses import kept
from parrotserve.server.openai.responses.wire import LOGPROBS
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TenantStore]:
    store = TenantStore(tmp_path)
    yield store
    store.close()


async def sessions(api: Api) -> list[str]:
    return [one["id"] for one in (await api.http.get("/v1/sessions")).json()["data"]]


async def test_a_conversation_goes_on_from_a_response(begin: Begin):
    api = await begin(script={"your name": "I told you.", "Hello": "I am Polly."})
    first = await api.client.responses.create(model="fake", input="Hello", instructions="Be kind.")
    assert first.store is True
    second = await api.client.responses.create(
        model="fake", input="What is your name?", previous_response_id=first.id, instructions="Be short."
    )
    assert second.previous_response_id == first.id
    said = "<|user|>Hello\n<|assistant|>I am Polly.\n<|user|>What is your name?\n<|assistant|>"
    assert api.prompts[1] == f"<|system|>Be short.\n{said}", "instructions are not inherited"
    third = await api.client.responses.create(model="fake", input="Bye", previous_response_id=second.id)
    assert api.prompts[2] == f"{said}I told you.\n<|user|>Bye\n<|assistant|>"
    items = await api.client.responses.input_items.list(third.id, order="asc")
    assert [item.content[0].text for item in items.data] == [
        "Hello", "I am Polly.", "What is your name?", "I told you.", "Bye",
    ]  # fmt: skip


async def test_a_tool_loop_goes_on_from_a_response(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"Sunny": "No umbrella.", "umbrella": "Let me see.\n" + CALL})
    asked: Any = {"model": "fake", "tools": [WEATHER]}
    first = await api.client.responses.create(**asked, input="Do I need an umbrella?")
    call = first.output[1]
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}]
    second = await api.client.responses.create(**asked, input=result, previous_response_id=first.id)
    assert second.output_text == "No umbrella."
    listed = await api.client.responses.input_items.list(second.id)
    assert [item.type for item in listed.data] == ["function_call_output", "function_call", "message", "message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_can_be_asked_for_again(begin: Begin, stream: bool):
    api = await begin(template=TOOL_CALLS, script={"umbrella": "Let me see.\n" + CALL})
    asked: Any = {
        "model": "fake", "input": "An umbrella?", "tools": [WEATHER], "include": [LOGPROBS], "metadata": {"a": "b"},
        "tool_choice": "auto", "parallel_tool_calls": False, "temperature": 0.5, "top_p": 0.9, "top_logprobs": 1,
    }  # fmt: skip
    if stream:
        async with api.client.responses.stream(**asked) as told:
            answer = await told.get_final_response()
    else:
        answer = await api.client.responses.create(**asked)
    again = await api.client.responses.retrieve(answer.id)
    volatile = {"created_at": 0}
    parsed = ("parsed", "parsed_arguments")
    plain = answer.to_dict()
    for item in plain["output"]:
        for part in [item, *item.get("content", [])]:
            for name in parsed:
                part.pop(name, None)
    assert again.to_dict() | volatile == plain | volatile
    assert abs(again.created_at - answer.created_at) <= 2


async def test_what_is_not_to_be_kept_is_gone_with_its_answer(begin: Begin):
    api = await begin()
    answer = await api.client.responses.create(model="fake", input="Hello", store=False)
    assert answer.store is False
    assert await sessions(api) == []
    with pytest.raises(openai.NotFoundError, match="store=false"):
        await api.client.responses.retrieve(answer.id)


async def test_a_deleted_response_is_gone(begin: Begin):
    api = await begin()
    answer = await api.client.responses.create(model="fake", input="Hello")
    await api.client.responses.delete(answer.id)
    assert await sessions(api) == []
    asking = [
        lambda: api.client.responses.retrieve(answer.id),
        lambda: api.client.responses.delete(answer.id),
        lambda: api.client.responses.input_items.list(answer.id),
        lambda: api.client.responses.create(model="fake", input="Hi", previous_response_id=answer.id),
    ]
    for ask, param in zip(asking, [*["response_id"] * 3, "previous_response_id"], strict=True):
        with pytest.raises(openai.NotFoundError, match="Send the whole conversation as input") as gone:
            await ask()
        assert (gone.value.code, gone.value.param) == ("unknown_object", param)


@pytest.mark.parametrize(
    "identity", ["resp_c-1", "c-0123456789abcdef", "resp_../sessions", "x" * 500, "resp_\n", "%00"]
)
async def test_an_id_that_is_none_is_unknown(begin: Begin, identity: str):
    api = await begin()
    answer = await api.http.post("/v1/responses", json={"input": "Hi", "previous_response_id": identity})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "previous_response_id")


async def test_sessions_of_other_kinds_are_no_responses(begin: Begin):
    api = await begin()
    await api.http.post("/v1/submit", json={"session": "c-0123456789abcdef"})
    note: Any = {"id": "c-0123456789abcde0.asked", "value": '{"body": {"input": "Hi"}, "earlier": []}'}
    await api.http.post("/v1/submit", json={"session": "c-0123456789abcde0", "variables": [note]})
    for session in ("c-0123456789abcdef", "c-0123456789abcde0"):
        assert (await api.http.get(f"/v1/responses/resp_{session}")).status_code == 404
    headers = {"Idempotency-Key": "k"}
    await api.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]}, headers=headers)
    (session,) = [one for one in await sessions(api) if one.startswith("i-")]
    assert (await api.http.get(f"/v1/responses/resp_{session}")).status_code == 404


async def test_a_repeated_request_with_a_key_gets_the_same_response(begin: Begin):
    api = await begin(script=lambda _: "one")
    asked: dict[str, Any] = {"input": "Hello"}
    headers = {"Idempotency-Key": "k-1"}
    first, second = [(await api.http.post("/v1/responses", json=asked, headers=headers)).json() for _ in range(2)]
    assert first | {"created_at": 0} == second | {"created_at": 0}
    assert len(api.prompts) == 1
    assert (await api.client.responses.retrieve(first["id"])).output_text == "one"
    other = await api.http.post("/v1/responses", json={"input": "Bye"}, headers=headers)
    assert (other.status_code, other.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_the_least_recently_used_go_first(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    api = await begin()
    ids = [(await api.client.responses.create(model="fake", input="Hello")).id for _ in range(2)]
    await api.client.responses.retrieve(ids[0])
    ids.append((await api.client.responses.create(model="fake", input="Hello")).id)
    assert sorted(await sessions(api)) == sorted(one.removeprefix("resp_") for one in (ids[0], ids[2]))


async def test_what_is_in_progress_does_not_go_for_others(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    api = await begin(script={"long": "x" * 50, "Hello": "Hi."}, ticking=True)
    asking = [asyncio.create_task(api.client.responses.create(model="fake", input="long"))]
    while not (found := await sessions(api)):
        await asyncio.sleep(0)
    asking += [asyncio.create_task(api.client.responses.create(model="fake", input="Hello")) for _ in range(2)]
    while not all(task.done() for task in asking[1:]):
        await api.engines[0].tick()
        await asyncio.sleep(0)
    assert not asking[0].done()
    assert len(both := await sessions(api)) == 2
    assert found[0] in both
    while not asking[0].done():
        await api.engines[0].tick()
        await asyncio.sleep(0)
    assert asking[0].result().output_text == "x" * 50
    assert await sessions(api) == found


@pytest.mark.parametrize(("most", "stays"), [(4, 2), (1, 0)])
async def test_they_leave_half_of_a_tenants_sessions_to_others(store: TenantStore, begin: Begin, most: int, stays: int):
    store.create_tenant("ann", Limits(sessions=most))
    key = store.create_key("ann")[1]
    api = await begin(directory=Directory(store))
    client = api.client.with_options(api_key=key)
    for _ in range(4):
        answer = await client.responses.create(model="fake", input="Hello")
        assert answer.store is bool(stays)
    listed = await api.http.get("/v1/sessions", headers={"Authorization": f"Bearer {key}"})
    assert len(listed.json()["data"]) == stays


async def test_what_one_tenant_keeps_is_unknown_to_another(store: TenantStore, begin: Begin):
    keys: list[str] = []
    for tenant in ("ann", "bob"):
        store.create_tenant(tenant, Limits())
        keys.append(store.create_key(tenant)[1])
    api = await begin(directory=Directory(store))
    ann, bob = (api.client.with_options(api_key=key) for key in keys)
    kept_one = await ann.responses.create(model="fake", input="Hello")
    for ask in (bob.responses.retrieve, bob.responses.delete, bob.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            await ask(kept_one.id)
    with pytest.raises(openai.NotFoundError):
        await bob.responses.create(model="fake", input="Hi", previous_response_id=kept_one.id)
    assert (await ann.responses.retrieve(kept_one.id)).id == kept_one.id


async def test_what_is_in_progress_says_so_until_it_is_cancelled(begin: Begin):
    api = await begin(script=lambda _: "x" * 50, ticking=True)
    asking = asyncio.create_task(api.http.post("/v1/responses", json={"input": "Hello", "stream": True}))
    while not (found := await sessions(api)):
        await asyncio.sleep(0)
    for _ in range(10):
        await api.engines[0].tick()
        await asyncio.sleep(0)
    running = f"resp_{found[0]}"
    seen = await api.client.responses.retrieve(running)
    assert (seen.status, seen.output) == ("in_progress", [])
    with pytest.raises(openai.BadRequestError, match="no answer that could be continued"):
        await api.client.responses.create(model="fake", input="Hi", previous_response_id=running)
    await api.client.responses.delete(running)
    last = (await asking).text.strip().rpartition("\n\n")[2]
    assert last.startswith("event: response.failed\n")
    assert '"status":"failed"' in last
    assert await sessions(api) == []


async def test_a_stream_that_the_service_ends_says_why(begin: Begin):
    api = await begin(script=lambda _: "x" * 50, ticking=True)
    asking = asyncio.create_task(api.http.post("/v1/responses", json={"input": "Hello", "stream": True}))
    for _ in range(40):
        await api.engines[0].tick()
        await asyncio.sleep(0)
    api.service.end_exchanges()
    last = (await asking).text.strip().rpartition("\n\n")[2]
    assert last.startswith("event: error\n")
    assert '"code":"service_unavailable"' in last


async def test_pages_of_items_follow_one_another(begin: Begin):
    api = await begin()
    talk: Any = [{"role": "user", "content": str(number)} for number in range(5)]
    answer = await api.client.responses.create(model="fake", input=talk)
    told = [item async for item in api.client.responses.input_items.list(answer.id, limit=2, order="asc")]
    assert [item.content[0].text for item in told] == ["0", "1", "2", "3", "4"]
    for wrong in ({"limit": 0}, {"order": "up"}, {"after": "nothing"}):
        refused = await api.http.get(f"/v1/responses/{answer.id}/input_items", params=wrong)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    refused = await api.http.get(f"/v1/responses/{answer.id}", params={"stream": "true"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")
