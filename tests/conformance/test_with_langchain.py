"""langchain-openai."""

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from shapes import LONG, Animal

TALK = [SystemMessage("You are a parrot."), HumanMessage("Who are you?")]


@pytest.fixture
def chat(url: str, model: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, max_tokens=40, temperature=0, max_retries=0)


def test_chat(chat: ChatOpenAI):
    answer = chat.invoke(TALK)
    assert answer.content
    assert answer.usage_metadata["total_tokens"] > 10
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}


async def test_streams_and_batches(chat: ChatOpenAI):
    whole = chat.invoke(TALK).content
    assert "".join(chunk.content for chunk in chat.stream(TALK)) == whole
    assert "".join([chunk.content async for chunk in chat.astream(TALK)]) == whole
    assert [answer.content for answer in await chat.abatch([TALK, TALK])] == [whole, whole]


def test_schemas(chat: ChatOpenAI):
    assert isinstance(chat.with_structured_output(Animal).invoke("Describe a heron."), Animal)
    assert isinstance(chat.with_structured_output(Animal, method="json_schema").invoke("Describe a heron."), Animal)


def test_completions(url: str, model: str):
    llm = OpenAI(base_url=f"{url}/v1", api_key="none", model=model, max_tokens=5, max_retries=0)
    assert llm.invoke("One, two,")


def test_errors(chat: ChatOpenAI, url: str):
    with pytest.raises(openai.BadRequestError) as too_long:
        chat.invoke(LONG[0]["content"])
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="gpt-5").invoke("Hi")


@tool
def weather(city: str) -> str:
    """The weather somewhere."""
    return "Sunny"


def test_tools(tools_url: str):
    chat = ChatOpenAI(base_url=f"{tools_url}/v1", api_key="none", model="fake", max_retries=0).bind_tools([weather])
    asked = HumanMessage("Do I need an umbrella?")
    called = chat.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    streamed = None
    for chunk in chat.stream([asked]):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert streamed.tool_calls[0]["args"] == {"city": "Rome"}
    answered = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert chat.invoke([HumanMessage("Do I?"), called, answered]).content == "Leave it at home."


def test_tools_of_a_model_that_has_none(chat: ChatOpenAI):
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        chat.bind_tools([weather]).invoke("Do I need an umbrella?")


# --- By responses -------------------------------------------------------------------------------------------


def test_responses(chat: ChatOpenAI, url: str, model: str):
    by_responses = ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model=model, max_tokens=40, temperature=0, use_responses_api=True
    )
    whole = by_responses.invoke(TALK)
    assert whole.text == chat.invoke(TALK).content
    assert "".join(chunk.text for chunk in by_responses.stream(TALK)) == whole.text
    assert isinstance(by_responses.with_structured_output(Animal).invoke("Describe a heron."), Animal)


@pytest.mark.parametrize("by_id", [False, True])
def test_tools_by_responses(tools_url: str, by_id: bool):
    chat = ChatOpenAI(
        base_url=f"{tools_url}/v1", api_key="none", model="fake", use_responses_api=True, use_previous_response_id=by_id
    ).bind_tools([weather])
    asked = HumanMessage("Do I need an umbrella?")
    called = chat.invoke([asked])
    (call,) = called.tool_calls
    told = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert chat.invoke([asked, called, told]).text == "Leave it at home."
