"""Chat as OpenAI's own client sees it."""

import json
from typing import Any

import pytest
from api_here import CHATML, Begin, user
from pydantic import BaseModel

HELLO = {"Hello": "Hi there."}


async def test_a_conversation_is_answered(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.client.chat.completions.create(model="fake", messages=user("Hello"))
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hi there.", "stop")
    assert (answer.object, answer.model) == ("chat.completion", "fake")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len("Hi there.") + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_messages_are_written_as_the_chat_template_says(begin: Begin):
    api = await begin()
    await api.client.chat.completions.create(
        model="fake",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "Three."},
            {"role": "user", "content": ""},
        ],
        max_tokens=5,
    )
    assert api.prompts == ["<|system|>Be brief.\n<|user|> one \ntwo\n<|assistant|>Three.\n<|user|>\n<|assistant|>"]


async def test_a_refusal_that_is_sent_back_is_what_the_assistant_said(begin: Begin):
    api = await begin()
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    said = {"role": "assistant", "content": "Yes.", "refusal": None}
    answer = await api.chat([*user("Hello"), refused, said, *user("Why?")], max_tokens=5)
    assert answer.status_code == 200, answer.text
    assert api.prompts == ["<|user|>Hello\n<|assistant|>No.\n<|assistant|>Yes.\n<|user|>Why?\n<|assistant|>"]
    mine = await api.chat([{"role": "user", "content": None, "refusal": "No."}])
    assert "has no content" in mine.text


async def test_control_tokens_in_messages_are_text(begin: Begin):
    api = await begin()
    answer = await api.client.chat.completions.create(model="fake", messages=user("<|end|>"), max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("<|user|><|end|>\n<|assistant|>")


async def test_a_stream_is_chunks_of_the_answer(begin: Begin):
    api = await begin(script=HELLO)
    stream = await api.client.chat.completions.create(model="fake", messages=user("Hello"), stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hi there."
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_ends_with_usage_where_that_is_asked_for(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.chat(user("Hello"), stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len("Hi there.") + 1


async def test_several_choices_count_their_prompt_once(begin: Begin):
    api = await begin(script=HELLO)
    one = await api.client.chat.completions.create(model="fake", messages=user("Hello"))
    three = await api.client.chat.completions.create(model="fake", messages=user("Hello"), n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert one.usage is not None
    assert three.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens


async def test_several_choices_are_streamed_side_by_side(begin: Begin):
    api = await begin(script=HELLO)
    texts = ["", ""]
    async for chunk in await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), n=2, stream=True, seed=7
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hi there.", "Hi there."]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_that_is_cut_off_says_so(begin: Begin, field: str):
    api = await begin(script=HELLO)
    answer = await api.client.chat.completions.create(model="fake", messages=user("Hello"), **{field: 2})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hi", "length")


@pytest.mark.parametrize("stop", ["there", ["!", " there"]])
async def test_stop_strings_end_an_answer(begin: Begin, stop: str | list[str]):
    api = await begin(script=HELLO)
    answer = await api.client.chat.completions.create(model="fake", messages=user("Hello"), stop=stop)
    assert (answer.choices[0].message.content or "").rstrip() == "Hi"
    assert answer.choices[0].finish_reason == "stop"


async def test_an_answer_may_take_all_the_context_that_there_is(begin: Begin):
    api = await begin(script=lambda _: "x" * 1000)
    answer = await api.client.chat.completions.create(model="fake", messages=user("Hello"))
    assert answer.choices[0].message.content == "x" * 1000


async def test_log_probabilities_of_an_answer(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(each.token for each in logprobs.content) == "Hi there."
    assert [len(each.top_logprobs) for each in logprobs.content] == [2] * 9
    assert logprobs.content[0].bytes == [ord("H")]


async def test_log_probabilities_of_a_stream_come_with_their_text(begin: Begin):
    api = await begin(script=HELLO)
    said, told = "", ""
    async for chunk in await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), logprobs=True, stream=True
    ):
        said += chunk.choices[0].delta.content or ""
        logprobs = chunk.choices[0].logprobs
        told += "".join(each.token for each in (logprobs.content or []) if logprobs) if logprobs else ""
    assert said == told == "Hi there."


class Animal(BaseModel):
    name: str
    legs: int


async def test_an_answer_is_parsed_into_a_model(begin: Begin):
    api = await begin(script={"animal": '{"name":"heron","legs":2}'})
    answer = await api.client.chat.completions.parse(
        model="fake", messages=user("An animal"), response_format=Animal, max_tokens=200
    )
    assert answer.choices[0].message.parsed == Animal(name="heron", legs=2)


async def test_a_schema_holds_whatever_the_model_would_say(begin: Begin):
    api = await begin(script={"animal": "Sure! Here is one: "})
    schema = {"type": "object", "properties": {"name": {"enum": ["heron"]}}, "required": ["name"]}
    answer = await api.chat(
        user("An animal"), response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    )
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"name": "heron"}


async def test_json_mode_gives_an_object(begin: Begin):
    api = await begin(script={"animal": "Sure!"})
    answer = await api.chat(user("An animal"), response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.json()["choices"][0]["message"]["content"]), dict)


async def test_fields_of_openai_s_own_service_are_ignored(begin: Begin):
    api = await begin(script=HELLO)
    answer = await api.chat(
        user("Hello"), model="fake", user="u-1", store=True, metadata={"a": "b"}, service_tier="auto", seed=-1,
        parallel_tool_calls=True, reasoning_effort="low", something_new={"x": 1}, tools=None, functions=[],
    )  # fmt: skip
    assert answer.json()["choices"][0]["message"]["content"] == "Hi there."


async def test_nothing_is_left_of_a_call_that_was_answered(begin: Begin):
    api = await begin(script=HELLO)
    for stream in (False, True):
        await api.chat(user("Hello"), stream=stream, n=2)
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


THINKS = (
    "{% for message in messages %}<|{{ message.role }}|>{% if '</think>' in message.content %}"
    "{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% endif %}\n{% endfor %}<|assistant|>"
)


@pytest.mark.parametrize(("template", "kept"), [(THINKS, False), (CHATML, True)])
async def test_earlier_answers_are_told_without_their_reasoning_where_the_template_says_so(
    begin: Begin, template: str, kept: bool
):
    api = await begin(template=template, script={"": "Yes."})
    talk: Any = [
        *user("2 + 2?"),
        {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n4"},
        *user("Sure?"),
        {"role": "assistant", "content": "<think>Hm.</think>Well"},
    ]
    await api.client.chat.completions.create(model="fake", messages=talk)
    assert ("Two and two." in api.prompts[0]) is kept
    assert "4<|user|>Sure?" in api.prompts[0].replace("\n", "")
    assert "Hm." in api.prompts[0], "the last question is still being answered"
