"""The engine loop, on a backend whose logits depend on exactly the tokens that a row attends to."""

from collections.abc import Mapping

import pytest
from token_backend import PAGE, TOKENIZER, Bench, alone, fill, generate, hashed, late, reciting, streamed

from parrotserve.engines.base import Cancel, EndStatus, Heartbeat, SegmentFinished, SequenceEnded
from parrotserve.engines.native import step_sampling
from parrotserve.engines.native.draw import Draw
from parrotserve.engines.native.logits import Logits
from parrotserve.engines.native.sampler import sample
from parrotserve.ids import RequestId
from parrotserve.sampling import FinishReason, TokenLogprob

A = RequestId("a")


# --- One sequence -----------------------------------------------------------------------------------------------


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


def test_what_was_written_is_no_prompt_though_it_is_read_on():
    bench = Bench()
    bench.open("a", fill("1234567890"), generate(50, ignore_eos=True), fill("x" * 100), generate(5))
    while not bench.finished("a"):
        bench.step()
    bench.core.handle(Cancel(sequence=A, epoch=1))
    bench.run()
    usage = bench.ended("a").usage
    assert (usage.prompt_tokens, usage.output_tokens) == (10, 50)


def test_a_question_that_cannot_be_answered_ends_the_sequence_that_asks_it_alone(monkeypatch: pytest.MonkeyPatch):
    def sampling(logits: Logits, draws: Mapping[int, Draw]) -> dict[int, tuple[int, TokenLogprob | None]]:
        if any(draw.sampling.seed == 13 for draw in draws.values()):
            raise IndexError("of a rule that has a fault")
        return sample(logits, draws)

    monkeypatch.setattr(step_sampling, "sample", sampling)
    bench = Bench()
    for name, seed in (("good", 1), ("bad", 13), ("fine", 2)):
        bench.open(name, fill("12345"), generate(4, temperature=1.0, seed=seed, ignore_eos=True))
    bench.run()
    assert [bench.status(name) for name in ("good", "bad", "fine")] == [
        EndStatus.DONE,
        EndStatus.FAILED,
        EndStatus.DONE,
    ]
    assert bench.text("good") == alone(fill("12345"), generate(4, temperature=1.0, seed=1, ignore_eos=True))


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


# --- Batches, chunks and sharing change nothing -----------------------------------------------------------------


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
    bench = Bench(prefill_chunk=8, speculate=False)
    bench.open("short", fill("hi"), generate(20, ignore_eos=True))
    bench.step()
    bench.open("long", fill("z" * 60), generate(1))
    bench.run()
    assert max(len(step.tokens) for step in bench.backend.steps) <= 8 + 2  # the prompt's rest
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


# --- Going on after what was delivered --------------------------------------------------------------------------


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


# --- Counting ---------------------------------------------------------------------------------------------------


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


def test_a_heartbeat_counts_nobody_as_running_who_cannot_go_on_before_the_next_command():
    bench = Bench(pages=4)
    for name in ("first", "second"):  # the second finds room for a part of what it knows
        bench.open(name, fill(f"{name} " * 2), late(), generate(1))
    bench.run()
    beat = bench.core.heartbeat()
    assert (beat.running, beat.waiting, beat.free_pages) == (0, 2, 0)
    bench.open("chat", fill("chat"), generate(5))
    bench.step()
    assert bench.core.heartbeat().running > 0


def test_hashed_logits_tell_contexts_apart():
    assert PAGE == 4
    assert (hashed((1, 2)) != hashed((2, 1))).any()
