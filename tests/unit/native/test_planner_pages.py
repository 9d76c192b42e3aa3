"""Whose pages a step takes where there are few: who joins, and who makes room."""

from collections.abc import Iterator
from typing import Any

import pytest
from planning import PAGE, Bench, ahead, sequence

from parrotserve.criteria import Objective
from parrotserve.engines.native.cache import KvCache
from parrotserve.engines.native.radix import Node, RadixTree


def test_a_sequence_joins_only_with_room_for_its_prompt_beside_the_others():
    bench = Bench(KvCache(8, PAGE))
    assert bench.step(sequence("a" * 16), sequence("b" * 12, arrival=1)) == {"a" * 16: 16}
    bench = Bench(KvCache(9, PAGE))
    assert bench.step(sequence("a" * 16), sequence("b" * 11, arrival=1)) == {"a" * 16: 16, "b" * 11: 11}


def test_those_after_one_that_does_not_fit_wait_their_turn():
    bench = Bench(KvCache(8, PAGE))
    states = sequence("a" * 12), sequence("b" * 20, arrival=1), sequence("c", arrival=2)
    assert bench.step(*states) == {"a" * 12: 12}


def test_the_least_important_gives_up_its_pages_first():
    bench = Bench(KvCache(8, PAGE))
    old, young = sequence("a" * 8, arrival=0), sequence("b" * 8, arrival=1)
    bench.step(old, young)
    new = sequence("c" * 20, arrival=2, objective=Objective.LATENCY)
    old.objective = young.objective = Objective.THROUGHPUT
    assert bench.step(old, young, new)["c" * 20] == 20
    assert (len(old.pages), len(young.pages)) == (3, 0)


def test_a_sequence_that_waits_for_content_gives_up_its_pages_before_any_other():
    bench = Bench(KvCache(6, PAGE))
    ahead = sequence("a" * 8, waits=True, objective=Objective.LATENCY)
    bench.step(ahead)
    running = sequence("b" * 8, arrival=1, objective=Objective.THROUGHPUT)
    bench.step(ahead, running)
    assert bench.step(ahead, sequence("c" * 12, arrival=2, objective=Objective.GROUP), running)
    assert (ahead.pages, ahead.dormant) == ([], True)


def test_a_reclaimed_sequence_that_waits_for_content_is_not_computed_again_in_vain():
    bench = Bench(KvCache(2, PAGE))
    ahead = sequence("a" * 8, waits=True)
    bench.step(ahead)
    bench.step(ahead, sequence("b" * 6))
    assert bench.step(ahead) == {}


def test_rewinding_gives_up_a_page_that_others_may_share():
    bench, state = Bench(), sequence("abcdefghij")
    bench.step(state)
    bench.planner.rewind(state, 7)
    assert (state.computed, len(state.pages)) == (4, 1)
    bench.cache.check_integrity()


def test_rewinding_keeps_a_page_that_nobody_shares():
    bench, state = Bench(), sequence("abcdefghij")
    bench.step(state)
    bench.planner.rewind(state, 9)
    assert (state.computed, len(state.pages)) == (9, 3)


def test_what_a_waiting_sequence_begins_with_is_evicted_last():
    bench = Bench(KvCache(12, PAGE), max_running=1)
    for prompt in ("a" * 16, "b" * 16):  # the one that is waited for was used longer ago
        done = sequence(prompt)
        bench.step(done)
        bench.planner.rewind(done, 0)
    waiting = sequence("a" * 16 + "?", arrival=9)
    running = sequence("c" * 30)
    bench.step(running, waiting)
    resident = [len(bench.cache.acquire("", list(prompt.encode()))) for prompt in ("a" * 16, "b" * 16)]
    assert resident == [4, 0]


def test_what_many_wait_for_is_looked_up_once(monkeypatch: pytest.MonkeyPatch):
    bench, looked = Bench(KvCache(20, PAGE), max_running=1), list[int]()
    for prompt in ("a" * 16 + "bcde", "x" * 16):  # the former was used longer ago
        done = sequence(prompt)
        bench.step(done)
        bench.planner.rewind(done, 0)
    waiting = [sequence("a" * 16 + letter * 8, arrival=9 + place) for place, letter in enumerate("bbc")]
    waiting.insert(1, sequence("a" * 16 + "bcdefghi", arrival=9))
    walk = RadixTree.walk

    def spy(tree: RadixTree, *prefix: Any) -> Iterator[Node]:
        for found in walk(tree, *prefix):
            looked.append(found.depth)
            yield found

    monkeypatch.setattr(RadixTree, "walk", spy)
    bench.step(sequence("z" * 57), *waiting)
    assert sorted(looked) == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    resident = [len(bench.cache.acquire("", list(prompt.encode()))) for prompt in ("a" * 16 + "bcde", "x" * 16)]
    assert resident == [5, 0]


def test_who_holds_nothing_but_what_others_hold_too_keeps_its_place_where_pages_are_short():
    bench = Bench(KvCache(7, PAGE))
    running = sequence("abcdefghijklmno")
    bench.step(running)
    waiting = ahead("abcdefgh", arrival=1)
    while bench.step(running, waiting):
        pass
    assert (len(running.pages), len(waiting.pages)) == (7, 2)


def test_who_shares_pages_with_those_that_stay_makes_no_room_with_them_for_another():
    bench = Bench(KvCache(8, PAGE))
    first, second = sequence("p" * 16), sequence("p" * 16 + "qrs", arrival=9)
    bench.step(first)
    bench.step(first, second)
    assert first.pages[:4] == second.pages[:4]
    between = sequence("x" * 11, arrival=5)
    assert bench.step(first, between, second) == {"p" * 16: 1, "p" * 16 + "qrs": 1}


def test_what_only_those_share_that_make_room_is_room_once_all_of_them_do():
    bench = Bench(KvCache(8, PAGE))
    bulk = [sequence("p" * 16 + end, arrival=place, objective=Objective.THROUGHPUT) for place, end in enumerate("qr")]
    bench.step(*bulk)
    bench.step(*bulk)
    assert (bulk[0].pages[:4] == bulk[1].pages[:4], bench.cache.available()) == (True, 2)
    chat, other = sequence("c", arrival=2), sequence("d" * 23, arrival=3)
    assert bench.step(*bulk, chat, other) == {"c": 1, "d" * 23: 23}
