"""`chat_template_kwargs`, which other servers that speak OpenAI's API have: variables of the model's chat template."""

from typing import Any

import openai
import pytest
from api_here import CHATML, Begin, user

THINKER = (
    "{% for message in messages %}<|{{ message.role }}|>{% if '</think>' in message.content and not keep %}"
    "{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ASKED = "<|user|>Hello\n<|assistant|>"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kwargs", "opened"),
    [({"enable_thinking": False}, "<think>\n\n</think>\n\n"), ({"enable_thinking": True}, ""), ({}, ""), (None, "")],
)
async def test_thinking_can_be_switched_off(begin: Begin, kwargs: Any, opened: str, stream: bool):
    api = await begin(template=THINKER, script={"": "Hi."})
    answer: Any = await api.client.chat.completions.create(
        model="fake", messages=user("Hello"), stream=stream, extra_body={"chat_template_kwargs": kwargs}
    )
    texts = (
        [chunk.choices[0].delta.content or "" async for chunk in answer]
        if stream
        else [answer.choices[0].message.content]
    )
    assert "".join(texts) == "Hi."
    assert api.prompts == [ASKED + opened]


async def test_all_choices_have_it(begin: Begin):
    api = await begin(template=THINKER)
    answer = await api.chat(user("Hello"), n=2, max_tokens=3, chat_template_kwargs={"enable_thinking": False})
    assert answer.status_code == 200, answer.text
    assert set(api.prompts) == {f"{ASKED}<think>\n\n</think>\n\n"}


@pytest.mark.parametrize(("kwargs", "kept"), [({"enable_thinking": False}, False), ({"keep": True}, True)])
async def test_reasoning_of_earlier_answers_is_told_where_the_template_then_tells_it(
    begin: Begin, kwargs: dict[str, bool], kept: bool
):
    api = await begin(template=THINKER)
    talk = [*user("2 + 2?"), {"role": "assistant", "content": "<think>\nTwo.\n</think>\n\n4"}, *user("Sure?")]
    assert (await api.chat(talk, max_tokens=3, chat_template_kwargs=kwargs)).status_code == 200
    assert ("Two." in api.prompts[0]) is kept


@pytest.mark.parametrize(
    ("template", "kwargs", "why"),
    [
        (THINKER, {"enable_thoughts": False}, "Did you mean enable_thinking"),
        (THINKER, {"add_generation_prompt": False}, "the service sets itself"),
        (THINKER, {"messages": []}, "the service sets itself"),
        (CHATML, {"enable_thinking": False}, "It reads none"),
        (None, {"enable_thinking": False}, "no chat template"),
        (THINKER, "no", "valid dictionary"),
        (THINKER, [1], "valid dictionary"),
    ],
)
async def test_what_makes_no_sense_is_refused(begin: Begin, template: str | None, kwargs: Any, why: str):
    api = await begin(template=template)
    with pytest.raises(openai.BadRequestError, match=why) as refused:
        await api.client.chat.completions.create(
            model="fake", messages=user("Hello"), extra_body={"chat_template_kwargs": kwargs}
        )
    assert refused.value.param == "chat_template_kwargs"
    assert api.prompts == []
    assert "parrot_sessions 0.0" in (await api.http.get("/metrics")).text


async def test_a_completion_has_no_template(begin: Begin):
    api = await begin(template=THINKER)
    answer = await api.complete("Hello", chat_template_kwargs={"enable_thinking": False})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "chat_template_kwargs"
    assert (await api.complete("Hello", chat_template_kwargs={}, max_tokens=2)).status_code == 200


@pytest.mark.parametrize("value", [False, True])
async def test_a_variable_beside_the_field_is_told_where_it_belongs(begin: Begin, value: bool):
    api = await begin(template=THINKER)
    answer = await api.chat(user("Hello"), enable_thinking=value)
    assert answer.status_code == 400
    assert "chat_template_kwargs" in answer.json()["error"]["message"]


async def test_a_key_that_stands_for_a_request_stands_for_its_variables_too(begin: Begin):
    api = await begin(template=THINKER)

    async def ask(**body: Any) -> int:
        body = {"messages": user("Hello"), "max_tokens": 3, **body}
        return (await api.http.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "k"})).status_code

    assert await ask(chat_template_kwargs={"enable_thinking": False}) == 200
    assert await ask(chat_template_kwargs={"enable_thinking": False}) == 200
    assert await ask() != 200
    assert len(api.prompts) == 1


@pytest.mark.parametrize("depth", [300, 5_000])
async def test_deep_values_are_no_faults(begin: Begin, depth: int):
    api = await begin(template="{{ x | tojson }}" + CHATML)
    body = '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "chat_template_kwargs": {"x": %s}}'
    content = body % ("[" * depth + "]" * depth)
    answer = await api.http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in {200, 400}, answer.text
