"""Tools: told to the model by its chat template, read from what it wrote."""

import json
from typing import Any

import openai
import pytest
from api_here import BARE_CALLS, TOOL_CALLS, Api, Begin, user

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather somewhere.",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
    },
}
NEWS = {"type": "function", "function": {"name": "news"}}
STRICT = WEATHER | {"function": WEATHER["function"] | {"strict": True}}
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
        model="fake", messages=user("Do I need an umbrella?"), tools=[STRICT]
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


@pytest.mark.parametrize("arguments", ["[1]", "5", '"Rome"', '"[1]"', '{"city": NaN}'])
@pytest.mark.parametrize("template", CALLS)
async def test_a_call_whose_arguments_are_no_object_is_text(begin: Begin, template: str, arguments: str):
    text = CALLS[template].replace('{"city": "Rome"}', arguments)
    api = await begin(template=template, script={"umbrella": text})
    answer = await api.client.chat.completions.create(model="fake", messages=user("umbrella?"), tools=[WEATHER])
    (choice,) = answer.choices
    assert (choice.message.tool_calls, choice.message.content, choice.finish_reason) == (None, text, "stop")


@pytest.mark.parametrize("arguments", ["null", '""', '"{}"', "{}"])
@pytest.mark.parametrize("template", CALLS)
async def test_a_conversation_goes_on_with_a_call_without_arguments(begin: Begin, template: str, arguments: str):
    text = CALLS[template].replace("weather", "news").replace('{"city": "Rome"}', arguments)
    api = await begin(template=template, script={"Sunny": "Fine.", "new?": text})
    talk: list[Any] = user("What is new?")
    answer = await api.client.chat.completions.create(model="fake", messages=talk, tools=[NEWS])
    (call,) = answer.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {}
    talk += [answer.choices[0].message.model_dump(), {"role": "tool", "content": "Sunny", "tool_call_id": call.id}]
    again = await api.client.chat.completions.create(model="fake", messages=talk, tools=[NEWS])
    assert again.choices[0].message.content == "Fine."


@pytest.mark.parametrize("template", CALLS)
async def test_arguments_may_name_what_is_no_character(begin: Begin, template: str):
    text = CALLS[template].replace("Rome", r"\ud83e and \ud83e\udd9c")
    api = await begin(template=template, script={"umbrella": text})
    for stream in (False, True):
        answer = await api.chat(user("umbrella?"), tools=[WEATHER], stream=stream)
        assert answer.status_code == 200, answer.text
        assert "internal_error" not in answer.text
        told = answer.text.partition('"arguments":')[2]
        arguments, _ = json.JSONDecoder().raw_decode(told)
        assert json.loads(arguments) == {"city": "\ud83e and 🦜"}


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
    streamed, _ = await both_ways(api, **asked, parallel_tool_calls=False, response_format={"type": "text"})
    for choice in (whole.choices[0], streamed):
        assert len(choice.message.tool_calls or []) == 1
        assert choice.finish_reason == "tool_calls"
        assert (choice.message.content or "") == ("Let me see." if template == TOOL_CALLS else "")
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
                model="fake", messages=user("Hello"), tools=[STRICT], tool_choice=choice
            ) as told:
                answer = await told.get_final_completion()
        else:
            answer = await api.client.chat.completions.create(
                model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice=choice
            )
        (call,) = answer.choices[0].message.tool_calls or []
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})


@pytest.mark.parametrize(
    "more",
    [
        {"properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": {"enum": ["Oslo"]}}},
        {"properties": {"city": {"$ref": "#/definitions/City"}}, "definitions": {"City": {"enum": ["Oslo"]}}},
        {"properties": {"city": {"$ref": "#/properties/town"}, "town": {"enum": ["Oslo"]}}, "$id": "http://a/schema"},
        {"properties": {"city": {"anyOf": [{"enum": ["Oslo"]}, {"$ref": "#"}]}}, "additionalProperties": False},
    ],
    ids=["$defs", "definitions", "a part", "itself"],
)
async def test_parameters_may_refer_to_parts_of_themselves(begin: Begin, more: dict[str, Any]):
    api = await begin(template=TOOL_CALLS, script={"Hello": '{"name": "one", "arguments": {"city": {"city": "Oslo"}}}'})
    parameters = {"type": "object", "required": ["city"], **more}
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("one", "two")]
    answer = await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=tools, tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) in ({"city": "Oslo"}, {"city": {"city": "Oslo"}})


