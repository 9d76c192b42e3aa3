"""The `parrot` object: any client of OpenAI's API builds a graph."""

import asyncio
from typing import Any

import openai
import pytest
from api_here import Begin, user

STORY = {"Translate": "Il était une fois.", "Write a story": "Once upon a time.", "Title": "The Title"}


async def test_one_request_reads_what_another_writes(begin: Begin):
    api = await begin(script=STORY)
    wrote = await api.client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Write a story."}],
        extra_body={"parrot": {"session": "s-1", "output": "story", "wait": False}},
    )
    assert wrote.choices == []
    told: Any = wrote.model_extra
    assert told["parrot"]["session"] == "s-1"
    assert told["parrot"]["output"] == "story"
    title = await api.client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Title of {{input:text | strip}}, please."}],
        extra_body={"parrot": {"session": "s-1", "inputs": {"text": "story"}, "criteria": "throughput"}},
    )
    assert title.choices[0].message.content == "The Title"
    assert api.prompts[1] == "<|user|>Title of Once upon a time., please.\n<|assistant|>"
    value = await api.http.get(f"/v1/sessions/s-1/variables/{told['parrot']['variable']}")
    assert value.json()["value"] == "Once upon a time."


async def test_asking_for_an_output_does_not_look_at_all_of_its_session(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    api = await begin(script=STORY)
    wrote = await api.chat(user("Write a story."), parrot={"session": "s-1", "output": "story"})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it takes in proportion to the session")

    monkeypatch.setattr(api.service, "session_view", refuse)
    got = await api.chat([], parrot={"session": "s-1", "get": "story"})
    assert got.json()["choices"] == wrote.json()["choices"]
    assert got.json()["usage"] == wrote.json()["usage"]


async def test_what_an_output_used_is_looked_up_for_who_asks_for_it(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    api = await begin(script=STORY)
    await api.chat(user("Write a story."), parrot={"session": "s-1", "output": "story"})
    looked: list[object] = []
    look_up = api.service.request_usage

    def noted(*which: Any, **more: Any) -> Any:
        looked.append(which)
        return look_up(*which, **more)

    monkeypatch.setattr(api.service, "request_usage", noted)
    parrot = {"session": "s-1", "get": "story"}
    plain = await api.chat([], parrot=parrot, stream=True)
    assert plain.text.endswith("data: [DONE]\n\n")
    assert looked == []
    told = await api.chat([], parrot=parrot, stream=True, stream_options={"include_usage": True})
    assert f'"completion_tokens":{len(STORY["Write a story"]) + 1}' in told.text
    assert len(looked) == 1


async def test_requests_are_declared_before_what_they_read_is_written(begin: Begin):
    api = await begin(script=STORY, ticking=True)
    for content, parrot in (
        ("Write a story.", {"output": "story"}),
        ("Title for: {{input:story}}", {"output": "title", "inputs": {"story": "story"}}),
    ):
        answer = await api.chat(user(content), parrot={"session": "s-1", "wait": False} | parrot)
        assert answer.status_code == 200
    states = (await api.http.get("/v1/sessions/s-1")).json()["requests"]
    assert [state["state"] for state in states] == ["running", "waiting"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_output_is_got_later(begin: Begin, stream: bool):
    api = await begin(script=STORY)
    await api.chat(user("Write a story."), parrot={"session": "s-1", "output": "story", "wait": False})
    options: Any = {"stream": True} if stream else {}
    got: Any = await api.client.chat.completions.create(
        model="fake", messages=[], extra_body={"parrot": {"session": "s-1", "get": "story"}}, **options
    )
    if stream:
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in got])
    else:
        text = got.choices[0].message.content
        assert got.usage.completion_tokens == len(STORY["Write a story"]) + 1
    assert text == "Once upon a time."
    completion = await api.http.post("/v1/completions", json={"parrot": {"session": "s-1", "get": "story"}})
    assert completion.json()["choices"][0]["text"] == "Once upon a time."


async def test_log_probabilities_of_an_output_that_was_complete_before(begin: Begin):
    api = await begin(script=STORY)
    parrot = {"session": "s-1", "output": "story"}
    await api.chat(user("Write a story."), parrot=parrot, logprobs=True)
    get = {"parrot": {"session": "s-1", "get": "story"}, "stream": True}
    said = ""
    chat: Any = await api.client.chat.completions.create(
        model="fake", messages=[], logprobs=True, stream=True, extra_body=get
    )
    async for chunk in chat:
        logprobs = chunk.choices[0].logprobs
        said += "".join(each.token for each in logprobs.content) if logprobs else ""
    assert said == STORY["Write a story"]
    answer = await api.http.post("/v1/completions", json=get | {"logprobs": 0})
    assert '"text_offset":[0,1,2,' in answer.text


async def test_inputs_are_variables_by_id_and_texts_too(begin: Begin):
    api = await begin()
    await api.http.post("/v1/submit", json={"session": "s-1", "variables": [{"id": "v-1", "value": "by id"}]})
    inputs = {"one": {"variable": "v-1"}, "two": {"value": "a {{input:one}} text"}}
    answer = await api.complete("{{input:one}}, {{ input:two }}.", parrot={"session": "s-1", "inputs": inputs})
    assert answer.status_code == 200
    assert api.prompts == ["by id, a {{input:one}} text."]


async def test_placeholders_that_are_no_inputs_are_text(begin: Begin):
    api = await begin()
    await api.complete("{{input:x}} {{output:y}}")
    await api.complete("{{input:x}} {{input:z}}", parrot={"inputs": {"z": {"value": "!"}}})
    assert api.prompts == ["{{input:x}} {{output:y}}", "{{input:x}} !"]


async def test_a_failure_upstream_is_told_to_whoever_reads_it(begin: Begin):
    api = await begin(context_length=60)
    await api.chat(user("x" * 80), parrot={"session": "s-1", "output": "story", "wait": False})
    with pytest.raises(openai.BadRequestError) as failed:
        await api.client.chat.completions.create(
            model="fake",
            messages=[{"role": "user", "content": "{{input:story}}"}],
            extra_body={"parrot": {"session": "s-1", "inputs": {"story": "story"}}},
        )
    assert failed.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("parrot", "status", "says"),
    [
        ({"session": "s-1", "inputs": {"x": "nothing"}}, 404, "no variable 's-1:nothing'"),
        ({"session": "s-1", "inputs": {"y": {"value": "unused"}}}, 400, "No message or prompt uses the input 'y'"),
        ({"session": "s-1", "output": "a" * 33}, 400, "parrot.output"),
        ({"session": "s" * 60, "output": "story"}, 400, "choose shorter ones"),
        ({"session": "s-1", "get": "story"}, 400, "leave it out, because parrot.get"),
        ({"get": "story"}, 400, "name its session"),
        ({"session": "s-1", "inputs": {"x": {"value": "1"}}, "criteria": "soon"}, 400, "criteria"),
        ({"session": "no good"}, 400, "session"),
    ],
)
async def test_what_makes_no_sense_is_refused(begin: Begin, parrot: dict[str, Any], status: int, says: str):
    api = await begin()
    answer = await api.complete("{{input:x}}", parrot=parrot)
    assert (answer.status_code, says in answer.json()["error"]["message"]) == (status, True), answer.text
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


