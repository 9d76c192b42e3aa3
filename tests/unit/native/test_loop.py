"""The engine loop, on a backend whose logits depend on exactly the tokens that a row attends to."""

import numpy as np
import pytest
from token_backend import PAGE, TOKENIZER, Bench, fill, generate, hashed, late, reciting

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    Cancel,
    EndStatus,
    Extend,
    Fill,
    Heartbeat,
    Pause,
    Release,
    Resume,
    Retain,
    SegmentFinished,
    SequenceEnded,
    TokensGenerated,
    Update,
)
from parrotserve.engines.native.logits import FloatArray
from parrotserve.ids import RequestId
from parrotserve.sampling import FinishReason, TokenLogprob

A = RequestId("a")


def alone(*segments: object, **settings: object) -> str:
    bench = Bench(**settings)  # type: ignore[arg-type]
    bench.open("alone", *segments)  # type: ignore[arg-type]
    bench.run()
    return bench.text("alone")


def streamed(bench: Bench, name: str = "a") -> list[TokensGenerated]:
    return [event for event in bench.events if isinstance(event, TokensGenerated) and event.sequence == name]


# --- One sequence -------------------------------------------------------------------------------------------


def test_an_output_is_what_the_model_says_after_the_prompt():
    bench = Bench(model=reciting("parrots talk"))
    bench.open("a", fill("What do parrots do? "), generate(50))
    bench.run()
    assert bench.text("a") == "parrots talk"
    assert bench.finished("a")[0].reason is FinishReason.STOP
    assert bench.finished("a")[0].tokens == (*b"parrots talk", 256)
    assert bench.status("a") is EndStatus.DONE


def test_an_output_ends_at_max_tokens():
    bench = Bench(model=reciting("parrots talk"))
    bench.open("a", fill("?"), generate(7))
    bench.run()
    assert bench.text("a") == "parrots"
    assert bench.finished("a")[0].reason is FinishReason.LENGTH


def test_a_stream_tells_every_token_once_and_joins_to_the_text():
    bench = Bench(model=reciting(" so: é stopped"))
    bench.open("a", fill("?"), generate(50, stream=True, stop=("stop",)))
    bench.run()
    events = streamed(bench)
    assert "".join(event.text for event in events) == bench.text("a") == "so: é "
    assert [token for event in events for token in event.tokens] == list(bench.finished("a")[0].tokens)
    assert [event.offset for event in events] == list(range(len(events)))


def test_an_output_that_nobody_streams_tells_nothing_before_it_is_finished():
    bench = Bench()
    bench.open("a", fill("?"), generate(5))
    bench.run()
    assert [type(event) for event in bench.events] == [SegmentFinished, SequenceEnded]


def test_one_sequence_may_hold_several_outputs():
    bench = Bench()
    bench.open("a", fill("one "), generate(6), fill(" two "), generate(6))
    bench.run()
    first, second = bench.finished("a")
    follow_up = fill("one " + TOKENIZER.decode(first.tokens) + " two ")
    assert second.text == alone(follow_up, generate(6))


def test_the_end_of_turn_leaves_no_trace_before_the_next_segment():
    bench = Bench(model=reciting("yes"))
    bench.open("a", fill("really? "), generate(9), fill(" sure? "), generate(9))
    bench.run()
    assert [event.text for event in bench.finished("a")] == ["yes", "yes"]
    backend = bench.backend
    written = {int(p): int(t) for step in backend.steps for p, t in zip(step.positions, step.tokens, strict=True)}
    assert bytes(written[place] for place in sorted(written)[:18]) == b"really? yes sure? "


def test_a_stop_string_leaves_no_trace_before_the_next_segment():
    bench = Bench(model=reciting("yes.\nAnd more"))
    bench.open("a", fill("really? "), generate(20, stop=("\nAnd",)), fill("\nsure? "), generate(3))
    bench.run()
    written = {int(p): int(t) for step in bench.backend.steps for p, t in zip(step.positions, step.tokens, strict=True)}
    assert bytes(written[place] for place in sorted(written)[:19]) == b"really? yes.\nsure? "


def test_the_dropped_space_stays_in_the_sequence():
    bench = Bench(model=reciting(" yes.\nAnd more"))
    bench.open("a", fill("really?"), generate(20, stop=("\nAnd",)), fill("\nsure?"), generate(3))
    bench.run()
    assert bench.text("a") == "yes."
    written = {int(p): int(t) for step in bench.backend.steps for p, t in zip(step.positions, step.tokens, strict=True)}
    assert bytes(written[place] for place in sorted(written)[:18]) == b"really? yes.\nsure?"


def test_two_outputs_may_follow_each_other_directly():
    bench = Bench()
    bench.open("a", fill("prompt"), generate(7, ignore_eos=True), generate(8))
    bench.run()
    assert bench.text("a", 1) == alone(fill("prompt" + bench.text("a")), generate(8))


