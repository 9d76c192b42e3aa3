"""OpenAI's Agents SDK, which asks for responses."""

from typing import Any

import pytest
from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    WebSearchTool,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, BadRequestError
from shapes import Animal

set_tracing_disabled(True)  # it would ask the network

ASKED = "Do I need an umbrella?"


@function_tool
def weather(city: str) -> str:
    """The weather somewhere."""
    return "Sunny"


def agent(url: str, **options: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    return Agent(name="guide", model=OpenAIResponsesModel("fake", client), **options)


@pytest.mark.parametrize("options", [{}, {"auto_previous_response_id": True}], ids=["whole talk", "by id"])
async def test_tools(tools_url: str, options: dict[str, Any]):
    ended = await Runner.run(agent(tools_url, instructions="Help.", tools=[weather]), ASKED, **options)
    assert ended.final_output == "Leave it at home."


async def test_streams(tools_url: str):
    running = Runner.run_streamed(agent(tools_url, tools=[weather]), ASKED)
    kinds = [event.data.type async for event in running.stream_events() if event.type == "raw_response_event"]
    assert {"response.function_call_arguments.done", "response.output_text.delta", "response.completed"} <= {*kinds}
    assert running.final_output == "Leave it at home."


async def test_sessions_typed_outputs_and_handoffs(tools_url: str):
    guide, session = agent(tools_url, tools=[weather]), SQLiteSession("a talk")
    for _ in range(2):
        assert (await Runner.run(guide, ASKED, session=session)).final_output == "Leave it at home."
    assert isinstance((await Runner.run(agent(tools_url, output_type=Animal), "A heron.")).final_output, Animal)
    assert (await Runner.run(agent(tools_url, handoffs=[guide]), "Hello")).final_output


async def test_tools_of_openais_own_service(tools_url: str):
    with pytest.raises(BadRequestError, match="'web_search' are not served"):
        await Runner.run(agent(tools_url, tools=[WebSearchTool()]), "Hello")
