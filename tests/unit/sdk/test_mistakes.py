"""Wrong types and misspelt names: what is said names the mistake, and what to write instead."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import DeclarationError, InvalidSampling, InvalidSchema, ServiceUnavailable


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "not str"),
        (5, "not int; write timeout=5 for a timeout"),
        (P.TTFT, "not Criteria; write perf=TTFT"),
        (None, "not NoneType"),
        ([["x"]], "not list"),
        ({"a": 1}, r"not dict; give its values\(\)"),
        (Write, "not SemanticFunction; call it"),
        (len, "not builtin_function_or_method; call it"),
    ],
)
def test_what_is_no_variable_is_not_gathered(given: Any, message: str):
    for gather in (P.gather, lambda one: asyncio.run(P.agather(one))):
        with pytest.raises(TypeError, match=rf"takes semantic variables and iterables of them, {message}"):
            gather(given)


def test_what_waits_already_is_not_gathered():
    waiting: Any = P.SemanticVariable("x").aget()
    with pytest.raises(TypeError, match="not coroutine; give the variable itself"):
        P.gather(waiting)
    waiting.close()


def test_a_timeout_in_the_place_of_criteria(service: FakeService):
    text = Write("x")
    for wait in (text.get, text.stream, lambda perf: P.gather(text, perf=perf)):
        with pytest.raises(
            DeclarationError, match=r"perf=30 is not one of LATENCY, .*; write timeout=30 for a timeout\.$"
        ):
            wait(30)  # pyright: ignore[reportArgumentType]


def test_criteria_of_streams_are_checked_at_the_call(service: FakeService):
    for stream in (Write("x").stream, Write("x").astream):
        with pytest.raises(DeclarationError, match="perf='fast' is not one of LATENCY"):
            stream("fast")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: P.Session(connection="http://127.0.0.1:8000"), r"connection='http:.* is what P\.connect\(url\) gives"),
        (lambda: P.Chat(sytem="x"), "Chat has no option 'sytem'; did you mean 'system'"),
        (lambda: P.Chat(max_token=3), "Chat has no option 'max_token'; did you mean 'max_tokens'"),
        (lambda: P.Chat(model=3), "model=3: model must be a name or path, as a string"),
        (lambda: P.Chat().say("x", sed=1), r"say\(\) has no option 'sed'; did you mean 'seed'"),
        (lambda: P.Chat().say("x", system="y"), r"say\(\) has no option 'system'"),
        (lambda: P.Output(max_token=3), "Output has no option 'max_token'; did you mean 'max_tokens'"),
        (lambda: P.Sampling(max_token=3), "Sampling has no option 'max_token'; did you mean 'max_tokens'"),
        (lambda: P.Sampling(64), "Sampling takes options by name, such as max_tokens=; not 64"),
        (lambda: P.Session(lease_second=3), "Session has no option 'lease_second'; did you mean 'lease_seconds'"),
        (lambda: P.Session(30), "Session takes options by name, such as lease_seconds=; not 30"),
        (lambda: P.Chat("Be brief."), "Chat takes options by name, such as system=; not 'Be brief.'"),
        (lambda: P.Output(3), r"Output takes a P\.Sampling, or its fields by name, not 3"),
        (lambda: P.connect("http://127.0.0.1:8000", api_key=3), "An API key is a text, not int"),
    ],
)
def test_options_that_there_are_not(make: Callable[[], object], message: str):
    with pytest.raises(DeclarationError, match=message):
        make()


@pytest.mark.parametrize("url", [None, 8000, b"http://127.0.0.1:8000"])
def test_a_url_is_a_text(url: Any):
    with pytest.raises(ServiceUnavailable, match=r"is not the URL of a service; write http://HOST:PORT"):
        P.connect(url)


def test_mistakes_in_annotations_that_are_read_later():
    with pytest.raises(DeclarationError, match=r"tell \(.*test_mistakes.*\): Output has no option 'temprature'"):

        @P.SemanticFunction
        def tell(topic: "P.Input", joke: "P.Output(temprature=1.0)"):  # pyright: ignore
            """Tell a joke about {{topic}}: {{joke}}"""

    with pytest.raises(InvalidSampling, match=r"laugh \(.*\): max_tokens=0"):

        @P.SemanticFunction
        def laugh(joke: "P.Input", laughter: "P.Output(max_tokens=0)"):  # pyright: ignore
            """Laugh about {{joke}}: {{laughter}}"""


def test_what_single_outputs_have_is_asked_of_several(service: FakeService):
    @P.SemanticFunction
    def tell(topic: str):
        """{{input:topic}}: {{output:joke}} {{output:reason}}"""

    told = tell("parrots")
    with pytest.raises(
        AttributeError, match=r"tell\(\) has several outputs, each with a 'get' of its own: .* \.joke\.$"
    ):
        told.get()
    with pytest.raises(
        AttributeError, match=r"tell\(\) has no output 'jok'; did you mean 'joke'\? There are: joke, reason"
    ):
        _ = told.jok
    assert (repr(told).partition("(")[0], hasattr(told, "__await__"), told._fields) == (
        "tellOutputs",
        False,
        ("joke", "reason"),
    )


def test_choices_are_no_schema():
    with pytest.raises(InvalidSchema, match=r"not \['yes', 'no'\]; for one of these, write {\"enum\": \[\.\.\.\]}\.$"):
        P.Output(schema=["yes", "no"])


def test_a_list_is_nothing_to_say():
    with pytest.raises(TypeError, match="a list with semantic variables in it is not a text; pass one of them"):
        P.Chat().say([P.SemanticVariable("x")])  # pyright: ignore[reportArgumentType]


def test_an_f_string_is_no_docstring():
    with pytest.raises(DeclarationError, match=r"it has no docstring to use as template \(an f-string is not"):

        @P.SemanticFunction
        def tell(topic: str):
            f"""Tell {{topic}} {len("x")}"""  # noqa: B021