async def test_there_is_nothing_to_stream_of_what_is_not_awaited(begin: Begin):
    api = await begin()
    answer = await api.complete("x", stream=True, parrot={"wait": False})
    assert answer.status_code == 400


async def test_an_output_is_named_once(begin: Begin):
    api = await begin(script=STORY)
    parrot = {"session": "s-1", "output": "story"}
    assert (await api.chat(user("Write a story."), parrot=parrot)).status_code == 200
    again = await api.chat(user("Write a story."), parrot=parrot)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "invalid_graph")


async def test_a_session_of_its_own_is_told_and_kept_where_its_output_has_a_name(begin: Begin):
    api = await begin(script=STORY)
    told = (await api.chat(user("Write a story."), parrot={"output": "story"})).json()["parrot"]
    assert told["variable"] == f"{told['session']}:story"
    got = await api.chat([], parrot={"session": told["session"], "get": "story"})
    assert got.json()["choices"][0]["message"]["content"] == "Once upon a time."
    assert (await api.http.delete(f"/v1/sessions/{told['session']}")).status_code == 204


class TestRepeatedRequests:
    """With an Idempotency-Key."""

    async def test_the_second_joins_the_first(self, begin: Begin):
        api = await begin(script=STORY, ticking=True)
        asked = [self.ask(api) for _ in range(2)]
        while not all(each.done() for each in asked):
            await api.engines[0].tick()
            await asyncio.sleep(0)
        first, second = [each.result().json() for each in asked]
        assert len(api.prompts) == 1
        assert first["choices"] == second["choices"]
        assert (first["id"], first["usage"]) == (second["id"], second["usage"])

    async def test_one_that_comes_later_gets_the_same_answer(self, begin: Begin):
        api = await begin(script=STORY)
        first = await self.ask(api)
        streamed = await self.ask(api, stream=True)
        assert first.json()["id"] in streamed.text
        assert len(api.prompts) == 1

    async def test_another_request_with_the_same_key_is_refused(self, begin: Begin):
        api = await begin(script=STORY)
        await self.ask(api)
        other = await self.ask(api, text="Something else.")
        assert other.status_code == 400
        assert other.json()["error"]["param"] == "Idempotency-Key"

    @pytest.mark.parametrize("other", [{"n": 3}, {"prompt": ["Hi", "Ho"]}, {"echo": True}], ids=str)
    async def test_so_is_one_for_other_texts(self, begin: Begin, other: dict[str, Any]):
        api = await begin()
        asked: dict[str, Any] = {"prompt": "Hi", "max_tokens": 4, "n": 1}
        statuses: list[int] = []
        for body in (asked, asked | other, asked):
            answer = await api.http.post("/v1/completions", json=body, headers={"Idempotency-Key": "k-1"})
            statuses.append(answer.status_code)
            if answer.status_code == 400:
                assert answer.json()["error"]["param"] == "Idempotency-Key"
        assert statuses == [200, 400, 200]

    async def test_nothing_is_kept_of_one_that_failed(self, begin: Begin):
        api = await begin(script=STORY, context_length=10)
        assert (await self.ask(api)).status_code == 400
        assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text

    def ask(self, api: Any, *, text: str = "Write a story.", **body: Any) -> "asyncio.Task[Any]":
        sent = api.http.post(
            "/v1/chat/completions", json={"messages": user(text), **body}, headers={"Idempotency-Key": "k-1"}
        )
        return asyncio.ensure_future(sent)
