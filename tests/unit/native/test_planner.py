"""What a step holds: order, budget, and who waits for whom."""

from collections.abc import Sequence

import pytest
from planning import PAGE, Bench, FixedPace, ahead, fill, sequence

from parrotserve.criteria import Objective, Precedence
from parrotserve.engines.native.cache import NaiveCache
from parrotserve.engines.native.plan import fitting_in
from parrotserve.engines.native.radix import Salt


def test_a_step_holds_prompts_up_to_the_budget_in_whole_pages():
    bench = Bench(chunk=10)
    assert bench.step(sequence("a" * 30)) == {"a" * 30: 8}


def test_what_is_left_of_the_budget_goes_to_the_next():
    bench = Bench(chunk=16)
    assert bench.step(sequence("aaaaa"), sequence("b" * 20, arrival=1)) == {"aaaaa": 5, "b" * 20: 8}


def test_a_prompts_rest_is_read_along_rather_than_in_a_step_of_its_own():
    assert Bench(chunk=16).step(sequence("a" * 20)) == {"a" * 20: 20}
    assert Bench(chunk=16).step(sequence("a" * 21)) == {"a" * 21: 16}


def test_what_a_rest_took_is_not_there_for_others():
    others = sequence("b" * 3, arrival=1), sequence("c" * 3, arrival=2)
    assert Bench(chunk=16).step(sequence("a" * 17), *others) == {"a" * 17: 17}


def test_decoding_sequences_run_whatever_is_prefilled_and_count_in_the_budget():
    bench = Bench(chunk=8)
    decoding = [sequence(letter, arrival=place + 1) for place, letter in enumerate("abcd")]
    bench.step(*decoding)
    assert bench.step(sequence("x" * 20), *decoding) == {"x" * 20: 4, "a": 1, "b": 1, "c": 1, "d": 1}


def test_a_page_is_prefilled_however_small_the_budget():
    assert Bench(chunk=1).step(sequence("a" * 10)) == {"a" * 10: 4}


@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
def test_chunks_add_up_to_the_prompt(chunk: int):
    bench, state = Bench(chunk=chunk), sequence("a" * 30)
    done = 0
    while state.output is not None and len(state.known) == 30:
        done += bench.step(state)[state.sequence]
    assert done == 30


def test_importance_decides_before_arrival():
    bench = Bench(max_running=1)
    states = [
        sequence("bulk", arrival=0, objective=Objective.THROUGHPUT),
        sequence("group", arrival=1, objective=Objective.GROUP),
        sequence("ahead", arrival=2, waits=True),
        sequence("chat", arrival=3),
    ]
    order: list[str] = []
    while states:
        (name,) = bench.step(*states)
        order.append(name)
        (done,) = [state for state in states if state.sequence == name]
        bench.planner.rewind(done, 0)
        states.remove(done)
    assert order == ["chat", "group", "bulk", "ahead"]


def test_precedence_decides_before_arrival_and_after_importance():
    bench, bulk = Bench(max_running=1), Objective.THROUGHPUT
    later = sequence("later", arrival=0, objective=bulk, precedence=Precedence(2, 9))
    earlier = sequence("earlier", arrival=1, objective=bulk, precedence=Precedence(1, 5))
    chat = sequence("chat", arrival=2, precedence=Precedence(3, 10))
    assert bench.step(later, earlier) == {"earlier": 7}
    assert bench.step(later, earlier, chat) == {"chat": 4}


def test_a_paused_sequence_does_not_run():
    state = sequence("abc")
    state.paused = True
    assert Bench().step(state) == {}


def test_what_the_cache_has_is_not_computed_but_for_the_last_token():
    bench = Bench()
    bench.step(sequence("abcdefgh"))
    again = sequence("abcdefgh", arrival=1)
    assert bench.step(again) == {"abcdefgh": 4}
    assert again.cached_tokens == 4


def test_who_shares_a_prefix_waits_until_it_is_computed():
    bench = Bench(chunk=8)
    first, second = sequence("shared prefix one"), sequence("shared prefix two", arrival=1)
    assert bench.step(first, second) == {"shared prefix one": 8}
    assert bench.step(first, second) == {"shared prefix one": 9}
    assert bench.step(first, second) == {"shared prefix one": 1, "shared prefix two": 5}
    assert second.cached_tokens == 12


def test_who_waits_for_a_prefix_to_be_computed_does_not_look_for_it_in_every_step(monkeypatch: pytest.MonkeyPatch):
    bench, looked = Bench(chunk=8), list[bytes]()
    acquire = bench.cache.acquire

    def spy(salt: str, tokens: Sequence[int], held: Sequence[int] = ()) -> list[int]:
        looked.append(bytes(tokens))
        return acquire(salt, tokens, held)

    monkeypatch.setattr(bench.cache, "acquire", spy)
    first, second = sequence("shared prefix one"), sequence("shared prefix two", arrival=1)
    bench.step(first, second)
    bench.step(first, second)
    assert set(looked) == {b"shared prefix on"}
    bench.step(first, second)
    assert looked[-1] == b"shared prefix tw"
    assert second.cached_tokens == 12


