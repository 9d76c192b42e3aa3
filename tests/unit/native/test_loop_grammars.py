"""Grammars are made beside the steps: who waits for one keeps nobody waiting, and ends like everybody else."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from token_backend import Bench, alone, fill, generate, late

from parrotserve.aside import Work, at_once
from parrotserve.engines.base import Cancel, EndStatus, Pause, Resume
from parrotserve.ids import RequestId

A = RequestId("a")
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 99}
LIST = {"type": "array", "items": NUMBER, "maxItems": 4}


class Later:
    """Does work when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Future[Any], Work]] = []

    def __call__(self, owner: str, work: Work) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append((owner, future, work))
        return future

    def finish(self) -> None:
        for owner, future, work in self.asked:
            if future.set_running_or_notify_cancel():
                done = at_once(owner, work)
                error = done.exception()
                future.set_result(done.result()) if error is None else future.set_exception(error)
        self.asked.clear()


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def bench(later: Later) -> Bench:
    return Bench(doing=later)


def test_others_are_served_while_a_schema_is_compiled(bench: Bench, later: Later):
    bench.open("a", fill("Which? "), generate(20, schema=LIST), salt="t")
    bench.open("b", fill("Hello "), generate(20))
    bench.run()
    assert bench.text("b") == alone(fill("Hello "), generate(20))
    assert not bench.finished("a")
    assert bench.core.heartbeat().running == 0
    assert [owner for owner, _, _ in later.asked] == ["t"]
    later.finish()
    assert not bench.core.idle
    bench.run()
    assert bench.text("a") == alone(fill("Which? "), generate(20, schema=LIST))


def test_what_the_first_needs_may_be_there_before(monkeypatch: pytest.MonkeyPatch):
    expected, prepared = alone(fill("Which? "), generate(20, schema=LIST)), Bench()
    prepared.core.prepare()
    monkeypatch.setattr("parrotserve.engines.native.grammars.LLTokenizer", lambda *_, **__: pytest.fail("made again"))
    prepared.open("a", fill("Which? "), generate(20, schema=LIST))
    prepared.run()
    assert prepared.text("a") == expected


def test_the_prompt_is_read_meanwhile(bench: Bench, later: Later):
    bench.open("a", fill("a prompt of several pages "), generate(20, schema=LIST))
    bench.run()
    read = bench.backend.computed_rows
    assert read == len("a prompt of several pages ")
    later.finish()
    bench.step()
    assert bench.backend.computed_rows - read < 5


def test_who_waits_is_told_when_to_step_again(bench: Bench, later: Later):
    woken: list[bool] = []
    bench.core.call_when_ready(lambda: woken.append(bench.core.idle))
    bench.open("a", fill("x"), generate(5, schema=LIST))
    bench.run()
    assert not woken
    later.finish()
    assert woken == [False]


@pytest.mark.parametrize(
    "segments",
    [
        (generate(9, schema=LIST),),
        (fill("one "), generate(9, schema=LIST), fill(" two "), generate(9, schema=NUMBER)),
        (fill("again "), generate(9, schema=LIST, delivered=[*b"[7"])),
        (fill("drawn "), generate(9, schema=LIST, temperature=1.0, seed=3)),
    ],
)
def test_the_result_is_the_same_whenever_its_grammar_is_there(bench: Bench, later: Later, segments: tuple[Any, ...]):
    bench.open("a", *segments)
    for _ in range(50):
        bench.run()
        later.finish()
    at_once_bench = Bench()
    at_once_bench.open("a", *segments)
    at_once_bench.run()
    assert [event.text for event in bench.finished("a")] == [event.text for event in at_once_bench.finished("a")]
    assert bench.status("a") is EndStatus.DONE


def test_content_that_comes_meanwhile_is_taken_in(bench: Bench, later: Later):
    bench.open("a", fill("one "), generate(9, schema=LIST), late(), generate(9))
    bench.run()
    bench.extend("a", 2, " and two ")
    bench.run()
    assert len(later.asked) == 1
    later.finish()
    bench.run()
    assert len(bench.finished("a")) == 2


def cancel(bench: Bench) -> None:
    bench.core.handle(Cancel(sequence=A, epoch=1))


def replace(bench: Bench) -> None:
    bench.open("a", fill("other"), generate(3), epoch=2)


@pytest.mark.parametrize("end", [cancel, replace])
def test_a_sequence_that_ends_meanwhile_leaves_nothing_behind(bench: Bench, later: Later, end: Callable[[Bench], None]):
    bench.open("a", fill("x"), generate(5, schema=LIST))
    bench.run()
    (_, future, _), *_ = later.asked
    end(bench)
    bench.run()
    assert future.cancelled()
    told = len(bench.events)
    later.finish()
    bench.run()
    assert len(bench.events) == told
    assert bench.core.heartbeat().waiting == 0
    assert bench.cache.stats().used == 0


def test_one_that_is_cancelled_while_its_grammar_is_in_the_making_is_not_gone_on_with(bench: Bench, later: Later):
    bench.open("a", fill("x"), generate(5, schema=LIST))
    (owner, future, work), *_ = later.asked
    future.set_running_or_notify_cancel()
    cancel(bench)
    bench.run()
    future.set_result(at_once(owner, work).result())
    bench.run()
    assert bench.status("a") is EndStatus.CANCELLED


def test_a_paused_sequence_stays_paused(bench: Bench, later: Later):
    bench.open("a", fill("x"), generate(5, schema=NUMBER))
    bench.core.handle(Pause(sequence=A, epoch=1))
    later.finish()
    bench.run()
    assert not bench.finished("a")
    bench.core.handle(Resume(sequence=A, epoch=1))
    bench.run()
    assert bench.text("a") == alone(fill("x"), generate(5, schema=NUMBER))


def panic(later: Later) -> None:
    later.asked[0][1].set_exception(BaseException("as compiled libraries do"))


@pytest.mark.parametrize(("fail", "code"), [(Later.finish, "invalid_schema"), (panic, "engine_failed")])
def test_what_cannot_be_compiled_fails_its_sequence_alone(
    bench: Bench, later: Later, fail: Callable[[Later], None], code: str
):
    bench.open("a", fill("x"), generate(5, schema={"type": "nonsense"}))
    bench.open("b", fill("y"), generate(5))
    bench.run()
    fail(later)
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == code
    assert bench.status("b") is EndStatus.DONE