@pytest.mark.parametrize("prompt", ["12345", "123456789", "1234567"])
def test_an_output_may_directly_follow_an_end_of_turn(prompt: str):
    bench = Bench(model=reciting("yes"))
    bench.open("a", fill(prompt), generate(9), generate(9))
    bench.run()
    first, second = bench.finished("a")
    assert (first.text, second.text, second.tokens) == ("yes", "", (256,))


def test_an_empty_prompt_starts_from_the_models_start_token():
    bench = Bench()
    bench.open("a", generate(4))
    bench.run()
    assert bench.backend.steps[0].tokens.tolist() == [TOKENIZER.bos]
    assert bench.ended("a").usage.prompt_tokens == 0


def test_a_sequence_without_outputs_warms_the_cache():
    bench = Bench()
    bench.open("a", fill("x" * 64))
    bench.run()
    assert bench.status("a") is EndStatus.DONE
    bench.open("b", fill("x" * 64 + "y"), generate(1))
    bench.run()
    assert bench.ended("b").usage.cached_tokens == 64


def test_usage_counts_what_was_read_made_and_spent():
    bench = Bench()
    bench.open("a", fill("12345"), generate(3, ignore_eos=True))
    bench.run()
    usage = bench.ended("a").usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens) == (5, 0, 3)
    assert usage.engine_seconds == pytest.approx(0.5 * len(bench.backend.steps))


def test_a_steps_time_is_shared_by_its_rows():
    bench = Bench()
    bench.open("a", fill("1234"), generate(1))
    bench.open("b", fill("567890ab"), generate(1))
    bench.run()
    assert bench.ended("a").usage.engine_seconds == pytest.approx(0.5 / 3)
    assert bench.ended("b").usage.engine_seconds == pytest.approx(0.5 * 2 / 3)


def test_logprobs_come_with_the_tokens_and_again_at_the_end():
    bench = Bench()
    bench.open("a", fill("?"), generate(4, stream=True, logprobs=2))
    bench.run()
    whole = bench.finished("a")[0].logprobs
    assert [entry.token for entry in whole] == list(bench.finished("a")[0].tokens)
    assert all(isinstance(entry, TokenLogprob) and len(entry.top) == 2 for entry in whole)
    assert tuple(entry for event in streamed(bench) for entry in event.logprobs) == whole


# --- Batches, chunks and sharing change nothing -------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"prefill_chunk": 4},
        {"prefill_chunk": 16},
        {"prefill_chunk": 64},
        {"group": False},
        {"share": False},
        {"max_running": 1},
        {"max_running": 3},
        {"pages": 24},
    ],
)
def test_the_text_is_the_same_however_it_is_batched(settings: dict[str, int]):
    prompts = ["the same beginning " * 2 + f"end {n}" * n for n in range(6)]
    bench = Bench(**settings)  # type: ignore[arg-type]
    for n, prompt in enumerate(prompts):
        bench.open(str(n), fill(prompt), generate(10, temperature=0.8, seed=n))
    bench.run()
    for n, prompt in enumerate(prompts):
        assert bench.text(str(n)) == alone(fill(prompt), generate(10, temperature=0.8, seed=n))


def test_a_prompt_is_prefilled_in_chunks_while_others_decode():
    bench = Bench(prefill_chunk=8)
    bench.open("short", fill("hi"), generate(20, ignore_eos=True))
    bench.step()
    bench.open("long", fill("z" * 60), generate(1))
    bench.run()
    assert all(len(step.tokens) <= 8 for step in bench.backend.steps)
    assert max(len(step.logit_rows) for step in bench.backend.steps) == 2


def test_a_step_prefills_at_least_a_page_however_many_decode():
    bench = Bench(prefill_chunk=4)
    for n in range(6):
        bench.open(str(n), fill(f"{n}"), generate(30, ignore_eos=True))
        bench.step()
    bench.open("long", fill("z" * 16), generate(1))
    for _ in range(5):
        bench.step()
    assert bench.status("long") is EndStatus.DONE


def test_sequences_with_the_same_prompt_prefill_it_once():
    bench = Bench()
    for n in range(8):
        bench.open(str(n), fill("p" * 64 + str(n)), generate(1))
    bench.run()
    assert bench.backend.computed_rows == 64 + 8
    assert sum(bench.ended(str(n)).usage.cached_tokens for n in range(8)) == 7 * 64


def test_a_shared_prompt_is_prefilled_once_even_in_chunks():
    bench = Bench(prefill_chunk=16)
    for n in range(4):
        bench.open(str(n), fill("p" * 64 + str(n)), generate(1))
    bench.run()
    assert bench.backend.computed_rows == 64 + 4


