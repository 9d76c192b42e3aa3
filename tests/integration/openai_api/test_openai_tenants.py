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
    for stream in (False, True):
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.chat.completions.create(**ASKED, stream=stream)
        assert refused.value.code == "unauthorized"


async def test_the_same_idempotency_key_of_another_tenant_is_another(clients: tuple[AsyncOpenAI, AsyncOpenAI]):
    headers = {"Idempotency-Key": "k-1"}
    asking = (*clients[:1] * 2, clients[1])
    first, again, other = [await client.chat.completions.create(**ASKED, extra_headers=headers) for client in asking]
    assert first.id == again.id != other.id


@pytest.mark.parametrize("parrot", [{"get": "story"}, {"inputs": {"x": "story"}}, {"output": "own"}])
async def test_another_tenant_s_session_is_not_there(clients: tuple[AsyncOpenAI, AsyncOpenAI], parrot: dict[str, Any]):
    ann, bob = clients
    await ann.chat.completions.create(**ASKED, extra_body={"parrot": {"session": "s-1", "output": "story"}})
    messages: Any = [] if "get" in parrot else [{"role": "user", "content": "{{input:x}}"}]
    with pytest.raises(openai.NotFoundError, match="no session 's-1'"):
        await bob.chat.completions.create(
            model="fake", messages=messages, extra_body={"parrot": {"session": "s-1", **parrot}}
        )
