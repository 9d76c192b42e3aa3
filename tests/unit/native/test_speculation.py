"""Speculative decoding: fewer steps where a text repeats itself, and not a token changes."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from token_backend import PAGE, Bench, Model, fill, forgetful, generate, hashed, reciting, streamed

from parrotserve.criteria import Objective
from parrotserve.engines.base import EndStatus
from parrotserve.engines.native.backend import StepBatch
from parrotserve.engines.native.drafts import Drafter
from parrotserve.engines.native.pace import Pace
from parrotserve.engines.native.speculation import Speculation
from parrotserve.engines.native.timing import StepShape
from parrotserve.sampling import FinishReason

VERSE = "tick tock, " * 8


def recited(
    *, tokens: int = 88, speculate: bool = True, pages: int = 256, stream: bool = False, **sampling: object
) -> Bench:
    """An output that says the same over and over, all by itself."""
    bench = Bench(model=reciting(VERSE), speculate=speculate, pages=pages)
    bench.open("a", fill("Go: "), generate(tokens, stream=stream, **sampling))
    bench.run()
    return bench


def most_rows(bench: Bench) -> int:
    """Logits in a step at most."""
    return max(len(step.logit_rows) for step in bench.backend.steps)


def test_what_repeats_itself_takes_far_fewer_steps():
    assert recited().text("a") == VERSE
    assert len(recited().backend.steps) < len(recited(speculate=False).backend.steps) / 3


def test_without_it_a_step_writes_one_token():
    bench = recited(speculate=False)
    assert bench.text("a") == VERSE
    assert most_rows(bench) == 1


@pytest.mark.parametrize("model", [hashed, forgetful])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_text_changes(model: Model, temperature: float):
    def texts(speculate: bool) -> list[str]:
        bench = Bench(model=model, speculate=speculate)
        for number in range(5):
            output = generate(60, temperature=temperature, seed=number, ignore_eos=number % 2 == 0, stop=("xy",))
            listed = generate(40, temperature=temperature, seed=number, schema=NAMES)
            bench.open(str(number), fill(f"{number} is " * number), output, fill(" and "), output, fill(" of "), listed)
        bench.run()
        return [event.text for number in range(5) for event in bench.finished(str(number))]

    assert texts(speculate=True) == texts(speculate=False)


def test_an_output_ends_in_the_middle_of_a_draft_where_its_stop_string_is():
    bench = recited(stop=("tock, tick tock, tick tock, ti",))
    assert bench.text("a") == "tick "
    assert bench.finished("a")[0].reason is FinishReason.STOP


def test_an_output_has_no_more_tokens_than_it_may_have():
    bench = recited(tokens=50)
    assert bench.text("a") == VERSE[:50]
    assert bench.ended("a").usage.output_tokens == 50
    assert most_rows(bench) > 1


def test_the_end_of_turn_ends_an_output_whatever_was_guessed():
    assert recited(tokens=200).finished("a")[0].reason is FinishReason.STOP


def test_a_reader_is_told_once_a_step_of_all_that_came():
    bench = recited(stream=True)
    told = streamed(bench)
    assert "".join(event.text for event in told) == VERSE
    assert len(told) <= len(bench.backend.steps)


def test_what_it_wrote_is_in_the_cache_for_whoever_goes_on():
    def cached(speculate: bool) -> int:
        bench = recited(speculate=speculate)
        bench.open("b", fill("Go: " + VERSE + " More?"), generate(2))
        bench.run()
        return bench.ended("b").usage.cached_tokens

    assert cached(speculate=True) == cached(speculate=False) > len(VERSE) - PAGE


def test_nothing_is_evicted_for_a_guess():
    pages = -(-len("Go: " + VERSE) // PAGE) + 2
    bench = recited(pages=pages)
    assert bench.text("a") == VERSE
    assert bench.status("a") is EndStatus.DONE


NAMES = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}


def test_an_output_with_a_schema_repeats_its_keys_in_few_steps():
    people = '[{"name": "Ada"}, {"name": "Bob"}, {"name": "Eve"}, {"name": "Max"}]'

    def listed(speculate: bool) -> Bench:
        bench = Bench(model=reciting(people), speculate=speculate)
        bench.open("a", fill("Who? "), generate(100, schema=NAMES))
        bench.run()
        return bench

    assert listed(speculate=True).text("a") == listed(speculate=False).text("a") == people
    assert len(listed(speculate=True).backend.steps) < 0.7 * len(listed(speculate=False).backend.steps)


def test_outputs_that_ask_for_more_than_the_models_own_logits_get_no_draft():
    for sampling in ({"frequency_penalty": 0.1}, {"logprobs": 1}, {"logit_bias": {97: 1.0}}):
        bench = recited(tokens=30, **sampling)
        assert most_rows(bench) == 1


def test_among_many_only_what_is_nearly_certain_is_tried(monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []
    ask = Drafter.draft

    def asking(self: Drafter, known: list[int], *, most: int, least: float) -> tuple[int, ...]:
        asked.append(least)
        return ask(self, known, most=most, least=least)

    monkeypatch.setattr(Drafter, "draft", asking)
    recite_together(1)
    alone = asked[-1]
    asked.clear()
    recite_together(4)
    assert 0.0 < alone < 0.15 < asked[-1] < 0.5


def recite_together(count: int) -> None:
    """On an engine whose steps read for 5 ms, and compute for 0.5 ms a row."""
    bench = Bench(model=reciting(VERSE))
    bench.step_seconds = 0.0

    def take_time(batch: StepBatch) -> None:
        bench.time += math.hypot(0.005, 0.0005 * len(batch.tokens))

    bench.backend.on_step = take_time
    for number in range(count):
        bench.open(str(number), fill(f"{number}: "), generate(80), objective=Objective.THROUGHPUT)
    bench.run()


def test_where_rows_are_most_of_a_step_nobody_is_looked_for(monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []

    def asking(self: Drafter, known: list[int], *, most: int, least: float) -> tuple[int, ...]:
        asked.append(least)
        return ()

    monkeypatch.setattr(Drafter, "draft", asking)
    recite_together(80)
    assert max(asked, default=0.0) <= 0.95
    assert asked


class Fake(SimpleNamespace):
    """What is asked of a sequence here."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def draft(self, known: list[int], *, most: int, least: float) -> tuple[int, ...]:
        return (1,) * min(most, 8)


