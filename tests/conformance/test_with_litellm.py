"""litellm."""

from typing import Any

import litellm
import pytest
from shapes import LONG, MESSAGES, Animal


@pytest.fixture
def asked(url: str, model: str) -> dict[str, Any]:
    return {
        "model": f"openai/{model}",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "max_tokens": 40,
        "temperature": 0,
        "num_retries": 0,
    }


async def test_chat_and_streams(asked: dict[str, Any]):
    whole = litellm.completion(messages=MESSAGES, **asked)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage.completion_tokens > 0
    chunks = list(litellm.completion(messages=MESSAGES, stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    answer = await litellm.acompletion(messages=MESSAGES, **asked)
    assert answer.choices[0].message.content == text


def test_schemas(asked: dict[str, Any]):
    answer = litellm.completion(
        messages=[{"role": "user", "content": "Describe a heron."}], response_format=Animal, **asked
    )
    assert Animal.model_validate_json(answer.choices[0].message.content)


def test_completions(asked: dict[str, Any]):
    answer = litellm.text_completion(prompt="One, two,", **asked | {"model": "text-completion-" + asked["model"]})
    assert answer.choices[0].text


def test_errors(asked: dict[str, Any]):
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(messages=LONG, **asked)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=MESSAGES, **asked | {"model": "openai/nobody"})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(messages=MESSAGES, **asked | {"temperature": 9})


def test_tools(tools_url: str):
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    answer = litellm.completion(
        model="openai/fake",
        api_base=f"{tools_url}/v1",
        api_key="none",
        messages=[{"role": "user", "content": "Do I need an umbrella?"}],
        tools=[weather],
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"
    assert answer.choices[0].finish_reason == "tool_calls"
