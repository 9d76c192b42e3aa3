"""Drafts: what followed the last place where a text had the same few tokens, as far as that is likely to be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.drafts import Drafter


def draft(known: list[int], *, most: int = 8, least: float = 0.05) -> tuple[int, ...]:
    return Drafter().draft(known, most=most, least=least)


def test_a_text_goes_on_as_it_did_after_the_same_three_tokens():
    assert draft([7, 1, 2, 3, 4, 5, 6, 9, 1, 2, 3], most=3) == (4, 5, 6)


def test_of_several_such_places_the_last_one_counts():
    assert draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], most=1) == (5,)


def test_two_tokens_do_where_no_three_are_the_same():
    assert draft([8, 2, 3, 4, 9, 2, 3], most=1) == (4,)


def test_a_text_that_repeats_itself_goes_on_repeating_itself():
    assert draft([5, 1, 2, 1, 2, 1, 2], most=5) == (1, 2, 1, 2, 1)
    assert draft([5, 1, 1, 1, 1], most=3) == (1, 1, 1)


def test_nothing_follows_what_was_never_there_before():
    assert draft([1, 2, 3, 4, 5, 6]) == ()
    assert draft([1]) == draft([]) == ()


def test_any_token_may_be_looked_for():
    assert draft([0, 0xD800, 0x10FFFF, 7, 0, 0xD800, 0x10FFFF], most=1) == (7,)


def test_no_more_than_was_asked_for():
    assert draft([1, 2, 3, 4, 5, 1, 2, 3], most=0) == ()
    assert len(draft([1, 2] * 20, most=100, least=0.0)) == 8


def test_a_draft_is_as_long_as_it_is_likely_to_be_right():
    drafter, text = Drafter(), [1, 2] * 20
    lengths = [len(drafter.draft(text, most=8, least=least)) for least in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)]
    assert lengths == [8, 4, 2, 1, 0, 0]


def test_misses_make_drafts_shorter_and_hits_make_them_longer():
    drafter, text = Drafter(), [1, 2] * 20
    for _ in range(5):
        drafter.learn(4, 0)
    assert drafter.draft(text, most=8, least=0.4) == ()
    for _ in range(5):
        drafter.learn(4, 4)
    assert len(drafter.draft(text, most=8, least=0.4)) > 4


@pytest.mark.parametrize("hits", [0, 8])
def test_however_long_a_record_is_the_next_token_may_be_another(hits: int):
    drafter, text = Drafter(), [1, 2] * 20
    for _ in range(5000):
        drafter.learn(8, hits)
    assert 0.0 < drafter.likelihood < 1.0
    assert len(drafter.draft(text, most=8, least=0.5)) == hits


def test_a_text_that_grew_is_looked_through_anew():
    drafter = Drafter()
    known = [1, 2, 3, 4]
    assert drafter.draft(known, most=2, least=0.1) == ()
    known += [1, 2, 3]
    assert drafter.draft(known, most=2, least=0.1) == (4, 1)


@given(known=st.lists(st.sampled_from([0, 1, 255, 256, 65536]), max_size=40))
def test_it_finds_what_looking_everywhere_finds(known: list[int]):
    def expected() -> tuple[int, ...]:
        for width in (3, 2):
            for end in range(len(known) - 1, width - 1, -1):
                if len(known) > width and known[end - width : end] == known[-width:]:
                    return tuple((known + known[end:] * 8)[len(known) + place] for place in range(4))
        return ()

    assert draft(known, most=4) == expected()
