"""`/v1/responses` by OpenAI's client: create, stream, parse, tools, and how a response says what became of it."""

import json
from typing import Any, Literal

import pytest
from api_here import BARE_CALLS, TOOL_CALLS, Api, Begin
from openai.types.responses import Response
from pydantic import BaseModel

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather somewhere.",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
}
CALLS = {
    TOOL_CALLS: '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    BARE_CALLS: '{"name": "weather", "arguments": {"city": "Rome"}}',
}


class Animal(BaseModel, extra="forbid"):
    kind: Literal["bird", "fish"]


async def streamed(api: Api, **body: Any) -> list[Any]:
    """The events of a streamed response; their numbers count up from 0."""
    events = [event async for event in await api.client.responses.create(model="fake", stream=True, **body)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def kinds(events: list[Any]) -> list[str]:
    """Types of events, with repetitions left out."""
    found = [event.type.removeprefix("response.") for event in events]
    return [kind for number, kind in enumerate(found) if number == 0 or found[number - 1] != kind]


async def test_a_text_is_answered(begin: Begin):
    api = await begin(script={"Hello": "Hi there."})
    answer = await api.client.responses.create(model="fake", input="Hello", instructions="Be kind.", user="ann")
    Response.model_validate(answer.model_dump())
    assert (answer.output_text, answer.status, answer.incomplete_details) == ("Hi there.", "completed", None)
    assert (answer.object, answer.model, answer.instructions, answer.user) == ("response", "fake", "Be kind.", "ann")
    (message,) = answer.output
    assert message.type == "message"
    assert (message.role, message.status) == ("assistant", "completed")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert answer.usage.input_tokens_details.cached_tokens == 0
    assert api.prompts == ["<|system|>Be kind.\n<|user|>Hello\n<|assistant|>"]


async def test_a_conversation_is_told_as_a_chat_would_be(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    called = {"type": "function_call", "call_id": "c-1", "name": "weather", "arguments": '{"city": "Rome"}'}
    talk: list[Any] = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"type": "reasoning", "id": "rs-1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "id": "msg-1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
        called,
        called | {"call_id": "c-2"},
        {"type": "function_call_output", "call_id": "c-1", "output": "Sunny"},
        {"type": "function_call_output", "call_id": "c-2", "output": [{"type": "input_text", "text": "Mild"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
    ]  # fmt: skip
    await api.client.responses.create(model="fake", input=talk, instructions="Be kind.", tools=[WEATHER])
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    messages: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": number, "type": "function", "function": function} for number in ("c-1", "c-2")]},
        {"role": "tool", "tool_call_id": "c-1", "content": "Sunny"},
        {"role": "tool", "tool_call_id": "c-2", "content": "Mild"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "a\nb"},
    ]  # fmt: skip
    told = {name: value for name, value in WEATHER.items() if name != "type"}
    await api.chat(messages, tools=[{"type": "function", "function": told}])
    assert api.prompts[0] == api.prompts[1]


async def test_the_sdk_follows_a_stream(begin: Begin):
    api = await begin(script={"Hello": "Hi there."})
    async with api.client.responses.stream(model="fake", input="Hello") as stream:
        texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert len(texts) > 1
    assert "".join(texts) == final.output_text == "Hi there."
    assert final.usage is not None
    assert final.usage.output_tokens > 0


async def test_a_stream_tells_each_item_from_its_beginning_to_its_end(begin: Begin):
    api = await begin(script={"Hello": "Hi there."})
    events = await streamed(api, input="Hello")
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    whole = events[-1].response
    assert events[0].response.id == whole.id
    assert (events[0].response.status, events[0].response.output, events[0].response.usage) == ("in_progress", [], None)
    assert events[-2].item.to_dict() == whole.output[0].to_dict()
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {whole.output[0].id}
    raw = await api.http.post("/v1/responses", json={"input": "Hello", "stream": True})
    assert raw.text.startswith("event: response.created\ndata: ")
    assert "[DONE]" not in raw.text


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_cut_off_is_incomplete(begin: Begin, stream: bool):
    api = await begin(script={"Hello": "word " * 50})
    asked: dict[str, Any] = {"input": "Hello", "max_output_tokens": 5}
    if stream:
        last = (await streamed(api, **asked))[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    else:
        answer = await api.client.responses.create(model="fake", **asked)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[0].status == "incomplete"
    assert answer.usage.output_tokens == answer.max_output_tokens == 5


async def test_an_answer_is_parsed_in_the_form_that_was_asked_for(begin: Begin):
    api = await begin()
    parsed = await api.client.responses.parse(model="fake", input="Describe a heron.", text_format=Animal)
    assert isinstance(parsed.output_parsed, Animal)
    async with api.client.responses.stream(model="fake", input="A heron.", text_format=Animal) as stream:
        assert isinstance((await stream.get_final_response()).output_parsed, Animal)
    mode: Any = {"format": {"type": "json_object"}}
    loose = await api.client.responses.create(model="fake", input="A heron.", text=mode, max_output_tokens=200)
    assert loose.text is not None
    assert loose.text.format is not None
    assert loose.text.format.type == "json_object"


@pytest.mark.parametrize("template", CALLS)
async def test_a_call_goes_to_and_fro(begin: Begin, template: str):
    api = await begin(template=template, script={"Sunny": "No umbrella.", "umbrella": CALLS[template]})
    tools: Any = [WEATHER]
    talk: list[Any] = [{"role": "user", "content": "Do I need an umbrella?"}]
    answer = await api.client.responses.create(model="fake", input=talk, tools=tools)
    (call,) = answer.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments), call.status) == ("weather", {"city": "Rome"}, "completed")
    assert answer.output_text == ""
    talk += [call.model_dump(), {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}]
    again = await api.client.responses.create(model="fake", input=talk, tools=tools)
    assert again.output_text == "No umbrella."
    assert "<|tool|>Sunny" in api.prompts[-1]


@pytest.mark.parametrize("template", CALLS)
async def test_a_streamed_call_is_no_text(begin: Begin, template: str):
    api = await begin(template=template, script={"umbrella": CALLS[template]})
    async with api.client.responses.stream(model="fake", input="umbrella?", tools=[WEATHER]) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert kinds(events)[2:-1] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
    ]  # fmt: skip
    (call,) = final.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Rome"}


async def test_text_before_calls_is_an_item_of_its_own(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"umbrella": "Let me see.\n" + 2 * CALLS[TOOL_CALLS]})
    asked: Any = {"input": "umbrella?", "tools": [WEATHER]}
    whole = await api.client.responses.create(model="fake", **asked)
    assert [item.type for item in whole.output] == ["message", "function_call", "function_call"]
    assert whole.output_text == "Let me see."
    events = await streamed(api, **asked)
    added = [event for event in events if event.type == "response.output_item.added"]
    assert [event.output_index for event in added] == [0, 1, 2]
    assert [item.type for item in events[-1].response.output] == ["message", "function_call", "function_call"]
    one = await api.client.responses.create(model="fake", **asked, parallel_tool_calls=False)
    assert [item.type for item in one.output] == ["message", "function_call"]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
