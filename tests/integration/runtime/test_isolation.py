"""What tenants can learn of each other from the KV cache: of published texts that they are there, of others nothing."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tiny_model import CONTEXT, write_tiny_model

from parrotserve.config import ServiceConfig
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import PAGE_TOKENS, BackendName, NativeSettings
from parrotserve.ids import RequestId, SessionId, TenantId, VariableId, new_id
from parrotserve.protocol import Submit
from parrotserve.runtime.catalog import fake_model
from parrotserve.runtime.service import Service
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.store import TenantStore

ANN, BOB = TenantId("ann"), TenantId("bob")
INSTRUCTION = "A long instruction that is the same for all who use this service. "
SECRET = "What Ann says to it, and to nobody else: that is hers."


@pytest.fixture
def store(tmp_path: Path):
    store = TenantStore(tmp_path / "data")
    yield store
    store.close()


@pytest.fixture
async def service(tmp_path: Path, store: TenantStore) -> AsyncIterator[Service]:
    """A service with the tiny model; a token is a byte."""
    files = write_tiny_model(tmp_path)
    settings = NativeSettings(backend=BackendName.REFERENCE, threads=1)
    model = dataclasses.replace(
        fake_model(name="tiny"),
        context_length=CONTEXT,
        make_engine=lambda engine: NativeEngine(engine, "tiny", files, settings),
    )
    own = TenantStore(store.path.parent)
    service = await Service.start(ServiceConfig(models=("tiny",)), load=lambda *_: model, directory=Directory(own))
    yield service
    await service.close()
    own.close()


async def cached(service: Service, tenant: TenantId, *texts: str, value: str = "") -> int:
    """Sends a prompt of these texts, and one input after them; how many of its tokens were in the cache."""
    session, request, out, given = new_id("s"), new_id("r"), new_id("v"), new_id("v")
    segments = [{"kind": "text", "text": text} for text in texts]
    body = Submit.model_validate(
        {
            "session": session,
            "variables": [{"id": out}, {"id": given, "value": value}],
            "requests": [
                {
                    "id": request,
                    "segments": [
                        *segments,
                        {"kind": "input", "variable": given},
                        {"kind": "output", "variable": out, "sampling": {"max_tokens": 2}},
                    ],
                }
            ],
        }
    )
    service.directory.refresh()  # as with every exchange over HTTP
    async for _ in service.submit(body, tenant=tenant):
        pass
    await service.wait(SessionId(session), VariableId(out), tenant=tenant)
    return (await service.request_usage(SessionId(session), RequestId(request), tenant=tenant)).cached_tokens


async def test_equal_prompts_of_two_tenants_share_nothing(service: Service):
    assert await cached(service, ANN, INSTRUCTION, value=SECRET) == 0
    assert await cached(service, ANN, INSTRUCTION, value=SECRET) > len(INSTRUCTION)
    assert await cached(service, BOB, INSTRUCTION, value=SECRET) == 0


async def test_a_published_text_is_shared_up_to_the_first_placeholder(service: Service, store: TenantStore):
    store.publish(f"\n{INSTRUCTION.strip()}\n")
    pages = len(INSTRUCTION.strip()) // PAGE_TOKENS * PAGE_TOKENS
    assert await cached(service, ANN, INSTRUCTION, value=SECRET) == 0
    assert await cached(service, BOB, INSTRUCTION, value=SECRET) == pages
    assert await cached(service, BOB, INSTRUCTION, value="x" * 40) == pages


async def test_a_text_that_only_begins_with_a_published_one_is_not_shared(service: Service, store: TenantStore):
    store.publish(INSTRUCTION)
    assert await cached(service, ANN, INSTRUCTION) == 0
    assert await cached(service, BOB, INSTRUCTION + SECRET) == 0
    # As a text of its own it is; what follows it stays the tenant's.
    assert await cached(service, BOB, INSTRUCTION, SECRET) == len(INSTRUCTION.strip()) // PAGE_TOKENS * PAGE_TOKENS
    assert await cached(service, ANN, INSTRUCTION, SECRET) == len(INSTRUCTION.strip()) // PAGE_TOKENS * PAGE_TOKENS


async def test_a_value_that_equals_a_published_text_is_not_shared(service: Service, store: TenantStore):
    store.publish(INSTRUCTION)
    assert await cached(service, ANN, value=INSTRUCTION) == 0
    assert await cached(service, BOB, value=INSTRUCTION) == 0


async def test_what_is_taken_back_is_shared_no_more(service: Service, store: TenantStore):
    published = store.publish(INSTRUCTION)
    assert await cached(service, ANN, INSTRUCTION) == 0
    store.unpublish(published)
    assert await cached(service, BOB, INSTRUCTION) == 0