def test_salts_keep_equal_prompts_apart():
    bench = Bench()
    bench.open("a", fill("p" * 64), generate(1), salt="one tenant")
    bench.open("b", fill("p" * 64), generate(1), salt="another")
    bench.run()
    assert bench.backend.computed_rows == 128


def test_a_later_turn_finds_what_was_generated_before():
    bench = Bench()
    bench.open("a", fill("u" * 32), generate(17, ignore_eos=True))
    bench.run()
    said = TOKENIZER.decode(bench.finished("a")[0].tokens)
    bench.open("b", fill("u" * 32 + said + "and now?"), generate(1))
    bench.run()
    assert bench.ended("b").usage.cached_tokens == 32 + 16


# --- What comes first ---------------------------------------------------------------------------------------


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


# --- Memory -------------------------------------------------------------------------------------------------


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
    bench = Bench(pages=10)
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


# --- What does not fit --------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_fails_at_once_with_the_numbers():
    bench = Bench(pages=64, context=32)
    bench.open("a", fill("x" * 32), generate(1))
    bench.run()
    assert bench.status("a") is EndStatus.FAILED
    code, message = bench.ended("a").error or ("", "")
    assert code == "context_exceeded"
    assert "32 tokens" in message
    assert not bench.backend.steps


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


# --- Late segments ------------------------------------------------------------------------------------------


def test_a_late_segment_gives_the_same_text_as_an_early_one():
    bench = Bench()
    bench.open("a", fill("the code: "), late(), fill(" the test: "), generate(9, temperature=1.0, seed=5))
    bench.run()
    bench.extend("a", 1, "print(1)")
    bench.run()
    assert bench.text("a") == alone(fill("the code: print(1) the test: "), generate(9, temperature=1.0, seed=5))


def test_known_segments_are_prefilled_while_a_later_one_is_missing():
    bench = Bench()
    bench.open("a", fill("x" * 30), late(), generate(1))
    bench.run()
    assert bench.backend.computed_rows == 30
    bench.extend("a", 1, "yy")
    bench.run()
    assert bench.backend.computed_rows == 32


def test_a_late_segment_may_come_in_parts_and_parts_may_come_twice():
    bench = Bench()
    bench.open("a", fill("the code: "), late(), generate(9))
    bench.extend("a", 1, "print", last=False)
    bench.run()
    bench.extend("a", 1, "print", last=False)
    bench.extend("a", 1, "nt(1", offset=3, last=False)
    bench.run()
    bench.extend("a", 1, ")", offset=7)
    bench.extend("a", 1, "ignored", offset=8)
    bench.run()
    assert bench.text("a") == alone(fill("the code: print(1)"), generate(9))


def test_a_part_that_is_missing_fails_the_sequence():
    bench = Bench()
    bench.open("a", late(), generate(9))
    bench.extend("a", 0, "late", offset=4)
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "engine_failed"


def test_an_extension_of_an_output_fails_the_sequence():
    bench = Bench()
    bench.open("a", late(), generate(9))
    bench.core.handle(Extend(sequence=A, epoch=1, segment=1, tokens=(1,)))
    bench.run()
    assert (bench.ended("a").error or ("",))[0] == "engine_failed"


def test_a_late_segment_may_turn_out_empty():
    bench = Bench()
    bench.open("a", fill("abc"), late(), generate(9))
    bench.extend("a", 1, "")
    bench.run()
    assert bench.text("a") == alone(fill("abc"), generate(9))


# --- Commands twice, late, or of another epoch --------------------------------------------------------------


def test_commands_given_twice_change_nothing():
    bench = Bench()
    for _ in range(2):
        bench.open("a", fill("x"), late(), generate(9))
        bench.core.handle(Pause(A, 1))
        bench.core.handle(Resume(A, 1))
        bench.extend("a", 1, "yz")
    bench.run()
    for _ in range(2):
        bench.open("a", fill("x"), late(), generate(9))
        bench.core.handle(Cancel(A, 1))
    bench.run()
    assert bench.status("a") is EndStatus.DONE
    assert bench.text("a") == alone(fill("xyz"), generate(9))


def test_commands_of_an_older_epoch_are_ignored():
    bench = Bench()
    bench.open("a", fill("x"), generate(9), epoch=2)
    bench.open("a", fill("y"), generate(9), epoch=1)
    bench.core.handle(Cancel(A, 1))
    bench.run()
    assert bench.text("a") == alone(fill("x"), generate(9))


def test_a_newer_epoch_replaces_what_the_sequence_did():
    bench = Bench()
    bench.open("a", fill("x"), generate(50, stream=True, ignore_eos=True), epoch=1)
    bench.step()
    bench.open("a", fill("y"), generate(9), epoch=2)
    bench.run()
    ends = [event for event in bench.events if isinstance(event, SequenceEnded)]
    assert [(end.epoch, end.status) for end in ends] == [(1, EndStatus.CANCELLED), (2, EndStatus.DONE)]
    assert bench.text("a") == alone(fill("y"), generate(9))


