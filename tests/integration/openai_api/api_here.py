"""The OpenAI-compatible API in front of a fake engine, and OpenAI's own client of it, without a socket."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import AsyncOpenAI

from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.service import Service

CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL_CALLS = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> Write <tool_call>{...}</tool_call>.{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BARE_CALLS = TOOL_CALLS.replace("<tool_call>", "").replace("</tool_call>", "")

Talk = list[dict[str, Any]]


def user(text: Any) -> Talk:
    return [{"role": "user", "content": text}]


@dataclass
class Api:
    service: Service
    engines: list[FakeEngine]
    http: httpx.AsyncClient
    prompts: list[str] = field(default_factory=list)
    """What the engine was asked, in order."""

    @property
    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url="http://parrot.localhost/v1", api_key="none", http_client=self.http, max_retries=0)

    async def chat(self, messages: Talk, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json={"messages": messages, **body})

    async def complete(self, prompt: Any, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/completions", json={"prompt": prompt, **body})


Begin = Callable[..., Awaitable[Api]]
