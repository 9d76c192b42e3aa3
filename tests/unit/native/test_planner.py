"""What a step holds: order, budget, pages, and who waits for whom."""

from collections.abc import Callable, Sequence

import pytest

from parrotserve.criteria import NO_PRECEDENCE, Objective, Precedence
from parrotserve.engines.base import Generate
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.cache import KvCache, NaiveCache, PageCache
from parrotserve.engines.native.generating import Output
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.plan import Planned, fitting_in
from parrotserve.engines.native.planner import Planner
from parrotserve.engines.native.radix import Salt
from parrotserve.engines.native.sequence import Content, SequenceState
from parrotserve.ids import RequestId
from parrotserve.sampling import Sampling

PAGE = 4


def sequence(
    tokens: str,
    *,
    arrival: int = 0,
    objective: Objective = Objective.LATENCY,
    precedence: Precedence = NO_PRECEDENCE,
    waits: bool = False,
) -> SequenceState:
    """One whose prompt is known; with `waits` a late segment comes before its output."""
    generate = Generate(sampling=Sampling())
    late = [Content([], complete=False)] if waits else []
    state = SequenceState(
        sequence=RequestId(tokens),
        epoch=1,
        salt="",
        objective=objective,
        precedence=precedence,
        arrival=arrival,
        segments=[Content(list(tokens.encode()), complete=True), *late, generate],
    )
    go_on(state)
    return state


def go_on(state: SequenceState) -> None:
    """Takes in what is known, up to the output."""
    state.dormant = False
    for output in state.take_content():
        state.output = Output(output, segment=1, prompt=state.known, room=100, tokenizer=FakeTokenizer(), grammar=None)


def ahead(tokens: str, *, arrival: int = 0) -> SequenceState:
    """One that knows so much and waits for more."""
    state = sequence(tokens, arrival=arrival, waits=True)
    state.sequence = RequestId(f"ahead{arrival}")
    return state


def fill(state: SequenceState, tokens: str, *, complete: bool = True) -> None:
    """What the sequence waits for comes."""
    content = state.segments[state.cursor]
    assert isinstance(content, Content)
    content.extend(len(content.tokens), list(tokens.encode()), last=complete)
    go_on(state)


class Bench:
    """A planner, and the cache that it plans for."""

    def __init__(self, cache: PageCache | None = None, *, chunk: int = 64, max_running: int = 8, share: bool = True):
        self.cache = cache or KvCache(64, PAGE)
        self.planner = Planner(self.cache, prefill_chunk=chunk, max_running=max_running, share=share)

    def step(self, *states: SequenceState) -> dict[str, int]:
        """Plans one step and carries it out, but for the model; how many tokens of each sequence ran."""
        self.planner.unsettle()  # nobody has told the planner which sequences there are now
        plan = self.planner.plan(states)
        for planned in plan:
            self.compute(planned)
        self.cache.check_integrity()
        return {planned.state.sequence: planned.count for planned in plan}

    def compute(self, planned: Planned) -> None:
        state = planned.state
        assert len(state.pages) * PAGE >= state.computed + planned.count
        state.computed += planned.count
        full = state.computed // PAGE
        state.pages[:full] = self.cache.publish(state.salt, state.known, state.pages[:full])
        if state.output is not None and state.computed == len(state.known):
            state.known.append(0)


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


@pytest.mark.parametrize(
    ("seconds", "count", "cost", "fitting"),
    [(2.0, 8, 1.0, 8), (1.0, 8, 1.0, 8), (0.5, 8, 1.0, 4), (0.0, 8, 1.0, 0), (-1.0, 8, 1.0, 0), (-1.0, 8, 0.0, 8)],
)
def test_as_many_tokens_fit_as_there_is_time_for(seconds: float, count: int, cost: float, fitting: int):
    assert fitting_in(seconds, count, cost=cost) == fitting


def test_tokens_that_cost_nothing_as_far_as_is_known_are_planned_when_no_time_is_left(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    monkeypatch.setattr(Pace, "bound", -1.0)
    monkeypatch.setattr(Planner, "_cost", lambda *_: 0.0)
    first, second = sequence("abcdef"), sequence("ghijkl", arrival=1)
    assert bench.step(first) == {"abcdef": 6}
    assert bench.step(first, second) == {"abcdef": 1, "ghijkl": 6}


def _always(seconds: float) -> Callable[..., float]:
    def answer(*_: object) -> float:
        return seconds

    return answer


def _a_second_each(planner: Planner, state: SequenceState, count: int) -> float:
    del planner, state
    return float(count)


@pytest.mark.parametrize(("seconds", "count"), [(18.0, 18), (17.0, 12), (15.0, 12), (14.0, 14), (3.0, 3), (0.0, 0)])
def test_a_prompt_that_lacks_the_time_to_end_keeps_to_the_budget(
    seconds: float, count: int, monkeypatch: pytest.MonkeyPatch
):
    bench, chat = Bench(chunk=16), sequence("chat")
    bench.step(chat)
    monkeypatch.setattr(Pace, "left", _always(seconds))
    monkeypatch.setattr(Planner, "_cost", _a_second_each)
    prompt = sequence("a" * 18, arrival=1, objective=Objective.THROUGHPUT)
    assert bench.step(chat, prompt).get("a" * 18, 0) == count


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
