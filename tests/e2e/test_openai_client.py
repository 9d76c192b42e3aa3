"""OpenAI's own client and the real model, in front of the command that users start."""

from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from openai import OpenAI
from processes import served
from pydantic import BaseModel

import Parrot as P
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.protocol import RequestView

pytestmark = pytest.mark.model

RULES = (
    "You are an assistant of a library that lends parrots. " + "Every parrot must be back before the sun sets. " * 12
)
QUESTION = "When must my parrot be back?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def ask(client: OpenAI, *messages: tuple[str, str], **options: Any) -> Any:
    talk: Any = [{"role": role, "content": content} for role, content in messages]
    model = client.models.list().data[0].id
    return client.chat.completions.create(
        **{"model": model, "messages": talk, "max_tokens": 12, "temperature": 0} | options
    )


def test_a_program_and_a_client_read_one_prompt_once(client: OpenAI, url: str):
    @P.SemanticFunction(max_tokens=12)
    def answer(rules: str, question: str):
        """{{role:system}}{{input:rules}}
        {{role:user}}{{input:question}}
        {{role:assistant}}{{output:reply}}
        """

    first = ask(client, ("system", RULES), ("user", QUESTION))
    with P.connect(url), P.Session() as session:
        reply = answer(RULES, QUESTION)
        assert reply.get() == first.choices[0].message.content
        (request,) = session.view().requests
        assert isinstance(request, RequestView)
        usage = request.usage
    assert usage.prompt_tokens == first.usage.prompt_tokens
    assert usage.cached_tokens > 0.8 * usage.prompt_tokens
    again = ask(client, ("developer", RULES), ("user", QUESTION), ("assistant", "At sunset."), ("user", "Why?"))
    assert again.usage.prompt_tokens_details.cached_tokens >= usage.cached_tokens


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI):
    whole = ask(client, ("user", QUESTION), n=2, temperature=1, seed=5)
    texts = ["", ""]
    for chunk in ask(client, ("user", QUESTION), n=2, temperature=1, seed=5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]


class Bird(BaseModel):
    kind: Literal["parrot", "heron"]
    talks: bool


def test_an_answer_is_an_object(client: OpenAI):
    model = client.models.list().data[0].id
    answer = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "Describe a bird."}], response_format=Bird, max_tokens=60
    )
    assert isinstance(answer.choices[0].message.parsed, Bird)


def test_a_program_gets_an_object(url: str):
    @P.SemanticFunction(max_tokens=60, schema=Bird)
    def describe(what: str):
        """Describe a {{input:what}}. {{output:bird}}"""

    with P.connect(url):
        assert isinstance(describe("bird that talks").get(), Bird)


def test_a_completion_of_tokens_is_that_of_their_text(client: OpenAI):
    prompt = "One, two, three,"
    tokens = load_tokenizer(resolve("default")).encode(prompt)
    asked: Any = {"model": client.models.list().data[0].id, "max_tokens": 6, "temperature": 0, "logprobs": 1}
    by_text, by_tokens = (client.completions.create(prompt=each, **asked) for each in (prompt, tokens))
    (choice,) = by_text.choices
    assert choice.text.startswith(" ")
    assert "".join(choice.logprobs.tokens) == choice.text
    assert by_tokens.choices[0].text == choice.text
    assert by_tokens.usage.prompt_tokens == by_text.usage.prompt_tokens == len(tokens)


def test_tools_of_a_model_that_has_none_are_refused(client: OpenAI, url: str):
    tools = [{"type": "function", "function": {"name": "look"}}]
    body = {"messages": [{"role": "user", "content": QUESTION}], "tools": tools}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "does not support tools" in answer.json()["error"]["message"]
