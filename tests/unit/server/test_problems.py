"""What people are told of a body that is wrong: places that are in it, and the form that it is nearest to."""

from typing import Any

import pytest
from pydantic import ValidationError

from parrotserve.server.openai.wire import ChatRequest, CompletionRequest
from parrotserve.server.problems import problems_in


def told(body: dict[str, Any]) -> list[str]:
    form = ChatRequest if "messages" in body else CompletionRequest
    with pytest.raises(ValidationError) as refused:
        form.model_validate(body)
    errors = [dict(error) | {"loc": ("body", *error["loc"])} for error in refused.value.errors()]
    return [f"{'.'.join(map(str, one.place[1:]))}: {one.what}" for one in problems_in(errors, body)]


def says(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ({"prompt": 5}, ["prompt: Input should be a valid string, or: Input should be a valid list"]),
        ({"prompt": ["a", 3]}, ["prompt.1: Input should be a valid string"]),
        ({"prompt": [1, "b"]}, ["prompt.1: Input should be a valid integer"]),
        ({"prompt": [[1, "x"]]}, ["prompt.0.1: Input should be a valid integer"]),
        ({"prompt": "a", "stop": ["x", 4]}, ["stop.1: Input should be a valid string"]),
        (says(3), ["messages.0.content: Input should be a valid string, or: Input should be a valid list"]),
        (says([{"text": "x"}]), ["messages.0.content.0.type: Field required"]),
        ({"prompt": "a", "logit_bias": {"x": 1}}, ["logit_bias.x: String should match pattern '^[0-9]{1,9}$'"]),
        (
            {"prompt": "a", "n": 0, "top_p": 2, "stop": 1},
            [
                "top_p: Input should be less than or equal to 1",
                "stop: Input should be a valid string, or: Input should be a valid list",
                "n: Input should be greater than or equal to 1",
            ],
        ),
        (
            {"prompt": "a", "best_of": 3},
            ["best_of: it must equal n, because this service returns every text that it writes"],
        ),
    ],
)
def test_what_is_told(body: dict[str, Any], lines: list[str]):
    assert told(body) == lines


def test_places_outside_a_body_stay_as_they_are():
    error = {"loc": ("query", "wait"), "type": "int_parsing", "msg": "Input should be a valid integer"}
    (problem,) = problems_in([error], None)
    assert problem.place == ("query", "wait")
