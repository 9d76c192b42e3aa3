"""instructor."""

import instructor
import openai
import pytest
from instructor.core.exceptions import InstructorRetryException
from openai import AsyncOpenAI, OpenAI
from shapes import Animal, Weather

BRIEF = {"max_tokens": 100, "temperature": 0}
ASKED = [{"role": "user", "content": "Describe a heron."}]


@pytest.mark.parametrize("mode", [instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS])
def test_objects_by_tools(tools_url: str, mode: instructor.Mode):
    client = instructor.from_openai(OpenAI(base_url=f"{tools_url}/v1", api_key="none"), mode=mode)
    weather = client.chat.completions.create(model="fake", messages=ASKED, response_model=Weather)
    assert (type(weather).__name__, weather.city) == ("Weather", "Rome")


def test_objects_by_schema(url: str, model: str):
    client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
    animal = client.chat.completions.create(model=model, messages=ASKED, response_model=Animal, **BRIEF)
    assert isinstance(animal, Animal)


async def test_objects_asynchronously(url: str, model: str):
    client = instructor.from_openai(AsyncOpenAI(base_url=f"{url}/v1", api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
    animal = await client.chat.completions.create(model=model, messages=ASKED, response_model=Animal, **BRIEF)
    assert isinstance(animal, Animal)


def test_objects_that_grow(url: str, model: str):
    client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"), mode=instructor.Mode.JSON_SCHEMA)
    *_, animal = client.chat.completions.create_partial(model=model, messages=ASKED, response_model=Animal, **BRIEF)
    assert animal.kind in {"bird", "fish"}


def test_a_model_without_tools(url: str, model: str):
    client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"))
    with pytest.raises((openai.BadRequestError, InstructorRetryException), match="does not support tools"):
        client.chat.completions.create(model=model, messages=ASKED, response_model=Animal, max_retries=1)
