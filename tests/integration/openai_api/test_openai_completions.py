"""Completions: texts and tokens that the model goes on from."""

from typing import Any

import pytest
from api_here import Begin

SCRIPT = {"Once upon": " a time there was", "Twice": " as nice"}


async def test_a_prompt_is_completed_with_the_space_that_belongs_there(begin: Begin):
    api = await begin(script=SCRIPT)
    answer = await api.client.completions.create(model="fake", prompt="Once upon")
    assert (answer.choices[0].text, answer.object) == (" a time there wa", "text_completion")
    assert answer.choices[0].finish_reason == "length"  # 16 tokens, as OpenAI has it
    assert api.prompts == ["Once upon"]


async def test_several_prompts_are_several_choices_each(begin: Begin):
    api = await begin(script=SCRIPT)
    answer = await api.client.completions.create(model="fake", prompt=["Once upon", "Twice"], n=2, max_tokens=50)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, " a time there was"), (1, " a time there was"), (2, " as nice"), (3, " as nice")
    ]  # fmt: skip
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("Once upon") + len("Twice")


@pytest.mark.parametrize("prompt", [list(b"Twice"), [list(b"Twice")]])
async def test_a_prompt_may_be_tokens(begin: Begin, prompt: list[int]):
    api = await begin(script=SCRIPT)
    answer = await api.client.completions.create(model="fake", prompt=prompt)
    assert answer.choices[0].text == " as nice"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


@pytest.mark.parametrize("prompt", ["Twice", list(b"Twice")])
async def test_echo_repeats_the_prompt(begin: Begin, prompt: str | list[int]):
    api = await begin(script=SCRIPT)
    answer = await api.client.completions.create(model="fake", prompt=prompt, echo=True)
    assert answer.choices[0].text == "Twice as nice"
    stream = await api.client.completions.create(model="fake", prompt=prompt, echo=True, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Twice as nice"


async def test_an_empty_prompt_is_completed_too(begin: Begin):
    api = await begin(script=lambda _: "out of nothing")
    answer = await api.client.completions.create(model="fake", prompt="")
    assert answer.choices[0].text == "out of nothing"


async def test_log_probabilities_say_where_their_tokens_are(begin: Begin):
    api = await begin(script=SCRIPT)
    whole = await api.client.completions.create(model="fake", prompt="Twice", logprobs=2)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == " as nice"
    assert logprobs.text_offset == list(range(8))
    assert len((logprobs.top_logprobs or [])[0]) == 2
    offsets: list[int] = []
    async for chunk in await api.client.completions.create(model="fake", prompt="Twice", logprobs=0, stream=True):
        told = chunk.choices[0].logprobs
        offsets += (told.text_offset or []) if told else []
    assert offsets == list(range(8))


async def test_offsets_count_characters_whose_bytes_are_several_tokens(begin: Begin):
    api = await begin(script=lambda _: "é aé b")
    asked: dict[str, Any] = {"model": "fake", "prompt": "x", "logprobs": 0}
    whole = await api.client.completions.create(**asked)
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.text_offset == [0, 0, 1, 2, 3, 3, 4, 5]
    offsets: list[int] = []
    async for chunk in await api.client.completions.create(**asked, stream=True):
        told = chunk.choices[0].logprobs
        offsets += (told.text_offset or []) if told else []
    assert offsets == [0, 0, 1, 2, 3, 3, 4, 5]


async def test_a_stream_of_several_prompts(begin: Begin):
    api = await begin(script=SCRIPT)
    texts = ["", ""]
    reasons: list[str] = []
    stream = await api.client.completions.create(
        model="fake", prompt=["Once upon", "Twice"], stream=True, max_tokens=50, stream_options={"include_usage": True}
    )
    usage = None
    async for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert texts == [" a time there was", " as nice"]
    assert reasons == ["stop", "stop"]
    assert usage is not None
    assert usage.prompt_tokens == 14
