"""What the page on OpenAI's API says is so, and its example does what it says."""

import asyncio
import json
import re
import runpy
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_here import Begin

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.catalog import fake_model
from parrotserve.server.openai.extension import ParrotObject
from parrotserve.server.openai.responses.wire import ResponsesRequest
from parrotserve.server.openai.wire import ChatRequest, CompletionRequest
from parrotserve.server.run import serve_until_stopped

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "openai.md").read_text("utf-8")
SCRIPT = {"announces": "Come and see!", "one line": "Light.", "critic": "Moving.", "playwright": "A keeper stays."}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def fields(heading: str) -> set[str]:
    """What stands in the first column of the table below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n#")[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name.split(".")[0] for cell in first for name in re.findall(r"`([^`]+)`", cell)}


class Recital:
    """What the model says, and what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return next((text for cue, text in SCRIPT.items() if cue in prompt), "Because.")


@pytest.fixture
async def url() -> AsyncIterator[tuple[str, Recital]]:
    recital = Recital()
    lines: asyncio.Queue[str] = asyncio.Queue()
    serving = serve_until_stopped(
        ServiceConfig(models=("fake",), port=0),
        announce=lines.put_nowait,
        load=lambda *_: fake_model(lambda engine: FakeEngine(engine, script=recital)),
    )
    task = asyncio.create_task(serving)
    yield (await lines.get()).split()[4], recital
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_example_builds_its_graph(url: tuple[str, Recital]):
    where, model = url
    announce = runpy.run_path(str(ROOT / "examples" / "openai_client" / "announce_play.py"))["announce_play"]
    assert await asyncio.to_thread(announce, where) == "Come and see!"
    assert len(model.prompts) == 4
    assert all("A keeper stays." in prompt for prompt in model.prompts[1:3])
    assert "Its poster: Light." in model.prompts[3]
    assert "A review: Moving." in model.prompts[3]


@pytest.mark.parametrize("program", blocks("python"), ids=["chat", "responses"])
async def test_the_programs_run_as_shown(url: tuple[str, Recital], capsys: pytest.CaptureFixture[str], program: str):
    assert "http://127.0.0.1:8000" in program
    await asyncio.to_thread(exec, program.replace("http://127.0.0.1:8000", url[0]), {})
    assert capsys.readouterr().out == "Because.\n"


async def test_a_request_with_the_object_is_answered_as_shown(begin: Begin):
    request, shown = map(json.loads, blocks("json"))
    api = await begin()
    told = (await api.http.post("/v1/chat/completions", json=request)).json()["parrot"]
    assert told.keys() == shown.keys()
    assert told | {"request": ""} == shown | {"request": ""}


def test_every_field_is_there():
    known = {*ChatRequest.model_fields, *CompletionRequest.model_fields}
    mostly_refused = {"best_of", "modalities"}
    assert fields("What a request may have") == known - mostly_refused
    refused = {*ChatRequest.refused, *CompletionRequest.refused} - known | mostly_refused
    assert all(f"`{name}`" in PAGE for name in refused)


def test_every_field_of_responses_is_there():
    assert fields("Responses") == set(ResponsesRequest.model_fields)
    assert all(f"`{name}`" in PAGE for name in {*ResponsesRequest.refused} - {*ResponsesRequest.model_fields})


def test_every_field_of_the_object_is_there():
    assert fields("The `parrot` object") == set(ParrotObject.model_fields)
