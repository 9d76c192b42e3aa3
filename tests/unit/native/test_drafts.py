"""Drafts: what followed the last place where a text had the same few tokens, as far as that is likely to be right."""

from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.drafts import Drafter


def draft(known: list[int], *, most: int = 8, least: float = 0.05) -> tuple[int, ...]:
    return Drafter().draft(known, most=most, least=least)


def test_a_text_goes_on_as_it_did_after_the_same_three_tokens():
    assert draft([7, 1, 2, 3, 4, 5, 6, 9, 1, 2, 3], most=3) == (4, 5, 6)


def test_of_several_such_places_the_last_one_counts():
    assert draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], most=1) == (5,)


def test_the_place_counts_that_has_more_tokens_in_common():
    assert draft([1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 3, 1, 2, 3, 4, 5, 6], most=1) == (7,)


def test_two_tokens_do_where_no_three_are_the_same_and_one_where_no_two_are():
    assert draft([8, 2, 3, 4, 9, 2, 3], most=1) == (4,)
    assert draft([8, 3, 4, 9, 2, 3], most=1) == (4,)


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


def after_a_match(length: int, *, least: float) -> int:
    """How many tokens are tried after a place that has so many tokens in common with the end."""
    place = list(range(100, 100 + length))
    return len(draft([1, *place, *range(200, 220), 2, *place], least=least))


def test_a_draft_is_as_long_as_it_is_likely_to_be_right():
    assert [after_a_match(3, least=least) for least in (0.0, 0.1, 0.3, 0.5, 0.7)] == [8, 8, 4, 1, 0]
    assert [after_a_match(14, least=least) for least in (0.5, 0.9, 0.95, 1.0)] == [8, 5, 2, 0]


def test_the_more_tokens_are_the_same_the_likelier_is_the_next_one():
    assert [after_a_match(length, least=0.3) for length in (1, 2, 3, 4, 6)] == [0, 1, 4, 8, 8]
    assert [length for length in range(1, 20) if after_a_match(length, least=0.9)] == list(range(9, 20))


def grow(drafter: Drafter, known: list[int], token: int) -> None:
    """The text goes on with this token, and is looked at."""
    known.append(token)
    drafter.draft(known, most=8, least=0.05)


def test_an_output_that_goes_on_otherwise_than_before_gets_shorter_drafts():
    drafter, known = Drafter(), [1, 2] * 20
    before = len(drafter.draft(known, most=8, least=0.6))
    for number in range(20):
        for token in (100 + number, *([1, 2] * 8)):
            grow(drafter, known, token)
    assert len(drafter.draft(known, most=8, least=0.6)) < before == 8


def test_an_output_that_goes_on_as_before_gets_longer_drafts():
    drafter, known = Drafter(), [1, 2, 3, 4, 5]
    assert after_a_match(2, least=0.6) == 0
    for number in range(20):
        for token in (100 + number, 2, 3, 4):
            grow(drafter, known, token)
    grow(drafter, known, 200)
    known += [2, 3]
    assert drafter.draft(known, most=1, least=0.6) == (4,)


def test_what_a_draft_would_have_been_counts_too():
    """Whoever may try nothing learns from what comes nonetheless."""
    drafter, known = Drafter(), [1, 2, 3, 4, 5]
    for number in range(20):
        for token in (100 + number, 2, 3, 4):
            known.append(token)
            drafter.draft(known, most=0, least=0.3)
    known += [200, 2, 3]
    assert drafter.draft(known, most=1, least=0.6) == (4,)


def test_however_long_a_record_is_the_next_token_may_be_another():
    drafter, known = Drafter(), [1] * 2000
    for _ in range(500):
        grow(drafter, known, 1)
    assert len(drafter.draft(known, most=8, least=0.9)) == 8
    assert drafter.draft(known, most=8, least=0.995) == ()


def test_where_only_long_matches_will_do_a_text_is_looked_through_now_and_then():
    place = list(range(100, 130))
    drafter, known, found = Drafter(), [1, *place, 2], []
    for token in place:
        known.append(token)
        found.append(len(drafter.draft(known, most=1, least=0.9)))
    assert 6 <= found.index(1) <= 9 + 6
    assert all(found[found.index(1) :])


def test_a_text_that_grew_is_looked_through_anew():
    drafter = Drafter()
    known = [1, 2, 3, 4]
    assert drafter.draft(known, most=2, least=0.1) == ()
    known += [1, 2, 3]
    assert drafter.draft(known, most=2, least=0.1) == (4, 1)


@given(known=st.lists(st.sampled_from([0, 1, 255, 256, 65536]), max_size=40))
def test_it_finds_what_looking_everywhere_finds(known: list[int]):
    def expected() -> tuple[int, ...]:
        for width in (6, 5, 4, 3, 2, 1):
            for end in range(len(known) - 1, width - 1, -1):
                if len(known) > width and known[end - width : end] == known[-width:]:
                    return tuple((known + known[end:] * 8)[len(known) + place] for place in range(4))
        return ()

    assert draft(known, most=4, least=0.0) == expected()
