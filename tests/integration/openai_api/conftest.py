"""Services behind the OpenAI-compatible API."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest
from api_here import CHATML, Api, Begin
from fastapi import FastAPI

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine, some_words
from parrotserve.ids import EngineId
from parrotserve.models.chat_template import ChatTemplate
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.server.app import create_app
from parrotserve.tenancy.directory import Directory


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Starts a service; keywords are for its engine."""
    begun: list[Api] = []
    apps: list[FastAPI] = []

    async def start(
        *,
        script: Mapping[str, str] | Callable[[str], str] = some_words,
        template: str | None = CHATML,
        directory: Directory | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Api:
        engines: list[FakeEngine] = []
        prompts: list[str] = []

        def recite(prompt: str) -> str:
            prompts.append(prompt)
            if callable(script):
                return script(prompt)
            return next((text for key, text in script.items() if key in prompt), some_words(prompt))

        def make(engine: EngineId) -> FakeEngine:
            engines.append(FakeEngine(engine, **{"script": recite} | options))
            return engines[-1]

        def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
            return fake_model(make, name=name, template=ChatTemplate(template) if template else None)

        service = await Service.start(ServiceConfig(models=("fake",), **(config or {})), load=load, directory=directory)
        await service.wait_started()
        app = create_app(service)
        apps.append(app)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://parrot.localhost")
        begun.append(Api(service, engines, http, prompts))
        return begun[-1]

    yield start
    for app in apps:
        app.state.parser.close()
    for api in begun:
        await api.http.aclose()
        await api.service.close()
