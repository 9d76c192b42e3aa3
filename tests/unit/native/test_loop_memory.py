"""What the engine loop runs first, what it does where memory is short, and what does not fit."""

import numpy as np
import pytest
from token_backend import PAGE, Bench, alone, fill, forgetful, generate, hashed, late

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    Cancel,
    EndStatus,
    Fill,
    Pause,
    Release,
    Resume,
    Retain,
    SequenceEnded,
    Update,
)
from parrotserve.engines.native.logits import FloatArray
from parrotserve.ids import RequestId
from parrotserve.sampling import FinishReason, Usage

A = RequestId("a")


# --- What comes first -------------------------------------------------------------------------------------------


def test_more_important_sequences_start_first():
    bench = Bench(max_running=1)
    bench.open("bulk", fill("b"), generate(3), objective=Objective.THROUGHPUT)
    bench.open("group", fill("g"), generate(3), objective=Objective.GROUP)
    bench.open("chat", fill("c"), generate(3), objective=Objective.LATENCY)
    bench.run()
    ends = [event.sequence for event in bench.events if isinstance(event, SequenceEnded)]
    assert ends == ["chat", "group", "bulk"]


def test_an_update_changes_what_comes_first():
    bench = Bench(max_running=1)
    bench.open("a", fill("a"), generate(9, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.open("b", fill("b"), generate(9, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.step()
    bench.core.handle(Update(sequence=RequestId("b"), epoch=1, objective=Objective.LATENCY))
    bench.run()
    ends = [event.sequence for event in bench.events if isinstance(event, SequenceEnded)]
    assert ends == ["b", "a"]


# --- Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [10, 12, 20])
def test_a_cache_with_room_for_little_more_than_one_sequence_finishes_all(pages: int):
    bench = Bench(pages=pages)
    for n in range(12):
        bench.open(str(n), fill(f"{n:02}" * 8), generate(20, temperature=1.0, seed=n, ignore_eos=True))
    bench.run()
    for n in range(12):
        assert bench.text(str(n)) == alone(fill(f"{n:02}" * 8), generate(20, temperature=1.0, seed=n, ignore_eos=True))
    assert bench.core.heartbeat().used_pages == 0


def test_a_more_important_sequence_takes_pages_from_a_less_important_one():
    bench = Bench(pages=10)
    bench.open("bulk", fill("b" * 20), generate(18, ignore_eos=True), objective=Objective.THROUGHPUT)
    for _ in range(10):
        bench.step()
    bench.open("chat", fill("c" * 20), generate(18, ignore_eos=True))
    bench.run()
    ends = [event.sequence for event in bench.events if isinstance(event, SequenceEnded)]
    assert ends == ["chat", "bulk"]
    assert bench.text("bulk") == alone(fill("b" * 20), generate(18, ignore_eos=True))


def test_paused_sequences_give_up_their_pages_first():
    bench = Bench(pages=10)
    bench.open("a", fill("b" * 20), generate(18, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(A, 1))
    bench.open("bulk", fill("c" * 20), generate(18, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.run()
    assert bench.status("bulk") is EndStatus.DONE
    assert not bench.finished("a")
    bench.core.handle(Resume(A, 1))
    bench.run()
    assert bench.text("a") == alone(fill("b" * 20), generate(18, ignore_eos=True))


def test_a_sequence_that_runs_ahead_never_takes_pages_from_one_that_can_finish():
    bench = Bench(pages=10, speculate=False)
    bench.open("producer", fill("p" * 20), generate(18, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.step()
    bench.open("consumer", fill("c" * 16), late(), generate(10, ignore_eos=True))
    computed = bench.backend.computed_rows
    while not bench.finished("producer"):
        bench.step()
    assert bench.backend.computed_rows - computed <= 17 + 16
    value = bench.text("producer")[:10]
    bench.extend("consumer", 1, value)
    bench.run()
    assert bench.text("consumer") == alone(fill("c" * 16 + value), generate(10, ignore_eos=True))


def test_a_sequence_whose_pages_were_reclaimed_goes_on_when_its_content_comes():
    bench = Bench(pages=10)
    bench.open("consumer", fill("c" * 16), late(), generate(10, ignore_eos=True))
    bench.run()
    bench.open("other", fill("o" * 30), generate(8, ignore_eos=True))
    bench.run()
    bench.extend("consumer", 1, "value")
    bench.run()
    assert bench.text("consumer") == alone(fill("c" * 16 + "value"), generate(10, ignore_eos=True))


def test_sequences_that_run_ahead_do_not_take_pages_from_each_other():
    bench = Bench(pages=10)
    for name in ("first", "second"):
        bench.open(name, fill(f"{name} " * 4), late(), generate(5))
        bench.run()
    assert bench.core.heartbeat().used_pages == 10
    assert bench.backend.computed_rows == 24 + 16  # all of the first, and what fits of the second


def test_what_a_sequence_computes_again_is_not_counted_as_cached():
    bench = Bench(pages=10)
    bench.open("bulk", fill("b" * 20), generate(18, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.step()
    bench.open("chat", fill("c" * 12), generate(3, ignore_eos=True))
    bench.core.handle(Pause(RequestId("bulk"), 1))
    bench.open("more", fill("m" * 12), generate(3, ignore_eos=True))
    bench.run()
    bench.core.handle(Resume(RequestId("bulk"), 1))
    bench.run()
    assert bench.ended("bulk").usage.cached_tokens == 0
    assert bench.backend.computed_rows > 20 + 17 + 2 * (12 + 2)


def a_sequence_waits_for_room() -> Bench:
    """The cache has 16 tokens of its prompt, of which most are evicted before it has room."""
    bench = Bench(pages=12)
    bench.open("before", fill("p" * 16), generate(1))
    bench.run()
    bench.open("runs", fill("r" * 16), generate(28, ignore_eos=True))
    bench.open("waits", fill("p" * 16 + "w" * 20), generate(1))
    bench.step()
    return bench


def test_what_was_evicted_while_a_sequence_waited_for_room_is_not_counted_as_cached():
    bench = a_sequence_waits_for_room()
    while not bench.finished("runs"):
        bench.step()
    computed = bench.backend.computed_rows
    bench.run()
    assert bench.ended("waits").usage.cached_tokens == 36 - (bench.backend.computed_rows - computed) == 4


def test_a_sequence_that_is_cancelled_while_it_waits_for_room_has_cost_nothing():
    bench = a_sequence_waits_for_room()
    bench.core.handle(Cancel(RequestId("waits"), 1))
    bench.run()
    assert bench.ended("waits").usage == Usage()


def test_who_leaves_the_end_to_others_leaves_its_place_in_a_step_too():
    bench = Bench(max_running=1)
    for name, prompt in (("a", "abcdef"), ("b", "abcdef"), ("c", "another")):
        bench.open(name, fill(prompt), late(), generate(1))
    bench.run()
    assert bench.backend.computed_rows == len("abcdef") + len("another")


def room_for_one_of(*, chat: int, bulk: int) -> Bench:
    """A chat and throughput work that write so many tokens each, a step in 40 ms, in a cache that holds one of them."""
    bench = Bench(pages=-(-(80 + max(chat, bulk)) // PAGE) + 1, speculate=False)
    bench.step_seconds = 0.02
    bench.open("bulk", fill("b" * 80), generate(bulk, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.open("chat", fill("c" * 80), generate(chat, ignore_eos=True))
    bench.run()
    return bench


def ends(bench: Bench) -> list[str]:
    return [event.sequence for event in bench.events if isinstance(event, SequenceEnded)]


def test_the_minimum_share_does_not_have_two_take_each_others_pages_for_a_token_each():
    bench = room_for_one_of(chat=20, bulk=20)
    assert ends(bench) == ["chat", "bulk"]
    assert bench.backend.computed_rows == 2 * (80 + 19)


def test_the_minimum_share_comes_to_who_has_no_pages_in_the_end():
    bench = room_for_one_of(chat=500, bulk=5)
    assert ends(bench) == ["bulk", "chat"]
    assert bench.backend.computed_rows < 2 * (80 + 500)


def test_the_minimum_share_lasts_until_a_long_prompt_is_read():
    bench = Bench(pages=130, speculate=False, prefill_chunk=16, model=forgetful)
    bench.step_seconds = 0.3
    bench.open("bulk", fill("b" * 300), generate(5, ignore_eos=True), objective=Objective.THROUGHPUT)
    bench.open("chat", fill("c" * 250), generate(260, ignore_eos=True))
    bench.run()
    assert ends(bench) == ["bulk", "chat"]
    assert bench.backend.computed_rows < 2 * (300 + 4 + 250 + 259)


def test_the_minimum_share_comes_to_who_needs_much_room_though_others_need_little():
    """Beside chats that hold most of the cache there is room for short jobs, which never end."""
    bench, opened = Bench(pages=60, speculate=False, model=forgetful), 0
    bench.step_seconds = 0.1
    bulk = Objective.THROUGHPUT
    for step in range(150):
        names = [state.sequence for state in bench.core._sequences]
        for kind, count in ("chat", 2), ("short", 2 if step > 2 else 0):
            for _ in range(count - sum(name.startswith(kind) for name in names)):
                opened += 1
                prompt, tokens = f"{opened:03}".ljust(60, "c"), 20 + 20 * (opened % 2)
                if kind == "short":
                    prompt, tokens = prompt[:8], 4
                objective = bulk if kind == "short" else Objective.LATENCY
                bench.open(f"{kind}{opened}", fill(prompt), generate(tokens, ignore_eos=True), objective=objective)
        if step == 2:
            bench.open("long", fill("b" * 160), generate(5, ignore_eos=True), objective=bulk)
        bench.step()
    assert sum(name.startswith("short") for name in ends(bench)) > 5
    assert "long" in ends(bench)


def test_a_token_that_is_read_ahead_is_not_one_of_the_minimum_share():
    bench = Bench(pages=200, speculate=False, model=forgetful)
    bench.step_seconds = 0.05
    bench.open("chat", fill("c" * 250), generate(260, ignore_eos=True))
    bench.open("ahead", fill("a"), late(), generate(1), objective=Objective.THROUGHPUT)
    bench.step()
    bench.open("bulk", fill("b" * 700), generate(1), objective=Objective.THROUGHPUT)
    for offset in range(200):
        bench.extend("ahead", 1, "x", offset=offset, last=False)
        bench.step()
    bench.extend("ahead", 1, "x", offset=200)
    bench.run()
    assert ends(bench).index("bulk") < ends(bench).index("chat")


def test_a_cancelled_sequence_frees_all_it_holds():
    bench = Bench()
    bench.open("a", fill("c" * 50), generate(50))
    bench.step()
    assert bench.core.heartbeat().used_pages > 0
    bench.core.handle(Cancel(A, 1))
    bench.run()
    assert bench.status("a") is EndStatus.CANCELLED
    assert bench.core.heartbeat().used_pages == 0


@pytest.mark.parametrize("public", [0, 8, 16])
def test_a_retained_prefix_outlives_what_is_not(public: int):
    bench = Bench(pages=12)
    bench.core.handle(Retain("key", "ann", tuple(b"r" * 16), public))
    bench.open("a", fill("r" * 17), generate(1), salt="ann", public=public)
    bench.run()
    for n in range(5):
        bench.open(str(n), fill(f"{n}" * 30), generate(1))
        bench.run()
    bench.open("b", fill("r" * 17), generate(1), salt="ann", public=public)
    assert bench.core.heartbeat().retained_pages == 4
    bench.run()
    assert bench.ended("b").usage.cached_tokens == 16
    bench.core.handle(Release("key"))
    assert bench.core.heartbeat().retained_pages == 0


# --- What does not fit ------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_fails_at_once_with_the_numbers():
    bench = Bench(pages=64, context=32)
    bench.open("a", fill("x" * 32), generate(1))
    bench.run()
    assert bench.status("a") is EndStatus.FAILED
    code, message = bench.ended("a").error or ("", "")
    assert code == "context_exceeded"
    assert "32 tokens" in message
    assert message.endswith("may have 32, that is the model's context. Shorten the prompt.")
    assert not bench.backend.steps


def test_where_the_cache_is_smaller_than_the_context_a_long_prompt_is_not_all_to_blame():
    bench = Bench(pages=64, context=32, cut_by_cache=True)
    bench.open("long", fill("x" * 32), generate(1))
    bench.open("two outputs", fill("x" * 30), generate(2), late(), generate(1))
    bench.step()
    bench.extend("two outputs", 2, "")
    bench.run()
    for name in ("long", "two outputs"):
        _, message = bench.ended(name).error or ("", "")
        assert "which is all that the KV cache holds. Raise kv_memory, or shorten the prompt" in message


def test_a_late_segment_that_makes_the_prompt_too_long_fails_it():
    bench = Bench(context=32)
    bench.open("a", fill("x" * 16), late(), generate(1))
    bench.step()
    bench.extend("a", 1, "y" * 16)
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "context_exceeded"
    assert bench.core.heartbeat().used_pages == 0


def test_max_tokens_is_clipped_to_what_the_context_leaves():
    bench = Bench(context=32)
    bench.open("a", fill("x" * 20), generate(100, ignore_eos=True))
    bench.run()
    assert len(bench.finished("a")[0].tokens) == 12
    assert bench.finished("a")[0].reason is FinishReason.LENGTH


def test_an_output_without_room_after_earlier_ones_fails_the_sequence_but_not_them():
    bench = Bench(context=32)
    bench.open("a", fill("x" * 20), generate(100, ignore_eos=True), fill("more"), generate(5))
    bench.run()
    assert len(bench.finished("a")) == 1
    assert (bench.ended("a").error or ("",))[0] == "context_exceeded"


@pytest.mark.parametrize(("part", "fits"), [("yyy", True), ("yyyy", False), ("y" * 9, False)])
def test_nothing_is_read_ahead_for_an_output_that_will_have_no_room(part: str, fits: bool):
    bench = Bench(context=32, speculate=False)
    bench.open("a", fill("x" * 8), generate(20, ignore_eos=True), late(), generate(5))
    while not bench.finished("a"):
        bench.step()
    bench.extend("a", 2, part, last=False)
    bench.run()
    failures = [event.error for event in bench.events if isinstance(event, SequenceEnded)]
    assert [code for code, _ in filter(None, failures)] == ([] if fits else ["context_exceeded"])
    assert sum(len(batch.tokens) for batch in bench.backend.steps) == (31 if fits else 27)


def test_a_schema_that_cannot_be_enforced_fails_the_sequence():
    bench = Bench()
    bench.open("a", fill("x"), generate(5, schema={"type": "nonsense"}))
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "invalid_schema"


def test_logits_that_are_no_numbers_fail_their_sequence_and_no_other():
    def broken(context: tuple[int, ...]) -> FloatArray:
        return hashed(context) * np.float32("nan") if 0 in context else hashed(context)

    bench = Bench(model=broken)
    bench.open("bad", Fill(tokens=(0,)), generate(5, temperature=1.0, seed=1))
    bench.open("good", fill("x"), generate(5))
    bench.run()
    assert (bench.ended("bad").error or ("",))[0] == "engine_failed"
    assert bench.text("good") == alone(fill("x"), generate(5))


def test_text_is_refused_by_an_engine_of_tokens():
    bench = Bench()
    bench.open("a", Fill(text="x"), generate(5))
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "engine_failed"


def test_more_sequences_than_credits_are_refused():
    bench = Bench(credits=2)
    for name in "abc":
        bench.open(name, fill("x"), generate(2))
    bench.run()
    assert [bench.status(name) for name in "abc"] == [EndStatus.DONE, EndStatus.DONE, EndStatus.FAILED]
