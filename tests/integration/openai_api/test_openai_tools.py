"""Tools: told to the model by its chat template, read from what it wrote."""

import json
from typing import Any

import openai
import pytest
from api_here import BARE_CALLS, TOOL_CALLS, Begin, user

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather somewhere.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
    },
}
NEWS = {"type": "function", "function": {"name": "news"}}
CALLS = {
    TOOL_CALLS: '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    BARE_CALLS: '{"name": "weather", "arguments": {"city": "Rome"}}',
}


@pytest.mark.parametrize("template", CALLS)
async def test_a_call_is_read_from_the_answer(begin: Begin, template: str):
    api = await begin(template=template, script={"umbrella": CALLS[template]})
    answer = await api.client.chat.completions.create(
        model="fake", messages=user("Do I need an umbrella?"), tools=[WEATHER, NEWS]
    )
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})
    assert '"name": "news"' in api.prompts[0]


@pytest.mark.parametrize("template", CALLS)
async def test_a_streamed_call_is_no_text(begin: Begin, template: str):
    api = await begin(template=template, script={"umbrella": CALLS[template]})
    async with api.client.chat.completions.stream(
        model="fake", messages=user("Do I need an umbrella?"), tools=[WEATHER]
    ) as stream:
        final = await stream.get_final_completion()
    assert not final.choices[0].message.content
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})


@pytest.mark.parametrize("text", ["It is fine.", 'It is {"fine": 1}.', "1 < 2", "<tool_call>oops", '{"name": "other"}'])
@pytest.mark.parametrize("template", CALLS)
async def test_what_is_no_call_is_text(begin: Begin, template: str, text: str):
    api = await begin(template=template, script={"umbrella": text})
    answer = await api.client.chat.completions.create(model="fake", messages=user("umbrella?"), tools=[WEATHER])
    assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == (text, None)
    streamed = ""
    async for chunk in await api.client.chat.completions.create(
        model="fake", messages=user("umbrella?"), tools=[WEATHER], stream=True
    ):
        streamed += chunk.choices[0].delta.content or ""
    assert streamed == text


async def test_text_before_calls_is_content(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"umbrella": "Let me see.\n" + 2 * CALLS[TOOL_CALLS]})
    answer = await api.client.chat.completions.create(model="fake", messages=user("umbrella?"), tools=[WEATHER])
    assert answer.choices[0].message.content == "Let me see."
    assert len({call.id for call in answer.choices[0].message.tool_calls or []}) == 2


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (TOOL_CALLS, "Let me see.\n" + 3 * CALLS[TOOL_CALLS]),
        (BARE_CALLS, f"[{CALLS[BARE_CALLS]}, {CALLS[BARE_CALLS]}]"),
    ],
)
async def test_an_answer_ends_with_its_first_call_where_more_are_not_wanted(begin: Begin, template: str, text: str):
    api = await begin(template=template, script={"umbrella": text})
    asked: dict[str, Any] = {"model": "fake", "messages": user("umbrella?"), "tools": [WEATHER]}
    whole = await api.client.chat.completions.create(**asked, parallel_tool_calls=False)
    async with api.client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        streamed = await stream.get_final_completion()
    for answer in (whole, streamed):
        assert len(answer.choices[0].message.tool_calls or []) == 1
        assert answer.choices[0].finish_reason == "tool_calls"
        assert (answer.choices[0].message.content or "") == ("Let me see." if template == TOOL_CALLS else "")
    many = await api.client.chat.completions.create(**asked, parallel_tool_calls=True)
    assert len(many.choices[0].message.tool_calls or []) > 1
    if template == TOOL_CALLS:  # what is not wanted is not even written
        assert whole.usage is not None
        assert many.usage is not None
        assert whole.usage.completion_tokens < many.usage.completion_tokens / 2


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("template", CALLS)
async def test_a_call_that_must_be_is_written_whatever_the_model_would_say(begin: Begin, template: str, choice: Any):
    api = await begin(template=template, script={"Hello": "Hello yourself!"})
    for stream in (False, True):
        if stream:
            async with api.client.chat.completions.stream(
                model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice=choice
            ) as told:
                answer = await told.get_final_completion()
        else:
            answer = await api.client.chat.completions.create(
                model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice=choice
            )
        (call,) = answer.choices[0].message.tool_calls or []
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})


async def test_parameters_may_refer_to_definitions(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    city = {"enum": ["Oslo"]}
    properties = {"city": {"$ref": "#/$defs/City"}}
    parameters = {"type": "object", "properties": properties, "required": ["city"], "$defs": {"City": city}}
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("one", "two")]
    answer = await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=tools, tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


async def test_answers_of_tools_come_back_as_messages(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"Sunny": "No umbrella."})
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    answer = await api.client.chat.completions.create(
        model="fake",
        messages=[*user("Do I need an umbrella?"), called, {"role": "tool", "tool_call_id": "c", "content": "Sunny"}],
        tools=[WEATHER],
    )  # fmt: skip
    assert answer.choices[0].message.content == "No umbrella."
    assert '<|assistant|><tool_call>{"name": "weather", "arguments": {"city": "Rome"}}' in api.prompts[0]
    assert "<|tool|>Sunny" in api.prompts[0]


async def test_tools_are_not_told_where_none_may_be_called(begin: Begin):
    api = await begin(template=TOOL_CALLS)
    await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice="none", max_tokens=3
    )
    assert "weather" not in api.prompts[0]


async def test_a_model_without_tools_says_so(begin: Begin):
    api = await begin()
    with pytest.raises(openai.BadRequestError, match="has no tools") as refused:
        await api.client.chat.completions.create(model="fake", messages=user("Hello"), tools=[WEATHER])
    assert refused.value.param == "tools"
    await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice="none", max_tokens=3
    )


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}}])
async def test_a_format_that_would_forbid_calls_is_refused_beside_tools(begin: Begin, form: dict[str, Any]):
    api = await begin(template=TOOL_CALLS)
    asked: dict[str, Any] = {"tools": [WEATHER], "response_format": form, "max_tokens": 100}
    for more in ({}, {"tool_choice": "auto"}):
        answer = await api.chat(user("Hello"), **asked, **more)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "response_format"
    none = await api.chat(user("Hello"), **asked, tool_choice="none")
    assert none.json()["choices"][0]["message"].get("tool_calls") is None
    must = await api.chat(user("Hello"), **asked, tool_choice="required")
    assert len(must.json()["choices"][0]["message"]["tool_calls"]) == 1
    free = await api.chat(user("Hello"), **asked | {"response_format": {"type": "text"}})
    assert free.status_code == 200, free.text


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
    answer = await api.chat(user("Hello"), **{"tools": [WEATHER]} | body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