def drafted(*, chats: int, jobs: int = 0, prompts: int = 0, ahead: int = 0, streamed: bool = True) -> int:
    """Rows of drafts, where there always are some, of steps that read for 5 ms, and compute for 0.5 ms a row; their
    bound is 7 ms."""
    pace = Pace(tpot=0.007)
    for rows in [1, 8, 16, 32] * 100:
        pace.learn(StepShape(decode_rows=rows), math.hypot(0.005, 0.0005 * rows))

    def some(count: int, *, decodes: bool = False, urgent: bool = False, runs_ahead: bool = False) -> list[Any]:
        output = Fake(may_draft=True, left=100)
        is_streamed = urgent and streamed
        one = {"decodes": decodes, "urgent": urgent, "runs_ahead": runs_ahead, "is_streamed": is_streamed}
        return [Fake(known=[0], output=output, **one) for _ in range(count)]

    states = some(chats, decodes=True, urgent=True) + some(jobs, decodes=True)
    states += some(prompts) + some(ahead, runs_ahead=True)
    return sum(map(len, Speculation(pace).drafts(states).values()))


def test_drafts_leave_a_step_within_the_bound_that_is_within_it_without_them():
    assert 0 < drafted(chats=8) <= 4
    assert drafted(chats=6, jobs=5) <= 1
    assert drafted(chats=6, jobs=20) == 0


def test_where_the_bound_is_lost_to_chats_alone_drafts_make_a_step_by_half_longer():
    assert 9 <= drafted(chats=16) <= 11
    assert drafted(chats=16, jobs=40) == drafted(chats=16)


@pytest.mark.parametrize("chats", [4, 16])
def test_the_bound_is_for_those_who_read_along_and_for_what_has_to_wait(chats: int):
    assert drafted(chats=chats, streamed=False) == 8 * chats
    assert drafted(chats=chats, ahead=1, streamed=False) == 8 * chats
    assert drafted(chats=chats, prompts=1, streamed=False) < 8 * chats
    assert drafted(chats=chats, jobs=1, streamed=False) < 8 * chats