async def test_a_function_that_says_nothing_of_parameters_has_none(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"Hello": '{"name": "news", "arguments": {"about": "all"}}'})
    answer = await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=[NEWS], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("news", "{}")


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
    with pytest.raises(openai.BadRequestError, match="does not support tools") as refused:
        await api.client.chat.completions.create(model="fake", messages=user("Hello"), tools=[WEATHER])
    assert refused.value.param == "tools"
    await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), tools=[WEATHER], tool_choice="none", max_tokens=3
    )


TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["name", "next"],
    "additionalProperties": False,
}
FORMATTED: dict[str, Any] = {
    "tools": [WEATHER, NEWS],
    "response_format": {"type": "json_schema", "json_schema": {"name": "tree", "strict": True, "schema": TREE}},
    "max_tokens": 300,
}


def told(call: Any) -> tuple[str, str]:
    return call.function.name, call.function.arguments


async def both_ways(api: Api, **body: Any) -> tuple[Any, str]:
    """A whole answer's choice, which a stream tells as well; and what pieces the stream's text came in."""
    asked: dict[str, Any] = {"model": "fake", "messages": user("umbrella?")} | FORMATTED | body
    (whole,) = (await api.client.chat.completions.create(**asked)).choices
    pieces, calls, reason = list[str](), list[Any](), None
    async for chunk in await api.client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        pieces.append(choice.delta.content or "")
        calls += choice.delta.tool_calls or []
        reason = reason or choice.finish_reason
    assert reason == whole.finish_reason
    assert "".join(pieces) == (whole.message.content or "")
    assert list(map(told, calls)) == list(map(told, whole.message.tool_calls or []))
    return whole, "|".join(pieces)


@pytest.mark.parametrize("template", CALLS)
async def test_beside_a_format_the_model_may_call_a_tool(begin: Begin, template: str):
    api = await begin(template=template, script={"umbrella": CALLS[template]})
    choice, _ = await both_ways(api)
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})


@pytest.mark.parametrize("name", ["fir", "weather", "<tool_call>{}</tool_call>"])
@pytest.mark.parametrize("template", CALLS)
async def test_or_answer_in_the_format_piece_by_piece(begin: Begin, template: str, name: str):
    text = json.dumps({"name": name, "next": {"name": "oak", "next": None}})
    api = await begin(template=template, script={"umbrella": text})
    choice, pieces = await both_ways(api)
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", text, None)
    assert "o|a|k" in pieces


@pytest.mark.parametrize("text", ["It is fine.", '{"name": 7}', "[1", '<tool_call>{"name": "other"}', ""])
@pytest.mark.parametrize("template", CALLS)
async def test_and_nothing_else_whatever_it_would_say(begin: Begin, template: str, text: str):
    api = await begin(template=template, script={"umbrella": text})
    choice, _ = await both_ways(api)
    if choice.message.tool_calls:
        assert choice.finish_reason == "tool_calls"
        assert {call.function.name for call in choice.message.tool_calls} <= {"weather", "news"}
    else:
        assert {*json.loads(choice.message.content)} == {"name", "next"}


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(
    ("template", "text"),
    [
        (TOOL_CALLS, 2 * (CALLS[TOOL_CALLS] + "\n")),
        (BARE_CALLS, f"[{CALLS[BARE_CALLS]}, {CALLS[BARE_CALLS]}]"),
    ],
)
async def test_beside_a_format_there_are_several_calls_where_they_are_wanted(
    begin: Begin, template: str, text: str, parallel: bool
):
    api = await begin(template=template, script={"umbrella": text})
    choice, _ = await both_ways(api, parallel_tool_calls=parallel)
    if parallel:
        assert len(choice.message.tool_calls) == 2
    else:
        assert len(choice.message.tool_calls or [0]) == 1


