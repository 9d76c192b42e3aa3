"""Ids of calls: such as the model's chat template takes, whoever made them."""

import re
from typing import Any

import pytest
from api_here import BARE_CALLS, Begin, user

NEWS = {"type": "function", "function": {"name": "news"}}
A_CALL = '{"name": "news", "arguments": {}}'
SHORT_IDS = (
    "{% for message in messages %}{% for call in message.tool_calls or [] %}{{ check(call.id) }}{% endfor %}"
    "{% if message.tool_call_id %}{{ check(message.tool_call_id) }}{% endif %}{% endfor %}"
)
CHECK = (
    "{% macro check(id) %}{% if id|length != 9 %}{{ raise_exception('Tool call IDs have a length of 9!') }}{% endif %}"
    "<{{ id }}>{% endmacro %}"
)


@pytest.mark.parametrize("theirs", [None, "call_QLyqOJ0yGtKDRhyM"])
async def test_ids_of_calls_are_such_as_the_model_takes(begin: Begin, theirs: str | None):
    api = await begin(template=CHECK + SHORT_IDS + BARE_CALLS, script={"Sunny": "Fine.", "umbrella": A_CALL})
    talk: list[Any] = user("umbrella?")
    answer = await api.client.chat.completions.create(model="fake", messages=talk, tools=[NEWS])
    (call,) = answer.choices[0].message.tool_calls or []
    call.id = theirs or call.id
    talk += [answer.choices[0].message.model_dump(), {"role": "tool", "content": "Sunny", "tool_call_id": call.id}]
    again = await api.client.chat.completions.create(model="fake", messages=talk, tools=[NEWS])
    assert again.choices[0].message.content == "Fine."
    of_call, of_result = re.findall("<([0-9A-Za-z]{9})>", api.prompts[1])
    assert of_call == of_result
