"""OpenAI's clients of several tenants: keys where these clients put them, and nothing of one for another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from api_here import Begin
from openai import AsyncOpenAI

from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

HELLO: Any = [{"role": "user", "content": "Hello"}]
ASKED: Any = {"model": "fake", "messages": HELLO, "max_tokens": 5}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TenantStore]:
    store = TenantStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
async def clients(store: TenantStore, begin: Begin) -> tuple[AsyncOpenAI, AsyncOpenAI]:
    """Of two tenants. The store comes first, so that it is closed last."""
    keys: list[str] = []
    for tenant in ("ann", "bob"):
        store.create_tenant(tenant, Limits())
        keys.append(store.create_key(tenant)[1])
    api = await begin(directory=Directory(store))
    ann, bob = (api.client.with_options(api_key=key) for key in keys)
    return ann, bob


async def test_the_key_is_the_client_s_api_key(clients: tuple[AsyncOpenAI, AsyncOpenAI]):
    ann, _ = clients
    assert (await ann.chat.completions.create(**ASKED)).choices
    assert [model.id async for model in ann.models.list()] == ["fake"]


async def test_without_a_key_that_opens_nothing_is_answered(clients: tuple[AsyncOpenAI, AsyncOpenAI]):
    stranger = clients[0].with_options(api_key="sk-something")
    asking = [
        lambda: stranger.chat.completions.create(**ASKED),
        lambda: stranger.chat.completions.create(**ASKED, stream=True),
        lambda: stranger.completions.create(model="fake", prompt="Hi"),
        lambda: stranger.models.list(),
        lambda: stranger.models.retrieve("fake"),
    ]
    for ask in asking:
        with pytest.raises(openai.AuthenticationError) as refused:
            await ask()
        told = (refused.value.code, refused.value.type, refused.value.param)
        assert told == ("invalid_api_key", "authentication_error", None)


async def test_the_same_idempotency_key_of_another_tenant_is_another(clients: tuple[AsyncOpenAI, AsyncOpenAI]):
    headers = {"Idempotency-Key": "k-1"}
    asking = (*clients[:1] * 2, clients[1])
    first, again, other = [await client.chat.completions.create(**ASKED, extra_headers=headers) for client in asking]
    assert first.id == again.id != other.id


@pytest.mark.parametrize("parrot", [{"get": "story"}, {"inputs": {"x": "story"}}])
async def test_another_tenant_s_session_is_not_there(clients: tuple[AsyncOpenAI, AsyncOpenAI], parrot: dict[str, Any]):
    ann, bob = clients
    await ann.chat.completions.create(**ASKED, extra_body={"parrot": {"session": "s-1", "output": "story"}})
    messages: Any = [] if "get" in parrot else [{"role": "user", "content": "{{input:x}}"}]
    for session in ("s-1", "s-2"):
        with pytest.raises(openai.NotFoundError, match=f"no variable '{session}:story'"):
            await bob.chat.completions.create(
                model="fake", messages=messages, extra_body={"parrot": {"session": session, **parrot}}
            )


async def test_tenants_have_sessions_and_outputs_of_the_same_names(clients: tuple[AsyncOpenAI, AsyncOpenAI]):
    named = {"parrot": {"session": "s-1", "output": "story"}}
    messages = [[{"role": "user", "content": f"Hello, {name}"}] for name in ("Ann", "Bob")]
    told = [
        (await client.chat.completions.create(model="fake", messages=said, extra_body=named)).choices  # type: ignore[arg-type]
        for client, said in zip(clients, messages, strict=True)
    ]
    asked: Any = {"model": "fake", "messages": [], "extra_body": {"parrot": {"session": "s-1", "get": "story"}}}
    again = [(await client.chat.completions.create(**asked)).choices for client in clients]
    assert [one[0].message.content for one in again] == [one[0].message.content for one in told]
    assert told[0][0].message.content != told[1][0].message.content


async def client_of(store: TenantStore, begin: Begin, limits: Limits) -> AsyncOpenAI:
    """Of a tenant with these limits; the model never ends by itself."""
    store.create_tenant("ann", limits)
    _, key = store.create_key("ann")
    api = await begin(directory=Directory(store), script=lambda _: "word " * 1000)
    return api.client.with_options(api_key=key)


@pytest.mark.parametrize(
    ("limits", "written"),
    [
        (Limits(output_tokens=7), 7),
        (Limits(tokens_per_minute=100), 50),
        (Limits(session_tokens=90, output_tokens=60), 45),
    ],
)
async def test_a_request_that_does_not_say_how_much_it_may_write_fits_its_tenant_s_limits(
    store: TenantStore, begin: Begin, limits: Limits, written: int
):
    client = await client_of(store, begin, limits)
    answer = await client.chat.completions.create(model="fake", messages=HELLO)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == written
    assert answer.choices[0].finish_reason == "length"


async def test_a_completion_that_does_not_say_so_either_fits(store: TenantStore, begin: Begin):
    client = await client_of(store, begin, Limits(output_tokens=3))
    answer = await client.completions.create(model="fake", prompt="Hello")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_all_choices_and_prompts_together_fit(store: TenantStore, begin: Begin):
    client = await client_of(store, begin, Limits(tokens_per_minute=400))
    answer = await client.chat.completions.create(model="fake", messages=HELLO, n=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * 50


async def test_a_completion_s_choices_of_several_prompts_fit(store: TenantStore, begin: Begin):
    client = await client_of(store, begin, Limits(session_tokens=80))
    answer = await client.completions.create(model="fake", prompt=["Hello", "Oh"], n=2)
    assert [len(choice.text) for choice in answer.choices] == [10] * 4


async def test_what_is_asked_for_beyond_a_limit_is_refused(store: TenantStore, begin: Begin):
    client = await client_of(store, begin, Limits(output_tokens=3))
    with pytest.raises(openai.APIStatusError, match="may write 5 tokens"):
        await client.chat.completions.create(**ASKED)
