"""Variables of chat templates that programs set: how they travel, and which are refused where they are declared."""

from typing import Any

import pytest
from fake_service import FakeService

import Parrot as P
from parrotserve.errors import DeclarationError

OFF = {"enable_thinking": False}


def test_those_of_a_function_travel_with_each_request(service: FakeService):
    @P.SemanticFunction(chat_template_kwargs=OFF)
    def Ask(question: str):
        """{{input:question}} {{output:answer}}"""

    P.gather(Ask("why?"), Ask("how?"))
    assert [request.chat_template_kwargs for request in service.requests.values()] == [OFF, OFF]


def test_those_of_a_conversation_travel_with_each_turn(service: FakeService):
    chat = P.Chat(chat_template_kwargs=OFF, temperature=0.5)
    chat.say("Hello?").get()
    chat.say("Again?").get()
    assert [request.chat_template_kwargs for request in service.requests.values()] == [OFF, OFF]


def test_without_any_nothing_travels(service: FakeService):
    @P.SemanticFunction(chat_template_kwargs=None)
    def Ask(question: str):
        """{{input:question}} {{output:answer}}"""

    Ask("why?").get()
    P.Chat().say("Hello?").get()
    assert [request.chat_template_kwargs for request in service.requests.values()] == [{}, {}]


def test_later_changes_of_the_dict_change_nothing(service: FakeService):
    names = ["a"]
    chat = P.Chat(chat_template_kwargs={"names": names})
    names.append("b")
    chat.say("Hello?").get()
    assert [request.chat_template_kwargs for request in service.requests.values()] == [{"names": ["a"]}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("enable_thinking", r"chat_template_kwargs='enable_thinking': it is a dict, .*\{'enable_thinking': False\}"),
        ({1: 2}, "names in chat_template_kwargs are texts, and 1 is not"),
        ({"a": {1, 2}}, "values are those of JSON: .*set"),
        ({"a": float("nan")}, "values are those of JSON"),
        ({"a": P.SemanticVariable("x")}, "values are those of JSON: .*SemanticVariable"),
    ],
)
def test_what_no_template_could_be_given_is_refused_at_the_declaration(given: Any, message: str):
    with pytest.raises(DeclarationError, match=message):
        P.Chat(chat_template_kwargs=given)
    with pytest.raises(DeclarationError, match=rf"Ask \(test_template_kwargs.*{message}"):

        @P.SemanticFunction(chat_template_kwargs=given)
        def Ask(question: str):
            """{{input:question}} {{output:answer}}"""


def test_raw_text_has_no_template_to_set_anything_of():
    with pytest.raises(DeclarationError, match="chat=False, so that no chat template reads chat_template_kwargs"):

        @P.SemanticFunction(chat=False, chat_template_kwargs=OFF)
        def Ask(question: str):
            """{{input:question}} {{output:answer}}"""


def test_they_are_no_sampling():
    with pytest.raises(DeclarationError, match="Sampling has no option 'chat_template_kwargs'"):
        P.Sampling(chat_template_kwargs=OFF)  # pyright: ignore[reportCallIssue]
    with pytest.raises(DeclarationError, match=r"say\(\) has no option 'chat_template_kwargs'"):
        P.Chat().say("x", chat_template_kwargs=OFF)  # pyright: ignore[reportCallIssue]
