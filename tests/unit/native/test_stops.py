"""Stop strings looked for in a text as it grows."""

from typing import SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.stops import StopSearch


def held(text: str, stops: tuple[str, ...]) -> int:
    """By definition: the longest end with which a stop string begins that is longer."""
    return max(
        (n for n in range(1, len(text) + 1) for stop in stops if len(stop) > n and stop.startswith(text[-n:])),
        default=0,
    )


def earliest(before: str, text: str, stops: tuple[str, ...]) -> int | None:
    """By definition: where the first one begins of all that end in what `text` has more than `before`."""
    ends = range(len(before) + 1, len(text) + 1)
    return min((end - len(stop) for stop in stops for end in ends if text[:end].endswith(stop)), default=None)


@given(
    parts=st.lists(st.text(alphabet="abé", max_size=6), max_size=12),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=7), max_size=5).map(tuple),
)
def test_what_is_found_and_held_is_what_the_whole_text_says(parts: list[str], stops: tuple[str, ...]):
    search, text = StopSearch(stops), ""
    for part in parts:
        before, text = text, text + part
        assert search.push(part) == earliest(before, text, stops)
        assert search.held == held(text, stops)


class Read(str):
    """A stop string that counts how often one of its characters is looked at."""

    reads = 0

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        Read.reads += 1
        return super().__getitem__(place)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("a" * 999 + "b", "a" * 998 + "c"),
        ("ab" * 499 + "cd", "ab" * 499 + "e"),
        ("a" * 499 + "b" + "a" * 499 + "c", "a" * 499 + "b" + "a" * 499 + "d"),
        ("a" * 499 + "b" * 500, "a" * 499 + "b"),
    ],
)
def test_no_character_takes_as_long_as_a_stop_string_is(stop: str, text: str):
    search, most = StopSearch((Read(stop),)), 0
    for character in text:
        Read.reads = 0
        search.push(character)
        most = max(most, Read.reads)
    assert most < 40
    assert search.held == held(text, (stop,))


@given(
    repeats=st.lists(st.tuples(st.sampled_from(["ab", "aab", "a", "b"]), st.integers(1, 9)), max_size=8),
    stops=st.lists(st.sampled_from(["a" * 9 + "b", "ab" * 5 + "b", "aabaaab", "abaabab" * 2, "b", "aaaa"]), max_size=4),
)
def test_so_it_is_where_stop_strings_repeat_themselves(repeats: list[tuple[str, int]], stops: list[str]):
    search, text, known = StopSearch(tuple(stops)), "", tuple(stops)
    for character in "".join(part * count for part, count in repeats):
        before, text = text, text + character
        assert search.push(character) == earliest(before, text, known)
        assert search.held == held(text, known)
