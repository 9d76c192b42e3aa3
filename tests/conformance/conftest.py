"""Services for real clients. They are many and heavy, so they have an environment of their own: `make conformance`."""

import asyncio
import importlib.util
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from processes import served

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.models.chat_template import ChatTemplate
from parrotserve.runtime.catalog import fake_model
from parrotserve.server.run import serve_until_stopped

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network

CLIENTS = ("openai", "agents", "langchain_openai", "litellm", "instructor", "schemathesis")
if any(importlib.util.find_spec(client) is None for client in CLIENTS):
    collect_ignore_glob = ["test_*.py"]

TOOLS = (
    "{% if tools %}{{ tools | tojson }} Write <tool_call>{...}</tool_call>.{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


@pytest.fixture(scope="session")
def real_url() -> Iterator[str]:
    """`parrot serve` with the real model."""
    with served() as url:
        yield url


@pytest.fixture(scope="session")
def fake_url() -> Iterator[str]:
    """`parrot serve` without a model."""
    with served("--model", "fake") as url:
        yield url


@pytest.fixture(scope="session", params=["smollm2", "fake"])
def url(request: pytest.FixtureRequest) -> str:
    """Either of them."""
    return request.getfixturevalue("fake_url" if request.param == "fake" else "real_url")


@pytest.fixture(scope="session")
def model(url: str) -> str:
    """The name of the model that is served."""
    import httpx

    return httpx.get(f"{url}/v1/models").json()["data"][0]["id"]


@pytest.fixture(scope="session")
def tools_url() -> Iterator[str]:
    """A service whose chat template has tools, and whose model asks for the weather when it is told of umbrellas."""
    up: Future[str] = Future()
    stop: Future[None] = Future()

    async def serve() -> None:
        serving = serve_until_stopped(
            ServiceConfig(models=("fake",), port=0),
            announce=up.set_result,
            load=lambda *_: fake_model(
                lambda engine: FakeEngine(engine, script={"umbrella": CALL, "<|tool|>Sunny": "Leave it at home."}),
                template=ChatTemplate(TOOLS),
            ),
        )
        task = asyncio.create_task(serving)
        await asyncio.wrap_future(stop)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    yield up.result(30).split()[4]
    stop.set_result(None)
    thread.join(30)
