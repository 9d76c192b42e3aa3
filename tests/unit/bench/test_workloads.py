"""Workloads: sound, fresh for everybody, and the same work for everybody."""

import math
import random

import pytest

from parrotserve.bench.texts import Texts, sentences
from parrotserve.bench.workload import (
    OPEN_FIRST,
    OPEN_SECOND,
    Application,
    Call,
    Case,
    Outcome,
    Ref,
    Workload,
    check,
    figures,
    open_at_once,
)
from parrotserve.bench.workloads import WORKLOADS
from parrotserve.bench.workloads.gpts import GPTS, gpts
from parrotserve.engines.fake_tokenizer import FakeTokenizer

CASES = [
    pytest.param(workload, case, id=f"{workload.name}: {case.name}")
    for workload in WORKLOADS.values()
    for case in (*workload.cases, *workload.quick)
]


def build(case: Case, *, text: str = "a", chance: str = "a") -> list[Application]:
    return list(case.build(Texts(FakeTokenizer(), text), random.Random(chance)))


def shape(applications: list[Application]) -> list[object]:
    """All but the texts."""
    return [
        (one.kind, one.arrival, one.results, [(call.name, call.tokens, call.needs) for call in one.calls])
        for one in applications
    ]


def longest(application: Application) -> str:
    calls = (call for call in application.calls if isinstance(call, Call))
    return max((part for call in calls for part in call.parts if isinstance(part, str)), key=len)


@pytest.mark.parametrize(("workload", "case"), CASES)
def test_every_case_is_a_sound_dataflow_with_the_figures_that_count(workload: Workload, case: Case):
    applications = build(case)
    check(applications)
    found = figures([Outcome(one, one.arrival + 1.0) for one in applications if workload.counts(one)])
    assert set(workload.headline) <= set(found)


@pytest.mark.parametrize(("workload", "case"), CASES)
def test_sides_get_the_same_work_in_other_words(workload: Workload, case: Case):
    mine, theirs = build(case, text="mine"), build(case, text="theirs")
    assert shape(mine) == shape(theirs)
    # The longest text of each is a document or a system prompt; a cache must not have it from somebody else's trial.
    assert not {longest(one) for one in mine} & {longest(one) for one in theirs}


def test_texts_have_the_length_that_was_asked_for_and_do_not_repeat():
    texts = Texts(FakeTokenizer(), "seed")
    taken = [texts.take(length) for length in (10, 500, 500, 3000)]
    assert all(abs(len(text) - length) <= 2 for text, length in zip(taken, (10, 500, 500, 3000), strict=True))
    assert len({text[:10] for text in taken}) == 4
    assert len(sentences()) > 1000


@pytest.mark.parametrize(
    ("calls", "what"),
    [
        ((Call("a", (Ref("b"),), 1), Call("b", ("x",), 1)), "a is named twice, or reads what comes later"),
        ((Call("a", ("x",), 1), Call("b", ("x",), 1), Call("b", ("y",), 1)), "b is named twice, or reads"),
        ((Call("b", ("x",), 1),), "its results .* are not among its calls"),
    ],
    ids=["reads what comes later", "two of one name", "no such result"],
)
def test_unsound_applications_are_found_out(calls: tuple[Call, ...], what: str):
    with pytest.raises(ValueError, match=what):
        check([Application(kind="k", calls=calls, results=("a",))])


def test_latency_counts_from_arrival():
    chat = Application(kind="chat", calls=(Call("a", ("x",), 10),), results=("a",), arrival=2.0)
    found = figures([Outcome(chat, 3.0), Outcome(chat, 5.0)])
    assert found == {
        "chat p50": pytest.approx(2.0),
        "chat mean": pytest.approx(2.0),
        "latency a token": pytest.approx(0.2),
        "all done": 5.0,
    }


def between(arrival: float, finished: float) -> Outcome:
    one = Application(kind="k", calls=(Call("a", ("x",), 10),), results=("a",), arrival=arrival)
    return Outcome(one, finished)


def test_what_is_open_is_an_average_over_each_half_of_the_arrivals_that_count():
    loading = [between(0.0, 3.0), between(1.0, math.inf)]
    counted = [between(2.0, 4.0), between(5.0, 7.0), between(6.0, 9.0)]
    # From 2 to 4: one for a second, one all along and one all along. From 4 to 6: one all along, one for a second.
    assert open_at_once([*loading, *counted], counted) == {OPEN_FIRST: 2.5, OPEN_SECOND: 1.5}


def test_nothing_is_said_of_growth_where_all_arrive_at_once():
    assert open_at_once([between(1.0, 2.0)], [between(1.0, 2.0)]) == {}


@pytest.mark.parametrize("case", GPTS.cases, ids=lambda case: case.name)
def test_requests_of_gpts_count_once_the_service_is_loaded(case: Case):
    applications = build(case)
    loading = [one.arrival for one in applications if not GPTS.counts(one)]
    counted = [one.arrival for one in applications if GPTS.counts(one)]
    assert all(arrival < 10.0 for arrival in loading)
    assert all(10.0 <= arrival < 30.0 for arrival in counted)
    assert case.rate is not None
    assert len(applications) == pytest.approx(30.0 * case.rate, rel=0.4, abs=3)


def test_a_trial_of_gpts_always_has_a_request_that_counts():
    made = gpts(Texts(FakeTokenizer(), "a"), random.Random("a"), rate=0.1, loading=1.0, counted=0.1, scale=64)
    assert [one.kind for one in made][-1] == "request"