def test_commands_for_sequences_that_never_were_are_ignored():
    bench = Bench()
    bench.core.handle(Cancel(A, 1))
    bench.core.handle(Release("nothing"))
    bench.extend("a", 0, "x")
    assert bench.step() == []


# --- Pause, streams -----------------------------------------------------------------------------------------


def test_a_paused_sequence_makes_no_progress_and_then_goes_on():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(A, 1))
    steps = len(bench.backend.steps)
    bench.run()
    assert len(bench.backend.steps) == steps
    bench.core.handle(Resume(A, 1))
    bench.run()
    assert bench.text("a") == alone(fill("x"), generate(30, ignore_eos=True))


def test_who_streams_later_is_told_everything_so_far():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    for _ in range(10):
        bench.step()
    bench.core.handle(Update(sequence=A, epoch=1, stream=(1,)))
    bench.step()
    (event,) = streamed(bench)
    assert (event.offset, len(event.tokens)) == (0, 11)
    bench.run()
    assert "".join(event.text for event in streamed(bench)) == bench.text("a")


def test_who_streams_a_paused_sequence_is_told_what_it_has():
    bench = Bench()
    bench.open("a", fill("x"), generate(30, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(A, 1))
    bench.core.handle(Update(sequence=A, epoch=1, stream=(1,)))
    assert not bench.core.idle
    bench.step()
    assert [len(event.tokens) for event in streamed(bench)] == [1]


def test_an_output_not_yet_begun_can_be_streamed_too():
    bench = Bench()
    bench.open("a", fill("x"), generate(3), fill("y"), generate(4))
    bench.core.handle(Update(sequence=A, epoch=1, stream=(3,)))
    bench.run()
    assert {event.segment for event in streamed(bench)} == {3}
    assert "".join(event.text for event in streamed(bench)) == bench.text("a", 1)


# --- Going on after what was delivered ----------------------------------------------------------------------

SAMPLINGS = [
    {"temperature": 0.8, "seed": 7},
    {"temperature": 0.8, "seed": 7, "presence_penalty": 1.5, "frequency_penalty": 0.7, "repetition_penalty": 1.3},
    {"temperature": 0.8, "seed": 7, "min_tokens": 12},
    {"temperature": 0.8, "seed": 7, "stop": ("e", "zz")},
    {"temperature": 0.8, "seed": 7, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_rerun_after_any_number_of_delivered_tokens_goes_on_as_if_nothing_had_happened(sampling: dict[str, object]):
    first = Bench()
    first.open("a", fill("prompt"), generate(20, stream=True, **sampling))
    first.run()
    whole = first.finished("a")[0]
    for count in range(len(whole.tokens) + 1):
        again = Bench()
        again.open("a", fill("prompt"), generate(20, stream=True, delivered=whole.tokens[:count], **sampling))
        again.run()
        rerun = again.finished("a")[0]
        assert (rerun.tokens, rerun.text, rerun.reason) == (whole.tokens, whole.text, whole.reason)
        told = "".join(event.text for event in streamed(first) if event.offset < count)
        assert told + "".join(event.text for event in streamed(again)) == whole.text
        assert [token for event in streamed(again) for token in event.tokens] == list(whole.tokens[count:])


def test_the_outputs_after_a_delivered_one_are_the_same():
    def segments(delivered: tuple[int, ...]) -> tuple[object, ...]:
        return fill("x"), generate(6, stop=("e",), delivered=delivered), fill("y"), generate(6)

    first = Bench()
    first.open("a", *segments(()))  # type: ignore[arg-type]
    first.run()
    again = Bench()
    again.open("a", *segments(first.finished("a")[0].tokens))  # type: ignore[arg-type]
    again.run()
    assert again.text("a", 1) == first.text("a", 1)


# --- Counting -----------------------------------------------------------------------------------------------


def test_a_heartbeat_says_what_the_engine_holds():
    bench = Bench(pages=32, max_running=1)
    bench.open("a", fill("x" * 9), generate(5, ignore_eos=True))
    bench.open("b", fill("y" * 9), generate(5, ignore_eos=True))
    bench.step()
    assert bench.core.heartbeat() == Heartbeat(running=1, waiting=1, used_pages=3, free_pages=29, steps=1)
    bench.run()
    after = bench.core.heartbeat()
    assert (after.running, after.waiting, after.used_pages) == (0, 0, 0)
    assert after.cached_pages + after.free_pages == 32


def test_hashed_logits_tell_contexts_apart():
    assert PAGE == 4
    assert (hashed((1, 2)) != hashed((2, 1))).any()