def test_nobody_waits_for_what_will_not_be_shared():
    bench = Bench(NaiveCache(64, PAGE), share=False)
    assert bench.step(sequence("same"), sequence("same")) == {"same": 4}
    first, second = sequence("same prompt"), sequence("same prompt", arrival=1)
    bench.step(first, second)
    assert first.computed == second.computed == 11


@pytest.mark.parametrize(
    ("seconds", "count", "cost", "fitting"),
    [(2.0, 8, 1.0, 8), (1.0, 8, 1.0, 8), (0.5, 8, 1.0, 4), (0.0, 8, 1.0, 0), (-1.0, 8, 1.0, 0), (-1.0, 8, 0.0, 8)],
)
def test_as_many_tokens_fit_as_there_is_time_for(seconds: float, count: int, cost: float, fitting: int):
    assert fitting_in(seconds, count, cost=cost) == fitting


def test_tokens_that_cost_nothing_as_far_as_is_known_are_planned_when_no_time_is_left():
    bench, chat = Bench(pace=FixedPace(row=0.0, left=-1.0)), sequence("chat")
    bench.step(chat)
    assert bench.step(chat, sequence("prompt", objective=Objective.THROUGHPUT)) == {"chat": 1, "prompt": 6}


@pytest.mark.parametrize(("seconds", "count"), [(18.0, 18), (17.0, 12), (15.0, 12), (14.0, 14), (3.0, 3), (0.0, 0)])
def test_a_prompt_that_lacks_the_time_to_end_keeps_to_the_budget(seconds: float, count: int):
    bench, chat = Bench(chunk=16, pace=FixedPace(row=1.0, left=seconds)), sequence("chat")
    bench.step(chat)
    prompt = sequence("a" * 18, arrival=1, objective=Objective.THROUGHPUT)
    assert bench.step(chat, prompt).get("a" * 18, 0) == count


def test_who_ran_ahead_into_a_page_takes_it_over_once_another_has_filled_it():
    bench, first, second = Bench(), sequence("abcdefghijklm"), ahead("abcdef", arrival=1)
    bench.step(second)
    bench.step(first)
    fill(second, "ghijklmnop")
    assert bench.step(second) == {"ahead1": 4}
    assert second.pages[:3] == first.pages[:3]


def test_who_ran_ahead_into_a_page_waits_while_another_fills_it():
    bench, first, second = Bench(), sequence("abcdefghijklm"), ahead("abcdef", arrival=1)
    bench.step(second)
    fill(second, "ghijklmnop")
    assert bench.step(first, second) == {"abcdefghijklm": 9}
    assert bench.step(first, second) == {"abcdefghijklm": 1, "ahead1": 4}


def test_the_end_of_what_several_know_that_fills_no_page_is_read_by_one_of_them():
    bench, states = Bench(), [ahead("abcdef", arrival=place) for place in range(3)]
    assert bench.step(*states) == {"ahead0": 6}
    assert bench.step(*states) == {}
    assert [state.computed for state in states] == [6, 4, 4]


def test_two_who_know_the_same_in_one_step_read_the_end_of_it_once():
    bench, states = Bench(), [ahead("abc", arrival=place) for place in range(2)]
    assert bench.step(*states) == {"ahead0": 3}
    assert bench.step(*states) == {}


def test_what_comes_after_an_end_that_one_has_read_is_read_once():
    bench, states = Bench(), [ahead("abcdef", arrival=place) for place in range(3)]
    while bench.step(*states):
        pass
    for state in states:
        fill(state, "ghijklmnopqrst")
    assert bench.step(*states) == {"ahead0": 14}
    assert bench.step(*states) == {"ahead0": 1, "ahead1": 4, "ahead2": 4}


def test_an_end_after_which_sequences_differ_is_read_by_each():
    bench, states = Bench(), [ahead("abcdef", arrival=place) for place in range(3)]
    while bench.step(*states):
        pass
    for state, rest in zip(states, ["one", "two", "three"], strict=True):
        fill(state, rest)
    assert bench.step(*states) == {"ahead0": 3, "ahead1": 5, "ahead2": 7}


def test_an_end_that_nobody_else_knows_is_read():
    bench, states = Bench(), [ahead("abcdef"), ahead("abcdeg", arrival=1)]
    bench.step(*states)
    bench.step(*states)
    assert [state.computed for state in states] == [6, 6]


def test_without_sharing_everybody_reads_to_the_end():
    bench, states = Bench(NaiveCache(64, PAGE), share=False), [ahead("abcdef", arrival=place) for place in range(2)]
    assert bench.step(*states) == {"ahead0": 6, "ahead1": 6}


def test_a_page_that_ends_what_several_know_is_read_by_one_of_them():
    bench, states = Bench(), [ahead("abcdefgh", arrival=place) for place in range(3)]
    assert bench.step(*states) == {"ahead0": 8}
    assert bench.step(*states) == {}
    assert [state.computed for state in states] == [8, 8, 8]
    for state in states:
        fill(state, "ij", complete=False)
    assert bench.step(*states) == {"ahead0": 2}


def test_an_end_that_another_tenant_knows_is_read():
    bench, states = Bench(), [ahead("abcdef", arrival=place) for place in range(2)]
    for state, tenant in zip(states, ("ann", "bob"), strict=True):
        state.salt = Salt(tenant, PAGE)
    assert bench.step(*states) == {"ahead0": 6}
    assert bench.step(*states) == {"ahead1": 2}