async def test_a_call_that_must_be_is_written(begin: Begin, choice: Any):
    api = await begin(template=TOOL_CALLS, script={"Hello": "Hello yourself!"})
    tools: Any = [WEATHER, {"type": "function", "name": "news"}]
    answer = await api.client.responses.create(model="fake", input="Hello", tools=tools, tool_choice=choice)
    assert answer.output[0].type == "function_call"
    if choice != "required":
        assert answer.output[0].name == "weather"
    told = answer.model_dump(exclude_unset=True)["tool_choice"]
    assert told == choice


@pytest.mark.parametrize(("strict", "city"), [(None, "Rome"), (True, "Rome"), (False, "Oslo")])
async def test_functions_are_strict_unless_they_say_otherwise(begin: Begin, strict: bool | None, city: str):
    api = await begin(template=TOOL_CALLS, script={"umbrella": CALLS[TOOL_CALLS].replace("Rome", "Oslo")})
    tools: Any = [WEATHER | {"strict": strict}]
    answer = await api.client.responses.create(model="fake", input="umbrella?", tools=tools)
    assert answer.output[0].type == "function_call"
    assert json.loads(answer.output[0].arguments) == {"city": city}
    assert answer.tools[0].type == "function"
    assert answer.tools[0].strict is (strict is not False)


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_come_where_they_are_included(begin: Begin, stream: bool):
    api = await begin(script={"Hello": "Hi."})
    asked: Any = {"input": "Hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    if stream:
        events = await streamed(api, **asked)
        tokens = [one.token for event in events if event.type.endswith("text.delta") for one in event.logprobs]
        assert "".join(tokens) == "Hi."
        answer = events[-1].response
    else:
        answer = await api.client.responses.create(model="fake", **asked)
    told = answer.output[0].content[0].logprobs
    assert "".join(one.token for one in told) == "Hi."
    assert all(len(one.top_logprobs) == 2 for one in told)


async def test_what_is_about_openais_own_service_is_told_again_or_ignored(begin: Begin):
    api = await begin()
    answer = await api.client.responses.create(
        model="fake",
        input="Hello",
        metadata={"topic": "greeting"},
        prompt_cache_key="k",
        safety_identifier="s",
        service_tier="flex",
        truncation="disabled",
        reasoning={"effort": "high"},
        include=["reasoning.encrypted_content"],
        max_tool_calls=3,
        background=False,
        text={"verbosity": "low"},
    )
    assert answer.metadata == {"topic": "greeting"}
    assert (answer.prompt_cache_key, answer.safety_identifier) == ("k", "s")
    assert answer.reasoning is not None
    assert answer.reasoning.effort is None


async def test_a_response_takes_part_in_a_program(begin: Begin):
    api = await begin(script={"story": "Once.", "title": "A tale"})
    made: Any = {"parrot": {"session": "s-1", "output": "story", "wait": False}}
    begun = await api.client.responses.create(model="fake", input="Tell a story.", extra_body=made)
    assert (begun.status, begun.output, begun.store) == ("in_progress", [], False)
    told: Any = {"parrot": {"session": "s-1", "inputs": {"it": "story"}, "output": "title"}}
    answer = await api.client.responses.create(model="fake", input="A title: {{input:it}}", extra_body=told)
    assert "Once." in api.prompts[1]
    got = await api.http.post("/v1/responses", json={"parrot": {"session": "s-1", "get": "title"}})
    assert got.json()["output"][0]["content"][0]["text"] == answer.output_text
    assert got.json()["parrot"]["variable"] == "s-1:title"
