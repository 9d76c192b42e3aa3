"""What functions in the sandbox are given, as it is sent to them."""

import json
from typing import NamedTuple

from parrotserve.ids import VariableId
from parrotserve.native_calls import Slot, fill, written

A, B = VariableId("a"), VariableId("b")


def test_texts_come_in_their_places_as_json_has_them():
    values = {A: 'one "quoted" \\ line\n', B: "é 🦘 \x00"}
    template = ('{"texts":[', Slot(A), ",1,", Slot(B), '],"again":', Slot(A), "}")
    got = json.loads("".join(written(template, values)))
    assert got == {"texts": [values[A], 1, values[B]], "again": values[A]}


class Pair(NamedTuple):
    name: str
    text: object


def test_arguments_stay_what_they_are():
    values = {A: "one", B: "two"}
    given = {"pair": Pair("a", Slot(A)), "all": (Slot(A), [Slot(B), 3]), "rest": {4}}
    assert fill(given, values) == {"pair": Pair("a", "one"), "all": ("one", ["two", 3]), "rest": {4}}


def test_however_long_they_are_nothing_long_is_made_at_once():
    constant, text = json.dumps("x" * 1_000_000), '🦘"' * 500_000
    pieces = list(written((f"[{constant},", Slot(A), "]"), {A: text}))
    assert json.loads("".join(pieces)) == ["x" * 1_000_000, text]
    assert max(map(len, pieces)) <= 2 * 65_536