async def test_each_choice_calls_or_answers(begin: Begin):
    answers = iter([CALLS[TOOL_CALLS], '{"name": "fir", "next": null}'])
    api = await begin(template=TOOL_CALLS, script=lambda prompt: next(answers))
    answer = await api.client.chat.completions.create(model="fake", messages=user("Hello"), n=2, **FORMATTED)
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls", "stop"]


async def test_what_is_cut_off_is_no_call(begin: Begin):
    api = await begin(template=TOOL_CALLS, script={"umbrella": CALLS[TOOL_CALLS]})
    choice, _ = await both_ways(api, max_tokens=40)
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert choice.message.content == CALLS[TOOL_CALLS][:40]


@pytest.mark.parametrize("template", CALLS)
async def test_what_must_be_called_or_must_not_is_as_without_a_format(begin: Begin, template: str):
    api = await begin(template=template, script={"Hello": CALLS[template]})
    none = await api.chat(user("Hello"), **FORMATTED, tool_choice="none")
    assert {*json.loads(none.json()["choices"][0]["message"]["content"])} == {"name", "next"}
    for must in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = await api.chat(user("Hello"), **FORMATTED, tool_choice=must)
        assert len(answer.json()["choices"][0]["message"]["tool_calls"]) == 1
    text = await api.chat(user("Hello"), **FORMATTED | {"response_format": {"type": "text"}})
    assert len(text.json()["choices"][0]["message"]["tool_calls"]) == 1


@pytest.mark.parametrize("template", CALLS)
async def test_json_mode_beside_tools_gives_an_object_or_calls(begin: Begin, template: str):
    json_mode = {"response_format": {"type": "json_object"}}
    for text, calls in ((CALLS[template], 1), ('{"name": "weather"}', 0), ('{"a": [1]}', 0)):
        api = await begin(template=template, script={"umbrella": text})
        choice, _ = await both_ways(api, **json_mode)
        assert len(choice.message.tool_calls or []) == calls
        assert choice.message.content == (None if calls else text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "what"}}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "what"}}}},
    ],
)
async def test_both_schemas_have_to_be_such(begin: Begin, wrong: dict[str, Any]):
    api = await begin(template=TOOL_CALLS)
    answer = await api.chat(user("Hello"), **FORMATTED | wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_schema")
    assert answer.json()["error"]["param"] is None, "either may be meant"
    alone = {name: value for name, value in wrong.items() if name != "tools"} or wrong | {"tool_choice": "required"}
    answer = await api.chat(user("Hello"), **alone)
    assert answer.json()["error"]["param"] == next(iter(wrong))


@pytest.mark.parametrize("template", CALLS)
async def test_a_strict_function_is_called_as_it_says_or_not_at_all(begin: Begin, template: str):
    script = {
        "fine?": "It is fine.",
        "umbrella?": CALLS[template],
        "coat?": CALLS[template].replace("Rome", "Oslo"),
        "new?": CALLS[template].replace("weather", "news").replace("Rome", "Oslo"),
    }
    api = await begin(template=template, script=script)
    calls = {
        "fine?": None,
        "umbrella?": ("weather", {"city": "Rome"}),
        "coat?": ("weather", {"city": "Rome"}),
        "new?": ("news", {"city": "Oslo"}),
    }
    for text, call in calls.items():
        for parallel in (True, False):
            choice, _ = await both_ways(
                api,
                messages=user(text),
                tools=[STRICT, NEWS],
                response_format={"type": "text"},
                parallel_tool_calls=parallel,
            )
            assert choice.message.content == (script[text] if call is None else None)
            found = [(name, json.loads(arguments)) for name, arguments in map(told, choice.message.tool_calls or [])]
            assert found == ([] if call is None else [call])
    assert not any("strict" in prompt for prompt in api.prompts)


async def test_where_calls_begin_with_a_control_token_nothing_holds_them(begin: Begin):
    wrong = CALLS[BARE_CALLS].replace("Rome", "Oslo")
    api = await begin(template=BARE_CALLS + "{# [TOOL_CALLS] #}", script={"umbrella": wrong})
    choice, _ = await both_ways(api, tools=[STRICT], response_format={"type": "text"})
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
