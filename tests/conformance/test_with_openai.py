"""The official client."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from shapes import LONG, MESSAGES, Animal, Weather


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_chat(client: OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_what_was_read_before_is_read_from_the_cache(real_url: str):
    client = OpenAI(base_url=f"{real_url}/v1", api_key="none")
    talk: Any = [*MESSAGES, {"role": "assistant", "content": "A parrot."}, {"role": "user", "content": "Really? " * 30}]
    asked: Any = {"model": client.models.list().data[0].id, "messages": talk, "max_tokens": 2}
    answers = [client.chat.completions.create(**asked) for _ in range(2)]
    used = [answer.usage.prompt_tokens_details.cached_tokens for answer in answers]
    assert used[1] > used[0]
    assert used[1] > 60


def test_streams(client: OpenAI, model: str):
    asked = {"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_async_chat_and_streams(url: str, model: str):
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, seed=1, n=2)
        assert len(answer.choices) == 2
        stream = await client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=12, seed=1, n=2, stream=True
        )
        texts = ["", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert texts == [choice.message.content for choice in answer.choices]


def test_parse(client: OpenAI, model: str):
    answer = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "Describe a heron."}], response_format=Animal, max_tokens=100
    )
    assert isinstance(answer.choices[0].message.parsed, Animal)


def test_parse_of_a_stream(client: OpenAI, model: str):
    with client.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": "Describe a heron."}], response_format=Animal, max_tokens=100
    ) as stream:
        kinds = [event.type for event in stream]
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Animal)
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)


def test_a_parse_that_was_cut_off(client: OpenAI, model: str):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=model, messages=[{"role": "user", "content": "A heron."}], response_format=Animal, max_tokens=2
        )


def test_log_probabilities(client: OpenAI, model: str):
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0
    )
    content = answer.choices[0].logprobs.content
    assert "".join(each.token for each in content).strip() == answer.choices[0].message.content.strip()
    assert all(each.logprob == max(other.logprob for other in each.top_logprobs) for each in content)


def test_completions(client: OpenAI, model: str):
    texts = client.completions.create(model=model, prompt=["One, two,", "A, B,"], max_tokens=4, temperature=0)
    assert [choice.index for choice in texts.choices] == [0, 1]
    echoed = client.completions.create(model=model, prompt="One, two,", max_tokens=4, temperature=0, echo=True)
    assert echoed.choices[0].text == "One, two," + texts.choices[0].text


def test_errors(client: OpenAI, model: str):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as too_long:
            client.chat.completions.create(model=model, messages=LONG, stream=stream)
        assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature") as hot:
        client.chat.completions.create(model=model, messages=MESSAGES, temperature=9)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="image_url"):
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        )


def test_models(client: OpenAI, model: str):
    assert client.models.retrieve(model).object == "model"


def test_a_graph(client: OpenAI, model: str, url: str):
    for output, prompt, inputs in (
        ("story", "Tell a story.", {}),
        ("title", "Find a title: {{input:story | truncate(20)}}", {"story": "story"}),
    ):
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=20,
            extra_body={"parrot": {"session": f"graph-{model[:5]}", "output": output, "inputs": inputs, "wait": False}},
        )
    title = client.chat.completions.create(
        model=model, messages=[], extra_body={"parrot": {"session": f"graph-{model[:5]}", "get": "title"}}
    )
    assert title.choices[0].message.content
    client.delete(f"{url}/v1/sessions/graph-{model[:5]}", cast_to=type(None))


# --- Responses ----------------------------------------------------------------------------------------------


def test_responses(client: OpenAI, model: str):
    asked: Any = {"model": model, "input": "Who are you?", "instructions": "You are a parrot.", "temperature": 0}
    answer = client.responses.create(**asked, max_output_tokens=12)
    assert answer.output_text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    chat = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, temperature=0)
    assert answer.output_text == chat.choices[0].message.content
    again = client.responses.retrieve(answer.id)
    assert again.output == answer.output
    client.responses.delete(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_streams_of_responses(client: OpenAI, model: str):
    asked: Any = {"model": model, "input": "Who are you?", "temperature": 0, "max_output_tokens": 12}
    events = list(client.responses.create(**asked, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert text == events[-1].response.output_text == client.responses.create(**asked).output_text


def test_parse_of_responses(client: OpenAI, model: str):
    asked: Any = {"model": model, "input": "Describe a heron.", "text_format": Animal, "max_output_tokens": 100}
    assert isinstance(client.responses.parse(**asked).output_parsed, Animal)
    with client.responses.stream(**asked) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Animal)


def test_a_tool_loop_of_responses(tools_url: str):
    client = OpenAI(base_url=f"{tools_url}/v1", api_key="none")
    tool: Any = {"type": "function", "name": "weather", "parameters": Weather.model_json_schema(), "strict": True}
    asked: Any = {"model": "fake", "tools": [tool]}
    first = client.responses.create(**asked, input="Do I need an umbrella in Rome?")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert Weather.model_validate_json(call.arguments).city == "Rome"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}]
    second = client.responses.create(**asked, input=result, previous_response_id=first.id)
    assert second.output_text == "Leave it at home."


def test_a_response_that_goes_on_reads_the_conversation_from_the_cache(real_url: str):
    client = OpenAI(base_url=f"{real_url}/v1", api_key="none")
    asked: Any = {"model": client.models.list().data[0].id, "max_output_tokens": 20}
    first = client.responses.create(**asked, input="Tell me of parrots. " * 20)
    second = client.responses.create(**asked, input="Really?", previous_response_id=first.id)
    assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens // 2


def test_errors_of_responses(client: OpenAI, model: str):
    with pytest.raises(openai.BadRequestError, match="web_search") as refused:
        client.responses.create(model=model, input="Hi", tools=[{"type": "web_search"}])
    assert refused.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.responses.create(model=model, input=LONG)
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")
