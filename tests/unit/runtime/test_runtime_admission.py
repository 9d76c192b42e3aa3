"""What is taken in beside the event loop, and what is counted of it."""

from dataclasses import replace
from typing import Any

import pytest

from parrotserve.graph.events import Submitted
from parrotserve.ids import TenantId
from parrotserve.protocol import Submit
from parrotserve.runtime.admission import admit, is_big
from parrotserve.runtime.catalog import fake_model
from parrotserve.runtime.claims import SEAM

LONG = "word " * 5000
OUT = {"kind": "output", "variable": "out", "sampling": {}}


def submit(*segments: dict[str, Any], **fields: Any) -> Submit:
    return Submit.model_validate(
        {
            "session": "s",
            "variables": [{"id": "out"}],
            "requests": [{"id": "r", "segments": [*segments, OUT], **fields}],
        }
    )


def with_argument(argument: dict[str, Any]) -> Submit:
    sandbox = {"source": "def f(a):\n    return a\n", "name": "f", "arguments": {"a": argument}}
    made = {"id": "c", "function": "f", "inputs": [], "output": "out", "sandbox": sandbox}
    return Submit.model_validate({"session": "s", "variables": [{"id": "out"}], "calls": [made]})


BIG = {
    "a long text": submit({"kind": "text", "text": LONG}),
    "many short texts": submit(*[{"kind": "text", "text": LONG[:100]}] * 250),
    "many tokens": submit({"kind": "tokens", "tokens": [1] * 25_000}),
    "tools that are told at length": submit(tools=[{"function": {"description": LONG}}]),
    "variables of a chat template that are long": submit(chat_template_kwargs={"documents": [{"text": LONG}]}),
    "a long argument": with_argument({"kind": "value", "value": [{"text": LONG}]}),
    "many arguments": with_argument({"kind": "list", "items": [{"kind": "value", "value": 1}] * 4_000}),
    "long calls of tools": submit({"kind": "role", "role": "assistant", "tool_calls": [{"arguments": LONG}]}),
}


@pytest.mark.parametrize("body", BIG.values(), ids=BIG)
def test_what_takes_long_is_taken_in_in_a_thread(body: Submit):
    assert is_big(body)


def test_what_does_not_is_taken_in_at_once():
    assert not is_big(submit({"kind": "text", "text": "hello"}, tools=[{"function": {"name": "look"}}]))


def admitted(*segments: dict[str, Any], count: bool) -> Submitted:
    return admit(submit(*segments), tenant=TenantId("t"), models={None: fake_model()}, longest_lease=60.0, count=count)


def test_tokens_of_constant_texts_are_counted_where_they_are_limited():
    text, tokens = {"kind": "text", "text": "12345"}, {"kind": "tokens", "tokens": [1, 2, 3]}
    (counted,) = admitted(text, tokens, count=True).requests
    assert counted.text_tokens == 5 + SEAM + 3


def test_else_nothing_is_counted():
    (uncounted,) = admitted({"kind": "text", "text": "12345"}, count=False).requests
    assert uncounted.text_tokens is None


@pytest.mark.parametrize(
    ("texts", "published"), [(("We agreed. ", "Now: "), 1), (("We ", "agreed."), 2), (("Now: ",), 0)]
)
def test_it_is_known_how_far_a_prompt_is_published(texts: tuple[str, ...], published: int):
    body = submit(*({"kind": "text", "text": text} for text in texts))
    batch = admit(body, tenant=TenantId("t"), models={None: fake_model()}, longest_lease=60.0, published={"We agreed."})
    assert batch.requests[0].published == published
    again = admit(body, tenant=TenantId("t"), models={None: fake_model()}, longest_lease=60.0)
    assert replace(batch.requests[0], segments=()) == replace(again.requests[0], segments=()), "what it is stays so"
