"""A sequence's content, and the numbers of its pages."""

import pytest

from parrotserve.criteria import Objective
from parrotserve.engines.base import Generate
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.output import OutputState
from parrotserve.engines.native.radix import Salt
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling


def state_of(prompt: str, *, salt: str = "") -> SequenceState:
    state = SequenceState(
        sequence=RequestId("a"),
        epoch=1,
        salt=salt,
        objective=Objective.LATENCY,
        arrival=0,
        segments=[Content(list(prompt.encode()), complete=True), Generate(sampling=Sampling(stop=("x",)))],
    )
    for generate in state.take_content():
        state.output = OutputState(
            generate, segment=1, prompt=state.known, room=99, tokenizer=FakeTokenizer(), grammar=None
        )
    return state


def test_content_takes_each_token_once():
    content = Content([], complete=False)
    content.extend(0, [1, 2], last=False)
    content.extend(1, [2, 3], last=False)
    content.extend(0, [1], last=False)
    assert content.tokens == [1, 2, 3]
    content.extend(3, [], last=True)
    content.extend(3, [4], last=True)
    assert (content.tokens, content.complete) == ([1, 2, 3], True)


def test_content_with_a_gap_is_an_error():
    with pytest.raises(ValueError, match="tokens 1 to 2"):
        Content([1], complete=False).extend(3, [4], last=False)


def test_equal_beginnings_have_equal_page_keys():
    one, two = state_of("abcdefgh1234"), state_of("abcdefgh5678")
    assert [one.page_key(index, 4) == two.page_key(index, 4) for index in range(3)] == [True, True, False]


def test_equal_pages_after_different_beginnings_have_different_keys():
    one, two = state_of("abcdefgh"), state_of("xbcdefgh")
    assert one.page_key(1, 4) != two.page_key(1, 4)


def test_page_keys_of_what_is_public_are_everybodys():
    ann, bob = (state_of("abcdefgh", salt=Salt(salt, 5)) for salt in ("ann", "bob"))
    assert ann.page_key(0, 4) == bob.page_key(0, 4)
    assert ann.page_key(1, 4) != bob.page_key(1, 4)


def test_page_keys_are_salted():
    assert state_of("abcd").page_key(0, 4) != state_of("abcd", salt="tenant").page_key(0, 4)


def test_page_keys_forget_what_a_stop_string_took_back():
    state = state_of("ab")
    assert state.output is not None
    for token in b"cdex":
        state.output.push(token)
        state.known.append(token)
    before = state.page_key(0, 3), state.page_key(1, 3)
    state.computed = 6
    assert state.end_output() == 5
    state.known += b"y"
    assert state.page_key(0, 3) == before[0]
    assert state.page_key(1, 3) != before[1]


def test_ends_have_equal_keys_where_they_may_be_shared():
    ann, bob, eve = (state_of("abcdef", salt=Salt(salt, 5)) for salt in ("ann", "bob", "ann"))
    assert ann.end_key(4) == eve.end_key(4) != bob.end_key(4)
    ann, bob = (state_of("abcdef", salt=Salt(salt, 8)) for salt in ("ann", "bob"))
    assert ann.end_key(4) == bob.end_key(4)
