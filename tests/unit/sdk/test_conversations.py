"""Conversations: later turns extend the earlier sequence."""

import copy

import pytest
from fake_service import FakeService, prompt

import Parrot as P
from parrotserve.errors import EngineFailed, ForeignVariable
from parrotserve.protocol import OutputSegment


def prompts(service: FakeService) -> list[str]:
    return [prompt(service, request) for request in service.requests.values()]


def test_every_turn_repeats_the_turns_before_it(service: FakeService):
    chat = P.Chat(system="Be a parrot.", model="tiny", temperature=0.5)
    assert chat.say("Hello?").get() == "<assistant>"
    chat.say("Again?").get()
    first, second = prompts(service)
    assert first == "(system)[Be a parrot.](user)[Hello?](assistant){assistant}"
    assert second == first.replace("{assistant}", "[<assistant>]") + "(user)[Again?](assistant){assistant}"
    one, other = service.requests.values()
    assert one.model == other.model == "tiny"
    # The reply itself is the input: the service knows what follows what without comparing texts.
    assert one.segments[-1].variable == other.segments[5].variable  # pyright: ignore[reportAttributeAccessIssue]


def test_turns_may_be_said_before_replies_are_there(service: FakeService):
    chat = P.Chat()
    replies = [chat.say(text) for text in ("one", "two", "three")]
    assert P.gather(replies) == ["<assistant>"] * 3
    assert len(service.submits) == 1


def test_texts_travel_once(service: FakeService):
    chat = P.Chat(system="Be a parrot.")
    for text in ("one", "two"):
        chat.say(text).get()
    assert [[each.value for each in body.variables] for body in service.submits] == [
        ["Be a parrot.", "one", None],
        ["two", None],
    ]


def test_a_turn_may_have_its_own_sampling_and_be_a_variable(service: FakeService):
    chat = P.Chat(max_tokens=7)
    chat.say(P.SemanticVariable("known"), temperature=1.0, seed=3).get()
    (request,) = service.requests.values()
    output = request.segments[-1]
    assert isinstance(output, OutputSegment)
    assert output.sampling == P.Sampling(max_tokens=7, temperature=1.0, seed=3)


def test_a_reply_that_failed_is_left_out(service: FakeService):
    chat = P.Chat()
    service.script["Chat"] = EngineFailed("It died.")
    with pytest.raises(EngineFailed):
        chat.say("one").get()
    service.script.clear()
    assert chat.say("two").get() == "<assistant>"
    assert prompts(service)[-1] == "(user)[two](assistant){assistant}"


def test_it_goes_on_in_another_session(service: FakeService):
    chat = P.Chat()
    for text in ("one", "two", "three"):
        with P.Session():
            assert chat.say(text).get() == "<assistant>"
    *_, last = prompts(service)
    turns = [f"(user)[{text}](assistant)[<assistant>]" for text in ("one", "two")]
    assert last == "".join(turns) + "(user)[three](assistant){assistant}"
    assert repr(chat) == "<Chat of 3 turns>"


def test_replies_that_nobody_got_stay_in_their_session(service: FakeService):
    chat = P.Chat()
    with P.Session():
        chat.say("one")
        with P.Session(), pytest.raises(ForeignVariable, match="assistant PRODUCING> belongs to session"):
            chat.say("two")
        assert chat.say("two").get() == "<assistant>"


def test_a_copy_goes_on_by_itself(service: FakeService):
    chat = P.Chat(system="Be a parrot.")
    chat.say("one").get()
    fork = copy.deepcopy(chat)
    P.gather(fork.say("two"), chat.say("three"))
    asked = [text.rpartition("(user)")[2] for text in prompts(service)[1:]]
    assert asked == ["[two](assistant){assistant}", "[three](assistant){assistant}"]
    assert "[two]" not in prompts(service)[2]


def test_replies_stream(service: FakeService):
    assert "".join(P.Chat().say("Hello?").stream()) == "<assistant>"


def test_what_has_no_text_cannot_be_said(service: FakeService):
    with pytest.raises(TypeError, match="what the user says is None"):
        P.Chat().say(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="what the system says is <SemanticFunction"):
        P.Chat(system=P.SemanticFunction(_tell))  # pyright: ignore[reportArgumentType]


def _tell():
    """{{output:text}}"""
